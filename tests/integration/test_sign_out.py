"""Signing out, through all the parts there are but an engine: hub, HAProxy and agent as processes, the embedded AWS.

The launcher's part is done by hand: a stand-in notebook, and the session ready with its route published.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest
from urllib3.filepost import encode_multipart_formdata

from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.notebook.certificates import Ca, issue_notebook
from chalicelib.session import events as e
from chalicelib.session.machine import advance
from chalicelib.session.values import Session, Target
from local import hub, processes, proxy
from local.aws import Aws, own_environ
from local.proxy import Proxy
from tests.functional.hub_rig import a_bundle
from tests.proxy_rig import Answer, NotebookServer, ask, closed, eventually, lives, websocket
from tests.role_guard import guarded_aws
from tests.roles import environ_of

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"), reason="apt-get install haproxy"
)


@dataclass
class Place:
    """A hub and a proxy, with one notebook that is ready."""

    hub_port: int
    proxy: Proxy
    cloud: Aws
    folder: Path
    session: Session = field(init=False)

    def ask_hub(self, method: str, path: str, *, cookie: str, body: bytes = b"", content_type: str = "") -> Answer:
        headers = [("Accept", "application/json"), *([("Cookie", cookie)] if cookie else [])]
        headers += [("Content-Type", content_type)] if content_type else []
        return ask(self.hub_port, f"localhost:{self.hub_port}", path, method=method, headers=headers, body=body or None)

    def ask_notebook(self, path: str, **more: object) -> Answer:
        host = f"{self.session.host}.localhost:{self.proxy.port}"
        return ask(self.proxy.port, host, path, **more)  # type: ignore[arg-type]  # passed on as they are


class Browser:
    """A browser that launched with the key of a number."""

    def __init__(self, place: Place, number: int = 0) -> None:
        self.place = place
        self.cookie = self.grant = ""
        self.show(number)

    def show(self, number: int) -> None:
        """Launch with a key, and so sign in."""
        body, content_type = encode_multipart_formdata(
            {"credentials": ("credentials.zip", a_bundle(number)), "name": "one"}
        )
        answer = self.place.ask_hub("POST", "/sessions", cookie=self.cookie, body=body, content_type=content_type)
        assert answer.status in (200, 201), answer.body
        self.cookie = (answer.get("Set-Cookie") or "").partition(";")[0]

    def press(self, path: str, body: bytes = b"") -> Answer:
        form = "application/x-www-form-urlencoded"
        return self.place.ask_hub("POST", path, cookie=self.cookie, body=body, content_type=form)

    def ticket(self) -> str:
        answer = self.press(f"/sessions/{self.place.session.sid}/enter")
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["ticket"])

    def redeem(self, ticket: str) -> int:
        """Post a ticket; a grant that comes of it is kept."""
        origin = ("Origin", f"http://localhost:{self.place.hub_port}")
        headers = [origin, ("Content-Type", "application/x-www-form-urlencoded")]
        body = f"ticket={ticket}".encode()
        answer = self.place.ask_notebook("/.homeport/enter", method="POST", headers=headers, body=body)
        self.grant = (answer.get("Set-Cookie") or self.grant).partition(";")[0]
        return answer.status

    def hub_status(self) -> int:
        return self.place.ask_hub("GET", f"/sessions/{self.place.session.sid}", cookie=self.cookie).status

    def notebook_status(self) -> int:
        answer = self.place.ask_notebook("/lab", headers=[("Cookie", self.grant)])
        if answer.status == 307:  # HAProxy did not know the grant for a moment
            answer = self.place.ask_notebook("/lab", headers=[("Cookie", self.grant)])
        return answer.status

    @contextmanager
    def websocket(self) -> Iterator[tuple[int, socket.socket]]:
        """Ask for a websocket; gives the status and the connection."""
        address = f"{self.place.session.host}.localhost:{self.place.proxy.port}"
        cookie = self.grant.partition("=")[2]
        with websocket(self.place.proxy.port, address, cookie=cookie, origin=f"http://{address}") as asked:
            yield asked

    def wait_until_shut_out(self) -> None:
        eventually(lambda: self.notebook_status() == 401, "the end of the grant")


def made_ready(place: Place, sid: str) -> NotebookServer:
    """What the launcher does, without an engine."""
    dynamodb, table = place.cloud.client("dynamodb"), place.cloud.environ["HOMEPORT_TABLE"]
    store, routes = SessionStore(dynamodb, table, time.time), RouteStore(dynamodb, table, time.time)
    session = store.load(sid)
    ca = place.cloud.secret_pair("notebook-ca")
    leaf = issue_notebook(Ca(ca.certificate, ca.key), session.host, now=time.time(), lifetime=3600)
    clients = place.cloud.secret_pair("client-ca", with_key=False).certificate
    notebook = NotebookServer(session.host, leaf, clients, place.folder)
    for event in (
        e.EndpointVerified("127.0.0.1", "20.10.24"),
        e.ImagePresent(),
        e.ContainerCreated(),
        e.ContainerStarted(Target("127.0.0.1", notebook.port)),
        e.NotebookAnswered(),
        e.RoutePublished(),
    ):
        session = advance(session, event, session.created_at)
        store.save(session)
    routes.publish(session)
    place.session = session
    return notebook


@pytest.fixture(scope="module")
def parts() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="hp"))
    hub_port, proxy_port = processes.free_port(), processes.free_port()
    with guarded_aws(folder) as cloud:
        environ = own_environ(os.environ) | dict(cloud.environ)
        environ["HOMEPORT_HUB_ORIGIN"] = f"http://localhost:{hub_port}"
        environ["HOMEPORT_NOTEBOOK_URL"] = f"http://*.localhost:{proxy_port}"
        ca = cloud.secret_pair("notebook-ca-certificate", with_key=False).certificate
        client = cloud.secret_pair("proxy-client")
        with (
            hub.hub(folder, port=hub_port, environ=environ_of("web", environ)),
            proxy.running(
                folder=folder / "proxy",
                port=proxy_port,
                notebook_ca=ca,
                client=client,
                environ=environ_of("proxy", environ),
            ) as pair,
        ):
            place = Place(hub_port, pair, cloud, folder)
            first = Browser(place)
            listed = place.ask_hub("GET", "/sessions", cookie=first.cookie)
            (session,) = json.loads(listed.body)["sessions"]
            notebook = made_ready(place, session["id"])
            thread = Thread(target=notebook.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            yield place
            notebook.shutdown()
            thread.join(20)
            notebook.server_close()
    shutil.rmtree(folder)


def entered(place: Place) -> Browser:
    browser = Browser(place)
    assert browser.redeem(browser.ticket()) == 303
    assert (browser.hub_status(), browser.notebook_status()) == (200, 200)
    return browser


def test_signing_out_here_shuts_this_browser_out_and_no_other(parts: Place) -> None:
    mine, other = entered(parts), entered(parts)
    mine.show(1)  # another key, and so a new token for the same browser
    unused, others = mine.ticket(), other.ticket()
    with mine.websocket() as (opened, stream):
        assert opened == 101
        assert lives(stream)
        assert mine.press("/sign-out").status == 204
        assert mine.hub_status() == 401
        assert mine.redeem(unused) == 403
        assert closed(stream)
    mine.wait_until_shut_out()
    with mine.websocket() as (refused, _), other.websocket() as (opened, stream):
        assert (refused, opened) == (401, 101)
        assert lives(stream)
    assert (other.hub_status(), other.notebook_status()) == (200, 200)
    assert other.redeem(others) == 303
    mine.show(0)
    assert mine.redeem(mine.ticket()) == 303
    assert (mine.hub_status(), mine.notebook_status()) == (200, 200)


def test_signing_out_everywhere_shuts_every_browser_out_until_it_shows_the_key_again(parts: Place) -> None:
    mine, other = entered(parts), entered(parts)
    unused = other.ticket()
    with other.websocket() as (opened, stream):
        assert opened == 101
        assert lives(stream)
        assert mine.press("/sign-out", b"everywhere=yes").status == 204
        assert (mine.hub_status(), other.hub_status()) == (401, 401)
        assert closed(stream)
    assert other.redeem(unused) == 403
    for browser in (mine, other):
        browser.wait_until_shut_out()
    other.show(0)
    assert other.redeem(other.ticket()) == 303
    assert (other.hub_status(), other.notebook_status()) == (200, 200)
    assert (mine.hub_status(), mine.notebook_status()) == (401, 401)
