"""A named corpus of bad bundles: each is made by code and has the exact code of its refusal.

`corpus()` gives the table. Zip and tar are packed here byte by byte, for no library writes what is wanted.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from tests import bundles
from tests.bundles import Files, Pki, bytes_of, zip_of
from tests.certificates import FAR_AHEAD, LONG_AGO, Ca, Leaf, instant, key_pem, new_key, shared_key

NOW = instant(2026, 11, 1)
HOST = "docker.example.org"


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad bundle: what makes it, the code it is refused with, and the form's host field."""

    build: Callable[[], bytes]
    code: str
    host: str | None = HOST


@lru_cache
def pki() -> Pki:
    """Give the good credentials that all bad bundles are made from."""
    return Pki.new()


def good(**changes: bytes | str | None) -> Files:
    """Give the files of a good bundle, with some of them (`cert`, `key`, `ca`) replaced or, with None, left out."""
    files: dict[str, bytes | str] = dict(pki().files)
    for stem, data in changes.items():
        if data is None:
            del files[f"{stem}.pem"]
        else:
            files[f"{stem}.pem"] = data
    return files


def ends_in_zeros(beginning: bytes) -> bytes:
    """Give a file that begins like one of some format, and has nothing of it in it."""
    return beginning + bytes(900)


def with_leaf(leaf: Leaf, ca: Ca | None = None) -> bytes:
    """Pack a bundle around another client certificate."""
    return zip_of(good(cert=leaf.certificate, key=leaf.key, ca=(ca or pki().ca).certificate))


# ── zip, byte by byte ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A zip member with every field open to a lie; None means the truth."""

    name: bytes = b"key.pem"
    data: bytes = b"junk"
    method: int = 8
    flags: int = 0
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    attributes: int = 0
    extra: bytes = b""
    disk: int = 0
    offset: int | None = None
    local: Mapping[str, Any] = field(default_factory=dict)  # what the local header says otherwise, by struct field


def craft_zip(
    members: Sequence[Member],
    *,
    prefix: bytes = b"",
    fix_offsets: bool = False,
    count: int | None = None,
    suffix: bytes = b"",
    comment: bytes = b"",
    before_end: bytes = b"",
    directory_offset: int | None = None,
    directory_size: int | None = None,
    disk: int = 0,
) -> bytes:
    """Pack members; `fix_offsets` counts the prefix in, as a self-extracting program does."""
    body, central = bytearray(prefix), bytearray()
    base = 0 if fix_offsets else len(prefix)
    for m in members:
        packed = m.packed if m.packed is not None else deflated(m.data) if m.method == 8 else m.data
        crc = zlib.crc32(m.data) if m.crc is None else m.crc
        size = len(m.data) if m.size is None else m.size
        length = len(packed) if m.packed_size is None else m.packed_size
        offset = len(body) - base if m.offset is None else m.offset
        said: dict[str, Any] = {
            "name": m.name,
            "flags": m.flags,
            "method": m.method,
            "crc": crc,
            "packed": length,
            "size": size,
        }
        said |= {"extra": m.extra, **m.local}
        body += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, said["flags"], said["method"], 0, 33, said["crc"], said["packed"], said["size"],
            len(said["name"]), len(said["extra"]),
        )  # fmt: skip
        body += said["name"] + said["extra"] + packed
        central += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x031E, 20, m.flags, m.method, 0, 33, crc, length, size,
            len(m.name), len(m.extra), 0, m.disk, 0, m.attributes, offset,
        )  # fmt: skip
        central += m.name + m.extra
    start = len(body) - base if directory_offset is None else directory_offset
    total = len(members) if count is None else count
    length = len(central) if directory_size is None else directory_size
    end = struct.pack("<4s4H2LH", b"PK\5\6", disk, disk, total, total, length, start, len(comment))
    return bytes(body + central) + before_end + end + comment + suffix


def deflated(data: bytes) -> bytes:
    """Compress as zip does: no header."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def zip_with(name: bytes | str = b"extra", data: bytes = b"x", **lies: Any) -> bytes:
    """Pack a good bundle with one more member, which lies."""
    raw = name.encode() if isinstance(name, str) else name
    return craft_zip([*good_members(), Member(name=raw, data=data, **lies)])


def good_members() -> list[Member]:
    """Give the members of a good bundle."""
    return [Member(name=name.encode(), data=bytes_of(data)) for name, data in good().items()]


def symlink_mode(kind: int) -> int:
    """Give the external attributes of a Unix file type, such as 0o120000 for a symbolic link."""
    return (kind | 0o777) << 16


# ── tar, byte by byte ────────────────────────────────────────────────────────────────────────────────────────────


def tar_header(
    name: bytes = b"key.pem",
    size: int | bytes = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """Write one header with a right checksum."""
    said = b"%011o\0" % size if isinstance(size, int) else size
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + said + b"00000000000\0" + b" " * 8)
    block += kind + b"\0" * 100 + magic.ljust(8, b"\0") + b"\0" * 80 + prefix.ljust(155, b"\0") + b"\0" * 12
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_member(name: bytes, data: bytes, kind: bytes = b"0", **lies: Any) -> bytes:
    """Write a header, data and padding."""
    return tar_header(name, len(data), kind, **lies) + data + bytes(-len(data) % 512)


def tar_with(*members: bytes, end: bytes = bytes(1024)) -> bytes:
    """Pack a good bundle with more members."""
    mine = [tar_member(name.encode(), bytes_of(data)) for name, data in good().items()]
    return b"".join([*mine, *members]) + end


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """Write a pax header of "key=value" records."""
    lines = b""
    for record in records:
        length = len(record) + 3
        while len(b"%d %s\n" % (length, record)) != length:
            length += 1
        lines += b"%d %s\n" % (length, record)
    return tar_member(b"PaxHeaders/x", lines, kind)


# ── keys and certificates ────────────────────────────────────────────────────────────────────────────────────────


def pem(label: str, der: bytes) -> bytes:
    """Write one PEM block."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def der_of(block: bytes) -> bytes:
    """Give the DER of one PEM block."""
    return base64.b64decode(b"".join(block.splitlines()[1:-1]))


def pkcs8(key: PrivateKeyTypes) -> bytes:
    """Serialize any private key."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def explicit_curve_key() -> bytes:
    """Write a P-256 key whose curve is spelled out (SEC 1, C.2), as `-param_enc explicit` does."""
    key = new_key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    point = bytes.fromhex(
        "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296"
        "4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5"
    )
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    field_id = tlv(0x30, bytes.fromhex("06072a8648ce3d0101"), integer(prime))
    curve = tlv(0x30, tlv(4, (prime - 3).to_bytes(32, "big")), tlv(4, b.to_bytes(32, "big")))
    parameters = tlv(0x30, integer(1), field_id, curve, tlv(4, point), integer(order), integer(1))
    secret = tlv(4, key.private_numbers().private_value.to_bytes(32, "big"))
    return pem("EC PRIVATE KEY", tlv(0x30, integer(1), secret, tlv(0xA0, parameters)))


def tlv(tag: int, *parts: bytes) -> bytes:
    """Write one DER value."""
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def integer(value: int) -> bytes:
    """Write a DER integer, not negative."""
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def rsa_private(p: int, q: int, n: int, d: int, **lies: int) -> bytes:
    """Write a PKCS #1 RSA private key with these numbers, right or wrong."""
    numbers = {"dp": d % (p - 1) if p > 1 else 0, "dq": d % (q - 1) if q > 1 else 0, "qi": 1, "e": 65537} | lies
    ordered = (0, n, numbers["e"], d, p, q, numbers["dp"], numbers["dq"], numbers["qi"])
    return pem("RSA PRIVATE KEY", tlv(0x30, *(integer(number) for number in ordered)))


