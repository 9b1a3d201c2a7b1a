"""The only reader of the environment. Everything else is handed a frozen Config.

Variables, all read by `Config.from_environ`; a wrong value raises BadConfiguration and names the variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from chalicelib.bundle.address import AddressPolicy
from chalicelib.errors import BadConfiguration

VERSION: Final = "0.1.0"
DEFAULT_IMAGE: Final = "quay.io/jupyter/minimal-notebook:latest"
DEFAULT_SESSION_HOURS: Final = 72.0
LONGEST_SESSION_HOURS: Final = 168.0  # the bucket's backstop deletes credentials after eight days
DEFAULT_IDLE_MINUTES: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One hub's configuration.

    `notebook_url` is the origin of a notebook with `*` for the session's id. `hub_name` labels this hub's containers.
    Networks and ports bound the endpoints that are connected to; lifetimes are in seconds.
    """

    table: str
    bucket: str
    key: str
    tick_queue_url: str
    tick_queue_name: str
    certificates: str
    hub_name: str
    hub_origin: str
    notebook_url: str
    image: str = DEFAULT_IMAGE
    session_lifetime: float = DEFAULT_SESSION_HOURS * 3600
    idle_lifetime: float = DEFAULT_IDLE_MINUTES * 60
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    denied_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    denied_ports: frozenset[int] = frozenset()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Config:
        """Read the HOMEPORT_… variables; raises BadConfiguration."""
        return cls(
            table=_text(environ, "HOMEPORT_TABLE", "homeport"),
            bucket=_text(environ, "HOMEPORT_BUCKET", "homeport"),
            key=_text(environ, "HOMEPORT_KEY", "alias/homeport"),
            tick_queue_url=_text(environ, "HOMEPORT_TICK_QUEUE_URL", ""),
            tick_queue_name=_text(environ, "HOMEPORT_TICK_QUEUE", "homeport-tick"),
            certificates=_text(environ, "HOMEPORT_CERTIFICATES", "/homeport"),
            hub_name=_text(environ, "HOMEPORT_HUB_NAME", "homeport"),
            hub_origin=_text(environ, "HOMEPORT_HUB_ORIGIN", "http://localhost:8000").rstrip("/"),
            notebook_url=_notebook_url(environ),
            image=_text(environ, "HOMEPORT_IMAGE", DEFAULT_IMAGE),
            session_lifetime=_session_hours(environ) * 3600,
            idle_lifetime=_positive(environ, "HOMEPORT_IDLE_MINUTES", DEFAULT_IDLE_MINUTES) * 60,
            allowed_networks=_networks(environ, "HOMEPORT_ENDPOINT_NETWORKS"),
            denied_networks=_networks(environ, "HOMEPORT_ENDPOINT_DENIED_NETWORKS"),
            denied_ports=_ports(environ, "HOMEPORT_ENDPOINT_DENIED_PORTS"),
        )

    @property
    def address_policy(self) -> AddressPolicy:
        """Which addresses an endpoint may have."""
        return AddressPolicy(allowed=self.allowed_networks, denied=self.denied_networks, denied_ports=self.denied_ports)

    def notebook_origin(self, sid: str) -> str:
        """The origin (scheme, host, port) at which the proxy serves the notebook of session `sid`."""
        return self.notebook_url.replace("*", sid)


def _text(environ: Mapping[str, str], name: str, default: str) -> str:
    return environ.get(name, "").strip() or default


def _notebook_url(environ: Mapping[str, str]) -> str:
    url = _text(environ, "HOMEPORT_NOTEBOOK_URL", "http://*.localhost:8080").rstrip("/")
    scheme, separator, host = url.partition("://")
    if scheme not in ("http", "https") or not separator or not host.startswith("*.") or "/" in host:
        raise BadConfiguration("HOMEPORT_NOTEBOOK_URL must look like https://*.notebooks.example.org")
    return url


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = _text(environ, name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise BadConfiguration(f"{name} must be a number above 0, not {text!r}")
    return value


def _session_hours(environ: Mapping[str, str]) -> float:
    hours = _positive(environ, "HOMEPORT_SESSION_HOURS", DEFAULT_SESSION_HOURS)
    if hours > LONGEST_SESSION_HOURS:
        raise BadConfiguration(f"HOMEPORT_SESSION_HOURS must be at most {LONGEST_SESSION_HOURS:.0f}, not {hours:g}")
    return hours


def _networks(environ: Mapping[str, str], name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(part) for part in _words(environ, name))
    except ValueError as error:
        raise BadConfiguration(f"{name} must be a list of networks such as 10.1.0.0/16: {error}") from error


def _ports(environ: Mapping[str, str], name: str) -> frozenset[int]:
    words = _words(environ, name)
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 65536 for word in words):
        raise BadConfiguration(f"{name} must be a list of ports such as 22,25")
    return frozenset(int(word) for word in words)


def _words(environ: Mapping[str, str], name: str) -> list[str]:
    return environ.get(name, "").replace(",", " ").split()
