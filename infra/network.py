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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chalicelib.environment import Kind, Variable, setting, whole_number
from chalicelib.errors import BadConfiguration
from infra.stack import deploy_stack, stack_outputs, stack_parameters

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

ROOT: Final = Path(__file__).resolve().parent.parent
ADDRESSES: Final = ("AddressA", "AddressB")  # outputs of infra/network.yaml, in the order in which they are made
PARAMETER: Final = "FixedAddresses"


def words(pattern: str, text: str) -> tuple[str, ...]:
    """The words of a list with commas or blanks; raises ValueError for one that is not as the pattern says."""
    found = tuple(text.replace(",", " ").split())
    if not all(re.fullmatch(pattern, word) for word in found):
        raise ValueError
    return found


def _fixed(text: str) -> int | None:
    return whole_number(text, least=0, most=len(ADDRESSES)) if text else None


SUBNETS: Final = Kind("a list of subnets' ids", partial(words, "subnet-([0-9a-f]{8}|[0-9a-f]{17})"))
GROUPS: Final = Kind("a list of security groups' ids", partial(words, "sg-([0-9a-f]{8}|[0-9a-f]{17})"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network the launcher's functions are in. `fixed` addresses; None: as many as there are."""

    fixed: int | None = setting(
        Variable(
            "HOMEPORT_FIXED_ADDRESSES",
            Kind("0, 1 or 2", _fixed),
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

    def addresses(self, there: int) -> int:
        """How many fixed addresses are wanted where there are so many."""
        return (0 if self.subnets else there) if self.fixed is None else self.fixed

    def check(self) -> None:
        """Raise BadConfiguration for options that do not go together."""
        if bool(self.subnets) != bool(self.security_groups):
            raise BadConfiguration("HOMEPORT_FUNCTIONS_SUBNETS and HOMEPORT_FUNCTIONS_SECURITY_GROUPS are set together")
        if self.fixed and self.subnets:
            raise BadConfiguration(
                "HOMEPORT_FIXED_ADDRESSES makes a network, and HOMEPORT_FUNCTIONS_SUBNETS names one: set one of the two"
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where functions are: subnets and security groups by their ids, none for no network.

    `addresses` are those of our own NAT gateways.
    """

    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


NOWHERE: Final = Place()


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
        return Place(tuple(self.private.split(",")), (self.security_group,), self.addresses)


def network_name(stage: str) -> str:
    """What the network's stack is called."""
    return f"homeport-{stage}-network"


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


def check_proxies(cloudformation: CloudFormationClient, stage: str, fixed: int) -> None:
    """See that proxies which nobody moves have a way out of their subnets; raises BadConfiguration."""
    parameters = stack_parameters(cloudformation, f"homeport-{stage}-proxy") or {}
    if not fixed and "subnet-" in parameters.get("PrivateSubnets", ""):
        raise BadConfiguration(
            "Nothing was changed in AWS. The proxies are behind the addresses that are to be given back: set "
            "HOMEPORT_PROXY=fargate, too, so that they are moved first"
        )


def give_back(cloudformation: CloudFormationClient, stage: str, fixed: int) -> bool:
    """Take away what the network has of addresses above `fixed`; returns whether there were any."""
    if addresses_of(cloudformation, stage) <= fixed:
        return False
    _deploy(cloudformation, stage, fixed)
    return True


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
