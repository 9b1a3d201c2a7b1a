"""The network of the lanes' functions: what is made, where functions are told to be, and what they may there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from chalicelib.config import Config
from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane
from infra.destroy import await_interfaces, destroy
from infra.inside import functions
from infra.network import ensure_network, find_place, give_back, read_network
from infra.project import Place, function_policy, stage_project
from infra.request import functions_environment, read_request
from infra.stack import stack_parameters
from tests.moto_gaps import let_networks_be_deleted
from tests.policies import ACCOUNT, OUTPUTS, REGION, ROOT, own_denials, statements, template

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")

NAME = "homeport-test-network"
SUBNETS = ("subnet-0123456789abcdef0", "subnet-0123456789abcdef1")
NAMED = {"HOMEPORT_FUNCTIONS_SUBNETS": ", ".join(SUBNETS), "HOMEPORT_FUNCTIONS_SECURITY_GROUPS": "sg-01234567"}
URL = {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"}
INTERFACES = "ec2:CreateNetworkInterface"


@pytest.fixture
def session() -> Iterator[boto3.Session]:
    with mock_aws():
        yield boto3.Session("test", "test", region_name=REGION)


@pytest.fixture
def cloudformation(session: boto3.Session) -> CloudFormationClient:
    return session.client("cloudformation")


# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_addresses_are_added_before_and_released_after(session: boto3.Session) -> None:
    """Nothing that is in use loses its way out: what is there stays until `give_back`."""
    cloudformation, lambda_ = session.client("cloudformation"), session.client("lambda")
    first = ensure_network(cloudformation, "test", 1)
    both = ensure_network(cloudformation, "test", 2)
    assert (len(first.addresses), len(both.addresses)) == (1, 2)
    assert (both.addresses[0], both.private) == (first.addresses[0], first.private)
    fewer = ensure_network(cloudformation, "test", 1)
    assert (fewer.addresses, parameter(cloudformation)) == (first.addresses, "2")
    said = give_back(cloudformation, lambda_, "test", 1)
    assert said == "Released, of the hub's fixed addresses: 1 (stack homeport-test-network)"
    assert parameter(cloudformation) == "1"
    assert give_back(cloudformation, lambda_, "test", 1) == "", "there is nothing left to release"


def parameter(cloudformation: CloudFormationClient) -> str:
    return (stack_parameters(cloudformation, NAME) or {})["FixedAddresses"]


def test_addresses_are_kept_as_long_as_a_function_needs_them(session: boto3.Session) -> None:
    """Whatever ran, and in which order: `make api` without a `chalice deploy`, a deployment that failed."""
    cloudformation, lambda_ = session.client("cloudformation"), session.client("lambda")
    network = ensure_network(cloudformation, "test", 1)
    a_function(session, "homeport-test-pull", network.place)
    assert "Kept, since homeport-test-pull would have no way out" in give_back(cloudformation, lambda_, "test", 0)
    assert parameter(cloudformation) == "1"
    lambda_.delete_function(FunctionName="homeport-test-pull")
    assert "Released" in give_back(cloudformation, lambda_, "test", 0)


def a_function(session: boto3.Session, name: str, place: Place) -> None:
    trusted = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = session.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
    session.client("lambda").create_function(
        FunctionName=name,
        Role=role,
        Code={"ZipFile": b"no zip"},
        Runtime="python3.13",
        Handler="app.pull",
        VpcConfig={"SubnetIds": list(place.subnets), "SecurityGroupIds": list(place.security_groups)},
    )


def test_where_no_network_is_there_is_nothing_to_release(session: boto3.Session) -> None:
    cloudformation = session.client("cloudformation")
    assert give_back(cloudformation, session.client("lambda"), "test", 0) == ""
    assert read_network(cloudformation, "test", 1) is None


def test_a_package_wants_the_network_to_be_there(session: boto3.Session) -> None:
    options = read_request("test", {**URL, "HOMEPORT_FIXED_ADDRESSES": "2"}).network
    ensure_network(session.client("cloudformation"), "test", 1)
    with pytest.raises(BadConfiguration, match="make resources STAGE=test"):
        find_place(session, "test", options)
    made = ensure_network(session.client("cloudformation"), "test", 2)
    assert find_place(session, "test", options) == made.place


def test_the_update_of_a_network_of_before_replaces_nothing() -> None:
    """Its VPC and public subnets are as they were first deployed: what is in use cannot be moved."""
    resources = template("network.yaml")["Resources"]
    assert resources["Network"]["Properties"]["CidrBlock"] == "10.86.0.0/24"
    assert resources["SubnetA"]["Properties"]["CidrBlock"] == "10.86.0.0/25"
    assert resources["SubnetB"]["Properties"]["CidrBlock"] == "10.86.0.128/25"


def test_what_is_not_asked_for_again_stays_and_0_gives_it_back(session: boto3.Session) -> None:
    """A shell without the option must not cost a hub the addresses that visitors' firewalls name."""
    cloudformation = session.client("cloudformation")
    ensure_network(cloudformation, "test", 2)
    unsaid, gone = read_request("test", URL), read_request("test", {**URL, "HOMEPORT_FIXED_ADDRESSES": "0"})
    elsewhere = read_request("test", {**URL, **NAMED})
    wanted = [one.network.addresses(cloudformation, "test") for one in (unsaid, gone, elsewhere)]
    assert wanted == [2, 0, 0]
    assert len(find_place(session, "test", unsaid.network).addresses) == 2
    assert find_place(session, "test", gone.network) == Place()
    assert find_place(session, "test", elsewhere.network).subnets == SUBNETS


