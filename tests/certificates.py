"""A throwaway public key infrastructure for every test: nothing is committed, nothing is read from disk.

`Ca.new("name").issue("common name", sans=("localhost", "127.0.0.1"), server=True)` gives a Leaf, whose
`certificate` and `key` are PEM. Instants are seconds since the epoch; the default window holds both the real clock and
the fixed clocks of pure tests. Quirks that real (or hostile) certificates have are keyword arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KeyFormat = Literal["pkcs8", "traditional"]

_CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "p224": ec.SECP224R1()}
_CURVES_OF_NOBODY = {"k256": ec.SECP256K1(), "brainpool": ec.BrainpoolP256R1()}
_MERSENNE = {"rsa610": (89, 521), "rsa1886": (607, 1279), "rsa3482": (1279, 2203), "rsa4484": (2203, 2281)}


def instant(year: int, month: int = 1, day: int = 1) -> float:
    """Give the epoch seconds of midnight UTC."""
    return datetime(year, month, day, tzinfo=UTC).timestamp()


NOT_BEFORE = instant(2020)
NOT_AFTER = instant(2048)
LONG_AGO = (instant(2015), instant(2016))  # an expired window
FAR_AHEAD = (instant(2047), instant(2048))  # a window that has not begun


def new_key(kind: str = "p256") -> PrivateKey:
    """Make a fresh key: p256, p384, p521, p224, k256, brainpool, ed25519, or rsa<bits>.

    rsa610, rsa1886, rsa3482 and rsa4484 are products of two Mersenne primes: real RSA of an odd size, made at once.
    """
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind in _MERSENNE:
        return _mersenne_rsa(*_MERSENNE[kind])
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    return ec.generate_private_key((_CURVES | _CURVES_OF_NOBODY)[kind])


@lru_cache
def shared_key(kind: str, number: int = 0) -> PrivateKey:
    """Give one key per kind and number for the whole test process: RSA keys take long to make."""
    return new_key(kind)


def _mersenne_rsa(first: int, second: int) -> rsa.RSAPrivateKey:
    p, q = 2**second - 1, 2**first - 1
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(65537, p * q),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def key_pem(key: PrivateKey, *, form: KeyFormat = "pkcs8", password: bytes | None = None) -> bytes:
    """Serialize a private key; "traditional" is OpenSSL's RSA PRIVATE KEY / EC PRIVATE KEY form."""
    formats = {
        "pkcs8": serialization.PrivateFormat.PKCS8,
        "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
    }
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, formats[form], encryption)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write <name>.pem and <name>-key.pem for programs that want files; give both paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key


@dataclass(frozen=True, slots=True)
class Ca:
    """A certificate authority (CA): `certificate` and `key` are PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def new(
        cls,
        name: str = "Test CA",
        *,
        key: str | PrivateKey = "p256",
        not_before: float = NOT_BEFORE,
        not_after: float = NOT_AFTER,
        ca: bool = True,
    ) -> Ca:
        """Make a self-signed CA; with `ca` false, one that says it is none."""
        private = new_key(key) if isinstance(key, str) else key
        builder = _builder(name, _name(name), private, not_before, not_after)
        if ca:
            builder = _as_ca(builder, private)
        else:
            builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return cls(_signed(builder, private), key_pem(private))

    def issue(
        self,
        cn: str = "client",
        *,
        sans: Sequence[str] = (),
        client: bool = False,
        server: bool = False,
        key: str | PrivateKey = "p256",
        not_before: float = NOT_BEFORE,
        not_after: float = NOT_AFTER,
        ca: bool = False,
        issuer_name: str | None = None,
        key_format: KeyFormat = "pkcs8",
    ) -> Leaf:
        """Issue a certificate.

        `sans` may mix host names and IP literals; `client` and `server` add that extended key usage (neither: the
        certificate has no such extension, as many old ones); `issuer_name` lies about who signed.
        """
        private = new_key(key) if isinstance(key, str) else key
        issuer = self._subject() if issuer_name is None else _name(issuer_name)
        builder = _builder(cn, issuer, private, not_before, not_after)
        if ca:
            builder = _as_ca(builder, private)
        signer = self._private()
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(san) for san in sans]), False)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] * client + [ExtendedKeyUsageOID.SERVER_AUTH] * server
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = _signed(builder, signer)
        return Leaf(certificate, key_pem(private, form=key_format))

    def intermediate(self, name: str = "Test intermediate", *, key: str | PrivateKey = "p256") -> Ca:
        """Issue a CA below this one."""
        leaf = self.issue(name, ca=True, key=key)
        return Ca(leaf.certificate, leaf.key)

    def _subject(self) -> x509.Name:
        return x509.load_pem_x509_certificate(self.certificate).subject

    def _private(self) -> PrivateKey:
        key = serialization.load_pem_private_key(self.key, None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(key, PrivateKey)
        return key


def _builder(
    cn: str, issuer: x509.Name, private: PrivateKey, not_before: float, not_after: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(cn))
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
    )


def _as_ca(builder: x509.CertificateBuilder, private: PrivateKey) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, private: PrivateKey) -> bytes:
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, algorithm).public_bytes(serialization.Encoding.PEM)


def _name(cn: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(san))
    except ValueError:
        return x509.DNSName(san)
