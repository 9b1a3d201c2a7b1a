"""The proxy's part of `make deploy` against moto: what is there afterwards, repeated too, and what is refused.

The Docker engine is a twin that puts an image into moto's ECR; the real command is run by
tests/integration/test_proxy_image.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib.environment import variables
from chalicelib.errors import BadConfiguration
from chalicelib.metrics import NAMESPACE, Metric
from infra.images import Docker, Login, digest_of_sources, sources
from infra.network import NetworkOptions
from infra.proxy_step import (
    SERVICES,
    SIZES,
    ProxyOptions,
    deploy_proxy,
    make_service_roles,
)
from infra.stack import deploy_stack
from proxy.run import GRACE_SECONDS
from proxy.settings import Settings
from tests.iam_requests import Asked, operator_requests, refused
from tests.moto_gaps import let_load_balancers_be_of_networks
from tests.policies import ROOT, operator_policy, template

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")

REGION = "eu-west-1"
ZONE = {"HOMEPORT_PROXY": "fargate", "HOMEPORT_PROXY_ZONE": "Z0123456789"}


@dataclass(frozen=True)
class Wanted:
    """What of an operator's request the proxy's step asks for."""

    stage: str
    options: Mapping[str, str]
    alarm_email: str | None
    network: NetworkOptions = field(default_factory=NetworkOptions)


REQUEST = Wanted("test", {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"}, "ops@example.com")
BASE = "debian@sha256:" + "0" * 64


class DockerTwin(Docker):
    """A Docker engine whose images are pushed to moto; `done` is what it was asked, `own` its platform."""

    def __init__(self, session: boto3.Session, own: str = "linux/amd64") -> None:
        super().__init__({})
        self.done: list[str] = []
        self.newest = BASE
        self.works = True
        self._ecr = session.client("ecr")
        self._own = own

    def platform(self) -> str:
        return self._own

    def base(self, name: str, platform: str) -> str:
        return self.newest

    def build(self, root: Path, tag: str, *, base: str, platform: str) -> None:
        if not self.works:
            raise BadConfiguration("docker build failed: no space left")
        self.done.append(f"build {base} {platform}")

    def push(self, tag: str, login: Login) -> None:
        uri, _, name = tag.rpartition(":")
        assert (uri.partition("/")[0], login.user) == (login.registry, "AWS")
        self.done.append("push")
        media = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {"schemaVersion": 2, "mediaType": media, "layers": [{"digest": f"sha256:{name}", "size": 1}]}
        self._ecr.put_image(repositoryName=uri.partition("/")[2], imageManifest=json.dumps(manifest), imageTag=name)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    """An AWS with the stage's resources."""
    let_load_balancers_be_of_networks(monkeypatch)
    with mock_aws():
        made = boto3.Session("test", "test", region_name=REGION)
        resources = (ROOT / "infra" / "resources.yaml").read_text()
        stack = made.client("cloudformation")
        deploy_stack(stack, name="homeport-test", template=resources, parameters={"Stage": "test"})
        made.client("acm").request_certificate(DomainName="*.notebooks.example.org", ValidationMethod="DNS")
        yield made


def certificate(session: boto3.Session) -> str:
    """The certificate that the operator had ACM issue: moto's stacks request none."""
    (found,) = session.client("acm").list_certificates()["CertificateSummaryList"]
    return str(found["CertificateArn"])


def parameters(session: boto3.Session, part: str = "proxy") -> dict[str, str]:
    (stack,) = session.client("cloudformation").describe_stacks(StackName=f"homeport-test-{part}")["Stacks"]
    return {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}


def subnets_of(given: Mapping[str, str]) -> list[str]:
    """The subnets, which moto shows as Python would a list."""
    return re.findall(r"subnet-\w+", given["Subnets"])


def stacks(session: boto3.Session) -> set[str]:
    found = session.client("cloudformation").describe_stacks()["Stacks"]
    return {stack["StackName"] for stack in found}


