"""The proxy as visitor, neighbour and hostile notebook meet it: real HAProxy, the real agent, stand-in notebooks."""

from __future__ import annotations

import http.client
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256

import pytest

from chalicelib.aws.routes import Grant, Route
from chalicelib.notebook.certificates import new_ca
from chalicelib.session.values import Target
from proxy.agent import files
from proxy.agent.runtime import RuntimeSocket
from proxy.agent.table import Map, Put
from tests.builders import SIGN_IN
from tests.contract.runtime_socket import RuntimeSocketContract
from tests.proxy_rig import HUB, Rig, ask, eventually, lives, new_host, open_session, rig

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="apt-get install haproxy"
)

HARMFUL = ("Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "Service-Worker-Allowed", "Report-To", "NEL")


def relaunched(door: Rig, earlier: str) -> str:
    """Stop a launch, and launch its session again."""
    door.withdraw(earlier)
    host = new_host(earlier.partition("-")[0])
    door.publish(host, door.notebook(host).port)
    return host


class TestHaproxy(RuntimeSocketContract):
    @pytest.fixture
    def alone(self) -> Iterator[Rig]:
        with rig(agent=False) as running:
            yield running

    @pytest.fixture
    def runtime(self, alone: Rig) -> RuntimeSocket:
        return alone.runtime

    @pytest.fixture
    def open_stream(self, alone: Rig) -> Iterator[Callable[[str], str]]:
        with ExitStack() as stack:

            def opened(host: str) -> str:
                target = f"127.0.0.1|{alone.notebook(host).port}"
                digest = sha256(b"cookie of " + host.encode()).hexdigest()
                with alone.runtime.connected() as haproxy:
                    haproxy.execute([Put(Map.ROUTES, host, target), Put(Map.GRANTS, digest, host)])
                websocket = alone.websocket(host, cookie=f"cookie of {host}", origin=alone.origin(host))
                assert stack.enter_context(websocket)[0] == 101
                return target

            yield opened


# ── entering ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ticket_becomes_a_cookie_that_opens_the_notebook(door: Rig) -> None:
    host = new_host()
    door.publish(host, door.notebook(host).port)
    entered = door.enter(host, door.ticket(host))
    assert (entered.status, entered.get("Location")) == (303, "/lab")
    cookie, *attributes = (entered.get("Set-Cookie") or "").split("; ")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} < set(attributes)
    assert not any(attribute.startswith("Domain") for attribute in attributes)
    name, value = cookie.split("=", 1)
    assert name == "__Host-homeport"
    assert len(value) == 43
    assert entered.get("Cache-Control") == "no-store"
    answer = door.ask(host, cookie=value)
    assert (answer.status, answer.seen["notebook"]) == (200, host)


def test_a_ticket_is_good_once(door: Rig) -> None:
    host = new_host()
    ticket = door.ticket(host)
    assert door.enter(host, ticket).status == 303
    again = door.enter(host, ticket)
    assert again.status == 403
    assert HUB.encode() in again.body


def test_a_ticket_opens_no_other_session(door: Rig) -> None:
    host = new_host()
    ticket = door.ticket(host)
    assert door.enter(new_host(), ticket).status == 403
    assert door.enter(host, ticket).status == 303


@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:8001", "https://localhost:8000", "http://evil.example"]
)
def test_only_the_hubs_page_may_enter(door: Rig, origin: str | None) -> None:
    host = new_host()
    assert door.enter(host, door.ticket(host), origin=origin).status == 403


def test_an_entry_is_posted(door: Rig) -> None:
    answer = door.ask(new_host(), "/.homeport/enter")
    assert (answer.status, answer.get("Allow")) == (405, "POST")
    assert door.ask(new_host(), "/.homeport/other").status == 404


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example", "https://evil.example/", "/.homeport/enter", "/a%0d%0ab:c"]
)
def test_an_entry_leads_to_a_path_on_this_origin(door: Rig, path: str) -> None:
    host = new_host()
    assert door.enter(host, door.ticket(host), path=path).get("Location") == "/lab"


