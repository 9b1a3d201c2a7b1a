"""Signing out, and how long a sign-in lasts: the real web function and agent on moto, with clocks that are set.

tests/integration/test_sign_out.py has it with a real HAProxy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.routes import ProxyStore
from chalicelib.session.values import State
from proxy.agent.agent import Agent
from proxy.agent.lookups import Verdict
from proxy.agent.table import Map
from tests.builders import no_queue
from tests.functional.hub_rig import Answer, HubRig, a_bundle, a_hub, away, hub_rig, once
from tests.functional.test_stored_formats import Stage
from tests.launcher_twins import Clock
from tests.table import TABLE

BROWSER = {"Sec-Fetch-Site": "same-origin"}
DAY = 86400.0
GONE = "__Host-homeport-owner=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"


@pytest.fixture
def hub() -> Iterator[HubRig]:
    with hub_rig() as rig:
        yield rig


@pytest.fixture
def stage(hub: HubRig) -> Stage:
    """A notebook that is ready; `stage.token` is of the browser that launched it."""
    return Stage(hub)


def launched(hub: HubRig, number: int, *, cookie: str = "") -> str:
    """Launch a notebook called after the key's number in a browser with this cookie; gives the new cookie."""
    headers = {**BROWSER, **({"Cookie": cookie} if cookie else {})}
    answer = hub.upload(a_bundle(number, not_after=time.time() + 365 * DAY), name=f"of-{number}", headers=headers)
    assert answer.status in (200, 201)
    return answer.headers["set-cookie"].split(";")[0]


def seen(hub: HubRig, cookie: str) -> set[str]:
    """The notebooks that a browser with this cookie sees."""
    answer = hub.ask("GET", "/sessions", headers={"Cookie": cookie})
    return {session["name"] for session in answer.json["sessions"]} if answer.status == 200 else set()


def sign_out(hub: HubRig, body: bytes = b"", *, cookie: str, html: bool = False) -> Answer:
    return hub.press("/sign-out", body=body, headers={**BROWSER, "Cookie": cookie}, html=html)


# ── how long a sign-in lasts ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_stolen_token_is_over_in_time_whatever_is_launched_with_it_or_in_its_browser(hub: HubRig) -> None:
    """Once each launch renewed all owners of the token that came with it: one that was stolen was good on day 89."""
    clock = Clock(time.time())
    hub.hub = a_hub(hub.parts, clock=clock)
    begun = clock.now
    stolen = victim = thief = launched(hub, 0)
    for day in range(0, 90, 2):
        clock.now = begun + day * DAY
        victim = launched(hub, 1, cookie=victim)
        thief = launched(hub, 2, cookie=thief)
        for cookie in (stolen, victim, thief):
            assert ("of-0" in seen(hub, cookie)) == (day < 3), day
    assert seen(hub, launched(hub, 0, cookie=victim)) == {"of-0", "of-1"}


def test_no_entry_outlasts_the_sign_in_it_was_made_with(stage: Stage, tmp_path: Path) -> None:
    """An hour before a stolen token ends its owner launches anew; the thief's entry ends with the token anyway."""
    stolen = stage.token
    stage.clock.now += 71 * 3600
    stage.hub.press(f"/sessions/{stage.sid}/stop", token=stolen)
    stage.run(State.STOPPED)
    stage.token = stage.hub.upload(a_bundle(), name="one").json["owner_token"]
    stage.run(State.READY)
    door = Door(stage, tmp_path)
    digest, own = door.entered(stolen), door.entered(stage.token)
    assert door.opens_to(digest)
    stage.clock.now += 3600
    door.agent.table.expire(stage.clock.now)
    assert not door.opens_to(digest)
    assert door.opens_to(own)


