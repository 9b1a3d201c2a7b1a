"""The hub's own certificates in SSM Parameter Store: made once by the deploy script, and only read here.

<prefix>/notebook-ca              certificate and key   the launch lane signs one leaf per notebook with it
<prefix>/notebook-ca-certificate  certificate           what the proxy verifies notebooks with, and the watch lane
<prefix>/client-ca                certificate           put into notebooks, which trust no other
<prefix>/launcher-client          certificate and key   what the launcher presents to notebooks
<prefix>/proxy-client             certificate and key   what the proxy presents to notebooks
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.notebook.certificates import Ca, HubTrust, Leaf
from chalicelib.notebook.pair import Pair

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

_Pair = TypeVar("_Pair", bound=Pair)


def load_trust(ssm: SSMClient, prefix: str, *, signs: bool) -> HubTrust:
    """Read what the launcher needs; the key of the notebooks' CA is left empty for whom `signs` no notebook's leaf.

    Raises StoreUnavailable, and BadConfiguration for what cannot be such a pair.
    """
    ca = "notebook-ca" if signs else "notebook-ca-certificate"
    return HubTrust(
        notebook_ca=read_pair(ssm, f"{prefix}/{ca}", Ca, with_key=signs),
        client_ca=read_pair(ssm, f"{prefix}/client-ca", Pair, with_key=False).certificate,
        probe=read_pair(ssm, f"{prefix}/launcher-client", Leaf),
    )


def read_pair(ssm: SSMClient, name: str, kind: type[_Pair], *, with_key: bool = True) -> _Pair:
    """Read one parameter; raises StoreUnavailable, BadConfiguration, neither of which holds any of its value."""
    # The value is no variable here: an error reporter may show the variables of every frame of a BadConfiguration.
    return kind.from_json(_value_of(ssm, name), name=f"The hub's parameter {name}", with_key=with_key)


def _value_of(ssm: SSMClient, name: str) -> str:
    try:
        return ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"The hub's parameter {name} cannot be read; was the hub deployed?") from error
