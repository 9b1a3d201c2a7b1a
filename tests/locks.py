"""The locks: which dependency group of pyproject.toml each is of, and what is in them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS: Mapping[str, str] = {
    "lambda": "requirements-lambda.txt",
    "proxy": "proxy/requirements.txt",
    "local": "requirements-local.txt",
    "dev": "requirements-dev.txt",
    "image": "local/requirements-image.txt",
    "builder": "local/requirements-builder.txt",
    "runtime": "tests/requirements-runtime.txt",
    "checkov": "tests/requirements-checkov.txt",
    "peers": "bench/requirements-peers.txt",
}
# Everything that a lock's line may hold: so no address of an index, no option, and nothing that is not hashed.
LINE = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[\w.]+)(?: ; (?P<marker>[\w.'=!<> ()]+))?(?: --hash=sha256:[0-9a-f]{64})+"
)


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of a lock; `name` is canonical, `marker` says where it is wanted, "" is everywhere."""

    name: str
    version: str
    marker: str

    def applies(self, environment: Mapping[str, str]) -> bool:
        """Whether it is wanted where the running Python runs, but for what `environment` says (PEP 508's names)."""
        marker = Requirement(f"{self.name} ; {self.marker}").marker if self.marker else None
        return marker is None or marker.evaluate(dict(environment))


def locked(group: str) -> list[Locked]:
    """What a group's lock holds; raises AssertionError for a line that no lock may have."""
    text = (ROOT / LOCKS[group]).read_text().replace(" \\\n   ", "")
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            found.append(Locked(match["name"], match["version"], match["marker"] or ""))
    return found


def groups() -> Mapping[str, list[str | dict[str, str]]]:
    """The dependency groups as pyproject.toml has them."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"])


def requirements(group: str) -> Iterator[Requirement]:
    """What a group asks for itself and by the groups it includes."""
    for entry in groups()[group]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from requirements(entry["include-group"])


def canonical(name: str) -> str:
    """A package's name as locks spell it (PEP 503)."""
    return str(canonicalize_name(name))