def run(
    session: boto3.Session, docker: Docker, environ: Mapping[str, str] | None = None, request: Wanted = REQUEST
) -> list[str]:
    """Deploy, and return what was said."""
    said: list[str] = []
    given = {"HOMEPORT_PROXY": "fargate", "HOMEPORT_PROXY_CERTIFICATE_ARN": certificate(session)}
    options = ProxyOptions.from_environ(given | dict(environ or {}))
    deploy_proxy(
        request,
        options,
        session,
        docker,
        hub_origin="https://hub.example.com",
        hub_url="https://hub.example.com/",
        say=said.append,
    )
    return said


def test_from_nothing_there_are_a_repository_with_the_image_a_network_and_the_proxy(session: boto3.Session) -> None:
    docker = DockerTwin(session)
    run(session, docker)
    assert docker.done == [f"build {BASE} linux/amd64", "push"]
    assert stacks(session) >= {f"homeport-test-{part}" for part in ("registry", "network", "proxy")}
    given = parameters(session)
    assert re.fullmatch(r"\d+\.dkr\.ecr\.eu-west-1\.amazonaws\.com/homeport-test-proxy@sha256:\w{64}", given["Image"])
    assert given["EcrRepository"] == "homeport-test-proxy"
    assert given["Architecture"] == "X86_64"
    assert (given["NotebookDomain"], given["HubOrigin"]) == ("notebooks.example.org", "https://hub.example.com")
    assert (given["Cpu"], given["Memory"], given["Tasks"], given["MaxTasks"]) == ("256", "1024", "2", "10")
    assert (given["AlarmEmail"], given["HostedZoneId"], given["CertificateArn"]) == (
        "ops@example.com",
        "",
        certificate(session),
    )
    subnets = session.client("ec2").describe_subnets(SubnetIds=subnets_of(given))["Subnets"]
    assert {subnet["VpcId"] for subnet in subnets} == {given["Vpc"]}
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 2


def test_repeated_nothing_is_built_or_made_twice(session: boto3.Session) -> None:
    docker = DockerTwin(session)
    run(session, docker)
    before, given, done = stacks(session), parameters(session), list(docker.done)
    said = run(session, docker)
    assert (stacks(session), parameters(session), docker.done) == (before, given, done)
    assert [line for line in said if "there already" in line]


def test_a_newer_base_image_is_built_on_and_deployed(session: boto3.Session) -> None:
    docker = DockerTwin(session)
    run(session, docker)
    before = parameters(session)["Image"]
    docker.newest = "debian@sha256:" + "1" * 64
    run(session, docker)
    assert docker.done.count("push") == 2
    assert parameters(session)["Image"] != before


def test_after_a_build_that_failed_the_command_is_repeated(session: boto3.Session) -> None:
    docker = DockerTwin(session)
    docker.works = False
    with pytest.raises(BadConfiguration, match="no space left"):
        run(session, docker)
    assert "homeport-test-proxy" not in stacks(session)
    docker.works = True
    run(session, docker)
    assert "homeport-test-proxy" in stacks(session)


def own_network(session: boto3.Session) -> dict[str, str]:
    """A network that the operator has, as options."""
    ec2 = session.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.0.{first}/28", AvailabilityZone=f"{REGION}{zone}")["Subnet"]
        for first, zone in ((0, "a"), (16, "b"))
    ]
    names = " ".join(subnet["SubnetId"] for subnet in subnets)
    return {"HOMEPORT_PROXY_VPC": vpc, "HOMEPORT_PROXY_SUBNETS": names}


def test_a_network_that_is_named_is_used_and_none_is_made(session: boto3.Session) -> None:
    named = own_network(session)
    run(session, DockerTwin(session), named)
    assert "homeport-test-network" not in stacks(session)
    assert parameters(session)["Vpc"] == named["HOMEPORT_PROXY_VPC"]
    assert subnets_of(parameters(session)) == named["HOMEPORT_PROXY_SUBNETS"].split()


