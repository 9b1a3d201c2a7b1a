"""The configuration: what is read, and what is refused by the variable's name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from chalicelib.config import Config
from chalicelib.errors import BadConfiguration


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
        ("HOMEPORT_SESSION_HOURS", "0"),
        ("HOMEPORT_SESSION_HOURS", "169"),
        ("HOMEPORT_IDLE_MINUTES", "inf"),
        ("HOMEPORT_NOTEBOOK_URL", "https://notebooks.example.org"),
        ("HOMEPORT_NOTEBOOK_URL", "https://*.example.org/path"),
        ("HOMEPORT_ENDPOINT_NETWORKS", "10.1.0.0/33"),
        ("HOMEPORT_ENDPOINT_DENIED_NETWORKS", "everything"),
        ("HOMEPORT_ENDPOINT_DENIED_PORTS", "70000"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(BadConfiguration, match=name):
        Config.from_environ({name: value})
