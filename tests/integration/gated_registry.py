"""A container registry of one image on 127.0.0.1, whose layers wait at gates: slow pulls without sleeping.

It speaks what a pull needs of the registry API (distribution spec, "pull" category): manifest, configuration, layers. A
layer is sent when its gate is open, the first half before, and until then a byte now and then. `asked` counts how often
each layer was asked for, `hung_up` how often whoever had asked did not take all of it, and `served` the bytes that were
sent of the image in all, which has `size`. While `refuses` is set, whoever asks for the manifest is answered with that
status and body.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self

PAUSE = 0.05  # seconds between two bytes of a layer whose gate is not open
CHUNK_BYTES = 64 * 1024
MANIFEST_PATH = "/v2/gated/manifests/latest"
UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def a_layer(name: str, size: int = 200_000) -> bytes:
    """A tar with one file of random bytes, which does not compress."""
    return a_tar({f"layers/{name}": os.urandom(size)})


def a_tar(files: dict[str, bytes], *, mode: int = 0o644, home: str = "") -> bytes:
    """A tar of files in their folders, and of a folder that belongs to user 1000."""
    archive = io.BytesIO()
    folders = {str(folder): 0 for name in files for folder in PurePath(name).parents} | ({home: 1000} if home else {})
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, owner in sorted(folders.items()):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o755, owner, owner
            tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def digest(content: bytes) -> str:
    """Name content as registries do."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class GatedRegistry:
    """See the module; `image` is what to pull, for an engine that reaches this machine's 127.0.0.1 as `host`.

    `of_layer` bytes are in each layer.
    """

    def __init__(self, layers: int, of_layer: int = 200_000, host: str = "127.0.0.1") -> None:
        self.host = host
        tars = [a_layer(str(number), of_layer) for number in range(layers)]
        self.layers = [gzip.compress(tar, 1) for tar in tars]
        self.gates = [threading.Event() for _ in range(layers)]
        self.asked: Counter[int] = Counter()
        self.hung_up: Counter[int] = Counter()
        self.served = 0
        self._lock = threading.Lock()
        self.refuses: tuple[int, bytes] | None = None
        history = [{"created_by": "test"} for _ in tars]
        rootfs = {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}
        described = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, "history": history}
        config = json.dumps(described).encode()
        entries = [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(b), "digest": digest(b)}
            for b in self.layers
        ]
        configuration = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(config),
            "digest": digest(config),
        }
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": configuration, "layers": entries}
        self.documents: tuple[tuple[bytes, str], ...] = (
            (json.dumps(manifest).encode(), MANIFEST),
            (config, "application/octet-stream"),
        )
        self.size = sum(map(len, [*self.layers, *(content for content, _ in self.documents)]))
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def image(self) -> str:
        return f"{self.host}:{self._server.server_address[1]}/gated:latest"

    def serve_list(self, architecture: str) -> None:
        """Have the tag be a list that has the image for this architecture alone."""
        content, _ = self.documents[0]
        platform = {"architecture": architecture, "os": "linux"}
        entry = {"mediaType": MANIFEST, "size": len(content), "digest": digest(content), "platform": platform}
        listed = json.dumps({"schemaVersion": 2, "mediaType": LIST, "manifests": [entry]}).encode()
        self.documents = ((listed, LIST), *self.documents)

    def open_gates(self, *numbers: int) -> None:
        """Let these layers through; all when none is named."""
        for number in numbers or range(len(self.gates)):
            self.gates[number].set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.open_gates()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def send_layer(self, number: int, asks: _Handler) -> None:
        """Send half a layer, then a byte at a time until its gate opens, and the rest."""
        content = self.layers[number]
        with self._lock:
            self.asked[number] += 1
        sent = len(content) // 2
        try:
            self.send(content[:sent], asks)
            while not self.gates[number].wait(PAUSE):
                self.send(content[sent : sent + 1], asks)  # an engine that has let go hangs up when something comes
                sent += 1
            self.send(content[sent:], asks)
        except OSError:
            with self._lock:
                self.hung_up[number] += 1

    def send(self, content: bytes, asks: _Handler) -> None:
        """Send something of the image, and count what was sent, also if the rest was not wanted any more."""
        for start in range(0, len(content), CHUNK_BYTES):
            part = content[start : start + CHUNK_BYTES]
            asks.wfile.write(part)
            with self._lock:
                self.served += len(part)


class _Handler(BaseHTTPRequestHandler):
    """One request to the registry its server is for."""

    server: _Server

    def do_GET(self) -> None:
        registry = self.server.registry
        if registry.refuses and "/manifests/" in self.path:
            status, body = registry.refuses
            self._head(body, "application/json", status=status)
            self.wfile.write(body)
            return
        for content, kind in registry.documents:
            if self.path == "/v2/" or self.path.endswith(digest(content)) or self.path == MANIFEST_PATH:
                self._head(content, kind)
                registry.send(content, self)
                return
        for number, content in enumerate(registry.layers):
            if self.path.endswith(digest(content)):
                self._head(content, "application/octet-stream")
                registry.send_layer(number, self)
                return
        self._head(UNKNOWN, "application/json", status=404)
        self.wfile.write(UNKNOWN)

    def do_HEAD(self) -> None:
        if self.server.registry.refuses is None and self.path == MANIFEST_PATH:
            self._head(*self.server.registry.documents[0])
        else:
            status, body = self.server.registry.refuses or (404, UNKNOWN)
            self._head(body, "application/json", status=status)

    def _head(self, content: bytes, kind: str, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest(content))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def __init__(self, registry: GatedRegistry) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = registry
