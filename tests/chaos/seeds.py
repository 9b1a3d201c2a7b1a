"""One life of a notebook for each seed: launched, killed, told everything twice, ended, and checked from its history.

A seed decides at which instructions processes are killed, which messages are delivered again and in which order, and
what the visitor does meanwhile. Seeds from 0 to LIFE - 1 have their first kill at each instruction of an undisturbed
life in turn, which ends with its volume deleted; those of all others are drawn, and so is what their visitors do with a
notebook that is ready: restart it, stop it with its credentials kept and start it again, keep it longer.

Time is not waited for: `offset` is how far the launcher's clock is ahead. It moves on to when the session is due, and
past the lease of a process that was killed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Final

from chalicelib.aws.queues import TickMessage
from chalicelib.aws.session_items import REDRIVE_STEP
from chalicelib.session.lanes import Lane
from chalicelib.session.values import Session, State, container_name
from tests.chaos.launcher import Command, Outcome
from tests.chaos.rig import Launcher, Rig
from tests.history import Created, violations

LIFE: Final = 74  # instructions from an upload to STOPPED, if nothing is in the way
STEPS: Final = 300  # commands until a life counts as one that never comes to rest
REFUSALS: Final = frozenset({"session-leaving", "session-not-ready", "credentials-needed"})


def live(
    rig: Rig, seeds: Iterable[int], workers: int, say: Callable[[str], None], kill_on: str = ""
) -> tuple[Counter[str], list[int]]:
    """Live the seeds, several at once: at which instructions processes were killed, and which seeds failed.

    `kill_on` is the instruction of the first kill, instead of the one that the seed decides on.
    """
    left, lock = iter(seeds), threading.Lock()
    killed, failed = Counter[str](), list[int]()

    def work(launcher: Launcher) -> None:
        while True:
            with lock:
                seed = next(left, None)
            if seed is None:
                return
            try:
                at = Life(rig, launcher, seed, kill_on).run()
            except AssertionError as error:
                failed.append(seed)
                say(f"{error}\nRepeat it: make chaos SEED={seed}")
            else:
                killed.update(at)

    with rig.launchers(workers) as launchers, ThreadPoolExecutor(workers) as pool:
        for working in [pool.submit(work, launcher) for launcher in launchers]:
            working.result()
    return killed, sorted(failed)


@dataclass
class Life:
    """What becomes of one seed; `run` gives the instructions at which processes were killed.

    `repository` is the address of what is launched, if that is no image.
    """

    rig: Rig
    launcher: Launcher
    seed: int
    kill_on: str = ""
    repository: str = ""
    offset: float = 0.0
    killed: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.wishes = Random(f"the visitor of {self.seed}")
        self.store = self.rig.sessions(self.clock)
        self.name = f"seed {self.seed}"
        first = self.seed + 1 if self.seed < LIFE else self.random.randint(1, LIFE)
        gaps = [first, *(self.random.randint(1, LIFE // 2) for _ in range(self.random.randint(0, 3)))]
        self.kills: Iterator[int] = iter(gaps)
        self.kill_in: int | None = None if self.kill_on else next(self.kills)
        self.sid = ""
        self._session: Session | None = None

    def clock(self) -> float:
        return time.time() + self.offset

    def run(self) -> list[str]:
        """Live it to its end; raises AssertionError, with all that was done, when something was wrong with it."""
        try:
            self._live()
        except AssertionError as error:
            done = "\n".join(self.commands)
            raise AssertionError(f"seed {self.seed}: {error}\n{done}") from error
        finally:
            if self.sid:
                self.rig.clear(self.sid)
        return self.killed

    def _live(self) -> None:
        self._launch()
        if self.random.random() < 0.9:  # else Stop is pressed while it starts
            self._drive(State.READY)
            self._check()
            if self.session.state is State.READY and self.random.random() < 0.15:
                self._renew()
            if self.seed >= LIFE:
                self._live_on()
        self._end()
        if self.random.random() < 0.1:
            self._launch()
            self._drive(State.READY)
            self._check()
            self._end()

    def _launch(self) -> None:
        """Upload until it is there, as a visitor would."""
        before = self.session.generation if self.sid else 0
        while not self.sid or self.session.generation == before:
            self._perform("launch")
            self.sid = self.sid or self.rig.sid_of(self.name)

    def _renew(self) -> None:
        """Have the credentials deleted, and upload them again."""
        while self.session.credentials_held and self.session.state is not State.STOPPED:
            if self.session.state is State.READY:
                self._perform("forget")
            self._deliver()
        while self.session.state is State.READY and not self.session.credentials_held:
            self._perform("launch")
        while self.session.state is State.READY and not self.rig.stored(self.sid):  # the hub was killed just before
            self._perform("launch")

    def _live_on(self) -> None:
        """Do what people do with a notebook that is ready."""
        match self.wishes.choice(("nothing", "restart", "keep longer", "keep the credentials")):
            case "restart":
                self._ask("again", lambda before, now: now.again != "" or now.generation > before.generation)
            case "keep longer":
                self._ask("longer", lambda before, now: now.expires_at > before.expires_at)
            case "keep the credentials":
                self._ask("keep", lambda before, now: now.keeps)
                self._drive(State.KEPT)
                self._check()
                self._ask("again", lambda before, now: now.again != "" or now.generation > before.generation)
            case _:
                return
        self._drive(State.READY)
        self._check()

    def _ask(self, do: str, is_done: Callable[[Session, Session], bool]) -> None:
        """Ask until it is written down, as a visitor would whose request was cut off."""
        before, too_late = self.session, (State.PURGING, State.STOPPED)
        while self.session.state not in too_late:
            outcome = self._perform(do)
            if outcome.refused or is_done(before, self.session):
                return

    def _end(self) -> None:
        """Have it stopped or deleted, and check that nothing is left."""
        deletes = self.seed < LIFE or self.wishes.random() < 0.5
        while self.session.state not in (State.WITHDRAWING, State.REMOVING, State.PURGING, State.STOPPED):
            self._perform("stop")
        while deletes and not self.session.deletes and self.session.state is not State.STOPPED:
            self._perform("delete")
        self._drive(State.STOPPED)
        self._check()

    def _drive(self, goal: State) -> None:
        """Deliver messages, and let time pass when there are none, until the session is there, or has ended."""
        while self.session.state not in (goal, State.STOPPED):
            assert len(self.commands) < STEPS, f"still {self.session.state}: {self.session.message}"
            self._turn()
        for lane, body in self._copies(self.rig.messages(self.sid)[:2]):  # what comes too late changes nothing
            self._tick(lane, body)

    def _turn(self) -> None:
        self._deliver()
        if self.random.random() < 0.1 and self.session.state is not State.STOPPED:
            self._perform(self.random.choice(("launch", "launch", "stop")))

    def _deliver(self) -> None:
        mail, session = self.rig.messages(self.sid), self.session
        if not mail:
            due = max(session.next_attempt_at or 0.0, session.lease_expires_at)
            self.offset += max(REDRIVE_STEP * math.ceil(due / REDRIVE_STEP) - self.clock(), 0.0) + 0.1
            due_now = [due for due in self.store.due(self.clock()) if due.sid == self.sid]
            mail += [(due.lane.value, TickMessage(due.sid).to_body()) for due in due_now]
            assert mail, f"nobody wakes a session that is {session.state}"
        elif self.random.random() < 0.8:
            self.offset += max((session.next_attempt_at or 0.0) - self.clock(), 0.0)
        lane, body = mail.pop(self.random.randrange(len(mail)))
        for message in self._copies([(lane, body)]):
            if self._tick(*message).killed:
                mail.append(message)  # it was not acknowledged

    def _copies(self, messages: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [message for message in messages for _ in range(self.random.choice((1, 1, 1, 2, 3)))]

    def _tick(self, lane: str, body: str) -> Outcome:
        return self._perform("tick", lane=lane, body=body)

    def _perform(self, do: str, lane: str = "", body: str = "") -> Outcome:
        command = Command(do, self.sid, self.name, lane, body, self.offset, self.kill_in, self.kill_on, self.repository)
        outcome = self.launcher.run(command)
        self.commands.append(f"{do} {lane} {body} at +{self.offset:.1f}: {outcome}")
        assert not outcome.error, outcome.error
        assert not outcome.refused or outcome.refused in REFUSALS, outcome.refused
        if outcome.killed:
            self.killed.append(outcome.killed)
            self.kill_in, self.kill_on = next(self.kills, None), ""
        elif self.kill_in is not None:
            self.kill_in -= outcome.instructions
        for name in set(outcome.sent):
            self.rig.receive(Lane(name))
        self._session = None
        return outcome

    def _check(self) -> None:
        """Look at what is there, and at all that has happened."""
        session, names = self.session, self.rig.containers(self.sid)
        if session.state is State.STOPPED:
            assert names == [], f"stopped, and there is {names}"
            assert self.rig.stored(self.sid) == []
            assert not (session.summary.deleted and self.rig.has_volume(self.sid))
        elif session.state is State.KEPT:
            assert names == [], f"kept, and there is {names}"
            assert self.rig.stored(self.sid)
        else:
            assert names == [(container_name(self.sid, session.generation), "running")], names
        history = self.rig.history(self.sid)
        wrong = violations(history)
        listing = "\n".join(
            f"  {number} {entry.by} {entry.fact}"[:200] for number, entry in enumerate(history, start=1)
        )
        assert not wrong, f"{wrong}\n{listing}"
        created = [entry.fact.container for entry in history if isinstance(entry.fact, Created)]
        assert len(created) == len(set(created)), f"created twice: {created}"

    @property
    def session(self) -> Session:
        """As it is stored since the last command."""
        self._session = self._session or self.store.load(self.sid)
        return self._session
