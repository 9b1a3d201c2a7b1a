"""Git repositories behind HTTP on 127.0.0.1, by Git's own server program, and what is odd about real sites."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BACKEND = ("git", "http-backend")
CHUNK = 1 << 16  # bytes
_IDENTITY = {
    "GIT_AUTHOR_NAME": "A. Author",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "A. Author",
    "GIT_COMMITTER_EMAIL": "author@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *arguments: str) -> str:
    """Run Git in a folder, as nobody in particular; give what it prints."""
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        env=os.environ | _IDENTITY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that is served: its folder, which has its files, too."""

    folder: Path
    address: str

    def commit(self, **files: str) -> str:
        """Commit files, by their names with "__" for "/" and "_dot_" for "."; give the commit."""
        for name, content in files.items():
            path = self.folder / name.replace("_dot_", ".").replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", "A change")
        return self.head()

    def head(self) -> str:
        """The commit that is checked out."""
        return git(self.folder, "rev-parse", "HEAD")


@dataclass(frozen=True, slots=True)
class GitSite:
    """A site: what is below /moved/, /private/, /limited/ and /broken/ is the repository of that name, in that way.

    `clients` are the IP addresses that have connected.
    """

    root: Path
    address: str
    clients: set[str] = field(default_factory=set)

    def repository(self, name: str) -> Repository:
        """Make a repository."""
        folder = self.root / name
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "config", "uploadpack.allowReachableSHA1InWant", "true")
        git(folder, "config", "receive.denyCurrentBranch", "ignore")
        return Repository(folder, f"{self.address}/{name}")


def commit_in_lfs(site: GitSite, repository: Repository, name: str, content: bytes) -> str:
    """Commit a file that is in Git LFS, which the site has below /info/lfs; give the commit."""
    identity = sha256(content).hexdigest()
    (site.root / "lfs").mkdir(exist_ok=True)
    (site.root / "lfs" / identity).write_bytes(content)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{identity}\nsize {len(content)}\n"
    (repository.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (repository.folder / name).write_text(pointer)
    return repository.commit(_dot_gitattributes=f"{name} filter=lfs diff=lfs merge=lfs -text\n")


@contextmanager
def git_site(root: Path, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[GitSite]:
    """Serve the repositories below a folder, over TLS if it is given."""
    root.mkdir()
    clients: set[str] = set()

    class Handler(_Handler):
        projects = root
        scheme = "https" if tls else "http"

    class Server(ThreadingHTTPServer):
        def process_request(self, request: Any, client_address: Any) -> None:
            clients.add(client_address[0])
            super().process_request(request, client_address)

    server = Server((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield GitSite(root, f"{Handler.scheme}://{host}:{server.server_address[1]}", clients)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    projects: Path
    scheme: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        first, _, rest = parts.path.lstrip("/").partition("/")
        match first:
            case _ if "/info/lfs/" in f"{parts.path}/":
                self._serve_large_file()
            case "moved":
                self._refuse(301, {"Location": f"/{rest}" + (f"?{parts.query}" if parts.query else "")})
            case "private":
                self._refuse(401, {"WWW-Authenticate": 'Basic realm="private"'})
            case "limited":
                self._refuse(429, {"Retry-After": "3600"})
            case "broken":
                self._refuse(503, {})
            case _:
                self._serve(parts.path, parts.query)

    do_POST = do_GET

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def _serve(self, path: str, query: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        environ = (
            os.environ
            | _IDENTITY
            | {
                "GIT_PROJECT_ROOT": str(self.projects),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
        )
        with subprocess.Popen(BACKEND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as backend:
            assert backend.stdin is not None
            assert backend.stdout is not None
            backend.stdin.write(body)
            backend.stdin.close()
            head = iter(backend.stdout.readline, b"\r\n")
            headers = dict(line.decode().rstrip("\r\n").split(": ", 1) for line in head)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in (headers | {"Transfer-Encoding": "chunked"}).items():
                self.send_header(name, value)
            self.end_headers()
            while chunk := backend.stdout.read(CHUNK):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")

    def _serve_large_file(self) -> None:
        """Git LFS's API, which gives the file of an object's own name in the folder `lfs`."""
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "GET":
            content = (self.projects / "lfs" / self.path.rpartition("/")[2]).read_bytes()
        else:
            where = f"{self.scheme}://{self.headers['Host']}/info/lfs"
            objects = [
                {**one, "actions": {"download": {"href": f"{where}/{one['oid']}"}}}
                for one in json.loads(asked)["objects"]
            ]
            content = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
