"""The slots in DynamoDB, as moto has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.slots import SILENT_MOST, Pool, SlotStore
from tests.contract.slots import SlotStoreContract, a_slot
from tests.table import TABLE, create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def dynamodb() -> Iterator[DynamoDBClient]:
    with mock_aws():
        client = boto3.client("dynamodb", "eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
        create_table(client)
        yield client
        client.close()


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
            other.put(Pool.SILENT, "other", a_slot())

        events.register(event, meanwhile)
        slots.put(Pool.SILENT, "one", a_slot())
        assert set(slots.held(Pool.SILENT)) == {"one", "other"}

    def test_the_silent_ones_are_bounded_and_the_latest_are_kept(self, slots: SlotStore) -> None:
        for number in range(SILENT_MOST + 2):
            slots.put(Pool.SILENT, f"sid-{number}", a_slot())
        held = slots.held(Pool.SILENT)
        assert len(held) == SILENT_MOST
        assert "sid-0" not in held
