"""A tar archive's files and folders, read strictly (POSIX.1-2017 pax "ustar Interchange Format", the GNU tar manual).

Our own reader, because `tarfile` reads sparse maps and pax sizes: two ways of saying how large a file is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from chalicelib.bundle import errors
from chalicelib.bundle.files import FILE_LIMIT, Entry, check_count, clean_path, damaged, not_regular

_BLOCK: Final = 512
_PAX_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,4}) ")
_SPARSE: Final = b"GNU.sparse."


@dataclass(frozen=True, slots=True)
class _Header:
    """One tar header: the kind is the type flag; the data lie from `begin` to `begin + size`."""

    name: str
    kind: bytes
    begin: int
    size: int


def tar_entries(body: bytes) -> list[Entry]:
    if not is_tar(body):
        raise errors.NotAnArchive(
            "The uploaded file is neither a zip nor a tar archive. Upload the bundle as you downloaded it, "
            "or pack ca.pem, cert.pem and key.pem into one zip"
        )
    entries = list(_tar_members(body))
    check_count(len(entries))
    return entries


def is_tar(body: bytes) -> bool:
    """Tell whether the first block is a tar header: its checksum holds, or it says so itself."""
    return len(body) >= _BLOCK and (body[257:262] == b"ustar" or _checksum_holds(body[:_BLOCK]))


def _checksum_holds(block: bytes) -> bool:
    stated = block[148:156].strip(b" \0")
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return re.fullmatch(rb"[0-7]{1,7}", stated) is not None and int(stated, 8) == total


def _tar_members(body: bytes) -> Iterator[Entry]:
    """Go through the headers. The last file's padding and the two empty blocks may be missing: `docker context
    export` writes neither.
    """
    position = 0
    name: str | None = None
    while (header := _tar_header(body, position)) is not None:
        position = header.begin + -(-header.size // _BLOCK) * _BLOCK
        data = body[header.begin : header.begin + header.size]
        if len(data) != header.size:
            raise damaged("is cut short")
        if header.kind in (b"x", b"L"):
            name = _long_name(header, data) or name
        elif header.kind == b"g":
            if _pax_path(data) is not None:
                raise damaged("gives one name to all files")
        else:
            yield _tar_entry(header, name or header.name, data)
            name = None
    if name is not None:
        raise damaged("is cut short")


def _tar_header(body: bytes, position: int) -> _Header | None:
    """Read the header at `position`; None at the archive's end."""
    block = body[position : position + _BLOCK]
    if not block.strip(b"\0"):
        if body[position:].strip(b"\0"):
            raise damaged("is followed by other data")
        return None
    if len(block) < _BLOCK or not _checksum_holds(block):
        raise damaged("has a damaged header")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return _Header(_tar_name(name), block[156:157], position + _BLOCK, _octal(block[124:136]))


def _tar_name(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _octal(raw: bytes) -> int:
    digits = raw.strip(b" \0")
    if re.fullmatch(rb"[0-7]{0,11}", digits) is None:
        raise damaged("states a size that is not a number")
    return int(digits or b"0", 8)


def _long_name(header: _Header, data: bytes) -> str | None:
    if header.size > FILE_LIMIT:
        raise damaged("has a header that is too long")
    return _pax_path(data) if header.kind == b"x" else _tar_name(data.rstrip(b"\0"))


def _pax_path(data: bytes) -> str | None:
    """Read the records of a pax header ("length key=value\\n"); give the path, when there is one."""
    path: str | None = None
    position = 0
    while position < len(data):
        match = _PAX_LENGTH.match(data, position)
        end = position + int(match[1]) if match else 0
        record = data[match.end() : end] if match else b""
        key, equals, value = record.partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise damaged("has a damaged header")
        if key.startswith(_SPARSE):
            raise _sparse()
        if key in (b"size", b"hdrcharset"):
            raise damaged("states a file's size twice, or uses an unusual character set")
        if key == b"path":
            path = _tar_name(value[:-1])
        position = end
    return path


def _sparse() -> errors.FileSparse:
    return errors.FileSparse("The archive contains a sparse file. Make it again without the option for sparse files")


def _tar_entry(header: _Header, name: str, data: bytes) -> Entry:
    path = clean_path(name)
    if header.kind == b"S":
        raise _sparse()
    if header.kind not in (b"0", b"\0", b"5"):
        raise not_regular(path)
    is_folder = header.kind == b"5" or name.endswith("/")
    if is_folder and header.size:
        raise damaged("has inconsistent headers for a folder")
    return Entry(path, is_folder, header.size, data)