def test_a_network_that_is_named_has_no_fixed_addresses(session: boto3.Session) -> None:
    with pytest.raises(BadConfiguration, match="Unset HOMEPORT_PROXY_VPC"):
        run(session, DockerTwin(session), own_network(session), replace(REQUEST, network=NetworkOptions(fixed=1)))
    assert "homeport-test-network" not in stacks(session)


def test_an_image_that_is_named_is_used_and_docker_is_not_needed(session: boto3.Session) -> None:
    image = "ghcr.io/somebody/homeport-proxy@sha256:" + "a" * 64
    environ = {"HOMEPORT_PROXY_IMAGE": image, "HOMEPORT_PROXY_PLATFORM": "linux/arm64"}
    run(session, Docker({"PATH": "/nonexistent"}), environ)
    given = parameters(session)
    assert (given["Image"], given["EcrRepository"], given["Architecture"]) == (image, "", "ARM64")
    assert "homeport-test-registry" not in stacks(session)


def test_a_second_stage_has_a_proxy_of_its_own(session: boto3.Session) -> None:
    docker = DockerTwin(session)
    run(session, docker)
    stack = session.client("cloudformation")
    resources = (ROOT / "infra" / "resources.yaml").read_text()
    deploy_stack(stack, name="homeport-other", template=resources, parameters={"Stage": "other"})
    run(session, docker, request=Wanted("other", REQUEST.options, None))
    assert stacks(session) >= {"homeport-test-proxy", "homeport-other-proxy"}
    assert docker.done.count("push") == 2


