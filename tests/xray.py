"""X-Ray's daemon on loopback, and what a subsegment may be: by X-Ray's published format, and by what Homeport tells.

https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, get_args

from chalicelib.session.events import Effect
from chalicelib.session.values import State, is_session_id
from chalicelib.web.routes import ADDRESSES

TRACE: Final = "1-5759e988-bd862e3fe1be46a994272793"
SEGMENT: Final = "53995c3f42cd8ad8"
SAMPLED: Final = f"Root={TRACE};Parent={SEGMENT};Sampled=1"
UNSAMPLED: Final = f"Root={TRACE};Parent={SEGMENT};Sampled=0"
HEADER: Final = {"format": "json", "version": 1}
ID: Final = re.compile(r"[0-9a-f]{16}")
NAME: Final = re.compile(r"[\w\s.:/%&#=+\\\-@]{1,200}")
CODE: Final = re.compile(r"[A-Za-z0-9-]{1,60}")  # of this hub, of AWS, or an exception's class

ALWAYS: Final = {"name", "id", "trace_id", "parent_id", "type", "start_time", "end_time"}
SOMETIMES: Final = {"annotations", "http", "aws", "namespace", "error", "fault", "throttle"}
EFFECTS: Final = {effect.__name__ for effect in get_args(Effect)}
PAGES: Final = {f"{method} {path.replace('{', ':').replace('}', '')}" for method, path, _, _ in ADDRESSES}
SERVICES: Final = {"DynamoDB", "KMS", "S3", "SQS", "SSM"}


class Daemon:
    """Takes datagrams, as that of Lambda does."""

    def __init__(self, taken_by: socket.socket) -> None:
        self._socket = taken_by
        self.address = "{}:{}".format(*taken_by.getsockname())

    def taken(self) -> list[bytes]:
        """What has come since the last time; on loopback it has come once it was sent."""
        return list(self._waiting())

    def _waiting(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._socket.recv(65536)
            except BlockingIOError:
                return


@contextmanager
def daemon() -> Iterator[Daemon]:
    """A daemon of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken_by:
        taken_by.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        taken_by.bind(("127.0.0.1", 0))
        taken_by.setblocking(False)
        yield Daemon(taken_by)


def subsegments(datagrams: Iterable[bytes]) -> list[dict[str, Any]]:
    """What datagrams tell; raises AssertionError if X-Ray would not read it, or if it is more than is to be told."""
    return [_subsegment(datagram) for datagram in datagrams]


def _subsegment(datagram: bytes) -> dict[str, Any]:
    header, _, text = datagram.partition(b"\n")
    assert json.loads(header) == HEADER
    told = dict(json.loads(text))
    assert told.keys() >= ALWAYS
    assert told.keys() <= ALWAYS | SOMETIMES
    assert told["type"] == "subsegment"
    assert told["trace_id"] == TRACE
    assert ID.fullmatch(told["id"])
    assert ID.fullmatch(told["parent_id"])
    assert NAME.fullmatch(told["name"])
    assert isinstance(told["start_time"], float)
    assert told["start_time"] <= told["end_time"]
    assert all(told[mark] is True for mark in ("error", "fault", "throttle") if mark in told)
    if "http" in told:
        assert told["http"] == {"response": {"status": told["http"]["response"]["status"]}}
        assert 100 <= told["http"]["response"]["status"] < 600
    if "namespace" in told:
        assert told["namespace"] == "aws"
        assert told["name"] in SERVICES
        assert told["aws"].keys() <= {"operation", "retries"}
        assert re.fullmatch(r"[A-Za-z]+", told["aws"]["operation"])
        assert told["aws"].get("retries", 0) in range(10)
    else:
        assert told["name"] in EFFECTS | PAGES
        assert "aws" not in told
    _check_annotations(**told.get("annotations", {}))
    return told


def _check_annotations(*, session: str | None = None, state: str | None = None, code: str | None = None) -> None:
    """The values that each may have; there are no others."""
    assert session is None or is_session_id(session)
    assert state is None or state in set(State)
    assert code is None or CODE.fullmatch(code)
