"""What a visitor reads about a session: its message, its log, its headline and its progress.

machine.py says what changes; this says it in words. A message is what is so now, and every state has one. The log is
what happened, one line for each piece of news; the lines of one pull replace each other, or a long pull would push
everything else out. Each line has a number of its own all the same, so that a page can ask for what came after the
last one it has.

A session holds the newest line alone, however much has happened. A change that adds lines makes those before the
newest history: they stand before it in `log` until the next change, and whoever saves the session keeps them elsewhere
(aws/sessions.py), each at its place. The log of a launch has LOG_LINES places; the next line takes the oldest one's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from chalicelib.repository.address import shown
from chalicelib.session import events as e
from chalicelib.session.events import Event
from chalicelib.session.options import shown_size
from chalicelib.session.values import ALL_IMAGES, Failure, Line, Phase, Session, State, Summary, volume_name
from chalicelib.text import one_line

LOG_LINES: Final = 40  # of a launch are kept, the newest; whatever an endpoint does, it makes no more
LINE_LENGTH: Final = 200
WARNING_SECONDS: Final = 7200.0  # before a notebook expires its visitor is warned

# fmt: off
MESSAGES: Final[Mapping[State, str]] = MappingProxyType({
    State.VERIFYING:   "Connecting to your Docker endpoint",
    State.PULLING:     "Looking for the image on your endpoint",
    State.RESOLVING:   "Looking up the repository's version, on your endpoint",
    State.BUILDING:    "Building the repository's image, on your endpoint",
    State.CREATING:    "Creating the container",
    State.CLONING:     "Copying the files into your work folder",
    State.STARTING:    "Starting the container",
    State.PROBING:     "Waiting for JupyterLab to answer",
    State.PUBLISHING:  "Publishing your notebook's address",
    State.READY:       "Your notebook is ready",
    State.REPUBLISHING: "Publishing your notebook's address again",
    State.FORGETTING:  "Deleting your credentials; the notebook keeps running",
    State.SAVING:      "Saving your notebook as an image; it stands still until its files are written",
    State.TIDYING:     "Removing images from your endpoint; the notebook keeps running",
    State.WITHDRAWING: "Withdrawing your notebook's address",
    State.REMOVING:    "Stopping and removing the container",
    State.PURGING:     "Deleting your credentials",
    State.KEPT:        "Stopped: no container and no route are left; your credentials are kept, to start it again",
    State.STOPPED:     "Stopped: no container, no route and no credentials are left",
})

_BEFORE_AGAIN: Final = "Stopping, to launch it again"
_KEEPING: Final = "Seeing that your credentials are kept"
_DELETING: Final = "Stopping and removing the container, then its volume with your files"
_DELETED: Final = "Deleted: no container, no volume with files, no route and no credentials are left"

# The share of a launch that lies behind a session entering the state; a pull fills the gap to the next one.
PROGRESS: Final[Mapping[State, float]] = MappingProxyType({
    State.VERIFYING: 0.02, State.PULLING: 0.08, State.RESOLVING: 0.14, State.BUILDING: 0.16, State.CREATING: 0.75,
    State.CLONING: 0.78, State.STARTING: 0.80,
    State.PROBING: 0.85, State.PUBLISHING: 0.97, State.READY: 1.0, State.REPUBLISHING: 1.0, State.FORGETTING: 1.0,
    State.SAVING: 1.0, State.TIDYING: 1.0,
})

_PROGRESS: Final = (e.PullProgressed, e.HelperProgressed, e.ImageRemoved, e.Queued, e.PullQueued)
_ENDS_TIDYING: Final = (e.ImagesRemoved, e.EffectFailed, e.PatienceExpired)

_HEADLINES: Final[Mapping[Phase, str]] = MappingProxyType({
    Phase.LAUNCHING: "Launching", Phase.READY: "Ready", Phase.LEAVING: "Stopping", Phase.STOPPED: "Stopped",
})
# fmt: on

NEWER: Final = (
    "This notebook was launched by a later version of this hub, which is not running now. It keeps running until it is "
    "stopped; you can stop it here"
)
UNREADABLE: Final = Failure(
    "session-unreadable",
    "The hub's record of this notebook cannot be read, so its container and your credentials are removed. Launch "
    "it again: your files are kept in its volume",
)


def headline(session: Session | Summary) -> str:
    """Say in a word where the session is."""
    summary = session.summary if isinstance(session, Session) else session
    if summary.deleted:
        return "Deleted" if session.phase is Phase.STOPPED else "Deleting"
    return "Failed" if session.phase is Phase.STOPPED and session.failed else _HEADLINES[session.phase]


def progress(session: Session) -> float | None:
    """The share of the launch that is done, 0 to 1 and never falling while it goes on; None once it is leaving."""
    begun = PROGRESS.get(session.state)
    if begun is None or session.state not in (State.PULLING, State.BUILDING):
        return begun
    if session.versions:
        begun = PROGRESS[State.BUILDING]
    if session.fraction is None:
        return begun
    ends = PROGRESS[State.RESOLVING] if session.builder and not session.versions else PROGRESS[State.CREATING]
    return begun + (ends - begun) * min(max(session.fraction, 0.0), 1.0)


def warning(session: Session, now: float) -> str | None:
    """What is said of a notebook that is going to expire soon."""
    left = session.expires_at - now
    if session.phase is not Phase.READY or left > WARNING_SECONDS:
        return None
    longer = "keep it longer here, or save" if session.longest_until > session.expires_at else "save"
    return f"This notebook ends in less than {_minutes(math.ceil(max(left, 1) / 900) * 900)}: {longer} your work"


def begin(session: Session, now: float) -> Session:
    """Give a session that is launched (again) its first message and line; the numbers of its lines go on."""
    text = f"Launch {session.generation} of “{session.name}” on {session.endpoint}"
    return replace(session, message=MESSAGES[session.state], log=(replace(_line(session.log, text, now), place=1),))


def narrate(before: Session, event: Event, after: Session, now: float) -> Session:
    """Give `after`, which `event` made of `before`, its message and the lines about what happened."""
    told = replace(after, message=_message_after(before, event, after))
    log = _without_history(before.log)
    for text in _lines_about(before, event, told):
        line = replace(_line(log, text, now), progress=isinstance(event, _PROGRESS))
        if line.progress and log and log[-1].progress:
            log = (*log[:-1], replace(line, place=log[-1].place))
        else:
            log = (*log, line)
    return replace(told, log=log)


def _without_history(log: tuple[Line, ...]) -> tuple[Line, ...]:
    """The newest line of a log, whose others were kept elsewhere when it was saved; a log of before places is whole."""
    if log and log[-1].place == 0:
        return tuple(replace(line, place=place) for place, line in enumerate(log, start=1))
    return log[-1:]


def silence(session: Session, patience: float) -> Failure:
    """Why a session was given up from which nothing was heard for `patience` seconds, not even a problem."""
    return Failure(
        f"{session.state}-timed-out",
        f"{MESSAGES[session.state]}: no response for {patience:.0f} seconds. "
        "Check that the Docker endpoint is up, then launch again",
    )


def kept_waiting(session: Session) -> Failure:
    """Why a session was given up whose turn never came."""
    return Failure("kept-waiting", f"{session.message}. That has taken too long; launch again when they have ended")


def stalled(patience: float) -> Failure:
    """Why a pull was given up that got no further for `patience` seconds."""
    return Failure(
        "pull-stalled",
        f"The pull made no progress for {_minutes(patience)}. Check the endpoint's network and disk, then launch "
        "again: layers that were finished are kept",
    )


def too_long(longest: float) -> Failure:
    """Why a pull was given up that took `longest` seconds."""
    return Failure(
        "pull-too-long",
        f"The pull took longer than {_minutes(longest)}, the most that this hub allows. Pull the image on the endpoint "
        "itself, with docker pull, then launch again",
    )


def helped_too_long(state: State, longest: float) -> Failure:
    """Why a helper was given up."""
    if state is not State.BUILDING:
        return Failure(
            f"{state}-too-long",
            f"{MESSAGES[state]}: that took longer than {_minutes(longest)}. Check the endpoint's network, then launch "
            "again",
        )
    return Failure(
        "build-too-long",
        f"The build took longer than {_minutes(longest)}, the most that this hub allows. What it has built so far "
        "stays in the endpoint's cache: launch again to go on from there",
    )


def _minutes(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [
        f"{count} {unit}{'s' if count > 1 else ''}" for count, unit in ((hours, "hour"), (minutes, "minute")) if count
    ]
    return " and ".join(parts) or "a minute"


def _message_after(before: Session, event: Event, after: Session) -> str:  # noqa: C901 - one arm per event
    if before.state is State.SAVING and after.state is State.READY:
        return f"{MESSAGES[State.READY]}. {_how_saving_ended(before, event)}"
    if before.state is State.TIDYING and isinstance(event, _ENDS_TIDYING):
        return f"{MESSAGES[State.READY]}. {_how_tidying_ended(before, event)}"
    if after.state is not before.state or before.newer:
        return _message_of(after)
    match event:
        case e.Queued() | e.EffectDelayed(ours=True) if before.phase is Phase.READY:  # the notebook was not looked at
            return before.message
        case e.PullProgressed(line=line, pace=pace):
            return one_line(f"{line}{pace}", LINE_LENGTH)
        case e.Queued(line=line) | e.PullQueued(line=line) | e.ImageRemoved(line=line):
            return one_line(line, LINE_LENGTH)
        case e.PullAdmitted():
            return "Pulling the builder's image" if before.wanted_image == before.builder else "Pulling the image"
        case e.HelperProgressed(line=line):
            return one_line(line, LINE_LENGTH) or before.message
        case e.EffectDelayed(failure=failure):
            return one_line(failure.message, LINE_LENGTH)
        case e.CredentialsRenewed() | e.NotebookAnswered() | e.AgainRequested() | e.DeleteRequested():
            return _message_of(after)
        case e.StopRequested() if before.again:
            return _message_of(after)
        case _:
            return before.message


def _how_saving_ended(before: Session, event: Event) -> str:
    match event:
        case e.EffectFailed(failure=failure) | e.PatienceExpired(failure=failure):
            return f"It was not saved as an image: {one_line(failure.message, LINE_LENGTH)}"
        case _:
            return f"It is saved as the image {before.saving}"


def _how_tidying_ended(before: Session, event: e.ImagesRemoved | e.EffectFailed | e.PatienceExpired) -> str:
    if isinstance(event, e.ImagesRemoved):
        return one_line(event.line, LINE_LENGTH)
    what = "Not all images could" if before.tidying == ALL_IMAGES else "The image could not"
    return f"{what} be removed: {one_line(event.failure.message, LINE_LENGTH)}"


def _message_of(session: Session) -> str:
    """The sentence about a session that has nothing more particular to say than its state."""
    if session.state is State.STOPPED and session.deletes:
        return _delete_by_hand(session) if session.failure else _DELETED
    if session.state is State.STOPPED and session.failure:
        return _remove_by_hand(session) if session.container else session.failure.message
    if session.phase is Phase.LEAVING and session.again:
        return _BEFORE_AGAIN
    if session.state is State.REMOVING and session.deletes:
        return _DELETING
    if session.state is State.PURGING and session.keeps:
        return _KEEPING
    if session.state is State.READY and not session.credentials_held:
        return (
            "Your notebook is ready. Your credentials are deleted, so the hub can no longer stop or remove its "
            f"container; do that with: docker rm -f {session.container}"
        )
    return MESSAGES[session.state]


def _lines_about(before: Session, event: Event, after: Session) -> Iterator[str]:  # noqa: C901 - one arm per event
    """The log's lines about `event`; none when it says nothing new."""
    match event:
        case e.EndpointVerified(address=address, engine=engine, note=note):
            named = engine if engine.startswith("Podman ") else f"Docker {engine}"
            yield f"Connected to {named} at {address}" + (f". {note}" if note else "")
        case e.NotebookFound(generation=generation, address=address):
            yield (
                f"Launch {generation} of this notebook is running at {address}, and the hub had lost its record of it: "
                "it goes on as it was launched"
            )
        case e.NotebookMoved(target=target):
            yield f"The container was started again and has another port, {target.port}"
        case e.AgainRequested():
            yield "Asked to launch it again"
        case e.ExtendRequested():
            yield "Asked to keep it longer"
        case e.VersionsResolved(versions=versions) | e.ContentResolved(versions=versions):
            for source, version in zip(after.sources, versions, strict=False):
                yield f"{shown(source)} is at {version}"
            yield after.message
        case e.ImageBuilt(built=built):
            yield "The image is built" if built else "The image of this version was built before"
            yield after.message
        case e.FilesCloned(line=line):
            yield line
            yield after.message
        case e.PullProgressed() | e.HelperProgressed() | e.ImageRemoved() | e.Queued() | e.PullQueued():
            if after.message and after.message != before.message:
                yield after.message
        case e.EffectDelayed(failure=failure):
            if failure != before.last_problem and after.message != before.message:
                yield failure.message
        case e.SaveRequested(image=image):
            yield f"Asked to save it as the image {image}"
        case e.ImageSaved(size=size):
            yield f"Saved as the image {before.saving}" + (f", {shown_size(size)} in all" if size else "")
        case e.EffectFailed() | e.PatienceExpired() if before.state is State.SAVING:
            yield _how_saving_ended(before, event)
        case e.EffectFailed() | e.PatienceExpired() | e.ImagesRemoved() if before.state is State.TIDYING:
            yield _how_tidying_ended(before, event)
        case e.EffectFailed(failure=failure) | e.PatienceExpired(failure=failure):
            yield failure.message
            if before.state is State.REMOVING:
                yield _delete_by_hand(before) if before.deletes else _remove_by_hand(before)
        case e.ContainerExited(failure=failure):
            yield failure.message if failure else "The notebook exited on its own"
        case e.SessionExpired():
            yield "The session expired"
        case _:
            if after.state is not before.state:
                yield after.message


def _remove_by_hand(session: Session) -> str:
    """A sweep removes it, too, unless it was made before labels told one hub from all others (docs/adr/0010)."""
    who = "your next launch with the same key removes it, and so does" if session.hub else "remove it with"
    return f"The container may still be on your endpoint; {who}: docker rm -f {session.container}"


def _delete_by_hand(session: Session) -> str:
    """What is left to do when a volume could not be removed."""
    container = f"docker rm -f {session.container}; " if session.container else ""
    volume = volume_name(session.sid)
    return f"Your files are still on your endpoint; remove them with: {container}docker volume rm {volume}"


def _line(log: tuple[Line, ...], text: str, now: float) -> Line:
    """The next line of a log: an endpoint's words are not trusted, and neither is a notebook's name."""
    number, place = (log[-1].number + 1, log[-1].place + 1) if log else (1, 1)
    return Line(number, now, one_line(text, LINE_LENGTH), place=place)
