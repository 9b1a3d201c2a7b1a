"""What `make preflight` finds, and that what is wrong stops a deployment before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import boto3
import pytest

from chalicelib.config import Config
from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane
from infra.preflight import Preflight, covers, main, operator_actions, preflight, principal_of
from infra.quota import Quota, fit, reserved_for_leaving
from infra.request import read_request
from tests.certificates import Ca
from tests.deployment import OPTIONS, Rig, aws_environment, rig
from tests.policies import REGION

pytestmark = [pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("preflight")) as started:
        yield started


@pytest.fixture(autouse=True)
def aws(account: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The account's own answers: a thousand functions, everything allowed, no certificates."""
    for name, value in aws_environment(account.endpoint).items():
        monkeypatch.setenv(name, value)
    account.gateway.quota, account.gateway.refused = 1000, ""
    account.gateway.denied, account.gateway.conditional = set(), set()
    return account


def look(proxy: Callable[[], str] | None = None, **options: str) -> Preflight:
    return preflight(read_request("test", {**OPTIONS, **options}), boto3.Session(), proxy)


def for_arm() -> str:
    return "linux/arm64"


def said(found: Preflight) -> str:
    return "\n".join(map(str, found.findings))


def test_a_large_account_is_well_and_nothing_is_changed(aws: Rig) -> None:
    before = aws.everything()
    found = look()
    assert found.wrong == ()
    assert f"region {REGION}" in said(found)
    assert "built for Python 3.13 on Amazon Linux 2023" in said(found)
    assert "ok: 100 of the account's 1000 concurrent functions are the lanes'" in said(found)
    assert f"may do what a deployment does ({len(operator_actions())} actions)" in said(found)
    assert (found.reserved, found.options) == ({"leave": 20}, read_request("test", OPTIONS).options)
    assert aws.everything() == before


def test_a_new_accounts_lanes_are_made_to_fit_and_the_operator_is_told_how_to_ask_for_more(aws: Rig) -> None:
    aws.gateway.quota = 10
    found = look()
    assert found.wrong == ()
    assert found.reserved == {}
    assert found.options["HOMEPORT_FUNCTIONS"] == "8"
    text = said(found)
    assert "may have 10 functions at work at once (a new account's quota)" in text
    assert "launch 2, pull 2, leave 2, watch 2" in text
    assert "1 pull at once" in text
    assert "request-service-quota-increase --service-code lambda --quota-code L-B99A9384" in text


def test_what_the_operator_chose_is_kept_and_judged(aws: Rig) -> None:
    aws.gateway.quota = 10
    found = look(HOMEPORT_FUNCTIONS="40")
    assert found.options["HOMEPORT_FUNCTIONS"] == "40"
    assert "HOMEPORT_FUNCTIONS is 40, and the account has 10" in said(found)


def test_a_quota_that_cannot_be_read_is_said_to_be_unknown(aws: Rig) -> None:
    aws.gateway.quota = None
    found = look()
    assert (found.wrong, found.reserved) == ((), {})
    assert "cannot be read" in said(found)


@pytest.mark.parametrize(
    ("free", "functions"), [(1000, 100), (126, 100), (125, 100), (124, 99), (100, 80), (50, 40), (10, 8), (3, 8)]
)
def test_the_lanes_take_four_fifths_of_a_small_account_and_two_functions_each_at_least(
    free: int, functions: int
) -> None:
    config = Config.from_environ(fit({}, Quota(free, free)))
    assert config.functions == functions
    assert sum(config.functions_of(lane) for lane in Lane) <= functions
    assert min(config.functions_of(lane) for lane in Lane) >= 2


@pytest.mark.parametrize(
    ("free", "given"),
    [(1000, 20), (120, 20), (119, 0), (100, 0), (10, 0)],  # AWS wants a hundred left
)
def test_functions_are_reserved_only_of_those_that_others_leave(free: int, given: int) -> None:
    reserved = reserved_for_leaving({}, Quota(1000, free))
    assert reserved == ({"leave": given} if given else {})


def test_a_permission_that_is_missing_is_named_and_stops_the_deployment(
    aws: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.gateway.denied = {"lambda:CreateFunction", "iam:PassRole"}
    (wrong,) = look().wrong
    assert "may not: iam:PassRole, lambda:CreateFunction" in wrong.what
    assert "infra/operator-policy.json" in wrong.mend
    assert main(["--stage", "test"], OPTIONS) == 1
    assert "WRONG: " in capsys.readouterr().out
    before = aws.everything()
    refused = aws.deploy()
    assert refused.returncode == 1
    assert "Nothing was changed in AWS. " in refused.stderr
    assert "iam:PassRole" in refused.stderr
    assert aws.everything() == before


def test_a_permission_that_depends_on_what_iam_is_not_told_stops_nothing(aws: Rig) -> None:
    aws.gateway.conditional = {"sqs:CreateQueue"}
    found = look()
    assert found.wrong == ()
    assert "conditions of a policy decide" in said(found)
    assert "may: sqs:CreateQueue" in said(found)


def test_a_proxys_permissions_are_asked_about_before_anything_is_touched(aws: Rig) -> None:
    aws.gateway.denied = {"ecr:PutImage"}
    assert look().wrong == (), "nothing of it is needed without a proxy"
    aws.gateway.calls.clear()
    (wrong,) = look(for_arm).wrong
    assert "may not: ecr:PutImage" in wrong.what
    asked = [parse_qs(body) for body in aws.gateway.bodies("SimulatePrincipalPolicy")]
    told = {
        tuple(sorted(value for name, (value,) in one.items() if name.startswith("ContextEntries."))) for one in asked
    }
    assert ("ecs-tasks.amazonaws.com", "iam:PassedToService", "string") in told, "what its condition is about"
    assert () in told


def test_a_network_is_asked_about_if_functions_are_in_one_or_are_to_be(aws: Rig) -> None:
    aws.gateway.denied = {"ec2:CreateNatGateway"}
    assert look().wrong == ()
    assert [one.what for one in look(HOMEPORT_FIXED_ADDRESSES="1").wrong]
    with_addresses = {"Parameters": {"FixedAddresses": {"Type": "Number"}}, "Resources": QUEUE}
    aws.client("cloudformation").create_stack(
        StackName="homeport-test-network",
        TemplateBody=json.dumps(with_addresses),
        Parameters=[{"ParameterKey": "FixedAddresses", "ParameterValue": "1"}],
    )
    assert [one.what for one in look().wrong], "addresses of before are kept"
    aws.client("cloudformation").delete_stack(StackName="homeport-test-network")


QUEUE = {"Anything": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "homeport-test-anything"}}}


