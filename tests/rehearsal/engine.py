"""A Docker Engine in memory, behind a unix socket, whose notebooks answer over mutual TLS as their launch says.

It speaks what Homeport and tests/chaos/rig.py ask of an engine, and keeps containers, volumes and images in
dictionaries: a launch costs it milliseconds. `pulls_go_on` is the gate that every pull waits at, half of it done.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import socket
import ssl
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from chalicelib.notebook.helpers import TASK
from chalicelib.repository.answers import MARK
from local.engine import Engine
from tests.real_parts import BUILDER_IMAGE

VERSION: Final = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux"}
LOOPBACK: Final = "127.0.0.1"
_FOLDER: Final = "opt/homeport"
_ROUTES: Final = (
    ("GET", r"/_ping", "ping"),
    ("GET", r"/version", "version"),
    ("GET", r"/info", "info"),
    ("GET", r"/events", "events"),
    ("GET", r"/images/(.+)/json", "inspect_image"),
    ("POST", r"/images/create", "create_image"),
    ("DELETE", r"/images/(.+)", "remove_image"),
    ("POST", r"/commit", "commit"),
    ("GET", r"/containers/json", "list_containers"),
    ("POST", r"/containers/create", "create"),
    ("GET", r"/containers/([^/]+)/json", "inspect"),
    ("GET", r"/containers/([^/]+)/logs", "logs"),
    ("PUT", r"/containers/([^/]+)/archive", "put_files"),
    ("POST", r"/containers/([^/]+)/start", "start"),
    ("POST", r"/containers/([^/]+)/stop", "stop"),
    ("DELETE", r"/containers/([^/]+)", "remove"),
    ("POST", r"/volumes/create", "create_volume"),
    ("GET", r"/volumes/([^/]+)", "inspect_volume"),
    ("DELETE", r"/volumes/([^/]+)", "remove_volume"),
)


class Refused(Exception):
    """The engine refuses, with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Notebook:
    """What listens in a container: it answers every request of whoever shows a certificate of the hub's client CA."""

    def __init__(self, folder: Path, files: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(files)) as tar:
            pem, client_ca = (_content(tar, f"{_FOLDER}/{name}") for name in ("notebook.pem", "client-ca.pem"))
        path = folder / f"{secrets.token_hex(8)}.pem"
        path.write_bytes(pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(path)
        path.unlink()
        self._context.load_verify_locations(cadata=client_ca.decode())
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), peer:
                peer.settimeout(5)
                with self._context.wrap_socket(peer, server_side=True) as visitor:
                    heard = b""
                    while b"\r\n\r\n" not in heard and (more := visitor.recv(4096)):
                        heard += more
                    visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


@dataclass
class Container:
    """A container as it was asked for, and how it is."""

    name: str
    body: dict[str, Any]
    image: str
    identity: str = field(default_factory=lambda: secrets.token_hex(32))
    files: bytes = b""
    status: str = "created"
    started_at: int = 0
    notebook: Notebook | None = None
    log: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return self.body.get("Labels") or {}

    @property
    def mounts(self) -> list[dict[str, Any]]:
        return self.body["HostConfig"].get("Mounts") or []


