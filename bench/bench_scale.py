"""Say how far a hub reaches, and write docs/scale.md: `python -m bench.bench_scale [--write]`.

Two kinds of figures, and none is a guess of how AWS behaves under load:

counted    What one launch, one look, one stop and one try to pull cost, by the hub and the launcher on moto (costs.py).
simulated  An hour with ten thousand launches, half of which pull two gigabytes: each is a Session that goes through the
           state machine by its own events; lanes, quotas, slots, patience and pauses are the hub's own code. Simulated
           are the queues, how many functions there are at once, and how long an engine takes (SECONDS_OF).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
import sys
import textwrap
from collections import Counter, deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.costs import (
    BUSY_MEMORY,
    BUSY_SECONDS,
    HOUR,
    MEMORY,
    PRICES,
    PRICES_OF,
    Usage,
    Visit,
    busy_seconds,
    rounded_up,
)
from chalicelib.aws.slots import Pool
from chalicelib.config import Config
from chalicelib.launcher.effects import SLOT_SECONDS
from chalicelib.session import events as e
from chalicelib.session.admission import Slot, crowd_before, slot_of
from chalicelib.session.events import Effect, Event
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.looks import OFTEN, SELDOM, ring_of, rings_at
from chalicelib.session.machine import STEADY_SECONDS, advance, new_session, next_effect, overdue
from chalicelib.session.values import Limits, Phase, Session, State, Target
from chalicelib.wiring import SENDERS
from local.settings import NO_RATES
from tests.builders import NOW, a_session
from tests.functional.hub_rig import hub_rig
from tests.pull_rig import EndlessEngine

PAGE: Final = Path(__file__).parent.parent / "docs" / "scale.md"
MINUTES: Final = 10
PULLED: Final = 0.5  # of them
PULL_SECONDS: Final = 2e9 * 8 / 20e6  # two gigabytes at 20 Mbit/s
STAY: Final = 1800.0  # seconds from ready to Stop
ROUND_TRIP: Final = 0.05  # seconds between a function and somebody's computer
HORIZON: Final = 14 * HOUR  # longer than any pull is waited for
# How long an effect takes: two round trips to connect, one for each request, and what the engine itself needs.
SECONDS_OF: Final[dict[type[Effect], float]] = {
    e.VerifyEndpoint: 5 * ROUND_TRIP,
    e.FindImage: 3 * ROUND_TRIP,
    e.PullImage: 4 * ROUND_TRIP + PULL_SECONDS,
    e.CreateContainer: 6 * ROUND_TRIP + 0.15,
    e.StartContainer: 5 * ROUND_TRIP + 0.25,
    e.ProbeNotebook: 4 * ROUND_TRIP + 1.0,
    e.PublishRoute: 0.02,
    e.WithdrawRoute: 0.02,
    e.RemoveContainer: 4 * ROUND_TRIP + 1.0,
    e.PurgeCredentials: 0.1,
}
LAUNCHED: Final[tuple[type[Effect], ...]] = (
    e.VerifyEndpoint,
    e.FindImage,
    e.CreateContainer,
    e.StartContainer,
    e.ProbeNotebook,
    e.PublishRoute,
)
LEFT: Final[tuple[type[Effect], ...]] = (e.WithdrawRoute, e.RemoveContainer, e.PurgeCredentials)
WARM_SECONDS: Final = sum(SECONDS_OF[effect] for effect in LAUNCHED)  # from upload to ready, the image being there,
LEAVE_SECONDS: Final = sum(SECONDS_OF[effect] for effect in LEFT)  # and from Stop to purged
LOOK_SECONDS: Final = 3 * ROUND_TRIP + 0.05  # connect, TLS, ask
LOOK_AND_WORK: Final = LOOK_SECONDS + busy_seconds(Lane.WATCH)
TRY_SECONDS: Final = 0.05 + BUSY_SECONDS  # to claim a session, to find no slot and to save that
DARK_SECONDS: Final = 10.0  # 5 for the notebook, 5 for the endpoint
BATCH_SECONDS: Final = 0.015  # of ten messages to SQS
PARTITION_UNITS: Final = 1000  # write units a second that one partition key of an index takes
MONTH: Final = 30 * 24 * HOUR


# ── counted ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def a_warm_launch(visit: Visit) -> str:
    sid = visit.launch()
    be_ready(visit, sid)
    return sid


def be_ready(visit: Visit, sid: str) -> None:
    """What the launcher does with a launch whose image is there."""
    visit.engine.images.add(visit.session(sid).image)
    visit.probe = lambda *_, **__: None
    visit.drive(sid, lambda session: session.state is State.READY)


def counted(prepare: Callable[[Visit], str], act: Callable[[Visit, str], None]) -> Usage:
    """What `act` uses on a hub of its own, after `prepare`."""
    with hub_rig(**dict.fromkeys(NO_RATES, "200")) as hub:  # counted, and never exceeded
        visit = Visit(hub)
        with visit.counted():
            sid = prepare(visit)
            before = deepcopy(visit.usage)
            act(visit, sid)
        return visit.usage.since(before)


def launching() -> Usage:
    return counted(lambda visit: "", lambda visit, _: void(a_warm_launch(visit)))


def stopping() -> Usage:
    def stop(visit: Visit, sid: str) -> None:
        session = visit.session(sid)
        visit.request(lambda: visit.hub.parts.hub.stop(session))
        visit.drive(sid, lambda session: session.state is State.STOPPED)

    return counted(a_warm_launch, stop)


@dataclass(frozen=True)
class Watched:
    """The looks at a notebook that stays as it is: those that write, once each, and one of all the others.

    Each waits `seconds` for notebook and endpoint.
    """

    once: tuple[Usage, ...]
    look: Usage
    seconds: float

    @property
    def dollars(self) -> float:
        """What one of the others costs."""
        return waiting(self.look, self.seconds, Lane.WATCH)

    def during(self, hours: float) -> float:
        """The dollars of all looks in so many hours."""
        others = looks_in(hours) - len(self.once)
        return others * self.dollars + sum(waiting(one, self.seconds, Lane.WATCH) for one in self.once)


def looks_in(hours: float) -> float:
    """How often a notebook that stays as it is is looked at, on the average of all places in the rings."""
    looks = 0
    for place in range(SELDOM):
        session = a_session(sid=f"{place:x}", state=State.READY)
        for minute in range(round(60 * hours)):
            if ring_of(session) in rings_at(NOW + 60 * minute):
                looks += 1
                session = replace(session, steady=60 * minute >= STEADY_SECONDS)
    return looks / SELDOM


def looking() -> Watched:
    """At a notebook that answers."""
    return Watched((a_look(an_hour_after(a_warm_launch)),), a_look(a_warm_launch), LOOK_SECONDS)


def looking_into_the_dark() -> Watched:
    """At one that does not, and neither does its endpoint."""

    def going_dark(visit: Visit) -> str:
        sid = a_warm_launch(visit)
        visit.probe = visit.silent
        return sid

    def dark(visit: Visit) -> str:
        sid = going_dark(visit)
        visit.tick(sid)
        return sid

    return Watched((a_look(going_dark), a_look(an_hour_after(dark))), a_look(dark), DARK_SECONDS)


def an_hour_after(prepare: Callable[[Visit], str]) -> Callable[[Visit], str]:
    """The same, and then no news for so long that the notebook is steady."""

    def later(visit: Visit) -> str:
        sid = prepare(visit)
        visit.clock.now += STEADY_SECONDS
        return sid

    return later


def a_look(prepare: Callable[[Visit], str]) -> Usage:
    """A look that was sent with nine others."""
    usage = counted(prepare, lambda visit, sid: visit.tick(sid))
    usage.counted["SQS request"] += 2.1  # type: ignore[assignment]  # a tenth of a batch, received, deleted
    return usage


def pulling() -> Usage:
    """A second of it, on the average of ten minutes."""

    def pull(visit: Visit, sid: str) -> None:
        visit.drive(sid, lambda session: visit.clock.now >= NOW + MINUTES * 60)

    def begin(visit: Visit) -> str:
        engine = EndlessEngine(visit.clock, lambda second: False)
        engine.ends_at = NOW + MINUTES * 60
        visit.engine = engine
        return visit.launch()

    return counted(begin, pull).shared(MINUTES * 60)


def trying() -> Usage:
    """To get a slot while there is none, on the average of ten minutes."""
    tries = 0

    def wait(visit: Visit, sid: str) -> None:
        nonlocal tries
        visit.drive(sid, lambda session: visit.clock.now >= NOW + MINUTES * 60)
        tries = visit.ticks

    def begin(visit: Visit) -> str:
        sid = visit.launch()
        visit.others(Pool.PULL, sid, visit.hub.parts.config.pull_quota)
        return sid

    usage = counted(begin, wait)
    return usage.shared(tries)


def void(_: object) -> None:
    """Nothing."""


def writes(usage: Usage) -> float:
    return usage.counted["write unit"] + sum(usage.writes.spent.values())


# ── simulated ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Story:
    """What became of one launch; times in seconds, from its upload on."""

    pulls: bool
    uploaded: float
    admitted: float | None = None
    ready: float | None = None
    stop_asked: float | None = None
    purged: float | None = None
    failure: str = ""


@dataclass
class World:
    """One hub for an hour of `launches`: `config` says how many functions each lane has, `account` how many in all."""

    config: Config
    account: int
    launches: int
    random: random.Random = field(default_factory=lambda: random.Random(8))

    def __post_init__(self) -> None:
        self.now = NOW
        self.sessions: dict[str, Session] = {}
        self.stories: dict[str, Story] = {}
        self.slots: dict[str, Slot] = {}
        self.queues: dict[Lane, deque[str]] = {lane: deque() for lane in Lane}
        self.busy = Counter[Lane]()
        self.most_slots = self.tries = self.pulled = 0
        self._calendar: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._calendar, (when, next(self._numbers), act))

    def run(self) -> None:
        """Let it be as busy as it is, until nobody waits any more."""
        for number in range(self.launches):
            pulls = self.random.random() < PULLED
            self.at(NOW + self.random.random() * HOUR, lambda number=number, pulls=pulls: self._upload(number, pulls))  # type: ignore[misc]
        while self._calendar and self._calendar[0][0] < NOW + HORIZON:
            self.now, _, act = heapq.heappop(self._calendar)
            act()

    def _upload(self, number: int, pulls: bool) -> None:
        session = new_session(
            owner=f"{number:016x}{0:048x}",  # a slot tells owners by the first 16 digits
            name="lessons",
            endpoint="tcp://203.0.113.7:2376",
            image="an image",
            limits=Limits(),
            source=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32",
            now=self.now,
            lifetime=self.config.session_lifetime,
            request="request",
            label="label",
        )
        self.stories[session.sid] = Story(pulls, self.now)
        self._keep(session)
        self._send(session.sid)

    def _send(self, sid: str) -> None:
        lane = lane_of(self.sessions[sid])
        self.queues[lane].append(sid)
        self._start(lane)

    def _start(self, lane: Lane) -> None:
        """Give waiting messages to functions, as far as the lane and the account have any."""
        while (
            self.queues[lane] and self.busy[lane] < self.config.functions_of(lane) and self.busy.total() < self.account
        ):
            sid = self.queues[lane].popleft()
            self.busy[lane] += 1
            self._go_on(sid, lane)

    def _go_on(self, sid: str, lane: Lane) -> None:
        """One turn of a tick, which holds a function of its lane."""
        session = self.sessions[sid]
        if missed := overdue(session, self.now, self.config.pulls):
            session = self._keep(advance(session, missed, self.now))
        effect = next_effect(session)
        waits = session.next_attempt_at is None or session.next_attempt_at > self.now
        if effect is None or waits or lane_of(session) is not lane or session.state is State.READY:
            self._end(session, lane)
            return
        is_try = isinstance(effect, e.FindImage) and session.queued
        seconds = TRY_SECONDS if is_try else SECONDS_OF[type(effect)]
        if isinstance(effect, e.PullImage):
            self.at(self.now + seconds / 2, lambda: self._pulled_on(sid))
        self.at(self.now + seconds, lambda: self._happened(sid, lane, effect))

    def _pulled_on(self, sid: str) -> None:
        """Half of it is there: what a pull reports in between changes nothing else."""
        if (session := self.sessions[sid]).admitted:
            self._keep(advance(session, e.PullProgressed(0.5, "Pulling: 4 of 8 layers"), self.now))

    def _happened(self, sid: str, lane: Lane, effect: Effect) -> None:
        self._keep(advance(self.sessions[sid], self._event(self.sessions[sid], effect), self.now))
        self._go_on(sid, lane)

    def _event(self, session: Session, effect: Effect) -> Event:
        match effect:
            case e.VerifyEndpoint():
                return e.EndpointVerified(session.source.removesuffix("/32"), "28.0")
            case e.FindImage():
                return self._find_image(session)
            case e.PullImage():
                del self.slots[session.sid]
                self.pulled += 1
                return e.ImagePresent()
            case e.CreateContainer():
                return e.ContainerCreated()
            case e.StartContainer():
                return e.ContainerStarted(Target(session.source.removesuffix("/32"), 32768))
            case e.ProbeNotebook():
                return e.NotebookAnswered()
            case e.PublishRoute():
                return e.RoutePublished()
            case e.WithdrawRoute():
                return e.RouteWithdrawn()
            case e.RemoveContainer():
                return e.ContainerRemoved()
            case _:
                return e.CredentialsPurged()

    def _find_image(self, session: Session) -> Event:
        if not self.stories[session.sid].pulls:
            return e.ImagePresent()
        self.tries += 1
        slot, quota = slot_of(session, self.now + SLOT_SECONDS), self.config.pull_quota
        if quota.in_all is not None and len(self.slots) >= quota.in_all:  # what crowd_before would find, but sooner
            return e.PullQueued(f"Waiting to pull the image: {len(self.slots)} other pulls on this hub are under way")
        if crowd := crowd_before(self.slots, session.sid, slot, quota, self.now):
            return e.PullQueued(f"Waiting to pull the image: {crowd.count} other pulls {crowd.what} are under way")
        self.slots[session.sid] = slot
        self.most_slots = max(self.most_slots, len(self.slots))
        return e.PullAdmitted()

    def _end(self, session: Session, lane: Lane) -> None:
        self.busy[lane] -= 1
        if session.state is State.READY:
            self.at(self.now + STAY, lambda: self._stop(session.sid))
        elif session.next_attempt_at is not None:
            self.at(max(session.next_attempt_at, self.now), lambda: self._send(session.sid))
        for other in Lane:
            self._start(other)

    def _stop(self, sid: str) -> None:
        self.stories[sid].stop_asked = self.now
        self._keep(advance(self.sessions[sid], e.StopRequested(), self.now))
        self._send(sid)

    def _keep(self, session: Session) -> Session:
        self.sessions[session.sid] = session
        story = self.stories[session.sid]
        if session.admitted and story.admitted is None:
            story.admitted = self.now - story.uploaded
        if session.state is State.READY and story.ready is None:
            story.ready = self.now - story.uploaded
        if session.phase in (Phase.LEAVING, Phase.STOPPED) and session.failure:
            story.failure = session.failure.code
        if session.state is State.STOPPED and story.stop_asked is not None:
            story.purged = self.now - story.stop_asked
        return session


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

READY: Final = (10_000, 100_000, 1_000_000)
# Functions of the account; HOMEPORT_FUNCTIONS there, which leaves some for the pages; launches in the hour; and by what
# the hub that is simulated, and its launches, are fewer: what waits for what stays the same.
ACCOUNTS: Final = (
    (10, 20, 100, 1),
    (10, 20, 300, 1),
    (100, 80, 1_000, 1),
    (1_000, 900, 10_000, 10),
    (10_000, 2_500, 10_000, 10),
)


def page() -> Iterator[str]:
    """The paragraphs and tables of docs/scale.md."""
    launch, stop, look, dark, pull, attempt = (
        launching(),
        stopping(),
        looking(),
        looking_into_the_dark(),
        pulling(),
        trying(),
    )
    used = {
        "launch, the image being there": launch,
        "stop": stop,
        "look at a ready notebook that finds nothing new": look.look,
        "the same, once, after an hour without news": look.once[0],
        "look at one that was dark before": dark.look,
        "second of pulling": pull,
        "try to get a slot": attempt,
    }
    yield "# How far a hub reaches"
    yield paragraph(
        f"""
        Written by `python -m bench.bench_scale --write`, which also says what is counted and what is simulated. Prices
        are list prices of us-east-1, {PRICES_OF}. No figure here was measured on AWS.
        """
    )
    yield "## What one costs"
    yield table(
        "one | write units | read units | SQS requests | function seconds | dollars for 1,000",
        [
            f"{name} | {writes(one):g} | {one.counted['read unit']:g} | {one.counted['SQS request']:g} | "
            f"{one.seconds:.2g} | {1000 * one.dollars:.4f}"
            for name, one in used.items()
        ],
    )
    yield paragraph(
        f"""
        No page follows this launch, and its engine takes no time. {of_functions()} Beside what it waits for, each
        invocation has {BUSY_SECONDS} s of work where it has {1024 * BUSY_MEMORY:.0f} MB, and in proportion longer where
        it has less, as it has less of a processor then. A look is sent in a batch of ten.
        """
    )
    yield "## Ready notebooks"
    yield ready_part(look, dark)
    yield paragraph(
        f"""
        A notebook is looked at every {OFTEN} minutes, and after an hour without news every {SELDOM} (*steady*). A look
        waits {LOOK_SECONDS:.2f} s for the notebook, at {ROUND_TRIP} s for a round trip; at a dark one
        {DARK_SECONDS:.0f} s. *Schedule* is how long the function that runs every minute sends for; it has 60 s.
        *Functions* is the least `HOMEPORT_FUNCTIONS` whose watch lane, a tenth of it, is at most four fifths busy with
        steady notebooks; the most there can be is 2,500. Where there are fewer, or many are dark, the schedule sends no
        more looks than the lane can take in some minutes: they come more seldom, and an expiry
        waits behind them for minutes.
        """
    )
    yield paragraph(
        f"""
        For 1,000 notebooks: three hours, which are {looks_in(3):.1f} looks on the average, ${
            rounded_up(1000 * look.during(3))
        }; 72 dark hours ${rounded_up(1000 * dark.during(72))}.
        """
    )
    yield "## Indexes"
    yield index_part(launch, stop)
    yield paragraph(
        f"""
        One partition key of an index takes {PARTITION_UNITS:,} write units a second. Looks write nothing, so what fills
        one is launches and stops. `ring` has 20 keys, of which launches and stops write five; `redrive` has one for
        each lane (here all are counted as one), `feed` as many as `HOMEPORT_FEED_SHARDS` says; two of its units are of
        a browser that enters.
        """
    )
    yield "## An hour of launches"
    yield hour_part(
        waiting(launch, WARM_SECONDS, Lane.LAUNCH) + waiting(stop, LEAVE_SECONDS, Lane.LEAVE),
        pull.dollars,
        attempt.dollars,
    )
    stays, an_hour = f"{STAY / 60:.0f}", HOUR / WARM_SECONDS
    yield paragraph(
        f"""
        The hubs with 10,000 launches are simulated at a tenth of their size. Strangers, each with a key, an endpoint
        and a network of their own; half of them pull 2 GB at 20 Mbit/s, {PULL_SECONDS:.0f} s. Each stops {stays}
        minutes after it was ready. Times are median / 99th percentile / longest. Nobody is refused at upload. A launch
        holds a function for {WARM_SECONDS:.1f} s, so a launch lane of *n* functions launches {an_hour:,.0f} × *n* in an
        hour at the very most; and pulls take as long as slots times time allow, whoever waits. Who waits for longer
        than `HOMEPORT_PULL_HOURS` is given up, and told. So an account of 10 functions, which new accounts have, is for
        trying Homeport out and for a class whose image is there, one of 100 for a workshop. Where ten thousand
        strangers in an hour pull, the last of them has waited for hours with 1,000 functions too; an image that is
        there already costs nobody a wait. Ask AWS for more functions before you announce anything.
        """
    )


def ready_part(look: Watched, dark: Watched) -> str:
    """What ready notebooks keep busy."""
    rows = []
    for count in READY:
        often, seldom = count / 60 / OFTEN, count / 60 / SELDOM
        sending = seldom * 60 / 10 * BATCH_SECONDS / SENDERS
        least = math.ceil(seldom * LOOK_AND_WORK / 0.8) * 10
        minutes = count * LOOK_AND_WORK / 250 / 60
        month, in_dark = seldom * MONTH * look.dollars, seldom / 10
        more = in_dark * MONTH * (dark.dollars - look.dollars)
        at_work = seldom * LOOK_AND_WORK
        rows.append(
            f"{count:,} | {seldom:,.0f}, {often:,.0f} | {at_work:,.0f} | {sending:.1f} s | "
            f"{f'{least:,}' if least <= 2500 else f'2,500: every {minutes:.0f} minutes'} | {month:,.0f} | "
            f"{in_dark * DARK_SECONDS:,.0f} more, ${more:,.0f}"
        )
    return table(
        "ready | looks a second: steady, first hour | at work | schedule | functions | dollars a month | a tenth dark",
        rows,
    )


def index_part(launch: Usage, stop: Usage) -> str:
    """What fills a partition of an index."""
    rows = []
    for index, keys, entering in (("redrive", 1, 0), ("ring", OFTEN, 0), ("feed", 1, 2)):
        spent = launch.writes.spent[index] + stop.writes.spent[index] + entering
        rows.append(f"`{index}` | {spent} | {PARTITION_UNITS * keys / spent:,.0f}")
    return table("index | write units of a launch and its stop | launches a second that fill it", rows)


def hour_part(life: float, pull: float, attempt: float) -> str:
    """What becomes of an hour's launches; in dollars, a launch with its stop, a second of pulling, a try for a slot."""
    rows = []
    for account, functions, launches, parts in ACCOUNTS:
        config = Config.from_environ({"HOMEPORT_FUNCTIONS": str(functions // parts)})
        world = World(config, account // parts, launches // parts)
        world.run()
        stories = list(world.stories.values())
        warm = [story.ready for story in stories if not story.pulls and story.ready is not None]
        cold = [story.ready / 60 for story in stories if story.pulls and story.ready is not None]
        stopped = [story.purged for story in stories if story.purged is not None]
        failures = Counter(story.failure for story in stories if story.failure)
        failures["still waiting after 14 hours"] += sum(not story.ready and not story.failure for story in stories)
        lost = ", ".join(f"{count * parts:,} {code}" for code, count in failures.most_common() if count) or "none"
        dollars = launches * life + parts * (world.pulled * PULL_SECONDS * pull + world.tries * attempt)
        rows.append(
            f"{account:,} | {functions:,} | {launches:,} | {spread(warm)} | {spread(cold)} | "
            f"{world.most_slots * parts} | {lost} | {spread(stopped)} | {dollars:,.2f}"
        )
    return table(
        "functions of the account | `HOMEPORT_FUNCTIONS` | launches | upload → ready, the image being there, s | "
        "the same with a pull, min | pulls at once | given up | Stop → purged, s | dollars",
        rows,
    )


def waiting(usage: Usage, seconds: float, lane: Lane) -> float:
    """The dollars of one of these, which is one invocation of a lane's function, if it waits for so long."""
    return usage.dollars + PRICES["GB-second"] * MEMORY[lane] * (seconds - usage.waited)


def of_functions() -> str:
    """A sentence that says how much memory which function has."""
    doing: dict[float, list[str]] = {}
    for lane, verb in zip(Lane, ("launches", "pulls", "leaves", "watches"), strict=True):
        doing.setdefault(MEMORY[lane], []).append(verb)
    sizes = ", ".join(f"one that {' or '.join(verbs)} {1024 * size:.0f}" for size, verbs in doing.items())
    return f"A function has {1024 * MEMORY['']:.0f} MB, {sizes}."


def spread(values: list[float]) -> str:
    """Median, 99th percentile and maximum."""
    if not values:
        return "–"
    values = sorted(values)
    return " / ".join(f"{one:,.1f}" for one in (statistics.median(values), values[int(len(values) * 0.99)], values[-1]))


def paragraph(text: str) -> str:
    """A paragraph, of lines that are long in Markdown only."""
    return "\n".join(textwrap.wrap(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False))


def table(head: str, rows: list[str]) -> str:
    """A table in Markdown, its columns after the first to the right."""
    rule = " | ".join(["---", *["---:"] * head.count(" | ")])
    return "\n".join(f"| {row} |" for row in (head, rule, *rows))


def main(arguments: list[str]) -> int:
    """Print the page, or write it."""
    parts = []
    for part in page():
        print(f"{part}\n", flush=True)
        parts.append(part)
    if "--write" in arguments:
        PAGE.write_text("\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
