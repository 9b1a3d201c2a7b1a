"""The files of an archive: what both readers, zip and tar, agree on about names, sizes and kinds."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from chalicelib.bundle import errors
from chalicelib.text import is_visible

ENTRY_LIMIT: Final = 64
FILE_LIMIT: Final = 16 * 1024
NAME_LIMIT: Final = 255  # what file systems take for one name; a whole path here is shorter still
DEPTH_LIMIT: Final = 8  # folders within folders, and the file's own name; real bundles have four


@dataclass(frozen=True, slots=True)
class File:
    """One file of the archive: its path with `/` between the parts, and what is in it."""

    path: str
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Everything before the last part of the path, without a slash at the end."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder as the archive describes it, not unpacked yet. `crc` is None where the format has none."""

    path: str
    is_folder: bool
    size: int
    packed: bytes = field(repr=False)
    deflated: bool = False
    crc: int | None = None


def shown(path: str) -> str:
    """Give a path for a message: quoted when it is a name a person would know, else only “a file”.

    A long run of letters and digits may be content that a damaged archive presents as a name.
    """
    if len(path) > 100 or not is_visible(path) or re.search(r"[A-Za-z0-9+/=]{33,}", path):
        return "a file"
    return f"“{path}”"


def clean_path(name: str) -> str:
    """Give a member's name as a clean relative path, "" for the archive's own root; raises FileNameForbidden."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise errors.FileNameForbidden(
            "A file's name in the archive points outside the archive (it begins with “/” or a drive, or contains "
            "“..”). Pack the folder from inside your file manager and upload that"
        )
    if "\\" in name:
        raise errors.FileNameForbidden(
            "A file's name in the archive contains a backslash. Pack the files with another program, for example "
            "“Compress” or “Send to → Compressed folder” of your file manager"
        )
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for part in parts if part != "Icon\r" for c in part):
        raise errors.FileNameForbidden("A file's name in the archive contains a control character. Rename the file")
    if len(name) > NAME_LIMIT or len(parts) > DEPTH_LIMIT:
        raise errors.FileNameForbidden("A file's path in the archive is too long. Pack only the folder with the key")
    return "/".join(parts)


def check_count(count: int) -> None:
    if count > ENTRY_LIMIT:
        raise errors.TooManyFiles("The archive has more than 64 entries. Pack only the folder with your endpoint's key")


def damaged(what: str) -> errors.ArchiveDamaged:
    return errors.ArchiveDamaged(f"The bundle's archive {what}. Make the archive again and upload that")


def not_regular(path: str) -> errors.FileNotRegular:
    return errors.FileNotRegular(
        f"In the archive, {shown(path)} is a link, a device or something else that is not a file. "
        "Pack the files themselves"
    )
