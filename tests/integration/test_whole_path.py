"""Upload, ready, a cell run through the proxy's websocket, stop, nothing left: every part the real one."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import websocket

from local import containers, demo
from local.demo import HubClient, Notebook
from local.run import Stack

DEADLINE = 120.0  # seconds; a launch takes about three
TERMINAL = "/terminals/websocket/{}"


@pytest.fixture
def hub(stack: Stack) -> Iterator[HubClient]:
    client = HubClient(stack.hub_address)
    yield client
    client.close()


@pytest.fixture
def engine_client(stack: Stack) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=stack.engine_url)
    yield client
    client.close()


def _ignore(session: Mapping[str, Any]) -> None:
    pass


@contextmanager
def launched(hub: HubClient, stack: Stack, name: str) -> Iterator[dict[str, Any]]:
    """A ready session; stopped afterwards whatever happened."""
    session = hub.launch(Path(stack.bundle), name)
    try:
        yield demo.follow(hub, session["id"], "ready", _ignore)
    finally:
        hub.stop(session["id"])
        demo.follow(hub, session["id"], "stopped", _ignore)


def entered(hub: HubClient, stack: Stack, session: Mapping[str, Any]) -> Notebook:
    return demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port)


def ask(stack: Stack, session: Mapping[str, Any], path: str, **headers: str) -> requests.Response:
    host = session["url"].partition("://")[2].rstrip("/")
    return requests.get(
        f"http://127.0.0.1:{stack.proxy_port}{path}",
        headers={"Host": host, **headers},
        timeout=30,
        allow_redirects=False,
    )


def _answer(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    return connection.getresponse().status


def eventually(look: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not look():
        assert time.monotonic() < until, "it did not come to be in time"
        time.sleep(0.05)


def stored_objects(stack: Stack, sid: str) -> list[str]:
    s3 = stack.cloud.client("s3")
    listed = s3.list_object_versions(Bucket=stack.bucket, Prefix=f"credentials/{sid}/")
    return [entry["Key"] for entry in listed.get("Versions", []) + listed.get("DeleteMarkers", [])]


def test_from_a_bundle_to_a_cell_to_nothing_left(
    hub: HubClient, stack: Stack, engine_client: docker.DockerClient
) -> None:
    with launched(hub, stack, "whole path") as session:
        container = engine_client.containers.get(session["container"])
        assert container.status == "running"
        assert stored_objects(stack, session["id"])
        notebook = entered(hub, stack, session)
        output = demo.run_cell(notebook, "import socket; print(socket.gethostname(), 6 * 7)")
        assert output.split() == [str(container.id)[:12], "42"]
    with pytest.raises(docker.errors.NotFound):
        engine_client.containers.get(session["container"])
    assert stored_objects(stack, session["id"]) == []

    def is_gone() -> bool:
        try:
            return ask(stack, session, "/lab").status_code == 404
        except requests.ConnectionError:
            return False  # what is open when the route goes is cut

    eventually(is_gone)


LOAD_BALANCER = 350.0  # seconds after which AWS's network load balancer closes what was silent


def pinged(notebook: Notebook, path: str, cookie: str) -> bool:
    """Whether the server pings a websocket on which nothing else happens before a load balancer closes it."""
    until = time.monotonic() + LOAD_BALANCER
    address = f"ws://127.0.0.1:{notebook.port}{path}"
    silent = websocket.create_connection(address, cookie=cookie, host=notebook.host, origin=notebook.origin, timeout=20)
    with closing(silent):
        while time.monotonic() < until:
            try:
                opcode, _ = silent.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                continue
            if opcode == websocket.ABNF.OPCODE_PING:
                return True
    return False


def test_jupyter_pings_a_silent_websocket_before_a_load_balancer_closes_it(hub: HubClient, stack: Stack) -> None:
    """A kernel's and a terminal's: the load balancer passes on no TCP keepalive of the browser's."""
    with launched(hub, stack, "pinged") as session:
        notebook = entered(hub, stack, session)
        cookie = f"{demo.COOKIE}={notebook.grant}; _xsrf=abc"
        headers = {"Origin": notebook.origin, "X-XSRFToken": "abc", "Cookie": cookie}
        paths = []
        for made, name, path in (("kernels", "id", "/api/kernels/{}/channels"), ("terminals", "name", TERMINAL)):
            status, _, body = notebook.request("POST", f"/api/{made}", b"{}", headers)
            assert status < 300, body
            paths.append(path.format(json.loads(body)[name]))
        with ThreadPoolExecutor(2) as at_once:
            assert list(at_once.map(lambda path: pinged(notebook, path, cookie), paths)) == [True, True]


