"""Every bad bundle of the corpus is refused with its exact code, in little memory, and without telling a secret."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from chalicelib.bundle.errors import BadBundle, BadEndpoint
from chalicelib.bundle.parse import parse
from tests.secrets_seen import Secrets
from tests.unit.corpus import NOW, corpus, pki

CORPUS = corpus()
MEMORY_LIMIT = 32 * 1024 * 1024


def test_the_corpus_has_at_least_150_bad_bundles() -> None:
    assert len(CORPUS) >= 150


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    material = pki()
    return Secrets.of(material.client.key, material.server.key, material.ca.key)


@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_bundle_is_refused_with_its_code_in_little_memory_and_without_a_secret(
    name: str, secrets: Secrets
) -> None:
    bad = CORPUS[name]
    body = bad.build()
    tracemalloc.start()
    try:
        with pytest.raises((BadBundle, BadEndpoint)) as caught:
            parse(body, host=bad.host, now=NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == bad.code
    assert peak < MEMORY_LIMIT
    secrets.assert_not_in(caught.value)


def test_every_code_of_a_bad_bundle_is_in_the_corpus() -> None:
    missing = {error.code for error in _descendants(BadBundle)} - {bad.code for bad in CORPUS.values()}
    assert missing == {"bundle-unreadable"}  # the boundary: what reaches it gets a code of its own


def _descendants(error: type[BadBundle]) -> Iterator[type[BadBundle]]:
    for child in error.__subclasses__():
        yield child
        yield from _descendants(child)
