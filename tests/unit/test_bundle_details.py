"""Rules of the bundle's parts that no ordinary archive leads to."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448

from chalicelib.bundle import errors
from chalicelib.bundle.certificate import Certificate, check
from chalicelib.bundle.parse import parse
from chalicelib.bundle.private_key import PrivateKey, check_public, signs_for
from tests import bundles
from tests.bundles import Pki, zip_of
from tests.certificates import Leaf, instant, new_key, shared_key

NOW = instant(2026, 11, 1)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # as in production
@pytest.mark.parametrize("serial", ["00", "80", "ff01"])
def test_a_serial_number_that_is_not_positive_is_refused(serial: str, pki: Pki) -> None:
    """RFC 5280 §4.1.2.2. cryptography refuses zero itself, and only warns of a negative one."""
    der = x509.load_pem_x509_certificate(pki.client.certificate).public_bytes(serialization.Encoding.DER)
    at = der.index(bytes.fromhex("a003020102")) + 5  # after the version
    length = der[at + 1]
    number = bytes.fromhex(serial).ljust(length, b"\x01") if serial != "00" else bytes(length)
    changed = der[: at + 2] + number + der[at + 2 + length :]
    block = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(changed) + b"-----END CERTIFICATE-----\n"
    files = {"ca.pem": pki.ca.certificate, "cert.pem": block, "key.pem": pki.client.key}
    with pytest.raises(errors.CertificateUnreadable):
        parse(zip_of(files), host="203.0.113.7", now=NOW)


def test_a_key_that_does_not_sign_for_the_certificate_is_refused(pki: Pki) -> None:
    other = shared_key("p256")
    leaf, ca = loaded(pki.client), Certificate(x509.load_pem_x509_certificate(pki.ca.certificate), "ca.pem")
    with pytest.raises(errors.KeyMismatch):
        check(leaf, other, cas=[ca], intermediates=[], now=NOW)


def loaded(leaf: Leaf) -> Certificate:
    return Certificate(x509.load_pem_x509_certificate(leaf.certificate), "cert.pem")


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa2048"])
def test_a_key_signs_for_its_own_public_half_and_for_none_of_another_kind(kind: str) -> None:
    key: PrivateKey = shared_key(kind)
    assert signs_for(key, key.public_key())
    assert not signs_for(key, new_key("p384").public_key())
    assert not signs_for(key, new_key("ed25519").public_key())


def test_a_certificates_key_of_another_kind_is_refused() -> None:
    with pytest.raises(errors.KeyType, match=r"cert\.pem"):
        check_public(ed448.Ed448PrivateKey.generate().public_key(), b"", "cert.pem")


def test_a_file_that_only_speaks_of_a_private_key_holds_none(pki: Pki) -> None:
    spoken = b"my PRIVATE KEY----- is elsewhere\n" + pki.client.certificate
    with pytest.raises(errors.KeyMissing):
        parse(zip_of({"ca.pem": pki.ca.certificate, "cert.pem": spoken}), host="203.0.113.7", now=NOW)


@pytest.mark.parametrize(
    "text", ["{DOCKER_HOST=tcp://198.51.100.1:2376", '{"Endpoint": "tcp://198.51.100.1:2376"}', "{}"]
)
def test_other_programs_json_is_no_source_of_an_endpoint(text: str, pki: Pki) -> None:
    files = {"ca.pem": pki.ca.certificate, "cert.pem": pki.client.certificate, "key.pem": pki.client.key}
    found = parse(zip_of({**files, "settings.json": text}), host="203.0.113.7", now=NOW)
    assert found.credentials.endpoint.host == "203.0.113.7"


def test_a_name_in_the_code_page_of_dos_is_read_and_shown(pki: Pki) -> None:
    """Zip programs of the eighties' tradition write names in code page 437, without saying so."""
    body = bundles.zip_of(
        {
            "ca.pem": pki.ca.certificate,
            "cert.pem": pki.client.certificate,
            "key.pem": pki.client.key,
            "caf_.txt": "menu",
        }
    )
    found = parse(body.replace(b"caf_.txt", b"caf\x82.txt"), host="203.0.113.7", now=NOW)
    assert "café.txt" in found.dropped


def test_a_subject_with_invisible_characters_is_shown_without_them(pki: Pki) -> None:
    leaf = pki.ca.issue("vis\u202eitor", client=True)
    found = parse(bundles.carina(Pki(pki.ca, leaf, leaf)), host=None, now=NOW)
    assert found.subject == "CN=visitor"
    assert serialization.load_pem_private_key(found.credentials.key, None)
