"""The stores on a second DynamoDB: dynalite, which shares no line with moto. What both do, AWS's is likely to do.

It is npm's, installed from the lock in tests/dynalite into build/.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from chalicelib.aws.door import DoorStore
from local import processes
from local.settings import ROOT
from tests.contract.door import DoorContract
from tests.functional.test_build_log_store import TestBuildLogStore as _OfBuildLogs
from tests.functional.test_image_store import TestImageStore as _OfImages
from tests.functional.test_proxy_agent import TestProxyStore as _OfProxies
from tests.functional.test_slot_store import TestSlotStore as _OfSlots
from tests.functional.test_stores import TestRouteStore as _OfRoutes
from tests.functional.test_stores import TestSessionStore as _OfSessions
from tests.functional.test_token_store import TestTokenStore as _OfTokens
from tests.table import TABLE, create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LOCK = ROOT / "tests" / "dynalite"
AT_ONCE: Any = {"Delay": 0.02, "MaxAttempts": 500}  # seconds; botocore sleeps parts of one, too

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or shutil.which("node") is None, reason="needs `apt-get install nodejs npm`"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dynalite of its own."""
    port = processes.free_port()
    command = ["node", str(installed() / "node_modules" / "dynalite" / "cli.js"), "--host=127.0.0.1", f"--port={port}"]
    command += [f"--{change}TableMs=0" for change in ("create", "delete", "update")]
    folder = tmp_path_factory.mktemp("dynalite")
    with processes.running("dynalite", command, folder=folder) as child:
        processes.wait_for_port(port, child=child)
        yield f"http://127.0.0.1:{port}"


def installed() -> Path:
    """The folder that the lock's packages are in."""
    folder = ROOT / "build" / "dynalite"
    lock = (LOCK / "package-lock.json").read_bytes()
    if not (folder / "node_modules").is_dir() or (folder / "package-lock.json").read_bytes() != lock:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(LOCK, folder)
        command = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=folder, check=True, timeout=300)
    return folder


@pytest.fixture
def dynamodb(server: str) -> Iterator[DynamoDBClient]:
    """A client of an empty table there."""
    client = boto3.client(
        "dynamodb",
        "eu-west-1",
        endpoint_url=server,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
    create_table(client)
    client.get_waiter("table_exists").wait(TableName=TABLE, WaiterConfig=AT_ONCE)
    yield client
    client.delete_table(TableName=TABLE)
    client.get_waiter("table_not_exists").wait(TableName=TABLE, WaiterConfig=AT_ONCE)
    client.close()


class TestSessionStore(_OfSessions):
    """As on moto."""


class TestBuildLogStore(_OfBuildLogs):
    """As on moto."""


class TestRouteStore(_OfRoutes):
    """As on moto."""


class TestProxyStore(_OfProxies):
    """As on moto, but for what is written together: dynalite knows no transactions."""

    test_sign_outs_are_fed_and_end_the_grants_and_tickets_that_they_are_about = None  # type: ignore[assignment]


class TestTokenStore(_OfTokens):
    """As on moto, but for signing out, which writes together."""

    test_what_was_read_before_is_over_all_the_same_with_its_time_or_a_sign_out = None  # type: ignore[assignment]
    test_signing_a_browser_out_ends_what_it_has_for_ever = None  # type: ignore[assignment]
    test_signing_owners_out_ends_in_all_browsers_what_they_signed_in_to_until_then = None  # type: ignore[assignment]
    test_the_browser_of_a_token_is_known_whatever_it_still_stands_for = None  # type: ignore[assignment]
    test_an_earlier_sign_out_that_is_written_late_takes_nothing_from_a_later_one = None  # type: ignore[assignment]
    test_what_is_made_late_of_a_sign_in_that_is_over_is_over = None  # type: ignore[assignment]


class TestSlotStore(_OfSlots):
    """As on moto."""


class TestImageStore(_OfImages):
    """As on moto."""


class TestDoorStore(DoorContract):
    @pytest.fixture
    def door(self, dynamodb: DynamoDBClient, clock: Callable[[], float]) -> DoorStore:
        return DoorStore(dynamodb, TABLE, clock)
