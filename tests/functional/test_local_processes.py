"""Children of the one-machine stack: they answer, they end, and they never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local import processes
from local.processes import StackError

ROOT = Path(__file__).parent.parent.parent
LISTENER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
PARENT = """
import sys, time
from pathlib import Path
from local import processes
child = processes.start("child", [sys.executable, "-c", "import time; time.sleep(600)"], folder=Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_is_waited_for_until_its_port_answers_and_is_gone_after_the_block(tmp_path: Path) -> None:
    port = processes.free_port()
    with processes.running("listener", [sys.executable, "-c", LISTENER, str(port)], folder=tmp_path) as child:
        processes.wait_for_port(port, child=child)
        assert processes.accepts(("127.0.0.1", port))
    assert not child.alive()
    assert not processes.accepts(("127.0.0.1", port))


def test_a_child_that_does_not_hear_is_killed(tmp_path: Path) -> None:
    child = processes.start("stubborn", [sys.executable, "-c", STUBBORN], folder=tmp_path)
    processes.wait_until(lambda: "deaf" in child.log_tail(), what="its word", deadline=20, child=child)
    processes.stop(child, patience=0.1)
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    processes.wait_until(lambda: gone(pid), what="the child's end", deadline=20)


def test_a_child_that_ends_early_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such map')"]
    with processes.running("agent", command, folder=tmp_path) as child, pytest.raises(StackError) as told:
        processes.wait_for_port(processes.free_port(), child=child)
    assert "agent ended with status 1" in str(told.value)
    assert "no such map" in str(told.value)


def test_what_never_happens_is_told_after_the_deadline() -> None:
    with pytest.raises(StackError, match="the moon's fall did not happen within"):
        processes.wait_until(lambda: False, what="the moon's fall", deadline=0.05)


def test_a_missing_program_is_named_with_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"needs no-such-program.*make setup"):
        processes.start("part", ["no-such-program"], folder=tmp_path)


def test_a_taken_port_is_not_free() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert processes.free_port(port) != port
    assert processes.free_port(port) == port


def test_children_do_not_share_the_terminals_process_group(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with processes.running("child", command, folder=tmp_path) as child:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
