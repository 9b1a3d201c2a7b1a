"""A key goes through the whole of Homeport, on real parts, and leaves no byte of itself anywhere.

One notebook lives its whole life (upload, ready, entered, a request, credentials forgotten, the key shown again,
stopped) and several launches fail, while strace watches the launcher's process and the web function's. Then everything
is searched, in every spelling of `tests/secrets_seen.py`: logs, items, messages, answers, stored objects, environments
and command lines, files, the containers as the engine describes them, and whatever the two processes wrote anywhere.

Searched for are the visitors' keys, and those keys of the hub's own that only the launcher may know. Not searched is
what is the visitor's own side here: the folder of the local endpoint, and the bundle's file.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from urllib3.filepost import encode_multipart_formdata

from local import demo
from local.demo import Notebook
from local.processes import LOOPBACK, free_port, wait_until
from local.run import Running, Stack
from tests.bundles import go_zip
from tests.certificates import Ca
from tests.secrets_seen import Canary, canary_of_bundle
from tests.straced import Call, calls_of, options, traced, written

DEADLINE = 90.0  # seconds
CERTIFICATES = "/homeport/local"
BOUNDARY = "----canary"

# What the launcher's process may open for writing or make, and why.
LAUNCHER_MAY_MAKE: Mapping[str, str] = {
    r"/dev/null": "holds nothing",
    r".*/__pycache__(/[^/]+\.pyc(\.\d+)?)?": "Python's own copies of modules; a deployed function has none",
}
WEB_FUNCTION_MAY_MAKE = LAUNCHER_MAY_MAKE


@dataclass
class Evidence:
    """All that was seen, by place; what happened, by the life's name; and what strace saw, by process."""

    canary: Canary = field(repr=False)
    places: dict[str, bytes] = field(default_factory=dict, repr=False)
    outcomes: dict[str, str] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict, repr=False)

    def add(self, place: str, data: bytes | str) -> None:
        number = sum(name.startswith(f"{place} #") for name in self.places)
        self.places[f"{place} #{number}"] = data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")

    def of(self, kind: str) -> dict[str, bytes]:
        return {place: data for place, data in self.places.items() if place.startswith(kind)}


# ── the lives ────────────────────────────────────────────────────────────────────────────────────────────────────


