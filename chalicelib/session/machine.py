"""The state machine of a session: one total table, two pure functions, no I/O.

A session is one notebook of one owner. The launcher asks `overdue` and `next_effect` what to do, has the world do it,
and hands every event that comes of it to `advance`, which answers with the next session; one conditional write
saves it. Web requests (stop, forget) go through the same `advance`.

Rules

1. TRANSITIONS is the whole truth: an event the state does not list raises IllegalTransition.
2. There is one way out. Failing, stopping, expiring and losing patience all lead to WITHDRAWING, from there to
   REMOVING, PURGING and STOPPED. In STOPPED nothing secret is left; an upload that lost a race against Stop goes
   back to PURGING.
3. READY is left only through WITHDRAWING (FORGETTING keeps the notebook running and comes back).
4. The first failure is kept and shown; later ones only add a line to the log.
5. Effects are safe to repeat, so a lost save costs nothing but the repetition.
6. PATIENCE bounds the endpoint's silence in every state that waits for the endpoint, counted from the first attempt
   that it left without an answer, so that a hub that was down itself gives nothing up. WITHDRAWING and PURGING wait
   for the hub's own stores and never give up: giving up there would leave a route or a secret behind. A pull's
   status that only repeats itself is silence.
7. What will exist is written down before it does: entering CREATING records the container's name.
8. One tick at a time holds a session, for LEASE_SECONDS after its latest save. A tick that was killed is forgotten
   when its lease is over; an effect's own deadline is shorter than the lease, so nothing of it is still under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from chalicelib import events as e
from chalicelib.errors import IllegalTransition
from chalicelib.events import Effect, Event, Failure, Target


class State(StrEnum):
    """Where a session is on its way: launching, ready, leaving, stopped."""

    VERIFYING = "verifying"
    PULLING = "pulling"
    CREATING = "creating"
    STARTING = "starting"
    PROBING = "probing"
    PUBLISHING = "publishing"
    READY = "ready"
    FORGETTING = "forgetting"
    WITHDRAWING = "withdrawing"
    REMOVING = "removing"
    PURGING = "purging"
    STOPPED = "stopped"


_LEAVE: Final[Mapping[type[Event], State]] = {
    e.EffectFailed: State.WITHDRAWING,
    e.PatienceExpired: State.WITHDRAWING,
    e.StopRequested: State.WITHDRAWING,
    e.SessionExpired: State.WITHDRAWING,
}

# fmt: off
TRANSITIONS: Final[Mapping[State, Mapping[type[Event], State]]] = MappingProxyType({
    State.VERIFYING:   {e.EndpointVerified: State.PULLING,
                        e.CredentialsRenewed: State.VERIFYING,
                        e.EffectDelayed: State.VERIFYING, **_LEAVE},
    State.PULLING:     {e.PullProgressed: State.PULLING,
                        e.ImagePresent: State.CREATING,
                        e.EffectDelayed: State.PULLING, **_LEAVE},
    State.CREATING:    {e.ContainerCreated: State.STARTING,
                        e.EffectDelayed: State.CREATING, **_LEAVE},
    State.STARTING:    {e.ContainerStarted: State.PROBING,
                        e.EffectDelayed: State.STARTING, **_LEAVE},
    State.PROBING:     {e.NotebookAnswered: State.PUBLISHING,
                        e.EffectDelayed: State.PROBING, **_LEAVE},
    State.PUBLISHING:  {e.RoutePublished: State.READY,
                        e.EffectDelayed: State.PUBLISHING, **_LEAVE},
    State.READY:       {e.ContainerRan: State.READY,
                        e.NotebookAnswered: State.READY,
                        e.CredentialsRenewed: State.READY,
                        e.ForgetRequested: State.FORGETTING,
                        e.ContainerExited: State.WITHDRAWING,
                        e.EffectDelayed: State.READY, **_LEAVE},
    State.FORGETTING:  {e.CredentialsPurged: State.READY,
                        e.ForgetRequested: State.FORGETTING,
                        e.EffectDelayed: State.FORGETTING, **_LEAVE},
    State.WITHDRAWING: {e.RouteWithdrawn: State.REMOVING,
                        e.StopRequested: State.WITHDRAWING,
                        e.CredentialsStrayed: State.WITHDRAWING,
                        e.EffectDelayed: State.WITHDRAWING},
    State.REMOVING:    {e.ContainerRemoved: State.PURGING,
                        e.EffectFailed: State.PURGING,
                        e.PatienceExpired: State.PURGING,
                        e.StopRequested: State.REMOVING,
                        e.CredentialsStrayed: State.REMOVING,
                        e.EffectDelayed: State.REMOVING},
    State.PURGING:     {e.CredentialsPurged: State.STOPPED,
                        e.StopRequested: State.PURGING,
                        e.CredentialsStrayed: State.PURGING,
                        e.EffectDelayed: State.PURGING},
    State.STOPPED:     {e.CredentialsStrayed: State.PURGING},
})

EFFECTS: Final[Mapping[State, Effect]] = MappingProxyType({
    State.VERIFYING:   e.VerifyEndpoint(),
    State.PULLING:     e.EnsureImage(),
    State.CREATING:    e.CreateContainer(),
    State.STARTING:    e.StartContainer(),
    State.PROBING:     e.ProbeNotebook(),
    State.PUBLISHING:  e.PublishRoute(),
    State.READY:       e.InspectContainer(),
    State.FORGETTING:  e.ForgetCredentials(),
    State.WITHDRAWING: e.WithdrawRoute(),
    State.REMOVING:    e.RemoveContainer(),
    State.PURGING:     e.PurgeCredentials(),
})

# How long a state waits, in seconds from its first EffectDelayed, for any other news. Judgement, not measurement. A
# pull may take as long as it likes while it gets on.
PATIENCE: Final[Mapping[State, float]] = MappingProxyType({
    State.VERIFYING:    60,   # longer than an engine's restart; shorter than a visitor's patience
    State.PULLING:     600,   # extracting one large layer on a slow disk says nothing for minutes
    State.CREATING:    120,
    State.STARTING:    120,   # a cold disk, or an engine that is busy with somebody else's container
    State.PROBING:     180,   # large images import slowly the first time
    State.PUBLISHING:  300,   # ours: DynamoDB has to take one small write
    State.REMOVING:    600,   # then the visitor is told which container to remove
})

MESSAGES: Final[Mapping[State, str]] = MappingProxyType({
    State.VERIFYING:   "Connecting to your Docker endpoint",
    State.PULLING:     "Looking for the image on your endpoint",
    State.CREATING:    "Creating the container",
    State.STARTING:    "Starting the container",
    State.PROBING:     "Waiting for JupyterLab to answer",
    State.PUBLISHING:  "Opening the way to your notebook",
    State.READY:       "Your notebook is ready",
    State.FORGETTING:  "Deleting your credentials; the notebook keeps running",
    State.WITHDRAWING: "Closing the way to your notebook",
    State.REMOVING:    "Stopping and removing the container",
    State.PURGING:     "Deleting your credentials",
    State.STOPPED:     "Stopped: no container, no route and no credentials are left",
})

# The share of a launch that lies behind a session entering the state; a pull fills the gap to the next one.
PROGRESS: Final[Mapping[State, float]] = MappingProxyType({
    State.VERIFYING: 0.02, State.PULLING: 0.08, State.CREATING: 0.75, State.STARTING: 0.80,
    State.PROBING: 0.85, State.PUBLISHING: 0.97, State.READY: 1.0, State.FORGETTING: 1.0,
})
# fmt: on

LAUNCHING: Final = frozenset(
    {State.VERIFYING, State.PULLING, State.CREATING, State.STARTING, State.PROBING, State.PUBLISHING}
)
STAYING: Final = LAUNCHING | {State.READY, State.FORGETTING}
LEAVING: Final = frozenset({State.WITHDRAWING, State.REMOVING, State.PURGING})

# Added to the patience while the endpoint has not been found silent: the hub itself was down, or its launcher killed,
# and that is no reason to give up a launch, until it is.
OWN_PATIENCE: Final = 1800.0

WATCH_SECONDS: Final = 300.0  # how often a ready container is looked at: a minute would cost five times as much
RETRY_LIMIT: Final = 5.0  # while a visitor watches
PATIENT_RETRY_LIMIT: Final = 60.0  # while nobody does
PULL_ATTEMPTS: Final = 10  # failed pulls that got no further than one before; then only getting further is news
LEASE_SECONDS: Final = 60.0  # above EFFECT_SECONDS with room for clocks that differ
EFFECT_SECONDS: Final = 30.0  # the longest any effect but a pull may take; `docker stop` alone takes 10
LOG_LINES: Final = 40  # 40 lines of at most 200 characters keep the item under 40 kB in any script; DynamoDB takes 400
LINE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a session's log; `number` grows by one from 1 and never repeats within a session."""

    number: int
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What the container may use: bytes of memory, CPUs, number of GPUs (-1: all). None is the engine's default."""

    memory: int | None = None
    cpus: float | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """All that is known of one notebook of one owner. Holds no secret. Times are seconds since the epoch."""

    sid: str
    owner: str
    name: str
    generation: int
    version: int
    state: State
    endpoint: str
    image: str
    limits: Limits = Limits()
    open_path: str = ""
    address: str | None = None
    container: str | None = None
    target: Target | None = None
    credentials_held: bool = True
    holder: str = ""
    held_until: float = 0.0
    fraction: float | None = None  # of the pull
    message: str = ""
    failure: Failure | None = None
    trouble: Failure | None = None
    attempts: int = 0
    log: tuple[Line, ...] = ()
    created_at: float
    entered_at: float
    heard_at: float
    due_at: float | None
    expires_at: float


