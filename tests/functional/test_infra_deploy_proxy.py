"""`make deploy` with the proxy on Fargate, and `make destroy`, against moto's server: each change refused once.

Nobody lists the changes: whatever is asked for the first time and changes something is refused, and the same command,
run again, goes further.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.session.lanes import Lane
from infra.certificates import NAMES
from infra.destroy import STACKS_BEFORE
from infra.project import POLICIES, function_name
from tests.deployment import Done, Rig, forked, rig
from tests.moto_gaps import let_load_balancers_be_of_networks, let_networks_be_deleted, let_repositories_be_emptied
from tests.operator_calls import not_allowed
from tests.policies import ROOT, operator_policy

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")

DOCKER = """#!/bin/sh
exec {python} {root}/tests/docker_command.py "$@"
"""
STACKS = ["homeport-test", "homeport-test-network", "homeport-test-proxy", "homeport-test-registry"]
INDEX = "ring"  # which becomes another one
NOTHING = json.dumps({"Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}})


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account in which nothing is deployed; IAM does not say what is allowed there, which takes it long."""
    with pytest.MonkeyPatch.context() as patch, rig(tmp_path_factory.mktemp("empty")) as started:
        let_load_balancers_be_of_networks(patch)
        let_networks_be_deleted(patch)
        let_repositories_be_emptied(patch)
        started.gateway.refused = "SimulatePrincipalPolicy"
        with forked(started, "deploy", "destroy"):
            yield started


def options(empty: Rig) -> dict[str, str]:
    """What the operator has and wants. moto's stacks make no certificate, and forget a parameter's default."""
    asked = empty.client("acm").request_certificate(DomainName="*.notebooks.example.org", ValidationMethod="DNS")
    return {
        "HOMEPORT_ALARM_EMAIL": "ops@example.com",
        "HOMEPORT_PROXY": "fargate",
        "HOMEPORT_PROXY_CERTIFICATE_ARN": asked["CertificateArn"],
    }


def machine(empty: Rig) -> dict[str, str]:
    """A machine with Docker, and with no Python for bytecode, which takes long to compile."""
    folder = empty.project.parent / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER.format(python=sys.executable, root=ROOT))
    (folder / "docker").chmod(0o755)
    nowhere = dict.fromkeys(("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"), "/nonexistent")
    return {"PATH": f"{folder}{os.pathsep}{os.defpath}", **nowhere}


def test_what_the_proxy_lacks_is_said_before_anything_is_made(empty: Rig) -> None:
    before = empty.everything()
    for change, said in (
        ({"HOMEPORT_PROXY_SIZE": "256/4096"}, "HOMEPORT_PROXY_SIZE must be"),
        ({"DOCKER_HOST": "unix:///nonexistent/docker.sock"}, "name its engine in DOCKER_HOST"),
    ):
        done = empty.deploy(**options(empty), **change)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert empty.everything() == before


def parameters(empty: Rig, part: str) -> dict[str, str]:
    (stack,) = empty.client("cloudformation").describe_stacks(StackName=f"homeport-test-{part}")["Stacks"]
    return {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}


def move_to_fixed_addresses(empty: Rig, given: dict[str, str], changes: list[str]) -> None:
    """With fixed addresses, functions of the lanes and proxies are in private subnets."""
    wanted = {"HOMEPORT_FIXED_ADDRESSES": "1", "HOMEPORT_ADDRESSES": "198.51.100.4"}
    fixed = empty.repeat("deploy", changes, failed, **given, **wanted)
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    allowed(empty)
    (address,) = [one["PublicIp"] for one in empty.client("ec2").describe_addresses()["Addresses"]]
    assert f"the launcher connects from {address}" in fixed.stdout
    subnets = {name: set(function["VpcConfig"]["SubnetIds"]) for name, function in functions(empty).items()}
    inside = subnets["homeport-test-launch"]
    assert len(inside) == 2
    assert {name for name, found in subnets.items() if found == inside} == {f"homeport-test-{lane}" for lane in Lane}
    assert {name for name, found in subnets.items() if not found} == {"homeport-test", "homeport-test-redrive"}
    for function in functions(empty).values():
        assert function["Environment"]["Variables"]["HOMEPORT_ADDRESSES"] == f"198.51.100.4, {address}"
    assert set(re.findall(r"subnet-\w+", parameters(empty, "proxy")["PrivateSubnets"])) == inside
    policy = empty.client("iam").get_role_policy(RoleName="homeport-test-pull", PolicyName="homeport-test-pull")
    assert "HaveNetworkInterfaces" in json.dumps(policy["PolicyDocument"])
    assert "ok: the role homeport-test-pull has the policy infra/policies/pull.json alone" in fixed.stdout


