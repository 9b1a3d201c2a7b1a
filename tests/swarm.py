"""Classic Swarm's manager in front of one engine: it passes requests on, and says of containers which node has them.

What differs from an engine's own API is what Swarm's handlers do to the answers (docker-archive/classicswarm,
api/handlers.go): `Node` in a container's inspection, the node's address for 0.0.0.0, the node's name before names.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from local.engine import Engine
from local.processes import LOOPBACK, SocketFileConnection

NODE: Final = "node-1"
VERSION: Final = "swarm/1.2.9"
_NOT_PASSED_ON: Final = frozenset({"connection", "content-length", "transfer-encoding"})


@contextmanager
def swarm(socket: Path, engine: Engine, *, node_address: str = LOOPBACK) -> Iterator[Engine]:
    """A manager that listens at `socket`, whose one node is the engine, at `node_address`."""
    with _Manager(str(socket), engine.socket, node_address) as manager:
        thread = threading.Thread(target=manager.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Engine(socket, VERSION, ours=True)
        finally:
            manager.shutdown()
            thread.join()


class _Manager(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    def __init__(self, path: str, behind: Path, node_address: str) -> None:
        super().__init__(path, _Handler)
        self.behind = behind
        self.node = {"ID": "ODAI:IC6Q", "IP": node_address, "Addr": f"{node_address}:2376", "Name": NODE}

    def rewritten(self, path: str, answer: Any) -> Any:
        """An answer of the engine as the manager gives it."""
        address = self.node["IP"]
        if path == "/version":
            return answer | {"Version": VERSION}
        if path == "/containers/json":
            for container in answer:
                container["Names"] = [f"/{NODE}{name}" for name in container["Names"]]
        elif re.fullmatch("/containers/[^/]+/json", path):
            answer["Node"] = self.node
        text = json.dumps(answer)
        return json.loads(re.sub(r'"(HostIp|IP)": "0\.0\.0\.0"', rf'"\1": "{address}"', text))


class _Handler(BaseHTTPRequestHandler):
    """One request, and the end of its connection."""

    server: _Manager

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = re.sub(r"^/v1\.[0-9]+", "", self.path.partition("?")[0])
        engine = SocketFileConnection(self.server.behind, timeout=60)
        try:
            engine.request(self.command, self.path, body, dict(self.headers))
            answer = engine.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.end_headers()
            if answer.status == 200 and (path == "/version" or re.fullmatch("/containers/([^/]+/)?json", path)):
                self.wfile.write(json.dumps(self.server.rewritten(path, json.loads(answer.read()))).encode())
            while part := answer.read1(65536):
                self.wfile.write(part)
                self.wfile.flush()
        finally:
            engine.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _pass_on

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
