"""What stands in front of the embedded AWS: only requests signed with this run's access key get in.

Every user of the machine, and every page in a browser on it, can connect to a port on loopback. moto itself checks no
signature, answers any origin, and would start containers for some of its services. So each request is checked first, in
this order, and refused with an error in AWS's form:

1. No browser: a request with `Origin`, or with any `Sec-…` header, comes from a page.
2. `Host` is the address that clients were told. A page whose name was bound again, to 127.0.0.1, has another.
3. The signature is Signature Version 4 in `Authorization`, with the run's key, for one of SERVICES. Presigned URLs
   carry none there.
4. It is at most SKEW seconds old.
5. It covers the host and every `x-amz-…` header that the request has.
6. It covers the body. `UNSIGNED-PAYLOAD` and the streaming forms are refused; boto3 uses them over TLS alone.
7. It is the one that botocore's own signer computes.

Only root can read what others send on loopback. So nobody has a signed request to send again, and none is remembered.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REGION: Final = "us-east-1"
# What the functions, the agent and the creation of the stack use; a signature's scope and moto both say it so.
SERVICES: Final = frozenset({"cloudformation", "dynamodb", "kms", "s3", "sqs", "ssm"})
SKEW: Final = 300.0  # seconds; AWS allows as much, or 900 for some services
MAX_BODY: Final = 16 * 2**20  # bytes; the largest is a template of 50 kB
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 "
    r"Credential=(?P<id>\w+)/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9.-]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of the embedded AWS; each run has its own."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> AccessKey:
        """Make a random one."""
        return cls("HOMEPORT" + secrets.token_hex(16).upper(), secrets.token_hex(32))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> AccessKey:
        """Read it from where boto3 reads it."""
        return cls(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])


class Refused(Exception):
    """A request that does not get in; `code` is AWS's name for the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Gate:
    """Lets requests signed with `key` for `host` through to `application`; a WSGI application itself.

    `clock` gives seconds since the epoch.
    """

    def __init__(self, application: WSGIApplication, *, key: AccessKey, host: str, clock: Callable[[], float]) -> None:
        self._application = application
        self._key = key
        self._host = host
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        try:
            body = self._checked(environ)
        except Refused as refused:
            return refuse(refused, environ, start_response)
        environ["wsgi.input"] = io.BytesIO(body)
        return self._application(environ, start_response)

    def _checked(self, environ: WSGIEnvironment) -> bytes:
        """Give the body of a request that may get in; raises Refused."""
        headers = _headers(environ)
        _refuse_browsers(headers)
        target = environ["REQUEST_URI"]
        if headers.get("host") != self._host or not target.startswith("/"):
            raise Refused("AccessDenied", "The request names another host than this one.")
        signed = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if signed is None:
            raise Refused(
                "MissingAuthenticationToken",
                "There is no Authorization with an AWS Signature Version 4; presigned URLs are not accepted.",
            )
        if not hmac.compare_digest(signed["id"], self._key.id):
            raise Refused("InvalidClientTokenId", "The access key is not the one of this run.")
        self._check_scope(signed, headers)
        _check_coverage(signed, headers)
        body = _body(environ, headers)
        _check_body(signed, headers, body)
        covered = {name: headers[name] for name in signed["headers"].split(";")}
        request = AWSRequest(
            method=environ["REQUEST_METHOD"], url=f"http://{self._host}{target}", headers=covered, data=body
        )
        if not hmac.compare_digest(signed["signature"], self._signature(signed, request)):
            raise Refused("SignatureDoesNotMatch", "The signature is not the one of this request.")
        return body

    def _check_scope(self, signed: re.Match[str], headers: Mapping[str, str]) -> None:
        if signed["service"] not in SERVICES or signed["region"] != REGION:
            raise Refused("AccessDenied", f"{signed['service']} in {signed['region']} is not offered here.")
        date = headers.get("x-amz-date", "")
        try:
            signed_at = datetime.strptime(date, _TIMESTAMP).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise Refused("SignatureDoesNotMatch", "X-Amz-Date is missing or no date.") from None
        if not date.startswith(signed["date"]) or abs(self._clock() - signed_at) > SKEW:
            raise Refused("RequestTimeTooSkewed", f"The signature is more than {SKEW:.0f} seconds away from now.")

    def _signature(self, signed: re.Match[str], request: AWSRequest) -> str:
        """Compute the signature as botocore's clients do."""
        kind = S3SigV4Auth if signed["service"] == "s3" else SigV4Auth
        signer = kind(Credentials(self._key.id, self._key.secret), signed["service"], REGION)
        request.context["timestamp"] = request.headers["X-Amz-Date"]
        canonical = signer.canonical_request(request)
        return str(signer.signature(signer.string_to_sign(request, canonical), request))


def closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Refuse: in place of an application of moto's that is not for SERVICES."""
    return refuse(Refused("AccessDenied", "This is not offered here."), environ, start_response)


def refuse(refused: Refused, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer in the form that the clients of the service expect, so that botocore raises its ClientError."""
    headers = _headers(environ)
    message = str(refused)
    if "x-amz-target" in headers or "json" in headers.get("content-type", ""):
        kind, text = "application/x-amz-json-1.1", json.dumps({"__type": refused.code, "message": message})
    else:
        error = f"<Error><Code>{escape(refused.code)}</Code><Message>{escape(message)}</Message></Error>"
        kind, text = "text/xml", f"<ErrorResponse>{error}<RequestId>none</RequestId></ErrorResponse>"
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode()
    answer = [("Content-Type", kind), ("Content-Length", str(len(body))), ("x-amzn-ErrorType", refused.code)]
    start_response("403 Forbidden", [*answer, ("X-Content-Type-Options", "nosniff")])
    return [body]


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    """Give the request's headers, in small letters."""
    plain = {name: environ[name] for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(name)}
    named = {name.removeprefix("HTTP_"): value for name, value in environ.items() if name.startswith("HTTP_")}
    return {name.lower().replace("_", "-"): value for name, value in (named | plain).items()}


def _refuse_browsers(headers: Mapping[str, Any]) -> None:
    if any(name == "origin" or name.startswith("sec-") for name in headers):
        raise Refused("AccessDenied", "Requests of browsers are not accepted.")


def _check_coverage(signed: re.Match[str], headers: Mapping[str, str]) -> None:
    covered = set(signed["headers"].split(";"))
    wanted = {"host", *(name for name in headers if name.startswith("x-amz-"))}
    if not wanted <= covered <= headers.keys():
        raise Refused(
            "SignatureDoesNotMatch", "The signature does not cover host and x-amz- headers as they were sent."
        )


def _body(environ: WSGIEnvironment, headers: Mapping[str, str]) -> bytes:
    """Read the body; its length has to be known, for all of it is hashed."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
        raise Refused("InvalidRequest", f"The body needs a length, of at most {MAX_BODY} bytes.")
    body: bytes = environ["wsgi.input"].read(int(length))
    return body


def _check_body(signed: re.Match[str], headers: Mapping[str, str], body: bytes) -> None:
    """See that a hash that was sent is the body's; where none is, the signer hashes the body itself."""
    stated = headers.get("x-amz-content-sha256")
    if stated is None and signed["service"] != "s3":
        return
    if stated is None or len(stated) != 64 or not set(stated) <= set(string.hexdigits):
        raise Refused("AccessDenied", "X-Amz-Content-SHA256 must be the body's hash; unsigned bodies are not accepted.")
    if not hmac.compare_digest(stated, hashlib.sha256(body).hexdigest()):
        raise Refused("XAmzContentSHA256Mismatch", "X-Amz-Content-SHA256 is not the hash of the body.")
