"""What an endpoint answers, believed as far as it can be: known words, small numbers, short texts.

Nothing here raises anything but an EndpointError, whatever the endpoint made up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from chalicelib.bundle.errors import BadBundle
from chalicelib.bundle.tar_archive import tar_entries
from chalicelib.engine import errors
from chalicelib.engine.messages import BAD_IMAGE
from chalicelib.session.image import parse_image
from chalicelib.text import lines

LOG_LINES: Final = 20  # an engine keeps a line in pieces of 16 KiB, each counted: they all fit into one answer
LOG_CHARACTERS: Final = 4000
LOWEST_PORT: Final = 1024
HIGHEST_PORT: Final = 65535

_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_API_VERSION: Final = re.compile(r"1\.([0-9]{1,3})")


def json_of(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _not_docker() from None


def object_of(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _not_docker()
    return value


def list_of(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _not_docker()
    return value


def part_of(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def labels_of(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return part_of(part_of(found, "Config"), "Labels")


def _not_docker() -> errors.NotADockerEngine:
    return errors.NotADockerEngine(
        "The endpoint's answer is not what a Docker Engine says. Check that address and port are your Docker endpoint's"
    )


def minor_version(version: object) -> int | None:
    match = _API_VERSION.fullmatch(version) if isinstance(version, str) else None
    return int(match[1]) if match else None


def count_of(value: object) -> int:
    """Believe a count of bytes or CPUs; 0 for what is none."""
    return value if type(value) is int and 0 < value < 1 << 60 else 0


def port_of(value: object) -> int:
    """Believe a port: an int, or a string of ASCII digits, from 1024 to 65535."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if type(value) is not int or not LOWEST_PORT <= value <= HIGHEST_PORT:
        raise errors.NotADockerEngine(
            f"The endpoint publishes the notebook on an invalid port; it must be {LOWEST_PORT} to {HIGHEST_PORT}"
        )
    return value


def is_short(text: str) -> bool:
    """Say whether a text can be a name, or a path: to be compared, and not shown."""
    return len(text) <= 300 and text.isprintable()


def user_number(archive: bytes, name: str) -> str:
    """Find the number of the user `name` in a tar of /etc/passwd (passwd(5)); "" when it is not there."""
    with suppress(BadBundle):
        for entry in tar_entries(archive):
            for line in entry.packed.splitlines():
                fields = line.decode("utf-8", "replace").split(":")
                if fields[0] == name and len(fields) > 2 and _NUMBER.fullmatch(fields[2]):
                    return fields[2]
    return ""


def image_name(image: str) -> str:
    """Give the image's name as it is, if it is one: nothing else becomes part of a path."""
    try:
        parse_image(image)
    except ValueError:
        raise errors.BadImage(BAD_IMAGE) from None
    return image


def log_text(stream: bytes) -> str:
    """Take the frames of a log apart: 8 bytes of head (kind, 0, 0, 0, length), then the text; a TTY's has no frames.

    Gives at most LOG_LINES printable lines and LOG_CHARACTERS characters, from the end.
    """
    return "\n".join(lines(frames_text(stream), most=LOG_LINES, limit=LOG_CHARACTERS))[-LOG_CHARACTERS:]


def frames_text(stream: bytes) -> str:
    """The text of a log's frames, whatever is in it."""
    parts, at = [], 0
    while at + 8 <= len(stream) and stream[at] in (0, 1, 2) and stream[at + 1 : at + 4] == b"\0\0\0":
        end = at + 8 + int.from_bytes(stream[at + 4 : at + 8], "big")
        parts.append(stream[at + 8 : end])
        at = end
    return b"".join(parts or [stream]).decode("utf-8", "replace")
