"""In-memory twins of what the launcher talks to. Each runs the contract suite of what it stands for (test_twins.py).

`Trouble` makes a twin fail on purpose: it is asked before and after everything that has an effect outside. Other
failures are given to the twin they are to happen in. A `witness` is told what happened, when it has (history.py).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self, TypeVar

from chalicelib.aws.errors import CredentialsMissing, LaunchWithdrawn, SessionNotFound, StaleSession
from chalicelib.aws.images import BUILT_TTL, SAVED_TTL
from chalicelib.aws.queues import TickMessage
from chalicelib.aws.routes import Redeemed, Route
from chalicelib.aws.sessions import Due
from chalicelib.aws.sign_ins import SignIn, SignOut, sign_outs
from chalicelib.aws.slots import NOTE_RENEWAL_SECONDS, RENEWAL_SECONDS
from chalicelib.bundle.credentials import Credentials
from chalicelib.engine.endpoint import MISSING, NO_HELPER, ContainerStatus, EngineIdentity, HelperThere
from chalicelib.engine.errors import (
    ContainerConflict,
    ContainerMissing,
    ContainerNotSavable,
    EndpointError,
    EndpointFailed,
    EndpointTimeout,
    ImageInUse,
    ImageNotFound,
    LimitsRefused,
    VolumeConflict,
    VolumeInUse,
)
from chalicelib.engine.ownership import LaunchThere, launch_of
from chalicelib.engine.pull import ANSWER_SECONDS
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.engine.saving import SAVED_AT, SAVED_BY, ImageThere
from chalicelib.errors import BadEnvelope
from chalicelib.launcher.tick import Launcher, Sessions
from chalicelib.notebook.certificates import HubTrust, issue_client, new_ca
from chalicelib.notebook.container import CERTIFICATE, FOLDER, LABEL, SAVABLE, ImageConfig, Specification
from chalicelib.notebook.helpers import BUILT, DOCKER_SOCKET, TASK, HelperSpecification
from chalicelib.repository.answers import MARK
from chalicelib.session.admission import Crowd, Quota, Slot, crowd_before
from chalicelib.session.door import Door, Rate
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.looks import ASKED_SECONDS, ring_of, rings_at
from chalicelib.session.narration import LOG_LINES
from chalicelib.session.values import (
    BuiltImage,
    Limits,
    Line,
    SavedImage,
    Session,
    State,
    Summary,
    Target,
    container_name,
    volume_name,
)
from tests.builders import LIFETIME, NOW
from tests.history import (
    Created,
    Deleted,
    Fact,
    HelperMade,
    HelperRemoved,
    Published,
    Removed,
    Saved,
    Started,
    Stored,
    Withdrawn,
    Witness,
)

_Answer = TypeVar("_Answer")


class Killed(BaseException):
    """The process ended at this instruction. Not an Exception: nothing may catch it and go on."""


def die() -> None:
    raise Killed


class Trouble:
    """At the n-th instruction with an effect outside (None: never) it ends the process, or does something else."""

    def __init__(self, at: int | None = None, happens: Callable[[], None] = die) -> None:
        self.at = at
        self.count = 0
        self.happens = happens

    def step(self) -> None:
        self.count += 1
        if self.at is not None and self.count == self.at:
            self.happens()


def unseen(fact: Fact) -> None:
    """The witness of a twin that nobody watches."""


class Clock:
    """Time that passes only when told, but for a millisecond at every look; `during_sleep` happens in every sleep."""

    def __init__(self, now: float, during_sleep: Callable[[], None] = lambda: None) -> None:
        self.now = now
        self.during_sleep = during_sleep

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.during_sleep()
        self.now += seconds


def drive(launcher_in: Callable[[Lane], Launcher], sessions: Sessions, message: TickMessage) -> None:
    """What the queues do with a message: a tick in the session's lane, and one in each lane that it comes into."""
    lane = None
    while lane is not (present := lane_of(sessions.load(message.sid))):
        lane = present
        launcher_in(lane).tick(message)
        message = TickMessage(message.sid)


def _nothing(session: Session) -> None:
    """What goes wrong with a save: nothing."""


