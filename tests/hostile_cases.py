"""What an engine or a notebook does to harm the hub that asks it, and what the visitor is then shown: one row a case.

`CASES` is used by tests/functional/test_hostile_launches.py and bench/bench_hostile_engines.py.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from chalicelib.engine.transport import ANSWER_BYTES
from chalicelib.session.values import Failure, State, container_name
from tests.builders import NOW, OWNER, a_session
from tests.certificates import FAR_AHEAD, LONG_AGO, Ca, Leaf
from tests.functional.hostile_engine import (
    CHUNKED,
    LOOPBACK,
    NOT_FOUND,
    Answer,
    Connection,
    Pki,
    chunk,
    http,
    load_leaf,
    of_json,
    ping,
    pull_of,
    refusal,
    version,
)
from tests.functional.test_docker_endpoint import (
    CONTAINER_ID,
    IMAGE,
    IMAGE_ID,
    LIST,
    OF_IMAGE,
    PULL,
    STARTED,
    frame,
    inspected,
    listed,
    ports,
)
from tests.hostile_rig import Case, a_lasting_trust, notebook_leaf

MIB: Final = 1 << 20
EVIL: Final = "\x1b[31m\u202e<script>alert(1)</script>\r\n\0\u200b\u2028" + "é" * 5000
HOLD: Final = 0.25  # seconds; what only the deadline ends takes as long as that
ELSEWHERE: Final = "https://169.254.169.254/latest/meta-data/"  # no test may ever connect to it

OURS: Final = container_name(a_session().sid, 1)
IMAGE_INFO: Final = f"GET /images/{IMAGE}/json"
CREATE: Final = "POST /containers/create"
INSPECT: Final = f"GET /containers/{OURS}/json"
START: Final = f"POST /containers/{OURS}/start"
ARCHIVE: Final = f"PUT /containers/{OURS}/archive"
LOGS: Final = f"GET /containers/{OURS}/logs"
STOP: Final = f"POST /containers/{CONTAINER_ID}/stop"
DELETE: Final = f"DELETE /containers/{CONTAINER_ID}"
NOTEBOOK: Final = "GET /api/status"

RUNNING: Final = ports({"HostIp": LOOPBACK, "HostPort": "32768"})
EXITED: Final = {"state": {"Status": "exited", "Running": False, "ExitCode": 1}}
GOOD: Final[Mapping[str, Answer]] = {
    "GET /_ping": ping(),
    "GET /version": version(),
    IMAGE_INFO: of_json({"Id": IMAGE_ID, "Config": OF_IMAGE}),
    CREATE: of_json({"Id": CONTAINER_ID, "Warnings": []}, status=201),
    INSPECT: inspected(**RUNNING),
    ARCHIVE: http(),
    START: http(status=204),
    STOP: http(status=204),
    DELETE: http(status=204),
    LIST: of_json([]),
}

# ── the effects ──────────────────────────────────────────────────────────────────────────────────────────────────────

OF_CONTAINER: Final = {"container": OURS, "address": LOOPBACK}
EFFECTS: Final[Mapping[str, tuple[str, dict[str, Any], dict[str, Answer]]]] = {
    # the call that is answered badly, where the session is, and what is answered otherwise than in GOOD
    "verify": ("GET /version", {"state": State.VERIFYING}, {}),
    "find image": (IMAGE_INFO, {"state": State.PULLING}, {}),
    "pull": (PULL, {"state": State.PULLING, "admitted": True, "progressed_at": NOW}, {IMAGE_INFO: NOT_FOUND}),
    "create": (
        CREATE,
        {"state": State.CREATING, **OF_CONTAINER},
        {INSPECT: inspected(state={"Status": "created", "Running": False})},
    ),
    "start": (START, {"state": State.STARTING, **OF_CONTAINER}, {}),
    "probe": (NOTEBOOK, {"state": State.PROBING, "attempts": 1, **OF_CONTAINER}, {}),
    "look": (NOTEBOOK, {"state": State.READY, **OF_CONTAINER}, {}),
    "inspect": (INSPECT, {"state": State.READY, **OF_CONTAINER}, {NOTEBOOK: NOT_FOUND}),
    "remove": (DELETE, {"state": State.REMOVING, **OF_CONTAINER}, {}),
    "sweep": (LIST, {"state": State.READY, "last_problem": Failure("notebook-silent", "…"), **OF_CONTAINER}, {}),
}


def case(name: str, effect: str, code: str, answers: Answer | dict[str, Answer], **changes: Any) -> Case:
    """A case; `answers` is what the effect's own call is answered with, or answers to whichever calls."""
    call, session, others = EFFECTS[effect]
    found = {**GOOD, **others, **(answers if isinstance(answers, dict) else {call: answers})}
    if NOTEBOOK in found:
        changes["notebook"] = found[NOTEBOOK]
    return Case(f"{effect}: {name}", effect, session, code, found, **changes)


