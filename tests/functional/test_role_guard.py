"""The guard of the functions' roles (tests/role_guard.py): what it refuses, in whose words, and what it keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import boto3
import pytest
from botocore.exceptions import ClientError

from chalicelib.aws.credentials import CredentialsStore
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from infra.certificates import ensure_certificates
from infra.stack import deploy_stack
from tests.builders import NOW, a_session
from tests.policies import REGION, ROOT, STAGE
from tests.role_guard import RoleGuard, guarded_moto
from tests.roles import acting_as

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")

SESSION: Final = a_session()
SEALED: Final = ["homeport:session", "homeport:generation", "homeport:owner"]
# Not a real key: nothing here reads it.
CREDENTIALS: Final = Credentials(Endpoint("203.0.113.7", 2376), b"a CA", b"certificate", b"key")
EVERYTHING: Final = {"Statement": [{"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}]}


class Rig:
    """A guarded server with a deployed stack, and clients that all sign with one access key."""

    def __init__(self, url: str) -> None:
        self.session = boto3.Session("test", "test", region_name=REGION)
        self._url = url
        template = (ROOT / "infra" / "resources.yaml").read_text()
        cloudformation, stage = self.client("cloudformation"), {"Stage": STAGE}
        self.outputs = deploy_stack(cloudformation, name=f"homeport-{STAGE}", template=template, parameters=stage)
        certificates, key = self.outputs["Certificates"], self.outputs["Key"]
        ensure_certificates(self.client("ssm"), prefix=certificates, key_id=key, now=NOW)

    def client(self, service: str) -> Any:
        return self.session.client(service, endpoint_url=self._url)  # type: ignore[call-overload]  # a variable

    def credentials(self) -> CredentialsStore:
        return CredentialsStore(
            self.client("s3"), self.client("kms"), bucket=self.outputs["Bucket"], key=self.outputs["Key"]
        )


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Rig, RoleGuard]]:
    with guarded_moto() as (url, application):
        yield Rig(url), application.guard


@pytest.fixture
def rig(served: tuple[Rig, RoleGuard]) -> Rig:
    return served[0]


@pytest.fixture
def guard(served: tuple[Rig, RoleGuard]) -> RoleGuard:
    """The server's guard, which has seen nothing yet."""
    served[1].used.clear()
    served[1].refused.clear()
    return served[1]


