"""The one-machine stack on real parts: what `make demo` shows, and that nothing is left, however it ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from local import containers, demo, run
from local.engine import Engine, Names, engine_version, own_engine
from local.processes import StackError, free_port, wait_until
from local.run import Running, Stack
from local.settings import ROOT, Settings

needs_own_engine = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dockerd") is None, reason="needs root and `apt-get install docker.io`"
)
KEEPER = """
import sys, time
from pathlib import Path
from local.engine import own_engine
with own_engine(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_the_demo_sees_the_whole_path(stack: Stack) -> None:
    steps: list[str] = []
    output = io.StringIO()
    demo.demonstrate(stack, "whole-path", steps.append, output)
    assert any(step.startswith("it printed: ") and step.endswith(" 42") for step in steps)
    assert steps[-1] == "stopped; no container, no route, no stored credential is left"
    assert "100% ready" in output.getvalue()


def test_the_demo_notices_what_is_left(stack: Stack) -> None:
    hub = demo.HubClient(stack.hub_address)
    try:
        sid = hub.launch(Path(stack.bundle), "left")["id"]
        demo.follow(hub, sid, "ready", lambda _session: None)
        notebook = demo.enter(stack.hub_url, hub.enter(sid), stack.proxy_port)
        left = demo.leftovers(stack, notebook, sid)
        kinds = [line.partition(" homeport-")[0].partition(" credentials/")[0] for line in left]
        assert kinds == [
            "container",
            "route: the proxy answers 200",
            f"route in the table: route#{notebook.host.partition('.')[0]}",
            "stored credentials",
        ]
        hub.stop(sid)
        demo.follow(hub, sid, "stopped", lambda _session: None)
        assert demo.leftovers(stack, notebook, sid) == []
    finally:
        hub.close()


def test_everything_that_the_stack_keeps_is_for_its_own_user_alone(running_stack: Running) -> None:
    demo.demonstrate(running_stack.stack, "private", lambda _step: None, io.StringIO())
    kept = Path(running_stack.stack.bundle).parent
    paths = [kept, *kept.rglob("*")]
    names = {path.name for path in paths}
    assert names >= {"stack.json", "credentials.zip", "pki.json", "aws.log", "pump.log", "hub.log", "agent.log"}
    assert [f"{path} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077] == []


def test_no_part_is_told_of_a_docker_engine_and_no_command_line_shows_the_key(running_stack: Running) -> None:
    found = running_stack.stack
    assert {child.name for child in running_stack.children} == {"aws", "haproxy", "agent", "pump", "hub"}
    for child in running_stack.children:
        environ = Path(f"/proc/{child.pid}/environ").read_text().split("\0")
        assert [line for line in environ if line.startswith("DOCKER_")] == [], child.name
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(errors="replace")
        except OSError:
            continue
        assert found.aws_secret not in command


@contextmanager
def a_run(settings: Settings, engine: Engine, image: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m local.run` until it says what to open."""
    environ = os.environ | {
        "DOCKER_HOST": engine.url,
        "HOMEPORT_IMAGE": image,
        "HOMEPORT_STATE_DIR": str(settings.state),
        "HOMEPORT_HUB_PORT": str(settings.hub_port),
        "HOMEPORT_PROXY_PORT": str(settings.proxy_port),
        "HOMEPORT_ENDPOINT_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "local.run"]
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while not said.startswith("Open "):
            said = process.stdout.readline()
            assert said, "it ended before it was ready"
        assert said.startswith(f"Open {settings.hub_url}/ and upload {settings.state / 'credentials.zip'}")
        yield process


def processes_of(folder: Path) -> list[str]:
    """Find the processes whose command line or environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and int(process.name) != os.getpid():
            found.append(f"{process.name} {words[:200]!r}")
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_when_the_run_is_ended(
    number: signal.Signals, engine: Engine, notebook_image: str, state: Path
) -> None:
    settings = Settings(state=state / f"run-{number}", hub_port=free_port(), proxy_port=free_port())
    with a_run(settings, engine, notebook_image) as process:
        assert processes_of(settings.state)
        found = run.announced(settings)
        assert found is not None
        hub = demo.HubClient(found.hub_address)
        sid = hub.launch(Path(found.bundle), "kept")["id"]
        demo.follow(hub, sid, "ready", lambda _session: None)
        hub.close()
        process.send_signal(number)
        process.wait(timeout=60)
    assert process.returncode == (0 if number != signal.SIGKILL else -number)
    wait_until(lambda: not processes_of(settings.state), what="the end of every part", deadline=30)
    if number == signal.SIGKILL:  # who is killed cannot tidy up: the next run does
        assert containers.names_of(engine.url, settings.hub_name)
        with a_run(settings, engine, notebook_image) as process:
            assert not containers.names_of(engine.url, settings.hub_name)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    assert not containers.names_of(engine.url, settings.hub_name)
    assert run.announced(settings) is None
    containers.remove_all(engine.url, settings.hub_name, volumes=True)


def test_the_run_ends_when_a_part_of_it_ends(running_stack: Running) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "raise SystemExit('out of maps')"])
    dead.wait()
    child = type(running_stack.children[0])("agent", dead, running_stack.children[0].log)
    with pytest.raises(StackError, match="agent ended by itself"):
        run.watch(Running(running_stack.stack, (child,), running_stack.engine_socket))


def bridges() -> dict[str, str]:
    links = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
    return {link["ifname"]: address["local"] for link in links for address in link["addr_info"][:1]}


def rules() -> str:
    return "".join(
        subprocess.run(["iptables", "--wait", "-t", table, "-S"], capture_output=True, text=True, check=True).stdout
        for table in ("filter", "nat")
    )


@needs_own_engine
def test_two_engines_of_our_own_share_nothing(state: Path) -> None:
    with own_engine(state / "one") as one, own_engine(state / "two") as two:
        names = [Names.of(state / "one").bridge, Names.of(state / "two").bridge]
        addresses = bridges()
        assert addresses[names[0]] != addresses[names[1]]
        for started in (one, two):
            client = docker.APIClient(base_url=started.url)
            assert client.containers(all=True) == []
            client.close()
    assert not set(names) & set(bridges())
    assert not any(name in rules() for name in names)


@needs_own_engine
def test_an_engine_of_our_own_leaves_nothing_when_its_parent_is_killed(state: Path) -> None:
    folder = state / "killed"
    names = Names.of(folder)
    command = [sys.executable, "-c", KEEPER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        assert engine_version(names.socket)
        parent.kill()
    wait_until(lambda: not names.run.exists() and not processes_of(folder), what="the engine's end", deadline=45)
    assert not processes_of(names.run)
    assert names.bridge not in bridges()
    assert names.bridge not in rules()
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def test_an_engine_that_is_gone_is_noticed(running_stack: Running, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="engine does not answer"):
        run.watch(Running(running_stack.stack, (), tmp_path / "no-such.sock"))