def forged_key(leaf: Leaf, **lies: int) -> bytes:
    """Write a key file that claims the public key of somebody's RSA certificate."""
    public = x509.load_pem_x509_certificate(leaf.certificate).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    n = public.public_numbers().n
    return rsa_private(n, 1, n, 3, **lies)


@lru_cache
def rsa_leaf() -> Leaf:
    """Give one RSA client certificate."""
    return pki().ca.issue("visitor", client=True, key=shared_key("rsa2048"))


def forged_ec_key() -> bytes:
    """Write an EC key with another secret and the public point of the visitor's certificate."""
    mine = serialization.load_pem_private_key(pki().client.key, None).public_key()
    point = mine.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    secret = tlv(4, (12345).to_bytes(32, "big"))
    curve = tlv(0xA0, bytes.fromhex("06082a8648ce3d030107"))
    return pem("EC PRIVATE KEY", tlv(0x30, integer(1), secret, curve, tlv(0xA1, tlv(3, b"\0" + point))))


def resigned(certificate: bytes, digest: int) -> bytes:
    """Sign a certificate of the shared RSA key again, with MD5 (4) or SHA-1 (5); the numbers are PKCS #1's."""
    oid = bytes.fromhex("06092a864886f70d0101")
    der = der_of(certificate).replace(oid + b"\x0b", oid + bytes([digest]))
    key = shared_key("rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    algorithm = hashes.MD5() if digest == 4 else hashes.SHA1()
    return pem("CERTIFICATE", der[:-256] + key.sign(signed, padding.PKCS1v15(), algorithm))


def weakly_signed(digest: int) -> bytes:
    """Pack a client certificate that is signed with MD5 (4) or SHA-1 (5)."""
    ca = Ca.new("Weak", key=shared_key("rsa2048"))
    leaf = ca.issue("visitor", client=True)
    return zip_of(good(cert=resigned(leaf.certificate, digest), key=leaf.key, ca=ca.certificate))


def edited_certificate(old: bytes, new: bytes) -> bytes:
    """Pack the visitor's certificate with some bytes exchanged."""
    der = der_of(pki().client.certificate)
    assert old in der
    return zip_of(good(cert=pem("CERTIFICATE", der.replace(old, new))))


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


def corpus() -> dict[str, Bad]:
    """Give all bad bundles by name."""
    tables = (_not_archives(), _zips(), _zip_names(), _tars(), _tar_names(), _compressed(), _layouts(), _endpoints())
    found: dict[str, Bad] = {}
    for table in (*tables, _pems(), _keys(), _certificates(), _cas()):
        assert not found.keys() & table.keys()
        found |= table
    return found


def _not_archives() -> dict[str, Bad]:
    magics = {
        "7z": b"7z\xbc\xaf\x27\x1c\0\4",
        "rar 4": b"Rar!\x1a\x07\x00",
        "rar 5": b"Rar!\x1a\x07\x01\x00",
        "zstd": b"\x28\xb5\x2f\xfd\x04",
        "lz4": b"\x04\x22\x4d\x18",
        "compress .Z": b"\x1f\x9d\x90",
    }
    return {
        "no bytes": Bad(lambda: b"", "bundle-empty"),
        "64 KiB of zeros": Bad(lambda: bytes(65536), "bundle-empty"),
        "one byte over the limit": Bad(lambda: zip_of(good()).ljust(65537, b"\0"), "bundle-too-large"),
        "8 MiB of certificates": Bad(lambda: pki().client.certificate * 15000, "bundle-too-large"),
        "a single key": Bad(lambda: pki().client.key, "not-an-archive"),
        "three PEM files in a row": Bad(
            lambda: b"".join(bytes_of(data) for data in pki().files.values()), "not-an-archive"
        ),
        "an environment file": Bad(lambda: b"export DOCKER_HOST=tcp://h\n", "not-an-archive"),
        "a PDF": Bad(lambda: b"%PDF-1.7\n" + bytes(2000), "not-an-archive"),
        "a PNG": Bad(lambda: b"\x89PNG\r\n\x1a\n" + bytes(2000), "not-an-archive"),
        "an HTML page": Bad(lambda: b"<!doctype html><title>404</title>" * 50, "not-an-archive"),
        "random bytes": Bad(lambda: bytes(i * i * 7 % 251 for i in range(5000)), "not-an-archive"),
        "an ELF program": Bad(lambda: b"\x7fELF\2\1\1" + bytes(4000), "not-an-archive"),
        "a PKCS #12 file": Bad(lambda: b"\x30\x82\x09\x00\x02\x01\x03" + bytes(1000), "not-an-archive"),
        "the letters PK": Bad(lambda: b"PK", "not-an-archive"),
        **{
            f"a {name} archive": Bad(partial(ends_in_zeros, magic), "archive-unsupported")
            for name, magic in magics.items()
        },
    }


def _zips() -> dict[str, Bad]:
    whole = partial(zip_of, good())
    bomb = bytes(4_000_000)
    m = good_members
    table: dict[str, Bad] = {
        "empty zip": Bad(lambda: craft_zip([]), "bundle-empty"),
        "zip with only OS clutter": Bad(
            lambda: zip_of({"__MACOSX/._key.pem": b"x", ".DS_Store": b"x"}), "bundle-empty"
        ),
        "zip with only a folder": Bad(lambda: zip_of({"certs/": b""}), "bundle-empty"),
        "zip cut in its directory": Bad(lambda: whole()[:-30], "archive-damaged"),
        "zip cut in its end": Bad(lambda: whole()[:-1], "archive-damaged"),
        "zip cut to its first header": Bad(lambda: whole()[:40], "archive-damaged"),
        "zip followed by junk": Bad(lambda: whole() + b"junk", "archive-damaged"),
        "zip with a comment that is too short": Bad(lambda: craft_zip(m(), comment=b"abc")[:-1], "archive-damaged"),
        "two zips in a row": Bad(lambda: whole() + whole(), "archive-prefixed"),
        "script in front of a zip": Bad(lambda: b"#!/bin/sh\nexit\n" + whole(), "archive-prefixed"),
        "program in front of a zip, offsets adjusted": Bad(
            lambda: craft_zip(m(), prefix=b"MZ" + bytes(600), fix_offsets=True), "archive-prefixed"
        ),
        "zip in front of a zip, offsets adjusted": Bad(
            lambda: craft_zip(m(), prefix=b"PK\3\4" + bytes(600), fix_offsets=True), "archive-prefixed"
        ),
        "65 members": Bad(lambda: zip_of({str(i): b"" for i in range(65)}), "too-many-files"),
        "1,000 members": Bad(lambda: craft_zip([Member(name=b"a", data=b"", method=0)] * 700), "too-many-files"),
        "says 65,534 members": Bad(lambda: craft_zip(m(), count=65534), "too-many-files"),
        "says 65,535 members": Bad(lambda: craft_zip(m(), count=65535), "archive-zip64"),
        "says one member more": Bad(lambda: craft_zip(m(), count=4), "archive-damaged"),
        "says one member less": Bad(lambda: craft_zip(m(), count=2), "archive-damaged"),
        "says no members": Bad(lambda: craft_zip(m(), count=0), "bundle-empty"),
        "directory beyond the end": Bad(lambda: craft_zip(m(), directory_offset=60000), "archive-damaged"),
        "directory before its place": Bad(lambda: craft_zip(m(), directory_offset=10), "archive-prefixed"),
        "directory of another size": Bad(lambda: craft_zip(m(), directory_size=9999), "archive-damaged"),
        "second of two disks": Bad(lambda: craft_zip(m(), disk=1), "archive-damaged"),
        "zip64 locator": Bad(lambda: craft_zip(m(), before_end=b"PK\6\7" + bytes(16)), "archive-zip64"),
        "zip64 directory offset": Bad(lambda: craft_zip(m(), directory_offset=0xFFFFFFFF), "archive-zip64"),
        "zip64 sizes": Bad(lambda: zip_with(size=0xFFFFFFFF), "archive-zip64"),
        "zip64 extra field": Bad(lambda: zip_with(extra=struct.pack("<HHQ", 1, 8, 1)), "archive-zip64"),
        "zip64 extra field, local only": Bad(
            lambda: zip_with(local={"extra": struct.pack("<HHQ", 1, 8, 1)}), "archive-zip64"
        ),
        "encrypted member": Bad(lambda: zip_with(flags=1), "archive-encrypted"),
        "strongly encrypted member": Bad(lambda: zip_with(flags=0x41), "archive-encrypted"),
        "masked directory": Bad(lambda: zip_with(flags=0x2000), "archive-encrypted"),
        "AES member": Bad(lambda: zip_with(method=99), "archive-encrypted"),
        "encrypted, local header only": Bad(lambda: zip_with(local={"flags": 1}), "archive-encrypted"),
        "deflate bomb, honest size": Bad(lambda: craft_zip([Member(data=bomb)]), "file-too-large"),
        "deflate bomb that lies": Bad(lambda: craft_zip([Member(data=bomb, size=100)]), "file-too-large"),
        "deflate bomb that lies in both headers": Bad(
            lambda: craft_zip([Member(data=bomb, size=16384, crc=0)]), "file-too-large"
        ),
        "one byte over 16 KiB": Bad(lambda: zip_with(data=b"x" * 16385), "file-too-large"),
        "stored, over 16 KiB": Bad(lambda: zip_with(data=b"x" * 16385, method=0), "file-too-large"),
        "size too small": Bad(lambda: zip_with(data=b"x" * 100, size=99), "archive-damaged"),
        "size too large": Bad(lambda: zip_with(data=b"x" * 100, size=101), "archive-damaged"),
        "stored, sizes differ": Bad(lambda: zip_with(data=b"x" * 100, method=0, size=50), "archive-damaged"),
        "packed size too small": Bad(lambda: zip_with(data=b"xyz" * 100, packed_size=3), "archive-damaged"),
        "packed size beyond the archive": Bad(lambda: zip_with(packed_size=60000), "archive-damaged"),
        "local sizes differ": Bad(lambda: zip_with(local={"size": 5}), "archive-damaged"),
        "local checksum differs": Bad(lambda: zip_with(local={"crc": 5}), "archive-damaged"),
        "local method differs": Bad(lambda: zip_with(local={"method": 0}), "archive-damaged"),
        "local name differs": Bad(lambda: zip_with("a.pem", local={"name": b"b.pem"}), "archive-damaged"),
        "wrong checksum": Bad(lambda: zip_with(crc=1), "archive-damaged"),
        "deflate stream that is none": Bad(lambda: zip_with(packed=b"\xff" * 40), "archive-damaged"),
        "deflate stream cut short": Bad(lambda: zip_with(packed=deflated(b"abc" * 9)[:-2], size=27), "archive-damaged"),
        "deflate stream followed by junk": Bad(lambda: zip_with(packed=deflated(b"x") + b"yy"), "archive-damaged"),
        "empty deflate stream": Bad(lambda: zip_with(packed=b"", data=b""), "archive-damaged"),
        "offset beyond the archive": Bad(lambda: zip_with(offset=65000), "archive-damaged"),
        "offset into the middle": Bad(lambda: zip_with(offset=33), "archive-damaged"),
        "member on another disk": Bad(lambda: zip_with(disk=3), "archive-damaged"),
        "two names for one member": Bad(
            lambda: craft_zip([Member(name=b"a", data=b"x"), Member(name=b"a", data=b"x", offset=0)]), "archive-overlap"
        ),
        "64 members that overlap": Bad(_overlapping, "archive-overlap"),
        "quoted overlap": Bad(_quoted_overlap, "archive-overlap"),
        "symbolic link": Bad(lambda: zip_with(attributes=symlink_mode(0o120000)), "file-not-regular"),
        "named pipe": Bad(lambda: zip_with(attributes=symlink_mode(0o010000)), "file-not-regular"),
        "character device": Bad(lambda: zip_with(attributes=symlink_mode(0o020000)), "file-not-regular"),
        "block device": Bad(lambda: zip_with(attributes=symlink_mode(0o060000)), "file-not-regular"),
        "socket": Bad(lambda: zip_with(attributes=symlink_mode(0o140000)), "file-not-regular"),
        "folder that is called a file": Bad(lambda: zip_with(attributes=symlink_mode(0o040000)), "archive-damaged"),
        "folder with content": Bad(lambda: zip_with("folder/", b"content"), "archive-damaged"),
        "bzip2 bomb": Bad(lambda: _stdlib_zip(zipfile.ZIP_BZIP2, bomb), "archive-method"),
        "LZMA bomb": Bad(lambda: _stdlib_zip(zipfile.ZIP_LZMA, bomb), "archive-method"),
    }
    methods = {1: "shrink", 6: "implode", 9: "deflate64", 93: "zstd", 95: "xz", 98: "PPMd", 7: "tokenize", 65535: "?"}
    return table | {
        f"method {name}": Bad(partial(zip_with, method=number), "archive-method") for number, name in methods.items()
    }


def _stdlib_zip(method: int, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        packed.writestr("key.pem", data)
    return stream.getvalue()


def _overlapping() -> bytes:
    members = [Member(name=b"f", data=b"x" * 9000), *(Member(name=b"f", data=b"x" * 9000, offset=0) for _ in range(60))]
    return craft_zip(members)


def _quoted_overlap() -> bytes:
    """One file's stored data hold the whole local header of the next (David Fifield, "A better zip bomb")."""
    inner = craft_zip([Member(name=b"in", data=b"y" * 50, method=0)])[:82]
    outer = Member(name=b"ou", data=inner, method=0)
    return craft_zip([outer, Member(name=b"in", data=b"y" * 50, method=0, offset=32)])


def _zip_names() -> dict[str, Bad]:
    forbidden: dict[str, bytes] = {
        "absolute": b"/etc/key.pem",
        "up": b"../key.pem",
        "up in the middle": b"a/../../key.pem",
        "up at the end": b"a/..",
        "backslashes": b"certs\\key.pem",
        "up with backslashes": b"..\\..\\key.pem",
        "drive": b"C:/key.pem",
        "drive without slash": b"c:key.pem",
        "network share": b"//server/share/key.pem",
        "NUL": b"key.pem\0.txt",
        "line feed": b"key\n.pem",
        "escape": b"\x1b[2Jkey.pem",
        "delete": b"key\x7f.pem",
        "C1 control": "key\u0085.pem".encode(),
        "line separator": "key\u2028.pem".encode(),
        "300 characters": b"k" * 300,
        "20 folders": b"a/" * 20 + b"key.pem",
    }
    doubled: dict[str, tuple[str, str]] = {
        "same name": ("x.pem", "x.pem"),
        "same name, other case": ("x.pem", "X.PEM"),
        "same name, composed and not": ("é.pem", "e\u0301.pem"),
        "same name, full width": ("key.txt", "\uff4bey.txt"),
        "same name, dot": ("a/x", "a/./x"),
        "same name, two slashes": ("a/x", "a//x"),
        "folder and file of one name": ("a/", "a"),
        "ligature": ("of\ufb01ce", "office"),
    }
    found = {f"zip, name: {n}": Bad(partial(zip_with, raw), "file-name-forbidden") for n, raw in forbidden.items()}
    for name, (first, second) in doubled.items():
        pair = [Member(name=first.encode(), data=b""), Member(name=second.encode(), data=b"")]
        found[f"zip, {name}"] = Bad(partial(craft_zip, [*good_members(), *pair]), "file-duplicated")
    found["zip, key.pem twice"] = Bad(lambda: zip_with("key.pem"), "file-duplicated")
    found["zip, key.pem and KEY.PEM"] = Bad(lambda: zip_with("KEY.PEM"), "file-duplicated")
    return found


def _tars() -> dict[str, Bad]:
    whole = partial(bundles.tar_of, good())
    kinds = {
        "hard link": b"1",
        "symbolic link": b"2",
        "character device": b"3",
        "block device": b"4",
        "named pipe": b"6",
        "contiguous file": b"7",
        "GNU directory dump": b"D",
        "GNU continued file": b"M",
        "GNU volume label": b"V",
        "GNU old long name": b"N",
        "Solaris ACL": b"A",
        "unknown kind": b"?",
    }
    table = {f"tar, {n}": Bad(partial(tar_with, tar_header(b"x", 0, k)), "file-not-regular") for n, k in kinds.items()}
    big = bytes(range(256)) * 65
    return table | {
        "tar, 65 members": Bad(lambda: tar_with(*(tar_header(b"%d" % i) for i in range(65))), "too-many-files"),
        "tar, over 16 KiB": Bad(lambda: tar_with(tar_member(b"x", big)), "file-too-large"),
        "tar, GNU sparse file": Bad(lambda: tar_with(tar_header(b"x", 0, b"S")), "file-sparse"),
        "tar, pax sparse file 0.1": Bad(
            lambda: tar_with(pax(b"GNU.sparse.size=99999999", b"GNU.sparse.map=0,1"), tar_member(b"x", b"")),
            "file-sparse",
        ),
        "tar, pax sparse file 1.0": Bad(
            lambda: tar_with(pax(b"GNU.sparse.major=1", b"GNU.sparse.realsize=99999999"), tar_member(b"x", b"")),
            "file-sparse",
        ),
        "tar, pax size": Bad(lambda: tar_with(pax(b"size=99999999999"), tar_member(b"x", b"")), "archive-damaged"),
        "tar, pax alphabet": Bad(lambda: tar_with(pax(b"hdrcharset=BINARY"), tar_member(b"x", b"")), "archive-damaged"),
        "tar, global path": Bad(lambda: tar_with(pax(b"path=key.pem", kind=b"g")), "archive-damaged"),
        "tar, global sparse": Bad(lambda: tar_with(pax(b"GNU.sparse.size=1", kind=b"g")), "file-sparse"),
        "tar, pax record without length": Bad(
            lambda: tar_with(tar_member(b"x", b"path=a\n", b"x"), tar_member(b"y", b"")), "archive-damaged"
        ),
        "tar, pax record longer than its header": Bad(
            lambda: tar_with(tar_member(b"x", b"99 path=a\n", b"x"), tar_member(b"y", b"")), "archive-damaged"
        ),
        "tar, pax record of no length": Bad(
            lambda: tar_with(tar_member(b"x", b"0 path=a\n", b"x"), tar_member(b"y", b"")), "archive-damaged"
        ),
        "tar, pax length of 5,000 digits": Bad(
            lambda: tar_with(tar_member(b"x", b"9" * 5000 + b" path=a\n", b"x"), tar_member(b"y", b"")),
            "archive-damaged",
        ),
        "tar, pax record without line feed": Bad(
            lambda: tar_with(tar_member(b"x", b"9 path=ab", b"x"), tar_member(b"y", b"")), "archive-damaged"
        ),
        "tar, pax bomb": Bad(lambda: tar_with(tar_member(b"x", b"8 a=bcd\n" * 4000, b"x")), "archive-damaged"),
        "tar, pax headers without a file": Bad(lambda: tar_with(pax(b"path=x")), "archive-damaged"),
        "tar, long name over 16 KiB": Bad(
            lambda: tar_with(tar_member(b"x", b"a" * 17000, b"L"), tar_member(b"y", b"")), "archive-damaged"
        ),
        "tar, wrong checksum": Bad(lambda: whole()[:1536] + b"z" + whole()[1537:], "archive-damaged"),
        "tar, wrong checksum at first": Bad(lambda: b"z" + whole()[1:], "archive-damaged"),
        "tar, size that is no number": Bad(lambda: tar_with(tar_header(b"x", b"0000000009z\0")), "archive-damaged"),
        "tar, size below zero": Bad(lambda: tar_with(tar_header(b"x", b"\xff" * 12)), "archive-damaged"),
        "tar, size in base 256": Bad(lambda: tar_with(tar_header(b"x", b"\x80" + bytes(11))), "archive-damaged"),
        "tar, size of 8 GiB": Bad(lambda: tar_with(tar_header(b"x", b"77777777777\0")), "archive-damaged"),
        "tar, cut in a file": Bad(lambda: whole()[:600], "archive-damaged"),
        "tar, cut in a header": Bad(lambda: whole()[:1600], "archive-damaged"),
        "tar, followed by another": Bad(lambda: whole() + whole(), "archive-damaged"),
        "tar, followed by junk": Bad(lambda: whole() + b"junk", "archive-damaged"),
        "tar, folder with content": Bad(lambda: tar_with(tar_member(b"x/", b"abc", b"5")), "archive-damaged"),
    }


def _tar_names() -> dict[str, Bad]:
    names = {
        "absolute": b"/key.pem",
        "up": b"../key.pem",
        "backslash": b"a\\key.pem",
        "escape": b"\x1b[31m",
        "drive": b"D:x",
    }
    found = {
        f"tar, name: {n}": Bad(partial(tar_with, tar_member(r, b"")), "file-name-forbidden") for n, r in names.items()
    }
    return found | {
        "tar, name: up, by prefix": Bad(
            lambda: tar_with(tar_member(b"key.pem", b"", prefix=b"../..")), "file-name-forbidden"
        ),
        "tar, name: up, by pax": Bad(
            lambda: tar_with(pax(b"path=../../key.pem"), tar_member(b"x", b"")), "file-name-forbidden"
        ),
        "tar, name: up, by long name": Bad(
            lambda: tar_with(tar_member(b"x", b"../key.pem\0", b"L"), tar_member(b"x", b"")), "file-name-forbidden"
        ),
        "tar, name: NUL, by pax": Bad(
            lambda: tar_with(pax(b"path=key.pem\0.txt"), tar_member(b"x", b"")), "file-name-forbidden"
        ),
        "tar, name: 300 characters, by pax": Bad(
            lambda: tar_with(pax(b"path=" + b"k" * 300), tar_member(b"x", b"")), "file-name-forbidden"
        ),
        "tar, key.pem twice": Bad(lambda: tar_with(tar_member(b"key.pem", b"")), "file-duplicated"),
        "tar, key.pem twice, by pax": Bad(
            lambda: tar_with(pax(b"path=./key.pem"), tar_member(b"x", b"")), "file-duplicated"
        ),
        "tar, key.pem and Key.pem": Bad(lambda: tar_with(tar_member(b"Key.pem", b"")), "file-duplicated"),
    }


def _compressed() -> dict[str, Bad]:
    whole = partial(bundles.tar_of, good())
    return {
        "tar.bz2": Bad(lambda: bz2.compress(whole()), "archive-unsupported"),
        "tar.xz": Bad(lambda: lzma.compress(whole()), "archive-unsupported"),
        "bzip2 bomb as tar": Bad(lambda: bz2.compress(bytes(4_000_000)), "archive-unsupported"),
        "gzip bomb": Bad(lambda: gzip.compress(bytes(4_000_000)), "bundle-too-large"),
        "gzip bomb with a tar in front": Bad(lambda: gzip.compress(whole() + bytes(2_000_000)), "bundle-too-large"),
        "gzip in gzip": Bad(lambda: gzip.compress(gzip.compress(whole())), "not-an-archive"),
        "gzip of a zip": Bad(lambda: gzip.compress(zip_of(good())), "not-an-archive"),
        "gzip of a key": Bad(lambda: gzip.compress(pki().client.key), "not-an-archive"),
        "gzip of nothing": Bad(lambda: gzip.compress(b""), "not-an-archive"),
        "gzip cut short": Bad(lambda: gzip.compress(whole())[:-20], "archive-damaged"),
        "gzip followed by junk": Bad(lambda: gzip.compress(whole()) + b"junk", "archive-damaged"),
        "two gzips in a row": Bad(lambda: gzip.compress(whole()) * 2, "archive-damaged"),
        "gzip with a wrong checksum": Bad(
            lambda: gzip.compress(whole())[:-8] + bytes(4) + gzip.compress(whole())[-4:], "archive-damaged"
        ),
        "gzip header alone": Bad(lambda: b"\x1f\x8b\x08\0\0\0\0\0\0\3", "archive-damaged"),
        "gzip with another method": Bad(lambda: b"\x1f\x8b\x07" + bytes(60), "archive-damaged"),
        "tar.gz, link": Bad(
            lambda: bundles.tar_of(good(), mode="w:gz") and gzip.compress(tar_with(tar_header(b"x", 0, b"2"))),
            "file-not-regular",
        ),
    }


def _layouts() -> dict[str, Bad]:
    def two() -> Files:
        return {**bundles.under("one", good()), **bundles.under("two", Pki.new().files)}

    return {
        "two bundles in two folders": Bad(lambda: zip_of(two()), "several-bundles"),
        "the same bundle in two folders": Bad(
            lambda: zip_of({**bundles.under("a", good()), **bundles.under("b", good())}), "several-bundles"
        ),
        "a backup folder with another key": Bad(
            lambda: zip_of({**good(), "backup/key.pem": key_pem(new_key())}), "several-bundles"
        ),
        "only a readme": Bad(lambda: zip_of({"README.md": bundles.README}), "key-missing"),
        "zip in a zip": Bad(lambda: zip_of({"bundle.zip": zip_of(good())}), "key-missing"),
        "Carina's Kubernetes variant": Bad(lambda: bundles.carina_kubernetes(pki()), "kubernetes-bundle", None),
        "only a kubeconfig": Bad(lambda: zip_of({"config": bundles.KUBE_YML}), "kubernetes-bundle", None),
        "no key": Bad(lambda: zip_of(good(key=None)), "key-missing"),
        "no certificate": Bad(lambda: zip_of(good(cert=None)), "certificate-missing"),
        "no CA": Bad(lambda: zip_of(good(ca=None)), "ca-missing"),
        "an empty key": Bad(lambda: zip_of(good(key=b"")), "key-missing"),
        "an empty certificate": Bad(lambda: zip_of(good(cert=b"")), "certificate-missing"),
        "an empty CA": Bad(lambda: zip_of(good(ca=b"")), "ca-missing"),
        "only the server's key": Bad(
            lambda: zip_of({**good(key=None), "server-key.pem": pki().server.key}), "key-missing"
        ),
        "only the CA's key": Bad(lambda: zip_of({**good(key=None), "ca-key.pem": pki().ca.key}), "key-missing"),
        "only Kubernetes' key": Bad(
            lambda: zip_of({**good(key=None), "tls/kubernetes/key.pem": pki().client.key}), "key-missing"
        ),
        "a key only in the readme": Bad(
            lambda: zip_of({**good(key=None), "README.md": pki().client.key}), "key-missing"
        ),
        "a public key as key.pem": Bad(lambda: zip_of(good(key=bundles.public_pem(pki().client))), "key-missing"),
        "a DER key": Bad(lambda: zip_of(good(key=der_of(pki().client.key))), "key-missing"),
        "a PuTTY key": Bad(lambda: zip_of(good(key=b"PuTTY-User-Key-File-3: ssh-rsa\n")), "key-missing"),
        "an exported context without TLS": Bad(
            lambda: bundles.tar_of({"meta.json": bundles.context_meta("tcp://192.0.2.1:2376")}), "key-missing", None
        ),
    }


def _endpoints() -> dict[str, Bad]:
    def env(text: str) -> bytes:
        return zip_of({**good(), "docker.env": text})

    def context(text: str) -> bytes:
        return zip_of({**good(), "meta.json": text})

    def machine(driver: Mapping[str, object]) -> bytes:
        return zip_of({**good(), "config.json": json.dumps({"Driver": driver})})

    one, two = "DOCKER_HOST=tcp://192.0.2.1:2376\n", "DOCKER_HOST=tcp://192.0.2.2:2376\n"
    return {
        "no endpoint": Bad(lambda: zip_of(good()), "endpoint-missing", None),
        "no endpoint, blank host field": Bad(lambda: zip_of(good()), "endpoint-missing", "  "),
        "empty DOCKER_HOST": Bad(lambda: env("export DOCKER_HOST=\nset DOCKER_HOST=''\n"), "endpoint-missing", None),
        "a context without an address": Bad(lambda: context('{"Endpoints":{"docker":{}}}'), "endpoint-missing", None),
        "a context of Kubernetes only": Bad(
            lambda: context('{"Endpoints":{"kubernetes":{}}}'), "endpoint-missing", None
        ),
        "docker's own config.json": Bad(
            lambda: zip_of({**good(), "config.json": '{"auths":{}}'}), "endpoint-missing", None
        ),
        "a machine without an address": Bad(lambda: machine({"IPAddress": ""}), "endpoint-missing", None),
        "two endpoints in one file": Bad(lambda: env(one + two), "endpoints-disagree", None),
        "two endpoints in two files": Bad(lambda: zip_of({**good(), "a": one, "b": two}), "endpoints-disagree", None),
        "two ports": Bad(lambda: env(one + "DOCKER_HOST=tcp://192.0.2.1:2377\n"), "endpoints-disagree", None),
        "environment and context disagree": Bad(
            lambda: bundles.ucp(pki(), context_endpoint="tcp://192.0.2.1:443"), "endpoints-disagree", None
        ),
        "machine and environment disagree": Bad(
            lambda: zip_of({**good(), "e": one, "config.json": '{"Driver":{"IPAddress":"192.0.2.9"}}'}),
            "endpoints-disagree",
            None,
        ),
        "host field and bundle disagree": Bad(lambda: env(one), "endpoints-disagree", "192.0.2.2"),
        "a variable": Bad(lambda: env("export DOCKER_HOST=tcp://$IP:2376"), "endpoint-not-literal"),
        "a command": Bad(lambda: env('export DOCKER_HOST="$(cat /etc/passwd)"'), "endpoint-not-literal"),
        "a command in back quotes": Bad(lambda: env("export DOCKER_HOST=tcp://`id`:2376"), "endpoint-not-literal"),
        "a variable of cmd": Bad(lambda: env("set DOCKER_HOST=tcp://%IP%:2376"), "endpoint-not-literal"),
        "a folder variable": Bad(lambda: env("DOCKER_HOST=$DIR"), "endpoint-not-literal"),
        "an ssh context": Bad(
            lambda: bundles.tar_of({"meta.json": bundles.context_meta("ssh://me@h")}), "endpoint-scheme-ssh"
        ),
        "a unix socket": Bad(lambda: env("DOCKER_HOST=unix:///var/run/docker.sock"), "endpoint-scheme-unix"),
        "a named pipe of Windows": Bad(lambda: env("DOCKER_HOST=npipe:////./pipe/docker"), "endpoint-scheme-npipe"),
        "fd": Bad(lambda: env("DOCKER_HOST=fd://"), "endpoint-scheme-fd"),
        "http": Bad(lambda: env("DOCKER_HOST=http://192.0.2.1:2375"), "endpoint-scheme-http"),
        "ssh in the host field": Bad(lambda: zip_of(good()), "endpoint-scheme-ssh", "ssh://me@h"),
        "a broken context": Bad(lambda: context('{"Endpoints": {"docker":'), "context-unreadable"),
        "a context nested 8,000 deep": Bad(lambda: context('{"a":' + "[" * 8000), "context-unreadable"),
        "a context with a number for an address": Bad(
            lambda: context('{"Endpoints":{"docker":{"Host":1}}}'), "context-unreadable"
        ),
        "a context with a list for docker": Bad(lambda: context('{"Endpoints":{"docker":[]}}'), "context-unreadable"),
        "a number of 15,000 digits": Bad(lambda: context('{"a":' + "9" * 15000 + "}"), "context-unreadable"),
        "a broken machine": Bad(lambda: zip_of({**good(), "config.json": "{"}), "context-unreadable"),
        "a machine with a number for an address": Bad(lambda: machine({"IPAddress": 1}), "context-unreadable"),
    }


def _pems() -> dict[str, Bad]:
    def key() -> bytes:
        return pki().client.key

    def cert() -> bytes:
        return pki().client.certificate

    def edit(**changes: bytes) -> bytes:
        return zip_of(good(**changes))

    return {
        "key without its END line": Bad(lambda: edit(key=key()[:-30]), "pem-damaged"),
        "key without its BEGIN line": Bad(lambda: edit(key=b"\n".join(key().splitlines()[1:])), "key-missing"),
        "key with another END line": Bad(
            lambda: edit(key=key().replace(b"END PRIVATE", b"END EC PRIVATE")), "pem-damaged"
        ),
        "key with END before BEGIN": Bad(
            lambda: edit(key=b"-----END PRIVATE KEY-----\n-----BEGIN PRIVATE KEY-----\n"), "pem-damaged"
        ),
        "key with a letter that is not base64": Bad(lambda: edit(key=key().replace(b"\nM", b"\n*M", 1)), "pem-damaged"),
        "key with a letter missing": Bad(lambda: edit(key=key().replace(b"\nM", b"\n", 1)), "pem-damaged"),
        "key with padding in the middle": Bad(lambda: edit(key=key().replace(b"\nMI", b"\nM==I", 1)), "pem-damaged"),
        "key with a NUL in it": Bad(lambda: edit(key=key().replace(b"\nMI", b"\nM\0I", 1)), "pem-damaged"),
        "BEGIN in a BEGIN": Bad(
            lambda: edit(key=b"-----BEGIN PRIVATE KEY-----\n-----BEGIN PRIVATE KEY-----\n" + key()), "pem-damaged"
        ),
        "certificate without its END line": Bad(lambda: edit(cert=cert()[:-26]), "pem-damaged"),
        "certificate cut in the middle": Bad(lambda: edit(cert=cert()[:200]), "pem-damaged"),
        "CA with text in its base64": Bad(
            lambda: edit(ca=pki().ca.certificate.replace(b"\nM", b"\nhello, world!\nM", 1)), "pem-damaged"
        ),
        "a label in small letters": Bad(
            lambda: edit(cert=cert().replace(b"CERTIFICATE", b"certificate")), "pem-damaged"
        ),
        "an empty block": Bad(
            lambda: edit(key=b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), "key-unreadable"
        ),
        "an empty certificate block": Bad(
            lambda: edit(cert=b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), "certificate-unreadable"
        ),
        "1,000 BEGIN lines": Bad(lambda: edit(key=b"-----BEGIN PRIVATE KEY-----" * 500), "pem-damaged"),
        "UTF-16 cut in a character": Bad(lambda: edit(key=key().decode().encode("utf-16")[:-1]), "key-missing"),
    }


def _keys() -> dict[str, Bad]:
    leaf = rsa_leaf
    m607, m521, m1279 = 2**607 - 1, 2**521 - 1, 2**1279 - 1

    def only(key: bytes) -> bytes:
        return zip_of(good(key=key))

    def mine(kind: str) -> bytes:
        return with_leaf(pki().ca.issue("v", client=True, key=shared_key(kind)))

    def forged(key: bytes) -> bytes:
        return zip_of(good(cert=leaf().certificate, key=key))

    def ecdsa() -> bytes:
        return der_of(pki().client.key)

    return {
        "another key": Bad(lambda: only(key_pem(new_key())), "key-mismatch"),
        "the server's key": Bad(lambda: only(pki().server.key), "key-mismatch"),
        "an RSA key for an EC certificate": Bad(lambda: only(leaf().key), "key-mismatch"),
        "an EC key for an RSA certificate": Bad(lambda: forged(pki().client.key), "key-mismatch"),
        "an EC key of another curve": Bad(lambda: only(key_pem(new_key("p384"))), "key-mismatch"),
        "two keys in one file": Bad(lambda: only(pki().client.key + key_pem(new_key())), "several-keys"),
        "two keys in two files": Bad(lambda: zip_of({**good(), "user-key.pem": key_pem(new_key())}), "several-keys"),
        "another key in tls/docker": Bad(
            lambda: zip_of({**good(), "tls/docker/key.pem": key_pem(new_key())}), "several-keys"
        ),
        "encrypted PKCS #8 key": Bad(lambda: only(key_pem(new_key(), password=b"secret")), "key-encrypted"),
        "encrypted traditional key": Bad(
            lambda: only(key_pem(shared_key("rsa2048"), form="traditional", password=b"secret")), "key-encrypted"
        ),
        "encrypted key in the wrong block": Bad(
            lambda: only(pem("PRIVATE KEY", der_of(key_pem(new_key(), password=b"secret")))), "key-unreadable"
        ),
        "OpenSSH key": Bad(lambda: only(_openssh()), "ssh-key"),
        "RSA of 610 bits": Bad(lambda: mine("rsa610"), "key-size"),
        "RSA of 1024 bits": Bad(lambda: mine("rsa1024"), "key-size"),
        "RSA of 1886 bits": Bad(lambda: mine("rsa1886"), "key-size"),
        "RSA of 4484 bits": Bad(lambda: mine("rsa4484"), "key-size"),
        "RSA with a key of 5 KiB": Bad(lambda: only(leaf().key.replace(b"\n", b"\n" * 150)), "key-too-large"),
        "RSA of 16,000 bits": Bad(lambda: only(rsa_private(3, 5, 2**16000 + 1, 2**16000)), "key-too-large"),
        "RSA that claims another's modulus": Bad(lambda: forged(forged_key(leaf())), "key-unreadable"),
        "RSA that claims another's modulus, q = 1, d = e = 1": Bad(
            lambda: forged(forged_key(leaf(), e=1)), "key-unreadable"
        ),
        "RSA with an even modulus": Bad(lambda: forged(rsa_private(2**1100, 2**1000, 2**2100, 3)), "key-unreadable"),
        "RSA with p equal to q": Bad(lambda: forged(rsa_private(m1279, m1279, m1279**2, 3)), "key-unreadable"),
        "RSA with a wrong d": Bad(
            lambda: forged(rsa_private(m1279, 2**2203 - 1, m1279 * (2**2203 - 1), 3)), "key-unreadable"
        ),
        "RSA with three primes' modulus": Bad(
            lambda: forged(rsa_private(m1279, m607 * m521, m1279 * m607 * m521, 65537)), "key-unreadable"
        ),
        "RSA with numbers of zero": Bad(lambda: forged(rsa_private(1, 1, 0, 0)), "key-size"),
        "EC that claims another's point": Bad(lambda: only(forged_ec_key()), "key-unreadable"),
        "EC on P-224": Bad(lambda: mine("p224"), "key-curve"),
        "EC on secp256k1": Bad(lambda: mine("k256"), "key-curve"),
        "EC on a Brainpool curve": Bad(lambda: mine("brainpool"), "key-curve"),
        "EC with a spelled-out curve": Bad(lambda: only(explicit_curve_key()), "key-curve"),
        "EC with secret 0": Bad(lambda: only(_ec_secret(0)), "key-unreadable"),
        "EC with a secret beyond the order": Bad(lambda: only(_ec_secret(2**256 - 1)), "key-unreadable"),
        "EC cut short": Bad(lambda: only(pem("PRIVATE KEY", ecdsa()[:-10])), "key-unreadable"),
        "EC followed by junk": Bad(lambda: only(pem("PRIVATE KEY", ecdsa() + b"junk")), "key-unreadable"),
        "DSA": Bad(lambda: only(pkcs8(_dsa())), "key-type"),
        "DSA in the old form": Bad(lambda: only(pem("DSA PRIVATE KEY", bytes(50))), "key-type"),
        "DSA in an RSA block": Bad(lambda: only(_old_dsa("RSA PRIVATE KEY")), "key-type"),
        "DSA in an EC block": Bad(lambda: only(_old_dsa("EC PRIVATE KEY")), "key-unreadable"),
        "Diffie-Hellman of 9,689 bits": Bad(lambda: only(_diffie_hellman("PRIVATE KEY")), "key-type"),
        "Diffie-Hellman in an RSA block": Bad(lambda: only(_diffie_hellman("RSA PRIVATE KEY")), "key-unreadable"),
        "Diffie-Hellman in an EC block": Bad(lambda: only(_diffie_hellman("EC PRIVATE KEY")), "key-unreadable"),
        "X25519": Bad(lambda: only(pkcs8(x25519.X25519PrivateKey.generate())), "key-type"),
        "Ed448": Bad(lambda: only(pkcs8(ed448.Ed448PrivateKey.generate())), "key-type"),
        "a key that is noise": Bad(lambda: only(pem("PRIVATE KEY", bytes(range(200)))), "key-unreadable"),
        "a key that is a certificate": Bad(
            lambda: only(pem("PRIVATE KEY", der_of(pki().client.certificate))), "key-unreadable"
        ),
        "a key nested 2,000 deep": Bad(lambda: only(pem("PRIVATE KEY", b"\x30\x80" * 1000)), "key-unreadable"),
        "a key of unknown label": Bad(lambda: only(pem("SECRET PRIVATE KEY", bytes(50))), "key-type"),
    }


def _openssh() -> bytes:
    key = new_key("ed25519")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


@lru_cache
def _dsa() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(1024)


def _old_dsa(label: str) -> bytes:
    return pem(label, tlv(0x30, *(integer(number) for number in (0, 2**9689 - 1, 2**521 - 1, 2, 12345, 2**500))))


def _diffie_hellman(label: str) -> bytes:
    """A prime that OpenSSL would test for half a minute (PKCS #3 in PKCS #8)."""
    parameters = tlv(0x30, integer(2**9689 - 1), integer(2))
    algorithm = tlv(0x30, bytes.fromhex("06092a864886f70d010301"), parameters)
    return pem(label, tlv(0x30, integer(0), algorithm, tlv(4, integer(5))))


def _ec_secret(value: int) -> bytes:
    curve = tlv(0xA0, bytes.fromhex("06082a8648ce3d030107"))
    return pem("EC PRIVATE KEY", tlv(0x30, integer(1), tlv(4, value.to_bytes(32, "big")), curve))


def _certificates() -> dict[str, Bad]:
    client_auth = bytes.fromhex("06082b06010505070302")

    def ca() -> Ca:
        return pki().ca

    def cert(data: bytes) -> bytes:
        return zip_of(good(cert=data))

    def mine() -> bytes:
        return pki().client.certificate

    def der() -> bytes:
        return der_of(mine())

    return {
        "expired": Bad(lambda: _window(*LONG_AGO), "certificate-expired"),
        "expired a second ago": Bad(lambda: _window(instant(2020), NOW - 1), "certificate-expired"),
        "valid in 20 years": Bad(lambda: _window(*FAR_AHEAD), "certificate-not-yet-valid"),
        "valid in ten minutes": Bad(lambda: _window(NOW + 600, instant(2040)), "certificate-not-yet-valid"),
        "valid never": Bad(lambda: edited_certificate(b"200101000000Z", b"480101000000Z"), "certificate-not-yet-valid"),
        "a server's certificate": Bad(lambda: with_leaf(ca().issue("s", server=True)), "certificate-not-for-clients"),
        "for e-mail only": Bad(
            lambda: edited_certificate(client_auth, client_auth[:-1] + b"\4"), "certificate-not-for-clients"
        ),
        "a CA as client": Bad(lambda: with_leaf(ca().issue("a", ca=True)), "client-certificate-is-ca"),
        "the CA itself as client": Bad(
            lambda: zip_of(good(cert=ca().certificate, key=ca().key)), "client-certificate-is-ca"
        ),
        "the CA's certificate, the client's key": Bad(lambda: cert(ca().certificate), "client-certificate-is-ca"),
        "two client certificates": Bad(lambda: cert(mine() + pki().server.certificate), "several-certificates"),
        "two certificates of one key": Bad(_two_of_one_key, "several-certificates"),
        "17 certificates": Bad(
            lambda: cert(b"".join(ca().issue(str(i)).certificate for i in range(17))), "too-many-certificates"
        ),
        "30 CAs": Bad(
            lambda: zip_of(good(ca=b"".join(Ca.new(str(i)).certificate for i in range(25)))),
            "too-many-certificates",
        ),
        "signed with MD5": Bad(lambda: weakly_signed(4), "certificate-weak-signature"),
        "signed with SHA-1": Bad(lambda: weakly_signed(5), "certificate-weak-signature"),
        "cut short": Bad(lambda: cert(pem("CERTIFICATE", der()[:-9])), "certificate-unreadable"),
        "followed by junk": Bad(lambda: cert(pem("CERTIFICATE", der() + b"junk")), "certificate-unreadable"),
        "serial number 0": Bad(_serial_zero, "certificate-unreadable"),
        "noise": Bad(lambda: cert(pem("CERTIFICATE", bytes(range(250)))), "certificate-unreadable"),
        "nested 2,000 deep": Bad(lambda: cert(pem("CERTIFICATE", b"\x30\x80" * 2000)), "certificate-unreadable"),
        "length of 4 GiB": Bad(lambda: cert(pem("CERTIFICATE", b"\x30\x84\xff\xff\xff\xff")), "certificate-unreadable"),
        "a certificate request": Bad(
            lambda: cert(mine().replace(b"CERTIFICATE", b"CERTIFICATE REQUEST")), "certificate-missing"
        ),
        "a certificate that is a key": Bad(
            lambda: cert(pem("CERTIFICATE", der_of(pki().client.key))), "certificate-unreadable"
        ),
        "damaged use": Bad(
            lambda: edited_certificate(b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x13"), "certificate-unreadable"
        ),
        "altered name": Bad(lambda: edited_certificate(b"visitor", b"sisitor"), "ca-mismatch"),
        "altered signature": Bad(lambda: cert(pem("CERTIFICATE", der()[:-1] + bytes([der()[-1] ^ 1]))), "ca-mismatch"),
        "a certificate in DER": Bad(lambda: cert(der()), "certificate-missing"),
    }


def _serial_zero() -> bytes:
    der = der_of(pki().client.certificate)
    at = der.index(bytes.fromhex("a003020102")) + 5  # after the version
    length = der[at + 1]
    return zip_of(good(cert=pem("CERTIFICATE", der[: at + 2] + bytes(length - 1) + b"\0" + der[at + 2 + length :])))


def _window(not_before: float, not_after: float) -> bytes:
    return with_leaf(pki().ca.issue("v", client=True, not_before=not_before, not_after=not_after))


def _two_of_one_key() -> bytes:
    key = new_key()
    leaves = [pki().ca.issue(name, client=True, key=key) for name in ("old", "new")]
    return zip_of(good(cert=b"".join(leaf.certificate for leaf in leaves), key=key_pem(key)))


def _cas() -> dict[str, Bad]:
    def ca(data: bytes) -> bytes:
        return zip_of(good(ca=data))

    def under(issuer: Ca) -> bytes:
        return with_leaf(issuer.issue("v", client=True), issuer)

    return {
        "another CA": Bad(lambda: ca(Ca.new("Other").certificate), "ca-mismatch"),
        "another CA of the same name": Bad(lambda: ca(Ca.new("Cluster CA").certificate), "ca-mismatch"),
        "the server's certificate as CA": Bad(lambda: ca(pki().server.certificate), "ca-mismatch"),
        "says another issued it": Bad(
            lambda: with_leaf(pki().ca.issue("v", client=True, issuer_name="Other")), "ca-mismatch"
        ),
        "self-signed client": Bad(_self_signed, "ca-mismatch"),
        "the intermediate is missing": Bad(
            lambda: with_leaf(pki().ca.intermediate().issue("v", client=True)), "ca-mismatch"
        ),
        "a chain of six": Bad(_long_chain, "ca-mismatch"),
        "an expired intermediate": Bad(_expired_intermediate, "ca-mismatch"),
        "15 intermediates and 16 CAs of two names": Bad(_maze, "ca-mismatch"),
        "an intermediate that is no CA": Bad(_leaf_as_issuer, "several-certificates"),
        "a CA that is none": Bad(_ca_that_is_none, "not-a-ca"),
        "an expired CA": Bad(lambda: under(Ca.new("Old", not_before=LONG_AGO[0], not_after=LONG_AGO[1])), "ca-expired"),
        "a CA of the future": Bad(
            lambda: under(Ca.new("New", not_before=FAR_AHEAD[0], not_after=FAR_AHEAD[1])), "ca-expired"
        ),
        "a CA of 1024 bits": Bad(lambda: under(Ca.new("Small", key=shared_key("rsa1024"))), "key-size"),
        "a CA on secp256k1": Bad(lambda: under(Ca.new("Odd", key="k256")), "key-curve"),
        "a CA that is noise": Bad(lambda: ca(pem("CERTIFICATE", bytes(99))), "certificate-unreadable"),
        "a CA that is a key": Bad(lambda: ca(pki().ca.key), "ca-missing"),
        "an intermediate signed with SHA-1": Bad(_weak_intermediate, "certificate-weak-signature"),
    }


def _self_signed() -> bytes:
    key = new_key()
    lone = Ca.new("lone", key=key).issue("lone", client=True, key=key)
    return with_leaf(lone)


def _long_chain() -> bytes:
    ca = Ca.new("0")
    chain = [ca]
    for i in range(1, 6):
        chain.append(chain[-1].intermediate(str(i)))
    leaf = chain[-1].issue("v", client=True)
    certificates = leaf.certificate + b"".join(step.certificate for step in chain[1:])
    return zip_of({"cert.pem": certificates, "key.pem": leaf.key, "ca.pem": ca.certificate})


def _expired_intermediate() -> bytes:
    middle = pki().ca.issue("middle", ca=True, not_before=LONG_AGO[0], not_after=LONG_AGO[1])
    leaf = Ca(middle.certificate, middle.key).issue("v", client=True)
    return zip_of(good(cert=leaf.certificate + middle.certificate, key=leaf.key))


def _maze() -> bytes:
    """Every intermediate signed the leaf, and every CA has the name of their issuer."""
    top = Ca.new("top", key=shared_key("p521"))
    middles = [top.issue("middle", ca=True, key=shared_key("p521", 1)) for _ in range(15)]
    leaf = Ca(middles[0].certificate, middles[0].key).issue("v", client=True)
    cas = [Ca.new("top", key="p521").certificate for _ in range(16)]
    certificates = leaf.certificate + b"".join(middle.certificate for middle in middles)
    return zip_of({"cert.pem": certificates, "key.pem": leaf.key, "ca.pem": b"".join(cas)})


def _leaf_as_issuer() -> bytes:
    middle = pki().ca.issue("middle")
    leaf = Ca(middle.certificate, middle.key).issue("v", client=True)
    return zip_of(good(cert=leaf.certificate + middle.certificate, key=leaf.key))


def _ca_that_is_none() -> bytes:
    ca = Ca.new("None", ca=False)
    return with_leaf(ca.issue("v", client=True), ca)


def _weak_intermediate() -> bytes:
    root = Ca.new("Root", key=shared_key("rsa2048"))
    middle = root.intermediate("Middle")
    leaf = middle.issue("v", client=True)
    files = {"cert.pem": leaf.certificate + resigned(middle.certificate, 5), "key.pem": leaf.key}
    return zip_of({**files, "ca.pem": root.certificate})
