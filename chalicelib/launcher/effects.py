"""Everything the launcher can do to the outside: one match from effects to the events they cause.

One Effects object serves one tick of one session and keeps its credentials, and the connection that was made with
them, no longer than the tick lasts; there is no cache that two sessions could share. Each effect resolves and checks
the endpoint's address again: the connection is used again if that is its address, and if nothing failed on it.

An engine or a notebook that is slow holds a function until the effect's deadline. So whatever held one for long is
noted (admission.py), and while an owner or a network has many notes, its sessions are asked a few at a time: the others
wait for their turn, and are told for what.

Sweeping (docs/adr/0010). A container may be left on an endpoint by a launch that is over: the credentials were
forgotten, the endpoint was away for too long, a creation took longer than anybody waited. So whenever the endpoint of
a session is open and all is well there (verified, answering again, removed), the other containers of this hub and this
owner are listed by their labels, and those are removed whose launch is over as the hub's table says it. One that the
table does not know is left alone: its labels may be all that is left of its session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from traceback import walk_tb
from types import MappingProxyType
from typing import Final, Protocol, assert_never

from chalicelib.aws.errors import CredentialsMissing, StoreRefused, StoreUnavailable
from chalicelib.aws.slots import TURNS, Pool, repository_pool
from chalicelib.bundle.address import AddressPolicy, Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.bundle.errors import ForbiddenAddress
from chalicelib.config import Config
from chalicelib.engine.endpoint import (
    IMAGES_LENGTH,
    MISSING,
    ContainerStatus,
    DockerEndpoint,
    EngineIdentity,
    HelperThere,
)
from chalicelib.engine.errors import (
    ContainerConflict,
    ContainerMissing,
    ContainerRemoved,
    EndpointError,
    EndpointForbidden,
    EndpointTimeout,
    ImageInUse,
    ImageMissing,
    ImageNameTaken,
    ImageNotWritten,
    ImageWithoutJupyter,
    NodeForbidden,
    NoSpace,
    NotebookExited,
    NotebookSilent,
    NotebookWrongCertificate,
    RequestRejected,
    SaveUnderWay,
)
from chalicelib.engine.messages import (
    is_jupyter_missing,
    is_of_another_platform,
    quoted,
    without_program,
    wrong_platform,
)
from chalicelib.engine.ownership import LaunchThere
from chalicelib.engine.probe import probe
from chalicelib.engine.pull import ANSWER_SECONDS as FIRST_LAYER_SECONDS
from chalicelib.engine.pull_progress import PullStatus, of_the_rest
from chalicelib.engine.resolve import resolve
from chalicelib.engine.saving import SAVED, SAVED_AT, SAVED_BY, ImageThere
from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.launcher.helped import (
    BROKEN,
    HelperFailed,
    NoRoomToBuild,
    SocketUnreachable,
    helper_error,
)
from chalicelib.notebook.certificates import HubTrust, Leaf, issue_notebook
from chalicelib.notebook.container import (
    ImageConfig,
    Specification,
    certificate_file,
    hub_label,
    injected_files,
    specification,
)
from chalicelib.notebook.helpers import (
    HelperSpecification,
    build_helper,
    clone_helper,
    program_file,
    resolve_helper,
)
from chalicelib.repository.address import content_folder, shown
from chalicelib.repository.answers import CLONED, Report, report_of
from chalicelib.repository.source import Source
from chalicelib.repository.tag import image_name
from chalicelib.session import events as e
from chalicelib.session.admission import Crowd, Quota, Slot, crowd_before, slot_of
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.events import Effect, Event
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import EFFECT_SECONDS, SAVE_SECONDS
from chalicelib.session.options import shown_size
from chalicelib.session.values import (
    ALL_IMAGES,
    BuiltImage,
    Failure,
    Limits,
    Phase,
    PullPolicy,
    SavedImage,
    Session,
    State,
    Target,
    container_name,
)

ANSWER_SECONDS: Final[Mapping[type[Effect], float]] = MappingProxyType(  # of effects that only ask
    {e.VerifyEndpoint: 10.0, e.FindImage: 10.0, e.LookAtNotebook: 15.0}
)
LOOK_SECONDS: Final = 5.0  # of a look, for the notebook; the rest is for the endpoint
PROBE_SECONDS: Final = 8.0  # the first waiting for JupyterLab, which answers about a second after start
PROBE_PAUSE: Final = 0.05
LEAST_SECONDS: Final = 1.0  # what each of these questions gets at least
IDLE_SLACK: Final = 90.0  # seconds after which Jupyter, which checks once a minute, has ended an idle notebook
SLOT_SECONDS: Final = 960.0  # above what a function may take, so that a pull at work never loses its slot
SLOW_SECONDS: Final = 3.0  # what holds a tick for longer, all its effects together, is noted;
HUNG_SECONDS: Final = 0.9  # so is an effect that fails after longer than this
NOTED_SECONDS: Final = 60.0  # above EFFECT_SECONDS, so that who is asked all the time is noted all the time
TURN_SECONDS: Final = 60.0  # what a tick that was killed keeps its turn for; one at work takes it anew
ADDRESS_LENGTH: Final = 45  # characters; the longest way to write an IPv6 address
HELPED_SECONDS: Final = 6.0  # the first waiting for a helper that needs little time
LOOK_LINES: Final = 100  # of a helper's log, to see how far it is,
WHOLE_LINES: Final = 1000  # and all of it: those of 500 characters fit into one answer
HELPER_LOOK: Final = 0.2  # seconds between two looks at it then
LAST_LINES: Final = 5  # of its log are told of a container that ended
MASKED_LENGTH: Final = 6  # characters; a shorter value is no secret, and would tear holes into sentences
COMMITS: Final = 2  # that are sent for one image: an answer that is missing may have been the only thing that was
LEAF_SLACK: Final = 86400.0  # a notebook's certificate outlives its session by a day, in seconds
NORMAL_EXITS: Final = frozenset({0, 143})  # ended by itself (idle, File > Shut Down), or by SIGTERM
_FINAL_ANSWERS: Final = (ContainerMissing, EndpointForbidden, NoSpace, RequestRejected)  # an engine's own

log = logging.getLogger("homeport.launcher")


class CredentialsForgotten(HomeportError):
    """The visitor had the credentials deleted, and this can only be done with them."""

    status = 409


class VariablesMissing(HomeportError):
    """The credentials were uploaded again without the variables that the launch asked for, or by an older version."""

    status = 409


class RepositoryBusy(HomeportError):
    """As many notebooks of the repository are launching or running as the hub allows."""

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


class Engine(Protocol):
    """What effects need of a visitor's engine: chalicelib.engine.endpoint.DockerEndpoint, or its twin."""

    @property
    def address(self) -> str: ...
    def renew(self, deadline: float, /) -> None: ...
    def close(self) -> None: ...
    def verify(self) -> tuple[str, str]: ...
    def check_limits(self, limits: Limits, /) -> None: ...
    def image_present(self, image: str, /) -> bool: ...
    def identity(self) -> EngineIdentity: ...
    def start_helper(self, spec: HelperSpecification, program: bytes, /) -> None: ...
    def helper(self, name: str, /) -> HelperThere: ...
    def helper_log(self, name: str, lines: int, /) -> str: ...
    def remove_helper(self, name: str, label: str, /) -> bool: ...
    def built_image(self, image: str, /) -> int | None: ...
    def built_images(self) -> list[str]: ...
    def remove_built(self, image: str, /) -> bool: ...
    def image_config(self, image: str, /) -> ImageConfig: ...
    def saved_image(self, image: str, /) -> ImageThere | None: ...
    def check_savable(self, container: str, /) -> None: ...
    def commit(self, container: str, image: str, labels: Mapping[str, str], /) -> Generator[None, None, None]: ...
    def pull(self, image: str, /, *, answer_within: float = ...) -> Generator[PullStatus, None, None]: ...
    def create(self, spec: Specification, /) -> None: ...
    def user_number(self, container: str, user: str, /) -> str: ...
    def put_files(self, container: str, tar: bytes, /) -> None: ...
    def start(self, container: str, /) -> None: ...
    def inspect(self, container: str, /) -> ContainerStatus: ...
    def published(self, container: str, /) -> Target: ...
    def log_tail(self, container: str, /) -> str: ...
    def launches(self, owner: str, /) -> list[LaunchThere]: ...
    def remove(self, container: str, /) -> bool: ...
    def remove_volume(self, sid: str, owner: str, /) -> None: ...


