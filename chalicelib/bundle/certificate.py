"""A visitor's client certificate, its key and its authority: read from PEM, and refused unless a TLS handshake with
them could work.

1. The key must work: a signature made with it is verified with the certificate's public key. Comparing the public
   halves would not do, for an owner is known by the public half, and a forged file can claim anybody's.
2. RSA has 2048 to 4096 bits, ECDSA a named curve P-256, P-384 or P-521, or it is Ed25519: what Docker (Go's crypto/tls)
   and OpenSSL at its default security level both take.
3. The certificate is a leaf, valid now, for clients when it says what it is for, and issued by an authority of ca.pem,
   directly or through intermediates in the bundle, without MD5 or SHA-1. Names and usages may be missing, as they are
   in certificates of 2015.
4. What is kept is written anew from what was parsed, so that nothing rides along between the lines.

RSA keys are loaded without OpenSSL's primality tests, which cost 300 ms for 4096 bits. The arithmetic relations are
checked here instead, and rule 1 shows the rest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID, SignatureAlgorithmOID

from chalicelib import errors
from chalicelib.archive import File, shown

KEY_LIMIT: Final = 4096  # bytes of PEM; RSA of 4096 bits takes 3,272
CERTIFICATE_LIMIT: Final = 16
CHAIN_LIMIT: Final = 4  # certificates from the leaf to the authority, both counted
SKEW: Final = 300.0  # seconds that another computer's clock may be ahead of ours
RSA_BITS: Final = range(2048, 4097)
LARGEST_EXPONENT: Final = 2**32  # a larger public exponent only costs time; nearly all keys have 65537
SUBJECT_LIMIT: Final = 200  # characters of a subject that are shown

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Block:
    """One BEGIN…END block of a PEM file; `size` counts its characters, `encrypted` is what its header says."""

    label: str
    path: str
    size: int
    encrypted: bool
    der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """A checked client certificate with its key and authority: PEM, written anew. Times are epoch seconds."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    owner: str
    subject: str
    fingerprint: str
    not_before: float
    not_after: float


# ── PEM ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_MARK: Final = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]{1,40})-----")
_ENCAPSULATED_HEADER: Final = re.compile(r"^[A-Za-z0-9-]+:.*(?:\n[ \t].*)*$", re.MULTILINE)


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
        f"In the bundle, {shown(path)} is a damaged PEM file: a BEGIN or END line is missing, or what stands between "
        "them is not base64. Take the file from where you got the bundle again"
    )


# ── the private key ──────────────────────────────────────────────────────────────────────────────────────────────


def is_private(block: Block) -> bool:
    """Tell whether a block holds a private key, of whatever kind."""
    return block.label.endswith("PRIVATE KEY")


def is_relevant(block: Block, private: bool) -> bool:
    """Tell whether a block is a private key, or a certificate, whichever is asked for."""
    return is_private(block) if private else block.label in _CERTIFICATE_LABELS