def item(pk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": "session"}}


Call = Callable[[Rig], object]
# Who asks → what for, and what IAM calls it that is missing.
NOT_ALLOWED: Final[dict[str, tuple[str, Call, str]]] = {
    "reading a session": (
        "proxy",
        lambda rig: rig.client("dynamodb").get_item(TableName=rig.outputs["Table"], Key=item("session#1")),
        "dynamodb:GetItem",
    ),
    "writing one of two items": (
        "launch",
        lambda rig: rig.client("dynamodb").transact_write_items(
            TransactItems=[
                {"Put": {"TableName": rig.outputs["Table"], "Item": item(pk)}} for pk in ("session#1", "token#1")
            ]
        ),
        "dynamodb:PutItem",
    ),
    "scanning": ("web", lambda rig: rig.client("dynamodb").scan(TableName=rig.outputs["Table"]), "dynamodb:Scan"),
    "asking for a pull": (
        "web",
        lambda rig: rig.client("sqs").send_message(QueueUrl=f"{rig.outputs['QueueUrls']}-pull", MessageBody="{}"),
        "sqs:SendMessage",
    ),
    "reading a certificate": (
        "leave",
        lambda rig: rig.client("ssm").get_parameter(Name=f"{rig.outputs['Certificates']}/client-ca"),
        "ssm:GetParameter",
    ),
    "a data key for no session": (
        "web",
        lambda rig: rig.client("kms").generate_data_key(KeyId=rig.outputs["Key"], KeySpec="AES_256"),
        "kms:GenerateDataKey",
    ),
    "loading an object": (
        "web",
        lambda rig: rig.client("s3").get_object(Bucket=rig.outputs["Bucket"], Key="credentials/a/1"),
        "s3:GetObject",
    ),
    "an earlier version of it": (
        "launch",
        lambda rig: rig.client("s3").get_object(Bucket=rig.outputs["Bucket"], Key="credentials/a/1", VersionId="1"),
        "s3:GetObjectVersion",
    ),
    "storing elsewhere": (
        "web",
        lambda rig: rig.client("s3").put_object(Bucket=rig.outputs["Bucket"], Key="artefacts/1", Body=b"a zip"),
        "s3:PutObject",
    ),
}
UNKNOWN: Final[dict[str, Call]] = {
    "a service": lambda rig: rig.client("sns").list_topics(),
    "an operation of S3": lambda rig: rig.client("s3").get_bucket_policy(Bucket=rig.outputs["Bucket"]),
    "a copy in S3": lambda rig: rig.client("s3").copy_object(
        Bucket=rig.outputs["Bucket"], Key="credentials/b/1", CopySource=f"{rig.outputs['Bucket']}/credentials/a/1"
    ),
    "an operation on many items": lambda rig: rig.client("dynamodb").batch_write_item(
        RequestItems={rig.outputs["Table"]: [{"DeleteRequest": {"Key": item("session#1")}}]}
    ),
    "another table": lambda rig: rig.client("dynamodb").get_item(TableName="another", Key=item("session#1")),
    "another bucket": lambda rig: rig.client("s3").get_object(Bucket="another", Key="credentials/a/1"),
    "all queues": lambda rig: rig.client("sqs").list_queues(),
}


@pytest.mark.parametrize("what", NOT_ALLOWED)
def test_what_a_role_may_not_is_refused_in_the_services_own_words(rig: Rig, guard: RoleGuard, what: str) -> None:
    role, call, action = NOT_ALLOWED[what]
    with acting_as(role, rig.session), pytest.raises(ClientError, match=f"not allowed: {action} on") as raised:
        call(rig)
    of_s3 = action.startswith("s3:")
    assert raised.value.response["Error"]["Code"] == ("AccessDenied" if of_s3 else "AccessDeniedException")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == (403 if of_s3 else 400)
    assert [one.partition(" on ")[0] for one in guard.refused] == [f"{role}: {action}"]


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_nobody_knows_is_refused(rig: Rig, guard: RoleGuard, what: str) -> None:
    guard.policies["web"], policy = EVERYTHING, guard.policies["web"]
    try:
        with acting_as("web", rig.session), suppress(ClientError):
            UNKNOWN[what](rig)
    finally:
        guard.policies["web"] = policy
    assert len(guard.refused) == 1
    assert guard.refused[0].startswith("web: ")


def test_who_is_no_function_may_do_everything(rig: Rig, guard: RoleGuard) -> None:
    rig.client("dynamodb").scan(TableName=rig.outputs["Table"])
    assert (guard.used, guard.refused) == (set(), [])


def test_what_was_used_is_kept(rig: Rig, guard: RoleGuard) -> None:
    with acting_as("web", rig.session):
        rig.credentials().put(SESSION.sid, 1, SESSION.owner, CREDENTIALS)
    with acting_as("leave", rig.session):
        assert rig.credentials().get(SESSION.sid, 1, SESSION.owner) == CREDENTIALS
        rig.credentials().purge(SESSION.sid, 1)
    assert guard.refused == []
    assert guard.used == {
        ("web", "SealCredentials", "kms:GenerateDataKey", ""),
        ("web", "StoreSealedCredentials", "s3:PutObject", ""),
        ("web", "EncryptStoredObjects", "kms:GenerateDataKey", ""),
        ("leave", "LoadAndPurgeSealedCredentials", "s3:GetObject", ""),
        ("leave", "LoadAndPurgeSealedCredentials", "s3:DeleteObjectVersion", ""),
        ("leave", "SeeThatPurgedCredentialsAreGone", "s3:ListBucket", ""),
        ("leave", "SeeThatPurgedCredentialsAreGone", "s3:ListBucketVersions", ""),
        ("leave", "OpenCredentials", "kms:Decrypt", ""),
        ("leave", "DecryptStoredObjects", "kms:Decrypt", ""),
    }
    assert guard.used < guard.granted()


@pytest.mark.parametrize(
    ("service", "operation", "wrong"),
    [
        ("s3", "GetObject", "s3:GetObject"),
        ("kms", "Decrypt", "kms:Decrypt"),
        ("ssm", "GetParameter", "kms:Decrypt"),
    ],
)
def test_the_keys_and_the_buckets_policies_refuse_a_role_that_has_everything(
    rig: Rig, guard: RoleGuard, service: str, operation: str, wrong: str
) -> None:
    of_service: dict[str, dict[str, Any]] = {
        "s3": {"Bucket": rig.outputs["Bucket"], "Key": "credentials/a/1"},
        "kms": {"KeyId": rig.outputs["Key"], "EncryptionContext": dict.fromkeys(SEALED, "")},
        "ssm": {"Name": f"{rig.outputs['Certificates']}/notebook-ca"},
    }
    params, alone = of_service[service], RoleGuard(rig.outputs)
    for role in ("web", "launch"):
        alone.policies[role] = EVERYTHING
    assert alone.refusal("launch", service, operation, params) == ""
    assert alone.refusal("web", service, operation, params).startswith(f"not allowed: {wrong} on ")