def test_the_accounts_roles_are_made_once(session: boto3.Session) -> None:
    iam = session.client("iam")
    assert make_service_roles(iam) == list(SERVICES)
    assert make_service_roles(iam) == []


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HOMEPORT_PROXY_SIZE": "256/4096"}, "HOMEPORT_PROXY_SIZE must be CPU units and MiB as Fargate has them"),
        ({"HOMEPORT_PROXY_SIZE": "300/1024"}, "HOMEPORT_PROXY_SIZE must be"),
        ({"HOMEPORT_PROXY_SIZE": "256"}, "HOMEPORT_PROXY_SIZE must be"),
        ({"HOMEPORT_PROXY_PLATFORM": "linux/riscv64"}, "HOMEPORT_PROXY_PLATFORM must be"),
        ({"HOMEPORT_PROXY_TASKS": "0"}, "HOMEPORT_PROXY_TASKS must be"),
        ({"HOMEPORT_PROXY_TASKS": "3", "HOMEPORT_PROXY_MAX_TASKS": "2"}, "below HOMEPORT_PROXY_TASKS"),
        ({"HOMEPORT_PROXY_VPC": "vpc-01234567"}, "with two subnets or more"),
        ({"HOMEPORT_PROXY_SUBNETS": "subnet-01234567 subnet-01234568"}, "set together"),
        ({"HOMEPORT_PROXY_VPC": "vpc-01234567", "HOMEPORT_PROXY_SUBNETS": "subnet-01234567"}, "two subnets"),
        ({"HOMEPORT_PROXY_SUBNETS": "10.0.0.0/24"}, "HOMEPORT_PROXY_SUBNETS must be"),
        ({"HOMEPORT_PROXY_ZONE": ""}, "needs a certificate for the notebooks' wildcard domain"),
        ({"HOMEPORT_PROXY_CERTIFICATE_ARN": "web.pem"}, "HOMEPORT_PROXY_CERTIFICATE_ARN must be"),
        ({"HOMEPORT_PROXY_IMAGE": "homeport-proxy:1"}, "HOMEPORT_PROXY_IMAGE must be"),
        ({"HOMEPORT_PROXY_IMAGE": f"x@sha256:{'a' * 64}"}, "needs HOMEPORT_PROXY_PLATFORM"),
        ({"HOMEPORT_PROXY": "ecs"}, "HOMEPORT_PROXY must be fargate, or empty"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(environ: dict[str, str], said: str) -> None:
    with pytest.raises(BadConfiguration, match=re.escape(said)):
        ProxyOptions.from_environ(ZONE | environ)


def test_who_runs_the_proxy_elsewhere_needs_no_options() -> None:
    assert ProxyOptions.from_environ({}).where == ""


def test_without_docker_nothing_is_touched_and_the_operator_is_told_what_to_install(session: boto3.Session) -> None:
    with pytest.raises(BadConfiguration, match=r"built by the command docker, which is not here. Install Docker"):
        run(session, Docker({"PATH": "/nonexistent"}))
    assert stacks(session) == {"homeport-test"}


def test_a_docker_that_does_not_answer_is_said_with_what_to_do(tmp_path: Path) -> None:
    docker = Docker({"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"})
    with pytest.raises(BadConfiguration, match=r"docker version failed: (.|\n)*name its engine in DOCKER_HOST"):
        docker.platform()


def test_a_platform_that_fargate_does_not_have_is_refused_before_anything_is_touched(session: boto3.Session) -> None:
    with pytest.raises(BadConfiguration, match="set HOMEPORT_PROXY_PLATFORM"):
        run(session, DockerTwin(session, "linux/ppc64le"))
    assert stacks(session) == {"homeport-test"}


def test_notebooks_at_another_port_are_refused_before_anything_is_touched(session: boto3.Session) -> None:
    request = Wanted("test", {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org:8443"}, None)
    with pytest.raises(BadConfiguration, match="the load balancer has port 443"):
        run(session, DockerTwin(session), request=request)
    assert stacks(session) == {"homeport-test"}


def test_the_image_is_named_after_each_file_that_is_copied_into_it_and_nothing_else(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("chalicelib", "proxy"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)

    def named(base: str = BASE, platform: str = "linux/amd64") -> str:
        return digest_of_sources(tmp_path, base=base, platform=platform)

    before = named()
    assert len({before, named(platform="linux/arm64"), named(base="debian@sha256:1")}) == 3
    copied = sources(tmp_path)
    assert Path("proxy/haproxy.cfg") in copied
    assert Path("chalicelib/aws/routes.py") in copied
    (tmp_path / "proxy" / "README.md").write_text("other words")
    (tmp_path / "chalicelib" / "web" / "forms.py").write_text("")
    (tmp_path / "proxy" / "agent" / "__pycache__").mkdir()
    (tmp_path / "proxy" / "agent" / "__pycache__" / "table.cpython-311.pyc").write_bytes(b"x")
    assert named() == before
    for file in (Path("proxy/Dockerfile"), *copied):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content + b"\n#")
        assert named() != before, file
        (tmp_path / file).write_bytes(content)


# ── what the operator has to be allowed ──────────────────────────────────────────────────────────────────────────

# What a real engine pushes with: https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
PUSHES = (
    "BatchCheckLayerAvailability",
    "BatchGetImage",
    "CompleteLayerUpload",
    "InitiateLayerUpload",
    "PutImage",
    "UploadLayerPart",
)


def test_the_step_itself_asks_for_nothing_that_the_operators_policies_do_not_allow(session: boto3.Session) -> None:
    asked: list[Asked] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        asked.extend(operator_requests(model.service_model.signing_name, model.name, params))

    session.events.register("before-parameter-build.*", note)
    run(session, DockerTwin(session))
    run(session, DockerTwin(session))
    session.events.unregister("before-parameter-build.*", note)
    made = {action for action, _, _ in asked}
    assert made >= {"ecr:GetAuthorizationToken", "iam:CreateServiceLinkedRole", "ecr:DescribeImages", "iam:ListRoles"}
    for action in PUSHES:
        asked.extend(operator_requests("ecr", action, {"repositoryName": "homeport-test-proxy"}))
    assert set(refused(asked, operator_policy(), operator_policy("proxy"))) == set()


# ── the templates ────────────────────────────────────────────────────────────────────────────────────────────────


def resource(name: str, of: str = "proxy.yaml") -> dict[str, Any]:
    return dict(template(of)["Resources"][name]["Properties"])


# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
FARGATE = {
    256: {512, 1024, 2048},
    512: set(range(1024, 4097, 1024)),
    1024: set(range(2048, 8193, 1024)),
    2048: set(range(4096, 16385, 1024)),
}


def test_the_template_and_the_options_offer_the_same_sizes_all_of_which_fargate_has() -> None:
    known = template("proxy.yaml")
    rules = {}
    for rule in known["Rules"].values():
        match rule:
            case {"RuleCondition": {"Fn::Equals": [{"Ref": "Cpu"}, cpu]}, "Assertions": [{"Assert": asserted}]}:
                (offered, _memory) = asserted["Fn::Contains"]
                rules[int(cpu)] = tuple(map(int, offered))
    assert rules == dict(SIZES)
    assert {str(cpu) for cpu in SIZES} == set(known["Parameters"]["Cpu"]["AllowedValues"])
    assert {str(size) for sizes in SIZES.values() for size in sizes} == set(
        known["Parameters"]["Memory"]["AllowedValues"]
    )
    assert all(set(sizes) <= FARGATE[cpu] for cpu, sizes in SIZES.items())


def test_a_rolling_replacement_of_all_proxies_fits_the_quotas_of_an_account() -> None:
    """Of a new account: six vCPUs of Fargate, which are asked for more; 200 targets per zone of a load balancer."""
    known = template("proxy.yaml")["Parameters"]
    most = known["MaxTasks"]["Default"] * resource("Service")["DeploymentConfiguration"]["MaximumPercent"] // 100
    assert most * int(known["Cpu"]["Default"]) <= 6 * 1024
    assert 2 * known["MaxTasks"]["MaxValue"] <= 500
    assert len((ROOT / "infra" / "proxy.yaml").read_bytes()) < 51_200  # CloudFormation's, for a template in the call


def test_the_parts_of_the_end_are_in_step() -> None:
    """Out of the load balancer, then SIGTERM, then HAProxy's time to drain, then the kill."""
    (drain,) = (float(known.default) for known in variables(Settings) if known.name == "HOMEPORT_PROXY_DRAIN")
    (container,) = resource("TaskDefinition")["ContainerDefinitions"]
    attributes = {one["Key"]: one["Value"] for one in resource("TargetGroup")["TargetGroupAttributes"]}
    given = {one["Name"] for one in container["Environment"]}
    assert "HOMEPORT_PROXY_DRAIN" not in given
    assert drain + GRACE_SECONDS < container["StopTimeout"] <= 120, "Fargate's most"
    assert int(attributes["deregistration_delay.timeout_seconds"]) >= 120, "what AWS advises for these load balancers"
    assert "deregistration_delay.connection_termination.enabled" not in attributes


def test_the_number_of_proxies_follows_the_connections_that_they_report() -> None:
    policy = resource("ScaleOnConnections")["TargetTrackingScalingPolicyConfiguration"]
    metric = policy["CustomizedMetricSpecification"]
    assert (metric["Namespace"], metric["MetricName"]) == (NAMESPACE, Metric.PROXY_CONNECTIONS)
    assert metric["Dimensions"] == [{"Name": "Stage", "Value": {"Ref": "Stage"}}]
    assert metric["Statistic"] == "Average", "each proxy writes one value"
    (container,) = resource("TaskDefinition")["ContainerDefinitions"]
    assert {"Name": "HOMEPORT_STAGE", "Value": {"Ref": "Stage"}} in container["Environment"]
    (most,) = (int(known.default) for known in variables(Settings) if known.name == "HOMEPORT_PROXY_MAXCONN")
    assert policy["TargetValue"] < 0.6 * most, "until another one is there, a minute or two, more may come"
    assert "DesiredCount" not in resource("Service"), "an update would undo the scaling"
    assert resource("Scaling")["MinCapacity"] == {"Ref": "Tasks"}


def test_idle_connections_are_kept_below_the_350_seconds_of_a_tls_listener() -> None:
    assert resource("Listener")["Protocol"] == "TLS"
    assert "ListenerAttributes" not in resource("Listener"), "the time is fixed"
    config = (ROOT / "proxy" / "haproxy.cfg").read_text()
    times = {name: int(seconds) for name, seconds in re.findall(r"(clitcpka-\w+) (\d+)", config)}
    assert times["clitcpka-idle"] + times["clitcpka-intvl"] < 350


def test_the_certificate_is_validated_in_the_zone_or_named() -> None:
    known = template("proxy.yaml")
    assert known["Resources"]["Certificate"]["Condition"] == "RequestsCertificate"
    domain = {"Fn::Sub": "*.${NotebookDomain}"}
    asked = resource("Certificate")
    assert (asked["DomainName"], asked["ValidationMethod"]) == (domain, "DNS")
    assert asked["DomainValidationOptions"] == [{"DomainName": domain, "HostedZoneId": {"Ref": "HostedZoneId"}}]
    (used,) = resource("Listener")["Certificates"]
    assert used["CertificateArn"]["Fn::If"] == [
        "RequestsCertificate",
        {"Ref": "Certificate"},
        {"Ref": "CertificateArn"},
    ]
    refused = known["Rules"]["Certificate"]
    assert refused["RuleCondition"] == {"Fn::Equals": [{"Ref": "CertificateArn"}, ""]}
    assert refused["Assertions"][0]["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "HostedZoneId"}, ""]}]}


def test_load_balancers_ask_at_the_port_that_no_visitor_reaches() -> None:
    group = resource("TargetGroup")
    assert (group["Port"], group["HealthCheckPort"], group["HealthCheckPath"]) == (8080, "8081", "/.homeport/ready")
    ports = [one["ToPort"] for one in resource("DoorSecurityGroup")["SecurityGroupIngress"]]
    assert set(ports) == {443}
    for one in resource("ProxySecurityGroup")["SecurityGroupIngress"]:
        assert one["SourceSecurityGroupId"] == {"Ref": "DoorSecurityGroup"}


def test_the_networks_subnets_lead_out_do_not_overlap_and_are_in_two_zones() -> None:
    resources = template("network.yaml")["Resources"]
    of = {name: one["Properties"] for name, one in resources.items()}
    assert of["RouteOut"]["DestinationCidrBlock"] == "0.0.0.0/0"
    assert (of["RouteOut"]["GatewayId"], of["RouteOut"]["RouteTableId"]) == ({"Ref": "Gateway"}, {"Ref": "Routes"})
    subnets = [name for name, one in resources.items() if one["Type"] == "AWS::EC2::Subnet"]
    routed = {
        one["SubnetId"]["Ref"]: one["RouteTableId"]["Ref"] for name, one in of.items() if name.startswith("RoutesOf")
    }
    assert list(routed) == subnets == ["SubnetA", "SubnetB", "PrivateA", "PrivateB"]
    assert list(routed.values()) == ["Routes", "Routes", "PrivateRoutesA", "PrivateRoutesB"]
    blocks = [ip_network(of[name]["CidrBlock"]) for name in subnets]
    first, more = (ip_network(of[name]["CidrBlock"]) for name in ("Network", "PrivateAddresses"))
    assert (set(first.subnets()), set(more.subnets())) == (set(blocks[:2]), set(blocks[2:]))
    assert {name: resources[name].get("DependsOn") for name in subnets[2:]} == dict.fromkeys(
        subnets[2:], "PrivateAddresses"
    )
    assert [of[name]["AvailabilityZone"]["Fn::Select"][0] for name in subnets] == [0, 1, 0, 1]
    most = 2 * template("proxy.yaml")["Parameters"]["MaxTasks"]["MaxValue"]
    assert most + 2 * (8 + 5) <= 2 * blocks[0].num_addresses, (
        "twice, while they are replaced; the load balancer's, and AWS's own"
    )


def test_what_is_in_private_subnets_gets_out_by_gateways_in_the_public_ones_and_nobody_gets_in() -> None:
    resources = template("network.yaml")["Resources"]
    of = {name: one["Properties"] for name, one in resources.items()}
    for zone in "AB":
        assert of[f"Nat{zone}"]["SubnetId"] == {"Ref": f"Subnet{zone}"}
        assert of[f"Nat{zone}"]["AllocationId"] == {"Fn::GetAtt": f"Address{zone}.AllocationId"}
        out = of[f"PrivateOut{zone}"]
        assert (out["RouteTableId"], out["DestinationCidrBlock"]) == ({"Ref": f"PrivateRoutes{zone}"}, "0.0.0.0/0")
        assert "GatewayId" not in out
    assert of["PrivateOutB"]["NatGatewayId"] == {"Fn::If": ["HasTwoAddresses", {"Ref": "NatB"}, {"Ref": "NatA"}]}
    paid = {name for name, one in resources.items() if one["Type"] in ("AWS::EC2::NatGateway", "AWS::EC2::EIP")}
    assert {name: resources[name].get("Condition") for name in paid} == {
        "NatA": "HasAddress",
        "AddressA": "HasAddress",
        "NatB": "HasTwoAddresses",
        "AddressB": "HasTwoAddresses",
    }
    assert "SecurityGroupIngress" not in of["FunctionsSecurityGroup"]
    private = [{"Ref": "PrivateRoutesA"}, {"Ref": "PrivateRoutesB"}]
    for endpoint in ("WayToTheTable", "WayToTheBucket"):  # of the kind that costs nothing
        assert (of[endpoint]["VpcEndpointType"], of[endpoint]["RouteTableIds"]) == ("Gateway", private)


def test_proxies_are_in_the_private_subnets_if_addresses_are_fixed(session: boto3.Session) -> None:
    run(session, DockerTwin(session), request=replace(REQUEST, network=NetworkOptions(fixed=2)))
    (network,) = session.client("cloudformation").describe_stacks(StackName="homeport-test-network")["Stacks"]
    made = {one["OutputKey"]: one["OutputValue"] for one in network["Outputs"]}
    assert subnets_of(parameters(session)) == made["Subnets"].split(",")
    assert re.findall(r"subnet-\w+", parameters(session)["PrivateSubnets"]) == made["PrivateSubnets"].split(",")
    network_of = resource("Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network_of["AssignPublicIp"] == {"Fn::If": ["HasPrivateSubnets", "DISABLED", "ENABLED"]}
    wanted = {"Fn::If": ["HasPrivateSubnets", {"Ref": "PrivateSubnets"}, {"Ref": "Subnets"}]}
    assert network_of["Subnets"] == wanted


def test_the_user_of_a_docker_host_may_what_the_task_may() -> None:
    (of_user,) = resource("User", "proxy-user.yaml")["Policies"]
    (of_task,) = resource("TaskRole")["Policies"]
    assert of_user == of_task


def test_images_are_scanned_kept_for_going_back_and_never_replaced_under_their_name() -> None:
    repository = resource("Repository", "registry.yaml")
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["ImageTagMutability"] == "IMMUTABLE"
    rules = json.loads(repository["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
    kept = [rule["selection"]["countNumber"] for rule in rules if rule["selection"]["tagStatus"] == "any"]
    assert kept == [10]
