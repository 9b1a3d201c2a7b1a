"""The logs of builds in DynamoDB, as moto has it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from chalicelib.aws.build_logs import LOG_BYTES, LOG_TTL, PART_BYTES, BuildLogStore
from tests.builders import NOW
from tests.table import TABLE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SID = "0123456789abcdef0123456789abcdef"
NOISE = random.Random(7).randbytes(4 << 20).decode("latin-1")  # what cannot be packed


class TestBuildLogStore:
    """Logs of builds, kept whole and for a while."""

    @pytest.fixture
    def logs(self, dynamodb: DynamoDBClient) -> BuildLogStore:
        return BuildLogStore(dynamodb, TABLE, lambda: NOW)

    @pytest.mark.parametrize(
        "text", ["", "Step 1/1 : FROM scratch", "é" * PART_BYTES, NOISE[: PART_BYTES // 2], NOISE[: 2 * PART_BYTES]]
    )
    def test_a_log_is_kept_whole(self, logs: BuildLogStore, text: str) -> None:
        logs.put(SID, 1, text)
        assert logs.get(SID, 1) == text
        assert (logs.get(SID, 2), logs.get(SID[::-1], 1)) == (None, None)

    def test_of_what_one_answer_could_not_hold_the_end_is_kept(self, logs: BuildLogStore) -> None:
        logs.put(SID, 1, NOISE)
        kept = logs.get(SID, 1)
        assert kept is not None
        assert NOISE.endswith(kept)
        assert LOG_BYTES // 8 < len(kept) < LOG_BYTES

    def test_a_shorter_log_replaces_a_longer_one(self, logs: BuildLogStore) -> None:
        logs.put(SID, 1, NOISE[: 3 * PART_BYTES])
        logs.put(SID, 1, "short")
        assert logs.get(SID, 1) == "short"

    def test_each_part_expires(self, logs: BuildLogStore, dynamodb: DynamoDBClient) -> None:
        logs.put(SID, 1, "x" * 3 * PART_BYTES)
        items = dynamodb.scan(TableName=TABLE)["Items"]
        assert {item["sk"]["S"] for item in items} == {"build-log#1", "build-log#1#1", "build-log#1#2"}
        assert {item["ttl"]["N"] for item in items} == {str(int(NOW + LOG_TTL))}
