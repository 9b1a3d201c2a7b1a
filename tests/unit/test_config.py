"""The configuration: what is read, and what is refused by the variable's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

import infra.request
import local.settings
import proxy.settings
from chalicelib.aws.slots import NOTES_MOST
from chalicelib.config import Config
from chalicelib.environment import PORT, TEXT, Kind, Variable, from_environ, setting, variables
from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane
from chalicelib.session.options import Allowance
from chalicelib.session.values import Limits
from infra.proxy_step import ProxyOptions


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    config = Config.from_environ({})
    assert config.session_lifetime == 72 * 3600
    assert config.idle_lifetime == 120 * 60
    assert config.notebook_origin("abc") == "http://abc.localhost:8080"
    assert config.allowed_networks == ()


def test_lists_may_be_separated_by_commas_or_spaces() -> None:
    config = Config.from_environ(
        {"HOMEPORT_ENDPOINT_NETWORKS": "10.1.0.0/16, fd00::/8", "HOMEPORT_ENDPOINT_DENIED_PORTS": "22 25"}
    )
    assert config.address_policy.allowed == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert config.denied_ports == {22, 25}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOMEPORT_SESSION_HOURS", "soon"),
        ("HOMEPORT_MEMORY_LIMIT", "much"),
        ("HOMEPORT_CPU_LIMIT", "0"),
        ("HOMEPORT_SHM", "64x"),
        ("HOMEPORT_IMAGES", "quay.io/jupyter/* Not/Good"),
        ("HOMEPORT_DATA_DIRECTORIES", "yes"),
        ("HOMEPORT_SESSION_HOURS", "0"),
        ("HOMEPORT_SESSION_HOURS", "169"),
        ("HOMEPORT_IDLE_MINUTES", "inf"),
        ("HOMEPORT_NOTEBOOK_URL", "https://notebooks.example.org"),
        ("HOMEPORT_NOTEBOOK_URL", "https://*.example.org/path"),
        ("HOMEPORT_NOTEBOOK_URL", "*.example.org"),
        ("HOMEPORT_HUB_ORIGIN", "hub.example.com"),
        ("HOMEPORT_HUB_ORIGIN", "https://"),
        ("HOMEPORT_HUB_ORIGIN", "https://hub.example.com/path"),
        ("HOMEPORT_HUB_ORIGIN", "javascript://hub.example.com"),
        ("HOMEPORT_ENDPOINT_NETWORKS", "10.1.0.0/33"),
        ("HOMEPORT_ENDPOINT_DENIED_NETWORKS", "everything"),
        ("HOMEPORT_ENDPOINT_DENIED_PORTS", "70000"),
        ("HOMEPORT_ENDPOINT_DENIED_PORTS", "22,ssh"),
        ("HOMEPORT_ENDPOINT_DENIED_PORTS", "٢٢"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(BadConfiguration, match=name):
        Config.from_environ({name: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Settings of a program that does not exist."""

    port: int = setting(Variable("EXAMPLE_PORT", PORT, "a port", default="80"))
    password: int = setting(Variable("EXAMPLE_PASSWORD", Kind("a number", int), "a password", secret=True))


def test_a_blank_variable_is_its_default() -> None:
    assert from_environ(Example, {"EXAMPLE_PORT": " ", "EXAMPLE_PASSWORD": "7"}).port == 80


def test_settings_made_by_hand_have_the_same_defaults() -> None:
    assert Config() == Config.from_environ({})


def test_a_variable_without_a_default_is_required() -> None:
    with pytest.raises(BadConfiguration, match="EXAMPLE_PASSWORD must be a number"):
        from_environ(Example, {})


def test_a_wrong_value_is_shown_shortened_and_on_one_line() -> None:
    with pytest.raises(BadConfiguration) as caught:
        from_environ(Example, {"EXAMPLE_PORT": "x\n" * 1000, "EXAMPLE_PASSWORD": "7"})
    assert caught.value.message.startswith("EXAMPLE_PORT must be a port number, not 'x x ")
    assert len(caught.value.message) < 150


