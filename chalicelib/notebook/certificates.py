"""The hub's own certificates: two CAs, a leaf per notebook, and the client certificates of proxy and launcher.

1. EC P-256 with SHA-256 everywhere; a key lives in memory as PKCS #8 PEM and is hidden from every repr.
2. A notebook's leaf is good for serverAuth under the one name `<host>.notebook.internal`, a client's for clientAuth and
   no name; neither can sign, and a CA can sign nothing but leaves (`pathlen:0`).
3. Validity begins an hour in the past: the notebook's clock is the visitor's, not ours.

Times are seconds since the epoch, lifetimes seconds. Profile: RFC 5280 §4.2; serial numbers: CA/B Forum's 64 random
bits and more, here 159.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chalicelib.notebook.pair import Pair

CLOCK_SKEW: Final = 3600.0  # seconds; a laptop that slept or a virtual machine without NTP
NOTEBOOK_DOMAIN: Final = "notebook.internal"  # .internal is reserved for private use by ICANN


class Ca(Pair):
    """A certificate authority (CA) of the hub: it signs, and its certificate is what the other side trusts."""

    __slots__ = ()


class Leaf(Pair):
    """A certificate that identifies one notebook or one client, with its key."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class HubTrust:
    """What the launcher needs of the hub's own certificates.

    `notebook_ca` signs notebooks' leaves, `client_ca` (PEM) is whom notebooks trust, `probe` is the launcher's
    own client certificate.
    """

    notebook_ca: Ca
    client_ca: bytes
    probe: Leaf


def new_ca(name: str, *, now: float, lifetime: float) -> Ca:
    """Make a self-signed CA called `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(subject, subject, key, now=now, lifetime=lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Ca(_certificate_pem(certificate), _key_pem(key))


def fingerprint(ca: Ca) -> str:
    """Tell a CA from all others: 16 hexadecimal digits, which are 64 bits of its certificate's SHA-256."""
    return x509.load_pem_x509_certificate(ca.certificate).fingerprint(hashes.SHA256()).hex()[:16]


def issue_notebook(ca: Ca, host: str, *, now: float, lifetime: float) -> Leaf:
    """Issue the server certificate of the launch with this `host`, valid for its own name and no other."""
    name = notebook_name(host)
    return _issue(ca, name, ExtendedKeyUsageOID.SERVER_AUTH, x509.DNSName(name), now=now, lifetime=lifetime)


def issue_client(ca: Ca, name: str, *, now: float, lifetime: float) -> Leaf:
    """Issue a client certificate whose subject is `name`."""
    return _issue(ca, name, ExtendedKeyUsageOID.CLIENT_AUTH, None, now=now, lifetime=lifetime)


def notebook_name(host: str) -> str:
    """The name that the notebook of the launch with this `host` answers to."""
    return f"{host}.{NOTEBOOK_DOMAIN}"


def _issue(
    ca: Ca,
    name: str,
    purpose: x509.ObjectIdentifier,
    alternative: x509.GeneralName | None,
    *,
    now: float,
    lifetime: float,
) -> Leaf:
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    signer = serialization.load_pem_private_key(ca.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "CAs are made by new_ca"
    key = ec.generate_private_key(ec.SECP256R1())
    signer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_common_name(name), issuer.subject, key, now=now, lifetime=lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer_id), critical=False)
    )
    if alternative is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    return Leaf(_certificate_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, now: float, lifetime: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - CLOCK_SKEW))
        .not_valid_after(_moment(now + lifetime))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), tz=datetime.UTC)


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
