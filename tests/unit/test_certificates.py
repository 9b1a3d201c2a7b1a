"""The hub's own certificates, judged by OpenSSL in handshakes between two memory buffers: no socket is opened.

`ssl` reads keys from files only, so each key passes through the test's own temporary folder.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chalicelib.errors import BadConfiguration
from chalicelib.notebook.certificates import (
    Ca,
    Leaf,
    fingerprint,
    issue_client,
    issue_notebook,
    new_ca,
    notebook_name,
)

DAY = 86400.0
# OpenSSL looks at the real clock, so what it is to accept must be valid for as long as these tests may be run.
BEFORE_ANY_RUN = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
CENTURY = 100 * 365 * DAY
NOTEBOOKS = new_ca("Homeport notebooks", now=BEFORE_ANY_RUN, lifetime=CENTURY)
CLIENTS = new_ca("Homeport clients", now=BEFORE_ANY_RUN, lifetime=CENTURY)
HOST = "0123456789abcdefghij-0a1b2c3d4e"
OTHER_HOST = "vutsrqponmlkjihgfedc-0a1b2c3d4e"
LATER_HOST = "0123456789abcdefghij-zzzzzzzzzz"  # another launch of the same session


def a_notebook(host: str = HOST, ca: Ca = NOTEBOOKS) -> Leaf:
    return issue_notebook(ca, host, now=BEFORE_ANY_RUN, lifetime=CENTURY)


def a_client(ca: Ca = CLIENTS) -> Leaf:
    return issue_client(ca, "homeport-proxy", now=BEFORE_ANY_RUN, lifetime=CENTURY)


def _context(purpose: int, leaf: Leaf | None, trusted: Ca, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=trusted.certificate.decode())
    if leaf is not None:
        pem = folder / f"{purpose}.pem"
        pem.write_bytes(leaf.certificate + leaf.key)
        context.load_cert_chain(pem)
        pem.unlink()
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def shake_hands(
    folder: Path,
    *,
    server: Leaf,
    client: Leaf | None,
    name: str,
    server_trusts: Ca = CLIENTS,
    client_trusts: Ca = NOTEBOOKS,
) -> None:
    """Run one TLS handshake and one byte each way; raises ssl.SSLError when either side refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = _context(ssl.PROTOCOL_TLS_CLIENT, client, client_trusts, folder).wrap_bio(
        to_client, to_server, server_hostname=name
    )
    far = _context(ssl.PROTOCOL_TLS_SERVER, server, server_trusts, folder).wrap_bio(
        to_server, to_client, server_side=True
    )
    done: set[ssl.SSLObject] = set()
    for _ in range(6):
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert done == {near, far}
    near.write(b"?")
    assert far.read(1) == b"?"
    far.write(b"!")
    assert near.read(1) == b"!"


def test_a_notebook_and_the_proxy_accept_each_other(tmp_path: Path) -> None:
    shake_hands(tmp_path, server=a_notebook(), client=a_client(), name=notebook_name(HOST))


@pytest.mark.parametrize("host", [OTHER_HOST, LATER_HOST, HOST.partition("-")[0]])
def test_a_notebook_is_refused_under_another_sessions_or_launchs_name(host: str, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(tmp_path, server=a_notebook(), client=a_client(), name=notebook_name(host))


@pytest.mark.parametrize("name", ["notebook.internal", f"x.{HOST}.notebook.internal", HOST, "localhost"])
def test_a_notebook_is_valid_for_its_one_name_only(name: str, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(tmp_path, server=a_notebook(), client=a_client(), name=name)


def test_a_notebook_of_another_hub_is_refused(tmp_path: Path) -> None:
    stranger = new_ca("Homeport notebooks", now=BEFORE_ANY_RUN, lifetime=CENTURY)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, server=a_notebook(ca=stranger), client=a_client(), name=notebook_name(HOST))


def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(tmp_path, server=a_notebook(), client=None, name=notebook_name(HOST))


def test_a_notebooks_certificate_does_not_open_another_notebook(tmp_path: Path) -> None:
    """Not as it is (the other CA), and not even when the notebook trusted that CA (the purpose)."""
    intruder = a_notebook(OTHER_HOST)
    for trusted in (CLIENTS, NOTEBOOKS):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tmp_path, server=a_notebook(), client=intruder, name=notebook_name(HOST), server_trusts=trusted)


def test_a_clients_certificate_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(tmp_path, server=a_client(), client=a_client(), name=notebook_name(HOST), client_trusts=CLIENTS)