# ── answers that are no HTTP, no end, or somewhere else ──────────────────────────────────────────────────────────────

OK: Final = b"HTTP/1.1 200 OK\r\n"


def then_close(answer: bytes) -> Answer:
    return lambda connection: connection.send(answer)


def then_reset(answer: bytes) -> Answer:
    """Send it and end the connection with a reset, so that what is under way may be lost, too."""

    def reset(connection: Connection) -> None:
        connection.send(answer)
        connection.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return reset


def then_drip(begin: bytes, rest: bytes) -> Answer:
    def drip(connection: Connection) -> None:
        connection.send(begin)
        connection.drip(rest)

    return drip


def then_flood(begin: bytes, rest: bytes) -> Callable[[Connection], None]:
    def flood(connection: Connection) -> None:
        connection.send(begin)
        connection.flood(rest)

    return flood


def moved(status: int) -> Answer:
    return http(b"{}", status=status, headers=[("Location", ELSEWHERE), ("Connection", "close")])


WHOLE: Final = http(b'{"Id": "x"}', headers=[("Connection", "close")])
NOT_DOCKER: Final = "not-a-docker-engine"
HUNG_UP: Final = "endpoint-hung-up"
TIMEOUT: Final = "endpoint-timeout"
REDIRECTED: Final = "endpoint-redirected"

