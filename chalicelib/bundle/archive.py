"""What an uploaded archive holds: zip or tar bytes become named files in memory, or a refusal. Nothing is extracted.

1. What the file is, its first bytes say; its name is never looked at.
2. The limits hold before anything is unpacked: 64 KiB of archive, 64 entries, 16 KiB for each file, and no unpacking
   step can give more than it is allowed to. Declared sizes are checked against real ones, and checksums hold.
3. Only what a person's zip or tar program writes is read: stored or deflated files and folders in one plain archive.
   No links, devices, sparse files, encryption, zip64, overlaps, joined archives or bytes in front of the first file.
4. What such programs add around a person's files (`__MACOSX`, `.DS_Store`, `Thumbs.db`, …) is left out, unread.

The zip reader is our own because `zipfile` forgives what rule 3 does not: it looks for the directory anywhere, ignores
local headers and, in Python 3.11.7, overlaps. `tarfile` reads sparse maps and pax sizes. Both formats are tables of
fixed headers: APPNOTE.TXT 6.3.10 for zip, POSIX.1-2017 pax "ustar Interchange Format" and the GNU tar manual for tar.
"""

from __future__ import annotations

import itertools
import re
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from chalicelib import errors

BODY_LIMIT: Final = 64 * 1024
ENTRY_LIMIT: Final = 64
FILE_LIMIT: Final = 16 * 1024
NAME_LIMIT: Final = 255  # what file systems take for one name; a whole path here is shorter still
DEPTH_LIMIT: Final = 8  # folders within folders; real bundles have three
TAR_LIMIT: Final = ENTRY_LIMIT * (FILE_LIMIT + 1024)  # bytes of tar that a gzip stream may unpack to


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
class _Entry:
    """A file or folder as the archive describes it, not unpacked yet. `crc` is None where the format has none."""

    path: str
    is_folder: bool
    size: int
    packed: bytes = field(repr=False)
    deflated: bool = False
    crc: int | None = None


def read(body: bytes) -> tuple[File, ...]:
    """Read every file of a zip, tar or tar.gz archive; raises subclasses of BadBundle."""
    if len(body) > BODY_LIMIT:
        raise errors.BundleTooLarge(
            "The bundle is larger than 64 KiB. Upload only the files of your Docker endpoint: its certificates, "
            "its key and the file that names its address"
        )
    entries = [entry for entry in _entries(body) if entry.path]
    _check_names(entries)
    files = tuple(File(e.path, _unpacked(e)) for e in entries if not e.is_folder and not _is_dropping(e.path))
    if not files:
        raise errors.BundleEmpty("The bundle holds no files. Upload the archive with your certificates and key in it")
    return files


def shown(path: str) -> str:
    """Give a path for a message: quoted when it is a name a person would know, else only “a file”.

    A long run of letters and digits may be content that a damaged archive presents as a name.
    """
    if len(path) > 100 or not path.isprintable() or re.search(r"[A-Za-z0-9+/=]{33,}", path):
        return "a file"
    return f"“{path}”"


# ── which kind of archive ────────────────────────────────────────────────────────────────────────────────────────

_UNSUPPORTED: Final = {
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"\x1f\x9d": "a compress (.Z) file",
}


def _entries(body: bytes) -> list[_Entry]:
    if not body.strip(b"\0"):
        raise errors.BundleEmpty("The bundle is empty. Choose the file again, and check that it can be opened")
    for magic, kind in _UNSUPPORTED.items():
        if body.startswith(magic):
            raise errors.ArchiveUnsupported(f"The bundle is {kind}. Pack your files as zip, tar or tar.gz instead")
    if body.startswith(b"\x1f\x8b"):
        return _tar_entries(_gunzipped(body))
    if body.startswith((b"PK\3\4", _END_MAGIC)) or (_END_MAGIC in body and not _is_tar(body)):
        return _zip_entries(body)
    return _tar_entries(body)


