"""What an operator asks for: a stage and its options, read from HOMEPORT_ variables (docs/operations.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import local.settings
import proxy.settings
from chalicelib.config import ADDRESSES, NOTEBOOK_URL, Config
from chalicelib.environment import TEXT, Kind, Variable, from_environ, variables, whole_number
from chalicelib.errors import BadConfiguration
from infra.network import NetworkOptions
from infra.project import APP
from infra.proxy_step import ProxyOptions

ALARM_EMAIL: Final = Variable(
    "HOMEPORT_ALARM_EMAIL",
    TEXT,
    "read by `make deploy` alone: who is told of alarms. Confirm the message that SNS sends",
    note="as before",
)
REQUEST_RATE: Final = Variable(
    "HOMEPORT_REQUEST_RATE",
    Kind("a whole number from 1 to 10000", partial(whole_number, most=10000)),
    "read by `make deploy` alone: how many requests a second API Gateway lets through to the hub, of all visitors "
    "together; twice as many at once",
    default="500",
)
CERTIFICATE_READER: Final = Variable(
    "HOMEPORT_CERTIFICATE_READER",
    TEXT,
    "read by `make deploy` alone: the ARN of the role or user that reads the proxy's two certificates, for a proxy "
    "that does not run on Fargate; `-` for nobody",
    note="as before",
)
OF_DEPLOYMENT: Final[tuple[Variable[Any], ...]] = (
    ALARM_EMAIL,
    REQUEST_RATE,
    CERTIFICATE_READER,
    *variables(NetworkOptions),
)
# What the deployment knows itself: the function's variable → the stack's output.
FROM_OUTPUTS: Final[Mapping[str, str]] = {known.name: known.output for known in variables(Config) if known.output}
# What the operator may choose; handed to the functions as it is, after Config has read it.
OPTIONS: Final = frozenset(known.name for known in variables(Config)) - FROM_OUTPUTS.keys()
# What an option is when it is not chosen, where that is not Config's own default.
DEFAULTS: Final[Mapping[str, str]] = {
    "HOMEPORT_NOTEBOOK_URL": "none, required",
    "HOMEPORT_HUB_ORIGIN": "API Gateway's",
    "HOMEPORT_HUB_NAME": f"`{APP}-<stage>`",
    "HOMEPORT_FUNCTIONS": "`100`, or less in a small account",
}
# What `make run`, the proxy and its part of the deployment understand and the functions have no use for.
NOT_OURS: Final = (
    frozenset(
        known.name
        for owner in (local.settings.Settings, proxy.settings.Settings, ProxyOptions, NetworkOptions)
        for known in variables(owner)
    )
    - OPTIONS
    - FROM_OUTPUTS.keys()
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be deployed: the stage, the functions' options, and what of it is for the deployment alone.

    `alarm_email` is who is told of alarms (None: as before), `request_rate` the requests a second of all visitors,
    `certificate_reader` who reads the proxy's certificates ("": nobody, None: as before), `network` where the lanes'
    functions are.
    """

    stage: str
    options: Mapping[str, str]
    alarm_email: str | None
    request_rate: int
    certificate_reader: str | None = None
    network: NetworkOptions = field(default_factory=NetworkOptions)

    @property
    def hub_domain(self) -> str:
        """The host of the hub's origin; "" when it is API Gateway's."""
        return urlsplit(self.options.get("HOMEPORT_HUB_ORIGIN", "")).hostname or ""

    @property
    def notebook_domain(self) -> str:
        """The domain that the notebooks' hosts are below."""
        return (urlsplit(NOTEBOOK_URL.read(self.options)).hostname or "").removeprefix("*.")


def functions_environment(
    options: Mapping[str, str], outputs: Mapping[str, str], origin: str, addresses: Sequence[str] = ()
) -> dict[str, str]:
    """The functions' environment: the options as they fit the account, the stack's outputs, the hub's origin.

    `addresses` are those of our own NAT gateways; the operator's own come first.
    """
    told = {name: outputs[output] for name, output in FROM_OUTPUTS.items()}
    if addresses:
        told[ADDRESSES.name] = ", ".join(filter(None, [options.get(ADDRESSES.name, ""), *addresses]))
    return {**options, **told, "HOMEPORT_HUB_ORIGIN": origin}


def check_stage(stage: str) -> str:
    """Give the stage's name back; raises BadConfiguration.

    A hyphen is what begins the names of a stage's parts: homeport-try-launch would be a function of the stage try, and
    the stage try-launch, and patterns such as homeport-try-* would be for both.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", stage):
        raise BadConfiguration("The stage must be 1 to 16 of a-z and 0-9, beginning with a letter")
    return stage


def read_request(stage: str, environ: Mapping[str, str]) -> Request:
    """Read the operator's wishes; raises BadConfiguration, before anything is touched."""
    check_stage(stage)
    ours = [name for name in environ if name.startswith("HOMEPORT_") and name not in NOT_OURS]
    given = {name: environ[name] for name in ours}
    alarm_email = given.pop(ALARM_EMAIL.name, None)
    reader = given.pop(CERTIFICATE_READER.name, None)
    network = from_environ(NetworkOptions, environ)
    network.check()
    rate = REQUEST_RATE.read({REQUEST_RATE.name: given.pop(REQUEST_RATE.name, "")})
    if known := sorted(given.keys() & FROM_OUTPUTS.keys()):
        raise BadConfiguration(f"{', '.join(known)}: the deployment sets this itself; unset it")
    if unknown := sorted(given.keys() - OPTIONS):
        known = sorted(OPTIONS | {one.name for one in (*OF_DEPLOYMENT, *variables(ProxyOptions))})
        raise BadConfiguration(f"{', '.join(unknown)}: no such option. There are: {', '.join(known)}")
    options = {"HOMEPORT_HUB_NAME": f"{APP}-{stage}", **given}
    Config.from_environ(options)  # raises BadConfiguration
    _require_https("HOMEPORT_NOTEBOOK_URL", options.get("HOMEPORT_NOTEBOOK_URL", ""), "https://*.notebooks.example.org")
    if options.get("HOMEPORT_HUB_ORIGIN"):
        _require_https("HOMEPORT_HUB_ORIGIN", options["HOMEPORT_HUB_ORIGIN"], "https://hub.example.com")
    return Request(stage, options, alarm_email, rate, "" if reader == "-" else reader or None, network)


def _require_https(name: str, value: str, example: str) -> None:
    if not value.startswith("https://"):
        raise BadConfiguration(f"{name} is needed and must be an https origin, such as {example}")
