"""Everything the launcher can do to the outside: one match from effects to the events they cause.

One Effects object serves one tick of one session and keeps its credentials no longer than the tick lasts; there
is no cache that two sessions could share. Each effect resolves and checks the endpoint's address again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Protocol, Self, assert_never

from chalicelib.aws.errors import CredentialsMissing
from chalicelib.bundle.address import AddressPolicy, Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.endpoint import MISSING, ContainerStatus, DockerEndpoint
from chalicelib.engine.errors import ContainerRemoved, EndpointError, EndpointTimeout, NotebookExited, NotebookSilent
from chalicelib.engine.messages import quoted
from chalicelib.engine.probe import probe
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.engine.resolve import resolve
from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.notebook.certificates import HubTrust, issue_notebook
from chalicelib.notebook.container import ImageConfig, Specification, injected_files, specification
from chalicelib.session import events as e
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.events import Effect, Event
from chalicelib.session.lease import EFFECT_SECONDS
from chalicelib.session.values import Failure, Session, Target

PROBE_SECONDS: Final = 8.0  # one effect's worth of waiting for JupyterLab, which answers about a second after start
PROBE_PAUSE: Final = 0.05
LEAST_SECONDS: Final = 1.0  # what the last look at a notebook gets, however late it is
LEAF_SLACK: Final = 86400.0  # a notebook's certificate outlives its session by a day, in seconds
NORMAL_EXITS: Final = frozenset({0, 143})  # ended by itself (idle, File > Shut Down), or by SIGTERM


class CredentialsForgotten(HomeportError):
    """The visitor had the credentials deleted, and this can only be done with them."""

    status = 409


class Engine(Protocol):
    """What effects need of a visitor's engine: chalicelib.engine.endpoint.DockerEndpoint, or its twin."""

    @property
    def address(self) -> str: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def verify(self) -> tuple[str, str]: ...
    def image_present(self, image: str, /) -> bool: ...
    def image_config(self, image: str, /) -> ImageConfig: ...
    def pull(self, image: str, /) -> Generator[PullStatus, None, None]: ...
    def create(self, spec: Specification, /) -> None: ...
    def put_files(self, container: str, tar: bytes, /) -> None: ...
    def start(self, container: str, /) -> None: ...
    def inspect(self, container: str, /) -> ContainerStatus: ...
    def published_port(self, container: str, /) -> int: ...
    def log_tail(self, container: str, /) -> str: ...
    def remove(self, container: str, /) -> None: ...


