"""Every bundle that people have is taken, says what it is, and gives exactly its credentials."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.bundle.errors import EndpointMissing, EndpointNotLiteral, EndpointsDisagree
from chalicelib.bundle.files import shown
from chalicelib.bundle.parse import Bundle, parse
from chalicelib.bundle.sources import CARINA, CERTIFICATES, CONTEXT, MACHINE, UCP
from chalicelib.errors import BadEnvelope
from tests import bundles
from tests.bundles import Pki, bytes_of
from tests.certificates import Ca, KeyFormat, instant, key_pem, new_key, shared_key

NOW = instant(2026, 11, 1)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


def parsed(body: bytes, host: str | None = None) -> Bundle:
    return parse(body, host=host, now=NOW)


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def assert_holds(found: Bundle, pki: Pki) -> None:
    """Check that the credentials are the Pki's and fit together."""
    kept = found.credentials
    assert certificates(kept.ca) == certificates(pki.ca.certificate)
    assert certificates(kept.certificate) == certificates(pki.client.certificate)
    key = serialization.load_pem_private_key(kept.key, None)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert found.owner == hashlib.sha256(spki).hexdigest()
    der = certificates(pki.client.certificate)[0].public_bytes(serialization.Encoding.DER)
    assert found.fingerprint == hashlib.sha256(der).hexdigest()
    assert (found.not_before, found.not_after) == (instant(2020), instant(2048))
    assert found.subject == "CN=visitor"


# ── round trips ──────────────────────────────────────────────────────────────────────────────────────────────────


