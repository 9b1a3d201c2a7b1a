"""What Lambda is given: `chalice package` of the project as it is deployed, its zip and its template."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from chalicelib.config import Config
from chalicelib.session.lanes import Lane
from infra.packages import fetch_packages
from infra.project import stage_project
from tests.locks import canonical, locked, requirements
from tests.policies import OUTPUTS, ROOT, function_policy

RESERVED = 20
LARGEST = 8_000_000  # bytes; the web function's cold start pays for each
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `chalice package` wrote, of the project as it is deployed; no AWS account is asked.

    Chalice has no package index to fetch anything from.
    """
    folder = tmp_path_factory.mktemp("package")
    fetch_packages(ROOT, folder / "project")
    environment = {"HOMEPORT_QUEUES": "homeport-test"}
    reserved = {Lane.LEAVE.value: RESERVED}
    stage_project(ROOT, folder / "project", outputs=OUTPUTS, environment=environment, reserved=reserved)
    chalice = [str(PROGRAMS / "chalice"), "--project-dir", str(folder / "project")]
    packaged = subprocess.run(
        [*chalice, "package", "--stage", "test", str(folder / "out")],
        env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HOMEPORT_"))}
        | {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"}
        | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert packaged.returncode == 0, packaged.stdout + packaged.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def archive(package: Path) -> Iterator[ZipFile]:
    with ZipFile(package / "deployment.zip") as opened:
        yield opened


@pytest.fixture(scope="module")
def sam(package: Path) -> dict[str, Any]:
    return dict(json.loads((package / "sam.json").read_text())["Resources"])


def test_the_zip_stays_small(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = (package / "deployment.zip").stat().st_size
    with capsys.disabled():
        sys.stdout.write(f"[deployment.zip: {size:,} bytes]")
    assert size <= LARGEST


def test_the_zip_holds_the_app_chalice_and_the_locked_packages_and_nothing_else(archive: ZipFile) -> None:
    names = {name for name in archive.namelist() if not name.endswith("/")}
    records = {name for name in names if name.endswith(".dist-info/RECORD")}
    installed = {row[0] for name in records for row in csv.reader(io.StringIO(archive.read(name).decode()))}
    ours = {name for name in names if name == "app.py" or name.startswith(("chalicelib/", "chalice/"))}
    assert names - installed - ours == set()
    shipped = [name.removesuffix(".dist-info/RECORD").split("-") for name in records]
    assert {(canonical(name), version) for name, version in shipped} == _locked_for_lambda()


LAMBDA = {"sys_platform": "linux", "platform_machine": "aarch64", "platform_python_implementation": "CPython"}


def _locked_for_lambda() -> set[tuple[str, str]]:
    return {(package.name, package.version) for package in locked("lambda") if package.applies(LAMBDA)}


def test_the_lock_holds_what_the_requirements_need_and_nothing_else() -> None:
    pending = [one.name for one in requirements("lambda")]
    wanted: set[str] = set()
    while pending:
        name = canonical(pending.pop())
        if name not in wanted:
            wanted.add(name)
            needed = [Requirement(line) for line in requires(name) or ()]
            pending += [
                one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": "", **LAMBDA})
            ]
    assert wanted == {name for name, _ in _locked_for_lambda()}


def test_all_of_chalicelib_is_shipped_and_nothing_beside_it(archive: ZipFile) -> None:
    shipped = {name for name in archive.namelist() if name.startswith("chalicelib/") and not name.endswith("/")}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "chalicelib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == source


def test_neither_lambdas_own_libraries_nor_the_other_parts_are_shipped(archive: ZipFile) -> None:
    tops = {name.split("/")[0] for name in archive.namelist()}
    foreign = {"boto3", "botocore", "moto", "pytest", "tests", "local", "infra", "proxy", "bench", "docs", ".chalice"}
    assert not tops & foreign
    secrets = [name for name in archive.namelist() if name.endswith((".pem", ".key", ".env", ".p12", ".pyc"))]
    assert secrets == ["certifi/cacert.pem"]  # public CAs


def test_compiled_parts_are_for_the_architecture_the_functions_run_on(archive: ZipFile, sam: dict[str, Any]) -> None:
    compiled = [name for name in archive.namelist() if re.search(r"\.so(\.\d+)*$", name) and "abi3" not in name]
    assert compiled
    assert all("aarch64" in name for name in compiled if "cpython" in name)
    assert {tuple(function["Architectures"]) for function in _functions(sam).values()} == {("arm64",)}


def test_the_template_passes_cfn_lint(package: Path) -> None:
    linted = subprocess.run([PROGRAMS / "cfn-lint", package / "sam.json"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_each_function_gets_its_own_time_memory_and_policy(sam: dict[str, Any]) -> None:
    functions = _functions(sam)
    assert {name: (found["Timeout"], found["MemorySize"]) for name, found in functions.items()} == {
        "APIHandler": (30, 512),
        "Launch": (120, 512),
        "Pull": (900, 512),
        "Leave": (120, 512),
        "Watch": (60, 512),
        "Redrive": (60, 512),
    }
    for name, policy in (("APIHandler", "web"), *((lane.capitalize(), lane) for lane in Lane), ("Redrive", "redrive")):
        role = functions[name]["Role"]["Fn::GetAtt"][0]
        (inline,) = sam[role]["Properties"]["Policies"]
        assert inline["PolicyDocument"] == function_policy(policy)
        assert "ManagedPolicyArns" not in sam[role]["Properties"]


def test_functions_are_reserved_for_the_lane_that_leaves_alone(sam: dict[str, Any]) -> None:
    reserved = {name: found.get("ReservedConcurrentExecutions") for name, found in _functions(sam).items()}
    assert reserved == {**dict.fromkeys(reserved), "Leave": RESERVED}


def test_each_lane_is_driven_by_its_queue_and_the_schedule_by_the_clock(sam: dict[str, Any]) -> None:
    functions = _functions(sam)
    for lane in Lane:
        (event,) = functions[lane.capitalize()]["Events"].values()
        assert event["Type"] == "SQS"
        assert f"homeport-test-{lane}" in json.dumps(event["Properties"]["Queue"])
        limit = event["Properties"]["ScalingConfig"]["MaximumConcurrency"]
        assert limit == Config.from_environ({}).functions_of(lane)
    (event,) = functions["Redrive"]["Events"].values()
    assert (event["Type"], event["Properties"]["Schedule"]) == ("Schedule", "rate(1 minute)")


def _functions(sam: dict[str, Any]) -> dict[str, Any]:
    return {name: found["Properties"] for name, found in sam.items() if found["Type"] == "AWS::Serverless::Function"}
