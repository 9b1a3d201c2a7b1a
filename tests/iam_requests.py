"""What IAM is asked for a call to AWS: action, resource and condition keys, as far as Homeport's own calls go.

https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.policies import Context

S3_ACTIONS: Final = {  # operations whose action has another name
    "HeadObject": "s3:GetObject",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
}


def requests_of(
    service: str, operation: str, params: dict[str, Any], outputs: dict[str, str]
) -> Iterator[tuple[str, str, Context]]:
    """What IAM is asked for one call: action, resource, condition keys. More than one where S3 calls KMS in turn."""
    match service:
        case "dynamodb":
            yield from _of_table(operation, params, outputs)
        case "s3":
            assert params["Bucket"] == outputs["Bucket"]
            key = f"/{params['Key']}" if "Key" in params else ""
            action = S3_ACTIONS.get(operation, f"s3:{operation}")
            yield ("s3:DeleteObjectVersion" if "VersionId" in params else action), outputs["BucketArn"] + key, {}
            if operation in ("HeadObject", "GetObject"):  # to learn that an object is gone, and not merely hidden
                yield "s3:ListBucket", outputs["BucketArn"], {}
            if operation in ("PutObject", "GetObject"):
                assert not params.get("BucketKeyEnabled"), "its encryption context would be the bucket, not the object"
                assert params.get("SSEKMSKeyId", outputs["Key"]) == outputs["Key"]
                context = {"aws:s3:arn": outputs["BucketArn"] + key}
                yield _kms("GenerateDataKey" if operation == "PutObject" else "Decrypt", context, outputs, "S3Service")
        case "kms":
            assert params["KeyId"] == outputs["Key"]
            yield _kms(operation, params.get("EncryptionContext", {}), outputs)
        case "ssm":
            arn = outputs["CertificatesArn"] + params["Name"].removeprefix(outputs["Certificates"])
            yield f"ssm:{operation}", arn, {}
            yield _kms("Decrypt", {"PARAMETER_ARN": arn}, outputs, "SsmService")
        case "sqs":
            lane = params["QueueUrl"].removeprefix(f"{outputs['QueueUrls']}-")
            action = operation.removesuffix("Batch")  # which has no permission of its own
            yield f"sqs:{action}", outputs[f"{lane.capitalize()}QueueArn"], {}
        case _:
            raise AssertionError(f"nobody uses {service}")


def _of_table(operation: str, params: dict[str, Any], outputs: dict[str, str]) -> Iterator[tuple[str, str, Context]]:
    if operation == "TransactWriteItems":  # IAM is asked for each of its writes
        for write in params["TransactItems"]:
            for name, each in write.items():
                yield from _of_table(f"{name}Item", each, outputs)
        return
    assert {params.get("TableName"), *params.get("RequestItems", {})} - {None} == {outputs["Table"]}
    index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
    yield (
        f"dynamodb:{operation}",
        outputs["TableArn"] + index,
        {**_leading_keys(params), **_attributes(operation, params)},
    )


def _leading_keys(params: dict[str, Any]) -> Context:
    if "KeyConditionExpression" in params:  # the key comes first in every query here
        name = params["KeyConditionExpression"].split()[2]
        return {"dynamodb:LeadingKeys": [params["ExpressionAttributeValues"][name]["S"]]}
    one = params.get("Key") or params.get("Item")
    keys = [one] if one else [key for asked in params.get("RequestItems", {}).values() for key in asked["Keys"]]
    return {"dynamodb:LeadingKeys": [key["pk"]["S"] for key in keys]} if keys else {}


def _attributes(operation: str, params: dict[str, Any]) -> Context:
    if operation != "UpdateItem":  # nothing else is bound to attributes
        return {}
    return {"dynamodb:Attributes": ["pk", "sk", *params["ExpressionAttributeNames"].values()]}


def _kms(
    operation: str, context: dict[str, str], outputs: dict[str, str], through: str = ""
) -> tuple[str, str, Context]:
    keys: dict[str, str | list[str]] = {f"kms:EncryptionContext:{name}": value for name, value in context.items()}
    keys["kms:EncryptionContextKeys"] = sorted(context)
    if through:
        keys["kms:ViaService"] = outputs[through]
    return f"kms:{operation}", outputs["KeyArn"], keys
