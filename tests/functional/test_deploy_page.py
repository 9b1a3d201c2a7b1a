"""docs/deploy.md, followed line by line: each of its commands is run, in its order, against moto's server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Ca
from tests.deployment import Rig, rig
from tests.operator_calls import not_allowed
from tests.policies import ACCOUNT, ROOT, operator_policy

PAGE = ROOT / "docs" / "deploy.md"
# What the page says an administrator does; all else is done with the policies for operators.
ADMINISTRATORS = {"What you need": {f"iam:CreatePolicy on arn:aws:iam::{ACCOUNT}:policy/homeport-operator"}}
NOT_RUN = "<!-- not run by the test"
MAKE = """#!/bin/sh
# The machine has what `make venv` installs.
exec {make} -o .venv/.installed/dev "$@"
"""
AWS = """#!/bin/sh
# Debian's knows no AWS_ENDPOINT_URL.
exec {aws} --endpoint-url "$AWS_ENDPOINT_URL" "$@"
"""

pytestmark = [pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")]


def blocks() -> Iterator[tuple[str, list[str]]]:
    """The page's commands: each heading with the lines of its indented blocks, but for those that are not run."""
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        runs = text.partition(NOT_RUN)[0]
        commands = [line.strip() for line in runs.splitlines() if re.match(r" {4,6}[a-z.A-Z_]", line)]
        if commands:
            yield title, commands


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account with nothing in it, and the machine that the page asks for."""
    aws = shutil.which("aws") or pytest.skip("needs the aws command: apt-get install awscli")
    with rig(tmp_path_factory.mktemp("page")) as started:
        for name in ("Makefile", "docs/deploy.md"):
            (started.project / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, started.project / name)
        (started.project / "tests").symlink_to(ROOT / "tests")
        (started.project / ".venv").symlink_to(Path(sys.prefix))
        programs = started.project.with_name("bin")
        programs.mkdir()
        for name, text in (
            ("make", MAKE.format(make=shutil.which("make"))),
            ("aws", AWS.format(aws=aws)),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        yield started


def run(account: Rig, lines: list[str], answer: str) -> subprocess.CompletedProcess[str]:
    programs = account.project.with_name("bin")
    environ = account.environ()
    environ["PATH"] = f"{programs}:{environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=account.project, env=environ, input=answer, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_every_command_of_the_page_does_what_the_page_says(account: Rig) -> None:
    found = dict(blocks())
    assert list(found) == [
        "What you need",
        "Options",
        "Look first",
        "Deploy",
        "The hub's domain",
        "A second stage",
        "Plain Chalice",
        "CloudFormation alone",
        "Take it away",
    ]
    options = found.pop("Options")
    for title, commands in found.items():
        if title == "The hub's domain":
            issued = Ca.new().issue("hub.example.com", sans=["hub.example.com"])  # its DNS record is there by now
            account.client("acm").import_certificate(Certificate=issued.certificate, PrivateKey=issued.key)
        account.gateway.calls.clear()
        done = run(account, [*options, *commands], "try\n")
        assert done.returncode == 0, f"{title}: {done.stdout}{done.stderr}"
        assert not_allowed(account.gateway.calls, operator_policy("operations")) == ADMINISTRATORS.get(title, set())
        AFTER.get(title, lambda _rig, _said: None)(account, done.stdout)
    names = account.everything()
    assert names["stacks"] == ["homeport-pack", "homeport-prod", "homeport-prod-domain"]
    assert {name for name in names["functions"] if name.startswith("homeport-try")} == set()
    assert (account.project / "build" / "pack" / "sam.json").is_file()


def _deployed(account: Rig, said: str) -> None:
    assert said.splitlines()[-1].startswith("The hub: https://hub.example.com/, once its domain points to https://")
    assert len(account.functions()) == 6


def _has_domain(account: Rig, said: str) -> None:
    (api,) = account.apis()
    assert api["disableExecuteApiEndpoint"] is True
    assert "and its first address is closed" in said


def _has_two_stages(account: Rig, _said: str) -> None:
    assert len(account.functions()) == 12


AFTER = {"Deploy": _deployed, "The hub's domain": _has_domain, "A second stage": _has_two_stages}