def session_id(owner: str, name: str) -> str:
    """Derive the session's id from owner and name: 20 characters a-v0-9, fit for DNS labels and Docker names.

    The same owner and name always give the same id, which is what brings a visitor back to the same notebook; 100
    bits of SHA-256 keep any other pair from reaching it.
    """
    digest = sha256(b"homeport session\0" + owner.encode() + b"\0" + name.encode()).digest()
    number = int.from_bytes(digest[:13], "big") >> 4
    return "".join("0123456789abcdefghijklmnopqrstuv"[(number >> (5 * i)) & 31] for i in range(20))


def container_name(sid: str, generation: int) -> str:
    """Name the container of one launch; the name is the idempotency key of its creation."""
    return f"homeport-{sid}-{generation}"


def new_session(
    *,
    owner: str,
    name: str,
    endpoint: str,
    image: str,
    limits: Limits,
    open_path: str = "",
    now: float,
    lifetime: float,
    request: str,
    previous: Session | None = None,
) -> Session:
    """Begin a launch; `previous` is the stopped session of the same owner and name, if there is one.

    `request` names the web request, so that it recognises its own write when the answer to it was lost.
    """
    blank = Session(
        sid=session_id(owner, name),
        owner=owner,
        name=name,
        generation=previous.generation + 1 if previous else 1,
        version=(previous.version if previous else 0) + 1,
        state=State.VERIFYING,
        endpoint=endpoint,
        image=image,
        limits=limits,
        open_path=open_path,
        message=MESSAGES[State.VERIFYING],
        holder=request,
        created_at=now,
        entered_at=now,
        heard_at=now,
        due_at=now,
        expires_at=now + lifetime,
        log=previous.log[-1:] if previous else (),  # its number is counted on from
    )
    return _with_line(blank, f"Launch {blank.generation} of “{name}” on {endpoint}", now, replaces_last=True)


