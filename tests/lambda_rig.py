"""Lambda on this machine: the zip as it is deployed under AWS's own runtime client, against a small Runtime API.

A function runs as Lambda runs it: from a read-only `/var/task`, as a user that may do nothing, with Lambda's
environment and nothing of this machine's, its Python at `/var/lang` and what the runtime brings (boto3, the runtime
client) at `/var/runtime`. Only `/tmp` can be written. What there is of it on this machine are mounts in a namespace of
the function's own, which end with it. It needs root and a Python 3.13.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

from infra.artefact import Artefact, build_zip, find_python
from infra.packages import LOCK, fetch_packages
from infra.project import stage_project
from local import recipe
from local.processes import LOOPBACK
from tests.policies import OUTPUTS, ROOT

PYTHON: Final = "3.13"
DEBIAN: Final = ("python3.13", "libstdc++6", "dash", "util-linux")  # of Debian 13: Python, and what starts it
RUNTIME: Final = ROOT / "tests" / "requirements-runtime.txt"
ARCHITECTURES: Final = {"x86_64": "x86_64", "aarch64": "arm64"}  # of a machine → Lambda's name
USER: Final = "993"  # Lambda's own, which this machine does not know
MEMORY: Final = 512
API: Final = "/2018-06-01/runtime/"
PATIENCE: Final = 60.0  # seconds, for a start and for an answer

UNSHARED: Final = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--")
# $1: an empty folder that becomes the function's root; $2: its handler; the other arguments: SOURCE:TARGET, read-only.
# The time of $1.started is when all of this was there, and the function was started.
SANDBOX: Final = f"""
set -eu
root=$1 handler=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
for pair; do
    mkdir -p "$root${{pair#*:}}"
    mount --bind "${{pair%%:*}}" "$root${{pair#*:}}"
    mount -o remount,bind,ro,nosuid "$root${{pair#*:}}"
done
mkdir "$root/tmp" "$root/dev" "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
for device in null random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
    mount -o remount,bind,ro "$root/dev/$device"
done
mount -o remount,ro "$root"
: >"$root.started"
exec /usr/sbin/chroot "$root" setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --inh-caps=-all \\
    --bounding-set=-all -- sh -c 'cd /var/task && exec /var/lang/bin/python3.13 -m awslambdaric "$0"' "$handler"
"""


@dataclass(frozen=True)
class Answer:
    """What a function made of an event: its answer, or the error it ended with and what X-Ray is told of that."""

    body: bytes
    failed: bool
    cause: str = ""

    @property
    def json(self) -> Any:
        """The answer; raises AssertionError for an error."""
        assert not self.failed, self.body.decode()
        return json.loads(self.body)


class RuntimeApi(ThreadingHTTPServer):
    """The Runtime API of one function: hands out events one by one, and takes what comes of them.

    `trace` is the trace header of the events to come.
    """

    daemon_threads = True

    def __init__(self, arn: str, timeout: float) -> None:
        super().__init__((LOOPBACK, 0), _Calls)
        self.arn = arn
        self.seconds = timeout
        self.trace = "Root=1-0-0;Parent=0;Sampled=0"
        self.asked = threading.Event()
        self.asked_at = 0.0
        self.refusal = b""  # of the function, to be initialised
        self.events: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[Answer] = queue.Queue()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a function that is ended hangs up."""

    def invoke(self, event: object) -> Answer:
        """Hand an event to the function and wait for its answer; raises queue.Empty if there is none."""
        self.events.put(json.dumps(event).encode())
        return self.answers.get(timeout=PATIENCE)


class _Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536
    server: RuntimeApi

    def do_GET(self) -> None:
        """The next event, as soon as there is one."""
        assert self.path == f"{API}invocation/next", self.path
        self.server.asked_at = time.time()
        self.server.asked.set()
        body = self.server.events.get()
        self.send_response(200)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Lambda-Runtime-Aws-Request-Id": os.urandom(8).hex(),
            "Lambda-Runtime-Invoked-Function-Arn": self.server.arn,
            "Lambda-Runtime-Deadline-Ms": str(int(1000 * (time.time() + self.server.seconds))),
            "Lambda-Runtime-Trace-Id": self.server.trace,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """An answer, or an error of the function or of its initialisation."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()
        if self.path == f"{API}init/error":
            self.server.refusal = body
            self.server.asked.set()
        else:
            cause = self.headers.get("Lambda-Runtime-Function-XRay-Error-Cause", "")
            self.server.answers.put(Answer(body, failed=self.path.endswith("/error"), cause=cause))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


# ── what is run ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Python:
    """A Python of the functions' version: its prefix, and the root of a system that has the libraries it needs."""

    prefix: Path
    system: Path = Path("/")


def build(folder: Path, architecture: str, environment: Mapping[str, str]) -> Artefact:
    """Build the zip for Lambda's name of an architecture, in a new project in `folder`, as a deployment does."""
    project, source = folder / "project", folder / "source"
    (source / ".chalice").mkdir(parents=True)
    shutil.copyfile(ROOT / LOCK, source / LOCK)
    _set_architecture(ROOT, source, architecture)
    fetch_packages(source, project, PYTHON)
    stage_project(ROOT, project, outputs=OUTPUTS, environment=environment)
    _set_architecture(project, project, architecture)
    return build_zip(project, PYTHON)


