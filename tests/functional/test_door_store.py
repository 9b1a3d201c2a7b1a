"""The door and the rates in DynamoDB, as moto has it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from chalicelib.aws.door import DoorStore
from chalicelib.session.door import Rate
from tests.builders import NOW
from tests.contract.door import DoorContract
from tests.table import TABLE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class TestDoorStore(DoorContract):
    @pytest.fixture
    def door(self, dynamodb: DynamoDBClient, clock: Callable[[], float]) -> DoorStore:
        return DoorStore(dynamodb, TABLE, clock)


def test_whom_a_rate_is_about_is_not_told_and_is_forgotten_when_its_bucket_is_full(dynamodb: DynamoDBClient) -> None:
    DoorStore(dynamodb, TABLE, lambda: NOW).take("network 203.0.113.7/32", Rate(60, 3600.0))
    (item,) = dynamodb.scan(TableName=TABLE)["Items"]
    assert "203.0.113" not in str(item)
    assert item["ttl"]["N"] == str(int(NOW + 3600) + 1)


def test_requests_at_the_same_moment_are_counted_one_by_one(dynamodb: DynamoDBClient) -> None:
    door, rate = DoorStore(dynamodb, TABLE, lambda: NOW), Rate(3, 60.0)
    with ThreadPoolExecutor(8) as pool:
        late = list(pool.map(lambda _: door.take("a", rate), range(40)))
    assert sum(seconds == 0.0 for seconds in late) == 3