def overdue(session: Session, now: float) -> Event | None:
    """Say which deadline has passed: the session's lifetime or the state's patience; None while neither has."""
    if session.state in STAYING and now >= session.expires_at:
        return e.SessionExpired()
    patience = PATIENCE.get(session.state)
    if patience is None:
        return None
    if session.trouble is None:
        patience += OWN_PATIENCE
    if now - session.heard_at <= patience:
        return None
    return e.PatienceExpired(session.trouble or _silence(session, patience))


def next_effect(session: Session) -> Effect | None:
    """Say what is to be done in this state; None when nothing is, ever."""
    if session.state is State.READY and not session.credentials_held:
        return e.ProbeNotebook()  # the endpoint can no longer be asked, the notebook still can
    return EFFECTS.get(session.state)


def advance(session: Session, event: Event, now: float) -> Session:
    """Answer with the session after `event`, one version on.

    Raises IllegalTransition when the state does not know the event.
    """
    try:
        state = TRANSITIONS[session.state][type(event)]
    except KeyError:
        message = f"{type(event).__name__} cannot happen to a session that is {session.state}"
        raise IllegalTransition(message) from None
    after = replace(session, **_news(session, event), state=state, version=session.version + 1)
    if state is not session.state:
        after = _entered(after, now)
    if isinstance(event, e.EffectDelayed):
        due_at = _due_at(session, now) if state is State.READY else now + _retry_delay(session)
        since = session.heard_at if session.trouble or session.attempts >= PULL_ATTEMPTS else now
        after = replace(after, attempts=session.attempts + 1, trouble=event.failure, heard_at=since, due_at=due_at)
    elif state is session.state:
        after = replace(after, due_at=_due_at(after, now))
        if isinstance(event, e.PullProgressed):
            after = _pulled_on(session, after, now)
        elif not isinstance(event, e.StopRequested | e.ForgetRequested):
            after = replace(after, heard_at=now, attempts=0, trouble=None)
    goes_on = isinstance(event, e.PullProgressed) and session.trouble is None
    replaces_last = goes_on and session.log[-1].text == session.message != MESSAGES[State.PULLING]
    after = _with_line(after, _line(session, after, event), now, replaces_last=replaces_last)
    given_up = session.state is State.REMOVING and isinstance(event, e.EffectFailed | e.PatienceExpired)
    return _with_line(after, _by_hand(session), now) if given_up else after


