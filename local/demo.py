"""`make demo`: a visitor without a browser, from the bundle to a cell's output to nothing left.

Uses the stack of `make run` when one runs in the same state folder, else runs one for itself. Every step is verified,
or the exit status is 1: the session ready, the grant, the cell's output through the proxy's websocket, and afterwards
no container on the engine, no route, no stored credential.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import requests
from jupyter_kernel_client import JupyterKernelClient
from jupyter_kernel_client.wsclient import KernelWebSocketClient

from chalicelib.errors import BadConfiguration
from local import containers, run
from local.builder import REPO
from local.processes import LOOPBACK, StackError
from local.run import Report, Stack
from local.settings import Settings

PATIENCE: Final = 900.0  # seconds from upload to ready, and from the stop to stopped
POLL_INTERVAL: Final = 0.2
PROXY_SECONDS: Final = 5.0  # what the proxy has to follow a stop
BAR_WIDTH: Final = 30
FACTORS: Final = (6, 7)
COOKIE: Final = "__Host-homeport"
# The cell prints where it runs and something only a running Python knows; {} are the factors.
CELL: Final = "import socket; print(socket.gethostname(), {} * {})"


class DemoFailed(Exception):
    """A step of the demo did not happen; the message says what."""


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────


class HubClient:
    """The hub's JSON interface, for one owner; `source` is the address to connect from, if it matters."""

    def __init__(self, address: str, *, source: str = "") -> None:
        self._address = address
        self._http = requests.Session()
        self._http.trust_env = False
        if source:
            self._http.get_adapter(address).init_poolmanager(1, 1, source_address=(source, 0))  # type: ignore[attr-defined]
        self._http.headers["Accept"] = "application/json"

    def launch(self, bundle: Path, name: str, image: str | None = None, **options: str) -> dict[str, Any]:
        """Upload the bundle; give the session, and remember the owner's token. None: the hub's default image.

        `options` are more of the form's fields.
        """
        answer = self._http.post(
            f"{self._address}/sessions",
            files={"credentials": (bundle.name, bundle.read_bytes(), "application/zip")},
            data={"name": name, **options} | ({} if image is None else {"image": image}),
            timeout=60,
        )
        session = _json(answer)
        self._http.headers["Authorization"] = f"Bearer {session['owner_token']}"
        return session

    def session(self, sid: str) -> dict[str, Any]:
        """Give the session as it is now."""
        return _json(self._http.get(f"{self._address}/sessions/{sid}", timeout=60))

    def log(self, sid: str) -> list[str]:
        """Give the lines of the session's log."""
        answer = _json(self._http.get(f"{self._address}/sessions/{sid}/events", timeout=60))
        return [line["text"] for line in answer["events"]]

    def look(self, sid: str) -> None:
        """Have the notebook looked at now, as somebody who comes back to its page does."""
        _json(self._http.get(f"{self._address}/sessions/{sid}/events?look=1", timeout=60))

    @property
    def headers(self) -> dict[str, str]:
        """What the owner's requests carry."""
        return {name: str(self._http.headers[name]) for name in ("Accept", "Authorization")}

    def enter(self, sid: str) -> dict[str, Any]:
        """Ask for a one-time ticket; gives `url` and `ticket`."""
        return _json(self._http.post(f"{self._address}/sessions/{sid}/enter", json={}, timeout=60))

    def stop(self, sid: str) -> dict[str, Any]:
        """Ask for the notebook to be stopped."""
        return _json(self._http.delete(f"{self._address}/sessions/{sid}", timeout=60))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _json(answer: requests.Response) -> dict[str, Any]:
    if not answer.ok:
        raise DemoFailed(f"the hub answered {answer.status_code}: {answer.text[:500]}")
    found: dict[str, Any] = answer.json()
    return found


def follow(
    hub: HubClient,
    sid: str,
    wanted: str,
    show: Callable[[dict[str, Any]], None] = lambda _session: None,
    *,
    pause: float = POLL_INTERVAL,
) -> dict[str, Any]:
    """Look at a session every `pause` seconds until its state is `wanted`.

    Raises DemoFailed when it fails or takes too long.
    """
    until = time.monotonic() + PATIENCE
    while True:
        session = hub.session(sid)
        show(session)
        if session["state"] == wanted:
            return session
        if session["error"] is not None and wanted == "ready":
            raise DemoFailed(f"the session failed: {session['error']['message']}")
        if session["state"] == "stopped" or time.monotonic() > until:
            raise DemoFailed(f"the session is {session['state']}, not {wanted}: {session['message']}")
        time.sleep(pause)


