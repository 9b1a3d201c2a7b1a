"""What every door does: inherited by the tests of the twin and of the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from chalicelib.session.door import Door, Rate
from chalicelib.web import hub
from tests.builders import NOW


class Doors(hub.Doorkeeper, Protocol):
    """What the hub needs, the operator's command and the schedule."""

    def close(self, message: str) -> None: ...
    def open(self) -> None: ...
    def count(self, sessions: int) -> None: ...


class DoorContract:
    now = NOW

    @pytest.fixture
    def door(self) -> Doors:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Callable[[], float]:
        return lambda: self.now

    def test_a_door_is_open_until_it_is_closed_and_then_again(self, door: Doors) -> None:
        assert door.read() == Door()
        door.close("We are moving. Back at noon")
        assert door.read() == Door("We are moving. Back at noon")
        door.open()
        door.open()
        assert door.read() == Door()

    def test_what_was_counted_is_beside_what_the_operator_says(self, door: Doors) -> None:
        door.count(7)
        door.close("closed")
        self.now = NOW + 60
        door.count(0)
        assert door.read() == Door("closed", 0, NOW + 60)
        assert door.read(counted=False) == Door("closed")

    def test_so_many_are_let_in_at_once_and_then_one_after_the_other(self, door: Doors) -> None:
        rate = Rate(3, 60.0)
        assert [door.take("a", rate) for _ in range(3)] == [0.0, 0.0, 0.0]
        assert door.take("a", rate) == pytest.approx(20)
        assert door.take("b", rate) == 0.0
        self.now += 19
        assert door.take("a", rate) == pytest.approx(1)
        self.now += 1
        assert door.take("a", rate) == 0.0
        assert door.take("a", rate) == pytest.approx(20)
        self.now += 60
        assert [door.take("a", rate) > 0 for _ in range(4)] == [False, False, False, True]
