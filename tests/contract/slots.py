"""What every store of slots must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.aws.slots import Pool, repository_pool
from chalicelib.launcher.outside import Slots
from chalicelib.repository.source import Provider, Source
from chalicelib.session.admission import Crowd, Quota, Slot
from tests.builders import NOW

QUOTA = Quota(per_owner=2, per_network=3, in_all=4)


def a_slot(owner: str = "owner", endpoint: str = "203.0.113.7/32", source: str = "", seconds: float = 60.0) -> Slot:
    return Slot(owner, endpoint, source, NOW + seconds)


class SlotStoreContract:
    """`slots` is a fixture of the inheriting class; its clock shows `self.now`."""

    now = NOW

    def test_a_slot_that_was_taken_is_held(self, slots: Slots) -> None:
        assert slots.take(Pool.PULL, "one", a_slot(), QUOTA) is None
        assert slots.held(Pool.PULL) == slots.held(Pool.PULL, consistent=False) == {"one": a_slot()}
        assert slots.held(Pool.SLOW) == {}

    def test_there_are_as_many_as_the_quota_says(self, slots: Slots) -> None:
        for sid in ("one", "two"):
            assert slots.take(Pool.PULL, sid, a_slot(), QUOTA) is None
        assert slots.take(Pool.PULL, "three", a_slot(), QUOTA) == Crowd(2, "with your key")
        assert set(slots.held(Pool.PULL)) == {"one", "two"}

    def test_a_slot_can_be_renewed_however_many_there_are(self, slots: Slots) -> None:
        for sid in ("one", "two"):
            slots.take(Pool.PULL, sid, a_slot(), QUOTA)
        assert slots.take(Pool.PULL, "two", a_slot(seconds=600.0), QUOTA) is None
        assert slots.held(Pool.PULL)["two"] == a_slot(seconds=600.0)

    def test_a_slot_that_lasts_nearly_as_long_is_not_written_again(self, slots: Slots) -> None:
        slots.take(Pool.PULL, "one", a_slot(), QUOTA)
        slots.put(Pool.SLOW, "one", a_slot())
        for later, pulls, slow in ((5.0, 60.0, 60.0), (15.0, 60.0, 75.0), (35.0, 95.0, 95.0)):
            slots.take(Pool.PULL, "one", a_slot(seconds=60.0 + later), QUOTA)
            slots.put(Pool.SLOW, "one", a_slot(seconds=60.0 + later))
            assert slots.held(Pool.PULL)["one"].until == NOW + pulls
            assert slots.held(Pool.SLOW)["one"].until == NOW + slow

    def test_a_repository_has_a_pool_of_its_own_whatever_its_version_and_folder(self, slots: Slots) -> None:
        quota, nobody = Quota(per_owner=1, per_network=1, in_all=2), a_slot(owner="", endpoint="")
        lessons = Source(Provider.GITHUB, "https://github.com/somebody/lessons")
        other = replace(lessons, address="https://github.com/somebody/other")
        for sid, source in (("one", lessons), ("two", replace(lessons, ref="main", folder="a"))):
            assert slots.take(repository_pool(source), sid, nobody, quota) is None
        assert slots.take(repository_pool(lessons), "three", nobody, quota) == Crowd(2, "on this hub")
        assert slots.take(repository_pool(other), "three", nobody, quota) is None
        assert slots.take(repository_pool(lessons), "one", a_slot(owner="", endpoint="", seconds=600), quota) is None
        slots.give_back(repository_pool(lessons), "two")
        assert slots.take(repository_pool(lessons), "three", nobody, quota) is None

    def test_a_slot_that_was_given_back_is_free(self, slots: Slots) -> None:
        for sid in ("one", "two"):
            slots.take(Pool.PULL, sid, a_slot(), QUOTA)
        slots.give_back(Pool.PULL, "one")
        slots.give_back(Pool.PULL, "one")
        assert slots.take(Pool.PULL, "three", a_slot(), QUOTA) is None
        assert set(slots.held(Pool.PULL)) == {"two", "three"}

    def test_a_slot_whose_time_is_over_is_free(self, slots: Slots) -> None:
        for sid in ("one", "two"):
            slots.take(Pool.PULL, sid, a_slot(), QUOTA)
        self.now = NOW + 60.0
        assert slots.held(Pool.PULL) == {}
        assert slots.take(Pool.PULL, "three", a_slot(seconds=120.0), QUOTA) is None

    def test_a_slot_can_be_put_whatever_a_quota_would_say(self, slots: Slots) -> None:
        for number in range(6):
            slots.put(Pool.SLOW, f"sid-{number}", a_slot())
        assert len(slots.held(Pool.SLOW)) == 6