# ── leaving ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_roles_may_delete_interfaces_until_there_are_none(session: boto3.Session) -> None:
    """Lambda does so by the role of a function that has left, or is gone."""
    options = read_request("test", {**URL, "HOMEPORT_FIXED_ADDRESSES": "0"}).network
    assert not find_place(session, "test", options).interfaces
    network = ensure_network(session.client("cloudformation"), "test", 1)
    a_function(session, "homeport-test-pull", network.place)
    assert find_place(session, "test", options) == Place(interfaces=True)
    session.client("lambda").delete_function(FunctionName="homeport-test-pull")
    assert not find_place(session, "test", options).interfaces
    interface = an_interface(session, network.place, "homeport-test-pull")
    assert find_place(session, "test", options) == Place(interfaces=True)
    session.client("ec2").delete_network_interface(NetworkInterfaceId=interface)
    assert not find_place(session, "test", options).interfaces


def an_interface(session: boto3.Session, place: Place, function: str) -> str:
    """What Lambda makes for a function."""
    made = session.client("ec2").create_network_interface(
        SubnetId=place.subnets[0], Description=f"AWS Lambda VPC ENI-{function}-0a1b2c3d"
    )
    return str(made["NetworkInterface"]["NetworkInterfaceId"])


def test_a_stage_is_destroyed_but_for_what_lambda_needs_and_then_all_of_it(
    session: boto3.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_networks_be_deleted(monkeypatch)
    place = ensure_network(session.client("cloudformation"), "test", 1).place
    a_function(session, "homeport-test-pull", place)
    interface = an_interface(session, place, "homeport-test-pull")
    with pytest.raises(BadConfiguration, match=r"Lambda still has 1 network interfaces .* run this again then"):
        list(destroy("test", session))
    assert [one["RoleName"] for one in session.client("iam").list_roles()["Roles"]] == ["homeport-test-pull"]
    assert session.client("lambda").list_functions()["Functions"] == []
    session.client("ec2").delete_network_interface(NetworkInterfaceId=interface)
    deleted = list(destroy("test", session))
    assert deleted == ["stack homeport-test-network", "role homeport-test-pull"]


def test_who_may_not_ask_for_interfaces_has_none() -> None:
    class Refusing:
        def describe_network_interfaces(self, **_: object) -> NoReturn:
            raise ClientError({"Error": {"Code": "UnauthorizedOperation"}}, "DescribeNetworkInterfaces")

    await_interfaces(Refusing(), "test")


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"HOMEPORT_FIXED_ADDRESSES": "3"}, "HOMEPORT_FIXED_ADDRESSES must be 0, 1 or 2"),
        ({"HOMEPORT_FUNCTIONS_SUBNETS": SUBNETS[0]}, "are set together"),
        ({"HOMEPORT_FUNCTIONS_SUBNETS": "net-1"}, "HOMEPORT_FUNCTIONS_SUBNETS must be a list of subnets' ids"),
        ({**NAMED, "HOMEPORT_FIXED_ADDRESSES": "1"}, "set one of the two"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(BadConfiguration, match=said):
        read_request("test", URL | given)


def test_the_form_shows_the_operators_addresses_and_those_of_the_gateways() -> None:
    outputs = {**OUTPUTS, **dict.fromkeys(("QueueUrls", "Bucket", "Key", "Queues"), "one")}
    options = {"HOMEPORT_ADDRESSES": "198.51.100.4"}
    told = functions_environment(options, outputs, "https://hub.example.org", ["192.0.2.1", "192.0.2.2"])
    shown = [str(one.network_address) for one in Config.from_environ(told).addresses]
    assert shown == ["198.51.100.4", "192.0.2.1", "192.0.2.2"]
    assert functions_environment(options, outputs, "")["HOMEPORT_ADDRESSES"] == "198.51.100.4"


# ── where functions are, and what they may there ─────────────────────────────────────────────────────────────────────


def test_the_lanes_functions_are_in_the_network_and_no_others(tmp_path: Path) -> None:
    place = Place(SUBNETS, ("sg-01234567",), interfaces=True)
    stage_project(ROOT, tmp_path / "project", outputs=OUTPUTS, environment={}, place=place)
    config = json.loads((tmp_path / "project" / ".chalice" / "config.json").read_text())
    of = config["stages"]["test"]["lambda_functions"]
    inside = {name for name, one in of.items() if one.get("subnet_ids") == list(SUBNETS)}
    assert inside == {name for name, one in of.items() if "security_group_ids" in one} == set(Lane)
    for name, one in of.items():
        policy = json.loads((tmp_path / "project" / ".chalice" / one["iam_policy_file"]).read_text())
        assert any(INTERFACES in statement["Action"] for statement in policy["Statement"]) == (name in inside)


def test_lambda_may_make_a_functions_interfaces_and_the_functions_own_code_may_not() -> None:
    plain = function_policy(ROOT, "launch", OUTPUTS, in_network=False, traced=False)
    policy = function_policy(ROOT, "launch", OUTPUTS, in_network=True, traced=False)
    assert policy["Statement"][: len(plain["Statement"])] == plain["Statement"]
    allowed = [
        action for one in statements(policy) if one["Sid"] == "HaveNetworkInterfaces" for action in one["Action"]
    ]
    assert allowed == [
        "ec2:CreateNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ], "AWSLambdaVPCAccessExecutionRole, but for logs"
    code = {"lambda:SourceFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:homeport-test-launch"}
    for action in allowed:
        assert own_denials(policy, action, "*", code)
        assert not own_denials(policy, action, "*", {}), "as Lambda asks, for the function"
    assert not own_denials(policy, "dynamodb:GetItem", "*", code)


def test_the_doctor_sees_functions_that_are_elsewhere() -> None:
    class Lambda:
        class exceptions:
            ResourceNotFoundException = KeyError

        def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
            where = SUBNETS if FunctionName.endswith("-launch") else ()
            return {
                "Runtime": "python3.13",
                "Timeout": 1,
                "MemorySize": 1,
                "VpcConfig": {"SubnetIds": [*where]},
            }

    settings = {name: {"lambda_timeout": 1, "lambda_memory_size": 1} for name in ("launch", "pull", "redrive")}
    said = {
        place: [str(one) for one in functions(Lambda(), "test", settings, {}, place) if one.good is False]
        for place in (Place(), Place(SUBNETS, ("sg-01234567",)))
    }
    (without,), (within,) = said.values()
    assert "homeport-test-launch is in subnet-0123456789abcdef0, subnet-0123456789abcdef1, not in none" in without
    assert "homeport-test-pull is in no network, not in subnet-0123456789abcdef0" in within
