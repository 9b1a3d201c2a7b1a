"""A visitor's client certificate and its CA: parsed, and refused unless a TLS handshake with them could work.

1. The certificate belongs to a private key that works (private_key.py).
2. It is a leaf, valid now, for clients when it says what it is for, and issued by a CA of ca.pem, directly or through
   intermediates in the bundle, without MD5 or SHA-1. Names and usages may be missing, as they are in certificates of
   2015.
3. What is kept is written from what was parsed, so that nothing else comes along with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from chalicelib.bundle import errors
from chalicelib.bundle.files import shown
from chalicelib.bundle.pem import CERTIFICATE_LABELS, Block
from chalicelib.bundle.private_key import (
    KEY_ALGORITHMS,
    PrivateKey,
    PublicKey,
    check_public,
    signs_for,
    spki_of,
    wrong_type,
)
from chalicelib.text import one_line

CERTIFICATE_LIMIT: Final = 16
CHAIN_LIMIT: Final = 4  # certificates from the leaf to the CA, both counted
SKEW: Final = 300.0  # seconds that another computer's clock may be ahead of ours
SUBJECT_LIMIT: Final = 200  # characters of a subject that are shown

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Identity:
    """A checked client certificate with its key and CA: PEM, written from what was parsed. Times are epoch seconds."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    owner: str
    subject: str
    fingerprint: str
    not_before: float
    not_after: float


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
        """The certificate as PEM, written from what was parsed."""
        return self.parsed.public_bytes(serialization.Encoding.PEM)

    @property
    def spki(self) -> bytes:
        """The public key as DER, or nothing when it is of a kind that cannot be read."""
        try:
            return spki_of(self.public_key())
        except errors.BadBundle:
            return b""

    def public_key(self) -> PublicKey:
        """Load the public key, unchecked but for its kind; raises KeyType, CertificateUnreadable."""
        if self.parsed.public_key_algorithm_oid not in KEY_ALGORITHMS:
            raise wrong_type(shown(self.path))
        try:
            key = self.parsed.public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise _certificate_unreadable(self.path) from None
        assert isinstance(key, PublicKey)
        return key

    @property
    def is_ca(self) -> bool | None:
        """Whether it says that it is a CA certificate; None when it says nothing, as certificates of version 1."""
        constraints = self._extension(x509.BasicConstraints)
        return None if constraints is None else constraints.ca

    @property
    def could_sign(self) -> bool:
        """Whether it is a CA certificate by what it says, or by having signed itself when it says nothing."""
        said = self.is_ca
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


def load_certificates(found: Iterable[Block]) -> tuple[Certificate, ...]:
    """Parse the certificates among some blocks, each once; raises CertificateUnreadable, TooManyCertificates."""
    encoded = {block.der: block.path for block in found if block.label in CERTIFICATE_LABELS}
    if len(encoded) > CERTIFICATE_LIMIT:
        raise errors.TooManyCertificates(
            "The bundle contains more than 16 certificates. Keep only your endpoint's CA in ca.pem and your own "
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
        f"A certificate in {shown(path)} cannot be read. Get the file again from where you got the bundle"
    )


def matching(own: Sequence[Certificate], key: PrivateKey) -> tuple[Certificate, ...]:
    """Give the certificates that name the public half of this key."""
    spki = spki_of(key.public_key())
    return tuple(certificate for certificate in own if certificate.spki == spki)


def pick(own: Sequence[Certificate], key: PrivateKey) -> tuple[Certificate, tuple[Certificate, ...]]:
    """Pick the key's own certificate; give it and the rest, which can only be intermediates.

    Raises KeyMismatch, SeveralCertificates, ClientCertificateIsCa.
    """
    found = matching(own, key)
    others = tuple(certificate for certificate in own if certificate not in found)
    if not found:
        if all(certificate.is_ca for certificate in own):
            raise _is_ca_itself(own[0].path)
        raise _key_mismatch(own[0].path)
    if len(found) > 1 or any(not certificate.is_ca for certificate in others):
        raise errors.SeveralCertificates(
            f"The bundle contains several certificates that could be yours (in {shown(own[-1].path)}). "
            "Keep the one that belongs to the key"
        )
    return found[0], others


def _is_ca_itself(path: str) -> errors.ClientCertificateIsCa:
    return errors.ClientCertificateIsCa(
        f"The certificate in {shown(path)} is a CA certificate, which can sign others. Upload a client certificate "
        "that this CA issued, as cert.pem"
    )


