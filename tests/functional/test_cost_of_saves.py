"""What an endpoint can make the hub write, for as long as it likes: small saves, now and then, and a bounded log."""

from __future__ import annotations

from typing import Any

from chalicelib.session.narration import LOG_LINES
from tests.pull_rig import PullRig
from tests.table import TABLE
from tests.write_units import write_units


def items_beside(dynamodb: Any, sid: str) -> int:
    """How many items there are of a session besides its own."""
    values = {":pk": {"S": f"session#{sid}"}}
    found = dynamodb.query(TableName=TABLE, KeyConditionExpression="pk = :pk", ExpressionAttributeValues=values)
    return int(found["Count"]) - 1


def test_an_endless_pull_is_saved_a_few_times_a_minute(dynamodb: Any) -> None:
    rig = PullRig(dynamodb)
    rig.pull_for(10)
    with write_units(dynamodb) as units:
        rig.pull_for(120)
    assert len(units.sizes["session"]) <= 120 / 3 + 5
    assert max(units.sizes["session"]) < 1536
    assert items_beside(dynamodb, rig.sid) <= 3


def test_an_endpoint_that_always_says_something_new_makes_no_save_large_and_no_log_long(dynamodb: Any) -> None:
    """Each pull gets a little further and fails with another text: as many lines as the endpoint likes."""
    rig = PullRig(dynamodb, fails=lambda second: second % 2 == 0)
    with write_units(dynamodb) as units:
        rig.pull_for(600)
    assert len(units.sizes["session"]) > 3 * LOG_LINES
    assert max(units.sizes["session"]) < 4096
    assert max(units.sizes["line"]) < 1024
    assert items_beside(dynamodb, rig.sid) <= LOG_LINES