ROUND_TRIPS: dict[str, tuple[Callable[[Pki], bytes], str, Endpoint, set[str]]] = {
    "Carina 2015": (bundles.carina, CARINA, Endpoint("203.0.113.7", 2376), {"ca-key.pem", "README.md"}),
    "Carina 2015, folder without an entry, named by a UUID": (
        lambda pki: bundles.carina(pki, cluster="0b4b1c5e-0b5c-4c6e-9d3e-2f1d6d1f7a00", folder_entry=False),
        CARINA,
        Endpoint("203.0.113.7", 2376),
        {"ca-key.pem", "README.md"},
    ),
    "Carina late 2016": (bundles.carina_late, CARINA, Endpoint("203.0.113.7", 2376), {"README.md"}),
    "UCP 3, MKE": (
        bundles.ucp,
        UCP,
        Endpoint("ucp.example.com", 443),
        {"cert.pub", "kube.yml"} | {f"tls/kubernetes/{name}.pem" for name in ("ca", "cert", "key")},
    ),
    "UCP 2": (bundles.ucp_old, UCP, Endpoint("ucp.example.com", 443), {"cert.pub"}),
    "docker context": (bundles.docker_context, CONTEXT, Endpoint("192.0.2.7", 2376), set()),
    "docker context as zip": (bundles.docker_context_zip, CONTEXT, Endpoint("192.0.2.7", 2376), set()),
    "docker-machine": (
        bundles.docker_machine,
        MACHINE,
        Endpoint("192.168.99.100", 2376),
        {"server.pem", "server-key.pem", "id_rsa", "id_rsa.pub"},
    ),
    "docker-machine, IPv6": (
        lambda pki: bundles.docker_machine(pki, "2001:db8::7"),
        MACHINE,
        Endpoint("2001:db8::7", 2376),
        {"server.pem", "server-key.pem", "id_rsa", "id_rsa.pub"},
    ),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_each_tools_bundle_gives_its_credentials_and_says_what_was_dropped(name: str, pki: Pki) -> None:
    build, form, endpoint, dropped = ROUND_TRIPS[name]
    found = parsed(build(pki))
    assert_holds(found, pki)
    assert found.format == form
    assert found.credentials.endpoint == endpoint
    assert set(found.dropped) == dropped


def test_a_folder_without_an_endpoint_takes_it_from_the_host_field(pki: Pki) -> None:
    found = parsed(bundles.certificate_folder(pki), " https://docker.example.org ")
    assert_holds(found, pki)
    assert found.format == CERTIFICATES
    assert found.credentials.endpoint == Endpoint("docker.example.org", 443)


def test_a_host_field_that_says_the_same_as_the_bundle_is_fine(pki: Pki) -> None:
    assert parsed(bundles.carina(pki), "203.0.113.7").credentials.endpoint == Endpoint("203.0.113.7", 2376)


def test_the_cas_key_is_dropped_with_a_warning(pki: Pki) -> None:
    found = parsed(bundles.carina(pki))
    assert "ca-key.pem" in found.dropped
    assert "CA's private key" in found.warnings[0]


def test_a_context_that_skips_verification_is_taken_with_a_warning(pki: Pki) -> None:
    found = parsed(bundles.docker_context(pki, skip_verify=True))
    assert "verifies the endpoint anyway" in found.warnings[0]


# ── how it was packed ────────────────────────────────────────────────────────────────────────────────────────────


def carina_like(pki: Pki) -> dict[str, bytes | str]:
    return {**pki.files, "docker.env": "export DOCKER_HOST=tcp://203.0.113.7:2376\n"}


WINDOWS = {"Thumbs.db": b"\xd0\xcf\x11\xe0", "desktop.ini": b"[.ShellClassInfo]\r\n"}
PACKINGS: dict[str, Callable[[Pki], bytes]] = {
    "Finder": lambda pki: bundles.macos_zip("Ümläut 集群", carina_like(pki)),
    "Explorer": lambda pki: bundles.zip_of({**carina_like(pki), **WINDOWS}),
    "stored": lambda pki: bundles.zip_of(carina_like(pki), method=0),
    "zip within folders": lambda pki: bundles.zip_of(bundles.under("a/b/c", carina_like(pki))),
    "editor's backups": lambda pki: bundles.zip_of({**carina_like(pki), "key.pem~": "x" * 20000, ".key.pem.swp": "x"}),
    "tar": lambda pki: bundles.tar_of(carina_like(pki)),
    "tar of a folder": lambda pki: bundles.tar_of(bundles.under("mine", carina_like(pki))),
    "tar of .": lambda pki: bundles.tar_of(carina_like(pki), dotted=True),
    "GNU tar, long names": lambda pki: bundles.tar_of(
        bundles.under("a" * 101, carina_like(pki)), form=tarfile.GNU_FORMAT
    ),
    "pax tar, long names": lambda pki: bundles.tar_of(
        bundles.under("é" * 80, carina_like(pki)), form=tarfile.PAX_FORMAT
    ),
    "ustar prefix": lambda pki: bundles.tar_of(bundles.under("a" * 60 + "/" + "b" * 60, carina_like(pki))),
    "macOS tar": lambda pki: bundles.tar_of({**carina_like(pki), "._key.pem": b"\0\5\x16\7", ".DS_Store": b"\0"}),
    "tar.gz": lambda pki: bundles.tar_of(carina_like(pki), mode="w:gz"),
    "certificates in a sub-folder": lambda pki: bundles.zip_of(
        {**bundles.under("certs", pki.files), "docker.env": "DOCKER_HOST=tcp://203.0.113.7:2376"}
    ),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_however_it_was_packed(name: str, pki: Pki) -> None:
    found = parsed(PACKINGS[name](pki))
    assert_holds(found, pki)
    assert found.credentials.endpoint == Endpoint("203.0.113.7", 2376)
    assert found.dropped == ()


RENAMED: dict[str, Callable[[Pki], dict[str, bytes | str]]] = {
    "client names": lambda pki: {
        "ca.crt": pki.ca.certificate,
        "client.crt": pki.client.certificate,
        "client.key": pki.client.key,
    },
    "names in capitals, with .txt behind": lambda pki: {
        name.upper() + ".txt": data for name, data in pki.files.items()
    },
    "names that say nothing": lambda pki: {
        "1": pki.client.key,
        "2": pki.ca.certificate,
        "3": pki.client.certificate,
        "4": pki.server.certificate,
    },
    "certificate and key swapped": lambda pki: {
        "ca.pem": pki.ca.certificate,
        "cert.pem": pki.client.key,
        "key.pem": pki.client.certificate,
    },
    "certificate and key in one file": lambda pki: {
        "ca.pem": pki.ca.certificate,
        "client.pem": pki.client.certificate + pki.client.key,
    },
    "a copy by Explorer": lambda pki: {
        "ca.pem": pki.ca.certificate,
        "cert (1).pem": pki.client.certificate,
        "key - Copy.pem": pki.client.key,
    },
    "CRLF, byte order mark": lambda pki: {
        name: b"\xef\xbb\xbf" + bytes_of(data).replace(b"\n", b"\r\n") for name, data in pki.files.items()
    },
    "UTF-16, as PowerShell writes it": lambda pki: {
        name: bytes_of(data).decode().encode("utf-16") for name, data in pki.files.items()
    },
    "text around the blocks": lambda pki: {
        name: b"Bag Attributes\n    friendlyName: \xe9\n" + bytes_of(data) + b"\nbye\n"
        for name, data in pki.files.items()
    },
}


@pytest.mark.parametrize("name", RENAMED)
def test_whatever_the_files_are_called_and_however_they_were_saved(name: str, pki: Pki) -> None:
    found = parsed(bundles.zip_of(RENAMED[name](pki)), "docker.example.org")
    assert_holds(found, pki)


# ── environment files ────────────────────────────────────────────────────────────────────────────────────────────

ASSIGNMENTS = [
    "export DOCKER_HOST=tcp://h.example:2376",
    "export DOCKER_HOST='tcp://h.example:2376'",
    'export DOCKER_HOST="tcp://h.example:2376"',
    "DOCKER_HOST=tcp://h.example",
    "  DOCKER_HOST = tcp://h.example  ",
    "export DOCKER_TLS_VERIFY=1 DOCKER_HOST=tcp://h.example",
    "export DOCKER_TLS_VERIFY=1; export DOCKER_HOST=tcp://h.example;",
    "export DOCKER_TLS_VERIFY=1 && export DOCKER_HOST=tcp://h.example && docker ps",
    "DOCKER_HOST=tcp://h.example # the cluster",
    "declare -x DOCKER_HOST=tcp://h.example",
    "set DOCKER_HOST=tcp://h.example",
    "SET DOCKER_HOST=tcp://h.example\r\n",
    '@set "DOCKER_HOST=tcp://h.example"',
    'setx DOCKER_HOST "tcp://h.example"',
    "set -x DOCKER_HOST tcp://h.example;",
    'set -gx DOCKER_HOST "tcp://h.example:2376";',
    'setenv DOCKER_HOST "tcp://h.example";',
    '(setenv "DOCKER_HOST" "tcp://h.example")',
    '$env:DOCKER_HOST="tcp://h.example"',
    '$Env:DOCKER_HOST = "tcp://h.example:2376"',
    "${env:DOCKER_HOST} = 'tcp://h.example'",
    "\ufeffexport DOCKER_HOST=tcp://h.example",
    "# export DOCKER_HOST=tcp://other\nREM set DOCKER_HOST=tcp://other\n:: set DOCKER_HOST=x\nDOCKER_HOST=tcp://H.example",
    "unset DOCKER_HOST\nset -e DOCKER_HOST\nexport DOCKER_HOST=\nexport DOCKER_HOST=tcp://h.example",
    "DOCKER_HOST_IP=tcp://other\nMY_DOCKER_HOST=tcp://other\nDOCKER_HOST=tcp://h.example",
    "DOCKER_HOST=https://h.example:2376/",
    "DOCKER_HOST=tcp://h.example\nDOCKER_HOST=tcp://h.example:2376\n",
]


@pytest.mark.parametrize("text", ASSIGNMENTS)
def test_every_shells_way_to_say_docker_host_is_read(text: str, pki: Pki) -> None:
    found = parsed(bundles.zip_of({**pki.files, "setup": text}))
    assert found.credentials.endpoint == Endpoint("h.example", 2376)


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("tcp://[2001:DB8::1]:2377", Endpoint("2001:db8::1", 2377)),
        ("https://h.example", Endpoint("h.example", 443)),
        ("203.0.113.9", Endpoint("203.0.113.9", 2376)),
    ],
)
def test_ports_and_addresses_are_read_as_docker_reads_them(value: str, endpoint: Endpoint, pki: Pki) -> None:
    assert parsed(bundles.zip_of({**pki.files, "docker.env": f"DOCKER_HOST={value}"})).credentials.endpoint == endpoint


