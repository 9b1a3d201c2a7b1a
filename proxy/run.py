"""What the container runs: HAProxy and the agent, side by side; when either ends, the other is stopped and so are we.

Restarting is left to whoever runs the container: it starts with empty maps and is right again within a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

from chalicelib.errors import BadConfiguration
from proxy.settings import Settings, agent_command, agent_environ, haproxy_command, haproxy_environ, prepare

GRACE_SECONDS = 10.0


class _Stopped(Exception):
    """SIGTERM or SIGINT arrived."""


def main() -> int:
    """Run both until one ends or a signal comes; the exit status is 0 only after a signal."""
    try:
        settings = Settings.from_environ(os.environ)
        prepare(settings)
        command = haproxy_command(settings)
    except BadConfiguration as error:
        print(f"proxy: {error.message}", file=sys.stderr)  # noqa: T201
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    children: list[subprocess.Popen[bytes]] = []
    try:
        children.append(subprocess.Popen(agent_command(), env=agent_environ(settings, os.environ)))  # noqa: S603
        children.append(subprocess.Popen(command, env=haproxy_environ(settings, os.environ)))  # noqa: S603
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except _Stopped:
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop(children)
    print("proxy: HAProxy or the agent ended; stopping the other", file=sys.stderr)  # noqa: T201
    return 1


def stop(children: list[subprocess.Popen[bytes]]) -> None:
    """End the children, politely first."""
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


if __name__ == "__main__":
    sys.exit(main())
