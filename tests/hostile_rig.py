"""A real launcher on real connections to an engine and a notebook that are out to do it harm (hostile_cases.py).

The transport, the endpoint, the probe, the effects and the tick are those that Lambda runs; the hub's own stores are
twins. A case puts one thing wrong into what a good engine answers, and starts the session at the effect that meets it.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from chalicelib.aws.queues import TickMessage
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.probe import probe
from chalicelib.engine.pull import ANSWER_SECONDS
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.tick import LONGEST_PROGRESS_SECONDS, Launcher
from chalicelib.metrics import Metrics
from chalicelib.notebook.certificates import HubTrust, issue_client, issue_notebook, new_ca
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import EFFECT_SECONDS
from chalicelib.session.machine import PullPatience
from chalicelib.session.values import Failure, Session, Target
from tests.builders import NOW, a_session
from tests.certificates import Leaf
from tests.functional.hostile_engine import LOOPBACK, Answer, HostileEngine, Pki, load_leaf
from tests.launcher_twins import (
    BuildLogTwin,
    Clock,
    CredentialsTwin,
    ImageStoreTwin,
    RouteStoreTwin,
    SessionStoreTwin,
    SlotStoreTwin,
)

HELD_SECONDS: Final = 60.0  # after which a hostile engine lets its client go: no budget here is nearly as long
PULLS: Final = PullPatience()
ASK_NOTEBOOK: Final = frozenset({"probe", "look", "inspect", "sweep"})
DECADE: Final = 86400.0 * 3650


@dataclass(frozen=True)
class Case:
    """A session that is at `effect`, and what its engine (or its notebook) does then.

    `code` is what the visitor is shown of it; "" if the hub is to go on. `budget`: the real seconds of the effect, for
    what only its deadline ends. `server` has the arguments of HostileEngine.
    """

    name: str
    effect: str
    session: Mapping[str, Any]
    code: str
    answers: Mapping[str, Answer] = field(default_factory=dict)
    notebook: Answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    budget: float | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    notebook_server: Mapping[str, Any] = field(default_factory=dict)
    pki: Callable[[], Pki] | None = None


@dataclass(frozen=True)
class Outcome:
    """How the effect ended: the session, and what was shown of the failure, if there was one."""

    session: Session
    shown: Failure | None


class HostileRig:
    """A launcher at one case's session; `run` performs the one effect that it is at.

    The engine listens at the port of the `credentials`, the notebook at `port`. `hurried`: what only a deadline ends
    has the budget of its case, and all else plenty; if not, each has what it really has. `limits` are when the
    deadlines were (time.monotonic), `figures` what was reported to the operator.
    """

    def __init__(
        self, case: Case, credentials: Credentials, port: int, *, clock: Clock | None = None, hurried: bool = True
    ) -> None:
        self._hurry = case.budget or EFFECT_SECONDS if hurried else None
        self.limits: list[float] = []
        self.figures: list[str] = []
        self._clock = clock or Clock(NOW)
        self._store = SessionStoreTwin()
        self._ticks = 0
        asked = {"hub": "hub", "target": Target(LOOPBACK, port), "endpoint": str(credentials.endpoint)}
        session = a_session(**(asked | dict(case.session)))
        self.sid = session.sid
        self._credentials = CredentialsTwin()
        self._credentials.objects[session.sid, 1] = (session.owner, credentials)
        self._store.sessions[session.sid] = session
        for past in (2, 3):  # what a sweep may remove: launches of the same owner that are over
            other = a_session(name=f"past-{past}", generation=past)
            self._store.sessions[other.sid] = other

    def run(self) -> Outcome:
        """One tick, which has the time for one effect."""
        before = self._store.sessions[self.sid]
        self._tick(TickMessage(self.sid))
        after = self._store.sessions[self.sid]
        failure = after.failure if before.failure is None else None
        return Outcome(after, failure or after.last_problem)

    def _tick(self, message: TickMessage) -> None:
        self._ticks += 1
        left = iter([EFFECT_SECONDS])
        Launcher(
            sessions=self._store,
            effects=Effects(
                config=Config.from_environ({"HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8"}),
                credentials=self._credentials,
                routes=RouteStoreTwin(),
                slots=SlotStoreTwin(self._clock),
                images=ImageStoreTwin(),
                build_logs=BuildLogTwin(),
                trust=a_lasting_trust,
                find_session=self._store.find,
                clock=self._clock,
                sleep=self._clock.sleep,
                connect=self._connect,
                probe=self._probe,
            ),
            enqueue=self._enqueue,
            lane=lane_of(self._store.sessions[self.sid]),
            pulls=PULLS,
            clock=self._clock,
            time_left=lambda: next(left, 0.0),
            name=f"tick-{self._ticks}",
            metrics=Metrics("test", self._clock, self.figures.append),
        ).tick(message)

    def _enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        """The next function of a pull that goes on for ever comes when that has lasted too long."""
        if message.handover is not None:
            self._clock.now += PULLS.stalled + 1
            self._tick(message)
            self.limits = [
                time.monotonic() + LONGEST_PROGRESS_SECONDS
            ]  # by then it learns that it is not its own any more

    def _connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> DockerEndpoint:
        deadline = self.seconds(deadline)
        return _Endpoint(self, credentials, address=address, deadline=deadline, hub_name=hub_name)

    def _probe(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> float | None:
        return probe(target, host, trust, deadline=self.seconds(deadline))

    def seconds(self, deadline: float) -> float:
        """The seconds that a call has, in place of those that the launcher gave it."""
        assert 0 < deadline <= max(EFFECT_SECONDS, ANSWER_SECONDS)
        seconds = self._hurry or deadline
        self.limits.append(time.monotonic() + seconds)
        return seconds


class _Endpoint(DockerEndpoint):
    """An endpoint whose pull has a deadline of the rig's, too."""

    def __init__(self, rig: HostileRig, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rig = rig

    def pull(self, image: str, *, answer_within: float = ANSWER_SECONDS) -> Generator[PullStatus, None, None]:
        return super().pull(image, answer_within=self._rig.seconds(answer_within))


@contextmanager
def hostile(case: Case, pki: Pki) -> Iterator[tuple[HostileRig, list[HostileEngine]]]:
    """The case's servers and a launcher beside them. A server lets the launcher go after HELD_SECONDS (`let_go`)."""
    with serving(case, pki) as servers:
        engine, notebook = servers

        def let_go() -> None:
            for server in servers:
                server.let_go()

        release = threading.Timer(HELD_SECONDS, let_go)
        release.daemon = True
        release.start()
        try:
            yield HostileRig(case, engine.credentials, notebook.port), servers
        finally:
            release.cancel()


@contextmanager
def serving(case: Case, pki: Pki) -> Iterator[list[HostileEngine]]:
    """The case's engine, and its notebook if that is asked."""
    engine = HostileEngine(case.pki() if case.pki else pki, case.answers, **case.server)
    with engine, _notebook(case) if case.effect in ASK_NOTEBOOK else nullcontext(engine) as notebook:
        yield [engine, notebook]


@cache
def _pki_of_nobody() -> Pki:
    return Pki.new()


@cache
def a_lasting_trust() -> HubTrust:
    """The hub's own certificates, which are valid by this machine's clock and by that of `a_session`."""
    cas = [new_ca(name, now=NOW - DECADE, lifetime=2 * DECADE) for name in ("notebooks", "clients")]
    return HubTrust(cas[0], cas[1].certificate, issue_client(cas[1], "launcher", now=NOW - DECADE, lifetime=2 * DECADE))


@cache
def notebook_leaf(host: str) -> Leaf:
    """The certificate of the launch with this host."""
    leaf = issue_notebook(a_lasting_trust().notebook_ca, host, now=NOW - DECADE, lifetime=2 * DECADE)
    return Leaf(leaf.certificate, leaf.key)


def _notebook(case: Case) -> HostileEngine:
    def mutual(context: ssl.SSLContext) -> None:
        load_leaf(context, notebook_leaf(a_session().host))

    server = {"client_ca": a_lasting_trust().client_ca, "tls": mutual, **case.notebook_server}
    return HostileEngine(_pki_of_nobody(), {"GET /api/status": case.notebook}, **server)


# ── who is contacted ─────────────────────────────────────────────────────────────────────────────────────────────────

_recording: list[list[tuple[Any, ...]]] = []


@contextmanager
def contacts() -> Iterator[list[tuple[Any, ...]]]:
    """All that any thread of this process connects to, sends to or looks up for as long as the block lasts.

    Python cannot take an audit hook away again; it does nothing outside of the block.
    """
    _watch_sockets()
    found: list[tuple[Any, ...]] = []
    _recording.append(found)
    try:
        yield found
    finally:
        _recording.remove(found)


@cache
def _watch_sockets() -> None:
    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not _recording or not event.startswith("socket."):
            return
        match event.removeprefix("socket."):
            case "connect" | "sendto" | "sendmsg" if arguments[0].family != socket.AF_UNIX:
                found = tuple(arguments[1][:2])
            case "getaddrinfo" | "gethostbyname" | "gethostbyaddr" | "getnameinfo":
                found = (str(arguments[0]),)
            case _:
                return
        for record in _recording:
            record.append(found)

    sys.addaudithook(watch)
