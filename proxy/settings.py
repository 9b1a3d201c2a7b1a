"""The proxy's configuration from its environment, and the run folder made from it.

The run folder is the working directory of HAProxy and the agent, which name its files without a path: notebook-ca.pem,
proxy-client.pem, routes.map, grants.map, the pages, haproxy.sock, health.sock, agent.sock and failures.sock. README.md
has the table of variables.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chalicelib import environment
from chalicelib.config import FEED_SHARDS, HUB_ORIGIN, NOTEBOOK_URL, QUEUE_URLS, STAGE, TABLE
from chalicelib.environment import COUNT, POSITIVE, TEXT, URL, Kind, Variable, setting
from chalicelib.errors import BadConfiguration
from chalicelib.notebook.pair import Pair
from proxy import pages

PACKAGE: Final = Path(__file__).resolve().parent
MAPS: Final = ("routes.map", "grants.map")
HEALTH_SOCKET: Final = "health.sock"
HEALTH_MAXCONN: Final = 32
READING: Final = 0.5  # seconds in which the agent reads what is new and tells HAProxy


def _pem(name: str, with_key: bool, text: str) -> str:
    """Read PEM itself, JSON as the hub's parameters are, or @ and the name of a file with either.

    Raises ValueError, and BadConfiguration for a file that cannot be read and for JSON that is not a pair.
    """
    if text.startswith("@"):
        try:
            content = Path(text[1:]).read_bytes()
        except OSError as error:
            raise BadConfiguration(f"{name} names a file that cannot be read") from error
        if not content.isascii():  # asked for first: a UnicodeDecodeError would hold the content, key and all
            del content
            raise BadConfiguration(f"{name} names a file that is not PEM")
        text = content.decode().strip()
    if text.startswith("{"):
        pair = Pair.from_json(text, name=name, with_key=with_key)
        text = b"\n".join(part.strip() for part in (pair.certificate, pair.key)).decode("ascii")
    if "-----BEGIN CERTIFICATE-----" not in text or (with_key and "PRIVATE KEY-----" not in text):
        raise ValueError
    return text.strip() + "\n"


def _pem_variable(name: str, meaning: str, *, with_key: bool) -> Variable[str]:
    parts = "a certificate and its key" if with_key else "a certificate"
    kind = Kind(f"{parts}: PEM, JSON of PEM, or @ and the name of a file", partial(_pem, name, with_key))
    return Variable(name, kind, meaning, note="none, required", secret=True)  # a key may have got into either


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One proxy's configuration. Times in seconds; `notebook_ca` and `client` are PEM, `client` holds both parts."""

    table: str = setting(TABLE)
    feed_shards: int = setting(FEED_SHARDS)
    queue_urls: str = setting(QUEUE_URLS)
    stage: str = setting(STAGE)
    hub_origin: str = setting(HUB_ORIGIN)
    hub_url: str = setting(
        Variable(
            "HOMEPORT_HUB_URL",
            Kind(URL.must_be, lambda text: text and URL.parse(text)),
            "where the pages' link leads, if the hub's first page has a path (an API Gateway stage)",
            note="the origin's `/`",
        )
    )
    notebook_url: str = setting(NOTEBOOK_URL)
    notebook_ca: str = setting(
        _pem_variable(
            "HOMEPORT_PROXY_NOTEBOOK_CA",
            "the CA certificate that notebooks' certificates are checked against",
            with_key=False,
        )
    )
    client: str = setting(
        _pem_variable(
            "HOMEPORT_PROXY_CLIENT",
            "the client certificate and key that the proxy presents to notebooks",
            with_key=True,
        )
    )
    bind: str = setting(
        Variable(
            "HOMEPORT_PROXY_BIND",
            TEXT,
            "where HAProxy listens; `0.0.0.0:8080 accept-proxy` behind a load balancer that sends the PROXY protocol",
            note="`0.0.0.0:8080` in the container, else `127.0.0.1` and the notebook URL's port",
        )
    )
    health_bind: str = setting(
        Variable(
            "HOMEPORT_PROXY_HEALTH_BIND",
            TEXT,
            "where HAProxy answers `/.homeport/health` and `/.homeport/ready`, with connections of its own; for load "
            "balancers alone. In the container keep an address that includes `127.0.0.1:8081`: the image's health "
            "check asks there",
            note="`0.0.0.0:8081` in the container, else `health.sock` in the run folder",
        )
    )
    certificate: str = setting(
        Variable(
            "HOMEPORT_PROXY_CERTIFICATE",
            TEXT,
            "a PEM file with certificate and key: TLS and HTTP/2 here. What is new in it is served within seconds. "
            "Leave empty for plain HTTP, on loopback or behind a load balancer that terminates TLS",
        )
    )
    maxconn: int = setting(
        # Two descriptors each: 9000 fit CI's and many hosts' limit of 20,000.
        Variable(
            "HOMEPORT_PROXY_MAXCONN",
            COUNT,
            "visitors' connections; HAProxy needs two file descriptors for each",
            default="9000",
        )
    )
    source_maxconn: int = setting(
        # A workshop behind one address: 200 people with ten connections each.
        Variable(
            "HOMEPORT_PROXY_SOURCE_MAXCONN",
            COUNT,
            "connections, and requests and websockets at one time, per source address (per /64 of IPv6); more are "
            "closed, or get 429",
            default="2000",
        )
    )
    launch_maxconn: int = setting(
        # JupyterLab has one websocket per open notebook, console and terminal, and a few requests.
        Variable(
            "HOMEPORT_PROXY_LAUNCH_MAXCONN",
            COUNT,
            "requests and websockets at one time per launch; more get 429",
            default="500",
        )
    )
    request_time: str = setting(
        Variable(
            "HOMEPORT_PROXY_REQUEST_TIME",
            TEXT,
            "how long a client may take to send a request's header, from the connection on (HAProxy's notation)",
            default="10s",
        )
    )
    pause: str = setting(
        # Also a player's that has buffered enough of a video: it asks for the rest again.
        Variable(
            "HOMEPORT_PROXY_PAUSE",
            TEXT,
            "how long a client may pause in a handshake, in a body that it sends and in what it reads, but not in a "
            "websocket (HAProxy's notation)",
            default="1m",
        )
    )
    tunnel: str = setting(
        Variable(
            "HOMEPORT_PROXY_TUNNEL",
            TEXT,
            "how long an idle websocket is kept open (HAProxy's notation)",
            default="24h",
        )
    )
    entry_rate: int = setting(
        Variable(
            "HOMEPORT_PROXY_ENTRY_RATE",
            COUNT,
            "entries and look-ups per source address in ten seconds; more get 429",
            default="200",
        )
    )
    poll: float = setting(
        Variable("HOMEPORT_PROXY_POLL", POSITIVE, "seconds between two readings of the change feed", default="0.5")
    )
    full_sync: float = setting(
        # 100,000 items cost about $0.0005 to read.
        Variable("HOMEPORT_PROXY_FULL_SYNC", POSITIVE, "seconds between two full readings", default="600")
    )
    drain: float = setting(
        # Fargate gives a container 120 at most.
        Variable(
            "HOMEPORT_PROXY_DRAIN",
            POSITIVE,
            "seconds that open connections may go on after SIGTERM",
            default="100",
        )
    )
    run: Path = setting(
        Variable(
            "HOMEPORT_PROXY_RUN",
            Kind("a folder", lambda text: Path(text).absolute()),
            "the run folder",
            default="/run/homeport",
        )
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; raises BadConfiguration, which names the variable and shows no certificate or key."""
        found = environment.from_environ(cls, environ)
        return replace(
            found,
            hub_url=found.hub_url or f"{found.hub_origin}/",
            bind=found.bind or f"127.0.0.1:{found.port}",
            health_bind=found.health_bind or f"unix@{HEALTH_SOCKET} mode 600",
        )

    @property
    def scheme(self) -> str:
        """The scheme that browsers use."""
        return urlsplit(self.notebook_url).scheme

    @property
    def host_suffix(self) -> str:
        """What follows the launch's host in a notebook's `Host`."""
        return self.notebook_url.partition("://*")[2].lower()

    @property
    def port(self) -> int:
        """The port that browsers use."""
        return urlsplit(self.notebook_url.replace("*", "host")).port or (443 if self.scheme == "https" else 80)


def prepare(settings: Settings) -> None:
    """Make the run folder: certificates, pages, and empty maps where none are kept from an earlier run."""
    settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(settings.run / "notebook-ca.pem", settings.notebook_ca.encode())
    _write_private(settings.run / "proxy-client.pem", settings.client.encode())
    for status in pages.PAGES:
        _write_private(settings.run / f"{status}.http", pages.answer(status, settings.hub_url))
    for name in MAPS:
        (settings.run / name).touch(mode=0o600)


def haproxy_command(settings: Settings) -> list[str]:
    """The command that runs HAProxy in the foreground; raises BadConfiguration when it is not installed."""
    program = shutil.which("haproxy", path=os.defpath + ":/usr/sbin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise BadConfiguration("haproxy is not installed (Debian: apt-get install haproxy)")
    return [program, "-db", "-C", str(settings.run), "-f", str(PACKAGE / "haproxy.cfg")]


def haproxy_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that haproxy.cfg uses; none of the agent's (AWS credentials among them)."""
    variables = {
        "HOMEPORT_PROXY_BIND": settings.bind,
        "HOMEPORT_PROXY_HEALTH_BIND": settings.health_bind,
        "HOMEPORT_PROXY_HEALTH_MAXCONN": str(HEALTH_MAXCONN),
        "HOMEPORT_PROXY_MAXCONN": str(settings.maxconn),
        "HOMEPORT_PROXY_PROCESS_MAXCONN": str(settings.maxconn + HEALTH_MAXCONN),
        "HOMEPORT_PROXY_SOURCE_MAXCONN": str(settings.source_maxconn),
        "HOMEPORT_PROXY_LAUNCH_MAXCONN": str(settings.launch_maxconn),
        "HOMEPORT_PROXY_ENTRY_RATE": str(settings.entry_rate),
        "HOMEPORT_PROXY_REQUEST_TIME": settings.request_time,
        "HOMEPORT_PROXY_PAUSE": settings.pause,
        "HOMEPORT_PROXY_HOLD": f"{1000 * (settings.poll + READING):.0f}ms",
        "HOMEPORT_PROXY_TUNNEL": settings.tunnel,
        "HOMEPORT_HOST_SUFFIX": settings.host_suffix,
        "HOMEPORT_SCHEME": settings.scheme,
        "HOMEPORT_PORT": str(settings.port),
    }
    if settings.certificate:
        variables["HOMEPORT_PROXY_CERTIFICATE"] = settings.certificate
    if "accept-proxy" in settings.bind.split():
        variables["HOMEPORT_PROXY_PROTOCOL"] = "1"
    return {"PATH": environ.get("PATH", os.defpath), **variables}


def agent_command() -> list[str]:
    """The command that runs the agent in the foreground; its environment is the one `Settings` was read from."""
    return [sys.executable, "-m", "proxy.agent"]


def agent_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The given environment with the folder and the import path that the agent needs."""
    return {**environ, "HOMEPORT_PROXY_RUN": str(settings.run), "PYTHONPATH": str(PACKAGE.parent)}


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
