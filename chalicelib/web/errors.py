"""What a request to the hub can do wrong, or come too early or too late for."""

from __future__ import annotations

from chalicelib.errors import HomeportError


class BadRequest(HomeportError):
    """The request is not one the hub understands."""

    status = 400


class BadForm(BadRequest):
    """The request's body is not the multipart form that a browser sends."""

    title = "Malformed form"


class UnsupportedMediaType(BadRequest):
    """The request's content type is not the one this address takes."""

    status = 415


class MethodNotAllowed(BadRequest):
    """This address does not know the request's method."""

    status = 405


class NoSuchAddress(BadRequest):
    """The hub has nothing at this address."""

    status = 404
    title = "No such address"


class MissingField(BadRequest):
    """A form field that has to be there is missing or empty."""


class BadField(BadRequest):
    """A form field is doubled, unknown or has a value that cannot be used."""

    title = "Invalid field"


class BadName(BadField):
    """The notebook's name is empty where one is needed, too long, or holds characters nobody can type."""

    title = "Invalid notebook name"


class BadLink(BadRequest):
    """The launch link is none that this hub understands."""

    title = "Invalid launch link"


class NoBuildLog(HomeportError):
    """There is no log of a build of this launch."""

    status = 404


class RepositoryNotAllowed(HomeportError):
    """The hub's operator does not allow this repository, or none at all."""

    status = 403


class LimitTooHigh(BadField):
    """More memory, CPUs or shared memory is asked for than the hub's operator allows."""

    title = "Above the hub's limits"
    status = 403


class ImageNotAllowed(BadField):
    """The image is not one of those that the hub's operator allows."""

    status = 403


class DataNotAllowed(BadField):
    """The hub's operator does not let notebooks have directories of the endpoint's host."""

    title = "Data directories not allowed"
    status = 403


class BodyTooLarge(BadRequest):
    """The request's body is over the limit; nothing of it was read."""

    title = "Request too large"
    status = 413


class NotAuthenticated(HomeportError):
    """The request carries no owner token, or one the hub does not know."""

    title = "Not signed in"
    status = 401


class CrossSiteRequest(HomeportError):
    """Another web site made the visitor's browser send this request."""

    title = "Request from another site"
    status = 403


class NameNotTyped(BadField):
    """The notebook's name, which has to be typed to delete it, was not."""

    title = "Name does not match"


class OwnersDisagree(BadField):
    """The bundle that was uploaded for a session holds another client key than the one it was launched with."""

    title = "Another key"
    status = 403


class CredentialsNeeded(HomeportError):
    """The hub holds no credentials for this any more."""

    title = "Credentials needed"
    status = 409


class SessionNotReady(HomeportError):
    """The notebook cannot be entered (yet, or any more)."""

    title = "Notebook is not ready"
    status = 409
    retryable = True


class VariablesWouldBeSaved(HomeportError):
    """The notebook was launched with variables, whose values an engine writes into an image of its container."""

    title = "Variables would be in the image"
    status = 409


class LongestLifeReached(HomeportError):
    """The session lasts as long as the hub lets any already."""

    title = "Cannot be kept longer"
    status = 409


class LaunchesClosed(HomeportError):
    """The hub's operator lets nobody launch at the moment."""

    title = "No launches at the moment"
    status = 503
    retryable = True
    retry_after = 300


class HubFull(HomeportError):
    """There are as many notebooks on this hub as its operator allows."""

    title = "The hub is full"
    status = 503
    retryable = True
    retry_after = 60


class TooManyNotebooks(HomeportError):
    """There are as many notebooks of this key as the hub's operator allows."""

    status = 429


class TooManyLaunches(HomeportError):
    """A key, or a network, has launched more often than the hub's operator allows."""

    status = 429
    retryable = True

    def __init__(self, message: str, retry_after: int = 60) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SessionLeaving(HomeportError):
    """The session of this name is being stopped; it can be launched again in a moment."""

    title = "Notebook is being stopped"
    status = 409
    retryable = True


class SessionOfLaterVersion(HomeportError):
    """The session was stored by a later version of Homeport; this one can only stop it."""

    title = "Launched by a later version"
    status = 409