class Connect(Protocol):
    """Opens the visitor's endpoint."""

    def __call__(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> Engine: ...


class Resolve(Protocol):
    """Gives the address to connect to: chalicelib.engine.resolve."""

    def __call__(self, endpoint: Endpoint, policy: AddressPolicy) -> str: ...


class Probe(Protocol):
    """Asks a notebook whether it answers: chalicelib.engine.probe."""

    def __call__(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> float | None: ...


class CredentialsAccess(Protocol):
    """What effects need of chalicelib.aws.credentials.CredentialsStore."""

    def get(self, sid: str, generation: int, owner: str) -> Credentials: ...
    def holds(self, sid: str, generation: int) -> bool: ...
    def purge(self, sid: str, generation: int) -> None: ...


class Routes(Protocol):
    """What effects need of chalicelib.aws.routes.RouteStore."""

    def publish(self, session: Session) -> None: ...
    def withdraw(self, session: Session) -> None: ...


class Slots(Protocol):
    """What effects need of chalicelib.aws.slots.SlotStore."""

    def held(self, pool: str) -> Mapping[str, Slot]: ...
    def take(self, pool: str, sid: str, slot: Slot, quota: Quota) -> Crowd | None: ...
    def put(self, pool: str, sid: str, slot: Slot) -> None: ...
    def give_back(self, pool: str, sid: str) -> None: ...


class Images(Protocol):
    """What effects need of chalicelib.aws.images.ImageStore."""

    def put(self, image: SavedImage) -> None: ...
    def put_built(self, image: BuiltImage, *, is_new: bool) -> None: ...
    def built_of(self, owner: str) -> Sequence[BuiltImage]: ...
    def remove_built(self, owner: str, endpoint: str, names: Iterable[str]) -> None: ...


class BuildLogs(Protocol):
    """What effects need of chalicelib.aws.build_logs.BuildLogStore."""

    def put(self, sid: str, generation: int, text: str) -> None: ...


class Effects:
    """The outside as one session's tick sees it."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: CredentialsAccess,
        routes: Routes,
        slots: Slots,
        images: Images,
        build_logs: BuildLogs,
        trust: Callable[[], HubTrust],
        find_session: Callable[[str], Session | None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        connect: Connect = DockerEndpoint,
        resolve: Resolve = resolve,
        probe: Probe = probe,
        program: bytes = b"",
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._routes = routes
        self._slots = slots
        self._images = images
        self._build_logs = build_logs
        self._trust = trust
        self._find_session = find_session
        self._clock = clock
        self._sleep = sleep
        self._connect = connect
        self._resolve = resolve
        self._ask_notebook = probe
        self._program = program_file(program, 0.0)
        self._opened: Credentials | None = None
        self._connected: tuple[str, str, Engine] | None = None  # its address, whose containers, and the endpoint
        self._ends_by = 0.0
        self._held = 0.0  # seconds that the endpoint or the notebook has held the function for and are not judged yet,
        self._held_in_all = 0.0  # and those in the whole tick
        self._asks = False  # whether the present time is theirs
        self._counted_at = 0.0
        self._may_ask = False
        self._taken = set[Pool]()

    def perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:
        """Do it, and yield what happened; the last event is the outcome, those before it are progress.

        A HomeportError becomes EffectDelayed or EffectFailed, as the error's class says, and so does a defect: a tick
        that raised each time would be repeated for ever. Raises BadConfiguration, which is all sessions' problem and
        none's fault. Safe to repeat. After the outcome the endpoint may be swept; what fails in that counts for
        nothing.
        """
        error: HomeportError | None = None
        now = self._clock()
        self._held = 0.0
        self._ends_by = now + seconds_of(effect)
        if session.lease_expires_at and not isinstance(effect, e.SaveImage):  # a save that took long leaves it less
            self._ends_by = min(self._ends_by, session.lease_expires_at)
        try:
            with closing(self._perform(effect, session)) as events:
                for event in events:
                    self._note_if_slow(effect, session, error)  # before the save: that may be lost, to a Stop for one
                    with self._asking(False):
                        yield event
        except BadConfiguration:
            raise
        except Exception as raised:  # noqa: BLE001 - whatever it is: see above
            error = _error_of(effect, session, raised)
        self._note_if_slow(effect, session, error)
        if error is not None:
            yield self._event_of(effect, session, error)

    def _perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:  # noqa: C901 - one arm per effect
        match effect:
            case e.VerifyEndpoint():
                yield from self._verify(session)
            case e.FindImage():
                yield self._find_image(session)
            case e.PullImage(joins=joins):
                yield from self._pull_image(session, joins=joins)
            case e.ResolveVersions():
                yield from self._resolve_versions(session)
            case e.BuildImage():
                yield from self._build_image(session)
            case e.CreateContainer():
                yield self._create(session)
            case e.CloneFiles():
                yield from self._clone_files(session)
            case e.StartContainer():
                yield self._start(session)
            case e.ProbeNotebook():
                yield self._probe(session)
            case e.PublishRoute():
                if session.state is State.REPUBLISHING:  # its end may be another one
                    self._take_places(session)
                self._routes.publish(session)
                yield e.RoutePublished()
            case e.LookAtNotebook():
                yield from self._look(session)
            case e.SaveImage():
                yield from self._save_image(session)
            case e.RemoveImages():
                yield from self._remove_images(session)
            case e.WithdrawRoute():
                self._routes.withdraw(session)
                if session.progressed_at and session.container is None:  # it pulled; no tick may be at work on it
                    self._give_back(Pool.PULL, session)
                yield e.RouteWithdrawn()
            case e.RemoveContainer():
                yield from self._remove(session)
            case e.ForgetCredentials():
                yield self._purge(session)
            case e.PurgeCredentials():
                purged = self._purge(session)
                self._give_places_back(session)
                yield purged
            case e.KeepCredentials():
                is_there = self._credentials.holds(session.sid, session.credentials_of)
                ended = e.CredentialsKept() if is_there else self._purge(session)
                if not (is_there and session.again):  # the next launch has its places
                    self._give_places_back(session)
                yield ended
            case e.LaunchAgain():
                yield e.LaunchedAgain(self._config.session_lifetime)
            case _:
                assert_never(effect)

    def _purge(self, session: Session) -> Event:
        self._opened = None
        self._disconnect()
        self._credentials.purge(session.sid, session.generation)
        return e.CredentialsPurged()

    def _event_of(self, effect: Effect, session: Session, error: HomeportError) -> Event:
        if isinstance(error, NotItsTurn) and session.phase is not Phase.LEAVING:
            return e.Queued(error.message)
        failure = Failure(error.code, self._masked(error.message))
        if not _is_tried_again(effect, error):
            return e.EffectFailed(failure)
        return e.EffectDelayed(failure, ours=isinstance(error, StoreUnavailable | StoreRefused))

    def _masked(self, text: str) -> str:
        """The text without the values of the visitor's variables: engines and programs quote what they do not like."""
        values = self._opened.environment.values() if self._opened else ()
        for value in sorted(values, key=len, reverse=True):
            if len(value) >= MASKED_LENGTH:
                text = text.replace(value, "…")
        return text

    # ── the visitor's endpoint ──

    @contextmanager
    def _endpoint(self, session: Session) -> Iterator[Engine]:
        self._await_turn(session)
        if self._opened is None:
            self._opened = self._credentials.get(session.sid, session.credentials_of, session.owner)
        with self._asking():
            address = self._resolve(self._opened.endpoint, self._config.address_policy)
            deadline = self._ends_by - self._clock()
            if deadline <= 0:  # a call that begins now could end after the lease, beside another tick's
                raise EndpointTimeout("The hub's own stores or its name server took too long. The hub will try again")
            try:
                yield self._engine(self._opened, address, deadline, self._hub_of(session))
            except BaseException:  # what is still to come of a broken answer is not the next one
                self._disconnect()
                raise

    def _engine(self, credentials: Credentials, address: str, deadline: float, hub_name: str) -> Engine:
        """The endpoint at that address, for `deadline` seconds; still connected if the effect before was there."""
        if self._connected is not None and self._connected[:2] == (address, hub_name):
            self._connected[2].renew(deadline)
        else:
            self._disconnect()
            engine = self._connect(credentials, address=address, deadline=deadline, hub_name=hub_name)
            self._connected = (address, hub_name, engine)
        return self._connected[2]

    def _disconnect(self) -> None:
        if self._connected is not None:
            connected, self._connected = self._connected[2], None
            connected.close()

    def _hub_of(self, session: Session) -> str:
        """Whose the session's container is: as recorded, so that neither a new CA nor another name changes it."""
        return session.hub or self._config.hub_name

    def _verify(self, session: Session) -> Generator[Event, None, None]:
        session = replace(session, hub=hub_label(self._config.hub_name, self._trust().notebook_ca))
        with self._endpoint(session) as endpoint:
            engine, note = endpoint.verify()
            there = self._launches_there(endpoint, session)
            of_session = (launch for launch in there if launch.sid == session.sid and not launch.helper)
            own = max(of_session, key=_number, default=None)
            if own is not None and session.generation == 1 and self._is_lost(own):
                yield self._found(endpoint.address, engine, session, own)
            else:
                endpoint.check_limits(self._config.allowance.asked(session.limits))
                past = own.generation if own is not None and own.generation >= session.generation else 0
                yield e.EndpointVerified(endpoint.address, engine, note, session.hub, past)
            self._sweep(endpoint, session, there)

    def _launches_there(self, endpoint: Engine, session: Session) -> Sequence[LaunchThere]:
        """The launches of the owner on the endpoint; none if it does not list them. A session's first asks twice."""
        for _ in range(2 if session.generation == 1 else 1):
            with suppress(EndpointError):
                return endpoint.launches(session.owner)
        return ()

    def _found(self, address: str, engine: str, session: Session, launch: LaunchThere) -> Event:
        """What is believed of the launch that was found: no longer a life than a new one would have."""
        now = self._clock()
        return e.NotebookFound(
            address=address,
            engine=engine,
            hub=session.hub,
            generation=launch.generation,
            label=launch.label,
            image=launch.image,
            expires_at=min(launch.expires_at, now + self._config.session_lifetime),
            longest_until=min(launch.longest_until, now + self._config.longest_lifetime),
        )

    def _is_lost(self, launch: LaunchThere) -> bool:
        """Say whether a launch that the table does not know of can go on: it runs, and says all there is to know."""
        return launch.running and launch.label != "" and launch.expires_at > self._clock() + EFFECT_SECONDS

    def _find_image(self, session: Session) -> Event:
        policy = PullPolicy.MISSING if session.wanted_image == session.builder else session.options.pull
        # Once it waits, the image was not there a moment ago, and the pull looks for it once more.
        if policy is PullPolicy.NEVER or (policy is PullPolicy.MISSING and not session.pull_waits):
            with self._endpoint(session) as endpoint:
                if endpoint.image_present(session.wanted_image):
                    return _present(session)
        if policy is PullPolicy.NEVER:
            raise ImageMissing(
                "The image is not on the endpoint, and this launch is not to pull it. Pull it there yourself, or "
                "launch again and let it be pulled"
            )
        return self._take_pull(session) or e.PullAdmitted()

    def _take_pull(self, session: Session) -> Event | None:
        """Take the slot of a pull, or renew it for a new function; PullQueued when there is none."""
        slot = slot_of(session, self._clock() + SLOT_SECONDS)
        crowd = self._slots.take(Pool.PULL, session.sid, slot, self._config.pull_quota)
        if crowd:
            return e.PullQueued(f"Waiting to pull the image: {crowd.count} other pulls {crowd.what} are under way")
        self._taken.add(Pool.PULL)
        return None

    def _take_handover(self, session: Session) -> None:
        """Take the turn of taking a pull over, for as long as it takes to join it; raises NotItsTurn.

        There are few functions for it, and an engine that is slow to let a pull join holds one. So one tick at a time
        tries it with a pull, and an owner's or a network's pulls leave half of the functions to everybody else's.
        """
        if session.sid in self._slots.held(Pool.HANDOVER):
            raise NotItsTurn("Another function is taking this pull over")
        slot = slot_of(session, self._ends_by)
        crowd = self._slots.take(Pool.HANDOVER, session.sid, slot, self._config.handover_quota)
        if crowd:
            raise NotItsTurn(f"{crowd.count} other pulls {crowd.what} are being taken over; this one is after them")
        self._taken.add(Pool.HANDOVER)

    def _pull_image(self, session: Session, *, joins: bool) -> Generator[Event, None, None]:
        if queued := self._take_pull(session):
            yield queued
            return
        if joins:
            self._take_handover(session)
        with self._endpoint(session) as endpoint:
            image = session.wanted_image
            anew = session.options.pull is PullPolicy.ALWAYS and image != session.builder
            if anew or not endpoint.image_present(image):
                first: float | None = None
                within = self._ends_by - self._clock() if joins else FIRST_LAYER_SECONDS
                with closing(endpoint.pull(image, answer_within=within)) as statuses:
                    for status in statuses:
                        if Pool.HANDOVER in self._taken:  # it has joined
                            self._give_back(Pool.HANDOVER, session)
                        first = status.fraction if first is None else first
                        # Another pull of this launch saw more bytes arrive: those of this one alone would fall.
                        loaded = status.loaded if session.fraction is None else ""
                        fraction = of_the_rest(session.fraction, first, status.fraction)
                        yield e.PullProgressed(fraction, f"{status.line}{loaded}", status.pace)
            yield _present(session)

    def close(self) -> None:
        """Forget the credentials, and the connection that was made with them."""
        self._opened = None
        self._disconnect()

    def end_tick(self, session: Session) -> None:
        """Give back what the tick has taken, but for the slot of a pull that goes on; what fails ends by itself."""
        for pool in self._taken - ({Pool.PULL} if lane_of(session) is Lane.PULL else set()):
            self._give_back(pool, session)

    def _give_back(self, pool: Pool, session: Session) -> None:
        self._taken.discard(pool)
        with suppress(StoreUnavailable):
            self._slots.give_back(pool, session.sid)

    # ── turns ──

    def _await_turn(self, session: Session) -> None:
        """Raise NotItsTurn while the owner or a network is slow, and enough of theirs are asked."""
        lane = lane_of(session)
        if self._may_ask or lane is Lane.PULL:  # a pull has its slot already
            return
        now = self._clock()
        slot = slot_of(session, now + TURN_SECONDS)
        if lane is Lane.LEAVE:  # a neighbour behind the same address is no reason to keep a secret
            slot = replace(slot, source="")
        if crowd_before(self._slots.held(Pool.SLOW), session.sid, slot, self._config.slow_quota(lane), now):
            crowd = self._slots.take(TURNS[lane], session.sid, slot, self._config.turn_quota(lane))
            if crowd:
                raise NotItsTurn(
                    f"{crowd.count} other notebooks {crowd.what} wait for a Docker endpoint or a notebook that is slow "
                    "to answer; this one is tried after them"
                )
            self._taken.add(TURNS[lane])
        self._may_ask = True

    @contextmanager
    def _asking(self, asks: bool = True) -> Iterator[None]:
        """Count the time of the block as held by the endpoint or the notebook, or as the hub's own."""
        before = self._asks
        self._count_time(asks)
        try:
            yield
        finally:
            self._count_time(before)

    def _count_time(self, asks: bool) -> None:
        """Count the time up to now as it was to be, and what follows as `asks` says."""
        now = self._clock()
        if self._asks:
            self._held += now - self._counted_at
        self._asks, self._counted_at = asks, now

    def _note_if_slow(self, effect: Effect, session: Session, error: HomeportError | None) -> None:
        """Write down that the endpoint or the notebook has held the function for long, however it ended."""
        if isinstance(effect, e.PullImage):  # it has a lane of its own
            return
        self._count_time(self._asks)
        self._held_in_all += self._held
        is_slow = self._held_in_all > SLOW_SECONDS or (error is not None and self._held > HUNG_SECONDS)
        self._held = 0.0
        if is_slow:
            self._may_ask = False
            with suppress(StoreUnavailable):
                self._slots.put(Pool.SLOW, session.sid, slot_of(session, self._clock() + NOTED_SECONDS))

    def _create(self, session: Session) -> Event:
        with self._endpoint(session) as endpoint:
            image = endpoint.image_config(session.image)
            container = specification(
                session,
                hub_name=self._hub_of(session),
                image_workdir=image.workdir,
                # Where the engine binds the notebook's port: loopback stays on loopback, otherwise every address.
                publish_address=endpoint.address if ip_address(endpoint.address).is_loopback else "",
                idle_lifetime=self._config.idle_lifetime,
                quick_start=self._config.quick_start,
                variables=self._variables(session),
            )
            endpoint.create(container)
            if endpoint.inspect(container.name).status == "created":
                user = endpoint.user_number(container.name, image.user)
                endpoint.put_files(container.name, self._files(session, workdir=container.workdir, user=user))
            return e.ContainerAwaitsFiles() if session.content else e.ContainerCreated()

    def _variables(self, session: Session) -> Mapping[str, str]:
        """The variables that the launch asked for; their values were opened with the credentials."""
        sealed = self._opened.environment if self._opened else {}
        if missing := [name for name in session.options.environment if name not in sealed]:
            raise VariablesMissing(
                f"The value of {missing[0]} is not stored any more. Stop the notebook and launch again"
            )
        return {name: sealed[name] for name in session.options.environment}

    def _files(self, session: Session, *, workdir: str, user: str) -> bytes:
        return injected_files(
            session,
            workdir=workdir,
            user=user,
            leaf=self._leaf(session),
            client_ca=self._trust().client_ca,
            idle_lifetime=self._config.idle_lifetime,
        )

    def _leaf(self, session: Session) -> Leaf:
        now = self._clock()
        lifetime = max(session.expires_at - now, session.longest_until - now, 0.0) + LEAF_SLACK
        return issue_notebook(self._trust().notebook_ca, session.host, now=now, lifetime=lifetime)

    def _start(self, session: Session) -> Event:
        name = _container(session)
        with self._endpoint(session) as endpoint:
            endpoint.start(name)
            status = endpoint.inspect(name)
            if not status.running:
                raise self._not_running(endpoint, name, status)
            return e.ContainerStarted(self._published(endpoint, name))

    def _published(self, endpoint: Engine, name: str) -> Target:
        target = endpoint.published(name)
        return target if target.address == endpoint.address else self._on_node(target)

    def _on_node(self, target: Target) -> Target:
        """A target that is another machine than the endpoint, its address checked; raises NodeForbidden."""
        try:
            return replace(target, address=self._config.address_policy.check([target.address]))
        except ForbiddenAddress as error:
            node = quoted(target.address, ADDRESS_LENGTH)
            raise NodeForbidden(
                f"The endpoint is a cluster and runs the notebook on its node {node}, an address to which this hub "
                "does not connect. Use nodes with public addresses, or ask the hub's operator to allow their network"
            ) from error

    def _look(self, session: Session) -> Generator[Event, None, None]:
        """Ask the notebook, and if it does not answer the endpoint why; when it answers again, sweep the endpoint."""
        self._await_turn(session)
        try:
            with self._asking():
                idle_since = self._ask_notebook(*self._notebook(session), deadline=LOOK_SECONDS)
        except (NotebookSilent, NotebookWrongCertificate) as error:
            if not session.credentials_held:
                raise
            yield self._exited(session, error)
            return
        yield e.NotebookAnswered(idle_since and idle_since + self._config.idle_lifetime + IDLE_SLACK)
        if session.last_problem and session.credentials_held:
            with suppress(HomeportError), self._endpoint(session) as endpoint:
                self._sweep(endpoint, session)

    def _exited(self, session: Session, silent: EndpointError) -> Event:
        """Say how the container of a notebook that does not answer has ended, or to which port it has moved.

        Raises `silent` if it runs and answers nowhere.
        """
        name = _container(session)
        with self._endpoint(session) as endpoint:
            status = endpoint.inspect(name)
            if not status.running:
                return self._exit_event(endpoint, name, status)
            target = self._published(endpoint, name)
        if target != session.target:
            with suppress(EndpointError), self._asking():
                self._ask_notebook(target, session.host, self._trust(), deadline=LOOK_SECONDS)
                return e.NotebookMoved(target)
        raise silent

    def _exit_event(self, endpoint: Engine, name: str, status: ContainerStatus) -> Event:
        error = self._not_running(endpoint, name, status)
        if error.retryable:
            raise error
        if isinstance(error, NotebookExited) and status.exit_code in NORMAL_EXITS and not status.oom:
            return e.ContainerExited(None)
        return e.ContainerExited(Failure(error.code, self._masked(error.message)))

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
        tail = self._masked(endpoint.log_tail(name)).strip().splitlines()[-LAST_LINES:]
        if tail and is_of_another_platform(tail[-1]):
            return wrong_platform()
        last = f" Last log line{'s' if len(tail) > 1 else ''}: {' | '.join(map(quoted, tail))}" if tail else ""
        if status.exit_code not in NORMAL_EXITS and any(map(is_jupyter_missing, tail)):
            return ImageWithoutJupyter(f"{without_program('jupyter')}.{last}")
        return NotebookExited(f"The notebook's container ended with exit code {status.exit_code}.{last}")

    # ── repositories (docs/adr/0020) ──

    def _take_places(self, session: Session) -> Source | None:
        """Count the launch among those of its repositories until it ends; gives one that has as many as are allowed."""
        quota = self._config.repository_quota
        if quota is None:
            return None
        slot = Slot(owner="", endpoint="", source="", until=session.expires_at)
        for source in session.sources:
            if self._slots.take(repository_pool(source), session.sid, slot, quota):
                return source
        return None

    def _give_places_back(self, session: Session) -> None:
        if self._config.repository_quota:
            for source in session.sources:
                self._slots.give_back(repository_pool(source), session.sid)

    def _resolve_versions(self, session: Session) -> Generator[Event, None, None]:
        if (busy := self._take_places(session)) is not None:
            raise RepositoryBusy(
                f"{shown(busy)} has {self._config.repository_limit} notebooks on this hub, the most that it allows at "
                "once. Launch it again when others have stopped"
            )
        with self._endpoint(session) as endpoint:
            if session.repository is None:
                helper = resolve_helper(session, hub_name=self._hub_of(session), engine={}, socket="")
            else:
                engine = endpoint.identity()
                helper = resolve_helper(
                    session, hub_name=self._hub_of(session), engine=engine.known, socket=self._socket(engine)
                )
            report = yield from self._helped(endpoint, session, helper)
            if report is None:
                return
            versions = report.versions(len(session.sources))
            if versions is None:
                raise HelperFailed(f"The repository's version is not known. {BROKEN}")
            if session.repository is None:
                yield e.ContentResolved(versions)
                return
            image = image_name(session.repository, versions[0], session.builder)
            free, least = report.free_disk, self._config.build_disk
            if free is not None and free < least and endpoint.built_image(image) is None:
                raise NoRoomToBuild(
                    f"The endpoint has {shown_size(free)} of disk left, and this hub builds with {shown_size(least)} "
                    "at least. Remove what is not needed there, for instance with docker system prune"
                )
            yield e.VersionsResolved(versions, image)

    def _socket(self, engine: EngineIdentity) -> str:
        """Where the engine's socket is on its host; raises SocketUnreachable for an engine that has none there."""
        if self._config.engine_socket:
            return self._config.engine_socket
        if engine.rootless:
            raise SocketUnreachable(
                "The endpoint's engine is rootless and keeps its socket in a folder of its user's, which the hub does "
                "not know. Launch an image, with the repository as the files for its work folder, which needs no socket"
            )
        return engine.socket

    def _build_image(self, session: Session) -> Generator[Event, None, None]:
        with self._endpoint(session) as endpoint:
            at_work = session.helps and endpoint.helper(session.helper).status != "missing"
            if not at_work and (size := endpoint.built_image(session.image)) is not None:
                endpoint.remove_helper(session.helper, session.label)
                self._note_built(session, size, is_new=False)
                yield e.ImageBuilt(built=False)
                return
            helper = build_helper(
                session,
                hub_name=self._hub_of(session),
                socket=self._socket(endpoint.identity()),
                seconds=self._config.build_longest,
                most=self._config.most_image,
            )
            if (yield from self._helped(endpoint, session, helper)) is None:
                return
            if (size := endpoint.built_image(session.image)) is None:
                raise HelperFailed(f"The build ended well, and its image is not there. {BROKEN}")
            self._note_built(session, size, is_new=True)
            yield e.ImageBuilt(built=True)

    def _note_built(self, session: Session, size: int, *, is_new: bool) -> None:
        """Write down for the owner that the image of the launch's repository is on its endpoint."""
        if session.repository is None:
            raise IllegalTransition("a session without a repository cannot be in this state")
        now = self._clock()
        image = BuiltImage(
            owner=session.owner,
            name=session.image,
            endpoint=session.endpoint,
            repository=session.repository,
            version=session.versions[0],
            size=size,
            built_at=now,
            used_at=now,
        )
        with self._asking(False):
            self._images.put_built(image, is_new=is_new)

    def _clone_files(self, session: Session) -> Generator[Event, None, None]:
        if session.content is None:
            raise IllegalTransition("a session without content cannot be in this state")
        with self._endpoint(session) as endpoint:
            user = endpoint.user_number(_container(session), endpoint.image_config(session.image).user)
            number = user.partition(":")[0]
            helper = clone_helper(
                session,
                hub_name=self._hub_of(session),
                name=content_folder(session.content),
                user=number if number.isdigit() else "",
            )
            report = yield from self._helped(endpoint, session, helper)
            if report is not None:
                yield e.FilesCloned(report.cloned or CLONED["new"])

    def _helped(
        self, endpoint: Engine, session: Session, helper: HelperSpecification
    ) -> Generator[Event, None, Report | None]:
        """Have the helper at work, and look how far it is; its report once it has ended well, and is removed.

        None while it is at work: it will be looked at again. One that another launch made is waited for. Raises
        HelperFailed and the like, and leaves the helper until the launch has ended: its log can be read until then.
        """
        there = endpoint.helper(helper.name)
        if there.exit_code is not None and self._is_stale(session, there):
            endpoint.remove_helper(helper.name, there.label)
            there = endpoint.helper(helper.name)
        if there.status in ("missing", "created"):
            endpoint.start_helper(helper, self._program)
            there = endpoint.helper(helper.name)
        if not session.helps:
            yield e.HelperStarted()
        ends_at = self._clock() + (0.0 if session.helps or session.state is State.BUILDING else HELPED_SECONDS)
        while there.exit_code is None and there.status != "missing" and self._clock() < ends_at:
            with self._asking(False):
                self._sleep(HELPER_LOOK)
            there = endpoint.helper(helper.name)
        if there.status == "missing":  # another launch's, which was stopped: the next look makes it anew
            yield e.HelperProgressed(None, "")
            return None
        log = endpoint.helper_log(helper.name, LOOK_LINES if there.exit_code is None else WHOLE_LINES)
        report = report_of(log)
        if there.exit_code is None:
            yield e.HelperProgressed(report.fraction, self._masked(report.line))
            return None
        if session.state is State.BUILDING:
            with self._asking(False):
                self._build_logs.put(session.sid, session.generation, log)
        if there.exit_code != 0 or report.end is None or any(report.failure):
            raise helper_error(session.state, there.exit_code, report, log)
        endpoint.remove_helper(helper.name, session.label)
        return report

    def _is_stale(self, session: Session, there: HelperThere) -> bool:
        """Say whether a helper that has ended was of a launch that is over: its end says nothing of this one."""
        if there.label == session.label:
            return False
        with self._asking(False):
            found = self._find_session(there.sid)
        return found is None or found.label != there.label or found.phase in (Phase.LEAVING, Phase.STOPPED)

    # ── removing images that were built there ──

    def _remove_images(self, session: Session) -> Generator[Event, None, None]:
        """Remove the image that is named, or all that the endpoint has; what is gone is listed no longer."""
        with self._asking(False):
            known = {image.name: image for image in self._images.built_of(session.owner)}
        listed = [name for name, image in known.items() if image.endpoint == session.endpoint]
        with self._endpoint(session) as endpoint:
            wanted = endpoint.built_images() if session.tidying == ALL_IMAGES else [session.tidying]
            if session.tidying == ALL_IMAGES and len(wanted) < IMAGES_LENGTH:
                self._unlist(session, [name for name in listed if name not in wanted])
            in_use = []
            for name in wanted:
                try:
                    was_there = endpoint.remove_built(name)
                except ImageInUse:
                    in_use.append(name)
                    continue
                self._unlist(session, [name])
                if was_there:
                    yield e.ImageRemoved(f"{_called(name, known)} is removed")
            yield e.ImagesRemoved(_how_removed(session, wanted, in_use, known))

    def _unlist(self, session: Session, names: Sequence[str]) -> None:
        with self._asking(False):
            self._images.remove_built(session.owner, session.endpoint, names)

    # ── saving it as an image (docs/adr/0018) ──

    def _save_image(self, session: Session) -> Generator[Event, None, None]:
        """Have the image written, unless it is there already: the answer to an earlier attempt may have been lost."""
        with self._endpoint(session) as endpoint:
            sent = session.commits
            if (there := self._written(endpoint, session)) is None:
                self._raise_unless_savable(endpoint, session)
                endpoint.put_files(_container(session), certificate_file(None, self._clock()))
                yield e.CommitSent()
                sent += 1
                yield from self._commit(endpoint, session, sent)
                there = self._written(endpoint, session)
            if there is None:
                raise ImageNotWritten("The endpoint said that it had written the image, and it is not there")
            yield e.SaveProgressed()  # if another tick holds the session by now, this one must not bring the key back
            self._put_certificate_back(endpoint, session, sent)
            with self._asking(False):
                self._images.put(
                    SavedImage(
                        owner=session.owner,
                        name=session.saving,
                        endpoint=session.endpoint,
                        notebook=session.name,
                        saved_at=self._clock(),
                        size=there.size,
                    )
                )
            yield e.ImageSaved(there.size)

    def _written(self, endpoint: Engine, session: Session) -> ImageThere | None:
        """The image, if this save has written it; raises ImageNameTaken when its name is somebody else's."""
        there = endpoint.saved_image(session.saving)
        if there is None or (there.owner, there.save) == (session.owner, _save_of(session)):
            return there
        if there.owner != session.owner:
            raise ImageNameTaken(
                f"The endpoint has an image called {session.saving} that was not saved with your key, and it is not "
                "replaced. Choose another name"
            )
        return None

    def _raise_unless_savable(self, endpoint: Engine, session: Session) -> None:
        """See that the container runs, is not being written at the moment, and that it was not tried in vain."""
        name = _container(session)
        status = endpoint.inspect(name)
        if status.status == "paused":  # as an engine has it while it writes
            raise SaveUnderWay(
                "The endpoint is still writing the image, or the container was paused there. If it stays so, resume "
                f"it with: docker unpause {name}"
            )
        if not status.running:
            raise self._not_running(endpoint, name, status)
        endpoint.check_savable(name)
        if session.commits >= COMMITS:
            why = f" {session.last_problem.message}" if session.last_problem else ""
            raise ImageNotWritten(
                f"The endpoint did not write the image in {COMMITS} attempts. Write it there yourself, with docker "
                f"commit, or save less.{why}"
            )

    def _commit(self, endpoint: Engine, session: Session, sent: int) -> Generator[Event, None, None]:
        """Send it, and wait for the answer as long as there is time."""
        labels = {SAVED: session.sid, SAVED_BY: session.owner, SAVED_AT: _save_of(session)}
        try:
            with closing(endpoint.commit(_container(session), session.saving, labels)) as waiting:
                for _ in waiting:
                    yield e.SaveProgressed()
        except _FINAL_ANSWERS:
            self._put_certificate_back(endpoint, session, sent)
            raise
        except EndpointTimeout as error:
            raise SaveUnderWay("The endpoint has not written the image yet. The hub goes on looking for it") from error

    def _put_certificate_back(self, endpoint: Engine, session: Session, sent: int) -> None:
        """Give the container a certificate again, for a start by hand; the server that runs does without.

        Not if one of several commits may still be going on: its image would hold the key.
        """
        if sent == 1:
            with suppress(EndpointError, StoreUnavailable):
                endpoint.put_files(_container(session), certificate_file(self._leaf(session), self._clock()))

    def _remove(self, session: Session) -> Generator[Event, None, None]:
        helped = session.helper != "" or session.versions != ()
        if session.container is None and not helped and not session.deletes:
            yield e.ContainerRemoved()
            return
        if not session.credentials_held:
            raise CredentialsForgotten("Your credentials were deleted, so the hub could not remove the container")
        with self._endpoint(session) as endpoint:
            if session.helper or (helped and session.creations > 1):
                self._remove_settled(session, partial(self._remove_helpers, endpoint, session))
            elif helped:
                self._remove_helpers(endpoint, session)
            if session.container is not None:
                self._remove_settled(session, partial(self._remove_own, endpoint, session, session.container))
            if session.deletes:
                endpoint.remove_volume(session.sid, session.owner)
            yield e.ContainerRemoved()
            self._sweep(endpoint, session)

    def _remove_settled(self, session: Session, remove: Callable[[], bool]) -> None:
        """Remove a container of the session's; raises CreationUnsettled while it may still appear."""
        settled = self._clock() >= session.unsettled_until
        was_there = remove()
        if not settled and not (was_there and session.creations == 1):
            raise CreationUnsettled(
                "The endpoint gave no answer when it was asked to create the container, so it may still do so. The "
                "hub looks for it for some minutes and removes it"
            )

    def _remove_helpers(self, endpoint: Engine, session: Session) -> bool:
        """Remove the helpers of the launch, and say whether there were any; another launch's stay.

        Two ticks may have been at work at once, by clocks that differ: then one's helper may be made when the other's
        has done its work and is gone.
        """
        names = {launch.helper for launch in endpoint.launches(session.owner) if launch.label == session.label}
        removed = False
        for name in sorted((names | {session.helper}) - {""}):
            with suppress(ContainerConflict):  # somebody else's
                removed |= endpoint.remove_helper(name, session.label)
        return removed

    def _remove_own(self, endpoint: Engine, session: Session, container: str) -> bool:
        """Remove the session's container, and say whether it was there."""
        try:
            return endpoint.remove(container)
        except ContainerConflict as error:
            if session.failure is None or session.failure.code != error.code:
                raise
            return False  # somebody else's, and the reason why this launch made none

    def _sweep(self, endpoint: Engine, session: Session, there: Sequence[LaunchThere] | None = None) -> None:
        """Remove what launches of the same owner that are over have left, as far as there is time and nothing fails.

        `there` are the launches that were just listed.
        """
        if not session.hub:  # launched by a version whose labels another operator's hub may have, too
            return
        with suppress(HomeportError):
            for launch in endpoint.launches(session.owner) if there is None else there:
                with self._asking(False):
                    found = self._find_session(launch.sid)
                if found is not None and found.owner == session.owner and found.is_past(launch.generation):
                    with suppress(EndpointError):
                        if launch.helper:
                            endpoint.remove_helper(launch.helper, launch.label)
                        else:
                            endpoint.remove(container_name(launch.sid, launch.generation))

    # ── the notebook and its route ──

    def _probe(self, session: Session) -> Event:
        notebook = self._notebook(session)
        self._await_turn(session)
        # Asked again and again by the first tick alone, and only while nothing is slow: it holds its function.
        seconds = 0.0 if session.attempts or self._taken else PROBE_SECONDS
        try:
            with self._asking():
                self._ask_until(notebook, self._clock() + seconds)
        except NotebookSilent:
            self._raise_unless_running(session)
            raise
        return e.NotebookAnswered()

    def _notebook(self, session: Session) -> tuple[Target, str, HubTrust]:
        """How the session's notebook is asked."""
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be probed")
        return session.target, session.host, self._trust()

    def _ask_until(self, notebook: tuple[Target, str, HubTrust], ends_at: float) -> None:
        """Ask a notebook until it answers, at least once; raises NotebookSilent."""
        while True:
            seconds = max(ends_at - self._clock(), LEAST_SECONDS)
            try:
                self._ask_notebook(*notebook, deadline=seconds)
                return
            except NotebookSilent:
                if self._clock() >= ends_at:
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


def _present(session: Session) -> Event:
    """That the wanted image is on the endpoint."""
    return e.BuilderPresent() if session.wanted_image == session.builder else e.ImagePresent()


def seconds_of(effect: Effect) -> float:
    """How long an effect may take; a pull takes longer."""
    return SAVE_SECONDS if isinstance(effect, e.SaveImage) else ANSWER_SECONDS.get(type(effect), EFFECT_SECONDS)


def _error_of(effect: Effect, session: Session, raised: Exception) -> HomeportError:
    """The error itself, or InternalError for a defect. That is logged without its own text, which may hold anything."""
    if isinstance(raised, HomeportError) and not isinstance(raised, IllegalTransition):
        return raised
    *_, (frame, line) = walk_tb(raised.__traceback__)
    what, kind, place = type(effect).__name__, type(raised).__name__, frame.f_globals.get("__name__")
    log.error("session %s: defect in %s, in %s: %s at %s:%d", session.sid, what, session.state, kind, place, line)
    return InternalError("This failed because of a defect in the hub itself. Please tell the hub's operator")


def _number(launch: LaunchThere) -> int:
    return launch.generation


def _save_of(session: Session) -> str:
    """What tells this save from all others of its owner: when it began."""
    return f"{session.sid}-{session.entered_at:.3f}"


def _called(name: str, known: Mapping[str, BuiltImage]) -> str:
    """The image of a repository as its owner knows it."""
    image = known.get(name)
    return f"The image of {shown(image.repository)} at {image.version}" if image else f"The image {name}"


def _how_removed(
    session: Session, wanted: Sequence[str], in_use: Sequence[str], known: Mapping[str, BuiltImage]
) -> str:
    """What is told when all has been removed that can be."""
    if session.tidying != ALL_IMAGES:
        how = "is in use by a container, so it stays. Stop that one first" if in_use else "is on the endpoint no longer"
        return f"{_called(session.tidying, known)} {how}"
    more = ". There may be more: remove all once more" if len(wanted) >= IMAGES_LENGTH else ""
    if in_use:
        one = len(in_use) == 1
        stays = "is in use by a container, so it stays" if one else "are in use by containers, so they stay"
        return f"{len(in_use)} of {len(wanted)} image{'s' if len(wanted) > 1 else ''} {stays}{more}"
    if more:
        return f"{len(wanted)} images are removed{more}"
    return "No image that was built here is left on the endpoint"


def _container(session: Session) -> str:
    if session.container is None:
        raise IllegalTransition("a session without a container cannot be in this state")
    return session.container


def _is_tried_again(effect: Effect, error: HomeportError) -> bool:
    """Say whether the effect may succeed later, or must: giving it up would do more harm than the error."""
    match effect:
        case e.WithdrawRoute() | e.PurgeCredentials() | e.KeepCredentials() | e.ForgetCredentials():
            return True  # a route or a secret would be left behind
        case e.LookAtNotebook():
            return error.retryable or isinstance(error, EndpointError)  # a working notebook would be taken away
        case e.RemoveContainer():
            return error.retryable and not isinstance(error, CredentialsMissing)  # once purged, they stay away
        case _:
            return error.retryable
