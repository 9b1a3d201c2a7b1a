"""The hub's own certificates: made once per stage, kept in SSM as SecureString parameters under the hub's key.

    <prefix>/notebook-ca              certificate and key   launcher: signs one leaf per notebook
    <prefix>/notebook-ca-certificate  certificate           proxy: what it verifies notebooks with
    <prefix>/client-ca                certificate           put into notebooks, which trust no other
    <prefix>/launcher-client          certificate and key   launcher: what it presents to notebooks
    <prefix>/proxy-client             certificate and key   proxy: what it presents to notebooks

Rules

1. Nothing that exists is ever overwritten; what is missing is made, as a whole set. The notebook CA is one set, the
   client CA with the certificates it signed the other.
2. The client CA's private key is not kept anywhere. A lost client certificate therefore means a new set;
   infra/rotate.py makes one beside the old one.
3. A set is written in an order that makes an interrupted run visible: half a set is refused, not completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from chalicelib.errors import BadConfiguration
from chalicelib.notebook import certificates
from chalicelib.notebook.pair import Pair

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

NOTEBOOK_SET: Final = ("notebook-ca", "notebook-ca-certificate")
CLIENT_SET: Final = ("client-ca", "launcher-client", "proxy-client")
NAMES: Final = NOTEBOOK_SET + CLIENT_SET
NEXT_NAMES: Final = ("notebook-ca-next", "client-ca-next")  # while a rotation goes on (infra/rotate.py)

# Ten years: the longest-lived session is days, and after a rotation, which is deliberate, notebooks are launched again.
LIFETIME: Final = 10 * 365 * 86400.0  # seconds


def ensure_certificates(ssm: SSMClient, *, prefix: str, key_id: str, now: float) -> tuple[str, ...]:
    """Make what is missing of the hub's certificates under `prefix`; return the names made, nothing secret.

    `key_id` is the KMS key, its ARN or alias; `now` in seconds since the epoch. Raises BadConfiguration when half a
    set exists. botocore's errors pass through.
    """
    existing = _existing(ssm, prefix)
    made: dict[str, str] = {}
    if _is_missing(existing, prefix, NOTEBOOK_SET):
        made |= _notebook_set(now)
    if _is_missing(existing, prefix, CLIENT_SET):
        made |= _client_set(now)
    for name, value in made.items():
        ssm.put_parameter(
            Name=f"{prefix}/{name}",
            Description=f"Homeport: {name}",
            Value=value,
            Type="SecureString",
            KeyId=key_id,
            Overwrite=False,
        )
    return tuple(made)


def _existing(ssm: SSMClient, prefix: str) -> frozenset[str]:
    """The names under `prefix` that exist; their values are not asked for in the clear."""
    answer = ssm.get_parameters(Names=[f"{prefix}/{name}" for name in NAMES], WithDecryption=False)
    return frozenset(parameter["Name"] for parameter in answer["Parameters"])


def _is_missing(existing: frozenset[str], prefix: str, names: tuple[str, ...]) -> bool:
    """Whether none of the set exists; raises BadConfiguration when some of it does."""
    missing = [name for name in names if f"{prefix}/{name}" not in existing]
    if missing and len(missing) < len(names):
        raise BadConfiguration(
            f"Half of the hub's certificates under {prefix} is missing ({', '.join(missing)}). "
            f"Delete the SSM parameters {', '.join(f'{prefix}/{name}' for name in names)} and deploy again"
        )
    return bool(missing)


def certificates_of(name: str, now: float) -> Mapping[str, str]:
    """Make a new CA, `notebook` or `client`: its certificate as `ca`, and by their names the parameters that use it."""
    if name == "notebook":
        made = certificates.new_ca("Homeport notebooks", now=now, lifetime=LIFETIME)
        used = {"notebook-ca": made.to_json()}
    else:
        made = certificates.new_ca("Homeport clients", now=now, lifetime=LIFETIME)
        used = {
            f"{client}-client": certificates.issue_client(
                made, f"Homeport {client}", now=now, lifetime=LIFETIME
            ).to_json()
            for client in ("launcher", "proxy")
        }
    return {"ca": made.certificate.decode("ascii"), **used}


def _notebook_set(now: float) -> Mapping[str, str]:
    made = dict(certificates_of("notebook", now))
    return {"notebook-ca-certificate": Pair(made.pop("ca").encode()).to_json(), **made}


def _client_set(now: float) -> Mapping[str, str]:
    made = dict(certificates_of("client", now))
    return {"client-ca": Pair(made.pop("ca").encode()).to_json(), **made}
