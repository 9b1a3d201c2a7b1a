"""What a function makes at its start, and that importing app.py makes nothing elsewhere (docs/adr/0022)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from chalicelib.session.lanes import Lane
from tests.functional.hub_rig import ENVIRONMENT
from tests.policies import ROOT

ADDRESSED = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
STORES = {"dynamodb", "kms", "s3", "sqs"}

# Tells which AWS clients there are after the import, which modules, and which calls were begun meanwhile.
PROGRAM = """
import gc, json, sys
import botocore.session
made, calls = [], []
class Session(botocore.session.Session):
    def create_client(self, service, *args, **kwargs):
        client = super().create_client(service, *args, **kwargs)
        client.meta.events.register("before-call", lambda **call: calls.append(service))
        made.append(service)
        return client
import boto3
boto3.setup_default_session(botocore_session=Session())
import app
from chalicelib.web import pages
from chalicelib.wiring import wiring
found = {"made": sorted(made), "calls": calls, "modules": sorted(sys.modules)}
found |= {"pages": pages._environment.cache_info().currsize, "collects": gc.isenabled(), "kept": gc.get_freeze_count()}
print(json.dumps(found))
"""


def ran(program: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A program in the environment of a function, or of an operator's shell."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def started(handler: str) -> dict[str, Any]:
    """What the function of this handler has made at its start, when it asks nothing of AWS yet."""
    run = ran(PROGRAM, {**ADDRESSED, "_HANDLER": handler})
    assert run.returncode == 0, run.stderr
    found = dict(json.loads(run.stdout))
    assert found["calls"] == []
    assert found["collects"]
    assert found["kept"]  # is not looked through again
    return found


def test_importing_the_app_elsewhere_makes_no_client_and_looks_for_no_credentials() -> None:
    run = ran("import app, sys; print(*sys.modules, sep='\\n')", {})
    assert run.returncode == 0, run.stderr
    assert not {"boto3", "botocore.credentials", "docker", "jinja2"} & set(run.stdout.split())


def test_the_web_function_makes_clients_and_pages_at_its_start_and_nothing_of_docker() -> None:
    found = started("app.app")
    assert set(found["made"]) == STORES
    assert found["pages"]
    assert not {"docker", "requests", "chalicelib.launcher.effects"} & set(found["modules"])


@pytest.mark.parametrize("lane", Lane)
def test_a_lanes_function_makes_clients_and_its_effects_at_its_start_and_no_page(lane: Lane) -> None:
    found = started(f"app.{lane}")
    assert set(found["made"]) == STORES | ({"ssm"} if lane in (Lane.LAUNCH, Lane.WATCH) else set())
    assert {"docker", "chalicelib.launcher.effects", "chalicelib.launcher.tick"} <= set(found["modules"])
    assert not found["pages"]
    assert "jinja2" not in found["modules"]


def test_the_schedules_function_makes_the_two_clients_that_it_needs() -> None:
    found = started("app.redrive")
    assert found["made"] == ["dynamodb", "sqs"]
    assert not {"docker", "jinja2"} & set(found["modules"])


@pytest.mark.parametrize("handler", ["app.app", "app.launch", "app.redrive", "app.no-such-function"])
def test_a_start_that_fails_is_logged_and_ends_nothing(handler: str) -> None:
    """Without a region there is no client; the first event says so in the form that it always had."""
    run = ran("import app", {"_HANDLER": handler})
    assert run.returncode == 0
    assert "Not all was made at the start: " in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
