"""`make run`: the whole of Homeport on one machine, every part the real one, until Ctrl-C.

    Docker engine ◀─ endpoint (mutual TLS) ◀─ pump (the launcher's functions) ◀─ embedded AWS ◀─ hub   :8000
         └─ notebooks ◀─ proxy (HAProxy and agent) :8080

1. Everything started here is stopped here, in the opposite order, and this hub's containers are removed: its sessions
   end with the embedded AWS's memory. Notebooks' volumes stay.
2. Two can run side by side: HOMEPORT_STATE_DIR, HOMEPORT_HUB_PORT and HOMEPORT_PROXY_PORT set them apart.
3. `stack.json` in the state folder says where a running stack is, for `make demo`; it is gone when the stack is.
4. The state folder is nobody else's: it holds the endpoint's keys and the embedded AWS's. Everything in it is 0600 or
   0700, but what dockerd keeps below `engine/data`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from docker.errors import DockerException

from chalicelib.config import BUILDER, ENDPOINT_NETWORKS
from chalicelib.errors import BadConfiguration
from local import builder, containers, image, private, processes, proxy
from local.aws import Aws, aws, aws_environ, own_environ
from local.endpoint import endpoint, write_bundle
from local.engine import Engine, engine
from local.gate import AccessKey
from local.hub import hub
from local.processes import LOOPBACK, Child, StackError
from local.pump import pump
from local.settings import NO_RATES, Settings

FUNCTIONS: Final = "20"  # of all lanes together, unless the environment says otherwise: one machine has few CPUs
WATCH_INTERVAL: Final = 0.5  # seconds between two looks at the children
# What a state folder holds.
_CONTENTS: Final = frozenset(
    {"credentials.zip", "endpoint", "engine", "image", "logs", "proxy", "run.lock", "stack.json"}
)
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running stack, as `make demo` and tests need to know it; with the access key of its embedded AWS."""

    hub_name: str
    hub_url: str
    hub_port: int
    proxy_port: int
    bundle: str
    engine_url: str
    aws_url: str
    aws_key: str
    aws_secret: str = field(repr=False)
    bucket: str
    table: str
    image: str

    @property
    def hub_address(self) -> str:
        """The hub's URL for clients that do not resolve localhost to 127.0.0.1 alone."""
        return f"http://{LOOPBACK}:{self.hub_port}"

    @property
    def cloud(self) -> Aws:
        """The stack's embedded AWS, for clients."""
        return Aws(self.aws_url, aws_environ(self.aws_url, AccessKey(self.aws_key, self.aws_secret)))


@dataclass(frozen=True, slots=True)
class Running:
    """A stack, and the children and the engine's socket to watch while it runs."""

    stack: Stack
    children: tuple[Child, ...]
    engine_socket: Path


@contextmanager
def stack(settings: Settings, environ: Mapping[str, str], report: Report) -> Iterator[Running]:
    """Run the whole stack for as long as the block lasts; raises StackError with what is missing or failed."""
    with ExitStack() as parts:
        logs = settings.state / "logs"
        parts.enter_context(alone(settings))
        started = parts.enter_context(engine(settings.state / "engine", environ))
        report(f"Docker engine {started.version} ({'its own' if started.ours else 'the one that runs here'})")
        _remove_containers(started, settings, report)
        parts.callback(_remove_containers, started, settings, report)
        name = image.provide(started.url, settings.state / "image", environ, report)
        report(f"notebook image {name}")
        helpers = builder.provide(started.url, settings.state / "image", environ, name, report)
        offered = parts.enter_context(
            endpoint(settings.state / "endpoint", started.socket, preferred_port=settings.endpoint_port)
        )
        bundle = write_bundle(settings.state / "credentials.zip", offered)
        report(f"Docker endpoint {offered.url} (mutual TLS)")
        cloud = parts.enter_context(aws(logs))
        report("embedded AWS: table, bucket, key, queues, certificates")
        given = own_environ(environ) | hub_environ(settings, cloud, name, environ)
        given |= {BUILDER.name: helpers, "HOMEPORT_ENGINE_SOCKET": str(started.socket)}
        children = _serve(parts, settings, cloud, given, report)
        found = _describe(settings, cloud, started, name, bundle)
        parts.enter_context(announcement(settings.state / "stack.json", found))
        yield Running(found, children, started.socket)


def _serve(
    parts: ExitStack, settings: Settings, cloud: Aws, environ: Mapping[str, str], report: Report
) -> tuple[Child, ...]:
    """Start proxy, functions and hub."""
    logs = settings.state / "logs"
    serving = parts.enter_context(
        proxy.running(
            folder=settings.state / "proxy",
            port=settings.proxy_port,
            notebook_ca=cloud.secret_pair("notebook-ca-certificate", with_key=False).certificate,
            client=cloud.secret_pair("proxy-client"),
            environ=environ,
        )
    )
    report(f"proxy: HAProxy and its agent on port {settings.proxy_port}")
    functions = parts.enter_context(pump(logs, environ=environ))
    report("launcher: four queues and a schedule feed app.py's functions")
    web = parts.enter_context(hub(logs, port=settings.hub_port, environ=environ))
    report(f"hub: app.py on port {settings.hub_port}")
    parts_to_watch = (cloud.child, serving.haproxy, serving.agent, functions, web)
    return tuple(child for child in parts_to_watch if child is not None)


