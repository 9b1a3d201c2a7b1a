"""What Lambda is given: `chalice package` of the project as it is deployed, its zip and its template."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import requires
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.tags import parse_tag

from chalicelib.config import Config
from chalicelib.session.lanes import Lane
from infra.artefact import NOT_COMPILED, Artefact, build_zip, find_python
from infra.plain import this_python
from infra.project import stage_project
from tests.lambda_rig import build
from tests.locks import canonical, locked, requirements
from tests.policies import OUTPUTS, ROOT, function_policy

RESERVED = 20
LARGEST = 8_000_000  # bytes; each start of a function pays for each
GLIBC = (2, 34)  # of Amazon Linux 2023
AARCH64 = 183  # e_machine in elf(5)
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The zip that a deployment makes."""
    return build(tmp_path_factory.mktemp("artefact"), "arm64", {})


@pytest.fixture(scope="module")
def archive(artefact: Artefact) -> Iterator[ZipFile]:
    with ZipFile(artefact.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artefact]:
    """The folder that `chalice package` wrote, and the zip that was built before; no AWS account is asked.

    It is that of a project without packages. Chalice has no package index to fetch any from.
    """
    folder = tmp_path_factory.mktemp("package")
    environment = {"HOMEPORT_QUEUES": "homeport-test"}
    reserved = {Lane.LEAVE.value: RESERVED}
    stage_project(ROOT, folder / "project", outputs=OUTPUTS, environment=environment, reserved=reserved)
    built = build_zip(folder / "project", this_python())
    chalice = [str(PROGRAMS / "chalice"), "--project-dir", str(folder / "project")]
    run = subprocess.run(
        [*chalice, "package", "--stage", "test", str(folder / "out")],
        env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HOMEPORT_"))}
        | {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"}
        | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "out", built


@pytest.fixture(scope="module")
def package(packaged: tuple[Path, Artefact]) -> Path:
    return packaged[0]


@pytest.fixture(scope="module")
def sam(package: Path) -> dict[str, Any]:
    return dict(json.loads((package / "sam.json").read_text())["Resources"])


def test_the_zip_stays_small(artefact: Artefact, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"[{artefact.size:,} bytes]")
    assert artefact.size <= LARGEST


def test_chalice_takes_the_zip_that_was_built(packaged: tuple[Path, Artefact]) -> None:
    folder, built = packaged
    assert sha256((folder / "deployment.zip").read_bytes()).hexdigest() == built.sha256


def test_a_zip_of_the_same_contents_is_the_same_from_anywhere(
    artefact: Artefact, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = artefact.path.parents[2]
    copied = tmp_path / "elsewhere" / "project"
    shutil.copytree(project, copied, ignore=shutil.ignore_patterns("deployments"), copy_function=shutil.copyfile)
    again = build_zip(copied, artefact.python)
    assert (again.sha256, again.size) == (artefact.sha256, artefact.size)
    (copied / "app.py").write_text((copied / "app.py").read_text() + "\n")
    assert build_zip(copied, artefact.python).sha256 != artefact.sha256


def test_all_that_functions_import_has_bytecode_that_is_not_compared_with_its_source(
    artefact: Artefact, archive: ZipFile
) -> None:
    """The modules without are named one by one (infra/artefact.py)."""
    if not artefact.is_compiled:
        pytest.skip(f"needs Python {artefact.python}: `.venv/bin/uv python install {artefact.python}`")
    names = set(archive.namelist())
    sources = {name for name in names if name.endswith(".py")}
    compiled = {_source_of(name) for name in names if name.endswith(".pyc")}
    assert {name for name in sources if not NOT_COMPILED.fullmatch(name)} == compiled
    assert {"app.py", "chalice/app.py", "chalicelib/launcher/tick.py", "docker/api/client.py"} <= compiled
    for name in names:
        if name.endswith(".pyc"):
            flags = int.from_bytes(archive.read(name)[4:8], "little")
            assert flags == 0b01, name  # hash-based and unchecked: PEP 552
            assert b"/var/task/" + _source_of(name).encode() in archive.read(name), name


def _source_of(bytecode: str) -> str:
    return re.sub(r"__pycache__/(\w+)\.cpython-313\.pyc", r"\1.py", bytecode)


def test_a_zip_without_a_python_of_the_functions_has_no_bytecode_and_says_so() -> None:
    assert find_python("3.99") is None
    said = str(Artefact(Path("zip"), "3.13", "ab" * 32, 6_100_000, is_compiled=False))
    assert "no Python 3.13 on this machine" in said


def test_nothing_of_this_machine_is_in_the_zips_entries(archive: ZipFile) -> None:
    entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {(entry.date_time, entry.external_attr >> 16) for entry in entries} == {((1980, 1, 1, 0, 0, 0), 0o100644)}


def test_the_zip_holds_the_app_chalice_and_the_locked_packages_and_nothing_else(archive: ZipFile) -> None:
    names = {name for name in archive.namelist() if not name.endswith(".pyc")}
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
    shipped = {name for name in archive.namelist() if name.startswith("chalicelib/") and not name.endswith(".pyc")}
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
    secrets = [name for name in archive.namelist() if name.endswith((".pem", ".key", ".env", ".p12"))]
    assert secrets == ["certifi/cacert.pem"]  # public CAs


def test_compiled_parts_are_for_the_architecture_and_the_python_that_the_functions_run_on(
    archive: ZipFile, sam: dict[str, Any]
) -> None:
    """By their own headers, by what they ask of glibc, and by the tags of the wheels that brought them."""
    compiled = {name: archive.read(name) for name in archive.namelist() if archive.read(name)[:4] == b"\x7fELF"}
    assert compiled.keys() == {name for name in archive.namelist() if re.search(r"\.so(\.\d+)*$", name)}
    assert {"cryptography/hazmat/bindings/_rust.abi3.so"} < compiled.keys()
    for name, contents in compiled.items():
        assert contents[4:6] == b"\x02\x01", name  # 64 bits, least byte first
        assert int.from_bytes(contents[18:20], "little") == AARCH64, name
        assert max(_glibc_versions(contents)) <= GLIBC, name
        assert re.search(r"\.(cpython-313-aarch64-linux-gnu|abi3)\.so$", name), name
    wheels = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
    tags = {
        tag for wheel in wheels for line in re.findall(r"^Tag: (.+)$", wheel, re.MULTILINE) for tag in parse_tag(line)
    }
    for tag in tags:
        assert tag.platform == "any" or re.fullmatch(r"manylinux(2014|_2_\d+)_aarch64", tag.platform), tag
        assert tag.abi in ("none", "abi3", "cp313"), tag
    assert {tuple(function["Architectures"]) for function in _functions(sam).values()} == {("arm64",)}


def _glibc_versions(contents: bytes) -> list[tuple[int, int]]:
    """The versions of glibc's symbols that an ELF object names: what it needs, by .gnu.version_r, is among them."""
    return [(int(major), int(minor)) for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", contents)]


def test_the_template_passes_cfn_lint(package: Path) -> None:
    linted = subprocess.run([PROGRAMS / "cfn-lint", package / "sam.json"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_each_function_gets_its_own_time_memory_and_policy(sam: dict[str, Any]) -> None:
    functions = _functions(sam)
    assert {name: (found["Timeout"], found["MemorySize"]) for name, found in functions.items()} == {
        "APIHandler": (30, 512),
        "Launch": (120, 544),
        "Pull": (900, 160),
        "Leave": (120, 160),
        "Watch": (60, 160),
        "Redrive": (60, 512),
    }
    for name, policy in (("APIHandler", "web"), *((lane.capitalize(), lane) for lane in Lane), ("Redrive", "redrive")):
        role = functions[name]["Role"]["Fn::GetAtt"][0]
        (inline,) = sam[role]["Properties"]["Policies"]
        assert inline["PolicyDocument"] == function_policy(policy)
        assert "ManagedPolicyArns" not in sam[role]["Properties"]


def test_each_function_has_the_handler_for_which_it_is_started(sam: dict[str, Any]) -> None:
    """`app.py` goes by it at the start (docs/adr/0022), and so do the tests that run the zip."""
    handlers = {name: function["Handler"] for name, function in _functions(sam).items()}
    assert handlers == {
        "APIHandler": "app.app",
        **{lane.capitalize(): f"app.{lane}" for lane in Lane},
        "Redrive": "app.redrive",
    }


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