HEADS: Final[Mapping[str, tuple[Answer, str]]] = {
    "a status line of 10 MB": (then_flood(b"HTTP/1.1 200 ", b"O" * 65536), NOT_DOCKER),
    "HTTP/0.9": (then_close(b"<html>hello</html>\r\n"), NOT_DOCKER),
    "HTTP/9.9": (then_close(b"HTTP/9.9 200 OK\r\n\r\n"), NOT_DOCKER),
    "a status that is no number": (then_close(b"HTTP/1.1 two OK\r\n\r\n"), NOT_DOCKER),
    "status 999": (then_close(b"HTTP/1.1 999 Hm\r\nContent-Length: 0\r\n\r\n"), NOT_DOCKER),
    "an upgrade": (then_close(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"), NOT_DOCKER),
    "endless interim answers": (then_flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000), NOT_DOCKER),
    "endless headers": (then_flood(OK, b"X-A: b\r\n" * 8000), NOT_DOCKER),
    "one header without an end": (then_flood(OK + b"X-A: ", b"b" * 65536), NOT_DOCKER),
    "a redirect to the metadata service (301)": (moved(301), REDIRECTED),
    "a redirect that repeats the request (307)": (moved(307), REDIRECTED),
    "a redirect without a status of its own (399)": (
        then_close(f"HTTP/1.1 399 Go\r\nLocation: {ELSEWHERE}\r\nContent-Length: 0\r\n\r\n".encode()),
        REDIRECTED,
    ),
    "closed without a byte": (then_close(b""), HUNG_UP),
    "reset without a byte": (then_reset(b""), HUNG_UP),
    "headers that are none": (then_close(OK + b"<script>alert(1)</script>\r\nContent-Length: 2\r\n\r\n{}"), NOT_DOCKER),
    "closed within the headers": (then_close(OK + b"Content-Le"), NOT_DOCKER),
    "closed within the status line": (then_close(b"HTTP/1.1 2"), NOT_DOCKER),
}
HELD_HEADS: Final[Mapping[str, Answer]] = {
    "headers a byte at a time": then_drip(OK, b"X-Slow: " + b"a" * 200 + b"\r\n"),
    "interim answers a byte at a time": then_drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
BODIES: Final[Mapping[str, tuple[Answer, str]]] = {
    "300 MiB": (then_flood(OK + f"Content-Length: {300 * MIB}\r\n\r\n".encode(), b" " * 65536), NOT_DOCKER),
    "a body without an end": (then_flood(OK + b"Connection: close\r\n\r\n", b" " * 65536), NOT_DOCKER),
    "chunks without an end": (then_flood(CHUNKED, chunk(b" " * 65536)), NOT_DOCKER),
    "one chunk without an end": (then_flood(CHUNKED + b"7fffffffffffffff\r\n", b" " * 65536), NOT_DOCKER),
    "chunks that are all extension": (then_flood(CHUNKED, b"1;" + b"x" * 60000 + b"\r\n \r\n"), NOT_DOCKER),
    "trailers without an end": (then_flood(CHUNKED + b"0\r\n", b"X-A: b\r\n" * 8000), NOT_DOCKER),
    "a negative chunk": (then_close(CHUNKED + b"-5\r\n{}\r\n"), NOT_DOCKER),
    "a chunk that is no number": (then_close(CHUNKED + b"zz\r\n{}\r\n"), NOT_DOCKER),
    "a gzip bomb": (
        http(gzip.compress(b" " * (64 * MIB), 1), headers=[("Content-Encoding", "gzip"), ("Connection", "close")]),
        NOT_DOCKER,
    ),
    "a length that is too long": (then_close(http(b"{}", length=100)), HUNG_UP),
    "the longest length": (then_close(OK + b"Content-Length: 9223372036854775807\r\n\r\n{}"), HUNG_UP),
    "a length of a hundred digits": (then_close(OK + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n{}"), HUNG_UP),
    "two lengths": (then_close(OK + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}"), NOT_DOCKER),
    "reset within the body": (then_reset(http(b'{"Id"', length=5000)), HUNG_UP),
}
HELD_BODIES: Final[Mapping[str, Answer]] = {
    "a body a byte at a time": then_drip(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks a byte at a time": then_drip(CHUNKED, chunk(b" ")),
}
OF_A_NOTEBOOK: Final = "notebook-silent"


def _everywhere() -> Iterator[Case]:
    """What is answered without regard to what was asked. A sweep that fails is nobody's business."""
    for effect in EFFECTS:
        shown = {"probe": OF_A_NOTEBOOK, "look": OF_A_NOTEBOOK, "sweep": ""}.get(effect)
        for name, (answer, code) in HEADS.items():
            yield case(name, effect, code if shown is None else shown, answer)
        if effect in ("pull", "probe", "look"):  # a stream of its own; and a body that is read up to 4 KiB
            continue
        for name, (answer, code) in BODIES.items():
            yield case(name, effect, code if shown is None else shown, answer)


def _held() -> Iterator[Case]:
    """What only the deadline ends."""
    for effect in EFFECTS:
        if effect == "sweep":  # after the deadline, and nobody's business; before that, the notebook is looked at
            yield case("a list a byte at a time", effect, "", HELD_BODIES["chunks a byte at a time"], budget=10 * HOLD)
        else:
            yield case(
                "no answer",
                effect,
                OF_A_NOTEBOOK if effect in ("probe", "look") else TIMEOUT,
                Connection.wait,
                budget=HOLD,
            )
    for effect in ("verify", "create", "probe", "remove"):
        for name, answer in HELD_HEADS.items():
            yield case(name, effect, OF_A_NOTEBOOK if effect == "probe" else TIMEOUT, answer, budget=HOLD)
    for effect in ("verify", "find image", "start", "inspect"):
        for name, answer in HELD_BODIES.items():
            yield case(name, effect, TIMEOUT, answer, budget=HOLD)


# ── lies that HTTP and JSON allow ────────────────────────────────────────────────────────────────────────────────────


def _json_of(text: str) -> Answer:
    return http(text.encode("utf-8", "surrogateescape"), headers=[("Connection", "close")])


BAD_JSON: Final[Mapping[str, Answer]] = {
    "no JSON": _json_of("<html>It works!</html>"),
    "an empty body": _json_of(""),
    "JSON that is cut": _json_of('{"ApiVersion": "1.41'),
    "a list": _json_of("[]"),
    "a number": _json_of("NaN"),
    "deep JSON": _json_of('{"a":' * 80_000),
    "invalid UTF-8": http(b'{"ApiVersion": "\xff\xfe"', headers=[("Connection", "close")]),
    "a number of 100,000 digits": _json_of('{"a": ' + "9" * 100_000 + "}"),
}


def _wide(value: bytes) -> Answer:
    """An answer with as many of these values as one may have."""
    return http(b'{"a": [' + (value + b",") * ((ANSWER_BYTES - 4096) // (len(value) + 1)) + b"0]}")


WIDE_JSON: Final[Mapping[str, Answer]] = {  # what takes the most memory for its bytes
    "as many lists as fit": _wide(b"[[]]"),
    "as many objects as fit": _wide(b'{"":0}'),
    "as many empty objects as fit": _wide(b"{}"),
    "a text that takes four bytes for each of its own": http(
        b'{"a": "' + "😀".encode() + b"a" * (ANSWER_BYTES - 4096) + b'"}'
    ),
}
HUGE_WORDS: Final = http(json.dumps({"message": EVIL * 15}).encode(), status=500, headers=[("Connection", "close")])


def _of_verify() -> Iterator[Case]:
    verify = partial(case, effect="verify")
    for name, answer in BAD_JSON.items():
        yield verify(name, code=NOT_DOCKER, answers=answer)
    for name, answer in WIDE_JSON.items():
        yield verify(name, code=NOT_DOCKER, answers=answer)
    for value in (
        '"1.41\\r\\nX"',
        "NaN",
        "Infinity",
        "-1e400",
        "true",
        "{}",
        '"１.４１"',
        '"1.9999"',
        '"1.41", "ApiVersion": 7',
    ):
        yield verify(f"ApiVersion {value}", code=NOT_DOCKER, answers=_json_of(f'{{"ApiVersion": {value}}}'))
    yield verify("a version that controls the terminal", code="", answers=version(Version=EVIL))
    yield verify("an operating system that is a list", code="endpoint-not-linux", answers=version(Os=["linux"]))
    yield verify("an API of the far future", code="endpoint-too-new", answers=version("1.999", MinAPIVersion="1.998"))
    yield verify("an API of the far past", code="endpoint-too-old", answers=version("1.0"))
    yield verify("404 everywhere", code=NOT_DOCKER, answers=dict.fromkeys(GOOD, NOT_FOUND))
    yield verify("403 with words that are not to be repeated", code="endpoint-forbidden", answers=refusal(403, EVIL))
    yield verify("500 with huge words", code="endpoint-failed", answers=HUGE_WORDS)


def _of_pulls() -> Iterator[Case]:
    find, pull = partial(case, effect="find image"), partial(case, effect="pull")
    for name, answer in {**BAD_JSON, **WIDE_JSON}.items():
        yield find(name, code="" if name in WIDE_JSON else NOT_DOCKER, answers=answer)
    yield find("an image that is no object", code=NOT_DOCKER, answers=of_json([{"Id": IMAGE_ID}]))
    yield find("404 everywhere", code=NOT_DOCKER, answers=dict.fromkeys(GOOD, NOT_FOUND))
    yield find("500 with huge words", code="endpoint-failed", answers=HUGE_WORDS)
    yield find("a version in the ping that is none", code=NOT_DOCKER,
               answers={"GET /_ping": ping("1.41; DROP"), "GET /version": version("9")})  # fmt: skip

    def endless(**progress: Any) -> Answer:
        """A pull that has joined and says this for ever."""
        line = chunk(json.dumps({**STARTED[2], **progress}).encode() + b"\n") * 100
        return pull_of(*STARTED, end=lambda connection: connection.flood(line))

    def changing(connection: Connection) -> None:
        count = 0
        while not connection.engine.stopping.is_set():
            count += 1
            detail = {"current": count % 7 * 10**6, "total": 10**9}
            connection.send(chunk(json.dumps({**STARTED[2], "progressDetail": detail}).encode() + b"\n") * 50)

    def many_layers(connection: Connection) -> None:
        numbers = iter(range(10**9))
        while not connection.engine.stopping.is_set():
            lines = [json.dumps({**STARTED[2], "id": f"{next(numbers):064x}"}) for _ in range(200)]
            connection.send(chunk("\n".join([*lines, ""]).encode()))

    stalled = {
        "progress that changes for ever": pull_of(*STARTED, end=changing),
        "silence after the first layer": pull_of(*STARTED, end=Connection.wait),
        "layers without an end": pull_of(*STARTED, end=many_layers),
        "trailers without an end": pull_of(*STARTED, end=then_flood(b"0\r\n", b"X-A: b\r\n" * 8000)),
    }
    for name, answer in stalled.items():
        yield pull(name, code="pull-stalled", answers=answer)
    sizes: dict[str, dict[str, Any]] = {
        "negative sizes": {"progressDetail": {"current": -5, "total": -7}},
        "sizes of 10^308": {"progressDetail": {"current": 1e308, "total": 10**308}},
        "sizes that are not numbers": {"progressDetail": {"current": float("nan"), "total": float("inf")}},
        "sizes that are words": {"progressDetail": {"current": "5", "total": True}},
        "details that are a list": {"progressDetail": [1, 2]},
        "a layer with an endless name": {"id": "x" * 50_000},
        "a layer whose name is a list": {"id": ["x"]},
        "a status that is a number": {"status": 7},
    }
    for name, entry in sizes.items():
        yield pull(name, code="pull-failed", answers=pull_of(*STARTED, {**STARTED[2], **entry}))
    streams: dict[str, tuple[Answer, str]] = {
        "a line without an end": (then_flood(CHUNKED, chunk(b"x" * 60_000)), NOT_DOCKER),
        "no JSON": (then_close(CHUNKED + chunk(b"not json\n")), NOT_DOCKER),
        "deep JSON": (then_close(CHUNKED + chunk(b"[" * 60_000 + b"\n")), NOT_DOCKER),
        "a list": (then_close(CHUNKED + chunk(b"[]\n")), NOT_DOCKER),
        "as many lists as a line can have": (
            then_close(CHUNKED + chunk(b'{"id":[' + b"[[]]," * 12_000 + b"0]}\n") + b"0\r\n\r\n"),
            "pull-failed",
        ),
        "a gzip bomb": BODIES["a gzip bomb"],
        "a chunk that is no number": (then_close(CHUNKED + b"zz\r\n"), HUNG_UP),
        "a negative chunk": (then_close(CHUNKED + b"-5\r\n{}\r\n"), HUNG_UP),
        "cut": (then_close(CHUNKED + chunk(b'{"status":"x"}\n')), HUNG_UP),
        "reset": (then_reset(CHUNKED + chunk(b'{"status":"x"}\n')), HUNG_UP),
        "an end without the image": (pull_of(*STARTED), "pull-failed"),
        "an error with control characters": (pull_of(*STARTED, {"error": EVIL}), "pull-failed"),
        "an error that is a list": (pull_of(*STARTED, {"error": [EVIL]}), "pull-failed"),
        "500 with huge words": (HUGE_WORDS, "pull-failed"),
        "404": (NOT_FOUND, "image-not-found"),
    }
    for name, (answer, code) in streams.items():
        yield pull(name, code=code, answers=answer)
    yield pull("layers that are named and never begun", code=TIMEOUT, budget=HOLD,
               answers=pull_of({"status": "Verifying"}, end=Connection.wait))  # fmt: skip


def _taken(existing: Answer, **more: Answer) -> dict[str, Answer]:
    return {
        CREATE: refusal(409, f'Conflict. The container name "/{OURS}" is already in use'),
        INSPECT: existing,
        **more,
    }


def _of_creation() -> Iterator[Case]:
    create = partial(case, effect="create")
    for name, answer in BAD_JSON.items():
        yield create(name, code="" if name in ("a list", "a number") else NOT_DOCKER, answers=answer)
    for name, answer in WIDE_JSON.items():
        yield create(name, code="", answers=answer)
    for identity in ("../../images/json?all=1#", EVIL, 7, None, ["x"], "0" * 64):
        yield create(
            f"the id {identity!r:.20}", code="", answers=of_json({"Id": identity, "Warnings": EVIL}, status=201)
        )
    folders = (7, ["/"], "", "relative", "/", "/a/../../etc", EVIL, "/" + "x" * 300_000)
    for folder in folders:
        config = {**OF_IMAGE, "WorkingDir": folder}
        yield create(f"the work folder {folder!r:.20}", code="", answers={IMAGE_INFO: of_json({"Config": config})})
    for user in ("9" * 5000, "-1", "0:0:0", EVIL, 7, ["root"], "１０００", "1000:" + "9" * 30):
        config = {**OF_IMAGE, "User": user}
        yield create(f"the user {user!r:.20}", code="", answers={IMAGE_INFO: of_json({"Config": config})})
    yield create("an image that has gone", code="image-not-found", answers={IMAGE_INFO: NOT_FOUND})
    yield create("its own container, there already", code="", answers=_taken(inspected()))
    yield create("another owner's container", code="container-conflict",
                 answers=_taken(inspected(labels={"homeport.session": "0" * 20})))  # fmt: skip
    yield create("another hub's container", code="container-conflict",
                 answers=_taken(inspected(labels={"homeport.hub": "other"})))  # fmt: skip
    yield create(
        "labels that are a list", code="container-conflict", answers=_taken(of_json({"Config": {"Labels": []}}))
    )
    yield create("a container to replace, whose id is a path", code=NOT_DOCKER,
                 answers=_taken(inspected(Id="../volumes/prune", config={"User": "root"})))  # fmt: skip
    yield create("a name that is always taken, and nobody's", code=TIMEOUT, budget=HOLD, answers=_taken(NOT_FOUND))
    replaced = _taken(inspected(config={"User": "root"}))
    never_gone = {**replaced, f"GET /containers/{CONTAINER_ID}/json": inspected()}
    yield create("a container to replace, which never goes", code=TIMEOUT, budget=HOLD, answers=never_gone)
    yield create("a container to replace, again and again", code=TIMEOUT, budget=HOLD, answers=replaced)
    yield create("files that are refused with huge words", code="endpoint-failed", answers={ARCHIVE: HUGE_WORDS})
    yield create("files that are sent elsewhere", code=REDIRECTED, answers={ARCHIVE: moved(307)})
    yield create("files that nobody reads", code=TIMEOUT, budget=HOLD, answers={ARCHIVE: Connection.wait})
    yield create("a container that cannot be inspected", code=NOT_DOCKER, answers={INSPECT: http(b"[]")})


PORTS: Final[tuple[object, ...]] = (
    0,
    22,
    80,
    1023,
    65536,
    -1,
    8888.0,
    True,
    "80",
    "-8888",
    "0x22b8",
    "８８８８",
    "8888\n",
    "1e4",
    "9" * 20,
    None,
    [],
    {},
    10**30,
)


def _of_start() -> Iterator[Case]:
    start = partial(case, effect="start")
    for port in PORTS:
        answer = inspected(**ports({"HostIp": LOOPBACK, "HostPort": port}))
        yield start(f"the port {port!r:.20}", code=NOT_DOCKER, answers={INSPECT: answer})
    elsewhere = inspected(**ports({"HostIp": "169.254.169.254", "HostPort": "32768"}),
                          Node={"IP": "169.254.169.254", "Addr": "169.254.169.254:2376"})  # fmt: skip
    yield start("a node that is the metadata service", code="node-forbidden", answers={INSPECT: elsewhere})
    yield start("ports that are a list", code="endpoint-failed", answers={INSPECT: inspected(NetworkSettings=[])})
    yield start("another container's name", code="",
                answers={INSPECT: inspected(Name="/production-database", Id="ef" * 32, **RUNNING)})  # fmt: skip
    yield start("400 with huge words", code="start-failed", answers=refusal(400, EVIL))
    yield start("500 with huge words", code="start-failed", answers=HUGE_WORDS)
    yield start("404", code="container-missing", answers=NOT_FOUND)
    tails: dict[str, Answer] = {
        "controls the terminal": http(frame(EVIL.encode() * 20)),
        "is frames of nothing": http(frame(b"") * ((ANSWER_BYTES - 4096) // 8)),
        "is frames of a byte": http(frame(b"x") * ((ANSWER_BYTES - 4096) // 9)),
        "is lines of nothing": http(b"\n" * (ANSWER_BYTES - 4096)),
        "has a frame without an end": http(b"\1\0\0\0\xff\xff\xff\xff" + b"x" * 1000),
        "is no text": http(bytes(range(256)) * 1000),
    }
    for name, log in tails.items():
        yield start(f"a notebook that ended, whose log {name}", code="notebook-exited",
                    answers={INSPECT: inspected(**EXITED), LOGS: log})  # fmt: skip
    ended = inspected(**EXITED)
    yield start(
        "a log without an end",
        code="notebook-exited",
        answers={INSPECT: ended, LOGS: BODIES["chunks without an end"][0]},
    )
    yield start("a log that never comes", code=TIMEOUT, budget=HOLD, answers={INSPECT: ended, LOGS: Connection.wait})


def _of_notebooks() -> Iterator[Case]:
    probe, look = partial(case, effect="probe"), partial(case, effect="look")
    for name, answer in {**BAD_JSON, **WIDE_JSON, "a gzip bomb": BODIES["a gzip bomb"][0]}.items():
        yield look(f"a status that is {name}", code="", answers=answer)
    for word in ("NaN", "1e400", "[]", '"9999-12-31T23:59:59Z"', '"' + "9" * 3000 + '"', '"\\u0000"', "null"):
        said = _json_of('{"kernels": 0, "last_activity": ' + word + "}")
        yield look(f"the last activity {word:.20}", code="", answers=said)
    yield look(
        "a body a byte at a time", code=OF_A_NOTEBOOK, budget=HOLD, answers=HELD_BODIES["a body a byte at a time"]
    )
    for status in (204, 302, 401, 404, 503):
        yield probe(
            f"status {status}", code=OF_A_NOTEBOOK, answers=http(status=status, headers=[("Location", ELSEWHERE)])
        )
    yield probe("an answer without an end", code="", answers=BODIES["chunks without an end"][0])
    strangers: dict[str, tuple[Callable[[], Leaf], str]] = {
        "another launch's certificate": (lambda: notebook_leaf("0" * 20), "notebook-wrong-certificate"),
        "another CA's certificate": (
            lambda: Ca.new().issue("x", sans=(f"{a_session().host}.notebook.internal",), server=True),
            "notebook-wrong-certificate",
        ),
        "a certificate without a name": (
            lambda: Ca(a_lasting_trust().notebook_ca.certificate, a_lasting_trust().notebook_ca.key).issue("x"),
            "notebook-wrong-certificate",
        ),
    }
    for name, (leaf, code) in strangers.items():

        def loads(context: ssl.SSLContext, leaf: Callable[[], Leaf] = leaf) -> None:
            load_leaf(context, leaf())

        yield probe(name, code=code, answers={}, notebook_server={"tls": loads})
    for name, greet in GREETINGS.items():
        code = "notebook-not-tls" if name == "no TLS" else OF_A_NOTEBOOK
        yield probe(name, code=code, answers={}, notebook_server={"greet": greet})
    yield probe("silence, and its container has ended", code="notebook-exited",
                answers={NOTEBOOK: then_close(b""), INSPECT: inspected(**EXITED), LOGS: HUGE_WORDS})  # fmt: skip
    yield probe("silence, and its engine's too", code=TIMEOUT, budget=HOLD,
                answers={NOTEBOOK: then_close(b""), INSPECT: Connection.wait})  # fmt: skip


def _of_a_ready_notebook() -> Iterator[Case]:
    inspect = partial(case, effect="inspect")
    for name, answer in BAD_JSON.items():
        yield inspect(name, code=NOT_DOCKER, answers=answer)
    for name, answer in WIDE_JSON.items():
        yield inspect(name, code="notebook-exited", answers={INSPECT: answer, LOGS: http()})
    states: dict[str, object] = {
        "a list": [], "a word": "running", "true": {"Running": "true"}, "numbers": {"Running": 1, "ExitCode": 1.5},
        "an exit code of a thousand digits": {"Running": False, "ExitCode": 10**1000, "Status": EVIL},
        "nothing": None,
    }  # fmt: skip
    for name, state in states.items():
        yield inspect(
            f"a state that is {name}",
            code="notebook-exited",
            answers={INSPECT: inspected(State=state), LOGS: http(EVIL.encode())},
        )
    yield inspect("no container", code="container-removed", answers=NOT_FOUND)
    yield inspect("404 everywhere", code=NOT_DOCKER, answers=dict.fromkeys(GOOD, NOT_FOUND))
    yield inspect("500 with huge words", code="endpoint-failed", answers=HUGE_WORDS)
    yield inspect(
        "out of memory by a number",
        code="",
        answers={INSPECT: inspected(state={"Running": False, "OOMKilled": 10**400}), LOGS: http()},
    )


def _of_removal() -> Iterator[Case]:
    remove, sweep = partial(case, effect="remove"), partial(case, effect="sweep")
    of_others: dict[str, dict[str, Any]] = {
        "another session's": {"homeport.session": "0" * 20},
        "another launch's": {"homeport.generation": "2"},
        "another hub's": {"homeport.hub": "other"},
        "nobody's": {"homeport.hub": None},
    }
    for name, labels in of_others.items():
        yield remove(
            f"a container with {name} labels", code="container-conflict", answers={INSPECT: inspected(labels=labels)}
        )
    for identity in ("../volumes/prune", "", None, 7, ["x"], "AB" * 32, "ab" * 33, EVIL):
        yield remove(f"the id {identity!r:.20}", code=NOT_DOCKER, answers={INSPECT: inspected(Id=identity)})
    for name, answer in BAD_JSON.items():
        yield remove(f"a container that is {name}", code=NOT_DOCKER, answers={INSPECT: answer})
    yield remove(
        "a container that never goes",
        code=TIMEOUT,
        budget=HOLD,
        answers={f"GET /containers/{CONTAINER_ID}/json": inspected()},
    )
    yield remove("500 with huge words", code="endpoint-failed", answers=HUGE_WORDS)
    yield remove("a stop that never ends", code=TIMEOUT, budget=HOLD, answers={STOP: Connection.wait})
    yield remove("a stop that is refused with huge words", code="", answers={STOP: HUGE_WORDS})
    sid = a_session(name="past-2").sid
    left = listed(
        labels={"homeport.session": sid, "homeport.generation": "1", "homeport.owner": OWNER},
        Names=[f"/homeport-{sid}-1"],
    )
    name = f"GET /containers/homeport-{sid}-1/json"
    lists: dict[str, dict[str, Answer]] = {
        **{name: {LIST: answer} for name, answer in {**BAD_JSON, **WIDE_JSON}.items()},
        "a thousand of what is left": {LIST: of_json([left] * 1000)},
        "labels of another type": {LIST: of_json([{**left, "Labels": [7]}, {**left, "Names": 7}, 7, None])},
        "what is left, of another owner": {LIST: of_json([left]), name: inspected(labels={"homeport.hub": "other"})},
        "what is left, and its id a path": {LIST: of_json([left]), name: inspected(Id="../prune")},
        "what is left, and 500 with huge words": {LIST: of_json([left]), name: HUGE_WORDS},
    }
    for kind, answers in lists.items():
        yield sweep(kind, code="", answers=answers)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _after_hello(act: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def greet(peer: socket.socket) -> None:
        peer.recv(65536)
        act(peer)

    return greet


def _reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


GREETINGS: Final[Mapping[str, Callable[[socket.socket], None]]] = {
    "closed at once": lambda peer: None,
    "closed after the hello": _after_hello(lambda peer: None),
    "reset after the hello": _after_hello(_reset),
    "half a record": _after_hello(lambda peer: peer.sendall(b"\x16\x03\x03\x40\x00" + b"x" * 100)),
    "no TLS": _after_hello(lambda peer: peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nthis is no TLS")),
    "a record of nothing": _after_hello(lambda peer: peer.sendall(b"\x16\x03\x03\x00\x00" * 1000)),
}
GREETED: Final = {"no TLS": "endpoint-not-tls", "a record of nothing": "endpoint-tls"}
LEAVES: Final[Mapping[str, tuple[Callable[[Ca], Leaf], str]]] = {
    "an expired certificate": (
        lambda ca: ca.issue("e", sans=(LOOPBACK,), server=True, not_before=LONG_AGO[0], not_after=LONG_AGO[1]),
        "endpoint-expired-certificate",
    ),
    "a certificate of the future": (
        lambda ca: ca.issue("e", sans=(LOOPBACK,), server=True, not_before=FAR_AHEAD[0], not_after=FAR_AHEAD[1]),
        "endpoint-expired-certificate",
    ),
    "another CA": (lambda _: Ca.new().issue("e", sans=(LOOPBACK,), server=True), "endpoint-wrong-certificate"),
    "another name": (lambda ca: ca.issue("e", sans=("other.example",), server=True), "endpoint-wrong-name"),
    "a name in the subject alone": (
        lambda ca: ca.issue(LOOPBACK, sans=("other.example",), server=True),
        "endpoint-wrong-name",
    ),
}


def _silent_handshake(peer: socket.socket) -> None:
    peer.recv(65536)
    peer.recv(65536)  # until the client hangs up


def _many_tickets(context: ssl.SSLContext) -> None:
    context.num_tickets = 20_000


def _of_tls() -> Iterator[Case]:
    for effect in ("verify", "create", "inspect", "remove"):
        of = partial(case, effect=effect, answers={})
        for name, (leaf, code) in LEAVES.items():
            yield of(name, code=code, pki=partial(Pki.new, leaf))
        for name, greet in GREETINGS.items():
            yield of(name, code=GREETED.get(name, HUNG_UP), server={"greet": greet})
        yield of("silence in the handshake", code=TIMEOUT, budget=HOLD, server={"greet": _silent_handshake})
        yield of("a client certificate that is refused", code="client-certificate-rejected",
                 server={"client_ca": Ca.new("Another").certificate})  # fmt: skip
    yield case(
        "twenty thousand session tickets",
        "verify",
        TIMEOUT,
        Connection.wait,
        budget=HOLD,
        server={"tls": _many_tickets},
    )


CASES: Final[Mapping[str, Case]] = {
    found.name: found
    for part in (
        _everywhere, _held, _of_verify, _of_pulls, _of_creation, _of_start, _of_notebooks, _of_a_ready_notebook,
        _of_removal, _of_tls,
    )
    for found in part()
}  # fmt: skip
