"""What keeps a session from going on that is neither its endpoint's doing nor its repository's."""

from __future__ import annotations

from chalicelib.errors import HomeportError


class CredentialsForgotten(HomeportError):
    """The visitor had the credentials deleted, and this can only be done with them."""

    status = 409


class VariablesMissing(HomeportError):
    """The credentials were uploaded again without the variables that the launch asked for, or by an older version."""

    status = 409


class NotItsTurn(HomeportError):
    """Other endpoints or notebooks of this owner or network are slow to answer; this one is asked after them."""

    title = "Others are slow to answer"
    status = 503
    retryable = True


class CreationUnsettled(HomeportError):
    """The endpoint was asked to create the container and gave no answer, so it may still do so."""

    title = "Container may still appear"
    status = 502
    retryable = True


class InternalError(HomeportError):
    """A step failed in a way that nobody foresaw. Always a defect of Homeport."""

    retryable = True  # for as long as its state has patience: then the session ends as any other that fails
