"""A launcher at a pull whose session is really stored, on an engine that says what it likes for as long as it likes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from chalicelib.aws.queues import TickMessage
from chalicelib.aws.sessions import SessionStore
from chalicelib.config import Config
from chalicelib.engine.errors import NotebookSilent
from chalicelib.engine.messages import pull_error
from chalicelib.engine.pull import ANSWER_SECONDS
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.tick import Launcher
from chalicelib.notebook.certificates import HubTrust
from chalicelib.session.lanes import Lane
from chalicelib.session.lease import LEASE_SECONDS
from chalicelib.session.machine import PullPatience
from chalicelib.session.values import Session, State, Target
from tests.builders import NOW, a_session, some_credentials
from tests.launcher_twins import (
    BuildLogTwin,
    Clock,
    CredentialsTwin,
    EngineTwin,
    ImageStoreTwin,
    Killed,
    QueueTwin,
    RouteStoreTwin,
    SlotStoreTwin,
    a_trust,
    drive,
)
from tests.table import TABLE

LONGEST = "\N{CJK UNIFIED IDEOGRAPH-20000}" * 5000  # four bytes a character, the most there are


class EndlessEngine(EngineTwin):
    """An engine whose pull gets a little further each second and never ends; `seconds` are those of all pulls.

    `fails(n)`: whether the n-th second of pulling ends with an error, which is a new one each time.
    """

    seconds = 0
    ends_at = NOW

    def __init__(self, clock: Clock, fails: Callable[[int], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._fails = fails

    def pull(self, image: str, *, answer_within: float = ANSWER_SECONDS) -> Generator[PullStatus, None, None]:
        while True:
            self._clock.now += 1
            self.seconds += 1
            if self._clock.now >= self.ends_at:
                raise Killed
            if self._fails(self.seconds):
                raise pull_error(f"{self.seconds} {LONGEST}")
            yield PullStatus(self.seconds / 1e9, f"Pulling: {self.seconds} of 1000000000 layers")


@dataclass
class PullRig:
    """One session on such an engine, and its ticks."""

    dynamodb: Any
    fails: Callable[[int], bool] = lambda second: False
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    ticks: int = 0

    def __post_init__(self) -> None:
        self.engine = EndlessEngine(self.clock, self.fails)
        self.credentials = CredentialsTwin()
        self.slots = SlotStoreTwin(self.clock)
        self.store = SessionStore(self.dynamodb, TABLE, self.clock)
        session = a_session()
        self.sid = session.sid
        self.credentials.objects[session.sid, 1] = (session.owner, some_credentials())
        self.store.save(session)

    @property
    def session(self) -> Session:
        return self.store.load(self.sid)

    def pull_for(self, seconds: float) -> None:
        """What queue and schedule do, for so long: wake the session whenever it is due. It is still pulling then."""
        self.engine.ends_at = self.clock.now + seconds
        while self.clock.now < self.engine.ends_at:
            self.clock.now = max(self.clock.now, self.session.next_attempt_at or 0.0, self.session.lease_expires_at)
            try:
                drive(self._launcher, self.store, TickMessage(self.sid))
            except Killed:
                self.clock.now += LEASE_SECONDS
        assert self.session.state is State.PULLING

    def _launcher(self, lane: Lane) -> Launcher:
        self.ticks += 1
        connect: Any = self.engine.connect
        effects = Effects(
            config=Config.from_environ({}),
            credentials=self.credentials,
            routes=RouteStoreTwin(),
            slots=self.slots,
            images=ImageStoreTwin(),
            build_logs=BuildLogTwin(),
            trust=a_trust,
            find_session=self.store.find,
            clock=self.clock,
            sleep=self.clock.sleep,
            connect=connect,
            resolve=lambda endpoint, policy: self.engine.address,
            probe=_silent,
        )
        return Launcher(
            sessions=self.store,
            effects=effects,
            enqueue=QueueTwin().enqueue,
            lane=lane,
            pulls=PullPatience(stalled=1e9, longest=1e9),
            clock=self.clock,
            time_left=lambda: 1000.0,
            name=f"tick-{self.ticks}",
        )


def _silent(target: Target, host: str, trust: HubTrust, *, deadline: float) -> None:
    raise NotebookSilent("The notebook does not answer yet")