def test_an_entry_leads_to_the_ticket_s_or_the_form_s_path(door: Rig) -> None:
    host = new_host()
    assert door.enter(host, door.ticket(host, path="/lab/tree/a%20b.ipynb")).get("Location") == "/lab/tree/a%20b.ipynb"
    assert door.enter(host, door.ticket(host), path="/terminals/1").get("Location") == "/terminals/1"


def test_a_long_entry_is_refused(door: Rig) -> None:
    host = new_host()
    form = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", HUB)]
    answer = door.ask(host, "/.homeport/enter", method="POST", headers=form, body=b"ticket=" + b"a" * 10_000)
    assert answer.status == 413


def test_entering_too_often_from_one_address_is_slowed() -> None:
    with rig(environ={"HOMEPORT_PROXY_ENTRY_RATE": "5"}) as door:
        assert [door.ask(new_host()).status for _ in range(6)] == [404] * 5 + [429]


# ── who gets in ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_browser_without_the_grant_is_told_to_come_from_the_hub(door: Rig) -> None:
    host, _ = open_session(door)
    answer = door.ask(host)
    assert answer.status == 401
    assert answer.get("Cache-Control") == "no-store"
    assert f'href="{HUB}/"'.encode() in answer.body
    assert door.ask(host, cookie="invented").status == 401


def test_the_grant_of_another_session_is_refused(door: Rig) -> None:
    host, _ = open_session(door)
    _, others = open_session(door)
    assert door.ask(host, cookie=others).status == 403


def test_the_grant_of_an_earlier_launch_is_refused(door: Rig) -> None:
    earlier, cookie = open_session(door)
    host = relaunched(door, earlier)
    assert door.ask(host, cookie=cookie).status == 403
    assert door.ask(host, cookie=door.cookie(host)).status == 200
    assert door.ask(earlier, cookie=cookie).status == 404


def test_a_grant_of_the_session_as_such_opens_no_launch_with_a_label(door: Rig) -> None:
    """What the version before gave away was for all launches of a session."""
    host, _ = open_session(door)
    sid = host.partition("-")[0]
    old = door.cookie(sid)
    assert door.ask(host, cookie=old).status == 403
    assert door.ask(sid, cookie=old).status == 404


def test_a_ticket_of_an_earlier_launch_opens_no_later_one(door: Rig) -> None:
    earlier, _ = open_session(door)
    ticket = door.ticket(earlier)
    host = relaunched(door, earlier)
    assert door.enter(host, ticket).status == 403
    assert door.enter(host, door.ticket(host)).status == 303


def test_the_notebook_of_an_earlier_launch_is_not_taken_for_a_later_one(door: Rig) -> None:
    """Its container may have come back at the address and port that the engine gave to the later one before."""
    earlier = new_host()
    notebook = door.notebook(earlier)
    host = new_host(earlier.partition("-")[0])
    door.publish(host, notebook.port)
    assert door.ask(host, cookie=door.cookie(host)).status == 503
    assert notebook.asked == 0


def test_a_launch_without_a_label_is_served_under_the_sessions_id(door: Rig) -> None:
    sid = new_host().partition("-")[0]
    door.publish(sid, door.notebook(sid).port)
    assert door.ask(sid, cookie=door.cookie(sid)).seen["notebook"] == sid


def test_a_revoked_grant_is_refused_within_the_feed_s_time(door: Rig) -> None:
    host, cookie = open_session(door)
    digest = sha256(cookie.encode()).hexdigest()
    door.store.put(Grant(digest, host, True, door.store.now_ms(), int(time.time()) + 3600, SIGN_IN))
    eventually(lambda: digest not in door.table(Map.GRANTS), "the grant gone")
    assert door.ask(host, cookie=cookie).status == 401


def test_a_withdrawn_route_is_gone(door: Rig) -> None:
    host, cookie = open_session(door)
    assert door.ask(host, cookie=cookie).status == 200
    door.withdraw(host)
    answer = door.ask(host, cookie=cookie)
    assert answer.status == 404
    assert b"no notebook here" in answer.body


