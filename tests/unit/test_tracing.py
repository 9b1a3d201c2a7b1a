"""What is told of a span, of which invocations, and that nothing of it reaches the work."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import count
from threading import Thread
from typing import Any

import pytest

from chalicelib.aws.xray import XRay, sender
from chalicelib.session.values import State
from chalicelib.tracing import UNTRACED, Span
from tests.builders import NOW, a_session
from tests.xray import SAMPLED, SEGMENT, TRACE, UNSAMPLED, daemon, subsegments

SID = a_session().sid


class Rig:
    """A tracer of an invocation with this header; what it sends is kept."""

    def __init__(self, header: str = SAMPLED) -> None:
        self.header = header
        self.sent: list[bytes] = []
        moments, ids = count(), count(1)
        self.tracer = XRay(
            trace_header=lambda: self.header,
            send=self.sent.append,
            clock=lambda: NOW + next(moments),
            new_id=lambda: f"{next(ids):016x}",
        )

    @property
    def told(self) -> list[dict[str, Any]]:
        return subsegments(self.sent)


def test_a_span_is_a_subsegment_of_the_functions_segment() -> None:
    rig = Rig()
    span = Span("VerifyEndpoint", session=SID, state=State.VERIFYING)
    with rig.tracer.record(span):
        span.code = "endpoint-timeout"
    assert rig.told == [
        {
            "id": f"{1:016x}",
            "trace_id": TRACE,
            "parent_id": SEGMENT,
            "type": "subsegment",
            "start_time": NOW,
            "end_time": NOW + 1,
            "name": "VerifyEndpoint",
            "annotations": {"session": SID, "state": "verifying", "code": "endpoint-timeout"},
            "error": True,
        }
    ]


@pytest.mark.parametrize(
    "header",
    [
        "",
        UNSAMPLED,
        f"Root={TRACE};Parent={SEGMENT}",
        f"Root={TRACE};Sampled=1",
        f"Root=1-0-0;Parent={SEGMENT};Sampled=1",
        f"Root={TRACE};Parent=0;Sampled=1",
        "Sampled=1",
        ";=;==;Root",
    ],
)
def test_nothing_is_sent_of_an_invocation_that_is_not_traced(header: str) -> None:
    rig = Rig(header)
    with rig.tracer.record(Span("VerifyEndpoint")):
        rig.tracer.belongs_to(SID)
    assert rig.sent == []


def test_a_header_may_say_more_in_any_order() -> None:
    rig = Rig(f"Sampled=1; Lineage=a87bd80c:1|68fd508a:5; Parent={SEGMENT}; Root={TRACE}")
    with rig.tracer.record(Span("VerifyEndpoint")):
        pass
    assert [told["parent_id"] for told in rig.told] == [SEGMENT]


def test_an_address_is_told_as_its_pattern_in_names_as_x_ray_takes_them() -> None:
    rig = Rig()
    with rig.tracer.record(Span("POST /sessions/{sid}/stop")):
        rig.tracer.belongs_to(SID)
    (told,) = rig.told
    assert (told["name"], told["annotations"]) == ("POST /sessions/:sid/stop", {"session": SID})


def test_a_span_within_another_is_its_part_and_in_another_thread_the_functions() -> None:
    rig = Rig()

    def elsewhere() -> None:
        with rig.tracer.record(Span("GET /health")):
            pass

    with rig.tracer.record(Span("POST /sessions")):
        with rig.tracer.record(Span("VerifyEndpoint")):
            pass
        thread = Thread(target=elsewhere)
        thread.start()
        thread.join()
    inner, other, outer = rig.told
    assert (outer["parent_id"], inner["parent_id"], other["parent_id"]) == (SEGMENT, outer["id"], SEGMENT)


@pytest.mark.parametrize(
    ("status", "marks"),
    [(200, set()), (303, set()), (404, {"error"}), (429, {"error", "throttle"}), (500, {"fault"}), (503, {"fault"})],
)
def test_an_answer_is_marked_by_its_status(status: int, marks: set[str]) -> None:
    rig = Rig()
    span = Span("POST /sessions")
    with rig.tracer.record(span):
        span.status = status
    (told,) = rig.told
    assert told["http"]["response"]["status"] == status
    assert told.keys() & {"error", "fault", "throttle"} == marks


def test_what_is_raised_is_raised_on_and_told_without_its_words() -> None:
    rig = Rig()
    with pytest.raises(KeyError, match="s3cret"), rig.tracer.record(Span("VerifyEndpoint")):
        raise KeyError("s3cret")
    (told,) = rig.told
    assert told["fault"] is True
    assert b"s3cret" not in b"".join(rig.sent)
    with rig.tracer.record(Span("FindImage")):
        pass
    assert rig.told[1]["parent_id"] == SEGMENT, "the span that failed is over"


def test_a_generator_that_is_closed_early_ends_its_span_without_a_fault() -> None:
    rig = Rig()

    def effect() -> Iterator[int]:
        with rig.tracer.record(Span("PullImage")):
            yield from range(3)

    events = effect()
    assert next(events) == 0
    assert isinstance(events, Generator)
    events.close()
    (told,) = rig.told
    assert "fault" not in told


def test_without_a_tracer_nothing_happens() -> None:
    with UNTRACED.record(Span("VerifyEndpoint")):
        UNTRACED.belongs_to(SID)


def test_a_datagram_comes_to_the_daemon() -> None:
    with daemon() as x_rays:
        send = sender(x_rays.address)
        assert send
        send(b"one")
        send(b"two")
        assert x_rays.taken() == [b"one", b"two"]


def test_a_daemon_that_is_gone_or_nowhere_disturbs_nobody() -> None:
    with daemon() as x_rays:
        gone = x_rays.address
    for address in (gone, "255.255.255.255:2000", "127.0.0.1:0", "127.0.0.1:99999"):
        send = sender(address)
        assert send
        for _ in range(3):
            send(b"lost")
        send(b"more than a datagram takes" * 10_000)


@pytest.mark.parametrize("address", ["", "localhost:2000", "127.0.0.1", "127.0.0.1:http", "[::1]:2000", "1.2.3:2000"])
def test_an_address_that_is_none_has_no_sender(address: str) -> None:
    assert sender(address) is None
