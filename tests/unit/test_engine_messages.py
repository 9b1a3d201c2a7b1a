"""What an engine says about a pull and its failures, as sums and codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.engine import errors
from chalicelib.engine.messages import error_for, message_of, pull_error, quoted
from chalicelib.engine.pull_progress import LAYERS, PullProgress, PullStatus


def line(status: str, layer: str = "a", current: Any = None, total: Any = None, **more: Any) -> bytes:
    detail = {"current": current, "total": total} if current is not None else {}
    return json.dumps({"status": status, "id": layer, "progressDetail": detail | more}).encode()


def after(*lines: bytes) -> PullProgress:
    progress = PullProgress()
    for each in lines:
        progress.feed(each)
    return progress


def test_a_pull_of_which_nothing_is_known_has_no_fraction() -> None:
    named = after(line("Pulling from library/x", "latest"), b"", b"\r")
    assert named.status() == PullStatus(None, "Pulling the image")
    assert not named.begun


def test_bytes_and_layers_are_summed() -> None:
    progress = after(
        line("Pulling fs layer", "a"),
        line("Pulling fs layer", "b"),
        line("Already exists", "c"),
        line("Downloading", "a", 60_000_000, 100_000_000),
        line("Downloading", "b", 100_000_000, 100_000_000),
        line("Download complete", "b"),
        line("Extracting", "b", 100_000_000, 100_000_000),
        line("Pull complete", "b"),
    )
    status = progress.status()
    assert status.line == "Pulling: 2 of 3 layers, 160 of 200 MB"
    assert status.fraction == pytest.approx((0.75 * 0.6 + 1) / 2)


def test_an_image_that_is_all_there_is_told_so() -> None:
    assert after(line("Already exists", "a")).status().line == "Pulling the image"


def test_a_layer_of_unknown_size_weighs_as_much_as_the_others() -> None:
    progress = after(line("Downloading", "a", 50, 100), line("Pulling fs layer", "b"), line("Pulling fs layer", "c"))
    assert progress.status().fraction == pytest.approx(0.75 * 0.5 / 3)


def test_the_fraction_never_falls_when_more_layers_show_up() -> None:
    progress = after(line("Downloading", "a", 100, 100))
    before = progress.status().fraction
    progress.feed(line("Downloading", "b", 0, 10_000))
    assert progress.status().fraction == before


def test_a_pull_has_joined_when_a_layer_is_beyond_being_named() -> None:
    progress = after(line("Pulling from x", "latest"), line("Pulling fs layer"))
    assert (progress.begun, progress.joined) == (True, False)
    progress.feed(line("Waiting"))
    assert progress.joined


def test_newer_engines_that_report_seconds_of_extracting_are_understood() -> None:
    progress = after(line("Downloading", "a", 80, 80), line("Download complete"), line("Extracting", "a", 3, units="s"))
    assert progress.status() == PullStatus(0.75, "Pulling: 0 of 1 layers, 0 of 0 MB")


@pytest.mark.parametrize("count", [-1, True, 1.5, "9", None, [], 1 << 60, float("nan")])
def test_impossible_counts_count_for_nothing(count: object) -> None:
    assert after(line("Downloading", "a", 0, count)).status().line == "Pulling: 0 of 1 layers"


def test_layers_without_end_take_no_memory_without_end() -> None:
    progress = after(*(line("Waiting", str(number)) for number in range(3 * LAYERS)))
    assert progress.status().line == f"Pulling: 0 of {LAYERS} layers"


def test_changes_are_counted_and_repetitions_are_not() -> None:
    progress = after(line("Downloading", "a", 1, 10))
    before = progress.changes
    progress.feed(line("Downloading", "a", 1, 10))
    assert progress.changes == before
    progress.feed(line("Downloading", "a", 2, 10))
    assert progress.changes == before + 1


@given(
    st.lists(
        st.builds(
            line,
            st.sampled_from(
                ["Downloading", "Extracting", "Pull complete", "Already exists", "Waiting", "Retrying (3)"]
            ),
            st.sampled_from("abcd"),
            st.one_of(st.integers(-5, 1 << 62), st.none(), st.floats(), st.text(max_size=3)),
            st.one_of(st.integers(-5, 1 << 62), st.none()),
        ),
        max_size=30,
    )
)
def test_whatever_is_said_the_fraction_rises_within_0_and_1(lines: list[bytes]) -> None:
    progress, last = PullProgress(), 0.0
    for each in lines:
        progress.feed(each)
        status = progress.status()
        assert status.fraction is None or last <= status.fraction <= 1
        last = status.fraction or last
        assert len(status.line) < 100


JUNK = st.one_of(st.binary(max_size=60), st.sampled_from([b"[]", b"7", b"null", b'"x"', b"[" * 9999, b"NaN"]))


@given(JUNK)
def test_a_line_that_is_no_object_is_misbehaviour(junk: bytes) -> None:
    if junk.strip():
        with pytest.raises(errors.NotADockerEngine):
            PullProgress().feed(junk)


@given(st.text(max_size=300), st.integers(400, 599))
def test_whatever_the_engine_says_the_message_is_one_short_printable_line(text: str, status: int) -> None:
    for error in (error_for(status, text, quote=True), error_for(status, text, quote=False), pull_error(text)):
        assert error.message.isprintable()
        assert len(error.message) < 400


@pytest.mark.parametrize(
    ("body", "message"),
    [(b'{"message": "no"}', "no"), (b"no", "no"), (b'{"message": 1}', ""), (b"[]", ""), (b"[" * 99999, "[" * 640)],
)
def test_the_message_is_found_or_left(body: bytes, message: str) -> None:
    assert message_of(body) == message


def test_a_quote_is_one_short_line() -> None:
    assert quoted(" a\n\tb\x1b[0m\u202e ") == "a b [0m"
    assert len(quoted("x" * 10_000)) == 160
    assert quoted(None) == ""