def test_a_leaf_cannot_sign(tmp_path: Path) -> None:
    leaf = a_notebook()
    forged = issue_notebook(Ca(leaf.certificate, leaf.key), OTHER_HOST, now=BEFORE_ANY_RUN, lifetime=CENTURY)
    chained = Leaf(forged.certificate + leaf.certificate, forged.key)
    with pytest.raises(ssl.SSLCertVerificationError, match="invalid CA certificate"):
        shake_hands(tmp_path, server=_with_chain(chained), client=a_client(), name=notebook_name(OTHER_HOST))


def _with_chain(leaf: Leaf) -> Leaf:
    """Put the key first, so that the PEM reads key, leaf, issuer."""
    return Leaf(leaf.key + leaf.certificate, b"")


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    old = issue_notebook(NOTEBOOKS, HOST, now=BEFORE_ANY_RUN, lifetime=3 * DAY)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(tmp_path, server=old, client=a_client(), name=notebook_name(HOST))


# ── what is written in them ──────────────────────────────────────────────────────────────────────────────────────


def _read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_validity_begins_an_hour_ago_and_ends_with_the_lifetime() -> None:
    certificate = _read(issue_client(CLIENTS, "x", now=BEFORE_ANY_RUN, lifetime=3 * DAY).certificate)
    assert certificate.not_valid_before_utc.timestamp() == BEFORE_ANY_RUN - 3600
    assert certificate.not_valid_after_utc.timestamp() == BEFORE_ANY_RUN + 3 * DAY


def test_serial_numbers_do_not_repeat() -> None:
    serials = {_read(a_client().certificate).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert max(serials).bit_length() > 100


def test_a_ca_signs_leaves_only() -> None:
    extensions = _read(NOTEBOOKS.certificate).extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


@pytest.mark.parametrize(
    ("leaf", "ca", "purpose"),
    [
        (a_notebook(), NOTEBOOKS, ExtendedKeyUsageOID.SERVER_AUTH),
        (a_client(), CLIENTS, ExtendedKeyUsageOID.CLIENT_AUTH),
    ],
    ids=["notebook", "client"],
)
def test_a_leaf_has_one_purpose_and_names_its_issuer(leaf: Leaf, ca: Ca, purpose: x509.ObjectIdentifier) -> None:
    certificate, issuer = _read(leaf.certificate), _read(ca.certificate)
    extensions = certificate.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == known
    certificate.verify_directly_issued_by(issuer)


def test_a_fingerprint_is_the_beginning_of_the_certificates_sha_256_and_differs_between_cas_of_one_name() -> None:
    one, other = (new_ca("Homeport notebooks", now=BEFORE_ANY_RUN, lifetime=CENTURY) for _ in range(2))
    der = x509.load_pem_x509_certificate(one.certificate).public_bytes(serialization.Encoding.DER)
    assert fingerprint(one) == sha256(der).hexdigest()[:16]
    assert fingerprint(one) != fingerprint(other)


def test_keys_are_fresh_and_on_p256() -> None:
    leaves = (a_notebook(), a_notebook(), a_client())
    keys = [serialization.load_pem_private_key(leaf.key, None) for leaf in leaves]
    assert all(isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1" for key in keys)
    assert len({leaf.key for leaf in leaves}) == 3


def test_a_clients_subject_is_its_name() -> None:
    (name,) = _read(a_client().certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "homeport-proxy"


# ── keeping them ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pair", [NOTEBOOKS, a_client()], ids=["ca", "leaf"])
def test_a_repr_never_shows_the_key(pair: Ca | Leaf) -> None:
    assert "PRIVATE KEY" not in repr(pair)
    assert "PRIVATE KEY" not in f"{pair}"
    assert pair.key.splitlines()[1].decode() not in repr([pair])


def test_a_parameters_value_reads_back_what_was_written() -> None:
    client = a_client()
    assert Leaf.from_json(client.to_json(), name="it") == client
    assert Ca.from_json(NOTEBOOKS.to_json(), name="it") == NOTEBOOKS


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"certificate": "hunter2"}', '{"certificate": "hunter2", "key": 1}', '{"key": "hünter2"}'],
)
def test_a_parameter_that_cannot_be_read_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(BadConfiguration) as refusal:
        Leaf.from_json(text, name="The hub's parameter /homeport/notebook-ca")
    assert "nter2" not in str(refusal.value)
    assert refusal.value.__context__ is None
