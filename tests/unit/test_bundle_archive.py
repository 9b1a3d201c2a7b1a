"""Whatever is packed comes out again, whichever way it was packed; and the boundary lets nothing else out."""

from __future__ import annotations

import tarfile
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.bundle import archive, errors
from chalicelib.bundle.parse import parse
from tests import bundles
from tests.unit.corpus import Member, craft_zip, good, good_members

letters = st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\:")
parts = st.text(letters, max_size=12).map(lambda text: f"a{text}.pem")  # no program's dropping is called so
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(paths, st.binary(max_size=600), min_size=1, max_size=6).filter(
    lambda files: len({unicodedata.normalize("NFKC", path).casefold() for path in files}) == len(files)
)
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def unpacked(body: bytes) -> dict[str, bytes]:
    return {file.path: file.data for file in archive.read(body)}


@quick
@given(trees)
def test_every_zip_gives_what_was_packed(files: dict[str, bytes]) -> None:
    for body in (bundles.zip_of(files), bundles.zip_of(files, method=0), bundles.go_zip(files)):
        assert unpacked(body) == files


@quick
@given(trees, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_every_tar_gives_what_was_packed(files: dict[str, bytes], form: int) -> None:
    for mode in ("w", "w:gz"):
        assert unpacked(bundles.tar_of(files, form=form, mode=mode)) == files


def test_a_local_header_may_know_the_size_alone_as_libarchive_writes_it() -> None:
    members = [
        Member(name=member.name, data=member.data, flags=8, local={"crc": 0, "packed": 0}) for member in good_members()
    ]
    assert unpacked(craft_zip(members)) == good()


def test_files_of_exactly_16_kib_and_64_entries_are_taken() -> None:
    assert unpacked(bundles.zip_of({"a": b"x" * 16384})) == {"a": b"x" * 16384}
    assert len(unpacked(bundles.zip_of({str(i): b"x" for i in range(64)}))) == 64


def test_os_clutter_is_not_even_unpacked() -> None:
    lie = Member(name=b"__MACOSX/._key.pem", data=b"x" * 99, size=1)
    assert unpacked(craft_zip([*good_members(), lie])) == good()


def test_whatever_a_parser_raises_becomes_a_refusal_without_a_cause() -> None:
    with pytest.raises(errors.BundleUnreadable) as caught:
        parse(bundles.zip_of(good()), host=5, now=0)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
