"""The proxy's part of `make deploy`: image, network and service, after the functions.

1. Everything that can be refused is refused first: options that do not go together, sizes that Fargate does not have,
   no Docker.
2. The service-linked roles of ECS, load balancing and autoscaling are made if the account has none: the first stack
   of an account fails on ECS's.
3. infra/registry.yaml makes the ECR repository, infra/images.py fills it.
4. infra/network.yaml makes a network, unless one is named or the functions are in it already (infra/network.py).
5. infra/proxy.yaml runs the image there, in the private subnets if addresses are fixed. It requests its certificate if
   the hosted zone is named.

Each step may be repeated; what is there is left as it is. Nothing here is done unless the operator chose it
(HOMEPORT_PROXY=fargate): the proxy also runs on any Docker host (proxy/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from botocore.exceptions import ClientError

from chalicelib import environment
from chalicelib.config import FEED_SHARDS, NOTEBOOK_URL
from chalicelib.environment import TEXT, Kind, Variable, setting, whole_number
from chalicelib.errors import BadConfiguration
from infra.images import Docker, architecture, provide_image
from infra.network import SUBNETS, NetworkOptions, ensure_network
from infra.project import APP
from infra.stack import deploy_stack

if TYPE_CHECKING:
    import boto3

ROOT: Final = Path(__file__).resolve().parent.parent
# What Fargate has, of what infra/proxy.yaml offers: CPU units → MiB.
SIZES: Final[Mapping[int, tuple[int, ...]]] = {
    256: (1024, 2048),
    512: (1024, 2048, 4096),
    1024: (2048, 4096, 8192),
    2048: (4096, 8192),
}
SERVICES: Final = (  # whose roles the stack's services work with
    "ecs.amazonaws.com",
    "elasticloadbalancing.amazonaws.com",
    "ecs.application-autoscaling.amazonaws.com",
)


def _size(text: str) -> tuple[int, int]:
    cpu, separator, memory = text.partition("/")
    size = (whole_number(cpu), whole_number(memory))
    if not separator or size[1] not in SIZES.get(size[0], ()):
        raise ValueError
    return size


def _matching(pattern: str, text: str) -> str:
    if text and not re.fullmatch(pattern, text):
        raise ValueError
    return text


def _pairs() -> str:
    return ", ".join(f"{cpu}/{memory}" for cpu, memories in SIZES.items() for memory in memories)


_TASKS: Final = Kind("a whole number from 1 to 100", partial(whole_number, most=100))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """How the proxy is deployed. `size` is CPU units and MiB; what is empty is made, or left to its default."""

    where: str = setting(
        Variable(
            "HOMEPORT_PROXY",
            Kind("fargate, or empty", partial(_matching, "fargate")),
            "`fargate`: `make deploy` also deploys the proxy, to AWS Fargate. Empty: you run it (proxy/README.md)",
        )
    )
    platform: str = setting(
        Variable(
            "HOMEPORT_PROXY_PLATFORM",
            Kind("linux/arm64 or linux/amd64", partial(_matching, "linux/(arm64|amd64)")),
            "what the proxy's image is built for. linux/arm64 costs a fifth less; another platform than the machine's "
            "own needs emulation",
            note="the Docker engine's own",
        )
    )
    base: str = setting(
        Variable(
            "HOMEPORT_PROXY_BASE",
            TEXT,
            "the image that the proxy's is built on, by tag or digest; of a tag, what it names today",
            default="debian:bookworm-slim",
        )
    )
    image: str = setting(
        Variable(
            "HOMEPORT_PROXY_IMAGE",
            Kind("an image's name with @sha256: and a digest", partial(_matching, r"\S+@sha256:[0-9a-f]{64}")),
            "an image that is there already, in ECR of this account or public: nothing is built",
        )
    )
    size: tuple[int, int] = setting(
        Variable(
            "HOMEPORT_PROXY_SIZE",
            Kind(f"CPU units and MiB as Fargate has them: {_pairs()}", _size),
            "how large each proxy is: CPU units, of which 1024 are a vCPU, and MiB",
            default="256/1024",
        )
    )
    tasks: int = setting(Variable("HOMEPORT_PROXY_TASKS", _TASKS, "how many proxies there are at least", default="2"))
    max_tasks: int = setting(
        Variable("HOMEPORT_PROXY_MAX_TASKS", _TASKS, "how many there are at most, under load", default="10")
    )
    vpc: str = setting(
        Variable(
            "HOMEPORT_PROXY_VPC",
            Kind("a VPC's id", partial(_matching, "vpc-([0-9a-f]{8}|[0-9a-f]{17})")),
            "a VPC that is there, with nothing else in it; needs HOMEPORT_PROXY_SUBNETS",
            note="one is made",
        )
    )
    subnets: tuple[str, ...] = setting(
        Variable(
            "HOMEPORT_PROXY_SUBNETS",
            SUBNETS,
            "two or more public subnets of that VPC, each in another availability zone",
        )
    )
    zone: str = setting(
        Variable(
            "HOMEPORT_PROXY_ZONE",
            Kind("a hosted zone's id", partial(_matching, "[A-Z0-9]{1,32}")),
            "the Route 53 zone of the notebooks' domain: the wildcard record is made there, and a certificate is "
            "requested",
        )
    )
    certificate: str = setting(
        Variable(
            "HOMEPORT_PROXY_CERTIFICATE_ARN",
            Kind("an ACM certificate's ARN", partial(_matching, r"arn:aws[a-z-]*:acm:\S+")),
            "an ACM certificate for the notebooks' wildcard domain, in this region; needed without HOMEPORT_PROXY_ZONE",
            note="one is requested",
        )
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ProxyOptions:
        """Read and check the operator's choice; raises BadConfiguration before anything is touched."""
        found = environment.from_environ(cls, environ)
        if found.where:
            found.check()
        return found

    def check(self) -> None:
        """Raise BadConfiguration for options that do not go together."""
        if bool(self.vpc) != bool(self.subnets) or len(self.subnets) == 1:
            raise BadConfiguration(
                "HOMEPORT_PROXY_VPC and HOMEPORT_PROXY_SUBNETS are set together, with two subnets or more"
            )
        if not self.certificate and not self.zone:
            raise BadConfiguration(
                "The proxy needs a certificate for the notebooks' wildcard domain. Set HOMEPORT_PROXY_ZONE to the "
                "domain's Route 53 zone, and one is requested; or have ACM issue one and set "
                "HOMEPORT_PROXY_CERTIFICATE_ARN"
            )
        if self.max_tasks < self.tasks:
            raise BadConfiguration("HOMEPORT_PROXY_MAX_TASKS is below HOMEPORT_PROXY_TASKS")
        if self.image and not self.platform:
            raise BadConfiguration("HOMEPORT_PROXY_IMAGE needs HOMEPORT_PROXY_PLATFORM: what it was built for")


