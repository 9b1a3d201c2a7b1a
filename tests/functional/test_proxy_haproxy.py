"""haproxy.cfg as HAProxy itself reads it, in each of the ways the proxy is configured, and its start script."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chalicelib.notebook.certificates import issue_client, new_ca
from local import processes
from proxy.settings import PACKAGE, Settings, agent_environ, haproxy_command, haproxy_environ, prepare
from tests.proxy_rig import web_certificate

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"), reason="apt-get install haproxy"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: unix sockets' names end at 108 bytes."""
    made = Path(tempfile.mkdtemp(prefix="hp"))
    yield made
    shutil.rmtree(made)


def environ(folder: Path) -> dict[str, str]:
    ca = new_ca("proxy test", now=time.time(), lifetime=3600)
    client = issue_client(ca, "proxy", now=time.time(), lifetime=3600)
    return {
        "HOMEPORT_PROXY_RUN": str(folder / "run"),
        "HOMEPORT_PROXY_NOTEBOOK_CA": ca.certificate.decode(),
        "HOMEPORT_PROXY_CLIENT": client.to_json(),
        "PATH": os.defpath,
    }


def checked(settings: Settings) -> subprocess.CompletedProcess[str]:
    prepare(settings)
    return subprocess.run(
        [*haproxy_command(settings), "-c"],
        env=haproxy_environ(settings, {}),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org", "HOMEPORT_PROXY_BIND": "0.0.0.0:8080"},
        {"HOMEPORT_NOTEBOOK_URL": "https://*.n.example.org", "HOMEPORT_PROXY_BIND": "0.0.0.0:8080 accept-proxy"},
        {"HOMEPORT_NOTEBOOK_URL": "https://*.n.example.org", "HOMEPORT_PROXY_CERTIFICATE": "web.pem"},
    ],
    ids=["one machine", "TLS in a load balancer", "TLS in a load balancer, PROXY protocol", "TLS here"],
)
def test_haproxy_accepts_the_configuration_without_a_warning(folder: Path, changes: dict[str, str]) -> None:
    if "HOMEPORT_PROXY_CERTIFICATE" in changes:
        changes = {**changes, "HOMEPORT_PROXY_CERTIFICATE": web_certificate(folder)}
    result = checked(Settings.from_environ({**environ(folder), **changes}))
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr


def test_haproxy_is_told_nothing_of_the_agent_s(folder: Path) -> None:
    settings = Settings.from_environ(environ(folder))
    given = haproxy_environ(settings, {"AWS_SECRET_ACCESS_KEY": "secret", "HOMEPORT_PROXY_CLIENT": "secret"})
    assert "secret" not in str(given)


def test_preparing_again_keeps_the_maps(folder: Path) -> None:
    settings = Settings.from_environ(environ(folder))
    prepare(settings)
    (settings.run / "routes.map").write_text("one 1\n")
    prepare(settings)
    assert (settings.run / "routes.map").read_text() == "one 1\n"
    assert (settings.run / "proxy-client.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_start_script_runs_both_and_stops_both(folder: Path, number: signal.Signals) -> None:
    with started(folder) as (child, port):
        assert processes.accepts(folder / "run" / "agent.sock")
        child.process.send_signal(number)
        assert child.process.wait(30) == 0
        assert not processes.accepts(("127.0.0.1", port))
        assert not processes.accepts(folder / "run" / "agent.sock")


@pytest.mark.parametrize("victim", ["haproxy", "proxy.agent"])
def test_when_one_of_both_ends_the_container_does(folder: Path, victim: str) -> None:
    with started(folder) as (child, port):
        os.kill(child_of(child.pid, victim), signal.SIGKILL)
        assert child.process.wait(30) == 1
        assert not processes.accepts(("127.0.0.1", port))


def test_a_wrong_variable_stops_the_start_script_with_a_sentence(folder: Path) -> None:
    given = {**environ(folder), "HOMEPORT_PROXY_CLIENT": "x"}
    result = subprocess.run(
        [sys.executable, "-m", "proxy.run"], cwd=PACKAGE.parent, env=given, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 2
    assert result.stderr.startswith("proxy: HOMEPORT_PROXY_CLIENT must be ")


@contextmanager
def started(folder: Path) -> Iterator[tuple[processes.Child, int]]:
    """The start script, with a table that does not answer."""
    port, nothing = processes.free_port(), processes.free_port()
    settings = Settings.from_environ({**environ(folder), "HOMEPORT_PROXY_BIND": f"127.0.0.1:{port}"})
    given = agent_environ(settings, environ(folder)) | {
        "HOMEPORT_PROXY_BIND": f"127.0.0.1:{port}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{nothing}",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    with processes.running("run", [sys.executable, "-m", "proxy.run"], folder=folder, environ=given) as child:
        processes.wait_for_port(port, child=child)
        processes.wait_until(
            lambda: processes.accepts(folder / "run" / "agent.sock"), what="the agent", deadline=20, child=child
        )
        yield child, port


def child_of(pid: int, word: str) -> int:
    """The child of `pid` whose command holds `word`."""
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if word in Path(f"/proc/{number}/cmdline").read_text():
            return int(number)
    raise AssertionError(f"no child with {word}")


def test_the_container_is_given_what_the_proxy_imports_and_no_launcher(tmp_path: Path) -> None:
    """What the Dockerfile copies is copied to a folder of its own, and the proxy's programs are imported there."""
    root = PACKAGE.parent
    copies = re.findall(
        r"^COPY ((?:chalicelib|proxy)/?\S*(?: \S+)*)$", (PACKAGE / "Dockerfile").read_text(), re.MULTILINE
    )
    for *sources, target in (line.split() for line in copies if "requirements" not in line):
        for source in sources:
            place = tmp_path / target / ("" if (root / source).is_dir() else Path(source).name)
            place.parent.mkdir(parents=True, exist_ok=True)
            if (root / source).is_dir():
                shutil.copytree(root / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(root / source, place)
    program = "import sys, proxy.run, proxy.agent.__main__; print(*sys.modules)"
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert "chalicelib.aws.routes" in loaded.stdout.split(), loaded.stderr
    assert not {"docker", "cryptography", "chalice"} & set(loaded.stdout.split())
    assert not [
        name for name in ("launcher", "engine", "web", "wiring.py") if (tmp_path / "chalicelib" / name).exists()
    ]