# ── signing out ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Door:
    """The notebook's door: an agent, whose clock may be `ahead` of the hub's."""

    def __init__(self, stage: Stage, folder: Path, *, ahead: float = 0.0) -> None:
        cookies = count()
        self.stage, self.folder, self.ahead = stage, folder, ahead
        self.store = ProxyStore(stage.hub.client_of("dynamodb"), TABLE, self.clock)
        self.agent = Agent(self.store, no_queue, folder, clock=self.clock, new_cookie=lambda: f"cookie-{next(cookies)}")
        self.agent.feed.sync()

    def clock(self) -> float:
        return self.stage.clock.now + self.ahead

    def ticket(self, token: str) -> str:
        answer = self.stage.hub.press(f"/sessions/{self.stage.sid}/enter", token=token)
        return str(answer.json["ticket"])

    def entered(self, token: str) -> str:
        """Enter by way of the hub; gives the grant's digest."""
        entered = self.agent.lookups.enter(self.stage.session.host, self.ticket(token))
        assert entered is not None
        return digest_of(entered.cookie)

    def opens_to(self, digest: str) -> bool:
        """What HAProxy would find in its map, once the feed was read."""
        self.agent.feed.poll()
        return (Map.GRANTS, digest) in self.agent.table.values_of([(Map.GRANTS, digest)])

    def verdict(self, digest: str) -> Verdict:
        return self.agent.lookups.look_up(self.stage.session.host, digest)


def another_browser(stage: Stage, number: int = 0, *, token: str = "") -> str:
    """The token of another browser with the same key; or of the browser of a token, which shows another key."""
    return str(stage.hub.upload(a_bundle(number), name="one", token=token).json["owner_token"])


def assert_it_runs(stage: Stage) -> None:
    assert stage.session.state is State.READY
    assert [route.host for route in stage.published()] == [stage.session.host]
    assert [container.status for container in stage.engine.containers.values()] == ["running"]


@pytest.mark.parametrize("ahead", [0.0, 5.0, -5.0])
def test_signing_out_here_ends_what_this_browser_has_and_nothing_else(
    stage: Stage, tmp_path: Path, ahead: float
) -> None:
    door, other = Door(stage, tmp_path, ahead=ahead), another_browser(stage)
    later = another_browser(stage, 1, token=stage.token)  # the same browser, which showed another key
    digests = [door.entered(token) for token in (stage.token, later, other)]
    unused = [door.ticket(token) for token in (stage.token, later, other)]
    assert all(map(door.opens_to, digests))

    assert stage.hub.press("/sign-out", token=later).status == 204

    host = stage.session.host
    assert [door.agent.lookups.enter(host, ticket) is not None for ticket in unused] == [False, False, True]
    assert [door.opens_to(digest) for digest in digests] == [False, False, True]
    assert [door.verdict(digest) for digest in digests[:2]] == [Verdict.NO_GRANT, Verdict.NO_GRANT]
    for token in (stage.token, later):
        assert stage.hub.ask("GET", f"/sessions/{stage.sid}", token=token).status == 401
        assert stage.hub.press(f"/sessions/{stage.sid}/enter", token=token).status == 401
    assert stage.hub.ask("GET", f"/sessions/{stage.sid}", token=other).json["state"] == "ready"
    assert_it_runs(stage)


@pytest.mark.parametrize("ahead", [0.0, 5.0, -5.0])
def test_signing_out_everywhere_ends_what_every_browser_has_of_these_keys(
    stage: Stage, tmp_path: Path, ahead: float
) -> None:
    door, other = Door(stage, tmp_path, ahead=ahead), another_browser(stage)
    both = another_browser(stage, 1, token=other)
    digests = [door.entered(token) for token in (stage.token, other, both)]
    unused = [door.ticket(token) for token in (stage.token, other, both)]

    assert stage.hub.press("/sign-out", body=b"everywhere=yes", token=stage.token).status == 204

    assert not any(door.agent.lookups.enter(stage.session.host, ticket) for ticket in unused)
    assert not any(map(door.opens_to, digests))
    for token, status in ((stage.token, 401), (other, 401), (both, 404)):  # `both` has shown another key as well
        assert stage.hub.ask("GET", f"/sessions/{stage.sid}", token=token).status == status
    assert_it_runs(stage)
    again = another_browser(stage)
    assert door.opens_to(door.entered(again))
    assert stage.hub.ask("GET", f"/sessions/{stage.sid}", token=again).status == 200


