"""Every error Homeport raises on purpose, in one tree that answers whose problem it is.

`status` is the HTTP status, `code` the stable name a program may rely on, `retryable` whether the same request can
succeed later. They sit on the class. The message is written for the visitor: it says what to do next, names the file
or field, and holds no key, token or file content.
"""

from __future__ import annotations

from typing import ClassVar


class HomeportError(Exception):
    """The root: ours unless a subclass says otherwise."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# ── the visitor's request ────────────────────────────────────────────────────────────────────────────────────────


class BadRequest(HomeportError):
    """The request is not one the hub understands."""

    status = 400
    code = "bad-request"


class BadForm(BadRequest):
    """The request's body is not the multipart form that a browser sends."""

    code = "bad-form"


class UnsupportedMediaType(BadRequest):
    """The request's content type is not the one this address takes."""

    status = 415
    code = "unsupported-media-type"


class MethodNotAllowed(BadRequest):
    """This address does not know the request's method."""

    status = 405
    code = "method-not-allowed"


class MissingField(BadRequest):
    """A form field that has to be there is missing or empty."""

    code = "missing-field"


class BadField(BadRequest):
    """A form field is doubled, unknown or has a value that cannot be used."""

    code = "bad-field"


class BadName(BadField):
    """The notebook's name is empty where one is needed, too long, or holds characters nobody can type."""

    code = "bad-name"


class BodyTooLarge(BadRequest):
    """The request's body is over the limit; nothing of it was read."""

    status = 413
    code = "body-too-large"


class NotAuthenticated(HomeportError):
    """The request carries no owner token, or one the hub does not know."""

    status = 401
    code = "not-authenticated"


class CrossSiteRequest(HomeportError):
    """Another web site made the visitor's browser send this request."""

    status = 403
    code = "cross-site-request"


class SessionNotFound(HomeportError):
    """There is no such session, or it belongs to somebody else; the two look the same on purpose."""

    status = 404
    code = "session-not-found"


class SessionNotReady(HomeportError):
    """The notebook cannot be entered (yet, or any more)."""

    status = 409
    code = "session-not-ready"
    retryable = True


class SessionLeaving(HomeportError):
    """The session of this name is being stopped; it can be launched again in a moment."""

    status = 409
    code = "session-leaving"
    retryable = True


# ── the credentials bundle (bundle.py) ───────────────────────────────────────────────────────────────────────────


class BadBundle(HomeportError):
    """The uploaded bundle cannot be used as it is."""

    status = 400
    code = "bad-bundle"


# ── the endpoint's address (address.py) ──────────────────────────────────────────────────────────────────────────


class BadEndpoint(HomeportError):
    """The endpoint's address cannot be used."""

    status = 400
    code = "bad-endpoint"


class ForbiddenAddress(BadEndpoint):
    """The endpoint's address is not one this hub connects to."""

    code = "forbidden-address"


class ForbiddenPort(BadEndpoint):
    """The endpoint's port is plain Docker's, or one that the operator denies."""

    code = "forbidden-port"


class EndpointMissing(BadEndpoint):
    """No endpoint is given, or its address names no host."""

    code = "endpoint-missing"


class EndpointCharacters(BadEndpoint):
    """The endpoint's address holds a space or an invisible character."""

    code = "endpoint-characters"


class EndpointSchemeHttp(BadEndpoint):
    """The endpoint's address is `http://`: Docker without encryption."""

    code = "endpoint-scheme-http"


class EndpointSchemeUnix(BadEndpoint):
    """The endpoint's address is a Unix socket of the visitor's own computer."""

    code = "endpoint-scheme-unix"


class EndpointSchemeNpipe(BadEndpoint):
    """The endpoint's address is a Windows named pipe of the visitor's own computer."""

    code = "endpoint-scheme-npipe"


class EndpointSchemeFd(BadEndpoint):
    """The endpoint's address is a socket handed over by systemd."""

    code = "endpoint-scheme-fd"


class EndpointSchemeSsh(BadEndpoint):
    """The endpoint is reached over SSH, which the hub does not speak."""

    code = "endpoint-scheme-ssh"


class EndpointSchemeUnknown(BadEndpoint):
    """The endpoint's address has a scheme other than `tcp` and `https`."""

    code = "endpoint-scheme-unknown"


class EndpointUserinfo(BadEndpoint):
    """The endpoint's address holds a user name or password."""

    code = "endpoint-userinfo"


class EndpointPath(BadEndpoint):
    """The endpoint's address has a path, a query or a fragment."""

    code = "endpoint-path"


class EndpointPortInvalid(BadEndpoint):
    """The endpoint's port is not a number from 1 to 65535."""

    code = "endpoint-port"


class EndpointHostInvalid(BadEndpoint):
    """The endpoint's host is neither a DNS name nor an IP address."""

    code = "endpoint-host"


class EndpointNumericHost(BadEndpoint):
    """The endpoint's host is a number, but not an IPv4 address in its usual spelling."""

    code = "endpoint-numeric-host"


class EndpointZone(BadEndpoint):
    """The endpoint's IPv6 address has a zone id."""

    code = "endpoint-zone"


# ── the visitor's Docker endpoint (docker_endpoint.py) ───────────────────────────────────────────────────────────


class EndpointError(HomeportError):
    """The visitor's Docker endpoint, or the notebook on it, did not do what was asked."""

    status = 502
    code = "endpoint-error"


# ── stored credentials (envelope.py, credentials_store.py) ───────────────────────────────────────────────────────


class BadEnvelope(HomeportError):
    """A stored object is not an envelope sealed for this session: altered, swapped, or of an unknown version."""

    code = "bad-envelope"


class CredentialsMissing(HomeportError):
    """No credentials are stored for this session: the upload did not complete, or they were purged."""

    status = 409
    code = "credentials-missing"


class StoreRefused(HomeportError):
    """AWS refused what the hub asked of its credentials store; its permissions or its key need the operator."""

    code = "store-refused"
    retryable = True  # they may be on their way: the session's item is written before them


class CredentialsForgotten(HomeportError):
    """The visitor had the credentials deleted, and this can only be done with them."""

    status = 409
    code = "credentials-forgotten"


# ── stored sessions (session_store.py, machine.py) ───────────────────────────────────────────────────────────────


class StaleSession(HomeportError):
    """Somebody else saved the session first; load it again and decide anew."""

    status = 409
    code = "stale-session"
    retryable = True


class StoreUnavailable(HomeportError):
    """DynamoDB, S3, KMS or SQS did not answer; the same request can succeed later."""

    status = 503
    code = "store-unavailable"
    retryable = True


class IllegalTransition(HomeportError):
    """An event the state has no transition for. Always a defect of Homeport."""

    code = "illegal-transition"


class BadConfiguration(HomeportError):
    """The hub's configuration is wrong; the message names the variable."""

    code = "bad-configuration"
