"""`make deploy` with the proxy on Fargate, and `make destroy`, against moto's server. The image is there already."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.elbv2.models import ELBv2Backend

from chalicelib.session.lanes import Lane
from tests.deployment import Rig, rig
from tests.moto_gaps import let_networks_be_deleted
from tests.operator_calls import not_allowed
from tests.policies import operator_policy

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")

IMAGE = "ghcr.io/somebody/homeport-proxy@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account in which nothing is deployed. moto's stacks take load balancers for applications': not here."""
    made_by_moto: Callable[..., Any] = ELBv2Backend.create_load_balancer

    def made_for_networks(*given: Any, **named: Any) -> Any:
        return made_by_moto(*given, **named, loadbalancer_type="network")

    with pytest.MonkeyPatch.context() as patch, rig(tmp_path_factory.mktemp("empty")) as started:
        patch.setattr(ELBv2Backend, "create_load_balancer", made_for_networks)
        let_networks_be_deleted(patch)
        yield started


def options(empty: Rig) -> dict[str, str]:
    """What the operator has and wants. moto's stacks make no certificate, and forget a parameter's default."""
    asked = empty.client("acm").request_certificate(DomainName="*.notebooks.example.org", ValidationMethod="DNS")
    return {
        "HOMEPORT_ALARM_EMAIL": "ops@example.com",
        "HOMEPORT_PROXY": "fargate",
        "HOMEPORT_PROXY_CERTIFICATE_ARN": asked["CertificateArn"],
    }


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


def move_to_fixed_addresses_and_back(empty: Rig, given: dict[str, str]) -> None:
    """With fixed addresses, functions of the lanes and proxies are in private subnets; without, they are not again."""
    fixed = empty.deploy(**given, HOMEPORT_FIXED_ADDRESSES="1", HOMEPORT_ADDRESSES="198.51.100.4")
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
    unmoved = empty.deploy("--api", **given, HOMEPORT_FIXED_ADDRESSES="0")
    assert unmoved.returncode == 0, unmoved.stdout + unmoved.stderr
    assert "homeport-test-watch, the proxies would have no way out" in unmoved.stdout
    empty.gateway.calls.clear()
    without = empty.deploy(**given, HOMEPORT_FIXED_ADDRESSES="0")
    assert without.returncode == 0, without.stdout + without.stderr
    allowed(empty)
    assert "Released, of the hub's fixed addresses: 1 (stack homeport-test-network)" in without.stdout
    assert "ok: the role homeport-test-pull has the policy infra/policies/pull.json alone" in without.stdout
    assert not any(function["VpcConfig"]["SubnetIds"] for function in functions(empty).values())
    assert "subnet-" not in parameters(empty, "proxy")["PrivateSubnets"]
    assert parameters(empty, "network")["FixedAddresses"] == "0", "moto's stacks take no condition for a change"


def allowed(empty: Rig) -> None:
    """See that the operator's policies allow what was just done."""
    assert not_allowed(empty.gateway.calls, operator_policy("proxy")) == set()


def functions(empty: Rig) -> dict[str, dict[str, Any]]:
    found = empty.client("lambda").list_functions()["Functions"]
    return {function["FunctionName"]: {"VpcConfig": {"SubnetIds": []}, **function} for function in found}


def test_the_command_makes_the_proxy_too_and_destroying_takes_it_away(empty: Rig) -> None:
    given = options(empty) | {"HOMEPORT_PROXY_IMAGE": IMAGE, "HOMEPORT_PROXY_PLATFORM": "linux/arm64"}
    empty.gateway.calls.clear()
    done = empty.deploy(**given)
    assert done.returncode == 0, done.stdout + done.stderr
    allowed(empty)
    assert "Stack homeport-test-proxy is up to date" in done.stdout
    assert "The proxy: let *.notebooks.example.org be a CNAME for " in done.stdout
    told = parameters(empty, "proxy")
    (api,) = empty.apis()
    assert told["HubOrigin"].startswith(f"https://{api['id']}.execute-api.")
    assert told["HubUrl"] == f"{told['HubOrigin']}/api/", "to whose first page the proxy's own pages lead back"
    assert (told["Image"], told["Architecture"]) == (IMAGE, "ARM64")
    empty.gateway.calls.clear()
    move_to_fixed_addresses_and_back(empty, given)
    empty.gateway.calls.clear()
    gone = empty.make("destroy", CONFIRM="test")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    allowed(empty)
    assert "deleted: stack homeport-test-proxy" in gone.stdout
    assert "deleted: stack homeport-test-network" in gone.stdout
    left = {kind: found for kind, found in empty.everything().items() if found}
    assert left.keys() == {"roles"}
    assert all(name.startswith("AWSServiceRole") for name in left["roles"]), "those are the account's"
