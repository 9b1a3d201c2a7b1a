"""Run infra's programs again and again: imported once, and forked for each run, which takes half the time.

It is a program of its own, which tests/deployment.py starts in a project. Each line that it is told is a run, as JSON:
program, arguments, environment. It answers with a line: exit status, output, errors.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from tempfile import TemporaryFile

PATIENCE = 300  # seconds


def main(names: Sequence[str]) -> None:
    """Serve until the input ends."""
    sys.path[0] = os.getcwd()
    programs = {name: import_module(f"infra.{name}") for name in names}
    for line in sys.stdin:
        name, arguments, environ = json.loads(line)
        with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
            child = os.fork()
            if child == 0:
                _become(environ, output.fileno(), errors.fileno())
                sys.exit(programs[name].main(arguments, os.environ))
            _, status = os.waitpid(child, 0)
            texts = [file.read() for file in (output, errors) if file.seek(0) == 0]
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), *texts]) + "\n")
        sys.stdout.flush()


def _become(environ: Mapping[str, str], output: int, errors: int) -> None:
    """Make this process one that was started with this environment, and nothing to read."""
    signal.alarm(PATIENCE)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(environ)


if __name__ == "__main__":
    main(sys.argv[1:])
