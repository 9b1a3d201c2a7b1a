"""Where sealed credentials are kept: one S3 object per launch, under its own KMS data key.

1. `put` asks KMS for a data key bound to session, generation and owner, seals with it, and stores the envelope with
   SSE-KMS on top. It needs kms:GenerateDataKey and s3:PutObject, and cannot read anything back. No S3 bucket key: its
   encryption context would be the bucket instead of the object, and some writes with it need kms:Decrypt.
2. `get` needs s3:GetObject and kms:Decrypt; `purge` needs s3:DeleteObject, s3:DeleteObjectVersion, s3:GetObject and, on
   the bucket, s3:ListBucketVersions and s3:ListBucket (without the last, S3 answers 403 for an object that is gone, and
   "gone" could not be told from "forbidden"). Neither writes.
3. `purge` deletes every version and delete marker, of earlier launches too: an upload that lost a race may have left
   one. A later launch's credentials it never touches. It believes only what it sees afterwards: no version, HEAD 404.
4. Errors are translated here, once. No request carries a plaintext key or credential, so no exception of botocore's,
   which may quote its parameters, holds one either.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError

from chalicelib.aws import envelope
from chalicelib.aws.errors import CredentialsMissing, StoreRefused, StoreUnavailable
from chalicelib.bundle.credentials import Credentials
from chalicelib.errors import BadEnvelope, HomeportError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client

PURGE_ROUNDS: Final = 3  # a list page holds 1,000 versions, and there is normally one

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and the KMS API's common errors
_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_WRONG_CIPHERTEXT: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_TRANSIENT: Final = frozenset(
    {
        "DependencyTimeoutException",
        "InternalError",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class CredentialsStore:
    """The credentials of all sessions, each under `credentials/<sid>/<generation>`; it keeps nothing in memory."""

    def __init__(
        self,
        s3: S3Client,
        kms: KMSClient,
        *,
        bucket: str,
        key: str,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._s3 = s3
        self._kms = kms
        self._bucket = bucket
        self._key = key
        self._random_bytes = random_bytes

    def put(self, sid: str, generation: int, owner: str, credentials: Credentials) -> None:
        """Seal and store the credentials of one launch; raises StoreUnavailable."""
        sealed = self._sealed(credentials, _context(sid, generation, owner))
        with _translated("storing the credentials"):
            self._s3.put_object(
                Bucket=self._bucket,
                Key=object_key(sid, generation),
                Body=sealed,
                ContentType="application/octet-stream",
                ServerSideEncryption="aws:kms",
                SSEKMSKeyId=self._key,
            )

    def _sealed(self, credentials: Credentials, context: Mapping[str, str]) -> bytes:
        """Seal under a fresh data key, which is no variable of anybody's once the envelope is under way to S3."""
        with _translated("sealing the credentials"):
            fresh = self._kms.generate_data_key(KeyId=self._key, KeySpec="AES_256", EncryptionContext=context)
        return envelope.seal(
            credentials.to_bytes(),
            context,
            data_key=fresh["Plaintext"],
            wrapped_key=fresh["CiphertextBlob"],
            nonce=self._random_bytes(envelope.NONCE_BYTES),
        )

    def get(self, sid: str, generation: int, owner: str) -> Credentials:
        """Load and open the credentials of one launch; raises CredentialsMissing, BadEnvelope, StoreUnavailable."""
        sealed = self._read(object_key(sid, generation))
        return Credentials.from_bytes(self._opened(sealed, _context(sid, generation, owner)))

    def _opened(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """Open an envelope; the refusal of a bad one has no data key in its frames."""
        wrapped = envelope.wrapped_key(sealed)
        with _translated("opening the credentials"):
            fresh = self._kms.decrypt(KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=context)
        try:
            return envelope.open_(sealed, context, data_key=fresh["Plaintext"])
        except BadEnvelope as error:
            del fresh
            refusal = BadEnvelope(error.message)
        raise refusal

    def purge(self, sid: str, generation: int) -> None:
        """Delete the credentials of this launch and of any before it, in every version.

        Raises StoreUnavailable unless they are seen gone.
        """
        # Deleting is believed only when a list shows no version and a HEAD finds no object. What an upload stored
        # between the two is found in the next round.
        for _ in range(PURGE_ROUNDS):
            versions = self._versions(sid, generation)
            if not versions and not self._exists(object_key(sid, generation)):
                return
            with _translated("deleting the credentials"):
                for key, version in versions:
                    self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=version)
        raise StoreUnavailable("The stored credentials are not gone yet. They will be deleted again shortly")

    def holds(self, sid: str, generation: int) -> bool:
        """Say whether the credentials of one launch are stored; raises StoreUnavailable."""
        return self._exists(object_key(sid, generation))

    def _read(self, key: str) -> bytes:
        """Read an object of at most an envelope's size."""
        with _translated("loading the credentials"):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] > envelope.LARGEST_ENVELOPE:
                    raise BadEnvelope("The stored credentials are too large")
                return body.read(envelope.LARGEST_ENVELOPE + 1)

    def _versions(self, sid: str, generation: int) -> list[tuple[str, str]]:
        """List keys and version ids of objects and delete markers; without versioning the one id is "null"."""
        prefix = object_key(sid, "")
        with _translated("listing the credentials"):
            page = self._s3.list_object_versions(Bucket=self._bucket, Prefix=prefix)
        found = [(entry["Key"], entry["VersionId"]) for entry in page.get("Versions", [])]
        found += [(entry["Key"], entry["VersionId"]) for entry in page.get("DeleteMarkers", [])]
        return [(key, version) for key, version in found if _launch_of(key, prefix) <= generation]

    def _exists(self, key: str) -> bool:
        try:
            with _translated("looking for the credentials"):
                self._s3.head_object(Bucket=self._bucket, Key=key)
        except CredentialsMissing:
            return False
        return True


def object_key(sid: str, generation: int | str) -> str:
    """Name the object that holds the credentials of one launch; without a generation, what all of them begin with."""
    return f"credentials/{sid}/{generation}"


def _launch_of(key: str, prefix: str) -> int:
    """The generation an object's key names; 0, so that it is always deleted, for one that nobody here writes."""
    name = key.removeprefix(prefix)
    return int(name) if name.isascii() and name.isdigit() else 0


def _context(sid: str, generation: int, owner: str) -> Mapping[str, str]:
    """The session's identity: the KMS encryption context and the envelope's additional authenticated data."""
    return {"homeport:session": sid, "homeport:generation": str(generation), "homeport:owner": owner}


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn what botocore raises into Homeport's own errors; `doing` completes "while …"."""
    try:
        yield
    except ClientError as error:
        raise _answered(error, doing) from error
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise StoreUnavailable(f"The credentials store did not answer while {doing}. Try again in a moment") from error
    except BotoCoreError as error:
        name = type(error).__name__
        raise StoreRefused(f"The hub could not ask its credentials store ({name}) while {doing}") from error


def _answered(error: ClientError, doing: str) -> HomeportError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING:
        return CredentialsMissing("No credentials are stored for this session. Upload them again")
    if code in _WRONG_CIPHERTEXT:
        return BadEnvelope("The stored credentials were altered, or belong to another session")
    if code in _TRANSIENT or status >= 500 or status == 429:
        return StoreUnavailable(f"The credentials store was busy while {doing}. Try again in a moment")
    return StoreRefused(
        f"The credentials store refused ({code or status}) while {doing}. Please tell the hub's operator"
    )
