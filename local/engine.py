"""A Docker engine for one machine: the one that already runs, or one of our own in a folder of our own.

1. An engine that answers on DOCKER_HOST (unix:// only) or /var/run/docker.sock is used as it is and never changed.
2. Our own dockerd shares nothing with another: data under the folder, run-time files in a short path under /run (unix
   socket paths end at 108 bytes), a bridge of its own with a subnet nobody uses. It runs with `--iptables=false`: two
   daemons would flush each other's chains. Published ports go through docker-proxy, and the three rules that let
   containers reach out are ours, added and removed here.
3. dockerd is started by a small supervisor (`python -m local.engine FOLDER`), which the kernel tells when its parent is
   gone: then containers, dockerd, containerd, mounts, rules and bridge go too. What a killed supervisor left is cleaned
   up at the next start, as all names come from the folder's path.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from local import private, processes
from local.processes import SocketFileConnection, StackError

DEFAULT_SOCKET: Final = Path("/var/run/docker.sock")
# Subnets are /24s of this block; Docker's own defaults are 172.17.0.0/16 and up.
SUBNETS: Final = ipaddress.IPv4Network("10.213.0.0/16")
START_DEADLINE: Final = 60.0
STOP_DEADLINE: Final = 45.0  # dockerd gives containers 10 s, itself 15 s


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine that answers on a unix socket; `ours` when it was started here."""

    socket: Path
    version: str
    ours: bool

    @property
    def url(self) -> str:
        """What docker-py and the docker command call it."""
        return f"unix://{self.socket}"


def engine_version(path: Path) -> str | None:
    """Ask the engine behind a unix socket for its version; None when no engine answers there."""
    connection = SocketFileConnection(path, timeout=5)
    try:
        connection.request("GET", "/version")
        answer = connection.getresponse()
        return str(json.loads(answer.read(65536))["Version"]) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()


def running_engine(environ: Mapping[str, str]) -> Engine | None:
    """Find an engine that already runs on this machine."""
    host = environ.get("DOCKER_HOST", "")
    path = Path(host.removeprefix("unix://")) if host.startswith("unix://") else DEFAULT_SOCKET
    version = engine_version(path)
    return Engine(path, version, ours=False) if version else None


@contextmanager
def engine(folder: Path, environ: Mapping[str, str]) -> Iterator[Engine]:
    """Give an engine for as long as the block lasts: a running one, else our own in `folder`; raises StackError."""
    found = running_engine(environ)
    if found is not None:
        yield found
        return
    with own_engine(folder) as started:
        yield started


@contextmanager
def own_engine(folder: Path) -> Iterator[Engine]:
    """Run our own dockerd with all it keeps in `folder`; raises StackError when this machine cannot."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise StackError(
            "no Docker engine answers on this machine: start one, or run this as root after "
            "`apt-get install docker.io iptables` (`make setup` does it)"
        )
    names = Names.of(folder)
    command = [sys.executable, "-m", "local.engine", str(folder.resolve())]
    with processes.running(
        "engine", command, folder=folder, cwd=Path(__file__).parent.parent, patience=STOP_DEADLINE
    ) as child:
        processes.wait_until(
            lambda: engine_version(names.socket) is not None,
            what="the Docker engine answering",
            deadline=START_DEADLINE,
            child=child,
        )
        yield Engine(names.socket, engine_version(names.socket) or "", ours=True)


# ── the supervisor of our own dockerd ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Names:
    """What an engine of our own is called on this machine; all of it follows from its folder's path."""

    data: Path
    run: Path
    bridge: str

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"

    @classmethod
    def of(cls, folder: Path) -> Names:
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        return cls(folder.resolve() / "data", Path(f"/run/homeport-{digest}"), f"hp-{digest}")


class _Stopped(Exception):
    """The supervisor was asked to end."""


def supervise(folder: Path) -> int:
    """Run dockerd until asked to stop or until it ends by itself; give the exit status."""
    names = Names.of(folder)
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, _raise_stopped)
    try:
        _tear_down(names)
        subnet = _make_bridge(names.bridge)
        command = _dockerd_command(names, subnet)
        with processes.running("dockerd", command, folder=folder, patience=STOP_DEADLINE - 10) as dockerd:
            dockerd.process.wait()
            print(f"dockerd ended with status {dockerd.process.returncode}:\n{dockerd.log_tail()}")
        return 1
    except _Stopped:
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _tear_down(names)


