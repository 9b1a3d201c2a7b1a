"""The door and the rates: who may launch at the moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.session.door import COUNT_SECONDS, Door, Rate
from tests.contract.door import DoorContract
from tests.launcher_twins import DoorTwin


class TestDoorTwin(DoorContract):
    @pytest.fixture
    def door(self, clock: Callable[[], float]) -> DoorTwin:
        return DoorTwin(clock)


@given(
    rate=st.builds(Rate, st.integers(1, 50), st.floats(1.0, 7200.0)),
    pauses=st.lists(st.floats(0.0, 3000.0), min_size=1, max_size=200),
)
def test_no_more_are_let_in_than_a_full_bucket_and_what_has_come_back(rate: Rate, pauses: list[float]) -> None:
    now, full_at, let_in, began = 1e9, 0.0, 0, 1e9
    for pause in pauses:
        now += pause
        full_at, late = rate.taken(full_at, now)
        let_in += late == 0.0
        assert late <= rate.seconds / rate.count * 1.001
        assert full_at <= now + rate.seconds * 1.001
    assert let_in <= rate.count + (now - began) / rate.seconds * rate.count + 1


def test_a_wait_that_is_over_lets_one_in() -> None:
    rate, full_at = Rate(7, 100.0), 0.0
    for _ in range(7):
        full_at, late = rate.taken(full_at, 5000.0)
        assert late == 0.0
    for now in range(1, 50):
        full_at, late = rate.taken(full_at, 5000.0)
        assert late > 0, now
    assert rate.taken(full_at, 5000.0 + late)[1] == 0.0


def test_a_count_is_believed_for_a_while() -> None:
    door = Door("", 10, 1000.0)
    assert [door.holds(limit, 1000.0) for limit in (None, 11, 10, 9)] == [False, False, True, True]
    assert not door.holds(10, 1000.0 + COUNT_SECONDS)
