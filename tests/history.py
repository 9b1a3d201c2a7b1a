"""What happened to sessions, in the order in which it happened, and the rules that must hold at every point of it.

A history is made of facts: each version of a session that was saved, each container that an engine created, started or
removed, each route that was published or withdrawn, all credentials that were stored or deleted. Twins tell of them
while they happen (launcher_twins.py), the embedded AWS and a real engine in their own logs (chaos/rig.py). The checker
knows nothing of the launcher, and of the machine only its table: it reads what was done, not why.

Rules

1. Versions of a session grow by one. Each goes on from the one before as TRANSITIONS says.
2. A launch begins from nothing or from a stopped session. Its generation is the next one, its label a new one, and both
   stay as they are; but what a launch finds on its endpoint of the session, although the table knows of none, makes it
   that one, or the one after it. So no generation is used twice.
3. One tick at a time holds a session: another one's save is a claim of what nobody held, the handover of a pull, or
   what a look at a ready session found.
4. A container is created by a launch that has written it down, before the launch is over, and once: a second time only
   if somebody else removed the first, or if the launch was leaving. A session never has two, but for what an earlier
   launch could not remove and told its visitor of.
5. A route is published while its launch has a container that was started, and never after it was withdrawn. The hub
   removes no container whose route is published.
6. Credentials are stored for a launch that is written down. They are deleted when it is over, or when its visitor
   wanted that; never while it still needs them, or they are kept for the next one. (A purge that was under way when its
   visitor asked for the volume to be removed goes on; they are told what to remove.)
7. A session that comes to REMOVING has no route. One that comes to STOPPED or KEPT has no container unless it says so.
   In KEPT it has the credentials that it says, in STOPPED none but what was stored while it was purging, for which it
   has to purge again.
8. A helper is made by a launch that has written it down, as the only one of its name. None is left when the session
   has stopped, unless it says so. (Two ticks may have been at work at once, by clocks that differ. Then one's helper
   may be made when the other's has done its work; it goes with the launch.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from chalicelib.session.lease import LEASE_SECONDS
from chalicelib.session.machine import TRANSITIONS
from chalicelib.session.values import PHASES, Phase, Session, State, container_name

OWNER = "the endpoint's owner"  # who removes containers by hand


@dataclass(frozen=True, slots=True)
class Saved:
    """A version of a session was saved."""

    session: Session


@dataclass(frozen=True, slots=True)
class Created:
    """An engine created a container."""

    container: str


@dataclass(frozen=True, slots=True)
class Started:
    """An engine started a container."""

    container: str


@dataclass(frozen=True, slots=True)
class Removed:
    """An engine removed a container."""

    container: str


@dataclass(frozen=True, slots=True)
class Published:
    """The route of a launch was written."""

    host: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The route of a launch was withdrawn, whether it had been published or not."""

    host: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The credentials of a launch were stored."""

    sid: str
    generation: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """The credentials of a launch were deleted."""

    sid: str
    generation: int


@dataclass(frozen=True, slots=True)
class HelperMade:
    """An engine created a helper, for a launch of the session."""

    sid: str
    name: str


@dataclass(frozen=True, slots=True)
class HelperRemoved:
    """An engine removed a helper of the session's."""

    sid: str
    name: str


