"""AWS X-Ray: spans and calls to AWS as subsegments of the segment that Lambda makes of an invocation.

1. A subsegment is one datagram to the daemon that Lambda runs beside the function; nobody waits for an answer. If the
   daemon is not there, it is lost.
2. Only what Lambda has chosen to trace is sent (`Sampled=1` of the invocation's trace header).
3. Of a call to AWS are told: service, operation, time, status, repetitions, and the code or the class of an error. Its
   parameters and its address are never looked at.

https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from chalicelib.tracing import Span

HEADER: Final = b'{"format":"json","version":1}\n'
MOST_CALLS: Final = 300  # of one invocation; a trace may have 500 KB, and the schedule makes thousands of calls
_TRACE: Final = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
_SEGMENT: Final = re.compile(r"[0-9a-f]{16}")
_PARAMETERS: Final = str.maketrans({"{": ":", "}": None})  # X-Ray's names have no braces: /sessions/:sid
_BEGUN: Final = "homeport-xray"  # the key of what is known of a call, in botocore's context of it


@dataclass(frozen=True, slots=True)
class _Open:
    """A span that is being recorded."""

    trace: str
    id: str
    span: Span


_innermost: ContextVar[_Open | None] = ContextVar("innermost", default=None)


class XRay:
    """Records spans, and the calls of the clients that it watches.

    `trace_header` gives the invocation's header, "" for none; `send` takes a datagram; `new_id` gives 16 hexadecimal
    digits.
    """

    def __init__(
        self,
        *,
        trace_header: Callable[[], str],
        send: Callable[[bytes], None],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._trace_header = trace_header
        self._send = send
        self._clock = clock
        self._new_id = new_id
        self._counted = ("", 0)  # the latest invocation, and how many of its calls were recorded

    @contextmanager
    def record(self, span: Span) -> Iterator[None]:
        """Record the span, if its invocation is traced."""
        document = self._begin()
        if document is None:
            yield
            return
        above, failed = _innermost.get(), False
        _innermost.set(_Open(document["trace_id"], document["id"], span))
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            _innermost.set(above)
            document["name"] = span.name.translate(_PARAMETERS)
            said = {"session": span.session, "state": span.state, "code": span.code}
            self._end(document, said, span.status, failed=failed)

    def belongs_to(self, sid: str) -> None:
        """Say which session the innermost span is about."""
        if (open_ := _innermost.get()) is not None:
            open_.span.session = sid

    def watch(self, client: Any) -> None:
        """Record what a client of boto3's calls from now on."""
        client.meta.events.register("before-call", self._call_begins)
        client.meta.events.register("after-call", self._call_ends)
        client.meta.events.register("after-call-error", self._call_fails)

    def _call_begins(self, model: Any, context: dict[str, Any], **_: Any) -> None:
        document = self._begin()
        if document is not None and self._has_room():
            service = str(model.service_model.service_id)
            context[_BEGUN] = document | {"name": service, "namespace": "aws", "aws": {"operation": model.name}}

    def _call_ends(self, http_response: Any, parsed: Any, context: dict[str, Any], **_: Any) -> None:
        if (document := context.pop(_BEGUN, None)) is not None:
            status = http_response.status_code
            code = str(parsed.get("Error", {}).get("Code", "")) if status >= 300 else ""
            document["aws"]["retries"] = parsed.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            self._end(document, {"code": code}, status)

    def _call_fails(self, exception: Exception, context: dict[str, Any], **_: Any) -> None:
        """There was no answer."""
        if (document := context.pop(_BEGUN, None)) is not None:
            self._end(document, {"code": type(exception).__name__}, None, failed=True)

    def _has_room(self) -> bool:
        header, count = self._trace_header(), 1
        if self._counted[0] == header:
            count += self._counted[1]
        self._counted = (header, count)
        return count <= MOST_CALLS

    def _begin(self) -> dict[str, Any] | None:
        """What every subsegment has; None if nothing is to be recorded."""
        above = _innermost.get()
        place = _place(self._trace_header()) if above is None else (above.trace, above.id)
        if place is None:
            return None
        trace, parent = place
        return {
            "id": self._new_id(),
            "trace_id": trace,
            "parent_id": parent,
            "type": "subsegment",
            "start_time": self._clock(),
        }

    def _end(
        self, document: dict[str, Any], said: Mapping[str, str], status: int | None, *, failed: bool = False
    ) -> None:
        document["end_time"] = self._clock()
        if annotations := {key: value for key, value in said.items() if value}:
            document["annotations"] = annotations
        if status is not None:
            document["http"] = {"response": {"status": status}}
        document |= dict.fromkeys(_marks(status or 0, failed=failed, has_code="code" in annotations), True)
        self._send(HEADER + json.dumps(document).encode())


def _marks(status: int, *, failed: bool, has_code: bool) -> Iterator[str]:
    """How X-Ray marks what did not go well: a fault is the server's, an error the client's."""
    if failed or status >= 500:
        yield "fault"
    elif status >= 400 or has_code:
        yield "error"
    if status == 429:
        yield "throttle"


def _place(header: str) -> tuple[str, str] | None:
    """The trace and the segment of a trace header; None for one that is not sampled, or not well-formed.

    https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    """
    fields = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    trace, segment = fields.get("Root", ""), fields.get("Parent", "")
    if fields.get("Sampled") != "1" or not _TRACE.fullmatch(trace) or not _SEGMENT.fullmatch(segment):
        return None
    return trace, segment


def sender(daemon: str) -> Callable[[bytes], None] | None:
    """What sends datagrams to the daemon, an IPv4 address and a port; None for anything else, such as a name."""
    host, _, port = daemon.rpartition(":")
    try:
        address = (str(IPv4Address(host)), int(port))
    except ValueError:
        return None

    def send(datagram: bytes) -> None:
        with suppress(OSError, OverflowError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as once:
            once.setblocking(False)
            once.sendto(datagram, address)

    return send
