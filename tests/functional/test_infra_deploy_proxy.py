"""`make deploy` with the proxy on Fargate, and `make destroy`, against moto's server. The image is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.elbv2.models import ELBv2Backend

from tests.deployment import Rig, rig

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
        yield started


def options(empty: Rig) -> dict[str, str]:
    """What the operator has and wants. moto's stacks make no certificate, and forget a parameter's default."""
    ec2 = empty.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.0.{first}/28")["Subnet"]["SubnetId"] for first in (0, 16)]
    asked = empty.client("acm").request_certificate(DomainName="*.notebooks.example.org", ValidationMethod="DNS")
    return {
        "HOMEPORT_ALARM_EMAIL": "ops@example.com",
        "HOMEPORT_PROXY": "fargate",
        "HOMEPORT_PROXY_CERTIFICATE_ARN": asked["CertificateArn"],
        "HOMEPORT_PROXY_VPC": vpc,
        "HOMEPORT_PROXY_SUBNETS": ",".join(subnets),
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


def test_the_command_makes_the_proxy_too_and_destroying_takes_it_away(empty: Rig) -> None:
    given = options(empty) | {"HOMEPORT_PROXY_IMAGE": IMAGE, "HOMEPORT_PROXY_PLATFORM": "linux/arm64"}
    for _ in range(2):
        done = empty.deploy(**given)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Stack homeport-test-proxy is up to date" in done.stdout
        assert "The proxy: let *.notebooks.example.org be a CNAME for " in done.stdout
    (stack,) = empty.client("cloudformation").describe_stacks(StackName="homeport-test-proxy")["Stacks"]
    told = {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}
    (api,) = empty.apis()
    assert told["HubOrigin"].startswith(f"https://{api['id']}.execute-api.")
    assert (told["Image"], told["Architecture"]) == (IMAGE, "ARM64")
    gone = empty.make("destroy", CONFIRM="test")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "deleted: stack homeport-test-proxy" in gone.stdout
    left = {kind: found for kind, found in empty.everything().items() if found}
    assert left.keys() == {"roles"}
    assert all(name.startswith("AWSServiceRole") for name in left["roles"]), "those are the account's"
