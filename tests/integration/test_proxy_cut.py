"""Open websockets and downloads of a launch that ends: real HAProxy, the real agent, stand-in notebooks."""

from __future__ import annotations

import http.client
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from threading import Thread

import pytest

from chalicelib.aws.routes import Route
from proxy.agent.table import Map
from tests.proxy_rig import NotebookServer, Rig, closed, eventually, lives, new_host, rig

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="apt-get install haproxy"
)


@pytest.fixture
def door() -> Iterator[Rig]:
    with rig() as running:
        yield running


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def launch(door: Rig) -> tuple[str, NotebookServer]:
    """A launch with its notebook; all of them are at the same address."""
    host = new_host()
    notebook = door.notebook(host)
    door.publish(host, notebook.port)
    return host, notebook


def websocket(door: Rig, host: str, cookie: str, stack: ExitStack) -> socket.socket:
    """An open websocket."""
    status, connection = stack.enter_context(door.websocket(host, cookie=cookie, origin=door.origin(host)))
    assert status == 101
    assert lives(connection)
    return connection


def refused(door: Rig, host: str, cookie: str) -> int:
    """The status of a websocket that is not opened."""
    with door.websocket(host, cookie=cookie, origin=door.origin(host)) as (status, _):
        return status


def revoke(door: Rig, host: str, cookie: str) -> None:
    digest = sha256(cookie.encode()).hexdigest()
    granted = door.store.grant(digest)
    assert granted is not None
    door.store.put(replace(granted, revoked=True, changed_at=door.store.now_ms()))
    eventually(lambda: digest not in door.table(Map.GRANTS), "the grant gone from HAProxy")


def test_a_withdrawn_launch_s_websockets_are_closed_and_its_neighbour_s_live(door: Rig, stack: ExitStack) -> None:
    (first, _), (second, _) = launch(door), launch(door)
    cookies = {host: door.cookie(host) for host in (first, second)}
    mine = [websocket(door, first, cookies[first], stack) for _ in range(3)]
    theirs = websocket(door, second, cookies[second], stack)
    door.withdraw(first)
    assert all(closed(connection) for connection in mine)
    assert refused(door, first, cookies[first]) == 404
    assert lives(theirs)


def test_a_withdrawn_launch_s_download_is_broken_off_and_its_kept_connection_gets_no_further(
    door: Rig, stack: ExitStack
) -> None:
    host, notebook = launch(door)
    cookie = door.cookie(host)
    kept = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    stack.callback(kept.close)
    assert door.ask(host, cookie=cookie, connection=kept).status == 200
    notebook.may_answer.clear()
    stack.callback(notebook.may_answer.set)
    statuses: list[int] = []
    waiting = Thread(target=lambda: statuses.append(door.ask(host, cookie=cookie).status))
    waiting.start()
    eventually(lambda: notebook.asked == 2, "the second request at the notebook")
    door.withdraw(host)
    waiting.join(20)
    assert statuses == [503]
    assert door.ask(host, cookie=cookie, connection=kept).status == 404


def test_the_grants_of_a_withdrawn_launch_are_gone_too(door: Rig) -> None:
    (first, _), (second, _) = launch(door), launch(door)
    for host in (first, first, second):
        door.cookie(host)
    door.withdraw(first)
    eventually(lambda: set(door.table(Map.GRANTS).values()) == {second}, "the grants gone from HAProxy")


def test_a_launch_that_expires_has_its_websockets_closed(door: Rig, stack: ExitStack) -> None:
    host, _notebook = launch(door)
    connection = websocket(door, host, door.cookie(host), stack)
    route = door.store.route(host)
    assert route is not None
    door.store.put(replace(route, expires_at=0, changed_at=door.store.now_ms()))
    assert closed(connection)


def test_a_launch_that_moves_has_the_websockets_to_its_former_port_closed(door: Rig, stack: ExitStack) -> None:
    host, _notebook = launch(door)
    cookie = door.cookie(host)
    before = websocket(door, host, cookie, stack)
    door.publish(host, door.notebook(host).port)
    after = websocket(door, host, cookie, stack)
    assert closed(before)
    assert lives(after)


def test_a_revoked_grant_s_websocket_is_closed_and_a_good_grant_s_comes_back(door: Rig, stack: ExitStack) -> None:
    host, _notebook = launch(door)
    bad, good = door.cookie(host), door.cookie(host)
    connections = [websocket(door, host, cookie, stack) for cookie in (bad, good)]
    revoke(door, host, bad)
    assert all(closed(connection) for connection in connections)
    assert refused(door, host, bad) == 401
    again = websocket(door, host, good, stack)
    for _ in range(5):  # so that the agent looks again and again
        other, _notebook = launch(door)
        revoke(door, other, door.cookie(other))
        assert lives(again)


def test_an_agent_that_starts_after_a_withdrawal_closes_what_is_left_open(door: Rig, stack: ExitStack) -> None:
    (first, _), (second, _) = launch(door), launch(door)
    mine, theirs = (websocket(door, host, door.cookie(host), stack) for host in (first, second))
    door.stop_agent()
    with door.runtime.connected() as haproxy:  # the agent ended just after it had told HAProxy and the disk
        haproxy.ask(f"del map {Map.ROUTES} {first}")
    route = door.store.route(first)
    assert route is not None
    door.store.put(Route(first, None, False, door.store.now_ms(), route.expires_at))
    lines = (door.run / Map.ROUTES).read_text().splitlines(keepends=True)
    (door.run / Map.ROUTES).write_text("".join(line for line in lines if first not in line))
    assert lives(mine)
    door.start_agent()
    assert closed(mine)
    assert lives(theirs)


def test_every_stream_of_many_is_cut(door: Rig, stack: ExitStack) -> None:
    (first, _), (second, _) = launch(door), launch(door)
    cookies = {host: door.cookie(host) for host in (first, second)}
    mine, theirs = ([websocket(door, host, cookies[host], stack) for _ in range(100)] for host in (first, second))
    door.withdraw(first)
    assert all(closed(connection) for connection in mine)
    assert all(lives(connection) for connection in theirs)
