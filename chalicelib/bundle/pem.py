"""PEM as people have it: the BEGIN…END blocks of a text file, whatever stands around them.

RFC 7468 and RFC 1421; what PowerShell writes (UTF-16) and files with headers inside a block are read, too. A block is
not parsed here: private_key.py and certificate.py do that.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from chalicelib.bundle import errors
from chalicelib.bundle.files import File, shown

CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_MARK: Final = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]{1,40})-----")
_ENCAPSULATED_HEADER: Final = re.compile(r"^[A-Za-z0-9-]+:.*(?:\n[ \t].*)*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One BEGIN…END block of a PEM file; `size` counts its characters, `encrypted` is what its header says."""

    label: str
    path: str
    size: int
    encrypted: bool
    der: bytes = field(repr=False)


def text_of(data: bytes) -> str:
    """Decode a text file: UTF-8, UTF-16 when it says so (PowerShell's `>`), or one byte for each character."""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def is_pem(text: str) -> bool:
    """Tell whether a text has PEM blocks."""
    return "-----BEGIN " in text


def blocks(file: File) -> tuple[Block, ...]:
    """Read a file's PEM blocks (RFC 7468, RFC 1421); text around them is passed over; raises PemDamaged."""
    text = text_of(file.data).replace("\r\n", "\n").replace("\r", "\n")
    marks = list(_MARK.finditer(text))
    found = []
    for begin, end in zip(marks[::2], marks[1::2], strict=False):
        if (begin[1], end[1], begin[2]) != ("BEGIN", "END", end[2]):
            raise _pem_damaged(file.path)
        found.append(_block(begin[2], file.path, text[begin.end() : end.start()]))
    if len(marks) % 2 or text.count("-----BEGIN ") != len(found):
        raise _pem_damaged(file.path)
    return tuple(found)


def _block(label: str, path: str, inside: str) -> Block:
    encrypted = "ENCRYPTED" in label or re.search(r"^Proc-Type:.*ENCRYPTED", inside, re.MULTILINE) is not None
    encoded = "".join(_ENCAPSULATED_HEADER.sub("", inside).split())
    try:
        der = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _pem_damaged(path) from None
    return Block(label, path, len(inside) + 2 * len(label) + 32, encrypted, der)


def _pem_damaged(path: str) -> errors.PemDamaged:
    return errors.PemDamaged(
        f"In the bundle, {shown(path)} is a damaged PEM file: a BEGIN or END line is missing, or the text between "
        "them is not base64. Get the file again from where you got the bundle"
    )


def is_private(block: Block) -> bool:
    """Tell whether a block holds a private key, of whatever kind."""
    return block.label.endswith("PRIVATE KEY")


def is_relevant(block: Block, private: bool) -> bool:
    """Tell whether a block is a private key, or a certificate, whichever is asked for."""
    return is_private(block) if private else block.label in CERTIFICATE_LABELS
