"""A visitor's private key: loaded, and refused unless a TLS handshake with it could work.

1. The key must work: `signs_for` makes a signature with it and verifies that with the certificate's public key.
   Comparing the public halves would not do, for an owner is known by the public half, and a forged file can claim
   anybody's.
2. RSA has 2048 to 4096 bits, ECDSA a named curve P-256, P-384 or P-521, or it is Ed25519: what Docker (Go's crypto/tls)
   and OpenSSL at its default security level both take.
3. Nothing is parsed before its outermost bytes say that it is a key of such a kind, and RSA keys are loaded without
   OpenSSL's primality tests, which cost 300 ms for 4096 bits. The arithmetic relations are checked here instead, and
   rule 1 shows the rest.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import PublicKeyAlgorithmOID

from chalicelib.bundle import errors
from chalicelib.bundle.files import shown
from chalicelib.bundle.pem import Block

KEY_LIMIT: Final = 4096  # bytes of PEM; RSA of 4096 bits takes 3,272
RSA_BITS: Final = range(2048, 4097)
LARGEST_EXPONENT: Final = 2**32  # a larger public exponent only costs time; nearly all keys have 65537

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def load_key(block: Block) -> PrivateKey:
    """Load a private key that TLS can use; raises KeyEncrypted, SshKey, KeyTooLarge, KeyUnreadable and the like."""
    name = shown(block.path)
    if block.encrypted:
        raise errors.KeyEncrypted(
            f"The private key in {name} is protected with a passphrase. Remove it with "
            "“openssl pkey -in key.pem -out key-open.pem” and upload the bundle with that key as key.pem"
        )
    if block.label.startswith("OPENSSH"):
        raise errors.SshKey(f"The private key in {name} is an SSH key. Docker over TLS needs the key of cert.pem")
    if block.size > KEY_LIMIT:
        raise errors.KeyTooLarge(f"The private key in {name} is larger than 4 KiB. Use RSA of 2048 to 4096 bits, or EC")
    _check_kind(block, name)
    try:
        key = serialization.load_der_private_key(block.der, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _key_unreadable(name) from None
    if not isinstance(key, PrivateKey):
        raise wrong_type(name)
    check_public(key.public_key(), block.der, name)
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
KEY_ALGORITHMS: Final = (
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5,
    PublicKeyAlgorithmOID.EC_PUBLIC_KEY,
    PublicKeyAlgorithmOID.ED25519,
)
_ALGORITHMS_DER: Final = ("2a864886f70d010101", "2a8648ce3d0201", "2b6570")  # the same, as DER holds them


def _check_kind(block: Block, name: str) -> None:
    """Refuse a key of a kind that Docker does not use, before anything parses it.

    OpenSSL tests a Diffie-Hellman key's prime while loading it: 27 s for one of 9,689 bits, which fits into 2 KiB.
    """
    if block.label not in _FORMS:
        raise wrong_type(name)
    match = _FORMS[block.label].match(block.der)
    if match is None:
        raise _key_unreadable(name)
    if block.label == "PRIVATE KEY" and block.der[match.end() :][: match[1][0]].hex() not in _ALGORITHMS_DER:
        raise wrong_type(name)


def _key_unreadable(name: str) -> errors.KeyUnreadable:
    return errors.KeyUnreadable(
        f"The private key in {name} cannot be read: it is damaged or of an unknown kind. "
        "Get the file again from where you got the bundle"
    )


def wrong_type(name: str) -> errors.KeyType:
    return errors.KeyType(f"The key in {name} is of a kind that Docker does not use. Use RSA, ECDSA or Ed25519")


def check_public(key: object, der: bytes, name: str) -> None:
    """Check kind, size and curve (rule 2) of a public key; `der` is where an explicit curve would be spelled out."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS or key.public_numbers().e > LARGEST_EXPONENT:
            raise errors.KeySize(
                f"The RSA key in {name} has {key.key_size} bits, or an unusual exponent. Use 2048 to 4096 bits"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES) or _PRIME_FIELD in der:
            raise errors.KeyCurve(
                f"The key in {name} is on an unusual elliptic curve. Use the named curve P-256, P-384 or P-521"
            )
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise wrong_type(name)


_PRIME_FIELD: Final = bytes.fromhex("06072a8648ce3d0101")  # OID prime-field (X9.62), only in a spelled-out curve


def _is_consistent(n: rsa.RSAPrivateNumbers) -> bool:
    """Check the relations between the numbers of an RSA key (RFC 8017 §3.2), but for p and q being prime."""
    e = n.public_numbers.e
    if min(n.p, n.q) < 3 or n.p * n.q != n.public_numbers.n or not n.p & n.q & e & 1 or e < 3 or n.p == n.q:
        return False
    if not 0 < n.d < n.public_numbers.n or n.dmp1 != n.d % (n.p - 1) or n.dmq1 != n.d % (n.q - 1):
        return False
    return n.d * e % (n.p - 1) == 1 and n.d * e % (n.q - 1) == 1 and n.iqmp * n.q % n.p == 1 and 0 < n.iqmp < n.p


def signs_for(key: PrivateKey, public: PublicKey) -> bool:
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


def spki_of(key: PublicKey) -> bytes:
    """The public key as DER (SubjectPublicKeyInfo), whose SHA-256 is the owner."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
