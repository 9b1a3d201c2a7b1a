"""The store of sealed credentials against moto's S3 and KMS, with and without bucket versioning."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.stub import Stubber
from moto import mock_aws

from chalicelib.aws import envelope
from chalicelib.aws.credentials import CredentialsStore, object_key
from chalicelib.aws.errors import CredentialsMissing, StoreRefused, StoreUnavailable
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.errors import BadEnvelope, HomeportError
from tests.contract.credentials import CredentialsContract

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client

SID, OTHER_SID = "0123456789abcdefghij", "vutsrqponmlkjihgfedc"
OWNER, OTHER_OWNER = "0a" * 32, "0b" * 32


def credentials_of(visitor: str) -> Credentials:
    return Credentials(
        Endpoint(f"{visitor}.example", 2376), b"ca", b"certificate", f"the secret key of {visitor}".encode()
    )


MINE = credentials_of("alice")


@dataclass(frozen=True)
class Aws:
    """Moto's S3 and KMS, the key's id, and the names of the operations that were called."""

    s3: S3Client
    kms: KMSClient
    bucket: str
    key: str
    called: list[str]

    def store(self) -> CredentialsStore:
        return CredentialsStore(self.s3, self.kms, bucket=self.bucket, key=self.key)

    def stored(self, sid: str = SID, generation: int = 1) -> bytes:
        return self.s3.get_object(Bucket=self.bucket, Key=object_key(sid, generation))["Body"].read()

    def replace_stored(self, content: bytes, sid: str = SID, generation: int = 1) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=object_key(sid, generation), Body=content)

    def versions(self, sid: str = SID, generation: int = 1) -> int:
        page = self.s3.list_object_versions(Bucket=self.bucket, Prefix=object_key(sid, generation))
        return len(page.get("Versions", [])) + len(page.get("DeleteMarkers", []))


def _client(service: str) -> Any:
    return boto3.client(  # type: ignore[call-overload]
        service,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )


@dataclass(frozen=True)
class Clients:
    """What is slow to make: once for the whole module."""

    s3: S3Client
    kms: KMSClient
    called: list[str]


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with mock_aws():
        made = Clients(_client("s3"), _client("kms"), [])
        for client in (made.s3, made.kms):
            client.meta.events.register("before-call", lambda model, **_: made.called.append(model.name))
        yield made


@pytest.fixture(params=["unversioned", "versioned"])
def aws(clients: Clients, request: pytest.FixtureRequest) -> Aws:
    """A fresh bucket and a fresh key."""
    bucket = f"homeport-{uuid4().hex}"
    clients.s3.create_bucket(Bucket=bucket)
    if request.param == "versioned":
        clients.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    key = clients.kms.create_key()["KeyMetadata"]["Arn"]
    clients.called.clear()
    return Aws(clients.s3, clients.kms, bucket, key, clients.called)


# ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_put_is_got_back(aws: Aws) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    assert aws.store().get(SID, 1, OWNER) == MINE


def test_a_second_put_replaces_the_first(aws: Aws) -> None:
    aws.store().put(SID, 1, OWNER, credentials_of("bob"))
    aws.store().put(SID, 1, OWNER, MINE)
    assert aws.store().get(SID, 1, OWNER) == MINE


def test_nothing_is_stored_in_the_clear_and_s3_encrypts_once_more(aws: Aws) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    for part in (MINE.key, MINE.certificate, b"alice.example", OWNER.encode()):
        assert part not in aws.stored()
    head = aws.s3.head_object(Bucket=aws.bucket, Key=f"credentials/{SID}/1")
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"] == aws.key
    assert head["Metadata"] == {}


def test_every_object_has_its_own_data_key(aws: Aws) -> None:
    wrapped = set()
    for generation in (1, 2, 3):
        aws.store().put(SID, generation, OWNER, MINE)
        wrapped.add(envelope.wrapped_key(aws.stored(generation=generation)))
    assert len(wrapped) == 3


def test_putting_and_getting_use_no_operation_but_their_own(aws: Aws) -> None:
    """The web role has only the first two, the launcher's only the others: neither can do the other's work."""
    aws.called.clear()
    aws.store().put(SID, 1, OWNER, MINE)
    assert aws.called == ["GenerateDataKey", "PutObject"]
    aws.called.clear()
    aws.store().get(SID, 1, OWNER)
    assert aws.called == ["GetObject", "Decrypt"]


def test_fifty_visitors_at_the_same_time_get_their_own(aws: Aws) -> None:
    """The ancestor kept the last upload on a shared object and gave it to everybody."""
    store = aws.store()
    visitors = [f"visitor{number}" for number in range(50)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, 1, f"owner-{name}", credentials_of(name)), visitors))
        random.Random(7).shuffle(visitors)
        got = list(pool.map(lambda name: store.get(name, 1, f"owner-{name}"), visitors))
    assert got == [credentials_of(name) for name in visitors]


# ── what is not ours does not open ───────────────────────────────────────────────────────────────────────────────


def test_credentials_that_were_never_stored_are_missing(aws: Aws) -> None:
    with pytest.raises(CredentialsMissing):
        aws.store().get(SID, 1, OWNER)


@pytest.mark.parametrize(
    ("sid", "generation", "owner"),
    [(OTHER_SID, 1, OWNER), (SID, 2, OWNER), (SID, 1, OTHER_OWNER)],
    ids=["session", "generation", "owner"],
)
def test_an_envelope_swapped_between_sessions_is_refused(aws: Aws, sid: str, generation: int, owner: str) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    aws.replace_stored(aws.stored(), sid, generation)
    with pytest.raises(BadEnvelope):
        aws.store().get(sid, generation, owner)


def test_a_changed_envelope_is_refused(aws: Aws) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    good = aws.stored()
    for position in (0, len(good) // 2, len(good) - 1):
        aws.replace_stored(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(BadEnvelope):
            aws.store().get(SID, 1, OWNER)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01\x00\x10short"], ids=["empty", "one byte", "cut off"])
def test_a_truncated_object_is_refused_before_kms_is_asked(aws: Aws, content: bytes) -> None:
    aws.replace_stored(content)
    aws.called.clear()
    with pytest.raises(BadEnvelope):
        aws.store().get(SID, 1, OWNER)
    assert aws.called == ["GetObject"]


def test_an_object_that_is_too_large_is_not_read(aws: Aws) -> None:
    aws.replace_stored(bytes(envelope.LARGEST_ENVELOPE + 1))
    aws.called.clear()
    with pytest.raises(BadEnvelope, match="too large"):
        aws.store().get(SID, 1, OWNER)
    assert aws.called == ["GetObject"]


# ── purging ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_purged_credentials_are_gone_in_every_version(aws: Aws) -> None:
    store = aws.store()
    for _ in range(3):
        store.put(SID, 1, OWNER, MINE)
    aws.s3.delete_object(Bucket=aws.bucket, Key=object_key(SID, 1))  # a delete marker, where there are versions
    store.put(SID, 1, OWNER, MINE)
    store.purge(SID, 1)
    assert aws.versions() == 0
    with pytest.raises(CredentialsMissing):
        store.get(SID, 1, OWNER)


def test_purging_what_only_a_delete_marker_hides_deletes_it_too(aws: Aws) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    aws.s3.delete_object(Bucket=aws.bucket, Key=object_key(SID, 1))
    aws.store().purge(SID, 1)
    assert aws.versions() == 0


def test_purging_twice_or_nothing_at_all_is_no_error(aws: Aws) -> None:
    aws.store().purge(SID, 1)
    aws.store().put(SID, 1, OWNER, MINE)
    aws.store().purge(SID, 1)
    aws.store().purge(SID, 1)


def test_purging_takes_earlier_launches_strays_and_leaves_later_launches_and_others_alone(aws: Aws) -> None:
    """…/1 is a prefix of …/10, and S3 lists by prefix."""
    store = aws.store()
    for sid, generation in ((SID, 1), (SID, 2), (SID, 10), (SID, 3), (OTHER_SID, 1)):
        store.put(sid, generation, OWNER, MINE)
    store.purge(SID, 2)
    for generation in (1, 2):
        with pytest.raises(CredentialsMissing):
            store.get(SID, generation, OWNER)
    for sid, generation in ((SID, 10), (SID, 3), (OTHER_SID, 1)):
        assert store.get(sid, generation, OWNER) == MINE


def test_purging_lists_deletes_and_looks_again_and_never_writes(aws: Aws) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    aws.called.clear()
    aws.store().purge(SID, 1)
    assert aws.called == ["ListObjectVersions", "DeleteObject", "ListObjectVersions", "HeadObject"]


class DeafS3:
    """A stand-in for S3 that says yes to every delete and deletes nothing."""

    def __init__(self, s3: S3Client) -> None:
        self._s3: Any = s3
        self.head_object = s3.head_object

    def list_object_versions(self, **request: Any) -> Any:
        return self._s3.list_object_versions(**request)

    def delete_object(self, **_: Any) -> dict[str, Any]:
        return {}


class BlindS3(DeafS3):
    """A stand-in for S3 whose list shows nothing, while the object is there."""

    def list_object_versions(self, **_: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("failing", [DeafS3, BlindS3])
def test_credentials_that_are_still_there_after_a_purge_are_an_error(
    aws: Aws, failing: Callable[[S3Client], Any]
) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    store = CredentialsStore(failing(aws.s3), aws.kms, bucket=aws.bucket, key=aws.key)
    with pytest.raises(StoreUnavailable, match="not gone"):
        store.purge(SID, 1)


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────

ANSWERS = [
    ("decrypt", "InvalidCiphertextException", 400, BadEnvelope),
    ("decrypt", "IncorrectKeyException", 400, BadEnvelope),
    ("decrypt", "AccessDeniedException", 400, StoreRefused),
    ("decrypt", "DisabledException", 400, StoreRefused),
    ("decrypt", "NotFoundException", 400, StoreRefused),
    ("decrypt", "ThrottlingException", 400, StoreUnavailable),
    ("decrypt", "KMSInternalException", 500, StoreUnavailable),
    ("decrypt", "DependencyTimeoutException", 503, StoreUnavailable),
    ("decrypt", "KeyUnavailableException", 500, StoreUnavailable),
    ("generate_data_key", "ThrottlingException", 400, StoreUnavailable),
    ("generate_data_key", "AccessDeniedException", 400, StoreRefused),
    ("generate_data_key", "KMSInvalidStateException", 400, StoreRefused),
    ("put_object", "SlowDown", 503, StoreUnavailable),
    ("put_object", "InternalError", 500, StoreUnavailable),
    ("put_object", "AccessDenied", 403, StoreRefused),
    ("put_object", "NoSuchBucket", 404, StoreRefused),
    ("get_object", "NoSuchKey", 404, CredentialsMissing),
    ("get_object", "NoSuchBucket", 404, StoreRefused),
    ("get_object", "AccessDenied", 403, StoreRefused),
    ("get_object", "RequestTimeout", 400, StoreUnavailable),
    ("get_object", "TooManyRequests", 429, StoreUnavailable),
    ("list_object_versions", "AccessDenied", 403, StoreRefused),
    ("list_object_versions", "SlowDown", 503, StoreUnavailable),
    ("delete_object", "AccessDenied", 403, StoreRefused),
    ("delete_object", "ServiceUnavailable", 503, StoreUnavailable),
    ("head_object", "403", 403, StoreRefused),
    ("head_object", "500", 500, StoreUnavailable),
]
KMS_OPERATIONS = ("decrypt", "generate_data_key")


def _run(store: CredentialsStore, operation: str) -> None:
    """Do what leads to the operation."""
    match operation:
        case "generate_data_key" | "put_object":
            store.put(SID, 1, OWNER, MINE)
        case "get_object" | "decrypt":
            store.get(SID, 1, OWNER)
        case _:
            store.purge(SID, 1)


@pytest.mark.parametrize("aws", ["unversioned"], indirect=True)
@pytest.mark.parametrize(("operation", "code", "status", "expected"), ANSWERS)
def test_each_answer_of_aws_becomes_one_error_of_ours(
    aws: Aws, operation: str, code: str, status: int, expected: type[HomeportError]
) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    if operation == "head_object":
        aws.s3.delete_object(Bucket=aws.bucket, Key=object_key(SID, 1))
    client: Any = aws.kms if operation in KMS_OPERATIONS else aws.s3
    failing = Failing(client, operation, _answer(client, operation, code, status))
    with pytest.raises(expected) as failure:
        _run(_with(aws, failing, operation), operation)
    assert type(failure.value) is expected
    assert "arn:" not in failure.value.message


def _answer(client: Any, operation: str, code: str, status: int) -> Exception:
    """The exception that the real client raises for such an answer."""
    with Stubber(client) as stub:
        stub.add_client_error(operation, code, f"no permission on arn:aws:kms:…:{OWNER}", status)
        with pytest.raises(client.exceptions.ClientError) as raised:
            getattr(client, operation)(**_ARGUMENTS[operation])
    error: Exception = raised.value
    return error


_OBJECT = {"Bucket": "bucket", "Key": "k"}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "decrypt": {"CiphertextBlob": b"x"},
    "generate_data_key": {"KeyId": "k"},
    "list_object_versions": {"Bucket": "bucket"},
    "put_object": _OBJECT,
    "get_object": _OBJECT,
    "delete_object": _OBJECT,
    "head_object": _OBJECT,
}


class Failing:
    """A client of which one operation raises."""

    def __init__(self, client: Any, operation: str, error: Exception) -> None:
        self._client = client
        self._operation = operation
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return self._raise if name == self._operation else getattr(self._client, name)

    def _raise(self, **_: Any) -> None:
        raise self._error


def _with(aws: Aws, failing: Failing, operation: str) -> CredentialsStore:
    changed = replace(aws, kms=failing) if operation in KMS_OPERATIONS else replace(aws, s3=failing)  # type: ignore[arg-type]
    return changed.store()


@pytest.mark.parametrize("aws", ["unversioned"], indirect=True)
@pytest.mark.parametrize("operation", _ARGUMENTS)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url="https://aws.example"), StoreUnavailable),
        (ConnectTimeoutError(endpoint_url="https://aws.example"), StoreUnavailable),
        (ReadTimeoutError(endpoint_url="https://aws.example"), StoreUnavailable),
        (SSLError(endpoint_url="https://aws.example", error=OSError("certificate")), StoreUnavailable),
        (NoCredentialsError(), StoreRefused),
        (ParamValidationError(report="hunter2"), StoreRefused),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BotoCoreError) else "",
)
def test_no_answer_can_be_tried_again_and_no_request_cannot(
    aws: Aws, operation: str, error: Exception, expected: type[HomeportError]
) -> None:
    aws.store().put(SID, 1, OWNER, MINE)
    if operation == "head_object":
        aws.s3.delete_object(Bucket=aws.bucket, Key=object_key(SID, 1))
    client: Any = aws.kms if operation in KMS_OPERATIONS else aws.s3
    with pytest.raises(expected) as failure:
        _run(_with(aws, Failing(client, operation, error), operation), operation)
    assert "hunter2" not in failure.value.message


class TornBody:
    """The body of an answer that breaks off in the middle."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.closed = False

    def read(self, _amount: int) -> bytes:
        raise self._error

    def close(self) -> None:
        self.closed = True