@pytest.mark.parametrize(
    "named",
    [
        "localhost:{port}",
        "{host}.localhost",
        "{host}.localhost:1",
        "{host}.evil.example:{port}",
        "x.{host}.localhost:{port}",
    ],
)
def test_a_host_that_is_not_exactly_a_launch_s_is_nobody(door: Rig, named: str) -> None:
    host, cookie = open_session(door)
    assert door.ask(host, cookie=cookie, named=named.format(host=host, port=door.port)).status == 404


def test_the_host_s_case_does_not_matter(door: Rig) -> None:
    host, cookie = open_session(door)
    assert door.ask(host, cookie=cookie, named=door.address(host).upper()).status == 200


def test_one_connection_for_two_sessions_reaches_each_one_s_own_notebook(door: Rig) -> None:
    first, second = open_session(door), open_session(door)
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    try:
        for host, cookie in (first, second, first, second):
            assert door.ask(host, cookie=cookie, connection=connection).seen["notebook"] == host
        assert door.ask(first[0], cookie=second[1], connection=connection).status == 403
    finally:
        connection.close()


# ── what is sent twice, or oddly ─────────────────────────────────────────────────────────────────────────────────


def test_two_hosts_are_refused(door: Rig) -> None:
    (first, cookie), (second, _) = open_session(door), open_session(door)
    assert door.ask(first, cookie=cookie, named=[door.address(first), door.address(second)]).status == 400
    assert door.ask(first, cookie=cookie, named=[door.address(second), door.address(first)]).status == 400
    same = door.ask(first, cookie=cookie, named=[door.address(first), door.address(first)])
    assert same.seen_all("Host") == [door.address(first)]  # HAProxy's parser makes one of two that are alike


@pytest.mark.parametrize("separate", [False, True])
def test_two_grant_cookies_are_refused(door: Rig, separate: bool) -> None:
    host, cookie = open_session(door)
    pair = [f"__Host-homeport={cookie}", "__Host-homeport=other"]
    headers = [("Cookie", value) for value in pair] if separate else [("Cookie", "; ".join(pair))]
    assert door.ask(host, headers=headers).status == 400


def test_two_origins_are_refused(door: Rig) -> None:
    host, cookie = open_session(door)
    both = [("Origin", door.origin(host)), ("Origin", "http://evil.example")]
    assert door.ask(host, cookie=cookie, method="POST", headers=both, body=b"x").status == 400


def test_a_target_that_names_another_host_is_refused(door: Rig) -> None:
    (first, cookie), (second, _) = open_session(door), open_session(door)
    assert door.ask(first, f"http://{door.address(second)}/lab", cookie=cookie).status == 400
    assert door.ask(second, f"http://{door.address(first)}/lab", cookie=cookie).status == 400


@pytest.mark.parametrize("value", ['q="a; __Host-homeport={}"', "q=1,__Host-homeport={}", "q=%3B__Host-homeport={}"])
def test_a_grant_hidden_in_another_cookie_never_reaches_the_notebook(door: Rig, value: str) -> None:
    host, cookie = open_session(door)
    assert door.ask(host, headers=[("Cookie", value.format(cookie))]).status in (400, 401)
    both = f"{value.format(cookie)}; __Host-homeport={cookie}"
    answer = door.ask(host, headers=[("Cookie", both)])
    assert answer.status in (200, 400)
    assert cookie.encode() not in answer.body


@pytest.mark.parametrize(
    "planted", ['q="a', "q=\\", "q=1,__Host-homeport=2", "q__Host-homeport=1", ",", "q=(", "=", "$v=1"]
)
def test_a_cookie_of_a_neighbour_does_not_hide_the_grant(door: Rig, planted: str) -> None:
    host, cookie = open_session(door)
    granted = f"__Host-homeport={cookie}"
    for sent in (f"{planted}; {granted}", f"{granted}; {planted}", f"{planted}; {granted}; {planted}"):
        answer = door.ask(host, headers=[("Cookie", sent)])
        assert (answer.status, answer.seen["notebook"]) == (200, host)
        assert cookie.encode() not in answer.body


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X.Real", "Cook_ie"])
def test_header_names_with_odd_characters_are_refused(door: Rig, name: str) -> None:
    host, cookie = open_session(door)
    assert door.ask(host, cookie=cookie, headers=[(name, "1")]).status in (400, 403)