def move_back(empty: Rig, given: dict[str, str], changes: list[str]) -> None:
    """Without, they are not again."""
    unmoved = empty.deploy("--api", **given, HOMEPORT_FIXED_ADDRESSES="0")
    assert unmoved.returncode == 0, unmoved.stdout + unmoved.stderr
    assert "homeport-test-watch, the proxies would have no way out" in unmoved.stdout
    without = empty.repeat("deploy", changes, failed, **given, HOMEPORT_FIXED_ADDRESSES="0")
    assert without.returncode == 0, without.stdout + without.stderr
    allowed(empty)
    assert "Released, of the hub's fixed addresses: 1 (stack homeport-test-network)" in without.stdout
    assert "ok: the role homeport-test-pull has the policy infra/policies/pull.json alone" in without.stdout
    assert not any(function["VpcConfig"]["SubnetIds"] for function in functions(empty).values())
    assert "subnet-" not in parameters(empty, "proxy")["PrivateSubnets"]
    assert parameters(empty, "network")["FixedAddresses"] == "0", "moto's stacks take no condition for a change"


def allowed(empty: Rig) -> None:
    """See that the operator's policies allow what was just done; what nobody signed, Docker asked for."""
    calls = [call for call in empty.gateway.calls if call.service]
    assert not_allowed(calls, operator_policy("proxy")) == set()


def functions(empty: Rig) -> dict[str, dict[str, Any]]:
    found = empty.client("lambda").list_functions()["Functions"]
    return {function["FunctionName"]: {"VpcConfig": {"SubnetIds": []}, **function} for function in found}


def failed(refused: str, done: Done) -> None:
    """A run to which something was refused says so, and what to do."""
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, refused
    assert "not today" in said, refused
    assert "Run the same command again once that is fixed" in said, refused
    assert "Traceback" not in said, refused


def check_all_is_there_once(empty: Rig) -> None:
    there = empty.everything()
    assert there["stacks"] == STACKS
    assert there["functions"] == sorted(function_name("test", function) for function in POLICIES)
    assert there["event sources"] == [f"homeport-test-{lane} homeport-test-{lane}" for lane in sorted(Lane)]
    assert there["apis"] == ["homeport test"]
    assert there["parameters"] == sorted(f"/homeport/test/{name}" for name in NAMES)
    assert there["rules"] == ["homeport-test-redrive-event"]
    assert [kind for kind, names in there.items() if len(set(names)) < len(names)] == []
    for called in ("homeport-test", "homeport-test-redrive"):
        policy = json.loads(empty.client("lambda").get_policy(FunctionName=called)["Policy"])
        assert len(policy["Statement"]) == 1, "who may call it"
    targets = empty.client("events").list_targets_by_rule(Rule="homeport-test-redrive-event")["Targets"]
    images = empty.client("ecr").describe_images(repositoryName="homeport-test-proxy")["imageDetails"]
    kept = [key.rpartition(".")[2] for key in objects_of(empty)]
    assert (len(targets), len(images), kept) == (1, 1, ["json", "zip"])


def check_the_proxy(empty: Rig, said: str) -> None:
    assert "Stack homeport-test-proxy is up to date" in said
    assert "The proxy: let *.notebooks.example.org be a CNAME for " in said
    told = parameters(empty, "proxy")
    (api,) = empty.apis()
    assert told["HubOrigin"].startswith(f"https://{api['id']}.execute-api.")
    assert told["HubUrl"] == f"{told['HubOrigin']}/api/", "to whose first page the proxy's own pages lead back"
    assert re.fullmatch(r".+\.amazonaws\.com/homeport-test-proxy@sha256:\w{64}", told["Image"])
    assert told["Architecture"] == "ARM64"