class Request(Protocol):
    """The stage that is deployed, its options, who is told of alarms (None: as before), and where its functions are."""

    @property
    def stage(self) -> str: ...
    @property
    def options(self) -> Mapping[str, str]: ...
    @property
    def alarm_email(self) -> str | None: ...
    @property
    def network(self) -> NetworkOptions: ...


@dataclass(frozen=True, slots=True)
class Deployed:
    """Where the proxy is: the load balancer's name, and whether the wildcard record that points there was made."""

    dns_name: str
    has_record: bool


def deploy_proxy(
    request: Request,
    options: ProxyOptions,
    session: boto3.Session,
    docker: Docker,
    *,
    hub_origin: str,
    hub_url: str,
    say: Callable[[str], None],
    root: Path = ROOT,
) -> Deployed:
    """Deploy the stage's proxy, whose functions are deployed.

    `hub_origin` is the hub's origin as browsers show it, `hub_url` its first page.

    Raises BadConfiguration, and botocore's errors.
    """
    platform = check_proxy(request, options, docker)
    parameters = _parameters(request, options)
    for service in make_service_roles(session.client("iam")):
        say(f"Made the account's role for {service}")
    image = options.image or _provide(request.stage, options, session, docker, platform=platform, say=say, root=root)
    vpc, subnets, private = options.vpc, ",".join(options.subnets), ""
    if not vpc:
        cloudformation = session.client("cloudformation")
        fixed = request.network.addresses(cloudformation, request.stage)
        made = ensure_network(cloudformation, request.stage, fixed)
        vpc, subnets, private = made.vpc, made.public, made.private if fixed else ""
    parameters |= {
        "HubOrigin": hub_origin,
        "HubUrl": hub_url,
        "Image": image,
        "EcrRepository": _ecr_repository(image),
        "Architecture": architecture(platform),
        "Vpc": vpc,
        "Subnets": subnets,
        "PrivateSubnets": private,
    }
    outputs = _stack(session, request.stage, "proxy", root, parameters)
    say(f"Stack {APP}-{request.stage}-proxy is up to date")
    return Deployed(outputs["DnsName"], bool(options.zone))