class Connect(Protocol):
    """Opens the visitor's endpoint."""

    def __call__(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> Engine: ...


class Resolve(Protocol):
    """Gives the address to connect to: chalicelib.engine.resolve."""

    def __call__(self, endpoint: Endpoint, policy: AddressPolicy) -> str: ...


class Probe(Protocol):
    """Asks a notebook whether it answers: chalicelib.engine.probe."""

    def __call__(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> None: ...


class CredentialsAccess(Protocol):
    """What effects need of chalicelib.aws.credentials.CredentialsStore."""

    def get(self, sid: str, generation: int, owner: str) -> Credentials: ...
    def purge(self, sid: str, generation: int) -> None: ...


class Routes(Protocol):
    """What effects need of chalicelib.aws.routes.RouteStore."""

    def publish(self, session: Session) -> None: ...
    def withdraw(self, session: Session) -> None: ...


class Effects:
    """The outside as one session's tick sees it."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: CredentialsAccess,
        routes: Routes,
        trust: Callable[[], HubTrust],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        connect: Connect = DockerEndpoint,
        resolve: Resolve = resolve,
        probe: Probe = probe,
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._routes = routes
        self._trust = trust
        self._clock = clock
        self._sleep = sleep
        self._connect = connect
        self._resolve = resolve
        self._ask_notebook = probe
        self._opened: Credentials | None = None
        self._ends_by = 0.0

    def perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:
        """Do it, and yield what happened; the last event is the outcome, those before it are progress.

        A HomeportError becomes EffectDelayed or EffectFailed, as the error's class says. Safe to repeat.
        """
        self._ends_by = self._clock() + EFFECT_SECONDS
        try:
            yield from self._perform(effect, session)
        except (IllegalTransition, BadConfiguration):
            raise
        except HomeportError as error:
            failure = Failure(error.code, error.message)
            yield e.EffectDelayed(failure) if _is_tried_again(effect, error) else e.EffectFailed(failure)

    def _perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:  # noqa: C901 - one arm per effect
        match effect:
            case e.VerifyEndpoint():
                yield self._verify(session)
            case e.EnsureImage():
                yield from self._ensure_image(session)
            case e.CreateContainer():
                yield self._create(session)
            case e.StartContainer():
                yield self._start(session)
            case e.ProbeNotebook():
                yield self._probe(session)
            case e.PublishRoute():
                self._routes.publish(session)
                yield e.RoutePublished()
            case e.InspectContainer():
                yield self._inspect(session)
            case e.WithdrawRoute():
                self._routes.withdraw(session)
                yield e.RouteWithdrawn()
            case e.RemoveContainer():
                yield self._remove(session)
            case e.ForgetCredentials() | e.PurgeCredentials():
                self._opened = None
                self._credentials.purge(session.sid, session.generation)
                yield e.CredentialsPurged()
            case _:
                assert_never(effect)

    # ── the visitor's endpoint ──

    def _endpoint(self, session: Session) -> Engine:
        if self._opened is None:
            self._opened = self._credentials.get(session.sid, session.generation, session.owner)
        address = self._resolve(self._opened.endpoint, self._config.address_policy)
        deadline = self._ends_by - self._clock()
        if deadline <= 0:  # a call that begins now could end after the lease, beside another tick's
            raise EndpointTimeout("The hub's own stores or its name server took too long. The hub will try again")
        return self._connect(self._opened, address=address, deadline=deadline, hub_name=self._config.hub_name)

    def _verify(self, session: Session) -> Event:
        with self._endpoint(session) as endpoint:
            engine, note = endpoint.verify()
            return e.EndpointVerified(endpoint.address, engine, note)

    def _ensure_image(self, session: Session) -> Generator[Event, None, None]:
        with self._endpoint(session) as endpoint:
            if not endpoint.image_present(session.image):
                with closing(endpoint.pull(session.image)) as statuses:
                    for status in statuses:
                        yield e.PullProgressed(status.fraction, status.line)
            yield e.ImagePresent()

    def _create(self, session: Session) -> Event:
        with self._endpoint(session) as endpoint:
            image = endpoint.image_config(session.image)
            container = specification(
                session,
                hub_name=self._config.hub_name,
                image_workdir=image.workdir,
                # Where the engine binds the notebook's port: loopback stays on loopback, otherwise every address.
                publish_address=endpoint.address if ip_address(endpoint.address).is_loopback else "",
                idle_lifetime=self._config.idle_lifetime,
            )
            endpoint.create(container)
            if endpoint.inspect(container.name).status == "created":
                endpoint.put_files(container.name, self._files(session, workdir=container.workdir, user=image.user))
            return e.ContainerCreated()

    def _files(self, session: Session, *, workdir: str, user: str) -> bytes:
        trust, now = self._trust(), self._clock()
        lifetime = max(session.expires_at - now, 0.0) + LEAF_SLACK
        leaf = issue_notebook(trust.notebook_ca, session.host, now=now, lifetime=lifetime)
        return injected_files(
            session,
            workdir=workdir,
            user=user,
            leaf=leaf,
            client_ca=trust.client_ca,
            idle_lifetime=self._config.idle_lifetime,
        )

    def _start(self, session: Session) -> Event:
        name = _container(session)
        with self._endpoint(session) as endpoint:
            endpoint.start(name)
            status = endpoint.inspect(name)
            if not status.running:
                raise self._not_running(endpoint, name, status)
            return e.ContainerStarted(Target(endpoint.address, endpoint.published_port(name)))

    def _inspect(self, session: Session) -> Event:
        name = _container(session)
        with self._endpoint(session) as endpoint:
            status = endpoint.inspect(name)
            if status.running:
                return e.ContainerRan()
            error = self._not_running(endpoint, name, status)
            if error.retryable:
                raise error
            if isinstance(error, NotebookExited) and status.exit_code in NORMAL_EXITS and not status.oom:
                return e.ContainerExited(None)
            return e.ContainerExited(Failure(error.code, error.message))

    def _not_running(self, endpoint: Engine, name: str, status: ContainerStatus) -> EndpointError:
        """Say why a container that was seen with `status` does not run."""
        if status == MISSING:
            return ContainerRemoved(
                f"The container {name} was removed from the endpoint. Launch again; your files are in its volume"
            )
        if status.status in ("paused", "restarting"):
            return NotebookSilent(
                f"The container is {status.status}. If it is paused, resume it with: docker unpause {name}"
            )
        if status.oom:
            return NotebookExited("The notebook ran out of memory. Launch it again with more memory")
        tail = endpoint.log_tail(name).strip().splitlines()
        last = f" Last log line: {quoted(tail[-1])}" if tail else ""
        return NotebookExited(f"The notebook's container ended with exit code {status.exit_code}.{last}")

    def _remove(self, session: Session) -> Event:
        if session.container is None:
            return e.ContainerRemoved()
        if not session.credentials_held:
            raise CredentialsForgotten("Your credentials were deleted, so the hub could not remove the container")
        with self._endpoint(session) as endpoint:
            endpoint.remove(session.container)
            return e.ContainerRemoved()

    # ── the notebook and its route ──

    def _probe(self, session: Session) -> Event:
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be probed")
        deadline = self._clock() + PROBE_SECONDS
        while True:
            try:
                seconds = max(deadline - self._clock(), LEAST_SECONDS)
                self._ask_notebook(session.target, session.host, self._trust(), deadline=seconds)
                return e.NotebookAnswered()
            except NotebookSilent:
                if self._clock() >= deadline:
                    self._raise_unless_running(session)
                    raise
            self._sleep(PROBE_PAUSE)

    def _raise_unless_running(self, session: Session) -> None:
        """Say more of a silent notebook whose container does not run; nobody need wait for one that has ended."""
        if session.credentials_held:
            name = _container(session)
            with self._endpoint(session) as endpoint:
                status = endpoint.inspect(name)
                if not status.running:
                    raise self._not_running(endpoint, name, status)


def _container(session: Session) -> str:
    if session.container is None:
        raise IllegalTransition("a session without a container cannot be in this state")
    return session.container


def _is_tried_again(effect: Effect, error: HomeportError) -> bool:
    """Say whether the effect may succeed later, or must: giving it up would do more harm than the error."""
    match effect:
        case e.WithdrawRoute() | e.PurgeCredentials() | e.ForgetCredentials():
            return True  # a route or a secret would be left behind
        case e.InspectContainer():
            return error.retryable or isinstance(error, EndpointError)  # a working notebook would be taken away
        case e.RemoveContainer():
            return error.retryable and not isinstance(error, CredentialsMissing)  # once purged, they stay away
        case _:
            return error.retryable