def _gunzipped(body: bytes) -> bytes:
    engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = engine.decompress(body, TAR_LIMIT + 1)
    except zlib.error:
        raise _damaged("cannot be unpacked") from None
    if len(data) > TAR_LIMIT:
        raise errors.BundleTooLarge("The bundle unpacks to more than 1 MiB. Upload only your endpoint's own files")
    if not engine.eof or engine.unused_data:
        raise _damaged("is cut short, or other data follows it")
    return data


def _damaged(what: str) -> errors.ArchiveDamaged:
    return errors.ArchiveDamaged(f"The bundle's archive {what}. Make the archive again and upload that")


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

_DROPPING_NAMES: Final = frozenset(
    {".ds_store", ".localized", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "@eadir"}
)
_DROPPING_FOLDERS: Final = frozenset(
    {"__macosx", "@eadir", ".git", ".svn", ".spotlight-v100", ".trashes", ".fseventsd", "$recycle.bin"}
)


def _is_dropping(path: str) -> bool:
    """Tell whether a program put this file there, and not a person."""
    *folders, name = path.casefold().split("/")
    if name.startswith("._") or name in _DROPPING_NAMES or name.endswith(("~", ".swp")):
        return True
    return any(folder in _DROPPING_FOLDERS for folder in folders)


