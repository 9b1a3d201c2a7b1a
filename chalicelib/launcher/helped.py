"""What a helper's end means: its failures as errors, with what to do about them.

A helper says a code and a detail, in a log that its endpoint could have made up. A code that is known becomes a
sentence of ours; of the detail a short quote is shown.
"""

from __future__ import annotations

from typing import Final

from chalicelib.engine.messages import quoted
from chalicelib.errors import HomeportError
from chalicelib.repository.answers import DETAIL_LENGTH, Report
from chalicelib.session.values import State

BROKEN: Final = "Launch again; if that fails too, tell the hub's operator, whose builder image may be the reason"
LAST_LINES: Final = 3  # of its log, for a failure that no code explains


class HelperFailed(HomeportError):
    """A helper on the endpoint ended without what it was to do, and did not say why in a way that is known."""

    status = 502


class RepositoryNotFound(HomeportError):
    """There is no such repository for who asks without a password."""

    status = 404


class VersionNotFound(HomeportError):
    """The repository has no such branch, tag or commit."""

    status = 404


class ProviderUnreachable(HomeportError):
    """The endpoint cannot reach the site where the repository is, or that site refuses it for now."""

    status = 502


class SocketUnreachable(HomeportError):
    """The endpoint's engine cannot be reached from a container on it, so nothing can be built there."""

    status = 409


class NoRoomToBuild(HomeportError):
    """The endpoint has too little disk left to build an image."""

    status = 409


class FetchFailed(HomeportError):
    """The repository's files could not be fetched."""

    status = 502


class BuildFailed(HomeportError):
    """The repository's own instructions failed."""

    status = 409


class BuildTooLong(HomeportError):
    """The build took longer than the hub allows."""

    status = 409


class BuiltImageTooLarge(HomeportError):
    """The image that was built is larger than the hub allows."""

    status = 409


class RepositoryMoved(HomeportError):
    """The repository's site leads to another address, which the hub's operator does not allow."""

    status = 403


class RepositoryBusy(HomeportError):
    """As many notebooks of the repository are launching or running as the hub allows."""

    status = 409


_FAILURES: Final[dict[str, tuple[type[HomeportError], str]]] = {
    "repository-not-found": (
        RepositoryNotFound,
        "There is no such repository, or it is private. Check its address; private repositories are not supported yet",
    ),
    "version-not-found": (
        VersionNotFound,
        "The repository has no such branch, tag or commit. Check the version that the launch asks for",
    ),
    "provider-unreachable": (
        ProviderUnreachable,
        "Your endpoint could not reach the repository's site. Check its network, then launch again",
    ),
    "provider-rate-limited": (
        ProviderUnreachable,
        "The repository's site takes no more requests from your endpoint for now. Launch again in an hour",
    ),
    "socket-unreachable": (
        SocketUnreachable,
        "Your endpoint's engine cannot be reached from a container on it, as a build needs. Launch an image instead, "
        "with the repository as the files for its work folder",
    ),
    "socket-of-another-engine": (
        SocketUnreachable,
        "The socket on your endpoint's host is another engine's, so nothing can be built. Launch an image instead, "
        "with the repository as the files for its work folder",
    ),
    "no-space": (NoRoomToBuild, "The endpoint's disk is full. Free some, for instance with docker system prune"),
    "fetch-failed": (FetchFailed, "The repository's files could not be fetched"),
    "dockerfile-invalid": (BuildFailed, "The repository's Dockerfile cannot be built. Its author has to mend it"),
    "build-failed": (BuildFailed, "The repository's own instructions failed. Its author has to mend them"),
    "build-too-long": (
        BuildTooLong,
        "The build took longer than this hub allows. What it has built so far stays in the endpoint's cache: launch "
        "again to go on from there",
    ),
    "image-too-large": (BuiltImageTooLarge, "The image that was built is larger than this hub allows, and was removed"),
}


def helper_error(state: State, exit_code: int | None, report: Report, log: str) -> HomeportError:
    """The error of a helper that has ended without what it was to do."""
    code, detail = report.failure
    kind, sentence = _FAILURES.get(code, (HelperFailed, ""))
    if sentence:
        said = quoted(detail, DETAIL_LENGTH)
        return kind(f"{sentence}. {said}" if said else sentence)
    last = " | ".join(quoted(line, DETAIL_LENGTH) for line in log.strip().splitlines()[-LAST_LINES:])
    what = f"The helper that is {state} on your endpoint ended with exit code {exit_code}"
    return kind(f"{what}. {BROKEN}" + (f". Its last lines: {last}" if last else ""))