# ── other origins ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_unsafe_methods_need_the_session_s_own_origin(door: Rig, method: str) -> None:
    host, cookie = open_session(door)
    neighbour = door.origin(new_host())
    for origin in (
        None,
        "null",
        HUB,
        neighbour,
        door.origin(host).replace("http:", "https:"),
        f"http://{host}.localhost",
    ):
        assert door.ask(host, cookie=cookie, origin=origin, method=method, body=b"x").status == 403
    answer = door.ask(host, cookie=cookie, origin=door.origin(host), method=method, body=b"x")
    assert (answer.status, answer.seen["method"], answer.seen["body"]) == (200, method, "x")


def test_a_websocket_from_another_origin_is_refused(door: Rig) -> None:
    host, cookie = open_session(door)
    for origin in (None, "null", HUB, door.origin(new_host())):
        with door.websocket(host, cookie=cookie, origin=origin) as (status, _):
            assert status == 403
    with door.websocket(host, cookie=None, origin=door.origin(host)) as (status, _):
        assert status == 401


def test_a_websocket_from_the_session_s_own_origin_passes_and_echoes(door: Rig) -> None:
    host, cookie = open_session(door)
    with door.websocket(host, cookie=cookie, origin=door.origin(host)) as (status, connection):
        assert status == 101
        for word in (b"\x81\x05hello", b"\x81\x05again"):
            connection.sendall(word)
            assert connection.recv(100) == word


def test_a_websocket_waits_for_a_grant_that_another_proxy_has_just_made(door: Rig) -> None:
    host, _ = open_session(door)
    cookie = secrets.token_urlsafe(32)
    grant = Grant(sha256(cookie.encode()).hexdigest(), host, False, door.store.now_ms(), int(time.time()) + 60, SIGN_IN)
    with ThreadPoolExecutor(1) as other, ExitStack() as stack:
        asked = other.submit(stack.enter_context, door.websocket(host, cookie=cookie, origin=door.origin(host)))
        eventually(lambda: waits(door), "the handshake in HAProxy")
        door.store.put(grant)
        status, connection = asked.result(20)
        assert status == 101
        assert lives(connection)


def waits(door: Rig) -> bool:
    """Say whether HAProxy holds a visitor's request that it has sent nowhere yet."""
    with door.runtime.connected() as haproxy:
        return "fe=notebooks_in be=<NONE>" in haproxy.ask("show sess")


def test_a_websocket_with_a_grant_that_nobody_made_is_refused_after_that(door: Rig) -> None:
    host, _ = open_session(door)
    for cookie in (secrets.token_urlsafe(32), "odd"):
        with door.websocket(host, cookie=cookie, origin=door.origin(host)) as (status, _):
            assert status == 401


def test_a_neighbour_s_page_can_link_here_but_embed_nothing(door: Rig) -> None:
    host, cookie = open_session(door)

    def fetched(site: str, mode: str, dest: str) -> int:
        headers = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest)]
        return door.ask(host, cookie=cookie, headers=headers).status

    assert fetched("same-origin", "cors", "empty") == 200
    assert fetched("none", "navigate", "document") == 200
    assert fetched("cross-site", "navigate", "document") == 200
    assert fetched("same-site", "no-cors", "image") == 403
    assert fetched("same-site", "cors", "empty") == 403
    assert fetched("same-site", "navigate", "iframe") == 403
    assert fetched("same-origin", "navigate", "iframe") == 200


# ── the notebook's side ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_route_to_another_session_s_notebook_is_answered_503(door: Rig) -> None:
    other = new_host()
    notebook = door.notebook(other)
    host = new_host()
    door.publish(host, notebook.port)
    answer = door.ask(host, cookie=door.cookie(host))
    assert (answer.status, notebook.asked) == (503, 0)
    assert b"does not answer" in answer.body