class Visitor:
    """A visitor, every answer to whom is kept."""

    def __init__(self, stack: Stack, evidence: Evidence) -> None:
        self.stack = stack
        self.evidence = evidence
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Accept"] = "application/json"
        self.http.hooks["response"].append(self._keep)

    def _keep(self, answer: requests.Response, **_: Any) -> None:
        head = f"{answer.status_code} {answer.reason}\n{answer.headers!r}\n".encode()
        self.evidence.add("answer of the hub", head + answer.content)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.http.get(f"{self.stack.hub_address}{path}", timeout=60, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.http.post(f"{self.stack.hub_address}{path}", timeout=60, **options)

    def session(self, sid: str) -> dict[str, Any]:
        answer = self.get(f"/sessions/{sid}")
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def stop(self, sid: str) -> None:
        assert self.http.delete(f"{self.stack.hub_address}/sessions/{sid}", timeout=60).ok

    def upload(self, bundle: bytes, path: str = "/sessions", **fields: str) -> dict[str, Any]:
        answer = self.post(path, files={"credentials": ("bundle.zip", bundle)}, data=fields)
        found: dict[str, Any] = answer.json()
        if "owner_token" in found:
            self.http.headers["Authorization"] = f"Bearer {found['owner_token']}"
        return found

    def follow(self, sid: str, until: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found.append(self.session(sid))
            return bool(until(found[-1]))

        wait_until(look, what="what a session was to become", deadline=DEADLINE)
        return found[-1]

    def see_pages(self, sid: str) -> None:
        for path in ("/", "/sessions", f"/sessions/{sid}"):
            self.get(path, headers={"Accept": "text/html"})
        self.get(f"/sessions/{sid}/events")

    def enter(self, sid: str) -> None:
        entry = self.post(f"/sessions/{sid}/enter", json={}).json()
        notebook = demo.enter(self.stack.hub_url, entry, self.stack.proxy_port)
        stranger = Notebook(notebook.port, notebook.host)
        for asking, path in ((notebook, "/api/status"), (notebook, "/lab"), (stranger, "/lab")):
            status, headers, body = asking.request("GET", path)
            self.evidence.add("answer of the proxy", f"{status}\n{headers.items()!r}\n".encode() + body)


def a_whole_life(visitor: Visitor, bundle: bytes, look: Callable[[str], None]) -> None:
    outcomes = visitor.evidence.outcomes
    visitor.upload(bundle, "/bundles")
    sid = visitor.upload(bundle, name="canary")["id"]
    ready = visitor.follow(sid, lambda session: session["state"] in ("ready", "stopped"))
    outcomes["launch"] = ready["state"]
    visitor.see_pages(sid)
    visitor.enter(sid)
    look(ready["container"])
    visitor.post(f"/sessions/{sid}/forget", json={})
    forgotten = visitor.follow(sid, lambda session: not session["credentials_held"])
    outcomes["forget"] = forgotten["state"]
    visitor.upload(bundle, name="canary")
    visitor.stop(sid)
    outcomes["stop"] = visitor.follow(sid, lambda session: session["state"] == "stopped")["state"]


def a_failed_launch(visitor: Visitor, what: str, bundle: bytes, **fields: str) -> None:
    """Launch, wait for the trouble or the end, have it stopped, and keep why it failed."""
    session = visitor.upload(bundle, name=what, **fields)
    sid, begun = session["id"], session["message"]
    session = visitor.follow(sid, lambda found: found["state"] == "stopped" or "refused" in found["message"])
    visitor.see_pages(sid)
    visitor.evidence.outcomes[what] = (session["error"] or {"code": session["message"]})["code"]
    if session["state"] != "stopped":
        visitor.stop(sid)
        visitor.follow(sid, lambda found: found["state"] == "stopped")
    assert begun


def an_upload_cut_off(visitor: Visitor, bundle: bytes) -> None:
    """Announce a whole form, send the greater part of it, and hang up."""
    body, content_type = encode_multipart_formdata({"credentials": ("bundle.zip", bundle)}, boundary=BOUNDARY)
    head = (
        f"POST /sessions HTTP/1.1\r\nHost: hub\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((LOOPBACK, visitor.stack.hub_port), 30) as connection:
        connection.sendall(head.encode() + body[:-200])
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    visitor.evidence.add("answer to an upload cut off", answer)
    visitor.evidence.outcomes["upload cut off"] = visitor.upload(bundle[:-200], name="cut")["code"]
    visitor.evidence.outcomes["junk"] = visitor.upload(_member(bundle, "key.pem"), name="junk")["code"]


# ── the visitors' side ───────────────────────────────────────────────────────────────────────────────────────────


def _member(bundle: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return next(archive.read(info) for info in archive.infolist() if info.filename.endswith(f"/{name}"))


def stranger_at(url: str, *, more_trust: bytes = b"") -> bytes:
    """A bundle of certificates that no endpoint here has heard of; `more_trust` goes into its ca.pem."""
    ca = Ca.new("Another CA")
    leaf = ca.issue("stranger", client=True)
    files: dict[str, bytes | str] = {
        "ca.pem": ca.certificate + more_trust,
        "cert.pem": leaf.certificate,
        "key.pem": leaf.key,
        "docker.env": f"export DOCKER_HOST={url}\n",
    }
    return go_zip({f"strange/{name}": content for name, content in files.items()})


class _EmptyRegistry(BaseHTTPRequestHandler):
    """A registry without images."""

    def do_GET(self) -> None:
        found = self.path == "/v2/"
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        body = b"{}" if found else json.dumps(error).encode()
        self.send_response(200 if found else 404)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def an_empty_registry() -> Iterator[str]:
    server = ThreadingHTTPServer((LOOPBACK, 0), _EmptyRegistry)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def a_dying_image(engine: docker.DockerClient, image: str) -> Iterator[str]:
    """The notebook image, with a program in it that says a word and ends."""
    container = engine.containers.create(image)
    name = f"homeport-canary-{free_port()}:dying"
    try:
        changes = ['ENTRYPOINT ["sh", "-c", "echo I cannot go on >&2; exit 3"]']
        container.commit(*name.split(":"), changes=changes)
    finally:
        container.remove()
    try:
        yield name
    finally:
        engine.images.remove(name, force=True)


# ── the collection ───────────────────────────────────────────────────────────────────────────────────────────────


def collect_container(evidence: Evidence, engine: docker.DockerClient, name: str) -> None:
    container = engine.containers.get(name)
    evidence.add("container's description", json.dumps(container.attrs))
    evidence.add("container's labels", json.dumps(container.labels))
    evidence.add("container's output", container.logs())
    evidence.add("container's changed paths", json.dumps(container.diff()))
    stream = io.BytesIO(b"".join(container.get_archive("/opt/homeport")[0]))
    with tarfile.open(fileobj=stream) as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            file = archive.extractfile(member)
            assert file is not None
            evidence.add("container's injected file", file.read())
    for process in container.top()["Processes"]:
        collect_process(evidence, int(process[1]))


def collect_process(evidence: Evidence, pid: int) -> None:
    folder = Path(f"/proc/{pid}")
    try:
        command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    if not command.startswith(b"strace\0"):
        evidence.add("command line", command)
        evidence.add("environment", environment)


def collect_aws(evidence: Evidence, stack: Stack) -> None:
    cloud = stack.cloud
    s3, dynamodb, sqs = (cloud.client(name) for name in ("s3", "dynamodb", "sqs"))
    for page in dynamodb.get_paginator("scan").paginate(TableName=stack.table):
        for item in page["Items"]:
            evidence.add("item", repr(item))
    for version in s3.list_object_versions(Bucket=stack.bucket).get("Versions", []):
        stored = s3.get_object(Bucket=stack.bucket, Key=version["Key"], VersionId=version["VersionId"])
        evidence.add("object", stored["Body"].read())
        evidence.add("object's headers", repr(stored["ResponseMetadata"]["HTTPHeaders"]) + version["Key"])
    for url in sqs.list_queues()["QueueUrls"]:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=0)
        evidence.add("queue", url + repr(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]))
        for message in found.get("Messages", []):
            evidence.add("message", repr(message))


def collect_files(evidence: Evidence, state: Path, bundle: Path) -> None:
    for path in sorted(state.rglob("*")):
        if path.is_file() and path != bundle and state / "endpoint" not in path.parents:
            kind = "log" if path.suffix == ".log" else "file"
            evidence.add(f"{kind} {path.relative_to(state)}", path.read_bytes())
            evidence.add("name of a file", str(path))


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def hubs_own_keys(stack: Stack) -> list[bytes]:
    """The keys that only the launcher may read: what signs notebooks' certificates, and what it shows itself."""
    ssm = stack.cloud.client("ssm")
    names = [
        parameter["Name"]
        for page in ssm.get_paginator("describe_parameters").paginate()
        for parameter in page["Parameters"]
    ]
    wanted = [name for name in names if name.endswith(("/notebook-ca", "/launcher-client"))]
    assert len(wanted) == 2
    values = (ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"] for name in wanted)
    return [json.loads(value)["key"].encode() for value in values]


@pytest.fixture(scope="module")
def evidence(running_stack: Running, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Live all the lives under strace, and collect."""
    stack, folder = running_stack.stack, tmp_path_factory.mktemp("strace")
    bundle = Path(stack.bundle).read_bytes()
    url = re.search(rb"tcp://[0-9.:]+", _member(bundle, "docker.env"))
    assert url is not None
    bundles = {
        "nothing listens": stranger_at(f"tcp://{LOOPBACK}:{free_port()}"),
        "wrong endpoint": stranger_at(url[0].decode()),
        "refuses the certificate": stranger_at(url[0].decode(), more_trust=_member(bundle, "ca.pem")),
    }
    canaries = [canary_of_bundle(one) for one in (bundle, *bundles.values())]
    canary = Canary(tuple(piece for one in (*canaries, Canary.of(*hubs_own_keys(stack))) for piece in one.pieces))
    found = Evidence(canary)
    pids = {child.name: child.pid for child in running_stack.children if child.name in ("hub", "pump")}
    with (
        closing(docker.DockerClient(base_url=stack.engine_url)) as engine,
        a_dying_image(engine, stack.image) as dying,
        an_empty_registry() as registry,
    ):

        def look(container: str) -> None:
            collect_container(found, engine, container)
            collect_aws(found, stack)
            for pid in descendants(os.getpid()):
                collect_process(found, pid)

        with traced(pids, folder):
            a_whole_life(Visitor(stack, found), bundle, look)
            for what, bad in bundles.items():
                a_failed_launch(Visitor(stack, found), what, bad)
            a_failed_launch(Visitor(stack, found), "no image", bundle, image=f"{registry}/nothing/here:1")
            a_failed_launch(Visitor(stack, found), "exits", bundle, image=dying)
            an_upload_cut_off(Visitor(stack, found), bundle)
        found.calls = {name: calls_of(folder / f"{name}.strace") for name in pids}
        collect_aws(found, stack)
        collect_files(found, Path(stack.bundle).parent, Path(stack.bundle))
    return found


# ── what must be so ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_life_was_lived_and_every_launch_that_was_to_fail_failed(evidence: Evidence) -> None:
    assert evidence.outcomes == {
        "launch": "ready",
        "forget": "ready",
        "stop": "stopped",
        "nothing listens": evidence.outcomes["nothing listens"],
        "wrong endpoint": "endpoint-wrong-certificate",
        "refuses the certificate": "client-certificate-rejected",
        "no image": "image-not-found",
        "exits": "notebook-exited",
        "upload cut off": evidence.outcomes["upload cut off"],
        "junk": "not-an-archive",
    }
    assert "refused" in evidence.outcomes["nothing listens"]


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("answer", 40),
        ("item", 10),
        ("object", 2),
        ("queue", 2),
        ("log", 5),
        ("file", 3),
        ("name of a file", 8),
        ("environment", 6),
        ("command line", 6),
        ("container's", 6),
    ],
)
def test_no_key_byte_is_in_any(evidence: Evidence, kind: str, least: int) -> None:
    seen = evidence.of(kind)
    assert len(seen) >= least, f"too little was looked at: {sorted(seen)}"
    assert any(seen.values())
    assert evidence.canary.places(seen) == {}


def test_no_key_byte_is_in_any_place_whatever(evidence: Evidence) -> None:
    assert evidence.canary.places(evidence.places) == {}


@pytest.mark.parametrize(("process", "allowed"), [("pump", LAUNCHER_MAY_MAKE), ("hub", WEB_FUNCTION_MAY_MAKE)])
def test_neither_the_launcher_nor_the_web_function_makes_a_file(
    evidence: Evidence, process: str, allowed: Mapping[str, str]
) -> None:
    made = {call.path for call in evidence.calls[process] if call.makes_a_file}
    assert not {path for path in made if not any(re.fullmatch(pattern, path) for pattern in allowed)}
    assert not [call for call in evidence.calls[process] if call.name in ("execve", "execveat", "io_uring_setup")]


@pytest.mark.parametrize("process", ["pump", "hub"])
def test_a_key_is_written_to_memory_alone(evidence: Evidence, process: str) -> None:
    """To no file, pipe or socket: what goes to the embedded AWS, as messages and items do, is plain HTTP here."""
    calls = evidence.calls[process]
    assert len(calls) > 50
    outside = written([call for call in calls if not call.in_memory])
    assert any(place.startswith("socket:") for place in outside)
    assert evidence.canary.places(outside) == {}
    files = {call.descriptor for call in calls if call.to_a_file and call.name != "sendfile"}
    assert {path for path in files if not re.search(rf"/logs/{process}\.log$|/__pycache__/", path)} == set()


def test_the_detector_sees_the_key_where_it_must_be(evidence: Evidence) -> None:
    """OpenSSL is handed keys through memory, and the trace shows it: so it would show a file as well."""
    in_memory = written([call for call in evidence.calls["pump"] if call.in_memory])
    assert evidence.canary.places(in_memory)
    assert not [call for call in evidence.calls["hub"] if call.in_memory or call.name == "memfd_create"]


def test_the_detector_sees_a_key_that_a_process_writes(tmp_path: Path) -> None:
    bundle = stranger_at("tcp://203.0.113.7:2376")
    (tmp_path / "key.pem").write_bytes(_member(bundle, "key.pem"))
    code = "import sys, base64; key = open('key.pem', 'rb').read(); open('leak', 'wb').write(base64.b64encode(key))"
    trace = tmp_path / "trace"
    try:
        command = ["strace", *options(trace), sys.executable, "-c", code]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs `apt-get install strace`")
    calls = calls_of(trace)
    assert "leak" in {call.path for call in calls if call.makes_a_file}
    assert list(canary_of_bundle(bundle).places(written(calls))) == [str(tmp_path / "leak")]