@pytest.mark.parametrize("body", [b"", b"everywhere=yes"])
def test_a_sign_out_in_the_middle_of_an_entry_ends_it(stage: Stage, tmp_path: Path, body: bytes) -> None:
    """The ticket was taken, and its grant is about to be stored."""
    door = Door(stage, tmp_path)

    def signed_out_meanwhile() -> None:
        assert stage.hub.press("/sign-out", body=body, token=stage.token).status == 204
        door.agent.feed.poll()

    with stage.hub.on_call("dynamodb", "PutItem", once(signed_out_meanwhile)):
        ticket = door.ticket(stage.token)  # the put of the ticket itself is the first: it ends, too
    assert door.agent.lookups.enter(stage.session.host, ticket) is None

    stage.token = another_browser(stage)
    ticket = door.ticket(stage.token)
    with stage.hub.on_call("dynamodb", "PutItem", once(signed_out_meanwhile)):
        entered = door.agent.lookups.enter(stage.session.host, ticket)
    assert entered is not None
    assert not door.opens_to(digest_of(entered.cookie))
    assert door.verdict(digest_of(entered.cookie)) is Verdict.NO_GRANT


def test_an_agent_that_was_away_opens_to_nobody_who_signed_out_meanwhile(stage: Stage, tmp_path: Path) -> None:
    door, other = Door(stage, tmp_path), another_browser(stage)
    mine, theirs = door.entered(stage.token), door.entered(other)
    door.agent.pusher.save()
    stage.hub.press("/sign-out", token=stage.token)

    fresh = tmp_path / "another-proxy"
    fresh.mkdir()
    unread = Agent(door.store, no_queue, fresh, clock=door.clock, new_cookie=lambda: "")  # before its first reading
    assert unread.lookups.look_up(stage.session.host, mine) is Verdict.NO_GRANT
    assert unread.lookups.look_up(stage.session.host, theirs) is Verdict.BUSY  # there is no HAProxy that could be told

    restarted = Agent(door.store, no_queue, tmp_path, clock=door.clock, new_cookie=lambda: "")
    assert len(restarted.table.values_of([(Map.GRANTS, mine), (Map.GRANTS, theirs)])) == 2
    restarted.feed.sync()
    assert set(restarted.table.values_of([(Map.GRANTS, mine), (Map.GRANTS, theirs)])) == {(Map.GRANTS, theirs)}


# ── by HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_browser_signs_out_by_a_page_without_script(hub: HubRig) -> None:
    cookie = launched(hub, 0)
    for path in ("/", "/sessions"):
        assert 'href="sign-out"' in hub.ask("GET", path, html=True, headers={"Cookie": cookie}).text
        assert 'href="sign-out"' not in hub.ask("GET", path, html=True).text
    page = hub.ask("GET", "/sign-out", html=True, headers={"Cookie": cookie})
    assert page.status == 200
    assert all(button in page.text for button in ('name="everywhere" value=""', 'name="everywhere" value="yes"'))
    answer = sign_out(hub, b"everywhere=", cookie=cookie, html=True)
    assert (answer.status, answer.headers["location"], answer.headers["set-cookie"]) == (303, "sign-out", GONE)
    page = hub.ask("GET", "/sign-out", html=True, headers={"Cookie": cookie})
    assert "not signed in" in page.text
    assert "<form" not in page.text
    assert seen(hub, cookie) == set()