def test_a_certificate_of_another_ca_is_answered_503(door: Rig) -> None:
    host = new_host()
    stranger = new_ca("stranger", now=time.time(), lifetime=3600)
    from chalicelib.notebook.certificates import issue_notebook

    notebook = door.notebook(host, leaf=issue_notebook(stranger, host, now=time.time(), lifetime=3600))
    door.publish(host, notebook.port)
    assert door.ask(host, cookie=door.cookie(host)).status == 503
    assert notebook.asked == 0


def test_a_notebook_that_knows_another_client_ca_hangs_up(door: Rig) -> None:
    host = new_host()
    stranger = new_ca("stranger", now=time.time(), lifetime=3600)
    notebook = door.notebook(host, client_ca=stranger.certificate)
    door.publish(host, notebook.port)
    assert door.ask(host, cookie=door.cookie(host)).status == 503
    assert notebook.asked == 0


def test_a_notebook_that_is_gone_is_answered_503_and_the_hub_told_to_look_at_it(door: Rig) -> None:
    assert door.agent is not None
    hosts = [new_host(), new_host()]
    for host in hosts:
        door.publish(host, 1)
        cookie = door.cookie(host)
        for _ in range(3):
            assert door.ask(host, cookie=cookie).status == 503
    told, sids = door.agent.reported, [host.partition("-")[0] for host in hosts]
    eventually(lambda: sids[1] in told, "the report")
    assert [sid for sid in told if sid in sids] == sids, "each once in a minute"


def test_what_is_refused_or_unknown_is_not_reported(door: Rig) -> None:
    assert door.agent is not None
    refused, silent = new_host(), new_host()
    for host in (refused, silent):
        door.publish(host, 1)
    assert door.ask(refused).status == 401
    assert door.ask(refused, cookie=door.cookie(silent)).status == 403
    assert door.ask(silent, cookie=door.cookie(silent)).status == 503
    eventually(lambda: silent.partition("-")[0] in door.agent.reported, "the report of what came last")  # type: ignore[union-attr]
    assert refused.partition("-")[0] not in door.agent.reported


def test_a_notebook_behind_ipv6_is_reached(door: Rig) -> None:
    host = new_host()
    door.publish(host, door.notebook(host, bind="::1").port, address="::1")
    assert door.ask(host, cookie=door.cookie(host)).status == 200


def test_the_notebook_never_sees_the_grant_and_all_other_cookies(door: Rig) -> None:
    host, cookie = open_session(door)
    ours = f"__Host-homeport={cookie}"
    for sent, seen in (
        (ours, []),
        (f"{ours}; _xsrf=2|a|b", ["_xsrf=2|a|b"]),
        (f"_xsrf=1; {ours}", ["_xsrf=1"]),
        (f'a=1; {ours}; b="2"', ['a=1; b="2"']),
        (f"a=1;{ours};b=2;x__Host-other=3", ["a=1; b=2;x__Host-other=3"]),
    ):
        answer = door.ask(host, headers=[("Cookie", sent)])
        assert (answer.status, answer.seen_all("Cookie")) == (200, seen)
        assert cookie not in answer.body.decode()


def test_the_notebook_is_told_the_truth_about_the_visitor(door: Rig) -> None:
    host, cookie = open_session(door)
    lies = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-IP", "X-Scheme")
    headers = [(name, "liar") for name in (*lies, "Forwarded", "X-Homeport-Host")]
    answer = door.ask(host, cookie=cookie, headers=headers)
    assert "liar" not in answer.body.decode()
    assert answer.seen_all("X-Forwarded-For") == ["127.0.0.1"]
    assert answer.seen_all("X-Forwarded-Host") == [door.address(host)]
    assert answer.seen_all("X-Forwarded-Proto") == ["http"]
    assert answer.seen_all("X-Forwarded-Port") == [str(door.port)]
    assert answer.seen_all("Host") == [door.address(host)]


@pytest.mark.parametrize("name", HARMFUL)
def test_headers_that_outlast_the_notebook_are_taken_out(door: Rig, name: str) -> None:
    host, cookie = open_session(door)
    answer = door.ask(host, f"/answer?{name}=1&X-Kept=1", cookie=cookie)
    assert (answer.get(name), answer.get("X-Kept")) == (None, "1")