def test_a_proxy_that_cannot_be_deployed_is_wrong(aws: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ok: the proxy can be deployed, for linux/arm64" in said(look(for_arm))
    wanted = {
        **OPTIONS,
        "HOMEPORT_PROXY": "fargate",
        "HOMEPORT_PROXY_ZONE": "Z0",
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "PATH": "/usr/bin",
    }
    assert main(["--stage", "test"], wanted) == 1
    found = capsys.readouterr().out
    assert "WRONG: " in found
    assert "name its engine in DOCKER_HOST" in found
    assert "*.notebooks.example.org" not in found, "the zone has its certificate requested"


def test_permissions_are_asked_about_for_the_stages_own_things(aws: Rig) -> None:
    aws.gateway.calls.clear()
    look()
    asked = [parse_qs(body) for body in aws.gateway.bodies("SimulatePrincipalPolicy")]
    resources = {value for one in asked for name, (value,) in one.items() if name.startswith("ResourceArns.")}
    account = aws.gateway.account
    assert f"arn:aws:lambda:{REGION}:{account}:function:homeport-test" in resources
    assert f"arn:aws:iam::{account}:role/homeport-test" in resources
    assert {f"arn:aws:s3:::homeport-test{end}" for end in ("", "/test")} < resources
    assert [resource for resource in resources if "*" in resource] == ["*"]
    (role,) = [one for one in asked if one["ActionNames.member.1"] == ["iam:CreateServiceLinkedRole"]]
    told = {name.rpartition("ContextEntries.member.1.")[2]: value for name, (value,) in role.items()}
    assert told["ContextKeyName"] == "iam:AWSServiceName", "or the policy's own condition would leave it unknown"
    assert told["ContextKeyValues.member.1"] == "ops.apigateway.amazonaws.com"
    assert {one["PolicySourceArn"][0] for one in asked} == {
        f"arn:aws:sts::{account}:user/moto"
    }  # as moto calls its user


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        ("arn:aws:iam::1:user/path/me", "arn:aws:iam::1:user/path/me"),
        ("arn:aws-cn:sts::1:assumed-role/deployer/session", "arn:aws-cn:iam::1:role/deployer"),
    ],
)
def test_of_an_assumed_role_the_role_is_asked_about(arn: str, principal: str) -> None:
    assert principal_of(arn) == principal


def test_permissions_that_iam_does_not_tell_are_said_to_be_unknown(aws: Rig) -> None:
    aws.gateway.refused = "SimulatePrincipalPolicy"
    found = look()
    assert found.wrong == ()
    assert "is unknown: IAM does not say (AccessDenied)" in said(found)


def test_a_certificate_is_looked_for_for_each_domain(aws: Rig) -> None:
    text = said(look(HOMEPORT_HUB_ORIGIN="https://hub.example.com"))
    assert "could be better: ACM has no certificate for hub.example.com" in text
    assert "*.notebooks.example.org in this region, which a proxy on Fargate needs, unless HOMEPORT_PROXY_ZONE" in text
    assert "aws acm request-certificate --domain-name '*.notebooks.example.org' --validation-method DNS" in text
    issued = Ca.new().issue("*.example.com", sans=["*.example.com"])
    aws.client("acm").import_certificate(Certificate=issued.certificate, PrivateKey=issued.key)
    text = said(look(HOMEPORT_HUB_ORIGIN="https://hub.example.com"))
    assert "ok: ACM has a certificate for hub.example.com" in text


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("hub.example.com", "hub.example.com", True),
        ("*.example.com", "hub.example.com", True),
        ("*.example.com", "a.hub.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.notebooks.example.org", "*.notebooks.example.org", True),
        ("*.example.org", "*.notebooks.example.org", False),
        ("example.com", "hub.example.com", False),
    ],
)
def test_a_wildcard_stands_for_one_label(pattern: str, name: str, covered: bool) -> None:
    assert covers(pattern, name) == covered


@pytest.mark.parametrize(
    ("region", "says"), [("eu-wset-1", "no region eu-wset-1"), ("", "No AWS region"), (None, "No AWS region")]
)
def test_a_region_that_is_none_is_said(region: str | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    if region is not None:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    with pytest.raises(BadConfiguration, match=says):
        look()


def test_one_site_for_hub_and_notebooks_stops_a_deployment() -> None:
    (wrong,) = look(HOMEPORT_HUB_ORIGIN="https://hub.example.org").wrong
    assert "browsers take them for one site" in wrong.what
