"""In-memory twins of what the launcher talks to. Each runs the contract suite of what it stands for (test_twins.py).

`Trouble` makes a twin fail on purpose: it is asked before and after everything that has an effect outside. Other
failures are given to the twin they are to happen in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Self

from chalicelib.aws.errors import CredentialsMissing, LaunchWithdrawn, SessionNotFound, StaleSession
from chalicelib.aws.queues import TickMessage
from chalicelib.aws.routes import Redeemed, Route
from chalicelib.bundle.credentials import Credentials
from chalicelib.engine.endpoint import MISSING, ContainerStatus
from chalicelib.engine.errors import ContainerConflict, ContainerMissing, EndpointFailed, ImageNotFound
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.errors import BadEnvelope
from chalicelib.notebook.certificates import HubTrust, issue_client, new_ca
from chalicelib.notebook.container import LABEL, ImageConfig, Specification
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.values import Session, container_name
from tests.builders import LIFETIME, NOW


class Killed(BaseException):
    """The process ended at this instruction. Not an Exception: nothing may catch it and go on."""


class Trouble:
    """Ends the process at the n-th instruction with an effect outside (None: never)."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.count = 0

    def step(self) -> None:
        self.count += 1
        if self.at is not None and self.count == self.at:
            raise Killed


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


def _nothing(session: Session) -> None:
    """What goes wrong with a save: nothing."""


