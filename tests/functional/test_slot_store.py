"""The slots in DynamoDB, as moto has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chalicelib.aws.slots import NOTES_MOST, Pool, SlotStore
from tests.contract.slots import SlotStoreContract, a_slot
from tests.table import TABLE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class TestSlotStore(SlotStoreContract):
    @pytest.fixture
    def slots(self, dynamodb: DynamoDBClient) -> SlotStore:
        self._dynamodb = dynamodb
        return SlotStore(dynamodb, TABLE, lambda: self.now)

    def test_a_change_that_comes_in_between_is_not_lost(self, slots: SlotStore) -> None:
        other = SlotStore(self._dynamodb, TABLE, lambda: self.now)
        events, event = self._dynamodb.meta.events, "before-call.dynamodb.PutItem"

        def meanwhile(**_: object) -> None:
            events.unregister(event, meanwhile)
            other.put(Pool.SLOW, "other", a_slot())

        events.register(event, meanwhile)
        slots.put(Pool.SLOW, "one", a_slot())
        assert set(slots.held(Pool.SLOW)) == {"one", "other"}

    def test_a_note_that_is_renewed_is_among_the_latest(self, slots: SlotStore) -> None:
        for sid in ("one", "two"):
            slots.put(Pool.SLOW, sid, a_slot())
        slots.put(Pool.SLOW, "one", a_slot(seconds=120.0))
        assert list(slots.held(Pool.SLOW)) == ["two", "one"]

    def test_a_pool_that_cannot_be_read_is_empty_and_one_of_a_later_version_is_read(self, slots: SlotStore) -> None:
        slots.put(Pool.SLOW, "one", a_slot())
        for stored, read in (("{", {}), ('{"one": 7}', {}), ('{"one": ["a", "b", "c", 9e9, "new"]}', {"one"})):
            self._dynamodb.update_item(
                TableName=TABLE,
                Key={"pk": {"S": "slots#slow"}, "sk": {"S": "slots"}},
                UpdateExpression="SET slots = :slots",
                ExpressionAttributeValues={":slots": {"S": stored}},
            )
            assert set(slots.held(Pool.SLOW)) == set(read)
            slots.put(Pool.SLOW, "two", a_slot())
            assert "two" in slots.held(Pool.SLOW)

    def test_a_pool_goes_with_its_last_slot(self, slots: SlotStore) -> None:
        slots.put(Pool.SLOW, "one", a_slot(seconds=60.0))
        slots.put(Pool.SLOW, "two", a_slot(seconds=30.0))
        item = self._dynamodb.get_item(TableName=TABLE, Key={"pk": {"S": "slots#slow"}, "sk": {"S": "slots"}})["Item"]
        assert int(item["ttl"]["N"]) == self.now + 61

    def test_the_notes_are_bounded_and_the_latest_are_kept(self, slots: SlotStore) -> None:
        for number in range(NOTES_MOST + 2):
            slots.put(Pool.SLOW, f"sid-{number}", a_slot())
        held = slots.held(Pool.SLOW)
        assert len(held) == NOTES_MOST
        assert "sid-0" not in held
