"""What IAM is asked for a call to AWS: action, resource and condition keys, as far as Homeport's own calls go.

A call is an operation of a service and its parameters, as botocore has them; `call_of` reads one from its HTTP request.

https://docs.aws.amazon.com/service-authorization/latest/reference/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from policy_sentry.querying.actions import get_action_data

from tests.policies import ACCOUNT, REGION, Context, Document, allows, listed

Asked = tuple[str, str, Context]  # action, resource, condition keys

S3_ACTIONS: Final = {  # operations whose action has another name
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "HeadObject": "s3:GetObject",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}
PLACE: Final = f"{REGION}:{ACCOUNT}"
PREFIXES: Final = {"monitoring": "cloudwatch"}  # services that sign with another name than policies have
# The parameters that name what a call is about, those that count first first, and its ARN; {} is what they say.
NAMED: Final[Mapping[str, Mapping[str, str]]] = {
    "acm": {"CertificateArn": "{}"},
    "cloudformation": {"StackName": f"arn:aws:cloudformation:{PLACE}:stack/{{}}/0a1b"},
    "dynamodb": {"TableName": f"arn:aws:dynamodb:{PLACE}:table/{{}}"},
    "ecr": {"repositoryName": f"arn:aws:ecr:{PLACE}:repository/{{}}"},
    "events": {"Name": f"arn:aws:events:{PLACE}:rule/{{}}", "Rule": f"arn:aws:events:{PLACE}:rule/{{}}"},
    "iam": {
        "RoleName": f"arn:aws:iam::{ACCOUNT}:role/{{}}",
        "PolicySourceArn": "{}",
        "PolicyName": f"arn:aws:iam::{ACCOUNT}:policy/{{}}",
    },
    "kms": {"KeyId": "{}"},
    "lambda": {
        "FunctionName": f"arn:aws:lambda:{PLACE}:function:{{}}",
        "Resource": "{}",
        "UUID": f"arn:aws:lambda:{PLACE}:event-source-mapping:{{}}",
    },
    "servicequotas": {"ServiceCode": f"arn:aws:servicequotas:{PLACE}:{{}}/L-0"},
    "ssm": dict.fromkeys(("Name", "Names"), f"arn:aws:ssm:{PLACE}:parameter{{}}"),
    "sqs": {"QueueName": f"arn:aws:sqs:{PLACE}:{{}}", "QueueUrl": f"arn:aws:sqs:{PLACE}:{{}}"},
}
KEY: Final = f"arn:aws:kms:{PLACE}:key/0a1b2c3d-0000-4000-8000-000000000000"
MAY_BE_REFUSED: Final = {"ec2:DescribeNetworkInterfaces"}  # to those who put no function into a network
ASKED_OF_ALL: Final = {"cloudwatch:DescribeAlarms"}  # which looks for alarms of all kinds, whatever names it is given
# S3's operations by method, whether an object is named, and what a query asks for besides S3_FIELDS.
S3_OPERATIONS: Final = {
    ("PUT", True, ""): "PutObject",
    ("GET", True, ""): "GetObject",
    ("HEAD", True, ""): "HeadObject",
    ("DELETE", True, ""): "DeleteObject",
    ("GET", False, "versions"): "ListObjectVersions",
    ("GET", False, "list-type"): "ListObjectsV2",
}
S3_FIELDS: Final = {"encoding-type": "EncodingType", "prefix": "Prefix", "versionId": "VersionId"}
S3_HEADERS: Final = {
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-server-side-encryption-bucket-key-enabled": "BucketKeyEnabled",
}
# Headers that say how a request is sent, or of its body; by what they begin with.
S3_OF_NO_MATTER: Final = (
    "x-amz-checksum-",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
)


def call_of(service: str, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, dict[str, Any]]:
    """The operation and parameters of an HTTP request to a service; header names are in lower case.

    Raises LookupError and ValueError for what nobody here would send.
    """
    if service != "s3":
        return headers["x-amz-target"].rpartition(".")[2], json.loads(body)
    parts = urlsplit(url)
    named, virtual, _ = (parts.hostname or "").partition(".s3.")
    bucket, _, key = unquote(f"/{named}{parts.path}" if virtual else parts.path)[1:].partition("/")
    query = {name: value for name, (value,) in parse_qs(parts.query, keep_blank_values=True).items()}
    amz = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
    given = {name: value for name, value in amz.items() if not name.startswith(S3_OF_NO_MATTER)}
    operation = S3_OPERATIONS[method, bool(key), "&".join(query.keys() - S3_FIELDS.keys())]
    params = {"Bucket": bucket, **({"Key": key} if key else {})}
    params |= {S3_FIELDS[name]: value for name, value in query.items() if name in S3_FIELDS}
    return operation, params | {S3_HEADERS[name]: value for name, value in given.items()}


def requests_of(
    service: str, operation: str, params: dict[str, Any], outputs: Mapping[str, str]
) -> Iterator[tuple[str, str, Context]]:
    """What IAM is asked for one call: action, resource, condition keys. More than one where S3 calls KMS in turn."""
    match service:
        case "dynamodb":
            yield from _of_table(operation, params, outputs)
        case "s3":
            assert params["Bucket"] == outputs["Bucket"]
            key = f"/{params['Key']}" if "Key" in params else ""
            action = S3_ACTIONS.get(operation, f"s3:{operation}")
            yield (f"{action}Version" if "VersionId" in params else action), outputs["BucketArn"] + key, {}
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
            queue = params["QueueUrl"].rpartition("/")[2]  # by which SQS knows it, whatever the host
            lane = queue.removeprefix(f"{outputs['Queues']}-")
            action = operation.removesuffix("Batch")  # which has no permission of its own
            yield f"sqs:{action}", outputs[f"{lane.capitalize()}QueueArn"], {}
        case _:
            raise AssertionError(f"nobody uses {service}")


def _of_table(operation: str, params: dict[str, Any], outputs: Mapping[str, str]) -> Iterator[tuple[str, str, Context]]:
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
        {**_leading_keys(params), **_attributes(operation, params), **_returned(params)},
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


def _returned(params: dict[str, Any]) -> Context:
    return {"dynamodb:ReturnValues": params["ReturnValues"]} if "ReturnValues" in params else {}


def _kms(
    operation: str, context: dict[str, str], outputs: Mapping[str, str], through: str = ""
) -> tuple[str, str, Context]:
    keys: dict[str, str | list[str]] = {f"kms:EncryptionContext:{name}": value for name, value in context.items()}
    keys["kms:EncryptionContextKeys"] = sorted(context)
    if through:
        keys["kms:ViaService"] = outputs[through]
    return f"kms:{operation}", outputs["KeyArn"], keys


# ── what operators ask for ──


@cache
def takes_no_resource(action: str) -> bool:
    """Whether AWS lets no policy say which things an action is about: then it is asked for on "*"."""
    try:
        known = get_action_data(*action.split(":", 1))
    except KeyError:  # policy-sentry knows no such service
        return False
    return action in ASKED_OF_ALL or {row["resource_arn_format"] for rows in known.values() for row in rows} == {"*"}


def operator_requests(service: str, operation: str, params: Mapping[str, Any]) -> Iterator[Asked]:
    """What IAM is asked for one call of whoever deploys or runs a hub; `service` is what it signs for.

    API Gateway's calls have a function of their own. An action that names nothing is asked for on "*".
    """
    yield from _in_turn(service, operation, params)
    action = f"{PREFIXES.get(service, service)}:{operation}"
    match service:
        case "sts":  # who one is may be asked by everybody
            return
        case "s3":
            versioned = operation == "DeleteObject" and "VersionId" in params
            action = "s3:DeleteObjectVersion" if versioned else S3_ACTIONS.get(operation, f"s3:{operation}")
            names = params.get("Keys") or [f"/{params['Key']}" if "Key" in params else ""]
            arns = [f"arn:aws:s3:::{params['Bucket']}{name}" for name in names]
        case "ecs":
            names = params.get("services") or [params["service"]]
            arns = [f"arn:aws:ecs:{PLACE}:service/{params['cluster']}/{name}" for name in names]
        case "iam" if operation == "CreateServiceLinkedRole":
            yield make_service_role(params["AWSServiceName"])
            return
        case "dynamodb" if "RequestItems" in params:
            arns = [_arn("dynamodb", "TableName", name) for name in params["RequestItems"]]
        case _:
            naming = next((name for name in NAMED.get(service, {}) if name in params), "")
            arns = [_arn(service, naming, name) for name in listed(params[naming])] if naming else []
    context = _leading_keys(dict(params)) if service == "dynamodb" else {}
    for arn in ["*"] if takes_no_resource(action) else arns or ["*"]:
        yield action, arn, context


def api_gateway_requests(method: str, path: str, params: Mapping[str, Any]) -> Iterator[Asked]:
    """The same of API Gateway, whose actions are methods and whose resources are paths."""
    yield f"apigateway:{method}", f"arn:aws:apigateway:{REGION}::{path}", {}
    for change in params.get("patchOperations", []):
        if change["path"] == "/cloudwatchRoleArn" and change.get("value"):
            yield pass_role(change["value"], "apigateway.amazonaws.com")


def refused(asked: Iterable[Asked], *policies: Document) -> Iterator[tuple[str, str]]:
    """The actions, and their resources, that none of the policies allows."""
    for action, resource, context in asked:
        allowed = any(allows(policy, action, resource, context) for policy in policies)
        if not allowed and action not in MAY_BE_REFUSED:
            yield action, resource


def make_service_role(service: str) -> Asked:
    """What making the role that an AWS service works with asks for."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{service}/AWSServiceRoleForIt"
    return "iam:CreateServiceLinkedRole", arn, {"iam:AWSServiceName": service}


