"""Why a container does not run: what its state, its exit code and the last lines of its log mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chalicelib.engine.endpoint import MISSING, ContainerStatus
from chalicelib.engine.errors import (
    ContainerRemoved,
    EndpointError,
    ImageWithoutJupyter,
    NotebookExited,
    NotebookSilent,
)
from chalicelib.engine.messages import (
    is_jupyter_missing,
    is_of_another_platform,
    quoted,
    without_program,
    wrong_platform,
)
from chalicelib.launcher.outside import Engine
from chalicelib.session.events import ContainerExited
from chalicelib.session.values import Failure

LAST_LINES: Final = 5  # of its log are told of a container that ended
NORMAL_EXITS: Final = frozenset({0, 143})  # ended by itself (idle, File > Shut Down), or by SIGTERM


def not_running(endpoint: Engine, name: str, status: ContainerStatus, masked: Callable[[str], str]) -> EndpointError:
    """Say why a container that was seen with `status` does not run; its log is `masked`."""
    if status == MISSING:
        return ContainerRemoved(
            f"The container {name} was removed from the endpoint. Launch again; your files are in its volume"
        )
    if status.status in ("paused", "restarting"):
        return NotebookSilent(
            f"The container is {status.status}. If it is paused, resume it with: docker unpause {name}"
        )
    if status.oom:
        return NotebookExited("The notebook ran out of memory. Launch it again with more memory")
    tail = masked(endpoint.log_tail(name)).strip().splitlines()[-LAST_LINES:]
    if tail and is_of_another_platform(tail[-1]):
        return wrong_platform()
    last = f" Last log line{'s' if len(tail) > 1 else ''}: {' | '.join(map(quoted, tail))}" if tail else ""
    if status.exit_code not in NORMAL_EXITS and any(map(is_jupyter_missing, tail)):
        return ImageWithoutJupyter(f"{without_program('jupyter')}.{last}")
    return NotebookExited(f"The notebook's container ended with exit code {status.exit_code}.{last}")


def exit_event(endpoint: Engine, name: str, status: ContainerStatus, masked: Callable[[str], str]) -> ContainerExited:
    """Say how the container of a ready notebook has ended; raises what may pass, such as a pause."""
    error = not_running(endpoint, name, status, masked)
    if error.retryable:
        raise error
    if isinstance(error, NotebookExited) and status.exit_code in NORMAL_EXITS and not status.oom:
        return ContainerExited(None)
    return ContainerExited(Failure(error.code, masked(error.message)))