def held_by_another(session: Session, holder: str, now: float) -> bool:
    """Say whether another tick than `holder` is at work on the session."""
    return session.held_until > now and session.holder != holder


def claimed(session: Session, holder: str, now: float) -> Session:
    """The session held by the tick `holder` for LEASE_SECONDS from now."""
    return replace(session, holder=holder, held_until=now + LEASE_SECONDS, version=session.version + 1)


def held_on(session: Session, now: float) -> Session:
    """The session with its lease renewed while there is something to do at once, given back when it is to wait."""
    waits = session.due_at is None or session.due_at > now
    return replace(session, held_until=0.0 if waits else now + LEASE_SECONDS)


def progress(session: Session) -> float | None:
    """The share of the launch that is done, 0 to 1 and never falling while it goes on; None once it is leaving."""
    begun = PROGRESS.get(session.state)
    if begun is None or session.state is not State.PULLING or session.fraction is None:
        return begun
    return begun + (PROGRESS[State.CREATING] - begun) * min(max(session.fraction, 0.0), 1.0)


def _news(session: Session, event: Event) -> dict[str, Any]:  # noqa: C901 - one arm per event
    """What the event itself says, as changes of fields."""
    match event:
        case e.EndpointVerified(address=address):
            return {"address": address}
        case e.PullProgressed(fraction=fraction, line=line):
            known = [share for share in (fraction, session.fraction) if share is not None]
            return {"fraction": max(known, default=None), "message": _short(line)}
        case e.ContainerStarted(target=target):
            return {"target": target}
        case e.ContainerExited(failure=failure):
            return {"failure": session.failure or failure}
        case e.EffectFailed(failure=failure) | e.PatienceExpired(failure=failure):
            return {"failure": session.failure or failure}
        case e.EffectDelayed(failure=failure):
            return {"message": _short(failure.message)}
        case e.ContainerRemoved():
            return {"container": None}
        case e.CredentialsPurged():
            return {"credentials_held": False}
        case e.CredentialsRenewed():
            return {"credentials_held": True, "message": MESSAGES[session.state]}
        case e.CredentialsStrayed():
            return {"credentials_held": True}
        case e.ContainerRan() | e.NotebookAnswered():
            return {"message": _message(session)}
        case _:
            return {}