def hub_environ(settings: Settings, cloud: Aws, image_name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the HOMEPORT_… variables of hub, functions and proxy; endpoints on loopback are allowed here."""
    networks = f"{environ.get(ENDPOINT_NETWORKS.name, '')} 127.0.0.0/8 ::1/128".strip()
    return dict(cloud.environ) | {
        "HOMEPORT_HUB_NAME": settings.hub_name,
        "HOMEPORT_HUB_ORIGIN": settings.hub_url,
        "HOMEPORT_NOTEBOOK_URL": f"http://*.localhost:{settings.proxy_port}",
        "HOMEPORT_IMAGE": image_name,
        ENDPOINT_NETWORKS.name: networks,
        "HOMEPORT_FUNCTIONS": environ.get("HOMEPORT_FUNCTIONS") or FUNCTIONS,
        **{name: environ.get(name) or value for name, value in NO_RATES.items()},
    }


def _describe(settings: Settings, cloud: Aws, started: Engine, name: str, bundle: Path) -> Stack:
    key = AccessKey.from_environ(cloud.environ)
    return Stack(
        hub_name=settings.hub_name,
        hub_url=settings.hub_url,
        hub_port=settings.hub_port,
        proxy_port=settings.proxy_port,
        bundle=str(bundle),
        engine_url=started.url,
        aws_url=cloud.url,
        aws_key=key.id,
        aws_secret=key.secret,
        bucket=cloud.environ["HOMEPORT_BUCKET"],
        table=cloud.environ["HOMEPORT_TABLE"],
        image=name,
    )


def _remove_containers(started: Engine, settings: Settings, report: Report) -> None:
    try:
        removed = containers.remove_all(started.url, settings.hub_name)
    except DockerException as error:
        report(f"this hub's containers could not be looked for: {error}")
        return
    if removed:
        report(f"removed {', '.join(removed)}")


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Hold the state folder and see that the ports are free; raises StackError."""
    _take_folder(settings.state)
    with private.open_file(settings.state / "run.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"another `make run` uses {settings.state}; set HOMEPORT_STATE_DIR, HOMEPORT_HUB_PORT and "
                "HOMEPORT_PROXY_PORT to run a second one"
            ) from error
        for name, port in (("HOMEPORT_HUB_PORT", settings.hub_port), ("HOMEPORT_PROXY_PORT", settings.proxy_port)):
            if processes.free_port(port) != port:
                raise StackError(f"port {port} is in use; set {name} to another one")
        yield


def _take_folder(state: Path) -> None:
    """Make the state folder private; raises StackError for one that somebody else has a use for, such as /tmp."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = state.stat()
    is_shared = found.st_mode & 0o077 and (found.st_mode & stat.S_ISVTX or set(os.listdir(state)) - _CONTENTS)
    if found.st_uid != os.geteuid() or is_shared:
        raise StackError(f"{state} is not a folder for this alone; set HOMEPORT_STATE_DIR to a new one")
    private.make_folder(state)


@contextmanager
def announcement(path: Path, found: Stack) -> Iterator[None]:
    """Say in a file where the stack is, for as long as the block lasts."""
    private.write_file(path, json.dumps(asdict(found), indent=2).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def announced(settings: Settings) -> Stack | None:
    """Find the stack that runs with these settings, in another process; None when none does."""
    try:
        found = Stack(**json.loads((settings.state / "stack.json").read_text()))
    except (FileNotFoundError, TypeError):  # TypeError: an earlier version was killed, and left its own
        return None
    return found if processes.accepts((LOOPBACK, found.hub_port)) else None


def timed_report(clock: Callable[[], float]) -> Report:
    """Give a report that prints each step with the seconds since now."""
    begun = clock()

    def report(step: str) -> None:
        with suppress(OSError):  # the terminal may be gone; what is being stopped is stopped all the same
            print(f"{clock() - begun:6.1f} s  {step}", flush=True)

    return report


def stop_on_signal() -> None:
    """Raise KeyboardInterrupt on Ctrl-C, TERM and the terminal's end; once: stopping is not interrupted."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDING:
        signal.signal(number, on_signal)


def watch(running: Running) -> NoReturn:
    """Wait for ever; raises StackError when a part of the stack ends by itself."""
    while True:
        for child in running.children:
            if not child.alive():
                raise StackError(f"{child.name} ended by itself; {child.log} says:\n{child.log_tail()}")
        if not processes.accepts(running.engine_socket):
            raise StackError("the Docker engine does not answer any more")
        time.sleep(WATCH_INTERVAL)


def main(environ: Mapping[str, str]) -> int:
    """Run until Ctrl-C or TERM; give the exit status."""
    stop_on_signal()
    report = timed_report(time.monotonic)
    try:
        settings = Settings.from_environ(environ)
        with stack(settings, environ, report) as running:
            print(f"\nOpen {running.stack.hub_url}/ and upload {running.stack.bundle}    (Ctrl-C stops)", flush=True)
            watch(running)
    except KeyboardInterrupt:
        report("stopped")
        return 0
    except (StackError, BadConfiguration) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def forget_foreign_environ() -> None:
    """Take the AWS account and the proxies of whoever runs this out of this process's environment."""
    for name in os.environ.keys() - own_environ(os.environ).keys():
        del os.environ[name]


if __name__ == "__main__":
    forget_foreign_environ()
    sys.exit(main(os.environ))
