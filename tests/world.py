"""A hub, its launchers, its stores and an engine in memory, with what may go wrong between them, and all that happens.

One thread does everything. What two do at once is done by one within an instruction of the other: `interrupted` lets
something happen at the n-th instruction of what follows, such as another tick, or the end of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from types import MappingProxyType
from typing import Any, Final

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import TickMessage
from chalicelib.bundle.address import AddressPolicy, Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.errors import EndpointTimeout, NotebookSilent
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.errors import InternalError
from chalicelib.launcher.tick import Launcher
from chalicelib.notebook.certificates import HubTrust
from chalicelib.repository.source import Provider, Source
from chalicelib.session.events import Effect, Event
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import HELPED, PullPatience
from chalicelib.session.values import ALL_IMAGES, Limits, Session, State, Target
from chalicelib.web.errors import CredentialsNeeded, LongestLifeReached, SessionNotReady
from chalicelib.web.forms import Deletion, Launch
from chalicelib.web.hub import Hub
from chalicelib.wiring import SENT_SECONDS
from local.settings import NO_RATES
from tests import bundles
from tests.builders import NOW
from tests.bundles import Pki
from tests.history import Checker, Entry, Fact, Saved
from tests.launcher_twins import (
    BuildLogTwin,
    Clock,
    CredentialsTwin,
    DoorTwin,
    EngineTwin,
    ImageStoreTwin,
    Killed,
    QueueTwin,
    RouteStoreTwin,
    SessionStoreTwin,
    SlotStoreTwin,
    TokenStoreTwin,
    Trouble,
    a_trust,
    die,
)

IMAGE: Final = "jupyter/minimal-notebook:latest"
SAVED: Final = "localhost/lessons:2026-11-29"  # what a notebook is saved as
BUILDER: Final = Config.from_environ({}).builder
REPOSITORY: Final = Source(Provider.GITHUB, "https://github.com/somebody/lessons", "main")
CONTENT: Final = Source(Provider.GIT, "https://git.example.org/data.git")
PLENTY: Final = 1000.0
RESTING: Final = frozenset({State.READY, State.KEPT, State.STOPPED})
LAG: Final = 1.0  # seconds after a save in which what is not read consistently may be as it was before it
VISIBILITY: Final = 5.0  # seconds until a message that failed comes again: far sooner than in earnest
SERVICES: Final = ("dynamodb", "s3", "kms", "sqs", "ssm")
# The services that a part needs, by its calls; "" are all others.
_NEEDS: Final = MappingProxyType(
    {
        "store": {"": {"dynamodb"}},
        "routes": {"": {"dynamodb"}},
        "slots": {"": {"dynamodb"}},
        "images": {"": {"dynamodb"}},
        "build_logs": {"": {"dynamodb"}},
        "door": {"": {"dynamodb"}},
        "credentials": {"": {"s3", "kms"}, "purge": {"s3"}, "holds": {"s3"}},
        "queue": {"": {"sqs"}},
    }
)


@cache
def pki() -> Pki:
    return Pki.new()


class Part:
    """A twin as it is reached through AWS: while a service that a call needs is down, the call fails.

    In `lost` services it is the answer that does not come: the call is done all the same.
    """

    def __init__(self, name: str, twin: Any, down: set[str], lost: set[str]) -> None:
        self._needs, self._twin, self._down, self._lost = _NEEDS[name], twin, down, lost

    def __getattr__(self, call: str) -> Any:
        method, needs = getattr(self._twin, call), self._needs.get(call, self._needs[""])

        def called(*arguments: Any, **options: Any) -> Any:
            if needs & self._down:
                raise StoreUnavailable("The hub's store did not answer")
            answer = method(*arguments, **options)
            if needs & self._lost:
                raise StoreUnavailable("The hub's store did not answer")
            return answer

        return called


class _Effects(Effects):
    """Effects before which something may go wrong."""

    before: Callable[[], None]

    def _perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:
        self.before()
        yield from super()._perform(effect, session)


class World:
    """See the module. `down` and `lost` are services (Part); `skew` is how wrong the clock of who acts is."""

    def __init__(self, environ: Mapping[str, str] = MappingProxyType({})) -> None:
        self.environ = {**NO_RATES, **environ}
        self.time = Clock(NOW)
        self.trouble = Trouble()
        self.checker = Checker()
        self.down, self.lost = set[str](), set[str]()
        self.by, self.skew, self.connected_until = "", 0.0, 0.0
        self.silent = False  # no notebook answers
        self.before_effect: Callable[[], None] = lambda: None
        self.defects_are_expected = False
        self.store = SessionStoreTwin(self.trouble, clock=self.clock, lag=LAG)
        self.routes = RouteStoreTwin(self.trouble)
        self.credentials = CredentialsTwin(self.trouble)
        self.slots = SlotStoreTwin(self.clock, self.trouble)
        self.images = ImageStoreTwin(self.clock, self.trouble)
        self.build_logs = BuildLogTwin(self.trouble)
        self.door = DoorTwin(self.clock, self.trouble)
        self.queue = QueueTwin(self.trouble)
        self.engine = EngineTwin(self.trouble, images={IMAGE, BUILDER}, during=self.in_time, renewed=self.renewed)
        for twin in (self.store, self.routes, self.credentials, self.engine):
            twin.witness = self.saw
        self.messages: list[tuple[TickMessage, Lane, float]] = []
        self.ticks, self.secrets = count(1), count(1)

    def _part(self, name: str) -> Any:
        return Part(name, getattr(self, name), self.down, self.lost)

    def saw(self, fact: Fact) -> None:
        self.checker.see(Entry(fact, self.by))
        if isinstance(fact, Saved) and not self.defects_are_expected:
            problems = (fact.session.failure, fact.session.last_problem)
            assert all(problem is None or problem.code != InternalError.code for problem in problems), fact

    def clock(self) -> float:
        """What the clock of who acts says."""
        return self.time() + self.skew

    # ── who acts ──

    @contextmanager
    def acting(self, by: str, skew: float = 0.0) -> Iterator[None]:
        """Somebody acts, and whoever is interrupted by that goes on afterwards."""
        before = self.by, self.skew, self.connected_until
        self.by, self.skew = by, skew
        try:
            yield
        finally:
            self.by, self.skew, self.connected_until = before

    @contextmanager
    def interrupted(self, at: int | None, happens: Callable[[], None] = die) -> Iterator[None]:
        """At the instruction `at` of the block, counted from 1, something happens; the process is killed, for one."""
        self.trouble.count, self.trouble.at, self.trouble.happens = 0, at, happens
        try:
            with suppress(Killed):
                yield
        finally:
            self.trouble.at = None

    # ── the visitor ──

    @property
    def hub(self) -> Hub:
        return Hub(
            config=Config.from_environ({"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.net", **self.environ}),
            sessions=self._part("store"),
            tokens=TokenStoreTwin(self.clock),
            credentials=self._part("credentials"),
            images=self._part("images"),
            build_logs=self._part("build_logs"),
            door=self._part("door"),
            enqueue=self.enqueue,
            clock=self.clock,
            secret=lambda: f"secret-{next(self.secrets)}",
        )

    def bundle(self) -> bytes:
        return bundles.carina(pki(), "tcp://docker.example.org:2376")

    def launch(self, name: str, *, keep: bool = False) -> str:
        """Upload the bundle; gives the session's id."""
        form = Launch(bundle=self.bundle(), name=name, host=None, image=IMAGE, limits=Limits(), open_path="", keep=keep)
        return self._launch(form)

    def launch_repository(
        self, name: str, repository: Source | None = REPOSITORY, content: Source | None = None
    ) -> str:
        """The same, for a repository, or for the files of one in the default image; gives the session's id."""
        form = Launch(
            bundle=self.bundle(),
            name=name,
            host=None,
            image=None if repository else IMAGE,
            repository=repository,
            content=content,
            limits=Limits(),
            open_path="",
        )
        return self._launch(form)

    def _launch(self, form: Launch) -> str:
        with self.acting("a visitor's request"):
            launched = self.hub.launch(form)
        return launched.session.sid

    def stop(self, sid: str, *, keep: bool | None = None) -> None:
        with self.acting("a visitor's request"):
            self.hub.stop(self.store.load(sid), keep=keep)

    def stop_and_keep(self, sid: str) -> None:
        self.stop(sid, keep=True)

    def launch_again(self, sid: str) -> None:
        with self.acting("a visitor's request"), suppress(CredentialsNeeded):
            self.hub.launch_again(self.store.load(sid))

    def keep_longer(self, sid: str) -> None:
        with self.acting("a visitor's request"), suppress(LongestLifeReached, SessionNotReady):
            self.hub.keep_longer(self.store.load(sid))

    def save_as(self, sid: str, image: str = SAVED) -> None:
        with self.acting("a visitor's request"), suppress(CredentialsNeeded, SessionNotReady):
            self.hub.save_as(self.store.load(sid), image)

    def remove_images(self, sid: str, images: str = ALL_IMAGES) -> None:
        with self.acting("a visitor's request"), suppress(CredentialsNeeded, SessionNotReady):
            self.hub.remove_images(self.store.load(sid), images)

    def delete(self, sid: str) -> None:
        with self.acting("a visitor's request"):
            session = self.store.load(sid)
            self.hub.delete(session, Deletion(name=session.name, bundle=self.bundle()))

    def forget(self, sid: str) -> None:
        with self.acting("a visitor's request"):
            self.hub.forget(self.store.load(sid))

    # ── the launcher ──

    def tick(self, message: TickMessage, lane: Lane, *, skew: float = 0.0, time_left: Any = lambda: PLENTY) -> None:
        """Run one tick in a lane; raises what it raises."""
        name = f"tick-{next(self.ticks)}"
        with self.acting(name, skew):
            effects = _Effects(
                config=Config.from_environ(self.environ),
                credentials=self._part("credentials"),
                routes=self._part("routes"),
                slots=self._part("slots"),
                images=self._part("images"),
                build_logs=self._part("build_logs"),
                trust=self.trust,
                find_session=self._part("store").find,
                clock=self.clock,
                sleep=self.time.sleep,
                connect=self.connect,
                resolve=_at_once,
                probe=self.probe,
            )
            effects.before = self.before_effect
            launcher = Launcher(
                sessions=self._part("store"),
                effects=effects,
                enqueue=self.enqueue,
                lane=lane,
                pulls=PullPatience(),
                clock=self.clock,
                time_left=time_left,
                name=name,
            )
            launcher.tick(message)

    def trust(self) -> HubTrust:
        if "ssm" in self.down | self.lost:
            raise StoreUnavailable("The hub's store did not answer")
        return a_trust()

    def connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> EngineTwin:
        return self.engine.connect(credentials, address=address, deadline=deadline, hub_name=hub_name)

    def renewed(self, deadline: float) -> None:
        self.connected_until = self.time.now + deadline

    def in_time(self, call: str) -> None:
        """A process that was paused sends nothing any more when it goes on after its deadline (transport.Budget)."""
        if self.time.now > self.connected_until:
            raise EndpointTimeout("The endpoint did not answer in time")

    def probe(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> None:
        running = (one for one in self.engine.containers.values() if one.status == "running")
        hosts = (f"{one.specification.labels['homeport.session']}-" for one in running)
        is_there = target.port == self.engine.port
        if self.silent or not is_there or not any(host.startswith(begin) for begin in hosts):
            raise NotebookSilent("The notebook does not answer yet")

    # ── queues and schedule ──

    def enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        self._part("queue").enqueue(message, lane=lane, delay=delay)
        self.messages.append((message, lane, self.time.now + delay))

    def redrive(self) -> None:
        """What the schedule does each minute."""
        with self.acting("the schedule"), suppress(StoreUnavailable):
            store = self._part("store")
            for due in store.due(self.clock()):
                self.enqueue(TickMessage(due.sid), lane=due.lane, delay=0.0)
                store.put_off(due, self.clock() + SENT_SECONDS)
            for sid in store.to_look_at(self.clock()):
                self.enqueue(TickMessage(sid), lane=Lane.WATCH, delay=0.0)

    def deliver(self, number: int = 0, *, again: bool = False, skew: float = 0.0) -> None:
        """Have a tick take a message; it comes again if the tick is killed or fails, or if it is to come `again`."""
        message, lane, at = self.messages.pop(number % len(self.messages))
        self.time.now = max(self.time.now, at)
        handled = False
        try:
            with suppress(StoreUnavailable):
                self.tick(message, lane, skew=skew)
                handled = True
        finally:
            if again or not handled:
                self.messages.append((message, lane, self.time.now + VISIBILITY))

    def sleep_until_due(self) -> None:
        """Let the time pass until a session is due, or for the minute until the schedule runs again."""
        waiting = (session for session in self.store.sessions.values() if not rests(session))
        due = min((self.store.due_since(session) for session in waiting), default=0.0)
        self.time.now = max(self.time.now + 1.0, min(due, self.time.now + 60.0))
        self.redrive()

    def settle(self, turns: int = 500) -> None:
        """Let everything happen that is under way, until each session is ready or stopped; nothing goes wrong."""
        self.down.clear()
        self.lost.clear()
        for _ in range(turns):
            if self.messages:
                earliest = min(self.messages, key=lambda message: message[2])
                self.deliver(self.messages.index(earliest))
            elif all(map(rests, self.store.sessions.values())):
                return
            else:
                self.sleep_until_due()
        raise AssertionError(f"not at rest: {[session.state for session in self.store.sessions.values()]}")

    def assert_at_rest(self) -> None:
        """Say that all is well: at every point up to now, and now."""
        assert self.checker.violations + self.checker.at_rest() == []

    def session(self, sid: str) -> Session:
        return self.store.load(sid)

    def launched(self, state: State) -> str:
        """A session that has just come to a state, effect by effect; gives its id."""
        if state in HELPED:
            both = (None, CONTENT) if state is State.CLONING else (REPOSITORY, None)
            sid = self.launch_repository("lessons", *both)
        else:
            sid = self.launch("lessons")
        if state in (State.WITHDRAWING, State.REMOVING, State.PURGING, State.KEPT, State.STOPPED):
            self._drive_to(sid, State.READY)
            self.stop(sid, keep=state is State.KEPT)
        elif state is State.REPUBLISHING:
            self._drive_to(sid, State.READY)
            self.keep_longer(sid)
        elif state is State.SAVING:
            self._drive_to(sid, State.READY)
            self.save_as(sid)
        elif state is State.TIDYING:
            self._drive_to(sid, State.READY)
            self.remove_images(sid)
        elif state is State.FORGETTING:
            self._drive_to(sid, State.READY)
            self.forget(sid)
        self._drive_to(sid, state)
        return sid

    def _drive_to(self, sid: str, state: State) -> None:
        while self.session(sid).state is not state:
            message, lane, _ = self.messages.pop(0)
            left = iter([PLENTY])
            self.tick(message, lane, time_left=lambda left=left: next(left, 0.0))


def rests(session: Session) -> bool:
    """Say whether nothing is under way with the session."""
    return session.state in RESTING and not session.again


def _at_once(endpoint: Endpoint, policy: AddressPolicy) -> str:
    return EngineTwin.address