def _raise_stopped(_signal: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _dockerd_command(names: Names, subnet: ipaddress.IPv4Network) -> list[str]:
    names.data.mkdir(parents=True, exist_ok=True)
    # dockerd remembers the subnet of its last bridge here and would give it to this one, whoever uses it by now.
    shutil.rmtree(names.data / "network", ignore_errors=True)
    private.make_folder(names.run)
    # A file of our own: options in /etc/docker/daemon.json would clash with these.
    settings = names.run / "daemon.json"
    settings.write_text("{}")
    return [
        "dockerd",
        f"--config-file={settings}",
        f"--data-root={names.data}",
        f"--exec-root={names.run / 'exec'}",
        f"--pidfile={names.run / 'dockerd.pid'}",
        f"--host=unix://{names.socket}",
        f"--bridge={names.bridge}",
        f"--fixed-cidr={subnet}",
        "--iptables=false",
        "--ip6tables=false",
        "--log-level=warn",
    ]


def _make_bridge(bridge: str) -> ipaddress.IPv4Network:
    """Make the bridge with the first free subnet, and let its containers reach out."""
    lock = Path("/run/homeport-bridges.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        subnet = _free_subnet(_networks_in_use())
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{subnet[1]}/{subnet.prefixlen}", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
    for table, chain, *rule in _rules(bridge, subnet):
        _run("iptables", "--wait", "--table", table, "--append", chain, "-m", "comment", "--comment", bridge, *rule)
    return subnet


def _rules(bridge: str, subnet: ipaddress.IPv4Network) -> tuple[tuple[str, ...], ...]:
    """Give the iptables rules as (table, chain, condition and target …)."""
    return (
        ("filter", "FORWARD", "-i", bridge, "-j", "ACCEPT"),
        ("filter", "FORWARD", "-o", bridge, "-j", "ACCEPT"),
        ("nat", "POSTROUTING", "-s", str(subnet), "!", "-o", bridge, "-j", "MASQUERADE"),
    )


def _remove_rules(bridge: str) -> None:
    """Delete every rule that carries the bridge's name as its comment."""
    for table in ("filter", "nat"):
        for line in _run("iptables", "--wait", "--table", table, "--list-rules").splitlines():
            if f" --comment {bridge} " in line:
                _run("iptables", "--wait", "--table", table, "--delete", *line.split()[1:])


def _networks_in_use() -> list[ipaddress.IPv4Network]:
    routes = json.loads(_run("ip", "-j", "-4", "route", "show", "table", "all"))
    networks = []
    for route in routes:
        destination = route.get("dst", "default")
        if destination != "default":
            networks.append(ipaddress.IPv4Network(destination, strict=False))
    return networks


def _free_subnet(in_use: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """Give the first /24 of SUBNETS that overlaps no route; raises StackError when there is none."""
    for subnet in SUBNETS.subnets(new_prefix=24):
        if not any(subnet.overlaps(network) for network in in_use):
            return subnet
    raise StackError(f"every subnet of {SUBNETS} is in use on this machine; start a Docker engine yourself")


def _tear_down(names: Names) -> None:
    """Remove what an engine of this name leaves behind; safe to repeat."""
    _await_end_of_earlier(names)
    _remove_rules(names.bridge)
    if _succeeds("ip", "link", "show", names.bridge):
        _run("ip", "link", "del", names.bridge)
    for mount in _mounts_below((names.run, names.data)):
        _run("umount", "--lazy", mount)
    shutil.rmtree(names.run, ignore_errors=True)


def _await_end_of_earlier(names: Names) -> None:
    """Wait for a dockerd whose supervisor was killed: the kernel has told it to end, and that takes a moment."""
    try:
        command_line = Path("/proc", (names.run / "dockerd.pid").read_text().strip(), "cmdline")
    except FileNotFoundError:
        return

    def gone() -> bool:
        try:
            return str(names.socket) not in command_line.read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    processes.wait_until(gone, what="the end of an earlier dockerd", deadline=STOP_DEADLINE)


def _mounts_below(folders: Sequence[Path]) -> list[str]:
    """List mount points in the folders, innermost first (proc_pid_mountinfo(5), field 5)."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in points if any(Path(point).is_relative_to(folder) for folder in folders)]
    return sorted(below, key=len, reverse=True)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1])))
