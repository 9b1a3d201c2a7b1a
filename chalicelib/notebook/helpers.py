"""The helpers: containers of the builder's image that resolve, build and clone repositories on the endpoint.

Rules (docs/adr/0020)

1. They run one program, chalicelib/helper.py, which is put into them before they start; what it is to do is one JSON
   argument. Nothing secret is in it: whoever has the endpoint can read it.
2. The engine's socket is mounted into those that build, and into the one that sees whether that can be done. No
   repository's code runs in them. The one that clones gets the notebook's volume instead, and is the notebook's user.
3. Labels say whose a helper is, what for, and for which launch. They are not those of a notebook's container, so that
   nobody takes one for the other.
4. Its log is kept whole, as far as a helper writes one (MOST_BYTES in chalicelib/helper.py). It has no port, no
   restart, and the engine's default confinement but for SELinux's, under which a socket that is mounted could not be
   used.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final

from chalicelib.notebook.container import LABEL
from chalicelib.repository.source import Source
from chalicelib.session.values import Session, helper_name, volume_name

PROGRAM: Final = "/opt/homeport/helper.py"
SOCKET: Final = "/var/run/docker.sock"  # inside; where Docker's own client looks for it
DOCKER_SOCKET: Final = "/var/run/docker.sock"  # on the endpoint's host, as Docker's packages have it,
PODMAN_SOCKET: Final = "/run/podman/podman.sock"  # and Podman's
WORK: Final = "/work"  # where the helper that clones finds the volume: a folder that no image has
TASK: Final = f"{LABEL}task"
BUILT: Final = f"{LABEL}built"  # the image's own name, on an image that was built here
# Each line has about 80 bytes around it there.
HELPER_LOG_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({"max-size": "16m", "max-file": "2"})
HELPER_LABELS: Final = tuple(f"{LABEL}{key}" for key in ("hub", "owner", "session", "generation", "label", "task"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperSpecification:
    """One helper. `socket` is the engine's on its host, empty for none; `volume` is mounted at WORK, empty for none.

    `user` is a number, or empty for the image's own.
    """

    name: str
    image: str
    command: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    socket: str = ""
    volume: str = ""
    user: str = ""


def resolve_helper(
    session: Session, *, hub_name: str, engine: Mapping[str, str], socket: str, where: bool = False
) -> HelperSpecification:
    """The helper that finds out versions; `engine` is what the engine says of itself, to be known again by.

    `where` is whether each site has to be asked where the repository is by now, for a commit too, which says itself.
    """
    builds = session.repository is not None
    task = {"sources": list(map(_source, session.sources)), "engine": dict(engine) if builds else None, "where": where}
    return HelperSpecification(
        name=helper_name(session.sid, session.generation, "resolve"),
        image=session.builder,
        command=_command("resolve", task),
        labels=_labels(session, hub_name, "resolve"),
        socket=socket if builds else "",
    )


def build_helper(
    session: Session, *, hub_name: str, socket: str, seconds: float, most: int | None
) -> HelperSpecification:
    """The helper that builds the repository's image, in `seconds` at most, of `most` bytes (None: of any size)."""
    assert session.repository is not None
    task = {
        "source": _source(session.repository),
        "version": session.versions[0],
        "image": session.image,
        "labels": {f"{LABEL}hub": hub_name, f"{LABEL}owner": session.owner, BUILT: session.image},
        "seconds": int(seconds),
        "bytes": most,
        "memory": session.limits.memory,
    }
    return HelperSpecification(
        name=session.helper,
        image=session.builder,
        command=_command("build", task),
        labels=_labels(session, hub_name, "build"),
        socket=socket,
    )


def clone_helper(session: Session, *, hub_name: str, name: str, user: str) -> HelperSpecification:
    """The helper that puts the content's files into the folder `name` of the volume, as that user."""
    assert session.content is not None
    task = {"source": _source(session.content), "version": session.versions[-1], "folder": WORK, "name": name}
    return HelperSpecification(
        name=helper_name(session.sid, session.generation, "clone"),
        image=session.builder,
        command=_command("clone", task),
        labels=_labels(session, hub_name, "clone"),
        volume=volume_name(session.sid),
        user=user,
    )


def program_file(program: bytes, modified: float) -> bytes:
    """Make the tar that is unpacked at "/" of a helper before it starts."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(PROGRAM.lstrip("/"))
        member.size, member.mode, member.mtime = len(program), 0o444, int(modified)
        tar.addfile(member, io.BytesIO(program))
    return archive.getvalue()


def _source(source: Source) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(source).items()}


def _command(task: str, argument: Mapping[str, Any]) -> tuple[str, ...]:
    return ("python3", PROGRAM, task, json.dumps(argument, sort_keys=True))


def _labels(session: Session, hub_name: str, task: str) -> dict[str, str]:
    values = (hub_name, session.owner, session.sid, str(session.generation), session.label, task)
    return dict(zip(HELPER_LABELS, values, strict=True))