def test_a_secret_is_shown_neither_when_it_is_wrong_nor_in_a_repr() -> None:
    with pytest.raises(BadConfiguration) as caught:
        from_environ(Example, {"EXAMPLE_PASSWORD": "letters"})
    assert "letters" not in caught.value.message
    assert caught.value.__suppress_context__, "a traceback would show the parser's own error, and the value in it"
    assert "12345" not in repr(from_environ(Example, {"EXAMPLE_PASSWORD": "12345"}))


ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (Config, proxy.settings.Settings, local.settings.Settings, ProxyOptions)
DECLARED = [
    *(known for owner in SETTINGS for known in variables(owner)),
    *infra.request.OF_DEPLOYMENT,
]
INSIDE_THE_PROXY = {  # settings.py gives them to haproxy.cfg
    "HOMEPORT_HOST_SUFFIX",
    "HOMEPORT_PORT",
    "HOMEPORT_PROXY_HEALTH_MAXCONN",
    "HOMEPORT_PROXY_HOLD",
    "HOMEPORT_PROXY_PROCESS_MAXCONN",
    "HOMEPORT_PROXY_PROTOCOL",
    "HOMEPORT_SCHEME",
}


def test_every_variable_is_declared_once_and_has_a_meaning() -> None:
    by_name = {known.name: known for known in DECLARED}
    assert all(by_name[known.name] is known for known in DECLARED), "shared variables are one object"
    assert all(known.meaning and known.kind.must_be for known in DECLARED)


def test_every_variable_that_is_named_anywhere_is_declared() -> None:
    """A misspelled one in a template or a page would be without effect, and nobody would be told."""
    places = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    places += [path for folder in ("infra", "local", "proxy") for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = {
        name: path.relative_to(ROOT).as_posix()
        for path in places
        if path.suffix != ".pyc"
        for name in re.findall(r"HOMEPORT_[A-Z_]*[A-Z]\b", path.read_text())
    }
    unknown = named.keys() - {known.name for known in DECLARED} - INSIDE_THE_PROXY
    assert {name: named[name] for name in unknown} == {}


def test_a_text_may_be_anything() -> None:
    assert Variable("EXAMPLE", TEXT, "any text").read({"EXAMPLE": " * "}) == "*"


@pytest.mark.parametrize(
    ("functions", "owner", "network", "in_all"), [(20, 2, 2, 4), (100, 4, 12, 24), (2500, 4, 16, 600)]
)
def test_no_owner_and_no_network_has_more_than_half_of_the_pulls(
    functions: int, owner: int, network: int, in_all: int
) -> None:
    quota = Config.from_environ({"HOMEPORT_FUNCTIONS": str(functions)}).pull_quota
    assert (quota.per_owner, quota.per_network, quota.in_all) == (owner, network, in_all)


@pytest.mark.parametrize(("functions", "half", "shared"), [(20, 1, 1), (100, 3, 4), (2500, 75, 112)])
def test_no_owner_and_no_network_has_more_than_half_of_the_functions_for_handovers(
    functions: int, half: int, shared: int
) -> None:
    quota = Config.from_environ({"HOMEPORT_FUNCTIONS": str(functions)}).handover_quota
    assert (quota.per_owner, quota.per_network, quota.shared_most, quota.in_all) == (half, half, shared, None)


@pytest.mark.parametrize("functions", [8, 9, 20, 21, 39, 100, 2500])
@pytest.mark.parametrize("lane", Lane)
def test_who_is_slow_has_half_of_a_lane_and_somebody_always_has_a_turn(functions: int, lane: Lane) -> None:
    config = Config.from_environ({"HOMEPORT_FUNCTIONS": str(functions)})
    quota, most = config.turn_quota(lane), config.functions_of(lane)
    assert 1 <= quota.per_owner == quota.per_network <= most / 2
    assert config.slow_quota(lane).per_owner <= quota.per_owner
    assert 5 * config.slow_quota(lane).per_owner <= NOTES_MOST, "five attackers' notes do not push each other out"
    assert quota.per_owner <= quota.shared_most < most
    assert most <= 1000, "AWS takes no more for an event source"


def test_what_a_launch_may_ask_for_is_what_the_operator_says() -> None:
    assert Config.from_environ({}).allowance == Allowance(default=Limits(shm=1 << 30))
    environ = {
        "HOMEPORT_IMAGES": "quay.io/jupyter/*, python",
        "HOMEPORT_MEMORY_LIMIT": "8g",
        "HOMEPORT_CPU_LIMIT": "4",
        "HOMEPORT_SHM_LIMIT": "2g",
        "HOMEPORT_MEMORY": "2g",
        "HOMEPORT_CPUS": "0.5",
        "HOMEPORT_SHM": "512m",
        "HOMEPORT_DATA_DIRECTORIES": "off",
    }
    assert Config.from_environ(environ).allowance == Allowance(
        most=Limits(memory=8 << 30, cpus=4.0, shm=2 << 30),
        default=Limits(memory=2 << 30, cpus=0.5, shm=1 << 29),
        data=False,
        images=("quay.io/jupyter/*", "python"),
    )
