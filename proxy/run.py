"""The container's main program: runs HAProxy and the agent; when either ends, it stops the other and exits.

1. Restarting is left to whoever runs the container: it starts with empty maps and is up to date within a second.
2. On SIGTERM HAProxy takes no new connections and lets the open ones end for a while (HOMEPORT_PROXY_DRAIN); the agent
   stays for as long. SIGINT ends both at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Final

from chalicelib.errors import BadConfiguration
from proxy.settings import Settings, agent_command, agent_environ, haproxy_command, haproxy_environ, prepare

GRACE_SECONDS: Final = 10.0

Child = subprocess.Popen[bytes]


class _Stopped(Exception):
    """A signal arrived; its number is the argument."""


def main() -> int:
    """Run both until one ends or a signal comes; the exit status is 0 only after a signal."""
    try:
        settings = Settings.from_environ(os.environ)
        prepare(settings)
        command = haproxy_command(settings)
    except BadConfiguration as error:
        print(f"proxy: {error.message}", file=sys.stderr)  # noqa: T201
        return 2
    signals = (signal.SIGTERM, signal.SIGINT)
    children: list[Child] = []
    try:
        for number in signals:
            signal.signal(number, _stop)
        children.append(subprocess.Popen(agent_command(), env=agent_environ(settings, os.environ)))  # noqa: S603
        children.append(subprocess.Popen(command, env=haproxy_environ(settings, os.environ)))  # noqa: S603
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        print("proxy: HAProxy or the agent ended; stopping the other", file=sys.stderr)  # noqa: T201
        return 1
    except _Stopped as stopped:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        if stopped.args == (signal.SIGTERM,) and len(children) == 2:
            _drain(children[1], settings.drain)
        return 0
    finally:
        _end(children)


def _drain(haproxy: Child, seconds: float) -> None:
    """Let HAProxy's open connections end."""
    haproxy.send_signal(signal.SIGUSR1)
    try:
        haproxy.wait(seconds)
    except subprocess.TimeoutExpired:
        return  # idle websockets: their pages reconnect, to another proxy


def _end(children: list[Child]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)


if __name__ == "__main__":
    sys.exit(main())