def check_proxy(request: Request, options: ProxyOptions, docker: Docker) -> str:
    """The platform that the proxy will run on; raises BadConfiguration for what cannot work, before it is begun."""
    options.check()
    if options.vpc and request.network.fixed:
        raise BadConfiguration(
            "HOMEPORT_FIXED_ADDRESSES makes a network for functions and proxies. Unset HOMEPORT_PROXY_VPC and "
            "HOMEPORT_PROXY_SUBNETS"
        )
    _parameters(request, options)
    own = "" if options.image else docker.platform()  # also asked so that a missing Docker is said first
    platform = options.platform or own
    architecture(platform)
    return platform


def make_service_roles(iam: Any) -> list[str]:
    """Make those of the service-linked roles that the account does not have; return whose were made."""
    missing = [one for one in SERVICES if not iam.list_roles(PathPrefix=f"/aws-service-role/{one}/")["Roles"]]
    return [service for service in missing if _make_service_role(iam, service)]


def _make_service_role(iam: Any, service: str) -> bool:
    """Say whether the role was made: another run, or AWS itself, may have been faster."""
    try:
        iam.create_service_linked_role(AWSServiceName=service)
    except ClientError as error:
        if "has been taken" in error.response["Error"]["Message"]:
            return False
        raise
    return True


def _provide(
    stage: str,
    options: ProxyOptions,
    session: boto3.Session,
    docker: Docker,
    *,
    platform: str,
    say: Callable[[str], None],
    root: Path,
) -> str:
    uri = _stack(session, stage, "registry", root, {})["RepositoryUri"]
    ecr = session.client("ecr")
    image, built = provide_image(docker, ecr, root, uri=uri, base=options.base, platform=platform)
    say(f"The proxy's image, {'built' if built else 'there already'}: {image}")
    return image


def _parameters(request: Request, options: ProxyOptions) -> dict[str, str]:
    """The proxy stack's parameters that are known before anything is made; raises BadConfiguration."""
    cpu, memory = options.size
    domain = NOTEBOOK_URL.read(request.options).partition("://*.")[2]
    if not domain or ":" in domain:
        raise BadConfiguration(f"{NOTEBOOK_URL.name} must be https://*. and a domain: the load balancer has port 443")
    told = {
        "Cpu": str(cpu),
        "Memory": str(memory),
        "Tasks": str(options.tasks),
        "MaxTasks": str(options.max_tasks),
        "CertificateArn": options.certificate,
        "NotebookDomain": domain,
        "HostedZoneId": options.zone,
        "FeedShards": str(FEED_SHARDS.read(request.options)),
    }
    return told if request.alarm_email is None else told | {"AlarmEmail": request.alarm_email}


def _ecr_repository(image: str) -> str:
    """The ECR repository that an image is in; "" if it is in another registry."""
    found = re.fullmatch(r"\d+\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/([^@]+)@.*", image)
    return found[1] if found else ""


def _stack(session: boto3.Session, stage: str, part: str, root: Path, parameters: Mapping[str, str]) -> dict[str, str]:
    return deploy_stack(
        session.client("cloudformation"),
        name=f"{APP}-{stage}-{part}",
        template=(root / "infra" / f"{part}.yaml").read_text(),
        parameters={"Stage": stage, **parameters},
        capabilities=["CAPABILITY_IAM"] if part == "proxy" else [],
    )