class ProgressBar:
    """One line in a terminal; one line per message elsewhere."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._last = ""

    def show(self, session: Mapping[str, Any]) -> None:
        """Draw the session's progress, state and message."""
        fraction = session["progress"]
        filled = round(BAR_WIDTH * (fraction or 0.0))
        percent = "   " if fraction is None else f"{fraction:4.0%}"
        line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {percent} {session['state']}: {session['message']}"
        if line == self._last:
            return
        self._last = line
        if self._output.isatty():
            self._output.write(f"\r\x1b[K{line[:118]}")
        else:
            self._output.write(f"{line}\n")
        self._output.flush()

    def end(self) -> None:
        """End the line."""
        if self._output.isatty():
            self._output.write("\n")


# ── the notebook, through the proxy ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook's origin behind a proxy on 127.0.0.1, and the grant to use it.

    `*.localhost` does not resolve on every machine: connections go to 127.0.0.1 and name the host in the header.
    """

    port: int
    host: str
    grant: str = ""

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Make one request of the notebook's origin; gives status, headers and body."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=60)
        cookie = {"Cookie": f"{COOKIE}={self.grant}"} if self.grant else {}
        try:
            connection.request(method, path, body=body, headers={"Host": self.host, **cookie, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


def enter(hub_origin: str, entry: Mapping[str, Any], proxy_port: int) -> Notebook:
    """Redeem a ticket as the hub's page does; raises DemoFailed without a grant."""
    scheme, _, rest = entry["url"].partition("://")
    host, _, path = rest.partition("/")
    notebook = Notebook(proxy_port, host)
    headers = {"Origin": hub_origin, "Content-Type": "application/x-www-form-urlencoded"}
    status, answer, _ = notebook.request("POST", f"/{path}", f"ticket={entry['ticket']}".encode(), headers)
    cookies = [value for value in answer.get_all("Set-Cookie", []) if value.startswith(f"{COOKIE}=")]
    if status != 303 or len(cookies) != 1 or scheme != "http":
        raise DemoFailed(f"the ticket was answered with {status} and {len(cookies)} grants")
    return Notebook(proxy_port, host, cookies[0].partition("=")[2].partition(";")[0])


class _KernelClient(KernelWebSocketClient):  # type: ignore[misc]  # the library is not typed
    """The library's websocket client, connected to 127.0.0.1 under the notebook's own Host and Origin."""

    def _run_websocket(self) -> None:
        headers = self.kernel_socket.header
        self.kernel_socket.header = {name: headers[name] for name in headers if name not in ("Host", "Origin")}
        # Without pings, ping_timeout is how long the library may need to notice that it was told to close: else 10 s.
        self.kernel_socket.run_forever(host=headers["Host"], origin=headers["Origin"], ping_interval=0, ping_timeout=1)


def run_cell(notebook: Notebook, code: str) -> str:
    """Start a kernel through the proxy, run a cell over its websocket, and give what it printed; raises DemoFailed.

    The kernel works in the volume, as JupyterLab's do: a kernel for no path would work where nothing is kept.
    """
    token = secrets.token_hex(16)  # Jupyter's XSRF check: the same value in a cookie and in a header
    headers = {
        "Host": notebook.host,
        "Origin": notebook.origin,
        "Cookie": f"{COOKIE}={notebook.grant}; _xsrf={token}",
        "X-XSRFToken": token,
    }
    client = JupyterKernelClient(
        server_url=f"http://{LOOPBACK}:{notebook.port}",
        token=None,
        headers=headers,
        client_factory=_KernelClient,
    )
    try:
        client.start(path="")
        reply = client.execute(code, timeout=60)
    finally:
        client.stop()
    if reply["status"] != "ok":
        raise DemoFailed(f"the cell ended with {reply['status']}: {reply['outputs']}")
    return "".join(output.get("text", "") for output in reply["outputs"] if output["output_type"] == "stream")


# ── what is left ─────────────────────────────────────────────────────────────────────────────────────────────────


