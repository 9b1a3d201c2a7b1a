"""An image that a container is saved as: what it says of its containers, and whose it is (docs/adr/0018).

An engine gives a commit the container's own configuration, and only lets values be replaced: labels and variables of
the hub become empty, the program and its folder are again those of the image that the container was made of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.engine.answers import count_of, labels_of, part_of
from chalicelib.notebook.container import HUB_VARIABLES, LABEL

SAVED: Final = f"{LABEL}saved"  # the session
SAVED_BY: Final = f"{LABEL}saved-by"  # its owner
SAVED_AT: Final = f"{LABEL}saved-at"  # which of its saves

_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_.+-]+)+|/")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_./:+-]*")
_PLAIN_LABEL: Final = re.compile(rf"{re.escape(LABEL)}[a-z-]+")


@dataclass(frozen=True, slots=True)
class ImageThere:
    """An image on an endpoint, as its labels say: whose it is, and which save made it; `size` in bytes, or 0."""

    owner: str
    save: str
    size: int


def image_there(found: Mapping[str, Any]) -> ImageThere:
    """Read what an engine says of an image."""
    labels = labels_of(found)
    owner, save = (value if isinstance(value := labels.get(name), str) else "" for name in (SAVED_BY, SAVED_AT))
    return ImageThere(owner, save, count_of(found.get("Size")))


def changes(container: Mapping[str, Any], image: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """The instructions of a Dockerfile that make of a container's configuration that of an image with these labels.

    What an engine says of `container` and `image` is only repeated as far as it has a form that means nothing else.
    """
    of_image = part_of(image, "Config")
    ours = {name: "" for name in labels_of(container) if _PLAIN_LABEL.fullmatch(name)}
    made = [f'LABEL {name}="{value}"' for name, value in (ours | dict(labels)).items()]  # Podman takes one in each
    made += [f'ENV {name}="{value}"' for name, value in _variables(of_image.get("Env")).items()]
    if (program := _words(of_image.get("Cmd"))) is not None:
        made.append(f"CMD {json.dumps(program)}")
    workdir = of_image.get("WorkingDir")
    if isinstance(workdir, str) and _PLAIN_PATH.fullmatch(workdir):
        made.append(f"WORKDIR {workdir}")
    return made


def _variables(of_image: object) -> dict[str, str]:
    """The hub's variables as the image has them, and empty where it has none."""
    known = dict(word.split("=", 1) for word in _words(of_image) or () if "=" in word)
    values = {name: known.get(name, "") for name in HUB_VARIABLES}
    return {name: value if _PLAIN_WORD.fullmatch(value) else "" for name, value in values.items()}


def _words(value: object) -> list[str] | None:
    words = value if isinstance(value, list) else []
    return list(words) if words and _are_texts(words) else None


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)
