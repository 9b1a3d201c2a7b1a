"""What an engine says about a pull and its failures, as sums and codes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.engine import errors
from chalicelib.engine.messages import error_for, message_of, pull_error, quoted
from chalicelib.engine.pull_progress import LAYERS, PullProgress, PullStatus, of_the_rest


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
    assert named.status(0.0) == PullStatus(None, "Pulling the image")
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
    status = progress.status(0.0)
    assert (status.line, status.loaded) == ("Pulling: 2 of 3 layers", ", 160 of 200 MB")
    assert status.fraction == pytest.approx((0.75 * 0.6 + 1) / 2)


def test_an_image_that_is_all_there_is_told_so() -> None:
    assert after(line("Already exists", "a")).status(0.0).line == "Pulling: 1 of 1 layers"


def test_a_layer_of_unknown_size_weighs_as_much_as_the_others() -> None:
    progress = after(line("Downloading", "a", 50, 100), line("Pulling fs layer", "b"), line("Pulling fs layer", "c"))
    assert progress.status(0.0).fraction == pytest.approx(0.75 * 0.5 / 3)


def test_the_fraction_never_falls_when_more_layers_show_up() -> None:
    progress = after(line("Downloading", "a", 100, 100))
    before = progress.status(0.0).fraction
    progress.feed(line("Downloading", "b", 0, 10_000))
    assert progress.status(0.0).fraction == before


def test_a_pull_has_joined_when_a_layer_is_beyond_being_named() -> None:
    progress = after(line("Pulling from x", "latest"), line("Pulling fs layer"))
    assert (progress.begun, progress.joined) == (True, False)
    progress.feed(line("Waiting"))
    assert progress.joined


def test_newer_engines_that_report_seconds_of_extracting_are_understood() -> None:
    progress = after(line("Downloading", "a", 80, 80), line("Download complete"), line("Extracting", "a", 3, units="s"))
    assert progress.status(0.0) == PullStatus(0.75, "Pulling: 0 of 1 layers", ", 0 of 0 MB", ", unpacking")


@pytest.mark.parametrize("count", [-1, True, 1.5, "9", None, [], 1 << 60, float("nan")])
def test_impossible_counts_count_for_nothing(count: object) -> None:
    status = after(line("Downloading", "a", 0, count)).status(0.0)
    assert (status.line, status.loaded) == ("Pulling: 0 of 1 layers", "")


def test_layers_without_end_take_no_memory_without_end() -> None:
    progress = after(*(line("Waiting", str(number)) for number in range(3 * LAYERS)))
    assert progress.status(0.0).line == f"Pulling: 0 of {LAYERS} layers"


def test_changes_are_counted_and_repetitions_are_not() -> None:
    progress = after(line("Downloading", "a", 1, 10))
    before = progress.changes
    progress.feed(line("Downloading", "a", 1, 10))
    assert progress.changes == before
    progress.feed(line("Downloading", "a", 2, 10))
    assert progress.changes == before + 1


SAID = st.builds(
    line,
    st.sampled_from(["Downloading", "Extracting", "Pull complete", "Already exists", "Waiting", "Retrying (3)"]),
    st.sampled_from("abcd"),
    st.one_of(st.integers(-5, 1 << 62), st.none(), st.floats(), st.text(max_size=3)),
    st.one_of(st.integers(-5, 1 << 62), st.none()),
)


@given(st.lists(st.tuples(SAID, st.floats(0, 100)), max_size=30))
def test_whatever_is_said_and_when_the_fraction_rises_within_0_and_1_and_nothing_shown_falls(
    lines: list[tuple[bytes, float]],
) -> None:
    progress, now, last, shown = PullProgress(), 0.0, 0.0, (0, 0)
    for each, seconds in lines:
        now += seconds
        progress.feed(each)
        status = progress.status(now)
        assert status.fraction is None or last <= status.fraction <= 1
        last = status.fraction or last
        counts = [int(number) for number in re.findall("[0-9]+", status.line)] or [0]
        loaded = [int(number) for number in re.findall("[0-9]+", status.loaded)] or [shown[1]]
        assert (counts[0], loaded[0]) >= shown
        assert loaded[0] >= shown[1]
        assert loaded[0] <= loaded[-1]
        shown = (counts[0], loaded[0])
        assert len(f"{status.line}{status.loaded}{status.pace}") < 120


# ── rate, time left, stalled ─────────────────────────────────────────────────────────────────────────────────────

MB = 1_000_000


def paces(rates: Sequence[float], *, size: int = 1000 * MB, step: float = 1.0) -> list[str]:
    """The pace after each step of a download of one layer at these rates, in bytes a second."""
    progress, now, loaded = after(line("Pulling fs layer")), 0.0, 0.0
    told: list[str] = []
    for rate in [0.0, *rates]:
        now, loaded = now + step, loaded + rate * step
        if rate or not told:
            progress.feed(line("Downloading", "a", int(loaded), size))
        told.append(progress.status(now).pace)
    return told


def test_a_rate_is_told_at_once_and_the_time_left_once_it_is_steady() -> None:
    told = paces([10 * MB] * 40, size=600 * MB)
    assert told[:3] == ["", ", 10 MB/s", ", 10 MB/s"]
    assert told[9] == ", 10 MB/s"
    assert told[20] == ", 10 MB/s, about 60 s left"  # a quarter of it for unpacking, as in the fraction
    assert told[40] == ", 10 MB/s, about 40 s left"


@pytest.mark.parametrize(
    ("rate", "shown"), [(18.4 * MB, "18 MB/s"), (3.42 * MB, "3.4 MB/s"), (0.42 * MB, "420 kB/s"), (900.0, "1 kB/s")]
)
def test_a_rate_is_told_with_two_digits(rate: float, shown: str) -> None:
    assert paces([rate] * 3)[-1] == f", {shown}"


@pytest.mark.parametrize(("size", "shown"), [(400, "15 s"), (9_000, "19 min"), (100_000, "4 h")])
def test_the_time_left_is_told_as_people_say_it(size: int, shown: str) -> None:
    assert paces([10 * MB] * 40, size=size * MB)[-1].endswith(f", about {shown} left")


def test_no_time_is_told_that_nobody_waits_for() -> None:
    assert paces([1000.0] * 40, size=10**12)[-1] == ", 1 kB/s"


def test_no_time_left_is_told_while_the_rate_is_not_steady() -> None:
    assert "left" not in paces([10 * MB] * 15 + [3 * MB] * 7)[-1]
    assert "left" not in paces([3 * MB] * 15 + [10 * MB] * 7)[-1]
    assert "left" not in paces([0.0] * 16 + [10 * MB] * 5)[-1]
    assert "left" not in paces([10 * MB], step=20.0)[-1]
    assert "left" not in paces([10 * MB] * 20 + [0.0] * 5)[-1]


def test_no_time_left_is_told_while_a_layers_size_is_unknown() -> None:
    progress = after(line("Pulling fs layer", "a"), line("Pulling fs layer", "b"))
    for second in range(40):
        progress.feed(line("Downloading", "a", second * MB, 100 * MB))
        status = progress.status(float(second))
    assert (status.loaded, status.pace) == (", 39 of more than 100 MB", ", 1.0 MB/s")


def test_a_pull_that_has_stalled_is_told_from_one_that_is_slow() -> None:
    slow = paces([0.02 * MB if second % 25 == 0 else 0.0 for second in range(100)])
    assert not any("nothing" in pace for pace in slow)
    stalled = paces([10 * MB] * 10 + [0.0] * 100)
    assert not any("nothing" in pace for pace in stalled[:40])
    assert stalled[40] == "; nothing has arrived for 30 s"
    assert stalled[90] == "; nothing has arrived for 80 s"
    assert stalled[110] == "; nothing has arrived for 2 min"


def test_a_pull_that_goes_on_after_a_stall_has_its_rate_again() -> None:
    told = paces([10 * MB] * 5 + [0.0] * 60 + [10 * MB] * 31, size=800 * MB)
    assert told[66:69] == ["", ", 10 MB/s", ", 10 MB/s"]
    assert told[-1] == ", 10 MB/s, about 70 s left"


def test_unpacking_is_told_from_loading() -> None:
    progress = after(line("Downloading", "a", 50 * MB, 100 * MB), line("Download complete"))
    told = []
    for second in range(80):
        if second < 40:
            progress.feed(line("Extracting", "a", second * MB, 100 * MB))
        told.append(progress.status(float(second)).pace)
    assert told[:3] == [", unpacking"] * 3
    assert told[39] == ", unpacking, about 60 s left"
    assert told[79] == "; unpacking, nothing new for 40 s"


def test_a_layer_that_is_begun_anew_takes_back_nothing_that_was_shown() -> None:
    progress = after(line("Downloading", "a", 60 * MB, 100 * MB))
    assert progress.status(0.0).loaded == ", 60 of 100 MB"
    progress.feed(line("Retrying in 5 seconds"))
    progress.feed(line("Downloading", "a", 5 * MB, 100 * MB))
    assert progress.status(1.0).loaded == ", 60 of 100 MB"


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


def test_a_pull_that_joins_another_goes_on_from_where_that_one_was() -> None:
    assert of_the_rest(None, 0.1, 0.4) == 0.4
    assert of_the_rest(0.6, 0.0, 0.0) == 0.6
    assert of_the_rest(0.6, 0.0, 0.5) == pytest.approx(0.8)
    assert of_the_rest(0.6, 0.2, 1.0) == pytest.approx(1.0)
    assert of_the_rest(0.6, None, None) == 0.6
    assert of_the_rest(0.6, 1.0, 1.0) == 1.0
