"""In-memory twins of what the launcher talks to. The stores' twins run the same contract suites as the real ones.

`Trouble` makes a twin fail on purpose: it is asked before and after everything that has an effect outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

from chalicelib.aws.errors import CredentialsMissing, GenerationWithdrawn, SessionNotFound, StaleSession
from chalicelib.aws.routes import Route
from chalicelib.notebook.certificates import HubTrust, issue_client, new_ca
from chalicelib.notebook.container import Specification
from chalicelib.session.values import Session
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
    """Time that passes only when told, but for a millisecond at every look."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SessionStoreTwin:
    """SessionStore in a dictionary."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.sessions: dict[str, Session] = {}
        self.history: list[Session] = []
        self.trouble = trouble or Trouble()

    def find(self, sid: str) -> Session | None:
        return self.sessions.get(sid)

    def load(self, sid: str) -> Session:
        if sid not in self.sessions:
            raise SessionNotFound("There is no such session")
        return self.sessions[sid]

    def save(self, session: Session) -> None:
        self.trouble.step()
        present = self.sessions.get(session.sid)
        if (present.version if present else 0) != session.version - 1:
            raise StaleSession("Somebody else changed the session")
        self.sessions[session.sid] = session
        self.history.append(session)
        self.trouble.step()

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
        present = self.routes.get(session.sid)
        if present and (
            present.generation > session.generation
            or (present.generation == session.generation and not present.published)
        ):
            raise GenerationWithdrawn("withdrawn")
        self._write(session, published=True)

    def withdraw(self, session: Session) -> None:
        present = self.routes.get(session.sid)
        if present and present.generation > session.generation:
            raise GenerationWithdrawn("later launch")
        self._write(session, published=False)

    def published(self) -> list[Route]:
        return [route for route in self.routes.values() if route.published]

    def _write(self, session: Session, *, published: bool) -> None:
        self.trouble.step()
        target = session.target if published else None
        self.routes[session.sid] = Route(session.sid, session.generation, target, published, 0, int(session.expires_at))
        self.trouble.step()


class CredentialsTwin:
    """CredentialsStore in a dictionary."""

    def __init__(self, trouble: Trouble | None = None) -> None:
        self.objects: dict[tuple[str, int], object] = {}
        self.trouble = trouble or Trouble()

    def put(self, sid: str, generation: int, owner: str, credentials: object) -> None:
        self.trouble.step()
        self.objects[sid, generation] = credentials
        self.trouble.step()

    def get(self, sid: str, generation: int, owner: str) -> object:
        if (sid, generation) not in self.objects:
            raise CredentialsMissing("No credentials are stored for this session")
        return self.objects[sid, generation]

    def purge(self, sid: str, generation: int) -> None:
        self.trouble.step()
        for key in [key for key in self.objects if key[0] == sid and key[1] <= generation]:
            del self.objects[key]
        self.trouble.step()


@dataclass
class ContainerTwin:
    specification: Specification
    files: bytes = b""
    status: str = "created"
    exit_code: int | None = None


@dataclass
class EngineTwin:
    """A Docker Engine with images and containers; `connect` is what Effects is given."""

    trouble: Trouble = field(default_factory=Trouble)
    images: set[str] = field(default_factory=set)
    containers: dict[str, ContainerTwin] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    pulls: int = 0
    deadlines: list[float] = field(default_factory=list)
    refuses: Exception | None = None
    during: Callable[[str], None] = lambda call: None
    address: str = "203.0.113.7"

    def connect(self, credentials: object, *, address: str, deadline: float, hub_name: str) -> EngineTwin:
        self.credentials = credentials
        self.deadlines.append(deadline)
        return self

    def __enter__(self) -> EngineTwin:
        if self.refuses:
            raise self.refuses
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _acting(self, call: str) -> None:
        self.trouble.step()
        self.during(call)

    def verify(self) -> tuple[str, str]:
        self._acting("verify")
        return "20.10.24", ""

    def image_present(self, image: str) -> bool:
        return image in self.images

    def image_workdir(self, image: str) -> str:
        return "/home/jovyan"

    def pull(self, image: str) -> Iterator[SimpleNamespace]:
        self.pulls += 1
        for layer in range(4):
            self._acting("pull")
            yield SimpleNamespace(fraction=layer / 4, line=f"Pulling: {layer} of 4 layers")
        self.images.add(image)
        self.trouble.step()

    def create(self, specification: Specification) -> None:
        self._acting("create")
        if specification.name not in self.containers:
            self.containers[specification.name] = ContainerTwin(specification)
            self.created.append(specification.name)
        self.trouble.step()

    def put_files(self, name: str, files: bytes) -> None:
        self._acting("put_files")
        self.containers[name].files = files
        self.trouble.step()

    def start(self, name: str) -> None:
        self._acting("start")
        assert self.containers[name].files, "a container must not start without its certificate"
        self.containers[name].status = "running"
        self.trouble.step()

    def inspect(self, name: str) -> SimpleNamespace:
        container = self.containers.get(name)
        if container is None:
            return SimpleNamespace(exists=False, status="", running=False, exit_code=None, oom=False)
        running = container.status == "running"
        return SimpleNamespace(
            exists=True, status=container.status, running=running, exit_code=container.exit_code, oom=False
        )

    def published_port(self, name: str) -> int:
        return 32768

    def log_tail(self, name: str) -> str:
        return "ModuleNotFoundError: No module named 'jupyterlab'\n"

    def remove(self, name: str) -> None:
        self._acting("remove")
        self.containers.pop(name, None)
        self.trouble.step()


@cache
def a_trust() -> HubTrust:
    """The hub's own certificates, made once for all tests of a process."""
    ca = new_ca("Homeport test notebook CA", now=NOW, lifetime=LIFETIME)
    clients = new_ca("Homeport test client CA", now=NOW, lifetime=LIFETIME)
    probe = issue_client(clients, "launcher", now=NOW, lifetime=LIFETIME)
    return HubTrust(notebook_ca=ca, client_ca=clients.certificate, probe=probe)
