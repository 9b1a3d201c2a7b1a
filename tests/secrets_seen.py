"""Looks for secrets: `Secrets` in what an error shows and all it is chained to, `Canary` in any bytes at all."""

from __future__ import annotations

import base64
import io
import struct
import traceback
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519

TESTS: Final = Path(__file__).parent
WINDOW = 12  # characters; shorter pieces of base64 or hex are in any text by chance


@dataclass(frozen=True, slots=True)
class Secrets:
    """Key material in every spelling that might be shown."""

    spellings: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, *pems: bytes) -> Secrets:
        """Take private keys as PEM."""
        spellings = []
        for pem in pems:
            body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))
            der = base64.b64decode(body)
            spellings += [pem.decode(), body.decode(), der.hex(), der.hex().upper(), repr(der), der.decode("latin-1")]
        return cls(tuple(spellings))

    def assert_not_in(self, error: BaseException) -> None:
        """Check an error and all it is chained to."""
        assert error.__cause__ is None
        assert error.__context__ is None
        self.assert_not_in_text(f"{error!r}\n{error.args!r}\n{vars(error)!r}")
        self.assert_not_in_text("".join(traceback.format_exception_only(error)))

    def assert_not_in_text(self, text: str) -> None:
        """Check that no piece of a secret stands in a text."""
        pieces = {text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)}
        for spelling in self.spellings:
            for piece in pieces:
                assert piece not in spelling or piece.strip("-") in "-----BEGIN PRIVATE KEY-----", "a secret is shown"


# ── anything at all ──────────────────────────────────────────────────────────────────────────────────────────────

