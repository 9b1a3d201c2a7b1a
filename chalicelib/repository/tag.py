"""What the image of a repository's version is called, and the container in which it is built."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from chalicelib.repository.source import Source

REPOSITORY: Final = "localhost/homeport-built"  # no engine pulls from this domain
_BUILT: Final = re.compile(rf"{re.escape(REPOSITORY)}:([0-9a-f]{{40}})", re.ASCII)


def image_name(source: Source, version: str, builder: str) -> str:
    """Name the image that the builder makes of a version; no two of them share one, however they are written."""
    parts = (source.provider, source.address, source.folder, version, builder)
    text = b"".join(b"%d:%b" % (len(part.encode()), part.encode()) for part in parts)
    return f"{REPOSITORY}:{sha256(text).hexdigest()[:40]}"


def is_built(image: str) -> bool:
    """Say whether an image's name is one of these."""
    return _BUILT.fullmatch(image) is not None


def build_name(image: str) -> str:
    """Name the one container in which that image is built; raises ValueError for another image."""
    found = _BUILT.fullmatch(image)
    if found is None:
        raise ValueError("not the image of a repository")
    return f"homeport-build-{found[1][:20]}"