def _status_of(notebook: Notebook) -> int | None:
    """What the proxy answers; None when it cuts the request, as it does with all that are open when a route goes."""
    try:
        return notebook.request("GET", "/api/status")[0]
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return None


def leftovers(stack: Stack, notebook: Notebook, sid: str) -> list[str]:
    """Look for what a stopped session must not leave; gives a line for each thing found.

    The proxy hears of a stop up to two seconds later, so it is asked for PROXY_SECONDS.
    """
    found = [f"container {name}" for name in containers.names_of(stack.engine_url, stack.hub_name) if sid in name]
    ends_at = time.monotonic() + PROXY_SECONDS
    while (status := _status_of(notebook)) != http.client.NOT_FOUND:
        if time.monotonic() > ends_at:
            found.append(f"route: the proxy answers {status}")
            break
        time.sleep(0.1)
    cloud = stack.cloud
    route = cloud.client("dynamodb").scan(
        TableName=stack.table,
        FilterExpression="contains(pk, :sid) AND attribute_exists(address)",
        ExpressionAttributeValues={":sid": {"S": sid}},
    )
    found += [f"route in the table: {item['pk']['S']}" for item in route["Items"]]
    stored = cloud.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix=f"credentials/{sid}/")
    return found + [f"stored credentials {item['Key']}" for item in stored.get("Contents", [])]


# ── the whole path ───────────────────────────────────────────────────────────────────────────────────────────────


def demonstrate(stack: Stack, name: str, report: Report, output: TextIO, *, repository: str = "") -> None:
    """Show the whole path, of a `repository` if one is named; raises DemoFailed with what did not happen first."""
    hub = HubClient(stack.hub_address)
    bar = ProgressBar(output)
    try:
        session = hub.launch(Path(stack.bundle), name, **({"repo": repository} if repository else {}))
        sid = session["id"]
        report(f"uploaded {stack.bundle}: session {sid}, notebook “{name}”")
        ready = follow(hub, sid, "ready", bar.show)
        bar.end()
        report("ready" if not repository else f"ready: {repository} is at {ready['repository']['version']}")
        notebook = enter(stack.hub_url, hub.enter(sid), stack.proxy_port)
        report(f"entered {notebook.origin}/")
        _show_cell(stack, notebook, sid, report)
        hub.stop(sid)
        follow(hub, sid, "stopped", bar.show)
        bar.end()
        left = leftovers(stack, notebook, sid)
        if left:
            raise DemoFailed("the session is stopped, but left: " + "; ".join(left))
        report("stopped; no container, no route, no stored credential is left")
    finally:
        hub.close()


def _show_cell(stack: Stack, notebook: Notebook, sid: str, report: Report) -> None:
    """Run the cell and see that it ran in the session's own container."""
    code = CELL.format(*FACTORS)
    printed = run_cell(notebook, code).strip()
    report(f"ran in a kernel: {code}")
    report(f"it printed: {printed}")
    hostname, _, product = printed.partition(" ")
    names = [name for name in containers.names_of(stack.engine_url, stack.hub_name) if sid in name]
    if product != str(FACTORS[0] * FACTORS[1]) or hostname not in containers.hostnames_of(stack.engine_url, names):
        raise DemoFailed(f"the cell printed {printed!r}, which is not the session's container")


@contextmanager
def some_stack(settings: Settings, environ: Mapping[str, str], report: Report) -> Iterator[Stack]:
    """Give the stack that runs with these settings, else run one for as long as the block lasts."""
    found = run.announced(settings)
    if found is not None:
        report(f"using the stack that runs at {found.hub_url}")
        yield found
        return
    with run.stack(settings, environ, report) as running:
        yield running.stack


def main(environ: Mapping[str, str]) -> int:
    """Show the whole path; give 0 only when all steps are verified."""
    run.stop_on_signal()
    report = run.timed_report(time.monotonic)
    try:
        with some_stack(Settings.from_environ(environ), environ, report) as stack:
            name, repository = f"demo-{secrets.token_hex(2)}", environ.get(REPO, "").strip()
            demonstrate(stack, name, report, sys.stdout, repository=repository)
    except KeyboardInterrupt:
        report("interrupted")
        return 130
    except (DemoFailed, StackError, BadConfiguration, requests.RequestException, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    report("all steps verified")
    return 0


if __name__ == "__main__":
    run.forget_foreign_environ()
    sys.exit(main(os.environ))
