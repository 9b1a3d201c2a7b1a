"""The launcher against engines and notebooks that are out to do it harm: it lets go, stays small, and says one thing.

Each row of tests/hostile_cases.py is one effect of a real launcher. What answers for ever is ended by the effect's own
deadline, which is short here; if it were not, the test would fail when the hostile server itself lets go, much later.
bench/bench_hostile_engines.py measures the seconds with the deadlines that the launcher really has.
"""

from __future__ import annotations

import logging
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from chalicelib.session.values import Session
from tests.functional.hostile_engine import LOOPBACK, Pki
from tests.hostile_cases import CASES, EFFECTS
from tests.hostile_rig import contacts, hostile

MEMORY_LIMIT = 32 << 20  # bytes, promised


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


PUBLISHED = 32768  # as the engine of these cases says


@pytest.fixture
def grown() -> Iterator[Callable[[], int]]:
    """By how many bytes Python's memory has grown at most since the test began to measure."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_effect_that_asks_an_engine_or_a_notebook_meets_at_least_ten_cases() -> None:
    for effect in EFFECTS:
        assert sum(case.effect == effect for case in CASES.values()) >= 10
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_engine_neither_holds_nor_fills_nor_diverts_the_launcher(
    pki: Pki, name: str, grown: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "homeport")
    case = CASES[name]
    with hostile(case, pki) as (rig, servers), contacts() as contacted:
        tracemalloc.reset_peak()
        outcome = rig.run()
        assert grown() < MEMORY_LIMIT
        assert not any(server.has_let_go for server in servers)
        # Where the engine says that the notebook is now is asked, too, if it does not answer where it was.
        told = {PUBLISHED} if case.effect == "look" else set()
        assert set(contacted) <= {
            (LOOPBACK,),
            *((LOOPBACK, port) for port in {server.port for server in servers} | told),
        }
    assert (outcome.shown.code if outcome.shown else "") == case.code
    if case.effect == "sweep":
        assert "/containers/json" in servers[0].asked("GET")
    assert "homeport-pull" not in {thread.name for thread in threading.enumerate()}
    _check_texts(outcome.session)
    if case.code:
        assert f"session {rig.sid}: " in caplog.text
        assert f" {case.code} in {case.session['state']} -> " in caplog.text
    assert not any(word in text for word in ("script", "alert", LOOPBACK) for text in (caplog.text, *rig.figures))


def _check_texts(session: Session) -> None:
    """What a visitor reads of it is short and printable."""
    texts = [session.message, *(line.text for line in session.log)]
    texts += [failure.message for failure in (session.failure, session.last_problem) if failure]
    for text in texts:
        assert text.isprintable()
        assert len(text) < 1000
    assert session.target is None or session.target.address == LOOPBACK


def test_whoever_else_is_contacted_is_found_out() -> None:
    def contact() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.connect((LOOPBACK, 9))
            other.sendto(b"x", (LOOPBACK, 10))
        socket.getaddrinfo("localhost", 1)

    with contacts() as contacted:
        thread = threading.Thread(target=contact)
        thread.start()
        thread.join()
    assert set(contacted) == {(LOOPBACK, 9), (LOOPBACK, 10), ("localhost",)}
    contact()
    assert len(contacted) == 3
