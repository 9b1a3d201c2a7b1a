"""Where the launcher's functions are, if the hub connects to endpoints from addresses that do not change.

Functions that are in no network, and proxies in a public one, have addresses that AWS chooses and changes. So that
visitors' firewalls can name the hub, functions and proxies may be

    in a network of ours     HOMEPORT_FIXED_ADDRESSES: infra/network.yaml with NAT gateways
    in one of the operator's HOMEPORT_FUNCTIONS_SUBNETS and …_SECURITY_GROUPS, its addresses in HOMEPORT_ADDRESSES

Only the lanes' functions are: the web function and the schedule connect to nobody but AWS. The network's gateways are
made before anything needs them, and taken away after nothing does (`give_back`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from chalicelib.environment import Kind, Variable, optional, setting, whole_number, words
from chalicelib.errors import BadConfiguration
from infra.project import APP, LANES, Place, function_name
from infra.stack import deploy_stack, stack_outputs, stack_parameters

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_cloudformation import CloudFormationClient

ROOT: Final = Path(__file__).resolve().parent.parent
ADDRESSES: Final = ("AddressA", "AddressB")  # outputs of infra/network.yaml, in the order in which they are made
PARAMETER: Final = "FixedAddresses"


SUBNETS: Final = Kind(
    "a list of subnets' ids", partial(words, re.compile("subnet-([0-9a-f]{8}|[0-9a-f]{17})").fullmatch)
)
GROUPS: Final = Kind(
    "a list of security groups' ids", partial(words, re.compile("sg-([0-9a-f]{8}|[0-9a-f]{17})").fullmatch)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network the launcher's functions are in. `fixed` addresses; None: as many as there are."""

    fixed: int | None = setting(
        Variable(
            "HOMEPORT_FIXED_ADDRESSES",
            Kind("0, 1 or 2", partial(optional, partial(whole_number, least=0, most=len(ADDRESSES)))),
            "read by `make deploy` alone: from how many fixed addresses launcher and proxy connect. Each is a NAT "
            "gateway, for some $37 a month and $0.045 a gigabyte; of two, each has an availability zone. `0` gives "
            "them back, for good",
            note="as before, at first `0`",
        )
    )
    subnets: tuple[str, ...] = setting(
        Variable(
            "HOMEPORT_FUNCTIONS_SUBNETS",
            SUBNETS,
            "read by `make deploy` alone: private subnets that are there, for the launcher's functions, instead; name "
            "the addresses of their NAT gateways in `HOMEPORT_ADDRESSES`",
        )
    )
    security_groups: tuple[str, ...] = setting(
        Variable("HOMEPORT_FUNCTIONS_SECURITY_GROUPS", GROUPS, "the security groups that the functions have there")
    )

    def addresses(self, cloudformation: CloudFormationClient, stage: str) -> int:
        """How many fixed addresses are wanted: as many as there are, if nothing is said."""
        if self.fixed is not None:
            return self.fixed
        return 0 if self.subnets else addresses_of(cloudformation, stage)

    def check(self) -> None:
        """Raise BadConfiguration for options that do not go together."""
        if bool(self.subnets) != bool(self.security_groups):
            raise BadConfiguration("HOMEPORT_FUNCTIONS_SUBNETS and HOMEPORT_FUNCTIONS_SECURITY_GROUPS are set together")
        if self.fixed and self.subnets:
            raise BadConfiguration(
                "HOMEPORT_FIXED_ADDRESSES makes a network, and HOMEPORT_FUNCTIONS_SUBNETS names one: set one of the two"
            )


@dataclass(frozen=True, slots=True)
class Network:
    """What infra/network.yaml has made: subnets' ids with commas between them, as parameters of stacks have them."""

    vpc: str
    public: str
    private: str
    security_group: str
    addresses: tuple[str, ...]

    @property
    def place(self) -> Place:
        """Where in it functions are."""
        return Place(tuple(self.private.split(",")), (self.security_group,), self.addresses, interfaces=True)


def network_name(stage: str) -> str:
    """What the network's stack is called."""
    return f"{APP}-{stage}-network"


def wanted_place(cloudformation: CloudFormationClient, stage: str, options: NetworkOptions) -> Place:
    """Where functions are to be, as far as it is there; raises BadConfiguration if addresses are missing."""
    fixed = options.addresses(cloudformation, stage)
    if not fixed:
        return Place(options.subnets, options.security_groups, interfaces=bool(options.subnets))
    network = read_network(cloudformation, stage, fixed)
    if network is None or len(network.addresses) < fixed:
        raise BadConfiguration(
            f"There is no stack {network_name(stage)} with that many addresses. Run `make resources STAGE={stage}` "
            "first"
        )
    return network.place


