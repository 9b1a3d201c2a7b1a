"""SSM Parameter Store: the hub's own certificates, made once by the deploy script and only read here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.certificates import Authority, Leaf
from chalicelib.errors import StoreUnavailable
from chalicelib.notebook import HubTrust

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


def load_trust(ssm: SSMClient, prefix: str) -> HubTrust:
    """Read what the launcher needs: the notebook CA with its key, the client CA's certificate, its own certificate.

    Raises StoreUnavailable.
    """
    notebook_ca = _parameter(ssm, f"{prefix}/notebook-ca")
    client_ca = _parameter(ssm, f"{prefix}/client-ca")
    probe = _parameter(ssm, f"{prefix}/launcher-client")
    return HubTrust(
        notebook_authority=Authority(notebook_ca["certificate"].encode(), notebook_ca["key"].encode()),
        client_ca=client_ca["certificate"].encode(),
        probe=Leaf(probe["certificate"].encode(), probe["key"].encode()),
    )


def _parameter(ssm: SSMClient, name: str) -> dict[str, str]:
    try:
        value = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(f"The hub's parameter {name} cannot be read; was the hub deployed?") from error
    return dict(json.loads(value))