def test_answers_cannot_be_framed_or_embedded_elsewhere(door: Rig) -> None:
    host, cookie = open_session(door)
    answer = door.ask(host, cookie=cookie)
    assert answer.get("X-Frame-Options") == "SAMEORIGIN"
    assert answer.get("Cross-Origin-Resource-Policy") == "same-origin"
    assert answer.get("Cross-Origin-Opener-Policy") == "same-origin-allow-popups"


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("a=1; Path=/", "a=1; Path=/"),
        ("a=1; Domain=.localhost; Path=/", "a=1; Path=/"),
        ("a=1; path=/;domain = localhost", "a=1; path=/"),
        ("a=1; DOMAIN=a; Domain=b; HttpOnly", "a=1; HttpOnly"),
        ("a=1; Domain=a; Domain=b; Domain=c; Domain=d", ""),
        ("Domain=1; Path=/", "Domain=1; Path=/"),
        ("a=1; Domains=1", "a=1; Domains=1"),
        ("__Host-homeport=mine; Path=/; Secure", ""),
        (" __host-Homeport =mine", ""),
        ("=__Host-homeport=mine", ""),
    ],
)
def test_a_notebook_sets_cookies_for_its_own_origin_only_and_never_ours(door: Rig, sent: str, passed: str) -> None:
    from urllib.parse import quote

    host, cookie = open_session(door)
    answer = door.ask(host, f"/answer?Set-Cookie={quote(sent)}&Set-Cookie=kept%3D1", cookie=cookie)
    assert [value.strip() for value in answer.all("Set-Cookie")] == [passed, "kept=1"]


# ── when parts fail ──────────────────────────────────────────────────────────────────────────────────────────────


def test_without_dynamodb_the_proxy_goes_on_serving() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        door.store.down = True
        before = door.store.reads["changes"]
        eventually(lambda: door.store.reads["changes"] > before + 3, "failed readings")
        assert door.ask(host, cookie=cookie).status == 200
        assert door.ask(new_host()).status == 503
        assert door.enter(host, door.ticket(host)).status == 503
        door.stop_agent()
        door.start_agent(wait=False)
        before = door.store.reads["everything"]
        eventually(lambda: door.store.reads["everything"] > before + 3, "failed full readings")
        assert door.ask(host, cookie=cookie).status == 200
        door.store.down = False
        eventually(lambda: door.ask(new_host()).status == 404, "the table's return")
        assert door.ask(host, cookie=cookie).status == 200


def test_without_the_agent_the_proxy_goes_on_serving() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        door.stop_agent()
        assert door.ask(host, cookie=cookie).status == 200
        assert door.ask(host).status == 401
        assert door.ask(new_host()).status == 503


def test_a_killed_haproxy_comes_back_with_its_routes() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        assert door.agent is not None
        entries = {(Map.ROUTES, host), (Map.GRANTS, sha256(cookie.encode()).hexdigest())}
        eventually(lambda: entries <= set(files.read(door.run)), "the route and the grant on disk")
        haproxy = door.proxy.haproxy
        assert haproxy is not None
        haproxy.process.kill()
        haproxy.process.wait()
        late = new_host()
        door.store.put(Route(late, Target("127.0.0.1", 1), True, door.store.now_ms(), int(time.time()) + 3600))
        door.proxy.start_haproxy()
        assert door.ask(host, cookie=cookie).status == 200
        eventually(lambda: late in door.table(Map.ROUTES), "the route that came meanwhile")


def test_a_haproxy_that_lost_everything_is_told_everything_again() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        door.proxy.stop()
        for name in Map:
            (door.run / name).write_text("")
        door.proxy.start_haproxy()
        eventually(lambda: door.ask(host, cookie=cookie).status == 200, "the routes in HAProxy")


