"""What the agent takes from a form, what it answers, and what it is configured with."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.routes import Route
from chalicelib.errors import BadConfiguration
from chalicelib.session.values import Target
from proxy import pages
from proxy.agent.entry import DEFAULT_PATH, local_path, set_cookie, ticket_and_path
from proxy.agent.lookups import RECENT_MOST, Allowance, Entered, Recent
from proxy.agent.table import Map
from proxy.settings import Settings

FORM = "application/x-www-form-urlencoded"
TICKET = "t" * 43
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"
PKI = {
    "HOMEPORT_PROXY_NOTEBOOK_CA": json.dumps({"certificate": CERTIFICATE}),
    "HOMEPORT_PROXY_CLIENT": json.dumps({"certificate": CERTIFICATE, "key": KEY}),
}


@given(st.text())
def test_a_path_always_stays_on_this_origin(text: str) -> None:
    path = local_path(text)
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\", "/.homeport/"))
    assert path.isascii()
    assert path.isprintable()
    assert " " not in path


@pytest.mark.parametrize("path", ["/lab", "/lab/tree/a%20b.ipynb?x=1#cell", "/", "/terminals/1"])
def test_an_ordinary_path_is_kept(path: str) -> None:
    assert local_path(path) == path
    assert local_path("", path) == path


@pytest.mark.parametrize(
    "path", ["", "//evil", "/\\evil", "http://evil", "/.homeport/enter", "/a\r\nb: c", "/" + "a" * 3000]
)
def test_a_path_that_leads_elsewhere_becomes_the_default(path: str) -> None:
    assert local_path(path) == DEFAULT_PATH


def test_a_form_is_one_ticket_and_perhaps_one_path() -> None:
    assert ticket_and_path(FORM, f"ticket={TICKET}".encode()) == (TICKET, "")
    assert ticket_and_path(FORM + "; charset=utf-8", f"ticket={TICKET}&path=%2Flab".encode()) == (TICKET, "/lab")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "ticket=",
        f"ticket={TICKET}&ticket={TICKET}",
        "path=/lab",
        f"ticket={TICKET}&path=/&path=/",
        "ticket=a b",
        "\xff",
    ],
)
def test_any_other_form_is_refused(body: str) -> None:
    assert ticket_and_path(FORM, body.encode("latin-1")) is None
    assert ticket_and_path("text/plain", f"ticket={TICKET}".encode()) is None


@given(st.binary())
def test_no_form_breaks_the_agent(body: bytes) -> None:
    ticket_and_path(FORM, body)


def test_the_cookie_is_for_this_origin_and_no_script() -> None:
    field = set_cookie(Entered("value", 60, "/lab"))
    assert field == "__Host-homeport=value; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_a_miss_is_remembered_for_a_while_until_there_are_news() -> None:
    missing = Recent()
    key = (Map.ROUTES, "junk")
    news = Route("junk", Target("192.0.2.7", 1), True, 1000, 2000)
    assert not missing.has((key, None), 100.0)
    missing.add((key, None), 100.0)
    assert missing.has((key, None), 104.9)
    assert not missing.has((key, None), 105.1)
    assert not missing.has((key, news), 100.0)


def test_only_so_many_misses_are_remembered() -> None:
    missing = Recent()
    for number in range(RECENT_MOST + 1):
        missing.add((Map.ROUTES, str(number)), 100.0)
    assert not missing.has((Map.ROUTES, "0"), 100.0)
    assert missing.has((Map.ROUTES, str(RECENT_MOST)), 100.0)


def test_look_ups_are_bounded_with_a_burst() -> None:
    allowance = Allowance(2.0, 3.0, 100.0)
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.take(101.0) for _ in range(3)] == [True, True, False]
    assert not allowance.take(50.0)  # a clock that was set back gives nothing


@pytest.mark.parametrize("status", pages.PAGES)
def test_a_page_is_a_whole_answer_that_leads_back_to_the_hub_and_is_kept_nowhere(status: int) -> None:
    head, body = pages.answer(status, "https://hub.example/api/").split(b"\r\n\r\n", 1)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Cache-Control: no-store" in head
    assert b'href="https://hub.example/api/"' in body
    assert len(head) + len(body) < 8192


def test_one_page_has_a_script_and_its_policy_allows_that_one_alone() -> None:
    for status in pages.PAGES:
        head, body = pages.answer(status, "https://hub.example/").decode().split("\r\n\r\n", 1)
        scripts = re.findall(r"<script>(.*?)</script>", body, re.DOTALL)
        hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
        assert re.findall(r"script-src (.*?)[;\r]", head) == [f"'sha256-{found}'" for found in hashes]
        assert len(scripts) == (status == 431)


def test_the_hub_s_origin_is_escaped() -> None:
    assert b"<script" not in pages.html(404, 'https://hub"><script>')


def test_settings_come_from_the_hub_s_own_variables() -> None:
    settings = Settings.from_environ({**PKI, "HOMEPORT_NOTEBOOK_URL": "https://*.Notebooks.example.org"})
    assert (settings.scheme, settings.host_suffix, settings.port) == ("https", ".notebooks.example.org", 443)
    assert settings.client == CERTIFICATE + KEY
    assert settings.notebook_ca == CERTIFICATE
    local = Settings.from_environ({**PKI, "HOMEPORT_NOTEBOOK_URL": "http://*.localhost:8080"})
    assert (local.hub_url, settings.hub_url) == ("http://localhost:8000/", "http://localhost:8000/")
    assert (local.host_suffix, local.bind) == (".localhost:8080", "127.0.0.1:8080")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOMEPORT_PROXY_CLIENT", ""),
        ("HOMEPORT_PROXY_CLIENT", "{not json"),
        ("HOMEPORT_PROXY_CLIENT", CERTIFICATE),
        ("HOMEPORT_PROXY_CLIENT", "@/does/not/exist"),
        ("HOMEPORT_PROXY_NOTEBOOK_CA", '{"key": "x"}'),
        ("HOMEPORT_HUB_URL", "javascript:alert(1)"),
        ("HOMEPORT_PROXY_MAXCONN", "many"),
        ("HOMEPORT_PROXY_POLL", "0"),
        ("HOMEPORT_NOTEBOOK_URL", "https://notebooks.example.org"),
    ],
)
def test_a_wrong_variable_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(BadConfiguration, match=name) as caught:
        Settings.from_environ({**PKI, name: value})
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [f"# clé\n{CERTIFICATE}{KEY}".encode(), f"{CERTIFICATE}{KEY}é".encode("latin-1"), KEY.encode(),
     json.dumps({"key": KEY}).encode(), f'{{"key": "{KEY}"'.encode()],
    ids=["UTF-8", "Latin-1", "no certificate", "half a pair", "cut JSON"],
)  # fmt: skip
def test_an_error_about_a_key_file_and_what_it_came_from_hold_nothing_of_the_file(
    tmp_path: Path, content: bytes
) -> None:
    """A UnicodeDecodeError, for one, holds all that it could not decode."""
    (tmp_path / "client.pem").write_bytes(content)
    with pytest.raises(BadConfiguration, match="HOMEPORT_PROXY_CLIENT") as caught:
        Settings.from_environ({**PKI, "HOMEPORT_PROXY_CLIENT": f"@{tmp_path / 'client.pem'}"})
    chain: list[BaseException | None] = [caught.value]
    for error in chain:
        if error is not None:
            assert "PRIVATE" not in repr(error)
            chain += [error.__cause__, error.__context__]


def test_no_secret_is_in_the_settings_repr() -> None:
    assert "PRIVATE" not in repr(Settings.from_environ(PKI))
