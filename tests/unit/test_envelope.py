"""The stored form of credentials: no bit of it can change, and it opens for one session only."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws import envelope
from chalicelib.errors import BadEnvelope

DATA_KEY = bytes(range(32))
WRAPPED = b"the data key as KMS wrapped it" * 3
NONCE = b"twelve bytes"
PLAINTEXT = b"-----BEGIN NOTHING-----\n" + b"secret " * 20
CONTEXT = {"homeport:session": "s0", "homeport:generation": "1", "homeport:owner": "o0"}


def sealed(plaintext: bytes = PLAINTEXT, context: Mapping[str, str] = CONTEXT) -> bytes:
    return envelope.seal(plaintext, context, data_key=DATA_KEY, wrapped_key=WRAPPED, nonce=NONCE)


def opens(box: bytes, context: Mapping[str, str] = CONTEXT, data_key: bytes = DATA_KEY) -> bool:
    """Tell whether a reader, who always asks for the wrapped key first, would get anything."""
    try:
        envelope.wrapped_key(box)
        envelope.open_(box, context, data_key=data_key)
    except BadEnvelope:
        return False
    return True


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4))
def test_what_was_sealed_opens(plaintext: bytes, context: dict[str, str]) -> None:
    box = sealed(plaintext, context)
    assert envelope.wrapped_key(box) == WRAPPED
    assert envelope.open_(box, context, data_key=DATA_KEY) == plaintext


def test_the_format_is_the_documented_one() -> None:
    box = sealed()
    n = len(WRAPPED)
    assert box[0] == 1
    assert int.from_bytes(box[1:3], "big") == n
    assert box[3 : 3 + n] == WRAPPED
    assert box[3 + n : 15 + n] == NONCE
    assert len(box) == 15 + n + len(PLAINTEXT) + 16


def test_nothing_of_the_plaintext_or_the_data_key_is_in_the_envelope() -> None:
    box = sealed()
    assert b"secret" not in box
    assert DATA_KEY not in box


def test_every_flip_of_one_bit_is_refused() -> None:
    box = sealed()
    for bit in range(len(box) * 8):
        flipped = bytearray(box)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not opens(bytes(flipped)), f"bit {bit}"


def test_every_truncation_is_refused() -> None:
    box = sealed()
    assert not any(opens(box[:length]) for length in range(len(box)))


def test_a_longer_envelope_is_refused() -> None:
    assert not opens(sealed() + b"\0")
    assert not opens(sealed() + bytes(envelope.LARGEST_ENVELOPE))


@pytest.mark.parametrize("version", [0, 2, 3, 255])
def test_an_unknown_version_is_refused_by_name(version: int) -> None:
    with pytest.raises(BadEnvelope, match=f"version {version}"):
        envelope.open_(bytes([version]) + sealed()[1:], CONTEXT, data_key=DATA_KEY)


@pytest.mark.parametrize(
    "other",
    [
        CONTEXT | {"homeport:session": "s1"},
        CONTEXT | {"homeport:generation": "2"},
        CONTEXT | {"homeport:owner": "o1"},
        CONTEXT | {"homeport:more": ""},
        {"homeport:session": "s0", "homeport:generation": "1"},
        {},
    ],
    ids=["another session", "another generation", "another owner", "more", "less", "nothing"],
)
def test_an_envelope_does_not_open_for_another_session(other: dict[str, str]) -> None:
    assert not opens(sealed(), other)


def test_the_order_of_the_context_does_not_matter() -> None:
    assert opens(sealed(), dict(reversed(CONTEXT.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ab": "c"}, {"a": "bc"}),
        ({"a": "b", "c": "d"}, {"a": "bcd"}),
        ({"a": ""}, {"": "a"}),
        ({"": ""}, {}),
        ({"a": "1\x002"}, {"a": "1", "\x002": ""}),
        ({"é": "x"}, {"e\u0301": "x"}),
    ],
)
def test_contexts_that_look_alike_are_told_apart(one: dict[str, str], other: dict[str, str]) -> None:
    assert opens(sealed(context=one), one)
    assert not opens(sealed(context=one), other)


def test_another_data_key_opens_nothing() -> None:
    assert not opens(sealed(), data_key=bytes(32))


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_a_data_key_of_the_wrong_size_opens_nothing(size: int) -> None:
    assert not opens(sealed(), data_key=bytes(size))


def test_a_wrapped_key_of_no_length_is_refused() -> None:
    header = bytes([1, 0, 0])
    assert not opens(header + NONCE + bytes(40))


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda tail: b"\x01" + tail))
def test_any_bytes_are_refused_as_an_envelope(junk: bytes) -> None:
    assert not opens(junk)


def test_a_refusal_says_nothing_about_key_or_content() -> None:
    with pytest.raises(BadEnvelope) as refusal:
        envelope.open_(sealed()[:-1] + b"\0", CONTEXT, data_key=DATA_KEY)
    assert "secret" not in repr(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"data_key": bytes(16)},
        {"nonce": bytes(11)},
        {"nonce": bytes(16)},
        {"wrapped_key": b""},
        {"wrapped_key": bytes(envelope.LARGEST_WRAPPED_KEY + 1)},
        {"plaintext": bytes(envelope.LARGEST_PLAINTEXT + 1)},
    ],
    ids="-".join,
)
def test_misuse_of_seal_is_a_defect_and_seals_nothing(wrong: dict[str, bytes]) -> None:
    arguments = {"plaintext": b"x", "data_key": DATA_KEY, "wrapped_key": WRAPPED, "nonce": NONCE} | wrong
    plaintext = arguments.pop("plaintext")
    with pytest.raises(ValueError, match=r"data key|wrapped key"):
        envelope.seal(plaintext, CONTEXT, **arguments)


def test_the_largest_envelope_opens() -> None:
    largest = envelope.seal(
        bytes(envelope.LARGEST_PLAINTEXT),
        CONTEXT,
        data_key=DATA_KEY,
        wrapped_key=bytes(envelope.LARGEST_WRAPPED_KEY),
        nonce=NONCE,
    )
    assert len(largest) == envelope.LARGEST_ENVELOPE
    assert opens(largest)
