"""The stored form of one visitor's credentials: sealed with a data key, bound to one session.

    offset  size  field
    0       1     version, 1
    1       2     n, the length of the wrapped data key, big-endian, at least 1
    3       n     the data key as KMS wrapped it (CiphertextBlob of GenerateDataKey)
    3+n     12    nonce
    15+n    …     AES-256-GCM ciphertext, its last 16 bytes the tag

Rules:

1. The additional authenticated data is the header (everything before the ciphertext) followed by the canonical context,
   so that no bit of an envelope can change and no envelope opens under another session's identity.
2. The canonical context is the number of entries, then each key and value in the order of the keys' UTF-8 bytes, every
   number and length a big-endian u32: different contexts never encode alike.
3. The same context is the encryption context of the wrapped key, so KMS refuses a swap before this module does.
4. A data key seals one envelope and is forgotten; with that, a random 96-bit nonce cannot repeat under a key
   (NIST SP 800-38D §8.3).
5. Whatever is wrong with an envelope, the answer is the same BadEnvelope: it says nothing about key or content.
6. A new format gets a new version; a reader refuses every version it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.errors import BadEnvelope

VERSION: Final = 1
DATA_KEY_BYTES: Final = 32  # AES-256
NONCE_BYTES: Final = 12  # the size GCM uses unhashed
TAG_BYTES: Final = 16
LARGEST_WRAPPED_KEY: Final = 6144  # bytes; KMS's limit for a CiphertextBlob
LARGEST_PLAINTEXT: Final = 64 * 1024  # bytes; no upload is larger
LARGEST_ENVELOPE: Final = 3 + LARGEST_WRAPPED_KEY + NONCE_BYTES + LARGEST_PLAINTEXT + TAG_BYTES

_PREFIX: Final = struct.Struct(">BH")
_U32: Final = struct.Struct(">I")


def seal(plaintext: bytes, context: Mapping[str, str], *, data_key: bytes, wrapped_key: bytes, nonce: bytes) -> bytes:
    """Seal `plaintext` for `context`. `data_key` is 32 bytes, `nonce` 12 random ones; raises ValueError on misuse."""
    if len(data_key) != DATA_KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError("a data key has 32 bytes and a nonce 12")
    if not 0 < len(wrapped_key) <= LARGEST_WRAPPED_KEY or len(plaintext) > LARGEST_PLAINTEXT:
        raise ValueError("the wrapped key is empty or too large, or the plaintext is too large")
    header = _PREFIX.pack(VERSION, len(wrapped_key)) + wrapped_key + nonce
    return header + AESGCM(data_key).encrypt(nonce, plaintext, header + _canonical(context))


def wrapped_key(envelope: bytes) -> bytes:
    """Cut out the wrapped data key, for KMS to decrypt; raises BadEnvelope."""
    return envelope[_PREFIX.size : _header_size(envelope) - NONCE_BYTES]


def open_(envelope: bytes, context: Mapping[str, str], *, data_key: bytes) -> bytes:
    """Open an envelope that was sealed for `context` with `data_key`; raises BadEnvelope."""
    size = _header_size(envelope)
    if len(data_key) != DATA_KEY_BYTES:
        raise BadEnvelope("The stored credentials' data key has the wrong size")
    header, ciphertext = envelope[:size], envelope[size:]
    try:
        return AESGCM(data_key).decrypt(header[-NONCE_BYTES:], ciphertext, header + _canonical(context))
    except InvalidTag:
        raise BadEnvelope("The stored credentials were altered, or belong to another session") from None


def _header_size(envelope: bytes) -> int:
    if len(envelope) < _PREFIX.size:
        raise BadEnvelope("The stored credentials are cut off")
    version, length = _PREFIX.unpack_from(envelope)
    if version != VERSION:
        raise BadEnvelope(f"The stored credentials have version {version}, which this hub does not know")
    size = int(_PREFIX.size + length + NONCE_BYTES)
    if not 0 < length <= LARGEST_WRAPPED_KEY or not size + TAG_BYTES <= len(envelope) <= LARGEST_ENVELOPE:
        raise BadEnvelope("The stored credentials are cut off or too large")
    return size


def _canonical(context: Mapping[str, str]) -> bytes:
    """Encode a context so that equal contexts, and only they, give equal bytes (rule 2)."""
    entries = sorted((key.encode(), value.encode()) for key, value in context.items())
    return _U32.pack(len(entries)) + b"".join(_U32.pack(len(part)) + part for entry in entries for part in entry)