@pytest.mark.parametrize(
    ("body", "content_type", "everywhere"),
    [
        (b"", "application/x-www-form-urlencoded", False),
        (b"everywhere=", "application/x-www-form-urlencoded; charset=utf-8", False),
        (b"everywhere=yes", "application/x-www-form-urlencoded", True),
        (b"{}", "application/json", False),
        (b'{"everywhere": ""}', "application/json", False),
        (b'{"everywhere": "yes"}', "application/json", True),
    ],
)
def test_a_program_signs_out_with_a_form_or_json(hub: HubRig, body: bytes, content_type: str, everywhere: bool) -> None:
    mine, other = (hub.upload(a_bundle(), name="one").json["owner_token"] for _ in range(2))
    answer = hub.ask("POST", "/sign-out", token=mine, headers={"Content-Type": content_type}, body=body)
    assert (answer.status, answer.body, answer.headers["set-cookie"]) == (204, b"", GONE)
    assert hub.ask("GET", "/sessions", token=mine).status == 401
    assert hub.ask("GET", "/sessions", token=other).status == (401 if everywhere else 200)


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"everywhere=no", "application/x-www-form-urlencoded", "bad-field"),
        (b"everywhere=yes&everywhere=", "application/x-www-form-urlencoded", "bad-field"),
        (b"everywhere=yes&more=1", "application/x-www-form-urlencoded", "bad-field"),
        (b"everywhere=" + b"y" * 100_000, "application/x-www-form-urlencoded", "bad-field"),
        (b"\xff", "application/x-www-form-urlencoded", "bad-form"),
        (b'{"everywhere": true}', "application/json", "bad-field"),
        (b'[["everywhere", "yes"]]', "application/json", "bad-field"),
        (b"[" * 100_000, "application/json", "bad-form"),
        (b"{", "application/json", "bad-form"),
    ],
)
def test_a_malformed_form_signs_nobody_out(hub: HubRig, body: bytes, content_type: str, code: str) -> None:
    token = hub.upload(a_bundle(), name="one").json["owner_token"]
    answer = hub.ask("POST", "/sign-out", token=token, headers={"Content-Type": content_type}, body=body)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert hub.ask("GET", "/sessions", token=token).status == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}]
)
def test_no_other_web_site_signs_a_visitor_out(hub: HubRig, headers: dict[str, str]) -> None:
    token = hub.upload(a_bundle(), name="one").json["owner_token"]
    answer = hub.press("/sign-out", token=token, headers=headers)
    assert (answer.status, answer.json["code"]) == (403, "cross-site-request")
    assert hub.ask("GET", "/sessions", token=token).status == 200


def test_who_is_not_signed_in_has_signed_out_here_but_not_everywhere(hub: HubRig) -> None:
    cookie = launched(hub, 0)
    for _ in range(2):
        assert sign_out(hub, cookie=cookie).status == 204
    assert hub.press("/sign-out").status == 204
    answer = sign_out(hub, b"everywhere=yes", cookie=cookie)
    assert (answer.status, answer.json["code"]) == (401, "not-authenticated")
    assert "set-cookie" not in answer.headers


def test_a_sign_out_that_fails_says_so_and_keeps_what_is_needed_to_repeat_it(hub: HubRig) -> None:
    """All of it is written or nothing, so there is no half that failed."""
    cookie = launched(hub, 0)
    with hub.on_call("dynamodb", "TransactWriteItems", away), hub.on_call("dynamodb", "PutItem", away):
        answer = sign_out(hub, b"everywhere=yes", cookie=cookie)
    assert (answer.status, answer.json["code"]) == (503, "store-unavailable")
    assert "set-cookie" not in answer.headers
    assert sign_out(hub, b"everywhere=yes", cookie=cookie).status == 204
    assert seen(hub, cookie) == set()


def test_nobody_is_signed_in_while_sign_outs_cannot_be_read(hub: HubRig) -> None:
    cookie = launched(hub, 0)
    with hub.on_call("dynamodb", "BatchGetItem", away):
        assert hub.ask("GET", "/sessions", headers={"Cookie": cookie}).status == 503
