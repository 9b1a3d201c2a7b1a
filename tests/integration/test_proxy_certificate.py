"""The wildcard certificate of a proxy on a Docker host: lego obtains it from Pebble and renews it, HAProxy serves it.

Pebble is the ACME server that Let's Encrypt tests clients with. It is told to believe that the DNS record is there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from chalicelib.environment import variables
from local import processes
from local.processes import Child
from proxy.settings import PACKAGE, Settings
from tests.certificates import Ca
from tests.proxy_rig import eventually, rig

DOMAIN = "notebooks.example.org"
OWNER = 880
missing = [name for name in ("lego", "pebble", "busybox", "haproxy") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing) or os.geteuid() != 0, reason="as root, after: apt-get install lego pebble busybox haproxy"
)


@dataclass(frozen=True)
class Acme:
    """An ACME server: its directory, its own CA (a file), and the PEM that its certificates lead to."""

    directory: str
    trust: Path
    root: str


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def acme(folder: Path) -> Iterator[Acme]:
    own = Ca.new("own address")
    leaf = own.issue("pebble", sans=("127.0.0.1",), server=True)
    for name, content in (("own.pem", own.certificate), ("leaf.pem", leaf.certificate), ("leaf.key", leaf.key)):
        (folder / name).write_bytes(content)
    port, management = processes.free_port(), processes.free_port()
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "leaf.pem"),
        "privateKey": str(folder / "leaf.key"),
        "httpPort": 1,
        "tlsPort": 1,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    environ = {"PATH": os.environ["PATH"], "PEBBLE_VA_ALWAYS_VALID": "1", "PEBBLE_VA_NOSLEEP": "1"}
    command = ["pebble", "-config", str(folder / "pebble.json")]
    with processes.running("pebble", command, folder=folder, environ=environ) as child:
        processes.wait_for_port(port, child=child)
        processes.wait_for_port(management, child=child)
        context = ssl.create_default_context(cafile=str(folder / "own.pem"))
        with urllib.request.urlopen(f"https://127.0.0.1:{management}/roots/0", context=context) as answer:
            root = answer.read().decode()
        yield Acme(f"https://127.0.0.1:{port}/dir", folder / "own.pem", root)


@contextmanager
def keeping(acme: Acme, folder: Path, **more: str) -> Iterator[Child]:
    """The script of the container `certificate`, with the shell and the capabilities that it has there."""
    (folder / "acme").mkdir(exist_ok=True)
    (folder / "served").mkdir(exist_ok=True)
    environ = {
        "PATH": os.environ["PATH"],
        "NOTEBOOK_DOMAIN": DOMAIN,
        "ACME_EMAIL": "ops@example.com",
        "ACME_DNS": "exec",
        "ACME_SERVER": acme.directory,
        "ACME_OPTIONS": "--dns.disable-cp",
        "ACME_STATE": str(folder / "acme"),
        "ACME_TARGET": str(folder / "served" / "notebooks.pem"),
        "ACME_RETRY": "1",
        "EXEC_PATH": "/bin/true",
        "LEGO_CA_CERTIFICATES": str(acme.trust),
        "LEGO_DISABLE_CNAME_SUPPORT": "true",
        **more,
    }
    command = ["setpriv", "--bounding-set=-all,+chown", "--", "busybox", "sh", str(PACKAGE / "certificate.sh")]
    with processes.running("certificate", command, folder=folder, environ=environ) as child:
        yield child


def obtained(folder: Path, child: Child) -> Path:
    """The PEM file for the proxy, once it is there."""
    file = folder / "served" / "notebooks.pem"
    processes.wait_until(file.exists, what="the certificate", deadline=60, child=child)
    return file


def served(port: int, acme: Acme) -> bytes:
    """The certificate that a visitor of any notebook sees, which leads to the ACME server's root."""
    context = ssl.create_default_context(cadata=acme.root)
    raw = socket.create_connection(("127.0.0.1", port), 20)
    with context.wrap_socket(raw, server_hostname=f"any-launch.{DOMAIN}") as connection:
        return connection.getpeercert(binary_form=True) or b""


