"""More than 100,000 mutants of good bundles: only refusals escape, and none of them tells a secret.

Seeded, so that a failure comes back; the failing mutant is in the message as hex.
"""

from __future__ import annotations

import base64
import random
import tarfile
import traceback
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.bundle.errors import BadBundle, BadEndpoint
from chalicelib.bundle.parse import parse
from chalicelib.errors import HomeportError
from tests import bundles
from tests.bundles import Pki, zip_of
from tests.certificates import instant, shared_key
from tests.secrets_seen import Secrets
from tests.unit.corpus import Member, craft_zip, good_members, tar_member

NOW = instant(2026, 11, 1)
HOST = "docker.example.org"
ARCHIVE_MUTANTS = 60_000
PEM_MUTANTS = 18_000
DER_MUTANTS = 15_000
TEXT_MUTANTS = 8_000

Files = dict[str, bytes]


class Fuzzed:
    """Parses mutants, counts what becomes of them and looks for secrets in every new message."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets
        self.outcomes: Counter[str] = Counter()
        self._seen: set[str] = set()

    def parse(self, body: bytes) -> None:
        try:
            parse(body, host=HOST, now=NOW)
        except (BadBundle, BadEndpoint) as refusal:
            self.outcomes[refusal.code] += 1
            self._look_at(refusal)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} escaped for {body.hex()}") from error
        else:
            self.outcomes["accepted"] += 1

    def _look_at(self, refusal: HomeportError) -> None:
        assert refusal.__cause__ is None
        assert refusal.__context__ is None
        text = f"{refusal!r} {refusal.message} {''.join(traceback.format_exception_only(refusal))}"
        if text not in self._seen:
            self._seen.add(text)
            self.secrets.assert_not_in_text(text)

    @property
    def count(self) -> int:
        return self.outcomes.total()


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


@pytest.fixture(scope="module")
def secrets(pki: Pki) -> Secrets:
    return Secrets.of(pki.client.key, pki.server.key, pki.ca.key)


@pytest.fixture
def fuzzed(secrets: Secrets) -> Fuzzed:
    return Fuzzed(secrets)


def mutant(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Change a few bytes, or cut, double, move or splice a piece."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(changed) + 1)
        piece = min(len(changed) - at, chance.choice((1, 2, 4, 16, 100, 512)))
        match chance.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x2F, 0x2E, chance.randrange(256)))
            case 2:
                changed[at : at + piece] = chance.randbytes(piece)
            case 3:
                del changed[at : at + piece]
            case 4:
                changed[at:at] = changed[at : at + piece]
            case 5:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                changed[at : at + piece] = other[start : start + chance.choice((piece, 30, 512))]
            case 6:
                changed[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", bytes(4), b"\0\0\1\0", b"PK\1\2", b"PK\5\6"))
            case _:
                del changed[at + chance.randrange(3000) :]
    return bytes(changed)


def plain(files: bundles.Files) -> Files:
    """Give all contents as bytes."""
    return {name: data.encode() if isinstance(data, str) else data for name, data in files.items()}


def stored(files: Files) -> bytes:
    """Pack a zip without compression, quickly."""
    return craft_zip([Member(name=name.encode(), data=data, method=0) for name, data in files.items()])


def test_mutated_archives_are_refused_and_never_crash(pki: Pki, fuzzed: Fuzzed) -> None:
    """The same bytes a visitor would upload, changed anywhere: headers, directory, packed data, padding."""
    files = {**pki.files, "docker.env": f"export DOCKER_HOST=tcp://{HOST}:2376\n"}
    seeds = [
        zip_of(files),
        zip_of(files, method=0),
        bundles.go_zip(bundles.under("mine", files)),
        bundles.macos_zip("mine", files),
        craft_zip(good_members()),
        bundles.tar_of(files),
        bundles.docker_context(pki, f"tcp://{HOST}:2376"),
        bundles.tar_of(bundles.under("é" * 70, files), form=tarfile.PAX_FORMAT),
        bundles.tar_of(bundles.under("e" * 120, files), form=tarfile.GNU_FORMAT),
        bundles.tar_of(files, mode="w:gz"),
    ]
    chance = random.Random(1)
    for _ in range(ARCHIVE_MUTANTS):
        fuzzed.parse(mutant(chance, chance.choice(seeds), seeds))
    assert fuzzed.count == ARCHIVE_MUTANTS
    assert fuzzed.outcomes["accepted"] < ARCHIVE_MUTANTS / 2
    assert fuzzed.outcomes["bundle-unreadable"] == 0


def mutated_member(pki: Pki, chance: random.Random, change: Callable[[bytes], bytes]) -> bytes:
    """Pack a bundle with one of its three files changed, and all checksums right."""
    files = plain(pki.files)
    name = chance.choice(list(files))
    return stored({**files, name: change(files[name])})


def test_mutated_pem_is_refused_and_never_crashes(pki: Pki, fuzzed: Fuzzed) -> None:
    """PEM changed as text, in an archive that is right."""
    chance = random.Random(2)
    seeds = list(plain(pki.files).values())
    for _ in range(PEM_MUTANTS):
        fuzzed.parse(mutated_member(pki, chance, lambda data: mutant(chance, data, seeds)))
    assert fuzzed.count == PEM_MUTANTS
    assert fuzzed.outcomes["bundle-unreadable"] == 0
    assert fuzzed.outcomes["pem-damaged"]


def test_mutated_der_is_refused_and_never_crashes(pki: Pki, fuzzed: Fuzzed) -> None:
    """Certificates and keys changed below their PEM, EC and RSA."""
    chance = random.Random(3)
    leaf = pki.ca.issue("visitor", client=True, key=shared_key("rsa2048"))
    for pair in (pki, Pki(pki.ca, leaf, leaf)):
        seeds = [base64.b64decode(b"".join(data.splitlines()[1:-1])) for data in plain(pair.files).values()]

        def changed(data: bytes, seeds: list[bytes] = seeds) -> bytes:
            lines = data.splitlines()
            der = mutant(chance, base64.b64decode(b"".join(lines[1:-1])), seeds)
            return b"\n".join([lines[0], base64.b64encode(der), lines[-1]])

        for _ in range(DER_MUTANTS // 2):
            fuzzed.parse(mutated_member(pair, chance, changed))
    assert fuzzed.count == DER_MUTANTS
    assert fuzzed.outcomes["bundle-unreadable"] == 0
    assert fuzzed.outcomes["certificate-unreadable"]
    assert fuzzed.outcomes["key-unreadable"]


def test_mutated_contexts_and_environments_are_refused_and_never_crash(pki: Pki, fuzzed: Fuzzed) -> None:
    """The files that name the endpoint, changed as text."""
    chance = random.Random(4)
    texts = {
        "docker.env": bundles.CARINA_ENV.format(endpoint=f"tcp://{HOST}:2376").encode(),
        "env.ps1": bundles.UCP_ENV_PS1.format(endpoint=f"tcp://{HOST}:2376").encode(),
        "meta.json": bundles.context_meta(f"tcp://{HOST}:2376").encode(),
        "config.json": b'{"Driver": {"IPAddress": "192.0.2.1"}}',
    }
    for _ in range(TEXT_MUTANTS):
        name = chance.choice(list(texts))
        fuzzed.parse(stored({**plain(pki.files), name: mutant(chance, texts[name], list(texts.values()))}))
    assert fuzzed.count == TEXT_MUTANTS
    assert fuzzed.outcomes["endpoints-disagree"]


def test_the_mutants_are_at_least_100_000() -> None:
    assert ARCHIVE_MUTANTS + PEM_MUTANTS + DER_MUTANTS + TEXT_MUTANTS >= 100_000


# ── hypothesis ───────────────────────────────────────────────────────────────────────────────────────────────────

names = st.text(max_size=40) | st.sampled_from(
    ["ca.pem", "cert.pem", "key.pem", "meta.json", "docker.env", "../x", "a/b"]
)
contents = st.binary(max_size=300) | st.sampled_from(
    [b'{"Endpoints":{"docker":{"Host":"tcp://h"}}}', b"DOCKER_HOST=tcp://h", b"-----BEGIN PRIVATE KEY-----\n"]
)


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(members=st.lists(st.tuples(names, contents, st.sampled_from([0, 8])), max_size=8), host=st.none() | st.text())
def test_any_zip_of_anything_is_refused_or_taken(members: list[tuple[str, bytes, int]], host: str | None) -> None:
    body = craft_zip(
        [Member(name=name.encode("utf-8", "surrogatepass"), data=data, method=method) for name, data, method in members]
    )
    with pytest.raises((BadBundle, BadEndpoint)):
        parse(body, host=host, now=NOW)


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(
    members=st.lists(
        st.tuples(st.binary(max_size=99), contents, st.sampled_from([b"0", b"5", b"x", b"g", b"L", b"2", b"S"])),
        max_size=6,
    ),
    host=st.none() | st.text(),
)
def test_any_tar_of_anything_is_refused_or_taken(members: list[tuple[bytes, bytes, bytes]], host: str | None) -> None:
    with pytest.raises((BadBundle, BadEndpoint)):
        parse(b"".join(tar_member(name, data, kind) for name, data, kind in members), host=host, now=NOW)


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(body=st.binary(max_size=2000), magic=st.sampled_from([b"", b"PK\3\4", b"\x1f\x8b\x08", b"PK\5\6"]))
def test_any_bytes_are_refused(body: bytes, magic: bytes) -> None:
    with pytest.raises((BadBundle, BadEndpoint)):
        parse(magic + body, host=None, now=NOW)