def test_examples_in_a_readme_are_no_endpoint(pki: Pki) -> None:
    with pytest.raises(EndpointMissing, match="host field"):
        parsed(bundles.zip_of({**pki.files, "README.md": "export DOCKER_HOST=tcp://192.0.2.1:2376"}))


def test_what_the_value_computes_is_never_computed_but_a_plain_one_beside_it_counts(pki: Pki) -> None:
    files = {**pki.files, "docker.env": "export DOCKER_HOST=$(touch /tmp/x)"}
    with pytest.raises(EndpointNotLiteral):
        parsed(bundles.zip_of(files))


def test_two_endpoints_are_refused_with_both_shown(pki: Pki) -> None:
    with pytest.raises(EndpointsDisagree) as caught:
        parsed(bundles.ucp(pki, context_endpoint="tcp://192.0.2.8:443"))
    assert "tcp://ucp.example.com:443" in caught.value.message
    assert "tcp://192.0.2.8:443" in caught.value.message
    with pytest.raises(EndpointsDisagree, match=r"203\.0\.113\.7.*host field says tcp://192\.0\.2\.8:2376"):
        parsed(bundles.carina(pki), "192.0.2.8")


# ── certificates of every age ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048", "rsa3482"])
@pytest.mark.parametrize("form", ["pkcs8", "traditional"])
def test_every_kind_of_key_docker_uses_is_taken(kind: str, form: KeyFormat) -> None:
    if kind == "ed25519" and form == "traditional":
        form = "pkcs8"  # it has no other form
    ca = Ca.new()
    leaf = ca.issue("old", key=shared_key(kind), client=True, key_format=form)
    pki = Pki(ca, leaf, leaf)
    assert parsed(bundles.carina(pki)).subject == "CN=old"


