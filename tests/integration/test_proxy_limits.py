"""Visitors and notebooks that take more of the proxy than is theirs: connections, time, regular expressions, 1xx."""

from __future__ import annotations

import http.client
import os
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from local import processes
from tests.proxy_rig import HUB, Rig, ask, eventually, new_host, open_session, rig, web_certificate

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="apt-get install haproxy"
)


def silent(door: Rig, *, before: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """A connection that asks for nothing, after `before`."""
    connection = socket.create_connection(("127.0.0.1", door.port), 20, source_address=(source, 0))
    if before:
        connection.sendall(before)
    return connection


def counted(door: Rig) -> int:
    """The connections that HAProxy has counted: its threads may take up a later one earlier."""
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(str(door.run / "haproxy.sock"))
        runtime.sendall(b"show table source_connections\n")
        return sum(int(word[9:]) for word in everything(runtime).decode().split() if word.startswith("conn_cur="))


def everything(connection: socket.socket) -> bytes:
    """What comes until the proxy closes the connection; fails if it does not within 20 seconds."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def status(door: Rig, host: str, cookie: str, *, source: str = "127.0.0.1", timeout: float = 20) -> int:
    """The status of a request from `source`; 0 if the connection is closed without one."""
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout, source_address=(source, 0))
    try:
        return door.ask(host, cookie=cookie, connection=connection).status
    except (ConnectionError, http.client.RemoteDisconnected):
        return 0
    finally:
        connection.close()


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_health_answers_while_silent_connections_take_all_there_are() -> None:
    with rig(environ={"HOMEPORT_PROXY_MAXCONN": "20"}) as door, ExitStack() as stack:
        host, cookie = open_session(door)
        for _ in range(30):
            stack.enter_context(silent(door))
        with pytest.raises(TimeoutError):
            status(door, host, cookie, timeout=1)
        assert door.proxy.health(timeout=2) == 200
        assert door.proxy.health("/.homeport/ready", timeout=2) == 200


def test_health_answers_while_websockets_take_all_connections() -> None:
    with rig(environ={"HOMEPORT_PROXY_MAXCONN": "20"}) as door, ExitStack() as stack:
        host, cookie = open_session(door)
        for _ in range(20):
            opened, _connection = stack.enter_context(door.websocket(host, cookie=cookie, origin=door.origin(host)))
            assert opened == 101
        with pytest.raises(TimeoutError):
            status(door, host, cookie, timeout=1)
        assert door.proxy.health(timeout=2) == 200


def test_health_has_a_listener_of_its_own() -> None:
    port = processes.free_port()
    with rig(environ={"HOMEPORT_PROXY_HEALTH_BIND": f"127.0.0.1:{port}"}) as door:
        host, cookie = open_session(door)
        assert ask(port, "10.0.0.1", "/.homeport/health").body == b"ok\n"
        assert ask(port, "10.0.0.1", "/.homeport/ready").status == 200
        for path in ("/", "/lab", "/.homeport/enter", "/.homeport/health/"):
            assert ask(port, door.address(host), path, headers=[("Cookie", f"__Host-homeport={cookie}")]).status == 404
        assert ask(port, "10.0.0.1", "/.homeport/health", method="POST").status == 405
        for path in ("/.homeport/health", "/.homeport/ready"):
            assert door.ask(host, path, cookie=cookie).status == 404
            assert ask(door.port, "10.0.0.1", path).status == 404


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_source_address_has_its_limit_and_leaves_others_theirs() -> None:
    with rig(environ={"HOMEPORT_PROXY_SOURCE_MAXCONN": "5"}) as door, ExitStack() as stack:
        host, cookie = open_session(door)
        first, *_others = [stack.enter_context(silent(door)) for _ in range(5)]
        eventually(lambda: counted(door) == 5, "five counted")
        assert status(door, host, cookie) == 0
        assert status(door, host, cookie, source="127.0.0.2") == 200
        first.close()
        eventually(lambda: status(door, host, cookie) == 200, "a place for one more")


def test_a_connection_counts_before_its_tls_handshake(tmp_path: Path) -> None:
    environ = {"HOMEPORT_PROXY_CERTIFICATE": web_certificate(tmp_path), "HOMEPORT_PROXY_SOURCE_MAXCONN": "2"}
    with rig(environ=environ) as door, ExitStack() as stack:
        opened = []
        for _ in range(6):
            with suppress(ConnectionResetError):  # closed before the client saw it opened
                opened.append(stack.enter_context(silent(door)))
        eventually(lambda: len(opened) - len(select.select(opened, [], [], 0.05)[0]) <= 2, "four closed or readable")


@contextmanager
def behind_a_load_balancer(**environ: str) -> Iterator[Rig]:
    """A proxy that is told the visitor's address by the PROXY protocol."""
    port = processes.free_port()
    bind = {"HOMEPORT_PROXY_BIND": f"127.0.0.1:{port} accept-proxy"}
    with rig(environ={**bind, "HOMEPORT_NOTEBOOK_URL": f"http://*.localhost:{port}", **environ}) as door:
        door.port = port
        yield door


def proxy_line(address: str) -> bytes:
    """What a load balancer says first, of a visitor at `address`."""
    family, target = ("TCP6", "2001:db8::ffff") if ":" in address else ("TCP4", "192.0.2.255")
    return f"PROXY {family} {address} {target} 5000 443\r\n".encode()


def asked_from(door: Rig, address: str) -> bytes:
    """The status of a request for no launch from `address`, behind the load balancer; b"" if there is none."""
    request = f"GET / HTTP/1.1\r\nHost: {door.address(new_host())}\r\nConnection: close\r\n\r\n".encode()
    with silent(door, before=proxy_line(address) + request) as connection:
        return everything(connection)[9:12]


def test_an_ipv6_network_of_64_bits_is_one_source_and_an_ipv4_address_too() -> None:
    with behind_a_load_balancer(HOMEPORT_PROXY_SOURCE_MAXCONN="2") as door, ExitStack() as stack:
        for address in ("2001:db8::1", "2001:db8::a:2", *["192.0.2.1"] * 2, *["::ffff:192.0.2.5"] * 2):
            stack.enter_context(silent(door, before=proxy_line(address)))
        eventually(lambda: counted(door) == 6, "all counted")
        assert [asked_from(door, same) for same in ("2001:db8::3", "192.0.2.1", "::ffff:192.0.2.5")] == [b""] * 3
        assert [asked_from(door, other) for other in ("2001:db8:0:1::3", "192.0.2.2", "::ffff:192.0.2.6")] == [
            b"404"
        ] * 3


def test_an_ipv6_network_of_64_bits_asks_for_what_is_not_there_as_one_source() -> None:
    with behind_a_load_balancer(HOMEPORT_PROXY_ENTRY_RATE="3") as door:
        assert [asked_from(door, f"2001:db8::{last}") for last in range(1, 6)] == [b"404"] * 3 + [b"429"] * 2
        assert asked_from(door, "2001:db8:0:1::1") == b"404"


@pytest.mark.skipif(not shutil.which("curl"), reason="apt-get install curl")
@pytest.mark.parametrize("name", ["HOMEPORT_PROXY_SOURCE_MAXCONN", "HOMEPORT_PROXY_LAUNCH_MAXCONN"])
def test_requests_that_share_an_http2_connection_are_counted_each(tmp_path: Path, name: str) -> None:
    with rig(environ={"HOMEPORT_PROXY_CERTIFICATE": web_certificate(tmp_path), name: "3"}) as door:
        host = new_host()
        notebook = door.notebook(host)
        door.publish(host, notebook.port)
        notebook.may_answer.clear()
        command = [
            "curl",
            "--silent",
            "--insecure",
            "--http2",
            "--parallel",
            "--max-time",
            "20",
            "--output",
            os.devnull,
        ]
        command += [
            "--write-out",
            "%{http_code} %{http_version}\\n",
            "--cookie",
            f"__Host-homeport={door.cookie(host)}",
        ]
        command += ["--connect-to", f"::127.0.0.1:{door.port}", f"https://{door.address(host)}/lab/[1-8]"]
        log = door.folder / "haproxy.log"
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
            eventually(lambda: log.read_text().count(" HTTP/2.0 429 ") == 5, "five refusals")
            notebook.may_answer.set()
            answers, _nothing = curl.communicate(timeout=30)
    assert answers.split("\n") == ["429 2"] * 5 + ["200 2"] * 3 + [""]


def test_a_launch_has_its_limit_and_leaves_others_theirs() -> None:
    with rig(environ={"HOMEPORT_PROXY_LAUNCH_MAXCONN": "3"}) as door, ExitStack() as stack:
        host, cookie = open_session(door)
        neighbour, theirs = open_session(door)
        sockets = [door.websocket(host, cookie=cookie, origin=door.origin(host)) for _ in range(3)]
        opened = [stack.enter_context(one) for one in sockets]
        assert [found for found, _connection in opened] == [101] * 3
        with door.websocket(host, cookie=cookie, origin=door.origin(host)) as (found, _):
            assert found == 429
        assert status(door, host, cookie) == 429
        assert status(door, neighbour, theirs) == 200
        opened[0][1].close()
        eventually(lambda: status(door, host, cookie) == 200, "a place for one more")


def test_who_has_no_grant_takes_no_place_of_the_launch() -> None:
    with rig(environ={"HOMEPORT_PROXY_LAUNCH_MAXCONN": "1"}) as door, ExitStack() as stack:
        host, cookie = open_session(door)
        started = f"POST /lab HTTP/1.1\r\nHost: {door.address(host)}\r\nOrigin: {door.origin(host)}\r\n"
        for _ in range(3):
            stack.enter_context(silent(door, before=started.encode() + b"Content-Length: 100000\r\n\r\nx"))
        assert status(door, host, cookie) == 200


# ── slow clients ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_slow_clients_are_cut_off_and_websockets_are_not() -> None:
    with rig(environ={"HOMEPORT_PROXY_REQUEST_TIME": "2s", "HOMEPORT_PROXY_PAUSE": "2s"}) as door:
        host, cookie = open_session(door)
        start = f"POST /lab HTTP/1.1\r\nHost: {door.address(host)}\r\n"
        granted = (
            f"{start}Origin: {door.origin(host)}\r\nCookie: __Host-homeport={cookie}\r\nContent-Length: 9\r\n\r\nx"
        )
        with door.websocket(host, cookie=cookie, origin=door.origin(host)) as (found, tunnel), ExitStack() as stack:
            assert found == 101
            slow = [stack.enter_context(silent(door, before=sent.encode())) for sent in ("", start)]
            pausing = stack.enter_context(silent(door, before=granted.encode()))
            answers = [everything(connection) for connection in slow]
            assert answers[1].startswith(b"HTTP/1.1 408 ")
            pausing.recv(
                100
            )  # what its notebook makes of half a body, or nothing; fails if neither comes in 20 seconds
            tunnel.sendall(b"\x81\x05hello")
            assert tunnel.recv(100) == b"\x81\x05hello"


def test_a_tls_handshake_or_http2_without_a_request_is_cut_off(tmp_path: Path) -> None:
    environ = {
        "HOMEPORT_PROXY_CERTIFICATE": web_certificate(tmp_path),
        "HOMEPORT_PROXY_REQUEST_TIME": "1s",
        "HOMEPORT_PROXY_PAUSE": "1s",
    }
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with rig(environ=environ) as door:
        with silent(door) as connection:
            assert everything(connection) == b""
        with context.wrap_socket(silent(door)) as secure:
            assert secure.selected_alpn_protocol() == "h2"
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # RFC 9113 §3.4
            everything(secure)


# ── cookies ──────────────────────────────────────────────────────────────────────────────────────────────────────


TOO_MANY = ["a=" + "b" * 4096, "a=1" + "; " * 14000 + "x", "; ".join(f"a{n}=1" for n in range(65))]
TOO_MANY.append('q="; ' + TOO_MANY[-1])  # a parser of quoted values counts one cookie


@pytest.mark.parametrize("cookies", TOO_MANY)
def test_of_too_many_or_too_long_cookies_the_notebook_sees_none(door: Rig, cookies: str) -> None:
    host, cookie = open_session(door)
    granted = f"__Host-homeport={cookie}"
    for sent in (f"{cookies}; {granted}", f"{granted}; {cookies}"):
        for destination in ([], [("Sec-Fetch-Dest", "empty")]):
            answer = door.ask(host, headers=[("Cookie", sent), *destination])
            assert (answer.status, answer.seen_all("Cookie")) == (200, [])
    assert door.ask(host, headers=[("Cookie", cookies), ("Cookie", granted)]).status == 400


@pytest.mark.parametrize("cookies", TOO_MANY)
def test_a_page_that_is_opened_with_too_many_or_too_long_cookies_is_one_that_deletes_them(
    door: Rig, cookies: str
) -> None:
    host = new_host()
    notebook = door.notebook(host)
    door.publish(host, notebook.port)
    sent = [("Cookie", f"{cookies}; __Host-homeport={door.cookie(host)}"), ("Sec-Fetch-Dest", "document")]
    answer = door.ask(host, headers=sent)
    assert (answer.status, notebook.asked) == (431, 0)
    assert "Delete this site’s cookies" in answer.body.decode()
    form = [*sent, ("Origin", HUB), ("Content-Type", "application/x-www-form-urlencoded")]
    entered = door.ask(
        host, "/.homeport/enter", method="POST", headers=form, body=f"ticket={door.ticket(host)}".encode()
    )
    assert entered.status == 303


@pytest.mark.parametrize("shape", ["{}", '{}; q="', "{}; {}"])
def test_no_cookie_costs_more_than_others_of_its_length_to_find_the_grant_in(door: Rig, shape: str) -> None:
    host, cookie = open_session(door)
    granted = f"__Host-homeport={cookie}"

    def spent(value: str) -> float:
        assert door.proxy.haproxy is not None
        stat = Path(f"/proc/{door.proxy.haproxy.pid}/stat")
        before = int(stat.read_text().split()[13])
        for _ in range(40):
            assert door.ask(host, headers=[("Cookie", value)]).status in (200, 400)
        return (int(stat.read_text().split()[13]) - before) / os.sysconf("SC_CLK_TCK")

    plain = spent("a=" + "b" * 25000 + f"; {granted}")
    for part in (" ", "; ", ";", "\t", "__Host-homeport=", "; __Host-homeport", "; _xsrf=", "__Host-homeport"):
        many = part * (25000 // len(part))
        assert spent(f"a={many}; {shape.format(granted, granted)}") < plain + 0.25, part


@pytest.mark.parametrize(
    "cookies", ["_xsrf=,", "_xsrf=", "a=1; _xsrf=mine", "-_xsrf=1", f"_xsrf={'é'}", "{0}; _xsrf=1", "_xsrf=1; {0}"]
)
def test_a_page_that_is_opened_with_an_xsrf_cookie_that_is_not_tornado_s_is_one_that_deletes_it(
    door: Rig, cookies: str
) -> None:
    host, cookie = open_session(door)
    tornado_s = "_xsrf=2|94340c6e|8423cd1792febb50eb6dfedfb2c0b758|1795533153"

    def opened(cookies: str, destination: str) -> int:
        sent = f"{cookies}; __Host-homeport={cookie}".encode().decode("latin1")
        return door.ask(host, headers=[("Cookie", sent), ("Sec-Fetch-Dest", destination)]).status

    assert opened(cookies.format(tornado_s), "document") == 431
    assert opened(cookies.format(tornado_s), "empty") == 200
    for good in (tornado_s, f"a=1; {tornado_s}; b=2", "my_xsrf=1", "a=_xsrf"):
        assert opened(good, "document") == 200


def test_of_several_xsrf_cookies_the_last_is_the_one_that_the_launch_s_own_page_sent(door: Rig) -> None:
    host, cookie = open_session(door)

    def seen(cookies: str, *sent: str, method: str = "POST") -> list[str]:
        headers = [("Cookie", f"__Host-homeport={cookie}{cookies}"), *(("X-XSRFToken", one) for one in sent)]
        answer = door.ask(host, method=method, origin=door.origin(host), headers=headers, body=b"x")
        assert answer.status == 200
        return answer.seen_all("Cookie")

    assert seen("; _xsrf=mine; _xsrf=theirs", "mine") == ["_xsrf=mine; _xsrf=theirs; _xsrf=mine"]
    assert seen("", "mine") == ["_xsrf=mine"]
    assert seen("", "__Host-homeport=2") == ["_xsrf=__Host-homeport=2"]  # a neighbour's, and never the grant
    assert seen("; a=" + "b" * 5000, "mine") == ["_xsrf=mine"]
    assert seen("; a=1", "mine", method="GET") == seen("; a=1") == seen("; a=1", "x", "y") == ["a=1"]
    assert seen("; a=1", "x; b=2") == seen("; a=1", "x" * 5000) == ["a=1"]


def test_another_origin_s_page_gets_no_xsrf_cookie_set(door: Rig) -> None:
    host, cookie = open_session(door)
    other = door.origin(new_host())
    assert door.ask(host, cookie=cookie, method="POST", origin=other, headers=[("X-XSRFToken", "x")]).status == 403


def test_as_many_and_as_long_cookies_as_are_allowed_pass(door: Rig) -> None:
    host, cookie = open_session(door)
    granted = f"__Host-homeport={cookie}"
    many = "; ".join(f"a{n}=1" for n in range(63))
    long = "a=" + "b" * (4096 - len(f"a=; {granted}"))
    for sent in (many, long):
        assert door.ask(host, headers=[("Cookie", f"{sent}; {granted}")]).seen_all("Cookie") == [sent]


def test_no_allowed_cookie_costs_more_than_others_of_its_length(door: Rig) -> None:
    """The time of HAProxy's own processor, for blanks that a regular expression may try from each one on."""
    host, cookie = open_session(door)

    def spent(value: str) -> float:
        assert door.proxy.haproxy is not None
        stat = Path(f"/proc/{door.proxy.haproxy.pid}/stat")
        before = int(stat.read_text().split()[13])
        for _ in range(40):
            assert door.ask(host, headers=[("Cookie", f"{value}; __Host-homeport={cookie}")]).status == 200
        return (int(stat.read_text().split()[13]) - before) / os.sysconf("SC_CLK_TCK")

    plain = spent("a=" + "b" * 3900)
    for gap in (" ", "; ", ";", "\t"):
        assert spent("a=1" + gap * (3900 // len(gap)) + "x") < plain + 0.25, gap


# ── interim responses ────────────────────────────────────────────────────────────────────────────────────────────


def hostile_answer(door: Rig, numbers: tuple[int, ...], *, late: bool) -> bytes:
    """What a browser receives of a notebook that sends these interim responses before its answer."""
    host = new_host()
    notebook = door.notebook(host)
    door.publish(host, notebook.port)
    fields = "Link: </evil>; rel=preload\r\nSet-Cookie: __Host-homeport=theirs; Domain=localhost\r\n\r\n"
    notebook.interim = "".join(f"HTTP/1.1 {number} Evil\r\n{fields}" for number in numbers).encode()
    lines = ["GET /lab HTTP/1.1", f"Host: {door.address(host)}", "Connection: close"]
    lines += [f"Cookie: __Host-homeport={door.cookie(host)}", "Expect: 100-continue"]
    if late:
        notebook.may_answer.clear()
    received: list[bytes] = []
    with silent(door, before="\r\n".join(lines).encode() + b"\r\n\r\n") as connection:
        reader = Thread(target=lambda: received.append(everything(connection)))
        reader.start()
        eventually(lambda: notebook.asked, "the request at the notebook")
        notebook.may_answer.set()
        reader.join(20)
    assert received
    return received[0]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("numbers", [(100,), (102,), (103,), (199,), (100, 103), (103, 103)])
def test_no_interim_response_of_a_notebook_reaches_the_browser(door: Rig, numbers: tuple[int, ...], late: bool) -> None:
    received = hostile_answer(door, numbers, late=late)
    assert b"evil" not in received.lower()
    assert b"theirs" not in received


def test_an_interim_response_on_a_kept_connection_is_refused_too(door: Rig) -> None:
    host = new_host()
    notebook = door.notebook(host)
    door.publish(host, notebook.port)
    cookie = door.cookie(host)
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    try:
        assert door.ask(host, cookie=cookie, connection=connection).status == 200
        notebook.interim = b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=theirs\r\n\r\n"
        with pytest.raises(http.client.RemoteDisconnected):
            door.ask(host, cookie=cookie, connection=connection)
    finally:
        connection.close()


def test_a_notebook_is_not_told_that_an_interim_response_is_expected(door: Rig) -> None:
    host, cookie = open_session(door)
    headers = [("Expect", "100-continue")]
    answer = door.ask(host, cookie=cookie, method="POST", origin=door.origin(host), headers=headers, body=b"x")
    assert (answer.status, answer.seen["body"], answer.seen_all("Expect")) == (200, "x", [])
