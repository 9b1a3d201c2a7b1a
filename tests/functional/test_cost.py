"""docs/cost.md is what is counted today, and no aim for it is missed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bench import bench_cost
from bench.bench_cost import AIMS, PAGE, as_text, of_visitors
from bench.costs import rounded_up


@pytest.fixture(scope="module")
def visitors() -> Mapping[str, float]:
    return of_visitors()


@pytest.mark.parametrize("name", AIMS)
def test_visitors_cost_no_more_than_is_aimed_at(visitors: Mapping[str, float], name: str) -> None:
    assert visitors[name] <= AIMS[name]


def test_the_page_says_what_is_counted(visitors: Mapping[str, float]) -> None:
    assert as_text(visitors) == PAGE.read_text(), f"run: python -m {bench_cost.__name__} --write"


@pytest.mark.parametrize(
    ("dollars", "said"), [(0.05, "0.050"), (0.0500001, "0.051"), (0.0499, "0.050"), (0.0, "0.000")]
)
def test_a_price_above_an_aim_does_not_look_as_if_it_were_not(dollars: float, said: str) -> None:
    assert rounded_up(dollars) == said
