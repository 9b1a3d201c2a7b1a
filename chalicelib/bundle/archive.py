"""What an uploaded archive holds: zip or tar bytes become named files in memory, or a refusal. Nothing is extracted.

1. What the file is, its first bytes say; its name is never looked at.
2. The limits hold before anything is unpacked: 64 KiB of archive, 64 entries, 16 KiB for each file, and no unpacking
   step can give more than it is allowed to. Declared sizes are checked against real ones, and checksums hold.
3. Only what a person's zip or tar program writes is read: stored or deflated files and folders in one plain archive.
   No links, devices, sparse files, encryption, zip64, overlaps, joined archives or bytes in front of the first file.
4. What such programs add around a person's files (`__MACOSX`, `.DS_Store`, `Thumbs.db`, …) is left out, unread.
"""

from __future__ import annotations

import unicodedata
import zlib
from typing import Final

from chalicelib.bundle import errors
from chalicelib.bundle.files import ENTRY_LIMIT, FILE_LIMIT, Entry, File, damaged, shown
from chalicelib.bundle.tar_archive import is_tar, tar_entries
from chalicelib.bundle.zip_archive import END_MAGIC, zip_entries

BODY_LIMIT: Final = 64 * 1024
TAR_LIMIT: Final = ENTRY_LIMIT * (FILE_LIMIT + 1024)  # bytes of tar that a gzip stream may unpack to


def read(body: bytes) -> tuple[File, ...]:
    """Read every file of a zip, tar or tar.gz archive; raises subclasses of BadBundle."""
    if len(body) > BODY_LIMIT:
        raise errors.BundleTooLarge(
            "The bundle is larger than 64 KiB. Upload only the files of your Docker endpoint: its certificates, "
            "its key and the file that names its address"
        )
    entries = [entry for entry in _entries(body) if entry.path]
    _check_names(entries)
    files = tuple(File(e.path, _unpacked(e)) for e in entries if not e.is_folder and not _is_os_clutter(e.path))
    if not files:
        raise errors.BundleEmpty(
            "The bundle contains no files. Upload the archive with your certificates and key in it"
        )
    return files


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


def _entries(body: bytes) -> list[Entry]:
    if not body.strip(b"\0"):
        raise errors.BundleEmpty("The bundle is empty. Choose the file again, and check that it can be opened")
    for magic, kind in _UNSUPPORTED.items():
        if body.startswith(magic):
            raise errors.ArchiveUnsupported(f"The bundle is {kind}. Pack your files as zip, tar or tar.gz instead")
    if body.startswith(b"\x1f\x8b"):
        return tar_entries(_gunzipped(body))
    if body.startswith((b"PK\3\4", END_MAGIC)) or (END_MAGIC in body and not is_tar(body)):
        return zip_entries(body)
    return tar_entries(body)


def _gunzipped(body: bytes) -> bytes:
    engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = engine.decompress(body, TAR_LIMIT + 1)
    except zlib.error:
        raise damaged("cannot be unpacked") from None
    if len(data) > TAR_LIMIT:
        raise errors.BundleTooLarge("The bundle unpacks to more than 1 MiB. Upload only your endpoint's own files")
    if not engine.eof or engine.unused_data:
        raise damaged("is cut short, or other data follows it")
    return data


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

_OS_CLUTTER: Final = frozenset(
    {".ds_store", ".localized", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "@eadir"}
)
_OS_CLUTTER_FOLDERS: Final = frozenset(
    {"__macosx", "@eadir", ".git", ".svn", ".spotlight-v100", ".trashes", ".fseventsd", "$recycle.bin"}
)


def _is_os_clutter(path: str) -> bool:
    """Tell whether a program put this file there, and not a person."""
    *folders, name = path.casefold().split("/")
    if name.startswith("._") or name in _OS_CLUTTER or name.endswith(("~", ".swp")):
        return True
    return any(folder in _OS_CLUTTER_FOLDERS for folder in folders)


def _check_names(entries: list[Entry]) -> None:
    """Refuse two entries that some file system would take for one."""
    seen: set[str] = set()
    for entry in entries:
        key = unicodedata.normalize("NFKC", entry.path).casefold()
        if key in seen:
            raise errors.FileDuplicated(f"The archive contains {shown(entry.path)} twice. Pack the folder again, once")
        seen.add(key)


# ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _unpacked(entry: Entry) -> bytes:
    if entry.size > FILE_LIMIT:
        raise _file_too_large(entry.path)
    data = _inflated(entry) if entry.deflated else entry.packed
    if len(data) != entry.size:
        raise damaged("states a wrong size for a file")
    if entry.crc is not None and zlib.crc32(data) != entry.crc:
        raise damaged("has a wrong checksum for a file")
    return data


def _inflated(entry: Entry) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = engine.decompress(entry.packed, FILE_LIMIT + 1)
    except zlib.error:
        raise damaged("holds a file that cannot be unpacked") from None
    if len(data) > FILE_LIMIT:
        raise _file_too_large(entry.path)
    if not engine.eof or engine.unused_data:
        raise damaged("holds a file that cannot be unpacked completely")
    return data


def _file_too_large(path: str) -> errors.FileTooLarge:
    return errors.FileTooLarge(
        f"In the archive, {shown(path)} is larger than 16 KiB. Leave it out: only the certificates, the key and the "
        "file that names the endpoint's address are needed"
    )