class TornS3:
    """A stand-in for S3 whose answers end too early."""

    def __init__(self, body: TornBody) -> None:
        self._body = body

    def get_object(self, **_: Any) -> dict[str, Any]:
        return {"ContentLength": 100, "Body": self._body}


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://aws.example"),
        ResponseStreamingError(error="reset"),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_answer_that_breaks_off_can_be_tried_again_and_is_closed(error: Exception) -> None:
    body = TornBody(error)
    torn: Any = TornS3(body)
    no_kms: Any = None
    with pytest.raises(StoreUnavailable):
        CredentialsStore(torn, no_kms, bucket="bucket", key="k").get(SID, 1, OWNER)
    assert body.closed


@pytest.mark.parametrize("aws", ["unversioned"], indirect=True)
def test_no_key_is_logged_printed_or_raised(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    store = aws.store()
    store.put(SID, 1, OWNER, MINE)
    aws.replace_stored(aws.stored(), OTHER_SID)
    with pytest.raises(BadEnvelope) as failure:
        store.get(OTHER_SID, 1, OWNER)
    seen = (
        f"{caplog.text}{store!r}{vars(store)!r}{failure.value!r}{failure.value.__cause__!r}{store.get(SID, 1, OWNER)!r}"
    )
    assert "secret key" not in seen


class TestCredentialsStore(CredentialsContract):
    @pytest.fixture
    def credentials(self, aws: Aws) -> CredentialsStore:
        return aws.store()