def _path(name: str) -> str:
    """Give a member's name as a clean relative path, "" for the archive's own root; raises FileNameForbidden."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise errors.FileNameForbidden(
            "A file's name in the archive leads out of it (it begins with “/” or a drive, or holds “..”). "
            "Pack the folder from inside your file manager and upload that"
        )
    if "\\" in name:
        raise errors.FileNameForbidden(
            "A file's name in the archive holds a backslash. Pack the files with another program, for example "
            "“Compress” or “Send to → Compressed folder” of your file manager"
        )
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for part in parts if part != "Icon\r" for c in part):
        raise errors.FileNameForbidden("A file's name in the archive holds a control character. Rename the file")
    if len(name) > NAME_LIMIT or len(parts) > DEPTH_LIMIT:
        raise errors.FileNameForbidden("A file's path in the archive is too long. Pack only the folder with the key")
    return "/".join(parts)


def _check_names(entries: list[_Entry]) -> None:
    """Refuse two entries that some file system would take for one."""
    seen: set[str] = set()
    for entry in entries:
        key = unicodedata.normalize("NFKC", entry.path).casefold()
        if key in seen:
            raise errors.FileDuplicated(f"The archive holds {shown(entry.path)} twice. Pack the folder again, once")
        seen.add(key)


def _too_many(count: int) -> None:
    if count > ENTRY_LIMIT:
        raise errors.TooManyFiles("The archive has more than 64 entries. Pack only the folder with your endpoint's key")


# ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _unpacked(entry: _Entry) -> bytes:
    if entry.size > FILE_LIMIT:
        raise _file_too_large(entry.path)
    data = _inflated(entry) if entry.deflated else entry.packed
    if len(data) != entry.size:
        raise _damaged("says a wrong size for a file")
    if entry.crc is not None and zlib.crc32(data) != entry.crc:
        raise _damaged("has a wrong checksum for a file")
    return data


def _inflated(entry: _Entry) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = engine.decompress(entry.packed, FILE_LIMIT + 1)
    except zlib.error:
        raise _damaged("holds a file that cannot be unpacked") from None
    if len(data) > FILE_LIMIT:
        raise _file_too_large(entry.path)
    if not engine.eof or engine.unused_data:
        raise _damaged("holds a file that cannot be unpacked whole")
    return data


def _file_too_large(path: str) -> errors.FileTooLarge:
    return errors.FileTooLarge(
        f"In the archive, {shown(path)} is larger than 16 KiB. Leave it out: only the certificates, the key and the "
        "file that names the endpoint's address are needed"
    )


# ── zip ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_END_MAGIC: Final = b"PK\5\6"
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


def _zip_entries(body: bytes) -> list[_Entry]:
    count, start, end = _zip_directory(body)
    central: list[_Central] = []
    position = start
    for _ in range(count):
        central.append(_zip_central(body, position, end))
        position = central[-1].end
    if position != end:
        raise _damaged("has a table of contents of the wrong length")
    spans = sorted(_zip_span(body, header, start) for header in central)
    if any(after[0] < before[1] for before, after in itertools.pairwise(spans)):
        raise errors.ArchiveOverlap("Two files in the archive share the same bytes. Make the archive again")
    if spans[0][0] != 0:
        raise _prefixed()
    return [_zip_entry(body, header) for header in central]


def _prefixed() -> errors.ArchivePrefixed:
    return errors.ArchivePrefixed(
        "Something stands in front of the zip archive, as in a self-extracting program. Upload a plain zip file"
    )


def _zip_directory(body: bytes) -> tuple[int, int, int]:
    """Find the central directory: the number of its entries, where it starts and where it ends."""
    end = body.rfind(_END_MAGIC)
    if end < 0 or end + _END.size > len(body):
        raise _damaged("is cut short")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(body, end)
    if end + _END.size + comment != len(body):
        raise _damaged("is followed by other data")
    if body[max(0, end - 20) :].startswith(b"PK\6\7") or _ALL_ONES in (size, start) or 0xFFFF in (disk, count):
        raise _zip64()
    if disk or first_disk or here != count:
        raise _damaged("is one of several parts")
    _too_many(count)
    if not count:
        raise errors.BundleEmpty("The archive is empty. Pack the files again, and check that they are in it")
    if start + size < end:
        raise _prefixed()
    if start + size > end:
        raise _damaged("is cut short in the middle")
    return count, start, end


def _zip64() -> errors.ArchiveZip64:
    return errors.ArchiveZip64(
        "The archive uses the zip64 form, which is for huge files. Make it again from the files themselves "
        "(not from a pipe), with your file manager"
    )


def _zip_central(body: bytes, position: int, limit: int) -> _Central:
    if position + _CENTRAL.size > limit:
        raise _damaged("has a table of contents that is cut short")
    fields = _CENTRAL.unpack_from(body, position)
    magic, _, _, flags, method, _, _, crc, packed, size, name, extra, comment, disk, _, attributes, offset = fields
    names = position + _CENTRAL.size
    end = names + name + extra + comment
    if magic != b"PK\1\2" or end > limit or disk not in (0, 0xFFFF):
        raise _damaged("has a damaged table of contents")
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
        raise _damaged("says two different things about a file")
    if (flags | header.flags) & _ENCRYPTED or _AES in (method, header.method):
        raise errors.ArchiveEncrypted("The archive is protected with a password. Make it again without one")
    if method != header.method:
        raise _damaged("says two different things about a file")
    if 0x0001 in _extra_ids(body[names + name : names + name + extra]):
        raise _zip64()
    said, known = (crc, packed, size), (header.crc, header.packed_size, header.size)
    if any(one != other and (one or not flags & _DESCRIPTOR) for one, other in zip(said, known, strict=True)):
        raise _damaged("says two different sizes for a file")
    return header.offset, data + header.packed_size


def _zip_data(body: bytes, header: _Central, limit: int) -> int:
    """Give where an entry's data begins; header and data must lie before the directory."""
    if header.offset + _LOCAL.size > limit:
        raise _damaged("is cut short")
    name, extra = struct.unpack_from("<HH", body, header.offset + 26)
    begin: int = header.offset + _LOCAL.size + name + extra
    if begin + header.packed_size > limit:
        raise _damaged("is cut short")
    return begin


