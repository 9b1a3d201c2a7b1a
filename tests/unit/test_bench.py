"""What the benchmarks keep, and the page and plots that are made of it; nothing here measures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import page, results
from bench.charts import bars, figure, ticks
from bench.results import Judged, Result, Table, processor_times, share
from local.settings import ROOT

ROWS = {"Homeport": [1.0, 1.2, 1.1], "docker <run>": [2.0, 3.0]}


def a_result() -> Result:
    """A result of the part `launch`."""
    result = Result(part="launch", date="2026-01-02 03:04 UTC", machine="2 CPUs", versions="HAProxy 1.0.")
    result.busy, result.load = [0.1, 0.2], [0.5, 1.5]
    result.add(Table(title="One launch", unit="seconds", rows=ROWS, note="A note."))
    result.add(Table(title="Others", unit="seconds", rows=ROWS, plotted=False))
    result.compare("Homeport / docker run", *ROWS.values(), aim=0.5)
    return result


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_and_round_and_reach_the_greatest_value(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert 2 <= len(found) <= 6
    assert found[-1] >= most * (1 - 1e-9)
    assert re.fullmatch(r"[125]e[+-]\d+", f"{found[1]:.0e}")


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0"), (0.0123, "0.0123"), (0.731, "0.731"), (1.234, "1.23"), (27_061.4, "27,061")]
)
def test_a_figure_has_three_digits_or_is_whole(value: float, written: str) -> None:
    assert figure(value) == written


def test_a_plot_is_svg_with_each_rows_name_and_median_for_light_and_dark_pages() -> None:
    drawn = bars("One launch", "seconds", ROWS)
    texts = [text.text for text in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"One launch (seconds)", "Homeport", "docker <run>", "1.10", "2.50"} <= set(texts)
    assert "prefers-color-scheme: dark" in drawn


def test_only_homeports_own_bars_stand_out() -> None:
    assert bars("t", "u", {"Homeport, 10 routes": [1.0], "other": [1.0]}).count('class="bar ours"') == 1


def test_busy_is_what_is_neither_idle_nor_waiting_for_a_disk() -> None:
    before, after = "cpu  10 0 10 100 10 0 0 0 5 0\ncpu0 …", "cpu  20 0 20 160 20 0 10 0 9 0\ncpu0 …"
    assert share(processor_times(before), processor_times(after)) == 0.3
    assert share((1, 2), (1, 2)) == 0.0


def test_a_result_is_read_as_it_was_kept(tmp_path: Path) -> None:
    result = a_result()
    result.keep(tmp_path)
    assert results.kept("launch", tmp_path) == result
    assert results.kept("proxy", tmp_path) is None


@pytest.mark.parametrize(
    ("value", "aim", "at_most", "said"),
    [
        (0.7, 0.75, True, "≤ 0.75"),
        (0.8, 0.75, True, "≤ 0.75, not reached"),
        (7.0, 6.0, False, "≥ 6"),
        (5.0, 6.0, False, "≥ 6, not reached"),
        (1.0, None, True, ""),
    ],
)
def test_an_aim_says_whether_it_is_reached(value: float, aim: float | None, at_most: bool, said: str) -> None:
    assert str(Judged(name="", value=value, aim=aim, at_most=at_most)) == said


def test_the_page_says_when_where_and_by_which_command_each_part_was_measured() -> None:
    written = page.section("Launching", a_result())
    assert "2026-01-02 03:04 UTC, `make bench PART=launch`. 2 CPUs. HAProxy 1.0." in written
    assert "| docker <run> | 2.50 | 2.00 | 3.00 | 2 |" in written
    assert "| Homeport / docker run | 0.440 | ≤ 0.5 |" in written
    assert "A note." in written
    assert written.count("](images/bench-launch-one-launch.svg)") == 1  # the other table has no plot


def test_the_page_warns_of_a_machine_that_had_other_work() -> None:
    result = a_result()
    assert "other work" not in page.section("", result)
    result.busy = [0.9]
    assert "**The machine had other work meanwhile.**" in page.section("", result)


def test_the_page_has_the_parts_that_were_measured_and_no_plot_of_an_earlier_page(tmp_path: Path) -> None:
    images = tmp_path / "docs" / "images"
    images.mkdir(parents=True)
    (images / "bench-launch-gone.svg").touch()
    (images / "check.png").touch()
    (tmp_path / "bench").mkdir()
    a_result().keep(tmp_path / "bench" / "results")
    page.write(tmp_path)
    written = (tmp_path / page.PAGE).read_text()
    assert page.PARTS["launch"] in written
    assert page.PARTS["proxy"] not in written
    assert sorted(file.name for file in images.iterdir()) == ["bench-launch-one-launch.svg", "check.png"]


def test_page_and_plots_are_current(tmp_path: Path) -> None:
    """`python -m bench.page` writes them anew."""
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "results").symlink_to(results.FOLDER)
    page.write(tmp_path)
    kept, made = (
        {file.name: file.read_text() for file in (root / page.PAGE, *root.glob("docs/images/bench-*"))}
        for root in (ROOT, tmp_path)
    )
    assert kept == made