# How long a piece of each spelling must be to be no chance, in characters of that spelling. Pieces overlap by half, so
# whatever shows one and a half times as much in a row is found, wherever it begins.
PIECES: Final[Mapping[str, int]] = {
    "as it is": 8,
    "backwards": 8,
    "base64": 12,
    "base64url": 12,
    "base64 in UTF-16": 24,
    "base64 in an address": 18,
    "hex": 16,
    "HEX": 16,
    "hex with colons": 24,
    "HEX with colons": 24,
    "escaped": 32,
    "repr": 32,
    "numbers of bytes": 32,
    "decimal": 18,
}
Spellings = Iterator[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Canary:
    """The secret parts of private keys, to be looked for in bytes of any origin.

    Looked for are the secret numbers alone (private scalar, primes, exponents), in each of PIECES' spellings, so every
    encoding that holds them is found: PEM, DER, PKCS #8, the traditional forms, a JWK. And what encodes them once more:
    the secret lines of the PEM file, and `packed`, other bytes that say the same, such as a zip's compressed member.
    """

    pieces: tuple[tuple[str, bytes], ...] = field(repr=False)

    @classmethod
    def of(cls, *pems: bytes, packed: Iterable[bytes] = ()) -> Canary:
        """Take private keys as PEM, and other bytes as secret as they."""
        found: dict[bytes, str] = {}
        for pem in pems:
            for number in secret_numbers(pem):
                found |= {piece: f"{said} of a secret number" for said, piece in _pieces(number)}
                decimal = str(int.from_bytes(number)).encode()
                found |= dict.fromkeys(_cut(decimal, PIECES["decimal"]), "a secret number in decimal")
            for text in _secret_lines(pem):
                found |= {piece: f"{said} of the PEM file" for said, piece in _pieces(text) if said != "as it is"}
                found |= dict.fromkeys(_cut(text, PIECES["base64"]), "the PEM file")
        for data in packed:
            found |= {piece: f"{said} of what is packed" for said, piece in _pieces(data)}
        return cls(tuple((said, piece) for piece, said in found.items()))

    def seen_in(self, *evidence: bytes | str) -> set[str]:
        """Give the spellings that are seen; empty when there is no secret."""
        data = b"\0\0".join(
            shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown for shown in evidence
        )
        return {said for said, piece in self.pieces if piece in data}

    def places(self, evidence: Mapping[str, bytes]) -> dict[str, set[str]]:
        """Give where in the evidence a secret is seen, and in which spellings."""
        if not self.seen_in(*evidence.values()):
            return {}
        found = {place: self.seen_in(data) for place, data in evidence.items()}
        return {place: spellings for place, spellings in found.items() if spellings}


def secret_numbers(pem: bytes) -> list[bytes]:
    """The numbers of a private key that its public key does not tell, each as big-endian bytes."""
    key = serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    match key:
        case rsa.RSAPrivateKey():
            n = key.private_numbers()
            numbers = [n.p, n.q, n.d, n.dmp1, n.dmq1, n.iqmp]
        case ec.EllipticCurvePrivateKey():
            numbers = [key.private_numbers().private_value]
        case ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey() | x25519.X25519PrivateKey():
            return [key.private_bytes_raw()]
        case dsa.DSAPrivateKey():
            numbers = [key.private_numbers().x]
        case _:
            raise TypeError(f"no secret is known of a {type(key).__name__}")
    return [number.to_bytes((number.bit_length() + 7) // 8) for number in numbers]


def spellings(secret: bytes) -> Spellings:
    """Spell bytes in all the ways that programs show bytes."""
    for skipped in range(3):  # which of three bytes base64 began with
        text = base64.b64encode(secret[skipped : skipped + (len(secret) - skipped) // 3 * 3])
        yield "base64", text
        yield "base64url", text.translate(bytes.maketrans(b"+/", b"-_"))
        yield "base64 in UTF-16", text.decode().encode("utf-16-le")
        yield "base64 in an address", quote(text, safe="").encode()
    yield "as it is", secret
    yield "backwards", secret[::-1]
    yield "hex", secret.hex().encode()
    yield "HEX", secret.hex().upper().encode()
    yield "hex with colons", secret.hex(":").encode()
    yield "HEX with colons", secret.hex(":").upper().encode()
    yield "escaped", "".join(f"\\x{byte:02x}" for byte in secret).encode()
    yield "repr", repr(secret)[2:-1].encode()
    yield "numbers of bytes", ", ".join(map(str, secret)).encode()
    yield "numbers of bytes", ",".join(map(str, secret)).encode()


def _pieces(secret: bytes) -> Spellings:
    for said, spelt in spellings(secret):
        for piece in _cut(spelt, PIECES[said]):
            yield said, piece


def _cut(spelt: bytes, length: int) -> Iterator[bytes]:
    """Cut into overlapping pieces; those of a few values only (zeros, a row of ones) tell nothing and are left out."""
    for begin in range(0, len(spelt) - length + 1, length // 2):
        piece = spelt[begin : begin + length]
        if len(set(piece)) > 4:
            yield piece


def _secret_lines(pem: bytes) -> Iterator[bytes]:
    """The lines of a PEM file, as far as they spell a secret number: all else is public, or the same in every key."""
    lines = [line for line in pem.splitlines() if line and not line.startswith(b"-----")]
    der = base64.b64decode(b"".join(lines))
    secret = set()
    for number in secret_numbers(pem):
        begin = der.find(number)
        secret |= {bit // 6 for bit in range(8 * begin, 8 * (begin + len(number)))} if begin >= 0 else set()
    at = 0
    for line in lines:
        inside = [index for index in range(len(line)) if at + index in secret]
        at += len(line)
        if inside:
            yield line[inside[0] : inside[-1] + 1]


def canary_of_bundle(bundle: bytes, member: str = "key.pem") -> Canary:
    """The canary of a zip: its key, in the spellings of `Canary`, and the compressed bytes of that member."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        found = next(info for info in archive.infolist() if info.filename.rpartition("/")[2] == member)
        pem = archive.read(found)
    name, extra = struct.unpack_from("<2H", bundle, found.header_offset + 26)
    begin = found.header_offset + 30 + name + extra
    return Canary.of(pem, packed=[bundle[begin : begin + found.compress_size]] if found.compress_type else [])


def shown_with_locals(error: BaseException) -> str:
    """All that a curious error reporter would show of an error: its whole chain, with every frame's local variables.

    The tests' own frames that caught it are left out: they hold the secrets they sent.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_of_tests(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.TracebackException(type(error), error, trace, capture_locals=True).format())


def _is_of_tests(file: str) -> bool:
    """Say whether a file is one of the tests; the checkout itself may lie in a folder called tests."""
    return TESTS in Path(file).parents