def pass_role(arn: str, service: str) -> Asked:
    """What handing a role to an AWS service asks for."""
    return "iam:PassRole", arn, {"iam:PassedToService": service}


def _arn(service: str, naming: str, name: str) -> str:
    short = name.rpartition("/")[2] if naming == "QueueUrl" else name
    return name if name.startswith("arn:") else NAMED[service][naming].format(short)


def _in_turn(service: str, operation: str, params: Mapping[str, Any]) -> Iterator[Asked]:
    """What the service asks for besides, in the name of whoever calls it."""
    if service == "lambda" and params.get("Role"):
        yield pass_role(params["Role"], "lambda.amazonaws.com")
    if service == "lambda" and params.get("VpcConfig", {}).get("SubnetIds"):
        for action in ("DescribeSecurityGroups", "DescribeSubnets", "DescribeVpcs"):
            yield f"ec2:{action}", "*", {}
    if service == "lambda" and operation == "CreateFunction" and params.get("Tags"):
        yield "lambda:TagResource", _arn("lambda", "FunctionName", params["FunctionName"]), {}
    if service == "ssm" and (operation == "PutParameter" or params.get("WithDecryption")):
        action = "kms:Encrypt" if operation == "PutParameter" else "kms:Decrypt"
        for name in listed(params.get("Name") or params["Names"]):
            yield action, KEY, {"kms:EncryptionContext:PARAMETER_ARN": _arn("ssm", "Name", name)}