Fact = HelperMade | HelperRemoved | Saved | Created | Started | Removed | Published | Withdrawn | Stored | Deleted
Witness = Callable[[Fact], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact, and who brought it about: a tick or a request by its name, as far as that is known."""

    fact: Fact
    by: str = ""


@dataclass
class _Seen:
    """What is known of one session. Containers, routes and credentials by generation."""

    session: Session | None = None
    hosts: dict[str, int] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    containers: set[int] = field(default_factory=set)
    started: set[int] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)
    wanted_helpers: set[str] = field(default_factory=set)  # that were written down
    created: Counter[int] = field(default_factory=Counter)
    removed_by_owner: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)  # launches that ended and said that their container may be there
    published: set[int] = field(default_factory=set)
    withdrawn: set[int] = field(default_factory=set)
    credentials: set[int] = field(default_factory=set)
    stored_late: set[int] = field(default_factory=set)  # while their launch was purging, or afterwards
    forgotten: bool = False  # since the credentials were stored, their visitor has wanted them deleted

    @property
    def known(self) -> Session:
        assert self.session is not None
        return self.session


class Checker:
    """Reads a history, entry by entry; `violations` says what was wrong with it, each with the number of its entry."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._seen: dict[str, _Seen] = {}
        self._count = 0

    def see(self, entry: Entry) -> None:
        """Take the next entry."""
        self._count += 1
        for wrong in self._wrongs(entry):
            self.violations.append(f"{self._count}, by {entry.by or 'somebody'}: {wrong}")

    def see_there(self, sid: str, generation: int) -> None:
        """Take it that a container is on an engine that was created before the history begins."""
        self._seen.setdefault(sid, _Seen()).containers.add(generation)

    def at_rest(self) -> list[str]:
        """What is wrong if nothing is under way any more: each session is ready with all it needs, or has nothing."""
        return [f"{sid}: {wrong}" for sid, seen in self._seen.items() if seen.session for wrong in _unrest(seen)]

    def _wrongs(self, entry: Entry) -> Iterator[str]:  # noqa: C901 - one arm per fact
        seen = self._seen.setdefault(sid_of(entry.fact), _Seen())
        if seen.session is None and not isinstance(entry.fact, Saved):
            yield f"{entry.fact} belongs to no session that was written down"
            return
        match entry.fact:
            case Saved(session=session):
                yield from _saved(seen, session)
            case HelperMade(name=name):
                yield from _helper_made(seen, name)
            case HelperRemoved(name=name):
                seen.helpers.discard(name)
            case Created(container=container):
                yield from _created(seen, _generation(container))
            case Started(container=container):
                if _generation(container) not in seen.containers:
                    yield f"{container} was started and not created"
                seen.started.add(_generation(container))
            case Removed(container=container):
                yield from _removed(seen, _generation(container), entry.by == OWNER)
            case Published(host=host):
                yield from _published(seen, host)
            case Withdrawn(host=host):
                seen.published.discard(seen.hosts[host])
                seen.withdrawn.add(seen.hosts[host])
            case Stored(generation=generation):
                yield from _stored(seen, generation)
            case Deleted(generation=generation):
                yield from _deleted(seen, generation)


def sid_of(fact: Fact) -> str:
    """The session that a fact is about."""
    match fact:
        case Saved(session=session):
            return session.sid
        case Created(container=name) | Started(container=name) | Removed(container=name):
            return name.split("-")[1]
        case Published(host=host) | Withdrawn(host=host):
            return host.split("-")[0]
        case Stored(sid=sid) | Deleted(sid=sid) | HelperMade(sid=sid) | HelperRemoved(sid=sid):
            return sid


def violations(history: Iterable[Entry]) -> list[str]:
    """What was wrong with a history that is over, at any point of it and at its end."""
    checker = Checker()
    for entry in history:
        checker.see(entry)
    return [*checker.violations, *checker.at_rest()]


# ── rules 1 to 3: the session ────────────────────────────────────────────────────────────────────────────────────


def _saved(seen: _Seen, after: Session) -> Iterator[str]:
    before, seen.session = seen.session, after
    seen.hosts[after.host] = after.generation
    seen.wanted_helpers |= {after.helper} - {""}
    if after.version != (before.version if before else 0) + 1:
        yield f"version {after.version} was saved upon {before.version if before else 'none'}"
    if before is not None and before.state is State.VERIFYING and after.state in (State.PULLING, State.STARTING):
        yield from _found(seen, before, after)
    elif before is None or before.generation != after.generation:
        yield from _launched(seen, before, after)
    else:
        yield from _went_on(before, after)
    seen.forgotten |= after.state is State.FORGETTING
    yield from _entered(seen, before, after)


def _launched(seen: _Seen, before: Session | None, after: Session) -> Iterator[str]:
    if after.state is not State.VERIFYING or (
        before is not None and before.phase is not Phase.STOPPED and not before.again
    ):
        yield f"a launch began in {after.state}, after {before.state if before else 'nothing'}"
    if after.generation != (before.generation if before else 0) + 1:
        yield f"generation {after.generation} followed upon {before.generation if before else 'none'}"
    if after.label in seen.labels:
        yield f"label {after.label} was used again"
    seen.labels.add(after.label)
    seen.forgotten = False


def _found(seen: _Seen, before: Session, after: Session) -> Iterator[str]:
    """A launch has seen its endpoint: it goes on as it is, by a higher number, or as one that runs there."""
    if after.generation < before.generation:
        yield f"launch {before.generation} went on as launch {after.generation}"
    if after.state is State.STARTING:  # whoever made that container, the history does not go back so far
        seen.labels.add(after.label)
        seen.containers.add(after.generation)
        seen.started.add(after.generation)
    elif after.label != before.label:
        yield "a launch became another one"
    if after.generation != before.generation and after.sealed_in != before.generation:
        yield f"the credentials of launch {before.generation} are not those of launch {after.generation}"
    seen.labels.add(after.label)


def _went_on(before: Session, after: Session) -> Iterator[str]:
    if after.state not in (before.state, *TRANSITIONS[before.state].values()):
        yield f"{before.state} went to {after.state}"
    if (after.label, after.owner, after.name) != (before.label, before.owner, before.name):
        yield "a launch became another one"
    if after.written_by != before.written_by and not before.newer:
        yield from _changed_hands(before, after)


def _changed_hands(before: Session, after: Session) -> Iterator[str]:
    if before.admitted or before.state in (State.READY, State.STOPPED):  # a handover, or what needs no claim
        return
    until = after.lease_expires_at
    if replace(before, written_by=after.written_by, lease_expires_at=until, version=after.version) != after:
        yield f"{after.written_by} saved {after.state} while {before.written_by} held the session"
    elif before.lease_expires_at > until - LEASE_SECONDS:  # by the clock of who claims it
        yield f"{after.written_by} claimed the session while {before.written_by} held it"


# ── rule 7: what is left when a state is entered ─────────────────────────────────────────────────────────────────


def _entered(seen: _Seen, before: Session | None, after: Session) -> Iterator[str]:
    if before is None or before.state is after.state:
        return
    if after.state is State.REMOVING and after.generation in seen.published:
        yield "its container is being removed and its route is published"
    if after.state is State.PURGING:
        seen.stored_late.clear()
    if after.state in (State.KEPT, State.STOPPED):
        yield from _stopped(seen, after)


def _stopped(seen: _Seen, session: Session) -> Iterator[str]:
    if seen.helpers and not session.helper:
        yield f"stopped, and {', '.join(sorted(seen.helpers))} is there"
    if session.container is not None:
        seen.told.add(session.generation)
    elif session.generation in seen.containers:
        yield f"stopped, and {container_name(session.sid, session.generation)} is there"
    if session.generation in seen.published:
        yield "stopped, and its route is published"
    if session.state is State.STOPPED and seen.credentials - seen.stored_late:
        yield f"stopped, and the credentials of launch {min(seen.credentials)} are stored"


# ── rule 4: containers ───────────────────────────────────────────────────────────────────────────────────────────


def _created(seen: _Seen, generation: int) -> Iterator[str]:
    session, name = seen.known, container_name(seen.known.sid, generation)
    leaving = session.state in PHASES[Phase.LEAVING]
    if generation != session.generation or session.state in (State.KEPT, State.STOPPED):
        yield f"{name} was created for a launch that is over, or has not begun"
    elif session.state is not State.CREATING and not leaving:
        yield f"{name} was created in {session.state}"
    if others := seen.containers - seen.told:
        yield f"{name} was created beside {', '.join(container_name(session.sid, other) for other in sorted(others))}"
    if seen.created[generation] and generation not in seen.removed_by_owner and not leaving:
        yield f"{name} was created again"
    seen.containers.add(generation)
    seen.created[generation] += 1
    seen.removed_by_owner.discard(generation)


def _removed(seen: _Seen, generation: int, by_owner: bool) -> Iterator[str]:
    if generation not in seen.containers:
        yield f"{container_name(seen.known.sid, generation)} was removed and is not there"
    if generation in seen.published and not by_owner:
        yield f"{container_name(seen.known.sid, generation)} was removed while its route is published"
    if by_owner:
        seen.removed_by_owner.add(generation)
    seen.containers.discard(generation)
    seen.started.discard(generation)


# ── rule 8: helpers ──────────────────────────────────────────────────────────────────────────────────────────────


def _helper_made(seen: _Seen, name: str) -> Iterator[str]:
    session = seen.known
    if name not in seen.wanted_helpers:
        yield f"{name} was made in {session.state}, and is not written down"
    if name in seen.helpers:
        yield f"{name} was made and is there"
    seen.helpers.add(name)


# ── rule 5: routes ───────────────────────────────────────────────────────────────────────────────────────────────


def _published(seen: _Seen, host: str) -> Iterator[str]:
    generation = seen.hosts[host]
    if generation not in seen.started and generation not in seen.removed_by_owner:
        yield f"{host} was published and has no container that was started"
    if generation in seen.withdrawn:
        yield f"{host} was published after it was withdrawn"
    seen.published.add(generation)


# ── rule 6: credentials ──────────────────────────────────────────────────────────────────────────────────────────


def _stored(seen: _Seen, generation: int) -> Iterator[str]:
    session = seen.known
    if generation > session.generation:
        yield f"credentials were stored for launch {generation}, which is not written down"
    seen.credentials.add(generation)
    seen.forgotten = session.state is State.FORGETTING
    if session.state in (State.PURGING, State.STOPPED) or generation < session.generation:
        seen.stored_late.add(generation)


def _deleted(seen: _Seen, generation: int) -> Iterator[str]:
    session = seen.known
    is_needed = generation == session.credentials_of
    over = session.state in (State.PURGING, State.STOPPED) or (generation < session.generation and not is_needed)
    over |= session.state is State.REMOVING and session.deletes
    if not over and not seen.forgotten and session.credentials_held:
        yield f"the credentials of launch {generation} were deleted in {session.state}, which needs them"
    seen.credentials.discard(generation)
    seen.stored_late.discard(generation)


# ── at rest ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _unrest(seen: _Seen) -> Iterator[str]:
    session = seen.known
    match session.state:
        case State.READY:
            container, published = {session.generation}, {session.generation}
            credentials = {session.credentials_of} if session.credentials_held else set()
        case State.KEPT if not session.again:
            container, published, credentials = set(), set(), {session.credentials_of}
        case State.STOPPED:
            container, published, credentials = set(), set(), set()
        case state:
            yield f"still {state}"
            return
    if seen.helpers and not session.helper and session.state is not State.READY:
        yield f"{session.state}, and {', '.join(sorted(seen.helpers))} is there"
    for what, there, wanted in (
        ("containers", seen.containers - (seen.told - container), container),
        ("started containers", seen.started - (seen.told - container), container),
        ("routes", seen.published, published),
        ("credentials", seen.credentials, credentials),
    ):
        if there != wanted:
            yield f"{session.state} with {what} of launches {sorted(there)}, and not {sorted(wanted)}"


def _generation(container: str) -> int:
    return int(container.rsplit("-", 1)[1])
