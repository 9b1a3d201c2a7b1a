"""What the hub's own stores can answer instead of what was asked: missing, changed meanwhile, refused, away."""

from __future__ import annotations

from chalicelib.errors import HomeportError


class SessionNotFound(HomeportError):
    """There is no such session, or it belongs to somebody else; the two look the same on purpose."""

    title = "No such session"
    status = 404


class StaleSession(HomeportError):
    """Somebody else saved the session first; load it and decide again."""

    title = "Changed by somebody else"
    status = 409
    retryable = True


class StoreUnavailable(HomeportError):
    """DynamoDB, SQS or SSM failed, or S3 or KMS did not answer; the same request can succeed later."""

    title = "The hub's storage is not available"
    status = 503
    retryable = True


class StoreRefused(HomeportError):
    """AWS refused what the hub asked of its credentials store; its permissions or its key need the operator."""

    title = "The hub's storage refused a request"
    retryable = True  # the operator can put it right, and no notebook is to be taken away meanwhile


class CredentialsMissing(HomeportError):
    """No credentials are stored for this session: the upload did not complete, or they were purged."""

    title = "No stored credentials"
    status = 409
    retryable = True  # they may be on their way: the session's item is written before them


class LaunchWithdrawn(HomeportError):
    """The route of this launch was withdrawn; it never comes back."""

    status = 409
