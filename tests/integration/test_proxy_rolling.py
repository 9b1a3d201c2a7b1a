"""All proxies of a stage are replaced while visitors are at work: nobody gets an error."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import processes
from proxy.settings import PACKAGE
from tests.integration.rolling import WEBSOCKETS

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin") or os.geteuid() != 0,
    reason="needs root and `apt-get install haproxy iproute2`",
)


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, Any]]:
    """What visitors saw of a replacement in a network namespace."""
    folder = Path(tempfile.mkdtemp(prefix="hp"))  # short: unix sockets' names end at 108 bytes
    command = ["unshare", "--net", "--", sys.executable, "-m", "tests.integration.rolling", str(folder)]
    with processes.running("rolling", command, folder=folder, cwd=PACKAGE.parent, patience=30) as child:
        child.process.wait(120)
        assert child.process.returncode == 0, child.log_tail()
    yield json.loads((folder / "report.json").read_text())
    shutil.rmtree(folder)


def test_no_visitor_gets_an_error(report: dict[str, Any]) -> None:
    assert report["errors"] == []
    assert report["requests"] > 20


def test_each_websocket_that_is_closed_is_there_again_at_the_first_attempt(report: dict[str, Any]) -> None:
    assert report["closed"] == report["opened_again"] == WEBSOCKETS


def test_the_old_proxies_drain_and_end_well(report: dict[str, Any]) -> None:
    assert report["drained"] == [0, 0]
    assert report["connections_left"] == 0