def test_an_old_certificate_says_neither_its_names_nor_its_use(pki: Pki) -> None:
    leaf = pki.ca.issue("203.0.113.7")
    assert parsed(bundles.carina(Pki(pki.ca, leaf, leaf))).subject == "CN=203.0.113.7"


def test_intermediates_are_kept_with_the_certificate_and_others_are_not(pki: Pki) -> None:
    middle = pki.ca.intermediate("Middle")
    leaf = middle.issue("visitor", client=True)
    stranger = Ca.new("Stranger")
    chain = leaf.certificate + stranger.certificate + middle.certificate
    found = parsed(bundles.zip_of({**pki.files, "cert.pem": chain, "key.pem": leaf.key}), "h.example")
    assert certificates(found.credentials.certificate) == certificates(leaf.certificate + middle.certificate)


def test_one_of_several_cas_is_enough(pki: Pki) -> None:
    ca = Ca.new("Other").certificate + pki.ca.certificate + pki.ca.certificate
    found = parsed(bundles.zip_of({**pki.files, "ca.pem": ca}), "h.example")
    assert len(certificates(found.credentials.ca)) == 2


def test_a_renewed_ca_of_the_same_name_and_key_counts(pki: Pki) -> None:
    key = new_key()
    old = Ca.new("Twin", key=key, not_before=instant(2010), not_after=instant(2020))
    new = Ca.new("Twin", key=key)
    leaf = new.issue("visitor", client=True)
    files = {"ca.pem": old.certificate + new.certificate, "cert.pem": leaf.certificate, "key.pem": leaf.key}
    assert parsed(bundles.zip_of(files), "h.example").subject == "CN=visitor"