def test_a_restarted_agent_reads_everything_and_mends_the_maps() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        gone, _ = open_session(door)
        door.stop_agent()
        door.store.put(Route(gone, None, False, door.store.now_ms(), int(time.time()) + 3600))
        late = new_host()
        notebook = door.notebook(late)
        door.store.put(
            Route(late, Target("127.0.0.1", notebook.port), True, door.store.now_ms(), int(time.time()) + 3600)
        )
        door.start_agent()
        eventually(lambda: late in door.table(Map.ROUTES), "the new route")
        assert gone not in door.table(Map.ROUTES)
        assert door.ask(host, cookie=cookie).status == 200


def test_publications_and_withdrawals_raced_end_with_haproxy_holding_what_the_table_says() -> None:
    with rig(poll=0.01) as door, ThreadPoolExecutor() as threads:
        later = int(time.time()) + 3600
        sids = [new_host() for _ in range(30)]

        def launch_and_stop(own: list[str]) -> None:
            for launch in range(1, 6):
                for sid in own:
                    host, target = f"{sid}-{launch}", Target("127.0.0.1", 1000 + launch)
                    door.store.put(Route(host, target, True, door.store.now_ms(), later))
                    assert door.ask(host).status in (307, 401)  # looked up, or told already
                for sid in own if launch < 5 else own[::2]:
                    door.store.put(Route(f"{sid}-{launch}", None, False, door.store.now_ms(), later))

        for thread in [threads.submit(launch_and_stop, sids[number::3]) for number in range(3)]:
            thread.result(60)
        withdrawn = {sid for number in range(3) for sid in sids[number::3][::2]}
        expected = {f"{sid}-5": "127.0.0.1|1005" for sid in sids if sid not in withdrawn}
        eventually(lambda: door.table(Map.ROUTES) == expected, "HAProxy holding what the table says")


def test_ten_thousand_routes_are_brought_into_haproxy() -> None:
    with rig(agent=False) as door:
        later = int(time.time()) + 3600
        for number in range(10_000):
            door.store.put(Route(f"many{number}", Target("192.0.2.1", 8888), True, door.store.now_ms(), later))
        host = new_host()
        notebook = door.notebook(host)
        door.store.put(Route(host, Target("127.0.0.1", notebook.port), True, door.store.now_ms(), later))
        door.start_agent()
        eventually(lambda: len(door.table(Map.ROUTES)) == 10_001, "all routes")
        assert door.ask(host, cookie=door.cookie(host)).status == 200
        assert len(files.read(door.run)) >= 10_001


def test_a_miss_is_looked_up_and_the_visitor_sent_round_once() -> None:
    with rig(poll=600.0) as door:
        host = new_host()
        notebook = door.notebook(host)
        later = int(time.time()) + 3600
        cookie = "entered-through-another-proxy"
        digest = sha256(cookie.encode()).hexdigest()
        door.store.put(Route(host, Target("127.0.0.1", notebook.port), True, door.store.now_ms(), later))
        door.store.put(Grant(digest, host, False, door.store.now_ms(), later, SIGN_IN))
        answer = door.ask(host, "/lab?a=b", cookie=cookie)
        assert (answer.status, answer.get("Location")) == (307, f"{door.origin(host)}/lab?a=b")
        assert door.ask(host, "/lab?a=b", cookie=cookie).status == 200
        assert door.ask(host, "//evil.example/", cookie=None).status == 401


def test_junk_names_are_not_looked_up_again_and_again() -> None:
    with rig(poll=600.0) as door:
        host = new_host()
        assert [door.ask(host).status for _ in range(20)] == [404] * 20
        assert door.store.reads["route"] == 1
        statuses = [door.ask(new_host()).status for _ in range(400)]
        assert set(statuses) == {404, 503}
        assert door.store.reads["route"] < 350


def test_health_tells_life_and_readiness_apart() -> None:
    with rig(agent=False) as door:
        assert door.proxy.health() == 503
        door.store.down = True
        door.start_agent(wait=False)
        assert door.proxy.health() == 200
        assert door.proxy.health("/.homeport/ready") == 503
        door.store.down = False
        eventually(lambda: door.proxy.health("/.homeport/ready") == 200, "readiness")