class MemoryEngine:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: dict[str, dict[str, Any]] = {}
        self._add_image(BUILDER_IMAGE, {})
        self.containers: dict[str, Container] = {}
        self.volumes: dict[str, dict[str, str]] = {}
        self.happened: list[dict[str, Any]] = []
        self.changed = threading.Condition(threading.RLock())
        self.pulls_go_on = threading.Event()
        self.pulls_go_on.set()
        self.ended = False

    def close(self) -> None:
        """End all that waits for something, and all notebooks."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        self.pulls_go_on.set()
        for container in self.containers.values():
            _end(container)

    # ── the engine ──

    def ping(self, query: dict[str, str], body: bytes) -> Any:
        return "OK"

    def version(self, query: dict[str, str], body: bytes) -> Any:
        return VERSION

    def info(self, query: dict[str, str], body: bytes) -> Any:
        return {"ID": "memory", "NCPU": 4, "MemTotal": 8 << 30}

    def events(self, query: dict[str, str], body: bytes) -> Iterator[dict[str, Any]]:
        return self._events_after(len(self.happened))

    def _events_after(self, told: int) -> Iterator[dict[str, Any]]:
        while not self.ended:
            with self.changed:
                if len(self.happened) == told:
                    self.changed.wait(0.5)
                news, told = self.happened[told:], len(self.happened)
            yield from news

    def _happens(self, kind: str, action: str, name: str) -> None:
        labels = self.containers[name].labels if kind == "container" else {}
        actor = {"ID": name, "Attributes": {"name": name, **labels}}
        self.happened.append({"Type": kind, "Action": action, "Actor": actor, "timeNano": time.time_ns()})
        self.changed.notify_all()

    # ── images ──

    def inspect_image(self, query: dict[str, str], body: bytes, name: str) -> Any:
        for known, image in self.images.items():
            if name in (known, image["Id"]):
                return image
        raise Refused(404, f"No such image: {name}")

    def create_image(self, query: dict[str, str], body: bytes) -> Any:
        name = f"{query.get('fromImage') or query['repo']}:{query['tag']}"
        if "fromImage" in query:
            return self._pull(name)
        self._add_image(name, {})
        return {"status": "imported"}

    def commit(self, query: dict[str, str], body: bytes) -> Any:
        assert self._found(query["container"]).status == "running"
        labels = dict(re.findall(r'^LABEL (\S+)="(.*)"$', query["changes"], re.MULTILINE))
        return {"Id": self._add_image(f"{query['repo']}:{query['tag']}", labels)}

    def _add_image(self, name: str, labels: dict[str, str]) -> str:
        identity = f"sha256:{secrets.token_hex(32)}"
        config = {"WorkingDir": "/work", "User": "1000", "Labels": labels}
        self.images[name] = {"Id": identity, "Config": config, "Size": 1000}
        return identity

    def _pull(self, name: str) -> Iterator[dict[str, Any]]:
        halfway = {"status": "Downloading", "progressDetail": {"current": 50, "total": 100}, "id": "0123456789ab"}
        yield {"status": "Pulling fs layer", "id": "0123456789ab"}
        while not self.pulls_go_on.is_set():
            yield halfway
            self.pulls_go_on.wait(0.1)
        yield {"status": "Pull complete", "id": "0123456789ab"}
        self._add_image(name, {})
        yield {"status": f"Status: Downloaded newer image for {name}"}

    def remove_image(self, query: dict[str, str], body: bytes, name: str) -> Any:
        self.images.pop(name, None)
        return []

    # ── containers ──

    def list_containers(self, query: dict[str, str], body: bytes) -> Any:
        wanted = set(json.loads(query.get("filters", "{}")).get("label", []))
        listed = [(container, container.body.get("Labels") or {}) for container in self.containers.values()]
        return [
            {"Id": container.identity, "Names": [f"/{container.name}"], "Labels": labels, "State": container.status}
            for container, labels in listed
            if wanted <= {f"{key}={value}" for key, value in labels.items()}
        ]

    def create(self, query: dict[str, str], body: bytes) -> Any:
        name, asked = query["name"], json.loads(body)
        if name in self.containers:
            raise Refused(409, f'Conflict. The container name "/{name}" is already in use')
        if asked["Image"] not in self.images:
            raise Refused(404, f"No such image: {asked['Image']}")
        for mount in asked["HostConfig"].get("Mounts") or []:
            if mount["Type"] == "volume":
                self.volumes.setdefault(mount["Source"], mount["VolumeOptions"].get("Labels") or {})
        container = self.containers[name] = Container(name, asked, self.images[asked["Image"]]["Id"])
        self._happens("container", "create", name)
        return {"Id": container.identity, "Warnings": []}

    def inspect(self, query: dict[str, str], body: bytes, name: str) -> Any:
        container = self._found(name)
        host = container.body["HostConfig"]
        port = [{"HostIp": LOOPBACK, "HostPort": str(container.notebook.port)}] if container.notebook else None
        return {
            "Id": container.identity,
            "Name": f"/{container.name}",
            "Image": container.image,
            "Config": {key: value for key, value in container.body.items() if key != "HostConfig"} | {"User": "1000"},
            "HostConfig": host,
            "Mounts": [
                {"Type": "volume", "Name": mount["Source"], "Destination": mount["Target"], "RW": True}
                for mount in container.mounts
                if mount["Type"] == "volume"
            ],
            "State": {
                "Status": container.status,
                "Running": container.status == "running",
                "ExitCode": 0,
                "StartedAt": str(container.started_at),
            },
            "NetworkSettings": {"Ports": {"8888/tcp": port}},
        }

    def put_files(self, query: dict[str, str], body: bytes, name: str) -> Any:
        container = self._found(name)
        if container.status == "created":  # what runs has read them
            container.files = body
        return {}

    def start(self, query: dict[str, str], body: bytes, name: str) -> Any:
        container = self._found(name)
        if TASK in container.labels:
            self._help(container)
        elif container.status != "running":
            container.notebook = Notebook(self.folder, container.files)
            container.status, container.started_at = "running", time.time_ns()
            self._happens("container", "start", name)
        return {}

    def _help(self, container: Container) -> None:
        """A helper is done at once."""
        task = json.loads(container.body["Entrypoint"][-1])
        match container.labels[TASK]:
            case "resolve":
                answer = {"answer": "resolved", "versions": ["c" * 40 for _ in task["sources"]], "disk": 1 << 40}
            case "build":
                self._add_image(task["image"], task["labels"])
                answer = {"answer": "built", "size": 1000}
            case _:
                answer = {"answer": "cloned", "state": "new"}
        container.status, container.log = "exited", f"{MARK}{json.dumps(answer)}\n"

    def logs(self, query: dict[str, str], body: bytes, name: str) -> Any:
        return self._found(name).log.encode()

    def stop(self, query: dict[str, str], body: bytes, name: str) -> Any:
        _end(self._found(name))
        return {}

    def remove(self, query: dict[str, str], body: bytes, name: str) -> Any:
        container = self._found(name)
        _end(container)
        self._happens("container", "destroy", container.name)
        del self.containers[container.name]
        return {}

    def _found(self, name: str) -> Container:
        for container in self.containers.values():
            if name in (container.name, container.identity):
                return container
        raise Refused(404, f"No such container: {name}")

    # ── volumes ──

    def create_volume(self, query: dict[str, str], body: bytes) -> Any:
        self.volumes[json.loads(body)["Name"]] = {}
        return {}

    def inspect_volume(self, query: dict[str, str], body: bytes, name: str) -> Any:
        if name not in self.volumes:
            raise Refused(404, f"No such volume: {name}")
        return {"Name": name, "Labels": self.volumes[name]}

    def remove_volume(self, query: dict[str, str], body: bytes, name: str) -> Any:
        mounts = [mount for container in self.containers.values() for mount in container.mounts]
        if any(mount["Source"] == name for mount in mounts):
            raise Refused(409, "volume is in use")
        if self.volumes.pop(name, None) is None:
            raise Refused(404, f"No such volume: {name}")
        self._happens("volume", "destroy", name)
        return {}


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None
    return member.read()


def _end(container: Container) -> None:
    notebook, container.notebook = container.notebook, None
    if notebook:
        notebook.close()
        container.status = "exited"


class _Handler(BaseHTTPRequestHandler):
    """One connection to the engine of its server."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    server: _Server

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = re.sub(r"^/v1\.[0-9]+(?=/)", "", unquote(url.path))
        query = {key: "\n".join(values) for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        engine = self.server.engine
        for method, pattern, name in _ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                call: Callable[..., Any] = getattr(engine, name)
                try:
                    with engine.changed:
                        answer = call(query, body, *found.groups())
                except Refused as refused:
                    self._send(refused.status, {"message": str(refused)})
                    return
                if isinstance(answer, Iterator):
                    self._stream(answer)
                else:
                    self._send(200, answer)
                return
        self._send(404, {"message": "page not found"})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _send(self, status: int, answer: Any) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self._head(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, answers: Iterator[dict[str, Any]]) -> None:
        self._head(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):  # whoever listened has gone
            self.wfile.flush()
            for answer in answers:
                line = json.dumps(answer).encode() + b"\r\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Api-Version", VERSION["ApiVersion"])
        self.send_header("Content-Type", "application/json")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: MemoryEngine, path: Path) -> None:
        self.engine = engine
        super().__init__(str(path), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of whoever has gone before the answer, such as the listener to events."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def memory_engine(folder: Path) -> Iterator[tuple[MemoryEngine, Engine]]:
    """Run one for as long as the block lasts: it, and where it answers."""
    made = MemoryEngine(folder)
    path = folder / "engine.sock"
    with _Server(made, path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made, Engine(path, VERSION["Version"], ours=True)
        finally:
            made.close()
            server.shutdown()
            thread.join()