def load_key(block: Block) -> PrivateKey:
    """Load a private key that TLS can use; raises KeyEncrypted, KeyOfSsh, KeyTooLarge, KeyUnreadable and the like."""
    name = shown(block.path)
    if block.encrypted:
        raise errors.KeyEncrypted(
            f"The private key in {name} is protected with a passphrase. Remove it with "
            "“openssl pkey -in key.pem -out key-open.pem” and upload the bundle with that key as key.pem"
        )
    if block.label.startswith("OPENSSH"):
        raise errors.KeyOfSsh(f"The private key in {name} is an SSH key. Docker over TLS needs the key of cert.pem")
    if block.size > KEY_LIMIT:
        raise errors.KeyTooLarge(f"The private key in {name} is larger than 4 KiB. Use RSA of 2048 to 4096 bits, or EC")
    _check_kind(block, name)
    try:
        key = serialization.load_der_private_key(block.der, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _key_unreadable(name) from None
    if not isinstance(key, PrivateKey):
        raise _key_type(name)
    _check_public(key.public_key(), block.der, name)
    if isinstance(key, rsa.RSAPrivateKey) and not _is_consistent(key.private_numbers()):
        raise _key_unreadable(name)
    return key


_LENGTH: Final = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_SEQUENCE: Final = rb"\x30" + _LENGTH
_FORMS: Final = {  # PKCS #8 up to its algorithm's OID (RFC 5958), PKCS #1 (RFC 8017) and SEC 1 (RFC 5915)
    "PRIVATE KEY": re.compile(_SEQUENCE + rb"\x02\x01[\x00\x01]" + _SEQUENCE + rb"\x06(.)", re.DOTALL),
    "RSA PRIVATE KEY": re.compile(_SEQUENCE + rb"\x02\x01\x00\x02", re.DOTALL),
    "EC PRIVATE KEY": re.compile(_SEQUENCE + rb"\x02\x01\x01\x04", re.DOTALL),
}
_KINDS: Final = (
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5,
    PublicKeyAlgorithmOID.EC_PUBLIC_KEY,
    PublicKeyAlgorithmOID.ED25519,
)
_KINDS_DER: Final = ("2a864886f70d010101", "2a8648ce3d0201", "2b6570")  # the same, as DER holds them


def _check_kind(block: Block, name: str) -> None:
    """Refuse a key of a kind that Docker does not use, before anything parses it.

    OpenSSL tests a Diffie-Hellman key's prime while loading it: 27 s for one of 9,689 bits, which fits into 2 KiB.
    """
    if block.label not in _FORMS:
        raise _key_type(name)
    match = _FORMS[block.label].match(block.der)
    if match is None:
        raise _key_unreadable(name)
    if block.label == "PRIVATE KEY" and block.der[match.end() :][: match[1][0]].hex() not in _KINDS_DER:
        raise _key_type(name)


def _key_unreadable(name: str) -> errors.KeyUnreadable:
    return errors.KeyUnreadable(
        f"The private key in {name} cannot be read: it is damaged or of an unknown kind. "
        "Take the file from where you got the bundle again"
    )


def _key_type(name: str) -> errors.KeyType:
    return errors.KeyType(f"The key in {name} is of a kind that Docker does not use. Use RSA, ECDSA or Ed25519")


def _check_public(key: object, der: bytes, name: str) -> None:
    """Check kind, size and curve (rule 2) of a public key; `der` is where an explicit curve would be spelled out."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS or key.public_numbers().e > LARGEST_EXPONENT:
            raise errors.KeySize(
                f"The RSA key in {name} has {key.key_size} bits, or an unusual exponent. Use 2048 to 4096 bits"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES) or _PRIME_FIELD in der:
            raise errors.KeyCurve(
                f"The key in {name} is on an unusual elliptic curve. Use P-256, P-384 or P-521, named"
            )
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise _key_type(name)


_PRIME_FIELD: Final = bytes.fromhex("06072a8648ce3d0101")  # OID prime-field (X9.62), only in a spelled-out curve


def _is_consistent(n: rsa.RSAPrivateNumbers) -> bool:
    """Check the relations between the numbers of an RSA key (RFC 8017 §3.2), but for p and q being prime."""
    e = n.public_numbers.e
    if min(n.p, n.q) < 3 or n.p * n.q != n.public_numbers.n or not n.p & n.q & e & 1 or e < 3 or n.p == n.q:
        return False
    if not 0 < n.d < n.public_numbers.n or n.dmp1 != n.d % (n.p - 1) or n.dmq1 != n.d % (n.q - 1):
        return False
    return n.d * e % (n.p - 1) == 1 and n.d * e % (n.q - 1) == 1 and n.iqmp * n.q % n.p == 1 and 0 < n.iqmp < n.p


def _works(key: PrivateKey, public: PublicKey) -> bool:
    """Tell whether a signature made with `key` is one that `public` verifies (rule 1)."""
    message = b"homeport: this key belongs to this certificate"
    try:
        match key, public:
            case rsa.RSAPrivateKey(), rsa.RSAPublicKey():
                signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
                public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey(), ec.EllipticCurvePublicKey():
                public.verify(key.sign(message, ec.ECDSA(hashes.SHA256())), message, ec.ECDSA(hashes.SHA256()))
            case ed25519.Ed25519PrivateKey(), ed25519.Ed25519PublicKey():
                public.verify(key.sign(message), message)
            case _:
                return False
    except (InvalidSignature, ValueError):
        return False
    return True


# ── certificates ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Certificate:
    """A parsed certificate and the file it came from. Equal when the certificates are."""

    parsed: x509.Certificate
    path: str = field(compare=False)

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return self.parsed.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate as PEM, written anew."""
        return self.parsed.public_bytes(serialization.Encoding.PEM)

    @property
    def spki(self) -> bytes:
        """The public key as DER, or nothing when it is of a kind that cannot be read."""
        try:
            return _spki(self.public_key())
        except errors.BadBundle:
            return b""

    def public_key(self) -> PublicKey:
        """Load the public key, unchecked but for its kind; raises KeyType, CertificateUnreadable."""
        if self.parsed.public_key_algorithm_oid not in _KINDS:
            raise _key_type(shown(self.path))
        try:
            key = self.parsed.public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise _certificate_unreadable(self.path) from None
        assert isinstance(key, PublicKey)
        return key

    @property
    def authority(self) -> bool | None:
        """Whether it says that it is an authority's; None when it says nothing, as certificates of version 1."""
        constraints = self._extension(x509.BasicConstraints)
        return None if constraints is None else constraints.ca

    @property
    def could_sign(self) -> bool:
        """Whether it is an authority's by what it says, or by having signed itself when it says nothing."""
        said = self.authority
        return self.parsed.issuer == self.parsed.subject if said is None else said

    @property
    def for_clients(self) -> bool:
        """Whether it is for clients, or does not say what it is for."""
        usage = self._extension(x509.ExtendedKeyUsage)
        allowed = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
        return usage is None or any(oid in usage for oid in allowed)

    def begins(self) -> float:
        """Since when it is valid, in epoch seconds."""
        return self.parsed.not_valid_before_utc.timestamp()

    def ends(self) -> float:
        """Until when it is valid, in epoch seconds."""
        return self.parsed.not_valid_after_utc.timestamp()

    def _extension(self, kind: type[_Extension]) -> _Extension | None:
        try:
            return self.parsed.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None
        except (ValueError, x509.DuplicateExtension):
            raise _certificate_unreadable(self.path) from None


def _spki(key: object) -> bytes:
    spki: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return spki


_CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")


def load_certificates(found: Iterable[Block]) -> tuple[Certificate, ...]:
    """Parse the certificates among some blocks, each once; raises CertificateUnreadable, TooManyCertificates."""
    encoded = {block.der: block.path for block in found if block.label in _CERTIFICATE_LABELS}
    if len(encoded) > CERTIFICATE_LIMIT:
        raise errors.TooManyCertificates(
            "The bundle holds more than 16 certificates. Keep only your endpoint's authority in ca.pem and your own "
            "certificate in cert.pem"
        )
    return tuple(Certificate(_load_certificate(der, path), path) for der, path in encoded.items())


def _load_certificate(der: bytes, path: str) -> x509.Certificate:
    try:
        parsed = x509.load_der_x509_certificate(der)
        _ = parsed.issuer, parsed.subject  # parsed only when asked for
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm, CryptographyDeprecationWarning):
        raise _certificate_unreadable(path) from None
    if parsed.serial_number <= 0:  # RFC 5280 §4.1.2.2; the next cryptography refuses it, too
        raise _certificate_unreadable(path)
    return parsed