def objects_of(empty: Rig) -> list[str]:
    """All objects of all buckets."""
    s3 = empty.client("s3")
    buckets = [one["Name"] for one in s3.list_buckets()["Buckets"]]
    return [one["Key"] for name in buckets for one in s3.list_objects_v2(Bucket=name).get("Contents", [])]


def change_an_index(empty: Rig) -> None:
    """Have the project be a newer version, with an index of another name; the stack is of one that protected none."""
    for path in (empty.project / "infra" / "resources.yaml", *empty.project.glob("infra/policies/*.json")):
        path.write_text(re.sub(rf"(IndexName: |/index/){INDEX}\b", r"\1circle", path.read_text()))
    empty.client("cloudformation").update_termination_protection(
        StackName="homeport-test", EnableTerminationProtection=False
    )


def destroy_step_by_step(empty: Rig) -> list[str]:
    """Take all away, and say what was refused. As long as credentials are left, all else is there."""
    for part in STACKS_BEFORE:
        if f"homeport-test-{part}" not in empty.everything()["stacks"]:
            empty.client("cloudformation").create_stack(StackName=f"homeport-test-{part}", TemplateBody=NOTHING)
    empty.client("s3").put_object(Bucket=empty.outputs()["Bucket"], Key="credentials/x", Body=b"sealed")
    whole, changes = empty.everything() | {"parameters": []}, list[str]()

    def not_all(refused: str, done: Done) -> None:
        failed(refused, done)
        if objects_of(empty) or empty.certificates():
            assert empty.everything() | {"parameters": []} == whole, "credentials go first"

    gone = empty.repeat("destroy", changes, not_all, CONFIRM="test")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    allowed(empty)
    return changes


def check_what_was_refused(changes: list[str], deletions: list[str]) -> None:
    """Nobody lists all of it. These are of each kind: what AWS is asked for, Docker, and stacks."""
    asked = Counter(" ".join(one.split()[:2]) for one in changes)
    once = ("CreateServiceLinkedRole", "PutImage", "POST /docker/build", "UpdateTerminationProtection")
    assert [asked[one] for one in (*once, *(f"CreateStack {name}" for name in STACKS))] == [1] * 8
    assert asked["UpdateStack homeport-test"] == 5, "as it was; an index more, the rest, an index less; as it is"
    assert asked["UpdateStack homeport-test-network"] == 2, "without addresses, as in the end again, and with one"
    assert re.fullmatch("POST /homeport-test-bucket-[^/]+", deletions[0])
    assert deletions[1] == "DeleteParameters"
    steps = [" ".join(one.split()[:2]) for one in deletions]
    assert {one for one in steps if one.startswith("DeleteStack")} == {
        f"DeleteStack homeport-test{part}" for part in ("", "-network", *(f"-{one}" for one in STACKS_BEFORE))
    }
    own = steps.index("DeleteStack homeport-test")
    assert steps[own - 2 : own] == ["UpdateTable", "UpdateTerminationProtection"]


def test_each_change_is_refused_once_and_the_command_repeated(empty: Rig) -> None:
    base = {"HOMEPORT_PROXY_BASE": "debian@sha256:" + "0" * 64}
    given, changes = options(empty) | machine(empty) | base, list[str]()
    done = empty.repeat("deploy", changes, failed, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    allowed(empty)
    check_all_is_there_once(empty)
    check_the_proxy(empty, done.stdout)
    change_an_index(empty)
    move_to_fixed_addresses(empty, given, changes)
    check_all_is_there_once(empty)
    move_back(empty, given, changes)
    check_all_is_there_once(empty)
    check_what_was_refused(changes, destroy_step_by_step(empty))
    left = {kind: found for kind, found in empty.everything().items() if found}
    assert left.keys() == {"roles"}
    assert all(name.startswith("AWSServiceRole") for name in left["roles"]), "those are the account's"
    assert not (empty.project / ".chalice" / "deployed" / "test.json").exists()