def _key_mismatch(path: str) -> errors.KeyMismatch:
    return errors.KeyMismatch(
        f"The private key does not belong to the certificate in {shown(path)}. Upload the two that were made together"
    )


def check(
    leaf: Certificate,
    key: PrivateKey,
    *,
    cas: Sequence[Certificate],
    intermediates: Sequence[Certificate],
    now: float,
) -> Identity:
    """Check a client certificate against its key, the time and the CAs (rules 1 to 3); raises BadBundle's
    subclasses. `now` is in epoch seconds.
    """
    _check_leaf(leaf, now)
    public = leaf.public_key()
    check_public(public, leaf.parsed.tbs_certificate_bytes, shown(leaf.path))
    if not signs_for(key, public):
        raise _key_mismatch(leaf.path)
    chain = _chain(leaf, cas, intermediates, now)
    return Identity(
        ca=b"".join(ca.pem for ca in cas),
        certificate=b"".join(certificate.pem for certificate in chain),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        owner=hashlib.sha256(spki_of(public)).hexdigest(),
        subject=_subject(leaf.parsed),
        fingerprint=leaf.parsed.fingerprint(hashes.SHA256()).hex(),
        not_before=leaf.begins(),
        not_after=leaf.ends(),
    )


def _check_leaf(leaf: Certificate, now: float) -> None:
    name = shown(leaf.path)
    if leaf.is_ca:
        raise _is_ca_itself(leaf.path)
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
            f"The certificate in {shown(certificate.path)} is signed with MD5, SHA-1 or an unsupported algorithm, "
            "which TLS no longer accepts. Make a new one with SHA-256"
        )


def _subject(certificate: x509.Certificate) -> str:
    return one_line(certificate.subject.rfc4514_string(), SUBJECT_LIMIT)


# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────


def _chain(
    leaf: Certificate, cas: Sequence[Certificate], intermediates: Sequence[Certificate], now: float
) -> tuple[Certificate, ...]:
    """Find the way from the leaf to a CA: the leaf and the intermediates a server needs to be sent.

    Breadth first, each intermediate tried once and one way kept for each next issuer's name: nobody is asked twice at
    one depth, so at most CHAIN_LIMIT × 2 × CERTIFICATE_LIMIT signatures are verified.
    """
    # A hostile bundle may hold 16 certificates that all name each other. Without the two bounds below, each depth would
    # multiply the signatures to verify.
    ways: list[tuple[Certificate, ...]] = [(leaf,)]
    unseen = [certificate for certificate in intermediates if certificate != leaf]
    anchors: list[Certificate] = []
    for _ in range(CHAIN_LIMIT - 1):
        for way in ways:
            issuers = [ca for ca in cas if _is_issued(way[-1], ca)]
            if any(_is_usable(issuer, now) for issuer in issuers):
                return way
            anchors += issuers
        steps = [(*way, step) for way in ways for step in unseen if _is_usable(step, now) and _is_issued(way[-1], step)]
        ways = list({step[-1].parsed.issuer: step for step in reversed(steps)}.values())
        unseen = [step for step in unseen if not any(step in way for way in steps)]
    raise _no_chain(leaf, anchors)


def _no_chain(leaf: Certificate, anchors: Sequence[Certificate]) -> errors.BadBundle:
    if not anchors:
        return errors.CaMismatch(
            f"The certificate in {shown(leaf.path)} was not issued by the CA in the bundle's ca.pem. "
            "Upload the ca.pem that belongs to it"
        )
    name = shown(anchors[0].path)
    if anchors[0].is_ca is False:
        return errors.NotACa(
            f"The certificate in {name} is not a CA certificate. Upload the certificate of the CA that issued "
            "cert.pem as ca.pem"
        )
    return errors.CaExpired(
        f"The CA certificate in {name} has expired or is not valid yet. Renew it on your Docker host"
    )


def _is_usable(ca: Certificate, now: float) -> bool:
    return ca.is_ca is not False and ca.begins() <= now + SKEW and now <= ca.ends()


def _is_issued(certificate: Certificate, issuer: Certificate) -> bool:
    """Tell whether `issuer` signed `certificate`; raises when the names fit and key or signature are too weak."""
    if certificate.parsed.issuer != issuer.parsed.subject:
        return False
    try:
        check_public(issuer.public_key(), issuer.parsed.tbs_certificate_bytes, shown(issuer.path))
        _check_signature(certificate)
        certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