def find_place(session: boto3.Session, stage: str, options: NetworkOptions) -> Place:
    """The same for a deployment, which lets functions keep their interfaces that are leaving, or have left."""
    place, lambda_ = wanted_place(session.client("cloudformation"), stage, options), session.client("lambda")
    is_there = any(subnets_of(lambda_, function_name(stage, lane)) for lane in LANES)
    return replace(place, interfaces=place.interfaces or is_there or interfaces_of(session.client("ec2"), stage) > 0)


def interfaces_of(ec2: Any, stage: str) -> int:
    """How many network interfaces Lambda has for the stage's functions; 0 if who asks may not know.

    It keeps them for some time after the functions have left a network, or are gone, and deletes them by the functions'
    roles: https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    """
    described = f"AWS Lambda VPC ENI-{function_name(stage, '*')}"
    try:
        found = ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": [described]}])
    except ClientError as error:
        if error.response["Error"]["Code"] == "UnauthorizedOperation":  # then they put no function into a network
            return 0
        raise
    return len(found["NetworkInterfaces"])


def ensure_network(cloudformation: CloudFormationClient, stage: str, fixed: int) -> Network:
    """Make the network, or bring it up to date, with so many fixed addresses at least; raises BadConfiguration."""
    _deploy(cloudformation, stage, max(fixed, addresses_of(cloudformation, stage)))
    found = read_network(cloudformation, stage, fixed)
    assert found is not None, "it was made a moment ago"
    return found


def read_network(cloudformation: CloudFormationClient, stage: str, fixed: int) -> Network | None:
    """The network with the first `fixed` of its addresses; None if it is not there, or as an older version made it."""
    outputs = stack_outputs(cloudformation, network_name(stage))
    if outputs is None or "PrivateSubnets" not in outputs:
        return None
    addresses = tuple(outputs[one] for one in ADDRESSES[:fixed] if one in outputs)
    vpc, public, private = outputs["Vpc"], outputs["Subnets"], outputs["PrivateSubnets"]
    return Network(vpc, public, private, outputs["FunctionsSecurityGroup"], addresses)


def give_back(cloudformation: CloudFormationClient, lambda_: Any, stage: str, fixed: int) -> str:
    """Release what the network has of addresses above `fixed`, unless somebody would lose the way out.

    Returns what is to be said of it, "" for nothing.
    """
    there = addresses_of(cloudformation, stage)
    if there <= fixed:
        return ""
    if not fixed and (inside := _inside(cloudformation, lambda_, stage)):
        return (
            f"Kept, since {inside} would have no way out without: the hub's fixed addresses. Deploy what is there with "
            "HOMEPORT_FIXED_ADDRESSES=0 to release them"
        )
    _deploy(cloudformation, stage, fixed)
    return f"Released, of the hub's fixed addresses: {there - fixed} (stack {network_name(stage)})"


def _inside(cloudformation: CloudFormationClient, lambda_: Any, stage: str) -> str:
    """Who is in the private subnets; "" if nobody is."""
    found = [name for lane in LANES if subnets_of(lambda_, name := function_name(stage, lane))]
    proxy = stack_parameters(cloudformation, f"{APP}-{stage}-proxy") or {}
    return ", ".join([*found, *(["the proxies"] if "subnet-" in proxy.get("PrivateSubnets", "") else [])])


def subnets_of(lambda_: Any, function: str) -> list[str]:
    """The subnets that a function is in; none if there is no such function."""
    try:
        found = lambda_.get_function_configuration(FunctionName=function)
    except lambda_.exceptions.ResourceNotFoundException:
        return []
    return list(found.get("VpcConfig", {}).get("SubnetIds", []))


def addresses_of(cloudformation: CloudFormationClient, stage: str) -> int:
    """How many fixed addresses there are."""
    parameters = stack_parameters(cloudformation, network_name(stage)) or {}
    return int(parameters.get(PARAMETER, "0"))


def _deploy(cloudformation: CloudFormationClient, stage: str, fixed: int) -> None:
    deploy_stack(
        cloudformation,
        name=network_name(stage),
        template=(ROOT / "infra" / "network.yaml").read_text(),
        parameters={"Stage": stage, PARAMETER: str(fixed)},
    )