def _certificate_unreadable(path: str) -> errors.CertificateUnreadable:
    return errors.CertificateUnreadable(
        f"A certificate in {shown(path)} cannot be read. Take the file from where you got the bundle again"
    )


def matching(own: Sequence[Certificate], key: PrivateKey) -> tuple[Certificate, ...]:
    """Give the certificates that name the public half of this key."""
    spki = _spki(key.public_key())
    return tuple(certificate for certificate in own if certificate.spki == spki)


def pick(own: Sequence[Certificate], key: PrivateKey) -> tuple[Certificate, tuple[Certificate, ...]]:
    """Pick the key's own certificate; give it and the rest, which can only be intermediates.

    Raises KeyMismatch, SeveralCertificates, CertificateOfAuthority.
    """
    found = matching(own, key)
    others = tuple(certificate for certificate in own if certificate not in found)
    if not found:
        if all(certificate.authority for certificate in own):
            raise _of_authority(own[0].path)
        raise _key_mismatch(own[0].path)
    if len(found) > 1 or any(not certificate.authority for certificate in others):
        raise errors.SeveralCertificates(
            f"The bundle holds several certificates that could be yours (in {shown(own[-1].path)}). "
            "Keep the one that belongs to the key"
        )
    return found[0], others


def _of_authority(path: str) -> errors.CertificateOfAuthority:
    return errors.CertificateOfAuthority(
        f"The certificate in {shown(path)} is an authority's own, which can sign others. Upload a client certificate "
        "that this authority issued, as cert.pem"
    )


def _key_mismatch(path: str) -> errors.KeyMismatch:
    return errors.KeyMismatch(
        f"The private key does not belong to the certificate in {shown(path)}. Upload the two that were made together"
    )


def check(
    leaf: Certificate,
    key: PrivateKey,
    *,
    authorities: Sequence[Certificate],
    intermediates: Sequence[Certificate],
    now: float,
) -> Identity:
    """Check a client certificate against its key, the time and the authorities (rules 1 to 3); raises BadBundle's
    subclasses. `now` is in epoch seconds.
    """
    _check_leaf(leaf, now)
    public = leaf.public_key()
    _check_public(public, leaf.parsed.tbs_certificate_bytes, shown(leaf.path))
    if not _works(key, public):
        raise _key_mismatch(leaf.path)
    chain = _chain(leaf, authorities, intermediates, now)
    return Identity(
        ca=b"".join(authority.pem for authority in authorities),
        certificate=b"".join(certificate.pem for certificate in chain),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        owner=hashlib.sha256(_spki(public)).hexdigest(),
        subject=_subject(leaf.parsed),
        fingerprint=leaf.parsed.fingerprint(hashes.SHA256()).hex(),
        not_before=leaf.begins(),
        not_after=leaf.ends(),
    )