class SessionStoreTwin:
    """SessionStore in two dictionaries. `before_save` and `after_save` may raise: the save is lost, or only its answer.

    `lines` has what became of the logs' earlier lines, by session and place: generation and line. What is not read
    consistently is as it was before its last save, if that was less than `lag` seconds ago.
    """

    def __init__(
        self,
        trouble: Trouble | None = None,
        *,
        clock: Callable[[], float] = lambda: NOW,
        before_save: Callable[[Session], None] = _nothing,
        after_save: Callable[[Session], None] = _nothing,
        lag: float = 0.0,
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self.before: dict[str, tuple[Session | None, float]] = {}
        self.lines: dict[tuple[str, int], tuple[int, Line]] = {}
        self.history: list[Session] = []
        self.put_off_until: dict[str, float] = {}
        self.asked_at: dict[str, float] = {}
        self.clock = clock
        self.trouble = trouble or Trouble()
        self.witness: Witness = unseen
        self.before_save = before_save
        self.after_save = after_save
        self.lag = lag

    def find(self, sid: str, *, consistent: bool = True) -> Session | None:
        if not consistent and sid in self.before:
            before, until = self.before[sid]
            if self.clock() < until:
                return before
        return self.sessions.get(sid)

    def load(self, sid: str) -> Session:
        if sid not in self.sessions:
            raise SessionNotFound("There is no such session")
        return self.sessions[sid]

    def save(self, session: Session) -> None:
        self.trouble.step()
        self.before_save(session)
        present = self.sessions.get(session.sid)
        if (present.version if present else 0) != session.version - 1:
            raise StaleSession("Somebody else changed the session")
        self.sessions[session.sid] = session
        self.before[session.sid] = present, self.clock() + self.lag
        self.put_off_until.pop(session.sid, None)
        self.history.append(session)
        self.witness(Saved(session))
        self.trouble.step()
        for line in session.log[:-1]:
            if line.place:
                self.lines[session.sid, line.place % LOG_LINES] = (session.generation, line)
        self.trouble.step()
        self.after_save(session)

    def earlier_lines(self, session: Session) -> list[Line]:
        kept = [found for (sid, _), found in self.lines.items() if sid == session.sid]
        return [line for generation, line in kept if generation == session.generation]

    def of_owner(self, owner: str, limit: int, before: tuple[float, str] | None = None) -> list[Summary]:
        found = [session.summary for session in self.sessions.values() if session.owner == owner]
        found.sort(key=lambda summary: summary.position, reverse=True)
        return [summary for summary in found if before is None or summary.position < before][:limit]

    def due(self, now: float) -> Iterator[Due]:
        for session in list(self.sessions.values()):
            if session.next_attempt_at is not None and (since := self.due_since(session)) <= now:
                yield Due(session.sid, lane_of(session), repr(since))

    def to_look_at(self, now: float) -> Iterator[str]:
        ready = [session for session in self.sessions.values() if session.state is State.READY]
        yield from (session.sid for session in ready if ring_of(session) in rings_at(now))

    def put_off(self, due: Due, until: float) -> None:
        if repr(self.due_since(self.sessions[due.sid])) == due.since:
            self.put_off_until[due.sid] = until

    def may_ask_for_look(self, sid: str) -> bool:
        if self.asked_at.get(sid, 0.0) > self.clock() - ASKED_SECONDS:
            return False
        self.asked_at[sid] = self.clock()
        return True

    def due_since(self, session: Session) -> float:
        since = max(session.next_attempt_at or 0.0, session.lease_expires_at)
        return self.put_off_until.get(session.sid, since)


class RouteStoreTwin:
    """RouteStore in a dictionary."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.trouble = trouble or Trouble()
        self.witness: Witness = unseen

    def publish(self, session: Session) -> None:
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be published")
        self.trouble.step()
        present = self.routes.get(session.host)
        if present and not present.published:
            raise LaunchWithdrawn("withdrawn")
        self._write(session, published=True)

    def withdraw(self, session: Session) -> None:
        self.trouble.step()
        self._write(session, published=False)

    def published(self) -> list[Route]:
        return [route for route in self.routes.values() if route.published]

    def _write(self, session: Session, *, published: bool) -> None:
        target = session.target if published else None
        self.routes[session.host] = Route(session.host, target, published, 0, int(session.expires_at))
        self.witness(Published(session.host) if published else Withdrawn(session.host))
        self.trouble.step()


class ImageStoreTwin:
    """ImageStore in a dictionary."""

    def __init__(self, clock: Callable[[], float] = lambda: NOW, trouble: Trouble | None = None) -> None:
        self.images: dict[tuple[str, str, str], SavedImage] = {}
        self.built: dict[tuple[str, str, str], BuiltImage] = {}
        self.clock = clock
        self.trouble = trouble or Trouble()

    def put(self, image: SavedImage) -> None:
        self.trouble.step()
        self.images[image.owner, image.endpoint, image.name] = image
        self.trouble.step()

    def of_owner(self, owner: str) -> list[SavedImage]:
        found = [
            image
            for image in self.images.values()
            if image.owner == owner and image.saved_at + SAVED_TTL > self.clock()
        ]
        return sorted(found, key=lambda image: image.saved_at, reverse=True)

    def put_built(self, image: BuiltImage, *, is_new: bool) -> None:
        self.trouble.step()
        key = image.owner, image.endpoint, image.name
        known = self.built.get(key)
        self.built[key] = image if is_new or known is None else replace(image, built_at=known.built_at)
        self.trouble.step()

    def built_of(self, owner: str) -> list[BuiltImage]:
        found = [
            image for image in self.built.values() if image.owner == owner and image.used_at + BUILT_TTL > self.clock()
        ]
        return sorted(found, key=lambda image: image.used_at, reverse=True)

    def remove_built(self, owner: str, endpoint: str, names: Iterable[str]) -> None:
        for name in names:
            self.trouble.step()
            self.built.pop((owner, endpoint, name), None)
            self.trouble.step()


class BuildLogTwin:
    """BuildLogStore in a dictionary."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.logs: dict[tuple[str, int], str] = {}
        self.trouble = trouble or Trouble()

    def put(self, sid: str, generation: int, text: str) -> None:
        self.trouble.step()
        self.logs[sid, generation] = text
        self.trouble.step()

    def get(self, sid: str, generation: int) -> str | None:
        return self.logs.get((sid, generation))


class DoorTwin:
    """DoorStore in a dictionary."""

    def __init__(self, clock: Callable[[], float], trouble: Trouble | None = None) -> None:
        self.door = Door()
        self.full_at: dict[str, float] = {}
        self.clock = clock
        self.trouble = trouble or Trouble()

    def read(self, *, counted: bool = True) -> Door:
        return self.door if counted else Door(self.door.message)

    def close(self, message: str) -> None:
        self.door = replace(self.door, message=message)

    def open(self) -> None:
        self.door = replace(self.door, message="")

    def count(self, sessions: int) -> None:
        self.door = replace(self.door, sessions=sessions, counted_at=self.clock())

    def take(self, whose: str, rate: Rate) -> float:
        self.trouble.step()
        full_at, late = rate.taken(self.full_at.get(whose, 0.0), self.clock())
        self.full_at[whose] = full_at
        self.trouble.step()
        return late


class CredentialsTwin:
    """CredentialsStore in a dictionary. `before_put` and `after_put` happen beside a put, and may raise."""

    def __init__(
        self,
        trouble: Trouble | None = None,
        *,
        before_put: Callable[[], None] = lambda: None,
        after_put: Callable[[], None] = lambda: None,
    ) -> None:
        self.objects: dict[tuple[str, int], tuple[str, Credentials]] = {}
        self.trouble = trouble or Trouble()
        self.witness: Witness = unseen
        self.before_put = before_put
        self.after_put = after_put

    def put(self, sid: str, generation: int, owner: str, credentials: Credentials) -> None:
        self.trouble.step()
        self.before_put()
        self.objects[sid, generation] = (owner, credentials)
        self.witness(Stored(sid, generation))
        self.after_put()
        self.trouble.step()

    def get(self, sid: str, generation: int, owner: str) -> Credentials:
        if (sid, generation) not in self.objects:
            raise CredentialsMissing("No credentials are stored for this session")
        sealed_for, credentials = self.objects[sid, generation]
        if sealed_for != owner:
            raise BadEnvelope("The stored credentials belong to another session")
        return credentials

    def holds(self, sid: str, generation: int) -> bool:
        return (sid, generation) in self.objects

    def purge(self, sid: str, generation: int) -> None:
        self.trouble.step()
        for key in [key for key in self.objects if key[0] == sid and key[1] <= generation]:
            del self.objects[key]
            self.witness(Deleted(*key))
        self.trouble.step()


class TokenStoreTwin:
    """TokenStore in dictionaries, with the one door of ProxyStore that tickets are for."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        lifetime: float = LIFETIME,
        find_session: Callable[[str], Session | None] = lambda sid: None,
    ) -> None:
        self.find_session = find_session
        self.tokens: dict[str, list[SignIn]] = {}
        self.tickets: dict[str, tuple[Redeemed, float]] = {}
        self.sign_outs: list[SignOut] = []
        self.clock = clock
        self.lifetime = lifetime

    def put_token(self, token: str, sign_ins: Collection[SignIn]) -> None:
        self.tokens[token] = list(sign_ins)

    def sign_ins_of(self, token: str) -> dict[str, SignIn]:
        now = self.clock()
        return {
            sign_in.owner: sign_in
            for sign_in in self.tokens.get(token, [])
            if self._end(sign_in) > now and not self._ended(sign_in)
        }

    def visit(self, token: str, sid: str) -> tuple[dict[str, SignIn], Session | None]:
        sign_ins = self.sign_ins_of(token)
        return sign_ins, self.find_session(sid) if sign_ins else None

    def browser_of(self, token: str) -> str | None:
        return self.tokens[token][0].browser if token in self.tokens else None

    def put_ticket(self, ticket: str, session: Session, sign_in: SignIn, *, path: str, expires_at: float) -> None:
        redeemed = Redeemed(session.host, path, int(min(session.expires_at, self._end(sign_in))), sign_in)
        self.tickets[ticket] = (redeemed, expires_at)

    def sign_out(self, browser: str, owners: Iterable[str] = ()) -> None:
        self.sign_outs += sign_outs(browser, owners, self.clock())

    def _end(self, sign_in: SignIn) -> float:
        return sign_in.shown_at / 1000 + self.lifetime

    def _ended(self, sign_in: SignIn) -> bool:
        return any(sign_out.ends(sign_in) for sign_out in self.sign_outs)

    def redeem_ticket(self, ticket: str, host: str) -> Redeemed | None:
        redeemed, expires_at = self.tickets.get(ticket, (None, 0.0))
        if redeemed is None or redeemed.host != host or expires_at <= self.clock():
            return None
        del self.tickets[ticket]
        return None if self._ended(redeemed.sign_in) else redeemed


class SlotStoreTwin:
    """SlotStore in dictionaries."""

    def __init__(self, clock: Callable[[], float], trouble: Trouble | None = None) -> None:
        self.pools = defaultdict[str, dict[str, Slot]](dict)
        self.clock = clock
        self.trouble = trouble or Trouble()
        self.during: Callable[[str], None] = lambda call: None

    def held(self, pool: str, *, consistent: bool = True) -> dict[str, Slot]:
        return {sid: slot for sid, slot in self.pools[pool].items() if slot.until > self.clock()}

    def take(self, pool: str, sid: str, slot: Slot, quota: Quota) -> Crowd | None:
        self.during("take")
        crowd = crowd_before(self.pools[pool], sid, slot, quota, self.clock())
        if crowd is None:
            self._write(pool, sid, slot, RENEWAL_SECONDS)
        return crowd

    def put(self, pool: str, sid: str, slot: Slot) -> None:
        self._write(pool, sid, slot, NOTE_RENEWAL_SECONDS)

    def _write(self, pool: str, sid: str, slot: Slot, renewal: float) -> None:
        self.trouble.step()
        held = self.held(pool)
        if sid not in held or held[sid].until <= slot.until - renewal:
            self.pools[pool][sid] = slot
        self.trouble.step()

    def give_back(self, pool: str, sid: str) -> None:
        self.trouble.step()
        self.pools[pool].pop(sid, None)
        self.trouble.step()


class QueueTwin:
    """The lanes' queues in one list. While `refuses` is set, they take no message."""

    def __init__(self, trouble: Trouble | None = None, *, refuses: Exception | None = None) -> None:
        self.sent: list[tuple[TickMessage, Lane, float]] = []
        self.trouble = trouble or Trouble()
        self.refuses = refuses

    def enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        self.trouble.step()
        if self.refuses:
            raise self.refuses
        self.sent.append((message, lane, delay))


@dataclass
class ContainerTwin:
    """A container as the engine has it; `end` and `pause` are what may happen to it."""

    specification: Specification
    files: bytes = b""
    certificate: bytes = b""
    status: str = "created"
    exit_code: int = 0
    log: str = ""

    def end(self, exit_code: int, log: str = "") -> None:
        self.status, self.exit_code, self.log = "exited", exit_code, log

    def pause(self) -> None:
        self.status = "paused"


@dataclass
class HelperTwin:
    """A helper as the engine has it; `end` is what may happen to it."""

    specification: HelperSpecification
    status: str = "created"
    exit_code: int | None = None
    log: str = ""
    looks: int = 0  # at it, while it is at work

    def end(self, exit_code: int, log: str) -> None:
        self.status, self.exit_code, self.log = "exited", exit_code, log

    @property
    def task(self) -> Any:
        """What it is to do."""
        return json.loads(self.specification.command[-1])


def answer(**values: object) -> str:
    """A line of a helper's log that is an answer."""
    return f"{MARK}{json.dumps(values)}\n"


@dataclass
class EngineTwin:
    """A Docker Engine with images and containers; `connect` is what Effects is given.

    While `refuses` is set, nothing can connect. `during` is told every call that acts, and may raise; a pull is one
    call for each of its `layers`, and `says` more after them.
    """

    trouble: Trouble = field(default_factory=Trouble)
    images: set[str] = field(default_factory=set)
    saved: dict[str, ImageThere] = field(default_factory=dict)  # those of the images that were written here
    commits: int = 0
    containers: dict[str, ContainerTwin] = field(default_factory=dict)
    volumes: dict[str, tuple[str, str]] = field(default_factory=dict)  # by name: session and owner it was made for
    port: int = 32768
    created: list[str] = field(default_factory=list)
    layers: int = 4
    says: Sequence[PullStatus] = ()
    pulls: int = 0
    answer_within: float = 0.0  # of the last pull
    deadlines: list[float] = field(default_factory=list)
    refuses: Exception | None = None
    connections: int = 0  # that are open now,
    connected: int = 0  # and those that ever were
    renewed: Callable[[float], None] = lambda deadline: None
    during: Callable[[str], None] = lambda call: None
    address: str = "203.0.113.7"
    witness: Witness = unseen
    memory: int = 8 << 30
    cpus: int = 4
    helpers: dict[str, HelperTwin] = field(default_factory=dict)
    helper_looks: int = 2  # at a helper that is at work, until it ends
    helper_fails: Callable[[HelperTwin], tuple[int, str] | None] = lambda helper: None  # how, instead of ending well
    version: str = "c0ffee" + 34 * "0"  # at which every repository is
    built: dict[str, str] = field(default_factory=dict)  # the images of repositories: which hub had them built
    builds: int = 0
    moved: dict[str, str] = field(default_factory=dict)  # where a repository is by now
    cloned: dict[str, str] = field(default_factory=dict)  # by volume: the version of the files in it
    rootless: bool = False
    node: str = ""  # where it says that containers run, if it is a cluster
    credentials: Credentials = field(init=False)
    hub_name: str = field(init=False)

    def connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> Self:
        self.credentials, self.hub_name = credentials, hub_name
        self.connections += 1
        self.connected += 1
        self.renew(deadline)
        return self

    def renew(self, deadline: float) -> None:
        self.deadlines.append(deadline)
        self.renewed(deadline)
        if self.refuses:
            raise self.refuses

    def close(self) -> None:
        self.connections -= 1

    def verify(self) -> tuple[str, str]:
        self._acting("verify")
        return "20.10.24", ""

    def check_limits(self, limits: Limits) -> None:
        if (limits.memory or 0) > self.memory or (limits.cpus or 0) > self.cpus:
            raise LimitsRefused("The endpoint has less than what was asked for")

    def image_present(self, image: str) -> bool:
        return image in self.images

    def image_config(self, image: str) -> ImageConfig:
        self._need_image(image)
        return ImageConfig("/home/jovyan", "1000")

    def saved_image(self, image: str) -> ImageThere | None:
        return self.saved.get(image, ImageThere("", "", 0)) if image in self.images else None

    def check_savable(self, container: str) -> None:
        spec = self._found(container).specification
        if spec.labels[f"{LABEL}hub"] != self.hub_name:
            raise ContainerConflict(f"A container called {container} is on the endpoint and is not this session's")
        if SAVABLE not in spec.labels:
            raise ContainerNotSavable("It was made by an earlier version")

    def commit(self, container: str, image: str, labels: Mapping[str, str]) -> Generator[None, None, None]:
        self._acting("commit")
        self.check_savable(container)
        yield
        self.write_image(container, image, labels)
        self.trouble.step()

    def write_image(self, container: str, image: str, labels: Mapping[str, str]) -> None:
        """What a commit does."""
        self.commits += 1
        assert self._found(container).certificate == b"", "the key must not get into the image"
        self.images.add(image)
        self.saved[image] = ImageThere(labels[SAVED_BY], labels[SAVED_AT], 1 << 30)
        if labels.get(BUILT) == image:
            self.built[image] = labels[f"{LABEL}hub"]

    def pull(self, image: str, *, answer_within: float = ANSWER_SECONDS) -> Generator[PullStatus, None, None]:
        self.pulls += 1
        self.answer_within = answer_within
        for layer in range(self.layers):
            self._acting("pull")
            yield PullStatus(layer / self.layers, f"Pulling: {layer} of {self.layers} layers")
        yield from self.says
        self.images.add(image)
        self.trouble.step()

    def create(self, spec: Specification) -> None:
        self._acting("create")
        present = self.containers.get(spec.name)
        if present is not None and _identity(present.specification) != _identity(spec):
            raise ContainerConflict(f"A container called {spec.name} is on the endpoint and is not this session's")
        if present is None or _shape(present.specification) != _shape(spec):
            self._need_image(spec.image)
            if present is not None:
                self.witness(Removed(spec.name))
            self.containers[spec.name] = ContainerTwin(spec)
            made_for = spec.labels[f"{LABEL}session"], spec.labels[f"{LABEL}owner"]
            self.volumes.setdefault(spec.volume, made_for)
            self.created.append(spec.name)
            self.witness(Created(spec.name))
        self.trouble.step()

    def user_number(self, container: str, user: str) -> str:
        return user

    def put_files(self, container: str, tar: bytes) -> None:
        self._acting("put_files")
        found = self._found(container)
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            certificate = members.extractfile(f"{FOLDER.lstrip('/')}/{CERTIFICATE}")
            assert certificate is not None
            found.certificate = certificate.read()
            if len(members.getnames()) > 1:
                found.files = tar
        self.trouble.step()

    def start(self, container: str) -> None:
        self._acting("start")
        found = self._found(container)
        assert found.files, "a container must not start without its certificate"
        if found.status != "running":
            found.status = "running"
            self.witness(Started(container))
        self.trouble.step()

    def inspect(self, container: str) -> ContainerStatus:
        found = self.containers.get(container)
        if found is None:
            return MISSING
        running = found.status == "running"
        exit_code = None if running else found.exit_code
        return ContainerStatus(status=found.status, running=running, exit_code=exit_code, oom=False)

    def published(self, container: str) -> Target:
        if self._found(container).status != "running":
            raise EndpointFailed("The endpoint has not published the notebook's port yet")
        return Target(self.node or self.address, self.port)

    def log_tail(self, container: str) -> str:
        found = self.containers.get(container)
        return found.log if found else ""

    def launches(self, owner: str) -> list[LaunchThere]:
        self._acting("launches")
        wanted = {f"{LABEL}hub": self.hub_name, f"{LABEL}owner": owner}
        there: dict[str, ContainerTwin | HelperTwin] = {**self.containers, **self.helpers}
        listed = [
            {"Names": [f"/{name}"], "Labels": dict(container.specification.labels), "State": container.status}
            for name, container in there.items()
        ]
        return [launch for launch in (launch_of(entry, wanted) for entry in listed) if launch]

    def identity(self) -> EngineIdentity:
        return EngineIdentity({"ID": "twin"}, DOCKER_SOCKET, self.rootless)

    def start_helper(self, spec: HelperSpecification, program: bytes) -> None:
        self._acting("create_helper")
        if spec.name not in self.helpers:
            self._need_image(spec.image)
            self.helpers[spec.name] = HelperTwin(spec)
            self.witness(HelperMade(spec.labels[f"{LABEL}session"], spec.name))
        self.trouble.step()
        found = self._helper(spec.name)
        if found.status == "created":
            self._acting("start_helper")
            found.status = "running"
            self.trouble.step()

    def helper(self, name: str) -> HelperThere:
        if name not in self.helpers:
            return NO_HELPER
        found = self._helper(name)
        if found.status == "running":
            found.looks += 1
            if found.looks > self.helper_looks:
                self._end_helper(found)
        labels = found.specification.labels
        return HelperThere(found.status, found.exit_code, labels[f"{LABEL}session"], labels[f"{LABEL}label"])

    def helper_log(self, name: str, lines: int | None) -> str:
        return self.helpers[name].log if name in self.helpers else ""

    def remove_helper(self, name: str, label: str) -> bool:
        self._acting("remove_helper")
        if name not in self.helpers:
            return False
        labels = self._helper(name).specification.labels
        mine = labels[f"{LABEL}label"] == label
        if mine:
            del self.helpers[name]
            self.witness(HelperRemoved(labels[f"{LABEL}session"], name))
        self.trouble.step()
        return mine

    def built_image(self, image: str) -> int | None:
        return 1 << 30 if image in self.images and self.built.get(image) == self.hub_name else None

    def built_images(self) -> list[str]:
        self._acting("built_images")
        return sorted(image for image in self.built if self.built_image(image) is not None)

    def remove_built(self, image: str) -> bool:
        self._acting("remove_built")
        if self.built_image(image) is None:
            return False
        if any(container.specification.image == image for container in self.containers.values()):
            raise ImageInUse("A container uses the image")
        self.images.remove(image)
        del self.built[image]
        self.trouble.step()
        return True

    def _helper(self, name: str) -> HelperTwin:
        found = self.helpers[name]
        if found.specification.labels[f"{LABEL}hub"] != self.hub_name:
            raise ContainerConflict(f"A container called {name} is on the endpoint and is not this hub's")
        return found

    def _end_helper(self, found: HelperTwin) -> None:
        if failed := self.helper_fails(found):
            found.end(*failed)
            return
        task, labels = found.task, found.specification.labels
        match labels[TASK]:
            case "resolve":
                versions = [self.version for _ in task["sources"]]
                named = [source.get("address", "") for source in task["sources"]]
                addresses = [self.moved.get(address, address) for address in named]
                found.end(0, answer(answer="resolved", versions=versions, addresses=addresses, disk=1 << 40))
            case "build":
                self.builds += 1
                self.images.add(task["image"])
                self.built[task["image"]] = labels[f"{LABEL}hub"]
                found.end(0, "Step 2/2 : COPY\n" + answer(answer="built", size=1 << 30))
            case _:
                is_new = found.specification.volume not in self.cloned
                self.cloned.setdefault(found.specification.volume, task["version"])
                found.end(0, answer(answer="cloned", state="new" if is_new else "current"))

    def remove(self, container: str) -> bool:
        self._acting("remove")
        found = self.containers.get(container)
        if found is not None:
            hub, sid, generation = _identity(found.specification)
            if hub != self.hub_name or container != container_name(sid, int(generation)):
                raise ContainerConflict(f"A container called {container} is on the endpoint and is not this session's")
            del self.containers[container]
            self.witness(Removed(container))
        self.trouble.step()
        return found is not None

    def remove_volume(self, sid: str, owner: str) -> None:
        self._acting("remove_volume")
        name = volume_name(sid)
        if name in self.volumes:
            if self.volumes[name] != (sid, owner):
                raise VolumeConflict(f"The volume {name} was not made for this notebook")
            if any(container.specification.volume == name for container in self.containers.values()):
                raise VolumeInUse(f"Another container uses the volume {name}")
            del self.volumes[name]
        self.trouble.step()

    def _acting(self, call: str) -> None:
        self.trouble.step()
        self.during(call)

    def _need_image(self, image: str) -> None:
        if image not in self.images:
            raise ImageNotFound("The image is not on the endpoint any more")

    def _found(self, container: str) -> ContainerTwin:
        if container not in self.containers:
            raise ContainerMissing("The session's container is not on the endpoint any more")
        return self.containers[container]


@dataclass
class SlowEngineTwin(EngineTwin):
    """An engine that `takes` so many seconds for a call, whether its caller waits for that or has given up by then.

    `sent` is told of every such call when it comes in. What is `under_way` happens once the clock has passed its time
    and somebody connects, or with `settle`.
    """

    clock: Callable[[], float] = lambda: 0.0
    sleep: Callable[[float], None] = lambda seconds: None
    takes: Mapping[str, float] = field(default_factory=dict)
    sent: Callable[[str], None] = lambda call: None
    under_way: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def renew(self, deadline: float) -> None:
        self.settle()
        super().renew(deadline)

    def create(self, spec: Specification) -> None:
        self._in_time("create", lambda: super(SlowEngineTwin, self).create(spec))

    def commit(self, container: str, image: str, labels: Mapping[str, str]) -> Generator[None, None, None]:
        """The container is paused while it is written, as engines have it, whether its caller waits or not."""
        self._acting("commit")
        found, written = self._found(container), list[str]()
        ends_at, given_up_at = self.clock() + self.takes.get("commit", 0.0), self.clock() + self.deadlines[-1]

        def write() -> None:
            written.append(image)
            found.status = "running"
            self.write_image(container, image, labels)

        found.status = "paused"
        self.under_way.append((ends_at, write))
        while True:
            self.settle()
            if written:
                break
            if self.clock() >= given_up_at:
                raise EndpointTimeout("The endpoint did not answer in time")
            yield
            self.sleep(5.0)
        self.trouble.step()

    def start(self, container: str) -> None:
        self._in_time("start", lambda: super(SlowEngineTwin, self).start(container))

    def remove(self, container: str) -> bool:
        return self._in_time("remove", lambda: super(SlowEngineTwin, self).remove(container))

    def settle(self) -> None:
        """Let everything happen whose time has come; nobody hears how it ended."""
        due = [action for at, action in self.under_way if at <= self.clock()]
        self.under_way = [(at, action) for at, action in self.under_way if action not in due]
        for action in due:
            with suppress(EndpointError):
                action()

    def _in_time(self, call: str, action: Callable[[], _Answer]) -> _Answer:
        seconds, deadline = self.takes.get(call, 0.0), self.deadlines[-1]
        self.sent(call)
        if seconds > deadline:
            self.under_way.append((self.clock() + seconds, action))
        self.trouble.step()
        self.sleep(min(seconds, deadline))
        self.settle()
        if seconds > deadline:
            raise EndpointTimeout("The endpoint did not answer in time")
        return action()


def _identity(spec: Specification) -> tuple[str, str, str]:
    """Whose container it is: hub, session and generation."""
    return spec.labels[f"{LABEL}hub"], spec.labels[f"{LABEL}session"], spec.labels[f"{LABEL}generation"]


def _shape(spec: Specification) -> tuple[object, ...]:
    """What makes a container the one that was asked for."""
    published = (spec.port, spec.publish_address, spec.ports)
    mounted = (spec.volume, spec.workdir, spec.data)
    return spec.labels[f"{LABEL}label"], spec.image, spec.command, spec.variables, mounted, published, spec.limits


@cache
def a_trust() -> HubTrust:
    """The hub's own certificates, made once for all tests of a process."""
    ca = new_ca("Homeport test notebook CA", now=NOW, lifetime=LIFETIME)
    clients = new_ca("Homeport test client CA", now=NOW, lifetime=LIFETIME)
    probe = issue_client(clients, "launcher", now=NOW, lifetime=LIFETIME)
    return HubTrust(notebook_ca=ca, client_ca=clients.certificate, probe=probe)