def test_ec_parameters_before_the_key_are_passed_over(pki: Pki) -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    found = parsed(bundles.zip_of({**pki.files, "key.pem": parameters + pki.client.key}), "h.example")
    assert_holds(found, pki)


def test_a_certificate_made_by_a_clock_that_is_a_little_ahead_is_taken(pki: Pki) -> None:
    leaf = pki.ca.issue("visitor", not_before=NOW + 60)
    assert parsed(bundles.zip_of({**pki.files, "cert.pem": leaf.certificate, "key.pem": leaf.key}), "h").subject


def test_the_owner_is_the_key_and_not_the_certificate(pki: Pki) -> None:
    key = new_key()
    first = pki.ca.issue("first", key=key)
    second = pki.ca.issue("second", key=key)
    owners = [
        parsed(bundles.zip_of({**pki.files, "cert.pem": leaf.certificate, "key.pem": key_pem(key)}), "h.example").owner
        for leaf in (first, second)
    ]
    assert owners[0] == owners[1] != parsed(bundles.carina(pki)).owner


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_credentials_come_back_from_their_bytes(pki: Pki) -> None:
    kept = parsed(bundles.carina(pki, "tcp://[2001:db8::1]:2376")).credentials
    assert Credentials.from_bytes(kept.to_bytes()) == kept


def test_variables_are_sealed_with_the_credentials_and_what_was_sealed_without_any_is_still_read(pki: Pki) -> None:
    bare = parsed(bundles.carina(pki)).credentials
    kept = replace(bare, environment={"TOKEN": "s3cret “ü”"})
    assert Credentials.from_bytes(kept.to_bytes()) == kept
    assert "s3cret" not in repr(kept)
    assert "environment" not in json.loads(bare.to_bytes())
    assert Credentials.from_bytes(bare.to_bytes()).environment == {}


def test_the_version_before_opens_what_has_variables_and_passes_them_over(pki: Pki) -> None:
    """It reads five parts of a document of version 1, by name."""
    bare = parsed(bundles.carina(pki)).credentials
    with_variables = json.loads(replace(bare, environment={"A": "1"}).to_bytes())
    assert with_variables.pop("environment") == {"A": "1"}
    assert with_variables == json.loads(bare.to_bytes())


@pytest.mark.parametrize("environment", [None, [], "A=1", {"A": 1}, {"A": None}])
def test_variables_that_are_no_texts_are_no_credentials(pki: Pki, environment: object) -> None:
    document = json.loads(parsed(bundles.carina(pki)).credentials.to_bytes()) | {"environment": environment}
    with pytest.raises(BadEnvelope):
        Credentials.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"version": 2}', b"\xff", b'{"version":1,"ca":1}'])
def test_other_bytes_are_no_credentials(data: bytes) -> None:
    with pytest.raises(BadEnvelope):
        Credentials.from_bytes(data)


def test_a_repr_shows_the_endpoint_and_no_secret(pki: Pki) -> None:
    found = parsed(bundles.carina(pki))
    assert "PRIVATE" not in repr(found)
    assert "BEGIN" not in repr(found)
    assert "203.0.113.7" in repr(found)


def test_names_that_could_be_content_are_not_shown() -> None:
    assert shown("mycluster/ca.pem") == "“mycluster/ca.pem”"
    assert shown("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQ") == "a file"
    assert shown("\u202egnp.mep") == "a file"