def _entered(session: Session, now: float) -> Session:
    """The session having just entered its state."""
    changes: dict[str, Any] = {
        "message": _message(session),
        "entered_at": now,
        "heard_at": now,
        "attempts": 0,
        "trouble": None,
        "due_at": _due_at(session, now),
    }
    match session.state:
        case State.CREATING:
            changes |= {"container": container_name(session.sid, session.generation)}
        case State.REMOVING:
            changes |= {"target": None}
    return replace(session, **changes)


def _pulled_on(before: Session, after: Session, now: float) -> Session:
    """The session after a pull's status: getting further is news; so is any change, until too many pulls failed."""
    if after.fraction != before.fraction:
        return replace(after, heard_at=now, attempts=0, trouble=None)
    changed = after.message != before.message and before.attempts < PULL_ATTEMPTS
    return replace(after, heard_at=now if changed else before.heard_at, trouble=None)


def _due_at(session: Session, now: float) -> float | None:
    """When the session wants to be looked at next, if nothing goes wrong."""
    if session.state is State.STOPPED:
        return None
    return min(now + WATCH_SECONDS, session.expires_at) if session.state is State.READY else now


def _message(session: Session) -> str:
    """The sentence a visitor reads while the session is in its state."""
    if session.state is State.STOPPED and session.failure:
        return _by_hand(session) if session.container else session.failure.message
    if session.state is State.READY and not session.credentials_held:
        return (
            "Your notebook is ready. Your credentials are deleted, so the hub can no longer stop or remove its "
            f"container; do that with: docker rm -f {session.container}"
        )
    return MESSAGES[session.state]


def _by_hand(session: Session) -> str:
    return f"The container may still be on your endpoint; remove it with: docker rm -f {session.container}"


def _line(before: Session, after: Session, event: Event) -> str:
    """What the log says about `event`; empty for nothing new."""
    match event:
        case e.EndpointVerified(address=address, engine=engine, note=note):
            return f"Connected to Docker {engine} at {address}" + (f". {note}" if note else "")
        case e.PullProgressed(line=line):
            return line if _short(line) != before.message else ""
        case e.EffectFailed(failure=failure) | e.PatienceExpired(failure=failure):
            return failure.message
        case e.EffectDelayed(failure=failure):
            return failure.message if failure != before.trouble else ""
        case e.ContainerExited(failure=failure):
            return failure.message if failure else "The notebook ended by itself"
        case e.SessionExpired():
            return "The session reached the end of its lifetime"
        case _:
            return after.message if after.state is not before.state else ""


def _with_line(session: Session, text: str, now: float, *, replaces_last: bool = False) -> Session:
    """Append a line to the log; the lines of one pull replace each other, each under a new number."""
    if not text:
        return session
    number = session.log[-1].number + 1 if session.log else 1
    kept = session.log[:-1] if replaces_last else session.log
    return replace(session, log=(*kept, Line(number, now, _short(text)))[-LOG_LINES:])


def _short(text: str) -> str:
    """One printable line of at most LINE_LENGTH characters: an endpoint's words are not trusted."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    return line if len(line) <= LINE_LENGTH else line[: LINE_LENGTH - 1] + "…"


def _retry_delay(session: Session) -> float:
    """Seconds until the effect is tried again: doubling from half a second up to what suits the state."""
    limit = RETRY_LIMIT if session.state in LAUNCHING else PATIENT_RETRY_LIMIT
    return float(min(0.5 * 2.0 ** min(session.attempts, 10), limit))


def _silence(session: Session, patience: float) -> Failure:
    return Failure(
        f"{session.state}-timed-out",
        f"{MESSAGES[session.state]}: nothing was heard for {patience:.0f} seconds. "
        "Check that the Docker endpoint is up, then launch again",
    )
