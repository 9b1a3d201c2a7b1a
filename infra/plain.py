"""What the `chalice` command needs from `make resources` before it imports app.py to deploy or to package it.

app.py asks here when this file is beside it: never on Lambda, and not in the copy that `make deploy` makes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from infra.packages import LOCK, PYTHON

BY_CHALICE: Final = "AWS_CHALICE_CLI_MODE"  # the `chalice` command sets it
SHIPS: Final = frozenset({"deploy", "package"})  # its commands that do; `chalice local` needs nothing of this
RECORD: Final = Path(".chalice") / "packages.json"  # what vendor/ was filled for
PYTHONS: Final = ("3.11", "3.12", "3.13")  # those of Lambda's runtimes that the command may deploy for
DIFFERENCES: Final[Mapping[str, str]] = {
    "3.11": (
        "Amazon Linux 2 (glibc 2.26), which has no memfd: a key is read through a pipe. AWS takes the runtime out of "
        "support in June 2027"
    ),
    "3.12": "Amazon Linux 2023, as for 3.13, but AWS takes the runtime out of support earlier, in October 2028",
}


def this_python() -> str:
    """The version that runs this, as Lambda's runtimes are named."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def record_packages(project: Path, python: str) -> None:
    """Write down for which Python and from which lock the project's `vendor/` was filled."""
    (project / RECORD).write_text(json.dumps({"python": python, "lock": _digest(project)}) + "\n")


def check(project: Path, environ: Mapping[str, str], *, python: str) -> str | None:
    """Say why the `chalice` command, run by `python`, cannot go on: one sentence, or None if it can."""
    if python not in PYTHONS:
        return (
            f"Run the `chalice` command by Python {PYTHONS[0]} to {PYTHONS[-1]}, not {python}: it makes functions for "
            "the Python that runs it."
        )
    if not environ.get("HOMEPORT_STAGE"):
        return (
            "Run `make resources STAGE=…` for this stage first: it makes the table, bucket, key and queues that the "
            "functions need, and tells Chalice about them."
        )
    try:
        found = json.loads((project / RECORD).read_text())
    except FileNotFoundError:
        found = None
    if found != {"python": python, "lock": _digest(project)} or not (project / "vendor").is_dir():
        return (
            f"Run `make resources STAGE={environ['HOMEPORT_STAGE']}` again, with Python {python}: the packages in "
            f"vendor/ are not those that {LOCK} locks for it."
        )
    return None


def difference(python: str) -> str | None:
    """What differs from what `make deploy` makes when the `chalice` command is run by `python`."""
    if python not in DIFFERENCES:
        return None
    return (
        f"Chalice makes functions for the Python that runs it, {python}: {DIFFERENCES[python]}. `make deploy` and "
        f"`make package` make them for {PYTHON}, whatever runs them."
    )


def _digest(project: Path) -> str:
    return sha256((project / LOCK).read_bytes()).hexdigest()


def stop_or_say(project: Path, environ: Mapping[str, str] = os.environ) -> None:
    """When the `chalice` command imports app.py to ship it: end it if it cannot go on, say what differs if it can."""
    if environ.get(BY_CHALICE) != "true" or SHIPS.isdisjoint(sys.argv):
        return
    python = this_python()
    if reason := check(project, environ, python=python):
        sys.exit(reason)
    if said := difference(python):
        print(said, file=sys.stderr)