class SessionStoreTwin:
    """SessionStore in a dictionary. `before_save` and `after_save` may raise: the save is lost, or only its answer."""

    def __init__(
        self,
        trouble: Trouble | None = None,
        *,
        before_save: Callable[[Session], None] = _nothing,
        after_save: Callable[[Session], None] = _nothing,
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self.history: list[Session] = []
        self.trouble = trouble or Trouble()
        self.before_save = before_save
        self.after_save = after_save

    def find(self, sid: str) -> Session | None:
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
        self.history.append(session)
        self.trouble.step()
        self.after_save(session)

    def of_owner(self, owner: str) -> list[Session]:
        found = [session for session in self.sessions.values() if session.owner == owner]
        return sorted(found, key=lambda session: session.created_at, reverse=True)

    def due(self, now: float) -> Iterator[str]:
        for session in list(self.sessions.values()):
            if session.next_attempt_at is not None and max(session.next_attempt_at, session.lease_expires_at) <= now:
                yield session.sid


class RouteStoreTwin:
    """RouteStore in a dictionary."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.trouble = trouble or Trouble()

    def publish(self, session: Session) -> None:
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be published")
        present = self.routes.get(session.host)
        if present and not present.published:
            raise LaunchWithdrawn("withdrawn")
        self._write(session, published=True)

    def withdraw(self, session: Session) -> None:
        self._write(session, published=False)

    def published(self) -> list[Route]:
        return [route for route in self.routes.values() if route.published]

    def _write(self, session: Session, *, published: bool) -> None:
        self.trouble.step()
        target = session.target if published else None
        self.routes[session.host] = Route(session.host, target, published, 0, int(session.expires_at))
        self.trouble.step()


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
        self.before_put = before_put
        self.after_put = after_put

    def put(self, sid: str, generation: int, owner: str, credentials: Credentials) -> None:
        self.trouble.step()
        self.before_put()
        self.objects[sid, generation] = (owner, credentials)
        self.after_put()
        self.trouble.step()

    def get(self, sid: str, generation: int, owner: str) -> Credentials:
        if (sid, generation) not in self.objects:
            raise CredentialsMissing("No credentials are stored for this session")
        sealed_for, credentials = self.objects[sid, generation]
        if sealed_for != owner:
            raise BadEnvelope("The stored credentials belong to another session")
        return credentials

    def purge(self, sid: str, generation: int) -> None:
        self.trouble.step()
        for key in [key for key in self.objects if key[0] == sid and key[1] <= generation]:
            del self.objects[key]
        self.trouble.step()


class TokenStoreTwin:
    """TokenStore in two dictionaries, with the one door of ProxyStore that tickets are for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.tokens: dict[str, tuple[frozenset[str], float]] = {}
        self.tickets: dict[str, tuple[Redeemed, float]] = {}
        self.clock = clock

    def put_token(self, token: str, owners: frozenset[str], *, expires_at: float) -> None:
        self.tokens[token] = (owners, expires_at)

    def owners_of(self, token: str) -> frozenset[str]:
        owners, expires_at = self.tokens.get(token, (frozenset(), 0.0))
        return owners if expires_at > self.clock() else frozenset()

    def put_ticket(self, ticket: str, session: Session, *, path: str, expires_at: float) -> None:
        redeemed = Redeemed(session.host, path, int(session.expires_at))
        self.tickets[ticket] = (redeemed, expires_at)

    def redeem_ticket(self, ticket: str, host: str) -> Redeemed | None:
        redeemed, expires_at = self.tickets.get(ticket, (None, 0.0))
        if redeemed is None or redeemed.host != host or expires_at <= self.clock():
            return None
        del self.tickets[ticket]
        return redeemed


class QueueTwin:
    """TickQueue in a list. While `refuses` is set, it takes no message."""

    def __init__(self, trouble: Trouble | None = None, *, refuses: Exception | None = None) -> None:
        self.sent: list[tuple[TickMessage, float]] = []
        self.trouble = trouble or Trouble()
        self.refuses = refuses

    def enqueue(self, message: TickMessage, *, delay: float) -> None:
        self.trouble.step()
        if self.refuses:
            raise self.refuses
        self.sent.append((message, delay))


@dataclass
class ContainerTwin:
    """A container as the engine has it; `end` and `pause` are what may happen to it."""

    specification: Specification
    files: bytes = b""
    status: str = "created"
    exit_code: int = 0
    log: str = ""

    def end(self, exit_code: int, log: str = "") -> None:
        self.status, self.exit_code, self.log = "exited", exit_code, log

    def pause(self) -> None:
        self.status = "paused"


@dataclass
class EngineTwin:
    """A Docker Engine with images and containers; `connect` is what Effects is given.

    While `refuses` is set, nothing can connect. `during` is told every call that acts, and may raise.
    """

    trouble: Trouble = field(default_factory=Trouble)
    images: set[str] = field(default_factory=set)
    containers: dict[str, ContainerTwin] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    pulls: int = 0
    deadlines: list[float] = field(default_factory=list)
    refuses: Exception | None = None
    during: Callable[[str], None] = lambda call: None
    address: str = "203.0.113.7"
    credentials: Credentials = field(init=False)
    hub_name: str = field(init=False)

    def connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> Self:
        self.credentials, self.hub_name = credentials, hub_name
        self.deadlines.append(deadline)
        return self

    def __enter__(self) -> Self:
        if self.refuses:
            raise self.refuses
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def verify(self) -> tuple[str, str]:
        self._acting("verify")
        return "20.10.24", ""

    def image_present(self, image: str) -> bool:
        return image in self.images

    def image_config(self, image: str) -> ImageConfig:
        self._need_image(image)
        return ImageConfig("/home/jovyan", "1000")

    def pull(self, image: str) -> Generator[PullStatus, None, None]:
        self.pulls += 1
        for layer in range(4):
            self._acting("pull")
            yield PullStatus(layer / 4, f"Pulling: {layer} of 4 layers")
        self.images.add(image)
        self.trouble.step()

    def create(self, spec: Specification) -> None:
        self._acting("create")
        present = self.containers.get(spec.name)
        if present is not None and _identity(present.specification) != _identity(spec):
            raise ContainerConflict(f"A container called {spec.name} is on the endpoint and is not this session's")
        if present is None or present.specification.labels[f"{LABEL}label"] != spec.labels[f"{LABEL}label"]:
            self._need_image(spec.image)
            self.containers[spec.name] = ContainerTwin(spec)
            self.created.append(spec.name)
        self.trouble.step()

    def put_files(self, container: str, tar: bytes) -> None:
        self._acting("put_files")
        self._found(container).files = tar
        self.trouble.step()

    def start(self, container: str) -> None:
        self._acting("start")
        found = self._found(container)
        assert found.files, "a container must not start without its certificate"
        found.status = "running"
        self.trouble.step()

    def inspect(self, container: str) -> ContainerStatus:
        found = self.containers.get(container)
        if found is None:
            return MISSING
        running = found.status == "running"
        exit_code = None if running else found.exit_code
        return ContainerStatus(status=found.status, running=running, exit_code=exit_code, oom=False)

    def published_port(self, container: str) -> int:
        if self._found(container).status != "running":
            raise EndpointFailed("The endpoint has not published the notebook's port yet")
        return 32768

    def log_tail(self, container: str) -> str:
        found = self.containers.get(container)
        return found.log if found else ""

    def remove(self, container: str) -> None:
        self._acting("remove")
        found = self.containers.get(container)
        if found is not None:
            hub, sid, generation = _identity(found.specification)
            if hub != self.hub_name or container != container_name(sid, int(generation)):
                raise ContainerConflict(f"A container called {container} is on the endpoint and is not this session's")
            del self.containers[container]
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


def _identity(spec: Specification) -> tuple[str, str, str]:
    """Whose container it is: hub, session and generation."""
    return spec.labels[f"{LABEL}hub"], spec.labels[f"{LABEL}session"], spec.labels[f"{LABEL}generation"]


@cache
def a_trust() -> HubTrust:
    """The hub's own certificates, made once for all tests of a process."""
    ca = new_ca("Homeport test notebook CA", now=NOW, lifetime=LIFETIME)
    clients = new_ca("Homeport test client CA", now=NOW, lifetime=LIFETIME)
    probe = issue_client(clients, "launcher", now=NOW, lifetime=LIFETIME)
    return HubTrust(notebook_ca=ca, client_ca=clients.certificate, probe=probe)