def _zip_entry(body: bytes, header: _Central) -> _Entry:
    path = _path(header.name)
    kind = stat.S_IFMT(header.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _not_regular(path)
    is_folder = header.name.endswith("/")
    if (kind == stat.S_IFDIR and not is_folder) or (is_folder and header.size):
        raise _damaged("says two different things about a folder")
    if header.method not in (_STORED, _DEFLATED):
        raise errors.ArchiveMethod(
            f"In the archive, {shown(path)} is packed with a method this hub does not read. "
            "Make the zip with the usual “deflate” method, or as tar"
        )
    begin = _zip_data(body, header, len(body))
    packed = body[begin : begin + header.packed_size]
    return _Entry(path, is_folder, header.size, packed, header.method == _DEFLATED, header.crc)


def _not_regular(path: str) -> errors.FileNotRegular:
    return errors.FileNotRegular(
        f"In the archive, {shown(path)} is a link, a device or something else that is no file. "
        "Pack the files themselves"
    )


# ── tar ──────────────────────────────────────────────────────────────────────────────────────────────────────────

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


def _tar_entries(body: bytes) -> list[_Entry]:
    if not _is_tar(body):
        raise errors.NotAnArchive(
            "The uploaded file is neither a zip nor a tar archive. Upload the bundle as you downloaded it, "
            "or pack ca.pem, cert.pem and key.pem into one zip"
        )
    entries = list(_tar_members(body))
    _too_many(len(entries))
    return entries


def _is_tar(body: bytes) -> bool:
    """Tell whether the first block is a tar header: its checksum holds, or it says so itself."""
    return len(body) >= _BLOCK and (body[257:262] == b"ustar" or _checksum_holds(body[:_BLOCK]))


def _checksum_holds(block: bytes) -> bool:
    stated = block[148:156].strip(b" \0")
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return re.fullmatch(rb"[0-7]{1,7}", stated) is not None and int(stated, 8) == total


def _tar_members(body: bytes) -> Iterator[_Entry]:
    """Go through the headers. The last file's padding and the two empty blocks may be missing: `docker context
    export` writes neither.
    """
    position = 0
    name: str | None = None
    while (header := _tar_header(body, position)) is not None:
        position = header.begin + -(-header.size // _BLOCK) * _BLOCK
        data = body[header.begin : header.begin + header.size]
        if len(data) != header.size:
            raise _damaged("is cut short")
        if header.kind in (b"x", b"L"):
            name = _long_name(header, data) or name
        elif header.kind == b"g":
            if _pax_path(data) is not None:
                raise _damaged("gives one name to all files")
        else:
            yield _tar_entry(header, name or header.name, data)
            name = None
    if name is not None:
        raise _damaged("is cut short")


def _tar_header(body: bytes, position: int) -> _Header | None:
    """Read the header at `position`; None at the archive's end."""
    block = body[position : position + _BLOCK]
    if not block.strip(b"\0"):
        if body[position:].strip(b"\0"):
            raise _damaged("is followed by other data")
        return None
    if len(block) < _BLOCK or not _checksum_holds(block):
        raise _damaged("has a damaged header")
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
        raise _damaged("says a size that is no number")
    return int(digits or b"0", 8)


def _long_name(header: _Header, data: bytes) -> str | None:
    if header.size > FILE_LIMIT:
        raise _damaged("has a header that is too long")
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
            raise _damaged("has a damaged header")
        if key.startswith(_SPARSE):
            raise _sparse()
        if key in (b"size", b"hdrcharset"):
            raise _damaged("says a file's size twice, or uses an unusual alphabet")
        if key == b"path":
            path = _tar_name(value[:-1])
        position = end
    return path


def _sparse() -> errors.FileSparse:
    return errors.FileSparse("The archive holds a sparse file. Make it again without the option for sparse files")


def _tar_entry(header: _Header, name: str, data: bytes) -> _Entry:
    path = _path(name)
    if header.kind == b"S":
        raise _sparse()
    if header.kind not in (b"0", b"\0", b"5"):
        raise _not_regular(path)
    is_folder = header.kind == b"5" or name.endswith("/")
    if is_folder and header.size:
        raise _damaged("says two different things about a folder")
    return _Entry(path, is_folder, header.size, data)