def test_the_log_names_no_cookie_ticket_or_path() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        ticket = door.ticket(host)
        door.enter(host, ticket)
        door.ask(host, "/lab/tree/private-name.ipynb?token=secret-token", cookie=cookie)
        door.ask(host, "/lab/tree/private-name.ipynb")
        path = door.folder / "haproxy.log"
        eventually(lambda: path.read_text().count(f" {host} ") == 3, "a line for each request")
        log = path.read_text()
        assert f" {host} GET HTTP/1.1 200 " in log
        for secret in (cookie, ticket, "private-name", "secret-token", "__Host"):
            assert secret not in log


FORGED = (
    "x\x1b[2J\x1b]0;title\x07.localhost:{port}",
    "ok GET HTTP/1.1 200 0 0/0/0/0/0 --.localhost:{port}",
    "forged\t127.0.0.1 GET.localhost:{port}",
    "tab\tname",
    '"quoted" field.localhost:{port}',
    "%0d%0aforged.localhost:{port}",
    "f\xf6rged.localhost:{port}",
    "-forged.localhost:{port}",
    "forged-.localhost:{port}",
    "forged" * 11 + ".localhost:{port}",
    "forged.evil.example",
    "forged.localhost.evil.example:{port}",
    "forged",
)


def test_no_host_that_is_not_a_launch_s_reaches_the_log() -> None:
    with rig() as door:
        host, cookie = open_session(door)
        for forged in FORGED:
            named = forged.format(port=door.port)
            assert door.ask(host, cookie=cookie, named=named).status in (400, 404), forged
            assert ask(door.port, named, "/.homeport/health").status in (400, 404), forged
        door.ask(host, cookie=cookie)
        log = door.folder / "haproxy.log"
        eventually(lambda: b" GET HTTP/1.1 200 " in log.read_bytes(), "the last request in the log")
        door.proxy.stop()
        lines = log.read_bytes().splitlines()
    requests = [line for line in lines if b" HTTP/" in line or b"<BADREQ>" in line]
    assert len(requests) >= len(FORGED) + 1
    for line in requests:
        assert line.isascii(), line
        assert line.decode().isprintable(), line
        assert re.fullmatch(rb"127\.0\.0\.1 \[\S+\] \S+ (-|[0-9a-z-]+) \S+ \S+ \d+ \d+ \S+ \S+", line), line
        for word in (b"forged", b"title", b"tab", b"quoted", b"ok "):
            assert word not in line, line
    assert sum(b" %s GET HTTP/1.1 200 " % host.encode() in line for line in requests) == 1


@pytest.mark.parametrize("headers", [[("Service-Worker", "script")], [("Sec-Fetch-Dest", "serviceworker")]])
def test_no_service_worker_is_fetched_from_any_origin(door: Rig, headers: list[tuple[str, str]]) -> None:
    host = new_host()
    notebook = door.notebook(host)
    door.publish(host, notebook.port)
    cookie = door.cookie(host)
    for path in ("/worker.js", "/static/lab/worker.js", "/.homeport/worker.js"):
        assert door.ask(host, path, cookie=cookie, origin=door.origin(host), headers=headers).status == 403
        assert door.ask(host, path, headers=headers).status == 403
    assert notebook.asked == 0
    assert door.ask(host, "/worker.js", cookie=cookie, headers=[("Sec-Fetch-Dest", "worker")]).status == 200


def test_a_worker_that_is_left_on_an_old_origin_is_not_looked_up() -> None:
    with rig(poll=600.0) as door:
        for _ in range(3):
            assert door.ask(new_host(), "/worker.js", headers=[("Service-Worker", "script")]).status == 403
        assert door.store.reads["route"] == 0


def test_the_runtime_socket_is_for_its_owner_only(door: Rig) -> None:
    assert (door.run / "haproxy.sock").stat().st_mode & 0o777 == 0o600
    assert (door.run / "agent.sock").stat().st_mode & 0o777 == 0o600
    assert (door.run / "proxy-client.pem").stat().st_mode & 0o777 == 0o600
    assert door.run.stat().st_mode & 0o777 == 0o700
