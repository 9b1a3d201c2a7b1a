"""Real engines beside the one that `local.engine` starts: rootless Docker, Podman's API service, other API versions.

Each is a context manager that gives an Engine and leaves nothing behind. They run as Debian packages them, with what
this machine may lack: an unprivileged user (in a mount namespace of the engine's own, so that no file of the machine
changes), and settings for Podman where cgroups are of the first version or mixed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from local import engine as local_engine
from local import processes
from local.engine import Engine
from tests.swarm import swarm

SCRIPT: Final = Path("/usr/share/docker.io/contrib/dockerd-rootless.sh")
UID: Final = 64_242  # nobody's
SUBORDINATE: Final = 700_000_000  # the first of 65,536 user ids that nobody has either
HOST: Final = "10.0.2.2"  # the machine's 127.0.0.1 as slirp4netns offers it to a rootless engine
LOOPBACK: Final = processes.LOOPBACK


def missing_for(kind: str) -> str:
    """Say what to install for this kind of engine; nothing when all is there."""
    programs = {
        "docker": {"docker.io": "dockerd", "iptables": "iptables", "haproxy": "haproxy"},
        "rootless": {"rootlesskit": "rootlesskit", "uidmap": "newuidmap", "slirp4netns": "slirp4netns"},
        "podman": {"podman": "podman", "runc": "runc"},
    }
    wanted = programs["docker"] | programs.get(kind, {})
    lacking = [package for package, program in wanted.items() if shutil.which(program) is None]
    return f"run as root after: apt-get install {' '.join(wanted)}" if lacking or os.geteuid() != 0 else ""


@contextmanager
def of_kind(kind: str, folder: Path, docker: Engine) -> Iterator[Engine]:
    """An engine of this kind: `docker` itself, the same behind a `swarm` or as `api-1.x`, `rootless` or `podman`."""
    with ExitStack() as stack:
        match kind.partition("-"):
            case ("docker", _, _):
                yield docker
            case ("rootless", _, _):
                yield stack.enter_context(rootless())
            case ("podman", _, _):
                yield stack.enter_context(podman(folder))
            case ("swarm", _, _):
                yield stack.enter_context(swarm(folder / "swarm.sock", docker))
            case ("api", _, version):
                yield stack.enter_context(speaking(version, folder, docker))


# ── rootless Docker ──────────────────────────────────────────────────────────────────────────────────────────────

_AS_NOBODYS_USER: Final = """\
set -e
mount --make-rprivate /
for name in passwd subuid subgid; do mount --bind "$1/$name" "/etc/$name"; done
mount --bind "$1/tun" /dev/net/tun
shift
exec setpriv --reuid {uid} --regid {uid} --clear-groups --pdeathsig TERM "$@"
"""


@contextmanager
def rootless() -> Iterator[Engine]:
    """dockerd of an unprivileged user, in user, mount and network namespaces (RootlessKit), with slirp4netns.

    With cgroups of the first version it can limit nothing. It may reach registries on the machine's 127.0.0.1 as HOST.
    """
    with tempfile.TemporaryDirectory(prefix="homeport-rootless-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        folder.chmod(0o711)
        _make_user(folder / "etc")
        run, home = folder / "run", folder / "home"
        for mine in (run, home):
            mine.mkdir(mode=0o700)
            os.chown(mine, UID, UID)
        socket = run / "docker.sock"
        environ = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(run),
            "XDG_CONFIG_HOME": str(home),
            "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS": "--disable-host-loopback=false",
        }
        command = ["unshare", "--mount", "sh", "-c", _AS_NOBODYS_USER.format(uid=UID), "sh", str(folder / "etc")]
        command += ["env", "-i", *(f"{name}={value}" for name, value in environ.items()), str(SCRIPT)]
        command += [f"--data-root={home / 'data'}", f"--host=unix://{socket}", f"--insecure-registry={HOST}/32"]
        with processes.running(
            "rootless", command, folder=folder / "log", patience=local_engine.STOP_DEADLINE
        ) as child:
            yield _answering(socket, child)


def _make_user(etc: Path) -> None:
    """What makes a user of UID: an entry of passwd, subordinate ids, and a device for the user's own network."""
    etc.mkdir(mode=0o755)
    files = {
        "passwd": Path("/etc/passwd").read_text() + f"homeport-test:x:{UID}:{UID}::/nonexistent:/bin/sh\n",
        "subuid": f"homeport-test:{SUBORDINATE}:65536\n",
        "subgid": f"homeport-test:{SUBORDINATE}:65536\n",
    }
    for name, content in files.items():
        (etc / name).write_text(content)
        (etc / name).chmod(0o644)
    os.mknod(etc / "tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    (etc / "tun").chmod(0o666)


# ── Podman ───────────────────────────────────────────────────────────────────────────────────────────────────────

_PODMAN: Final = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=2048:2048"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[network]
network_config_dir = "{folder}/networks"
"""
_NETWORK: Final = """\
{{"cniVersion": "0.4.0", "name": "podman", "plugins": [
  {{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "ipam": {{"type": "host-local", "dataDir": "{folder}/addresses", "routes": [{{"dst": "0.0.0.0/0"}}],
             "ranges": [[{{"subnet": "{subnet}"}}]]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}},
  {{"type": "firewall"}}, {{"type": "tuning"}}]}}
"""


@contextmanager
def podman(folder: Path) -> Iterator[Engine]:
    """Podman's service of Docker's API, run by root, with a bridge of its own."""
    with tempfile.TemporaryDirectory(prefix="hp-") as run:  # Podman wants no longer path than 50 characters
        yield from _podman(folder / "podman", run)


def _podman(folder: Path, run: str) -> Iterator[Engine]:
    (folder / "networks").mkdir(parents=True)
    bridge = f"hp-p{os.getpid():x}"
    subnet = local_engine._free_subnet(local_engine._networks_in_use())
    (folder / "networks" / "podman.conflist").write_text(_NETWORK.format(folder=folder, bridge=bridge, subnet=subnet))
    (folder / "containers.conf").write_text(_PODMAN.format(folder=folder))
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{LOOPBACK}"\ninsecure = true\n')
    environ = os.environ | {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
    command = ["podman", f"--root={folder / 'data'}", f"--runroot={run}", f"--tmpdir={folder / 'tmp'}"]
    socket = folder / "podman.sock"
    chains = _chains()
    try:
        with processes.running(
            "podman",
            [*command, "system", "service", "--time=0", f"unix://{socket}"],
            folder=folder / "log",
            environ=environ,
        ) as child:
            yield _answering(socket, child)
    finally:
        subprocess.run([*command, "rm", "--all", "--force", "--time=0"], env=environ, capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
        _remove_chains(_chains() - chains)
        for mount in local_engine._mounts_below((folder, Path(run))):
            subprocess.run(["umount", "--lazy", mount], check=True)


def _rules(table: str) -> list[list[str]]:
    listed = local_engine._run("iptables", "--wait", "--table", table, "--list-rules")
    return [shlex.split(line) for line in listed.splitlines()]


def _chains() -> set[tuple[str, str]]:
    """The chains of iptables that a container network (CNI) has made: table and name."""
    found = ((table, rule) for table in ("filter", "nat") for rule in _rules(table))
    return {(table, rule[1]) for table, rule in found if rule[0] == "-N" and rule[1].startswith("CNI-")}


def _remove_chains(chains: set[tuple[str, str]]) -> None:
    for table in {table for table, _ in chains}:
        names = [name for of, name in sorted(chains) if of == table]
        edit = ["iptables", "--wait", "--table", table]
        for rule in _rules(table):
            if rule[0] == "-A" and rule[-1] in names:
                local_engine._run(*edit, "--delete", *rule[1:])
        for option in ("--flush", "--delete-chain"):
            for name in names:
                local_engine._run(*edit, option, name)


# ── other versions of the API ────────────────────────────────────────────────────────────────────────────────────

# What dockerd 20.10 is asked at /v1.41 is asked of it at a version it knows; one that is not spoken is refused in the
# engine's own words.
_SPEAKING: Final = """\
global
    maxconn 512
defaults
    mode http
    maxconn 500
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend api
    bind unix@{socket}
    http-request return status 200 content-type application/json string '{{"Version": "{engine_version}", \
"ApiVersion": "{version}", "MinAPIVersion": "{version}", "Os": "linux"}}' if {{ path -m reg ^(/v[0-9.]+)?/version$ }}
    http-request return status 200 content-type text/plain hdr Api-Version {version} string OK \
if {{ path -m reg ^(/v[0-9.]+)?/_ping$ }}
    http-request return status 400 content-type application/json \
string '{{"message": "only client version {version} is spoken here"}}' unless {{ path_beg /v{version}/ }}
    http-request replace-path /v[0-9.]+/(.*) /v{behind}/\\1
    default_backend engine
backend engine
    server engine unix@{engine}
"""


@contextmanager
def speaking(version: str, folder: Path, engine: Engine) -> Iterator[Engine]:
    """The engine as one that speaks this version of the API alone: what is asked at another is refused."""
    folder = folder / f"api-{version}"
    folder.mkdir(parents=True)
    socket, configuration = folder / "api.sock", folder / "haproxy.cfg"
    known = min(version, "1.41")  # the newest one of Docker 20.10
    names = {"socket": socket, "engine": engine.socket, "engine_version": engine.version}
    text = _SPEAKING.format(version=version, behind=known, **names)
    configuration.write_text(text)
    with processes.running("api", ["haproxy", "-db", "-f", configuration], folder=folder) as child:
        yield _answering(socket, child)


def _answering(socket: Path, child: processes.Child) -> Engine:
    processes.wait_until(
        lambda: local_engine.engine_version(socket) is not None,
        what=f"{child.name} answering",
        deadline=local_engine.START_DEADLINE,
        child=child,
    )
    return Engine(socket, local_engine.engine_version(socket) or "", ours=True)
