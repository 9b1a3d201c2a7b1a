"""The proxy as `make run` starts it: HAProxy and the agent as processes, the embedded AWS, a stand-in notebook."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import RemoteDisconnected
from pathlib import Path
from threading import Thread

import pytest

from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sign_ins import SignIn
from chalicelib.aws.tokens import TokenStore
from chalicelib.notebook.certificates import Ca, issue_notebook
from chalicelib.session.values import Session, Target
from local import processes, proxy
from local.aws import Aws, own_environ
from local.proxy import Proxy
from tests.builders import a_session
from tests.proxy_rig import HUB, Answer, NotebookServer, ask, eventually
from tests.role_guard import guarded_aws
from tests.roles import environ_of

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"), reason="apt-get install haproxy"
)


@dataclass
class Running:
    """A proxy, the AWS behind it, and one session with a notebook."""

    proxy: Proxy
    cloud: Aws
    session: Session

    def ask(self, cookie: str | None = None, path: str = "/lab") -> Answer:
        headers = [("Cookie", f"__Host-homeport={cookie}")] if cookie else []
        return ask(self.proxy.port, f"{self.session.host}.localhost:{self.proxy.port}", path, headers=headers)

    def enter(self) -> str:
        table, now = self.cloud.environ["HOMEPORT_TABLE"], time.time()
        store = TokenStore(self.cloud.client("dynamodb"), table, time.time, lifetime=3600)
        sign_in = SignIn("b0" * 32, self.session.owner, int(now * 1000))
        store.put_ticket("t" * 43, self.session, sign_in, path="/lab", expires_at=now + 60)
        answer = ask(
            self.proxy.port,
            f"{self.session.host}.localhost:{self.proxy.port}",
            "/.homeport/enter",
            method="POST",
            headers=[("Origin", HUB), ("Content-Type", "application/x-www-form-urlencoded")],
            body=b"ticket=" + b"t" * 43,
        )
        assert answer.status == 303
        return (answer.get("Set-Cookie") or "").partition(";")[0].partition("=")[2]


@pytest.fixture
def running() -> Iterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="hp"))
    port = processes.free_port()
    with guarded_aws(folder) as cloud:
        environ = own_environ(os.environ) | environ_of("proxy", cloud.environ)
        environ |= {"HOMEPORT_HUB_ORIGIN": HUB, "HOMEPORT_NOTEBOOK_URL": f"http://*.localhost:{port}"}
        ca = cloud.secret_pair("notebook-ca-certificate", with_key=False).certificate
        client = cloud.secret_pair("proxy-client")
        with proxy.running(folder=folder / "proxy", port=port, notebook_ca=ca, client=client, environ=environ) as pair:
            session = a_session(expires_at=time.time() + 3600)
            ca_pair = cloud.secret_pair("notebook-ca")
            leaf = issue_notebook(Ca(ca_pair.certificate, ca_pair.key), session.host, now=time.time(), lifetime=3600)
            notebook = NotebookServer(
                session.host, leaf, cloud.secret_pair("client-ca", with_key=False).certificate, folder
            )
            thread = Thread(target=notebook.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            yield Running(pair, cloud, replace(session, target=Target("127.0.0.1", notebook.port)))
            notebook.shutdown()
            thread.join(20)
            notebook.server_close()
    shutil.rmtree(folder)


def test_a_route_lives_from_publication_to_withdrawal_through_restarts_of_every_part(running: Running) -> None:
    routes = RouteStore(running.cloud.client("dynamodb"), running.cloud.environ["HOMEPORT_TABLE"], time.time)
    assert running.ask().status == 404
    routes.publish(running.session)
    eventually(lambda: running.ask().status == 401, "the route in HAProxy")
    cookie = running.enter()
    assert running.ask(cookie).seen["notebook"] == running.session.host

    for child in (running.proxy.agent, running.proxy.haproxy):
        assert child is not None
        child.process.kill()
        child.process.wait()
    running.proxy.start_agent()
    running.proxy.start_haproxy()
    eventually(lambda: running.ask(cookie).status == 200, "the notebook after a crash of both")

    def is_withdrawn() -> bool:
        try:
            return running.ask(cookie).status == 404
        except (RemoteDisconnected, ConnectionResetError):
            return False  # what is open when the route goes is cut

    routes.withdraw(running.session)
    eventually(is_withdrawn, "the route's withdrawal")


def test_nothing_secret_is_in_the_processes_output(running: Running) -> None:
    routes = RouteStore(running.cloud.client("dynamodb"), running.cloud.environ["HOMEPORT_TABLE"], time.time)
    routes.publish(running.session)
    cookie = running.enter()
    assert running.ask(cookie, "/lab/tree/private-name.ipynb").status == 200
    running.proxy.stop()
    for child in (running.proxy.agent, running.proxy.haproxy):
        assert child is not None
        output = child.log.read_text()
        for secret in (cookie, "t" * 43, "private-name", "PRIVATE KEY"):
            assert secret not in output
        assert "Traceback" not in output
