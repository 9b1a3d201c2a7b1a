"""A zip archive's files and folders, read strictly (APPNOTE.TXT 6.3.10).

Our own reader, because `zipfile` forgives what must not pass here: it looks for the directory anywhere, ignores local
headers and, in Python 3.11.7, overlaps. The directory stands at the end, every local header agrees with it, no two
entries share a byte, and nothing stands before the first one.
"""

from __future__ import annotations

import itertools
import stat
import struct
from dataclasses import dataclass, field
from typing import Final

from chalicelib.bundle import errors
from chalicelib.bundle.files import Entry, check_count, clean_path, damaged, not_regular, shown

END_MAGIC: Final = b"PK\5\6"
_END: Final = struct.Struct("<4s4H2LH")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_STORED: Final = 0
_DEFLATED: Final = 8
_AES: Final = 99
_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000  # traditional, strong, and a masked directory
_DESCRIPTOR: Final = 0x0008  # sizes and checksum follow the data; the local header may hold a zero for each
_ALL_ONES: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class _Central:
    """The fields of one central directory entry that are used."""

    raw_name: bytes = field(repr=False)
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    mode: int
    offset: int
    end: int

    @property
    def name(self) -> str:
        """The name as text: UTF-8, or what old programs for DOS wrote."""
        try:
            return self.raw_name.decode("utf-8")
        except UnicodeDecodeError:
            return self.raw_name.decode("cp437")


def zip_entries(body: bytes) -> list[Entry]:
    count, start, end = _zip_directory(body)
    central: list[_Central] = []
    position = start
    for _ in range(count):
        central.append(_zip_central(body, position, end))
        position = central[-1].end
    if position != end:
        raise damaged("has a table of contents of the wrong length")
    spans = sorted(_zip_span(body, header, start) for header in central)
    if any(after[0] < before[1] for before, after in itertools.pairwise(spans)):
        raise errors.ArchiveOverlap("Two files in the archive share the same bytes. Make the archive again")
    if spans[0][0] != 0:
        raise _prefixed()
    return [_zip_entry(body, header) for header in central]


def _prefixed() -> errors.ArchivePrefixed:
    return errors.ArchivePrefixed(
        "There is data before the zip archive, as in a self-extracting program. Upload a plain zip file"
    )


def _zip_directory(body: bytes) -> tuple[int, int, int]:
    """Find the central directory: the number of its entries, where it starts and where it ends."""
    end = body.rfind(END_MAGIC)
    if end < 0 or end + _END.size > len(body):
        raise damaged("is cut short")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(body, end)
    if end + _END.size + comment != len(body):
        raise damaged("is followed by other data")
    if body[max(0, end - 20) :].startswith(b"PK\6\7") or _ALL_ONES in (size, start) or 0xFFFF in (disk, count):
        raise _zip64()
    if disk or first_disk or here != count:
        raise damaged("is one of several parts")
    check_count(count)
    if not count:
        raise errors.BundleEmpty("The archive is empty. Pack the files again, and check that they are in it")
    if start + size < end:
        raise _prefixed()
    if start + size > end:
        raise damaged("is cut short in the middle")
    return count, start, end


def _zip64() -> errors.ArchiveZip64:
    return errors.ArchiveZip64(
        "The archive uses the zip64 form, which is for huge files. Make it again from the files themselves "
        "(not from a pipe), with your file manager"
    )


def _zip_central(body: bytes, position: int, limit: int) -> _Central:
    if position + _CENTRAL.size > limit:
        raise damaged("has a table of contents that is cut short")
    fields = _CENTRAL.unpack_from(body, position)
    magic, _, _, flags, method, _, _, crc, packed, size, name, extra, comment, disk, _, attributes, offset = fields
    names = position + _CENTRAL.size
    end = names + name + extra + comment
    if magic != b"PK\1\2" or end > limit or disk not in (0, 0xFFFF):
        raise damaged("has a damaged table of contents")
    if _ALL_ONES in (packed, size, offset) or disk or 0x0001 in _extra_ids(body[names + name : names + name + extra]):
        raise _zip64()
    raw = body[names : names + name]
    return _Central(raw, flags, method, crc, packed, size, attributes >> 16, offset, end)


def _extra_ids(extra: bytes) -> set[int]:
    """List the kinds of extra fields; what cannot be read as a list is ignored, as every reader does."""
    ids: set[int] = set()
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        ids.add(kind)
        position += 4 + size
    return ids


def _zip_span(body: bytes, header: _Central, limit: int) -> tuple[int, int]:
    """Check an entry's local header against the directory; give where header and data begin and end."""
    data = _zip_data(body, header, limit)
    magic, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack_from(body, header.offset)
    names = header.offset + _LOCAL.size
    if magic != b"PK\3\4" or body[names : names + name] != header.raw_name:
        raise damaged("has inconsistent headers for a file")
    if (flags | header.flags) & _ENCRYPTED or _AES in (method, header.method):
        raise errors.ArchiveEncrypted("The archive is protected with a password. Make it again without one")
    if method != header.method:
        raise damaged("has inconsistent headers for a file")
    if 0x0001 in _extra_ids(body[names + name : names + name + extra]):
        raise _zip64()
    said, known = (crc, packed, size), (header.crc, header.packed_size, header.size)
    if any(one != other and (one or not flags & _DESCRIPTOR) for one, other in zip(said, known, strict=True)):
        raise damaged("states two different sizes for a file")
    return header.offset, data + header.packed_size


def _zip_data(body: bytes, header: _Central, limit: int) -> int:
    """Give where an entry's data begins; header and data must lie before the directory."""
    if header.offset + _LOCAL.size > limit:
        raise damaged("is cut short")
    name, extra = struct.unpack_from("<HH", body, header.offset + 26)
    begin: int = header.offset + _LOCAL.size + name + extra
    if begin + header.packed_size > limit:
        raise damaged("is cut short")
    return begin


def _zip_entry(body: bytes, header: _Central) -> Entry:
    path = clean_path(header.name)
    kind = stat.S_IFMT(header.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise not_regular(path)
    is_folder = header.name.endswith("/")
    if (kind == stat.S_IFDIR and not is_folder) or (is_folder and header.size):
        raise damaged("has inconsistent headers for a folder")
    if header.method not in (_STORED, _DEFLATED):
        raise errors.ArchiveMethod(
            f"In the archive, {shown(path)} is packed with a method this hub does not read. "
            "Make the zip with the usual “deflate” method, or as tar"
        )
    begin = _zip_data(body, header, len(body))
    packed = body[begin : begin + header.packed_size]
    return Entry(path, is_folder, header.size, packed, header.method == _DEFLATED, header.crc)