def test_a_wildcard_certificate_is_obtained_served_and_renewed(acme: Acme, folder: Path) -> None:
    with keeping(acme, folder) as child:
        file = obtained(folder, child)
        assert (file.stat().st_mode & 0o777, file.stat().st_uid, file.stat().st_gid) == (0o400, OWNER, OWNER)
    environ = {"HOMEPORT_PROXY_CERTIFICATE": str(file)}
    with rig(environ=environ, origins=f"https://*.{DOMAIN}") as door:
        first = served(door.port, acme)
        with keeping(acme, folder, ACME_DAYS="100000"):  # more than it has: renewed at once
            eventually(lambda: served(door.port, acme) != first, "the renewed certificate", deadline=60)


def test_what_is_good_for_long_is_left_alone(acme: Acme, folder: Path) -> None:
    with keeping(acme, folder) as child:
        file = obtained(folder, child)
    before = file.stat()
    with keeping(acme, folder, ACME_PAUSE="1") as child:
        eventually(lambda: child.log.read_text().count("no renewal") >= 2, "two looks", deadline=60)
    assert file.stat() == before


def test_a_failure_is_tried_again_and_the_proxy_keeps_what_it_has(acme: Acme, folder: Path) -> None:
    with keeping(acme, folder, EXEC_PATH="/bin/false") as child:
        eventually(lambda: child.log.read_text().count("error presenting token") >= 2, "two attempts", deadline=60)
        assert not (folder / "served" / "notebooks.pem").exists()
    with keeping(acme, folder) as child:
        obtained(folder, child)
    assert "PRIVATE KEY" not in child.log.read_text()


# ── compose.yaml ─────────────────────────────────────────────────────────────────────────────────────────────────


COMPOSE = yaml.safe_load((PACKAGE / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def test_compose_sets_variables_that_the_proxy_has_and_all_that_it_requires() -> None:
    given = {name for name in SERVICES["proxy"]["environment"] if name.startswith("HOMEPORT_")}
    known = {known.name: known for known in variables(Settings)}
    assert given <= known.keys()
    assert {name for name, known in known.items() if known.note == "none, required"} <= given


def test_compose_and_the_image_agree_on_whose_the_files_are() -> None:
    dockerfile = (PACKAGE / "Dockerfile").read_text()
    assert f"--uid {OWNER} " in dockerfile
    assert f"--gid {OWNER} " in dockerfile
    assert SERVICES["proxy"]["tmpfs"] == [f"/run/homeport:uid={OWNER},gid={OWNER},mode=0700"]
    assert f":-{OWNER}:{OWNER}" in (PACKAGE / "certificate.sh").read_text()


def test_compose_names_each_file_with_a_secret_and_passes_none_in_the_environment() -> None:
    secrets = {name for service in SERVICES.values() for name in service["secrets"]}
    assert secrets == COMPOSE["secrets"].keys()
    ignored = (PACKAGE.parent / ".gitignore").read_text().split()
    assert {"/proxy/secrets/", "/proxy/.env", "/proxy/dns.env"} <= set(ignored)
    sent = (PACKAGE.parent / ".dockerignore").read_text().split()
    assert {"proxy/secrets", "proxy/.env", "proxy/dns.env"} <= set(sent)
    for name in ("HOMEPORT_PROXY_CLIENT", "HOMEPORT_PROXY_NOTEBOOK_CA"):
        assert SERVICES["proxy"]["environment"][name].startswith("@/run/secrets/")


def test_compose_takes_away_what_the_containers_do_not_need() -> None:
    of: Callable[[str], list[object]] = lambda key: [service.get(key) for service in SERVICES.values()]  # noqa: E731
    assert of("cap_drop") == [["ALL"], ["ALL"]]
    assert of("read_only") == [True, True]
    assert of("security_opt") == [["no-new-privileges:true"]] * 2
    assert SERVICES["certificate"]["cap_add"] == ["CHOWN"]
    (drain,) = (float(known.default) for known in variables(Settings) if known.name == "HOMEPORT_PROXY_DRAIN")
    assert SERVICES["proxy"]["stop_grace_period"] == "2m"
    assert drain < 120
