"""The proxy's configuration from its environment, and the run folder made from it.

The run folder is the working directory of HAProxy and the agent, which name its files without a path: notebook-ca.pem,
proxy-client.pem, routes.map, grants.map, the pages, haproxy.sock and agent.sock. README.md has the table of variables.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chalicelib.config import Config
from chalicelib.errors import BadConfiguration
from proxy import pages

PACKAGE: Final = Path(__file__).resolve().parent
MAPS: Final = ("routes.map", "grants.map")
FULL_SYNC_SECONDS: Final = 600.0  # 100,000 items cost about $0.0005 to read
POLL_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 100.0  # Fargate gives a container 120 at most
MAXCONN: Final = 9000  # two descriptors each fit CI's and many hosts' limit of 20,000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One proxy's configuration. Times in seconds; `notebook_ca` and `client` are PEM, `client` holds both parts."""

    run: Path
    table: str
    hub_origin: str
    hub_url: str
    scheme: str
    host_suffix: str
    port: int
    bind: str
    maxconn: int
    poll: float
    full_sync: float
    entry_rate: int
    tunnel: str
    drain: float
    certificate: str | None
    notebook_ca: str
    client: str = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; raises BadConfiguration, which names the variable."""
        config = Config.from_environ(environ)
        scheme, _, host = config.notebook_url.partition("://")
        port = urlsplit(config.notebook_url.replace("*", "sid")).port or (443 if scheme == "https" else 80)
        certificate = environ.get("HOMEPORT_PROXY_CERTIFICATE", "").strip()
        return cls(
            run=Path(environ.get("HOMEPORT_PROXY_RUN", "/run/homeport")).absolute(),
            table=config.table,
            hub_origin=config.hub_origin,
            hub_url=_hub_url(environ, config.hub_origin),
            scheme=scheme,
            host_suffix=host.removeprefix("*").lower(),
            port=port,
            bind=environ.get("HOMEPORT_PROXY_BIND", "").strip() or f"127.0.0.1:{port}",
            maxconn=int(_number(environ, "HOMEPORT_PROXY_MAXCONN", MAXCONN)),
            poll=_number(environ, "HOMEPORT_PROXY_POLL", POLL_SECONDS),
            full_sync=_number(environ, "HOMEPORT_PROXY_FULL_SYNC", FULL_SYNC_SECONDS),
            entry_rate=int(_number(environ, "HOMEPORT_PROXY_ENTRY_RATE", 200)),
            tunnel=environ.get("HOMEPORT_PROXY_TUNNEL", "").strip() or "24h",
            drain=_number(environ, "HOMEPORT_PROXY_DRAIN", DRAIN_SECONDS),
            certificate=certificate or None,
            notebook_ca=_pem(environ, "HOMEPORT_PROXY_NOTEBOOK_CA", ("certificate",)),
            client=_pem(environ, "HOMEPORT_PROXY_CLIENT", ("certificate", "key")),
        )


def prepare(settings: Settings) -> None:
    """Make the run folder: certificates, pages, and empty maps where none are kept from an earlier run."""
    settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(settings.run / "notebook-ca.pem", settings.notebook_ca.encode())
    _write_private(settings.run / "proxy-client.pem", settings.client.encode())
    for status in pages.PAGES:
        (settings.run / f"{status}.http").write_bytes(pages.answer(status, settings.hub_url))
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
        "HOMEPORT_PROXY_MAXCONN": str(settings.maxconn),
        "HOMEPORT_PROXY_ENTRY_RATE": str(settings.entry_rate),
        "HOMEPORT_PROXY_TUNNEL": settings.tunnel,
        "HOMEPORT_HOST_SUFFIX": settings.host_suffix,
        "HOMEPORT_SCHEME": settings.scheme,
        "HOMEPORT_PORT": str(settings.port),
    }
    if settings.certificate:
        variables["HOMEPORT_PROXY_CERTIFICATE"] = settings.certificate
    return {"PATH": environ.get("PATH", os.defpath), **variables}


def agent_command() -> list[str]:
    """The command that runs the agent in the foreground; its environment is the one `Settings` was read from."""
    return [sys.executable, "-m", "proxy.agent"]


def agent_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The given environment with the folder and the import path that the agent needs."""
    return {**environ, "HOMEPORT_PROXY_RUN": str(settings.run), "PYTHONPATH": str(PACKAGE.parent)}


def _hub_url(environ: Mapping[str, str], origin: str) -> str:
    """The hub's first page, where API Gateway adds a stage to the path: links only, nothing is trusted for it."""
    url = environ.get("HOMEPORT_HUB_URL", "").strip() or f"{origin}/"
    if not url.startswith(("https://", "http://")):
        raise BadConfiguration("HOMEPORT_HUB_URL must begin with https:// or http://")
    return url


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        value = float(text) if text else float(default)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise BadConfiguration(f"{name} must be a number above 0")
    return value


def _pem(environ: Mapping[str, str], name: str, parts: tuple[str, ...]) -> str:
    """Read a certificate variable: PEM itself, JSON of PEM parts (as the hub's parameters are), or @ and a file."""
    text = environ.get(name, "").strip()
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"{name} names a file that cannot be read") from error
    if text.startswith("{"):
        try:
            values = json.loads(text)
            text = "".join(values[part].strip() + "\n" for part in parts)
        except (ValueError, KeyError, AttributeError):
            raise BadConfiguration(f"{name} must be JSON with {' and '.join(parts)}") from None
    if "-----BEGIN CERTIFICATE-----" not in text or ("key" in parts and "PRIVATE KEY-----" not in text):
        raise BadConfiguration(f"{name} must hold {' and '.join(parts)} as PEM, as JSON of PEM, or as @file")
    return text.strip() + "\n"


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