def test_the_same_bundle_and_name_come_back_to_the_same_notebook_and_another_name_gets_a_second(
    hub: HubClient, stack: Stack
) -> None:
    bundle = Path(stack.bundle)
    with ThreadPoolExecutor(6) as at_once:
        names = ["first", "second"] * 3
        launches = at_once.map(lambda name: HubClient(stack.hub_address).launch(bundle, name), names)
        ids = {session["name"]: session["id"] for session in launches}
    assert len(set(ids.values())) == 2
    with launched(hub, stack, "first") as first, launched(hub, stack, "second") as second:
        assert {first["id"], second["id"]} == set(ids.values())
        mine = containers.names_of(stack.engine_url, stack.hub_name)
        assert mine == sorted([first["container"], second["container"]])
        again = hub.launch(bundle, "first")
        assert (again["id"], again["state"]) == (first["id"], "ready")


def test_a_notebook_opens_to_the_browser_with_its_grant_and_to_nobody_else(hub: HubClient, stack: Stack) -> None:
    with launched(hub, stack, "mine") as mine, launched(hub, stack, "other") as other:
        grant = entered(hub, stack, mine).grant
        assert ask(stack, mine, "/api/status", Cookie=f"{demo.COOKIE}={grant}").status_code == 200
        assert ask(stack, mine, "/api/status").status_code == 401
        assert ask(stack, mine, "/api/status", Cookie=f"{demo.COOKIE}=guessed").status_code in (401, 403)
        assert ask(stack, other, "/api/status", Cookie=f"{demo.COOKIE}={grant}").status_code == 403


def test_a_notebook_answers_nobody_who_has_no_client_certificate_of_the_hub(
    hub: HubClient, stack: Stack, engine_client: docker.DockerClient
) -> None:
    with launched(hub, stack, "direct") as session:
        container = engine_client.containers.get(session["container"])
        port = container.attrs["NetworkSettings"]["Ports"]["8888/tcp"][0]["HostPort"]
        stranger = ssl.create_default_context()
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=stranger, timeout=10)
        with closing(connection), pytest.raises((ssl.SSLError, ConnectionError)):
            _answer(connection, "/api")


def test_a_notebook_whose_container_ends_is_cleared_away_as_soon_as_somebody_asks_for_it(
    hub: HubClient, stack: Stack, engine_client: docker.DockerClient
) -> None:
    """The proxy finds the notebook silent and has it looked at; nobody waits for the next minute of its ring."""
    session = hub.launch(Path(stack.bundle), "ended")
    demo.follow(hub, session["id"], "ready", _ignore)
    session = hub.session(session["id"])
    cookie = f"{demo.COOKIE}={entered(hub, stack, session).grant}"
    assert ask(stack, session, "/api/status", Cookie=cookie).status_code == 200
    engine_client.containers.get(session["container"]).kill()
    assert ask(stack, session, "/api/status", Cookie=cookie).status_code == 503
    ended = demo.follow(hub, session["id"], "stopped", _ignore)
    assert ended["error"]["code"] == "notebook-exited"
    assert stored_objects(stack, session["id"]) == []
    assert engine_client.containers.list(all=True, filters={"name": session["container"]}) == []


def test_work_outlives_the_notebook(hub: HubClient, stack: Stack) -> None:
    with launched(hub, stack, "work") as session:
        demo.run_cell(entered(hub, stack, session), "open('kept.txt', 'w').write('still here')")
    with launched(hub, stack, "work") as session:
        assert session["container"].endswith("-2")
        output = demo.run_cell(entered(hub, stack, session), "print(open('kept.txt').read())")
        assert output.strip() == "still here"


def test_forgotten_credentials_are_gone_and_the_notebook_goes_on(
    hub: HubClient, stack: Stack, engine_client: docker.DockerClient
) -> None:
    session = hub.launch(Path(stack.bundle), "forgotten")
    demo.follow(hub, session["id"], "ready", _ignore)
    owner = {"Authorization": f"Bearer {session['owner_token']}", "Accept": "application/json"}
    answer = requests.post(f"{stack.hub_address}/sessions/{session['id']}/forget", json={}, headers=owner, timeout=30)
    assert answer.status_code == 202
    eventually(lambda: hub.session(session["id"])["credentials_held"] is False)
    assert stored_objects(stack, session["id"]) == []
    notebook = entered(hub, stack, session)
    assert demo.run_cell(notebook, "print(6 * 7)").strip() == "42"
    hub.launch(Path(stack.bundle), "forgotten")  # the key is shown again, so the hub can clear away
    hub.stop(session["id"])
    demo.follow(hub, session["id"], "stopped", _ignore)
    assert engine_client.containers.list(all=True, filters={"name": f"homeport-{session['id']}"}) == []