def _set_architecture(source: Path, target: Path, architecture: str) -> None:
    config = json.loads((source / ".chalice" / "config.json").read_text())
    config["lambda_architecture"] = architecture
    (target / ".chalice" / "config.json").write_text(json.dumps(config))


def install_runtime(folder: Path) -> Path:
    """Install what Lambda's runtime brings, for its Python on this machine, with bytecode if this machine has one."""
    tags = ["manylinux2014", "manylinux_2_28", "manylinux_2_34"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--require-hashes", "--only-binary=:all:", f"--python-version={PYTHON}"]
    command += [f"--platform={tag}_{platform.machine()}" for tag in tags]
    subprocess.run([*command, f"--target={folder}", "-r", RUNTIME], check=True)
    if python := find_python(PYTHON):
        subprocess.run([python, "-m", "compileall", "-q", folder], check=True)
    return folder


def provide_python(folder: Path) -> Python:
    """A Python of the functions' version: one of this machine's, else that of a Debian 13 made in `folder`."""
    if found := find_python(PYTHON):
        program = "import sys; print(sys.base_prefix)"
        said = subprocess.run([found, "-I", "-c", program], capture_output=True, text=True, check=True)
        return Python(Path(said.stdout.strip()))
    system = folder / "debian-13"
    sources = [line.replace(" bookworm ", " trixie ") for line in recipe.apt_sources() if " bookworm " in line]
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", f"--include={','.join(DEBIAN)}"]
    subprocess.run([*command, "trixie", system, *sources], check=True)
    return Python(system / "usr", system)


def provide(folder: Path, environ: Mapping[str, str]) -> Lambda:
    """Build the zip for this machine, and provide what runs it."""
    artefact = build(folder, ARCHITECTURES[platform.machine()], environ)
    with ZipFile(artefact.path) as archive:
        archive.extractall(folder / "task")
    runtime = install_runtime(folder / "runtime")
    return Lambda(folder / "task", provide_python(folder), runtime, environ, folder / "functions")


# ── how it is run ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Lambda:
    """What all functions of a zip have in common.

    `task` is the unpacked zip, `runtime` the folder of what the runtime brings, and `environ` the functions' variables
    with those that name AWS. `folder` is for logs, and for what namespaces need.
    """

    task: Path
    python: Python
    runtime: Path
    environ: Mapping[str, str]
    folder: Path


@dataclass
class Function:
    """A function that has been initialised, for `init_seconds`."""

    api: RuntimeApi
    process: subprocess.Popen[bytes]
    init_seconds: float
    log: Path

    @property
    def pid(self) -> int:
        """The function's process, which `unshare` has forked."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    @property
    def most_memory(self) -> float:
        """The most memory that the function has had so far, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]

    def invoke(self, event: object) -> Answer:
        """Hand it an event."""
        return self.api.invoke(event)


@contextmanager
def function(
    on: Lambda, name: str, handler: str, *, timeout: float, memory: int = MEMORY, command: tuple[str, ...] = ()
) -> Iterator[Function]:
    """Run the function `name`; raises AssertionError if it cannot be initialised. `command` starts what starts it.

    `memory` in MB is what it is told that it has; it is held to none.
    """
    folder = on.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "root").mkdir(exist_ok=True)
    api = RuntimeApi(f"arn:aws:lambda:eu-west-1:111122223333:function:{name}", timeout)
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    places = [f"{source}:{target}" for source, target in _places(on)]
    started = [*command, *UNSHARED, "sh", "-c", SANDBOX, "sh"]
    try:
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*started, str(folder / "root"), handler, *places],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_environ(on, name, handler, api.server_port), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)},
                start_new_session=True,
            )
        try:
            _await_start(api, process, folder / "log")
            started_at = (folder / "root.started").stat().st_mtime
            yield Function(api, process, api.asked_at - started_at, folder / "log")
        finally:
            with suppress(ProcessLookupError):  # if it has ended
                os.killpg(process.pid, signal.SIGKILL)  # the process that was started, and the function
            process.wait()
            api.events.put(b"{}")  # for the thread that waits to hand one out
    finally:
        api.shutdown()
        thread.join()
        api.server_close()


def _await_start(api: RuntimeApi, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not api.asked.wait(0.05):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
    assert not api.refusal, api.refusal.decode()


def _places(on: Lambda) -> Iterator[tuple[Path, str]]:
    """What a function sees of this machine: the system's libraries, and what is its own."""
    system = on.python.system
    yield system / "usr", "/usr"
    yield system / "etc", "/etc"
    for name in ("bin", "lib", "lib64"):  # on Debian links into /usr
        if (system / "usr" / name).is_dir():
            yield system / "usr" / name, f"/{name}"
    yield on.python.prefix, "/var/lang"
    yield on.runtime, "/var/runtime"
    yield on.task, "/var/task"


def _environ(on: Lambda, name: str, handler: str, port: int) -> dict[str, str]:
    """The environment that Lambda documents, and the function's own variables."""
    return {
        "_HANDLER": handler,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/30/[$LATEST]0",
        "AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{port}",
        "AWS_REGION": "eu-west-1",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LANG": "en_US.UTF-8",
        "LD_LIBRARY_PATH": "/var/lang/lib",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "PYTHONPATH": "/var/runtime",
        "TZ": ":UTC",
        **on.environ,
    }