def _check_leaf(leaf: Certificate, now: float) -> None:
    name = shown(leaf.path)
    if leaf.authority:
        raise _of_authority(leaf.path)
    if not leaf.for_clients:
        raise errors.CertificateNotForClients(
            f"The certificate in {name} says that it is not for clients (its extended key usage lacks “clientAuth”). "
            "Upload the client's certificate, not the server's"
        )
    if leaf.ends() < now:
        raise errors.CertificateExpired(
            f"The certificate in {name} expired on {leaf.parsed.not_valid_after_utc:%d %B %Y}. Make a new one on your "
            "Docker host, or download the bundle again"
        )
    if leaf.begins() > now + SKEW:
        raise errors.CertificateNotYetValid(
            f"The certificate in {name} is valid only from {leaf.parsed.not_valid_before_utc:%d %B %Y %H:%M} UTC. "
            "Wait until then, or check the clock of the computer that made it"
        )
    _check_signature(leaf)


_STRONG: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def _check_signature(certificate: Certificate) -> None:
    try:
        algorithm = certificate.parsed.signature_hash_algorithm
        oid = certificate.parsed.signature_algorithm_oid
        strong = isinstance(algorithm, _STRONG) or oid == SignatureAlgorithmOID.ED25519
    except (ValueError, UnsupportedAlgorithm):
        strong = False
    if not strong:
        raise errors.CertificateWeakSignature(
            f"The certificate in {shown(certificate.path)} is signed with MD5, SHA-1 or something unusual, which TLS "
            "no longer accepts. Make a new one with SHA-256"
        )


def _subject(certificate: x509.Certificate) -> str:
    try:
        text = certificate.subject.rfc4514_string()
    except ValueError:
        return ""
    return "".join(c if c.isprintable() else "�" for c in text)[:SUBJECT_LIMIT]


# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────


def _chain(
    leaf: Certificate, authorities: Sequence[Certificate], intermediates: Sequence[Certificate], now: float
) -> tuple[Certificate, ...]:
    """Find the way from the leaf to an authority: the leaf and the intermediates a server needs to be sent.

    Breadth first, each intermediate tried once and one way kept for each next issuer's name: nobody is asked twice at
    one depth, so at most CHAIN_LIMIT × 2 × CERTIFICATE_LIMIT signatures are verified.
    """
    ways: list[tuple[Certificate, ...]] = [(leaf,)]
    unseen = [certificate for certificate in intermediates if certificate != leaf]
    anchors: list[Certificate] = []
    for _ in range(CHAIN_LIMIT - 1):
        for way in ways:
            issuers = [authority for authority in authorities if _is_issued(way[-1], authority)]
            if any(_is_usable(issuer, now) for issuer in issuers):
                return way
            anchors += issuers
        steps = [(*way, step) for way in ways for step in unseen if _is_usable(step, now) and _is_issued(way[-1], step)]
        ways = list({step[-1].parsed.issuer: step for step in reversed(steps)}.values())
        unseen = [step for step in unseen if not any(step in way for way in steps)]
    raise _no_chain(leaf, anchors)


def _no_chain(leaf: Certificate, anchors: Sequence[Certificate]) -> errors.BadBundle:
    if not anchors:
        return errors.AuthorityMismatch(
            f"The certificate in {shown(leaf.path)} was not issued by the authority in the bundle's ca.pem. "
            "Upload the ca.pem that belongs to it"
        )
    name = shown(anchors[0].path)
    if anchors[0].authority is False:
        return errors.AuthorityIsNone(
            f"The certificate in {name} is not an authority's. Upload the authority that issued cert.pem as ca.pem"
        )
    return errors.AuthorityExpired(
        f"The authority's certificate in {name} has expired or is not valid yet. Renew it on your Docker host"
    )


def _is_usable(authority: Certificate, now: float) -> bool:
    return authority.authority is not False and authority.begins() <= now + SKEW and now <= authority.ends()


def _is_issued(certificate: Certificate, issuer: Certificate) -> bool:
    """Tell whether `issuer` signed `certificate`; raises when the names fit and key or signature are too weak."""
    if certificate.parsed.issuer != issuer.parsed.subject:
        return False
    try:
        _check_public(issuer.public_key(), issuer.parsed.tbs_certificate_bytes, shown(issuer.path))
        _check_signature(certificate)
        certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
