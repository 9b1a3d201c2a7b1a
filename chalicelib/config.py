"""The hub's configuration: the declaration of its variables, and the only reader of the environment.

Everything else is handed a frozen Config.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from chalicelib import environment
from chalicelib.bundle.address import AddressPolicy
from chalicelib.environment import (
    COUNT,
    NETWORKS,
    ORIGIN,
    PORTS,
    SWITCH,
    TEXT,
    Kind,
    Network,
    Variable,
    number,
    optional,
    setting,
    whole_number,
    words,
)
from chalicelib.repository.allowed import is_pattern as is_repository_pattern
from chalicelib.session.admission import SHARED_FACTOR, Quota, is_shared
from chalicelib.session.door import Rate
from chalicelib.session.image import is_pattern
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import PullPatience
from chalicelib.session.options import Allowance, size_of
from chalicelib.session.values import Limits

VERSION: Final = "0.1.0"
ENVIRON: Final[Mapping[str, str]] = os.environ  # noqa: TID251 - the only reader
# Of a hundred functions. A pull's is held for minutes; leaving needs few, but must have them.
LANE_SHARES: Final[Mapping[Lane, int]] = MappingProxyType(
    {Lane.LAUNCH: 40, Lane.PULL: 30, Lane.LEAVE: 20, Lane.WATCH: 10}
)
LEAST_OF_A_LANE: Final = 2  # SQS's event sources take no lower limit
LEAST_FUNCTIONS: Final = LEAST_OF_A_LANE * len(LANE_SHARES)
SLOW_ENOUGH: Final = 20  # notes of one owner or network; the table keeps five times as many (aws/slots.py)
PULL_SLOTS: Final = 80  # percent of the pull lane's functions; the others are for handovers
REPOSITORY_MOST: Final = 500  # notebooks of one repository; their slots are one item of the table (aws/slots.py)
SESSIONS_MOST: Final = 200  # of one owner that are counted
LONGEST_SESSION_HOURS: Final = 168
LONGEST_KEPT_HOURS: Final = 720  # the bucket's backstop deletes credentials after 32 days


def _notebook_origins(text: str) -> str:
    origins = ORIGIN.parse(text)
    if not origins.partition("://")[2].startswith("*."):
        raise ValueError
    return origins


def _owner_sessions(text: str) -> int | None:
    return whole_number(text, least=0, most=SESSIONS_MOST) or None


def _rate(text: str) -> Rate | None:
    count = whole_number(text, least=0)
    return Rate(count) if count else None


REPOSITORIES: Final = Kind("a list of repositories such as gh/jupyterlab/*", partial(words, is_repository_pattern))
FULL_SIZE: Final = Kind("a size such as 8g", size_of)
SIZE: Final = Kind("a size such as 8g", partial(optional, size_of))
CPUS: Final = Kind("a number of CPUs above 0", partial(optional, number))

# What the hub and the proxy both have to know.
TABLE: Final = Variable("HOMEPORT_TABLE", TEXT, "the hub's DynamoDB table", default="homeport", output="Table")
HUB_ORIGIN: Final = Variable(
    "HOMEPORT_HUB_ORIGIN",
    ORIGIN,
    "the hub's own origin, exactly as browsers show it; other origins' forms are refused, here and by the proxy",
    default="http://localhost:8000",
)
NOTEBOOK_URL: Final = Variable(
    "HOMEPORT_NOTEBOOK_URL",
    Kind("an origin such as https://*.notebooks.example.org", _notebook_origins),
    "a notebook's origin as browsers see it; `*` stands for the launch",
    default="http://*.localhost:8080",
)
FEED_SHARDS: Final = Variable(
    "HOMEPORT_FEED_SHARDS",
    COUNT,
    "shards of the proxies' change feed, the same for hub and proxies; one carries some 200 launches a second "
    "(docs/scale.md). Raise it at the proxies first, and do not lower it while notebooks run",
    default="1",
)
QUEUE_URLS: Final = Variable(
    "HOMEPORT_QUEUE_URLS", TEXT, "what the addresses of the lanes' queues begin with", output="QueueUrls"
)
STAGE: Final = Variable(
    "HOMEPORT_STAGE", TEXT, "the stage that alarms are about; without one, nothing is counted", output="Stage"
)
# What `make run` takes over from whoever runs it.
IMAGE: Final = Variable(
    "HOMEPORT_IMAGE",
    TEXT,
    "the image of a notebook when the visitor names none",
    default="quay.io/jupyter/minimal-notebook:latest",
)
BUILDER: Final = Variable(
    "HOMEPORT_BUILDER_IMAGE",
    TEXT,
    "the image of the helpers that build repositories on visitors' endpoints: repo2docker, Git and a Docker client. "
    "Name it by digest; another one builds every repository anew. `off`: repositories are not launched",
    default="quay.io/jupyterhub/repo2docker:2025.08.0",
)
# What the deployment computes for a small account.
FUNCTIONS: Final = Variable(
    "HOMEPORT_FUNCTIONS",
    Kind(f"a whole number from {LEAST_FUNCTIONS} to 2500", partial(whole_number, least=LEAST_FUNCTIONS, most=2500)),
    "how many functions the launcher may have at work at once, in its four lanes together",
    default="100",
)
ADDRESSES: Final = Variable(
    "HOMEPORT_ADDRESSES",
    NETWORKS,
    "the addresses from which launcher and proxy connect, if they are fixed: the form shows them, so that visitors' "
    "firewalls can name them; if empty, it says that they change. Those of `HOMEPORT_FIXED_ADDRESSES` are added",
)
# What the deployment has Lambda do, too.
TRACING: Final = Variable(
    "HOMEPORT_TRACING",
    SWITCH,
    "has AWS X-Ray record how long functions, effects and calls to AWS take, without what is in them; $5 per million "
    "traces, and nothing for the first 100,000 of a month",
    default="off",
)
ENDPOINT_NETWORKS: Final = Variable(
    "HOMEPORT_ENDPOINT_NETWORKS",
    NETWORKS,
    "private networks that endpoints may be in, such as `10.1.0.0/16`; link-local and metadata addresses never may",
)


def lambda_handler(environ: Mapping[str, str] = ENVIRON) -> str | None:
    """The handler that Lambda has this process import for, such as "app.launch"; None where this is no function.

    Lambda alone sets it: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    return environ.get("_HANDLER")


def trace_header(environ: Mapping[str, str] = ENVIRON) -> str:
    """The trace that Lambda has the present invocation be part of; "" if it has none.

    The runtime client sets it anew for each: https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
    """
    return environ.get("_X_AMZN_TRACE_ID", "")


def trace_daemon(environ: Mapping[str, str] = ENVIRON) -> str:
    """The address and port to which Lambda wants to be told of parts of it; "" where this is no function."""
    return environ.get("AWS_XRAY_DAEMON_ADDRESS", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One hub's configuration.

    `notebook_url` is the origin of a notebook with `*` for the launch's host. `hub_name` labels this hub's containers.
    Networks and ports bound the endpoints that are connected to; lifetimes are in seconds.
    """

    notebook_url: str = setting(NOTEBOOK_URL)
    hub_origin: str = setting(HUB_ORIGIN)
    hub_name: str = setting(
        Variable(
            "HOMEPORT_HUB_NAME",
            TEXT,
            "labels the hub's containers on the visitors' endpoints, followed by its notebook CA's fingerprint; do not "
            "change it while notebooks run",
            default="homeport",
        )
    )
    image: str = setting(IMAGE)
    images: tuple[str, ...] = setting(
        Variable(
            "HOMEPORT_IMAGES",
            Kind("a list of images' names such as quay.io/jupyter/*", partial(words, is_pattern)),
            "the images that visitors may name besides the default one, all if empty: names as in `docker pull`, `*` "
            "for any characters of domain, path or tag, all tags if none is named; or digests (`sha256:…`)",
        )
    )
    most_memory: int | None = setting(
        Variable("HOMEPORT_MEMORY_LIMIT", SIZE, "the most memory that a notebook may have")
    )
    most_cpus: float | None = setting(Variable("HOMEPORT_CPU_LIMIT", CPUS, "the same for CPUs"))
    most_shm: int | None = setting(Variable("HOMEPORT_SHM_LIMIT", SIZE, "the same for shared memory, `/dev/shm`"))
    default_memory: int | None = setting(
        Variable(
            "HOMEPORT_MEMORY",
            SIZE,
            "the memory of a notebook whose visitor asks for none; if empty, `HOMEPORT_MEMORY_LIMIT`, else no limit",
        )
    )
    default_cpus: float | None = setting(Variable("HOMEPORT_CPUS", CPUS, "the same for CPUs"))
    default_shm: int | None = setting(
        Variable(
            "HOMEPORT_SHM",
            SIZE,
            "the same for shared memory; Docker's own 64 MiB are too little for PyTorch's data loaders, and what is "
            "not used takes none",
            default="1g",
        )
    )
    data_folders: bool = setting(
        Variable(
            "HOMEPORT_DATA_DIRECTORIES",
            SWITCH,
            "lets visitors have a directory of their endpoint's host in the notebook",
            default="on",
        )
    )
    builder: str = setting(BUILDER)
    repositories: tuple[str, ...] = setting(
        Variable(
            "HOMEPORT_REPOSITORIES",
            REPOSITORIES,
            "the repositories that visitors may launch, all if empty: such as `gh/jupyterlab/*` or `zenodo/*`",
        )
    )
    banned_repositories: tuple[str, ...] = setting(
        Variable("HOMEPORT_BANNED_REPOSITORIES", REPOSITORIES, "those that they may not, written in the same way")
    )
    repository_limit: int | None = setting(
        Variable(
            "HOMEPORT_REPOSITORY_LIMIT",
            Kind(
                f"a whole number from 1 to {REPOSITORY_MOST}",
                partial(optional, partial(whole_number, most=REPOSITORY_MOST)),
            ),
            "how many notebooks of one repository may be launching or running at once, whoever launched them; at most "
            f"{REPOSITORY_MOST}, no limit if empty",
        )
    )
    build_longest: float = setting(
        Variable(
            "HOMEPORT_BUILD_MINUTES",
            Kind("a number above 0", partial(number, unit=60)),
            "the longest that the build of a repository may take",
            default="60",
        )
    )
    build_disk: int = setting(
        Variable(
            "HOMEPORT_BUILD_DISK",
            FULL_SIZE,
            "what an endpoint must have left of disk to build a repository",
            default="4g",
        )
    )
    most_image: int | None = setting(
        Variable("HOMEPORT_BUILT_IMAGE_LIMIT", SIZE, "the most that a repository's image may have; no limit if empty")
    )
    engine_socket: str = setting(
        Variable(
            "HOMEPORT_ENGINE_SOCKET",
            TEXT,
            "where the engine's socket is on endpoints' hosts; if empty, where Docker's and Podman's packages have it",
        )
    )
    session_lifetime: float = setting(
        Variable(
            "HOMEPORT_SESSION_HOURS",
            Kind(
                f"a number above 0 and at most {LONGEST_SESSION_HOURS}",
                partial(number, most=LONGEST_SESSION_HOURS, unit=3600),
            ),
            f"the longest life of a session, and so of its credentials; at most {LONGEST_SESSION_HOURS}",
            default="72",
        )
    )
    longest_kept: float = setting(
        Variable(
            "HOMEPORT_LONGEST_HOURS",
            Kind(
                f"a number above 0 and at most {LONGEST_KEPT_HOURS}",
                partial(number, most=LONGEST_KEPT_HOURS, unit=3600),
            ),
            "how long a session may last in all if its visitor keeps it longer, again and again; at most "
            f"{LONGEST_KEPT_HOURS}. If it is not more than `HOMEPORT_SESSION_HOURS`, sessions cannot be kept longer",
            default="336",
        )
    )
    quick_start: bool = setting(
        Variable(
            "HOMEPORT_QUICK_START",
            SWITCH,
            "starts JupyterLab without the import that takes half of its start (docs/adr/0014); `off` runs plain "
            "`jupyter lab`",
            default="on",
        )
    )
    idle_lifetime: float = setting(
        Variable(
            "HOMEPORT_IDLE_MINUTES",
            Kind("a number above 0", partial(number, unit=60)),
            "a notebook without activity ends after so long; a busy kernel never does",
            default="120",
        )
    )
    allowed_networks: tuple[Network, ...] = setting(ENDPOINT_NETWORKS)
    denied_networks: tuple[Network, ...] = setting(
        Variable(
            "HOMEPORT_ENDPOINT_DENIED_NETWORKS",
            NETWORKS,
            "networks that no endpoint may be in: the hub's and the proxy's own",
        )
    )
    denied_ports: frozenset[int] = setting(
        Variable("HOMEPORT_ENDPOINT_DENIED_PORTS", PORTS, "ports no endpoint may have, besides 2375")
    )
    functions: int = setting(FUNCTIONS)
    owner_limit: int = setting(
        Variable(
            "HOMEPORT_OWNER_LIMIT",
            COUNT,
            "how many pulls one key may have at once; never more than half of all",
            default="4",
        )
    )
    network_limit: int = setting(
        Variable(
            "HOMEPORT_NETWORK_LIMIT",
            COUNT,
            "the same for one endpoint's address, and for the address (/64 of IPv6) that launches come from",
            default="16",
        )
    )
    addresses: tuple[Network, ...] = setting(ADDRESSES)
    owner_sessions: int | None = setting(
        Variable(
            "HOMEPORT_OWNER_NOTEBOOKS",
            Kind(f"a whole number from 0 to {SESSIONS_MOST}", _owner_sessions),
            f"how many notebooks one key may have that have not ended; at most {SESSIONS_MOST}, no limit if 0",
            default="20",
        )
    )
    sessions_limit: int | None = setting(
        Variable(
            "HOMEPORT_NOTEBOOKS",
            Kind("a whole number above 0", partial(optional, whole_number)),
            "how many notebooks there may be on the hub that have not ended, as the schedule counts them each minute; "
            "no limit if empty",
        )
    )
    owner_rate: Rate | None = setting(
        Variable(
            "HOMEPORT_OWNER_LAUNCHES",
            Kind("a whole number", _rate),
            "how many launches one key may ask for in an hour, all at once if need be; no limit if 0",
            default="60",
        )
    )
    network_rate: Rate | None = setting(
        Variable(
            "HOMEPORT_NETWORK_UPLOADS",
            Kind("a whole number", _rate),
            "how many bundles may be uploaded from one address (/64 of IPv6) in an hour, all at once if need be; no "
            "limit if 0",
            default="300",
        )
    )
    shared_networks: tuple[Network, ...] = setting(
        Variable(
            "HOMEPORT_SHARED_NETWORKS",
            NETWORKS,
            f"networks that many share, such as a university's: their limit is {SHARED_FACTOR} times as high",
        )
    )
    pull_stalled: float = setting(
        Variable(
            "HOMEPORT_PULL_STALL_MINUTES",
            Kind("a number above 0", partial(number, unit=60)),
            "a pull that gets no further for so long is given up",
            default="60",
        )
    )
    pull_longest: float = setting(
        Variable(
            "HOMEPORT_PULL_HOURS",
            Kind("a number above 0", partial(number, unit=3600)),
            "the longest a launch may wait for its image, which is longer than any pull should take",
            default="12",
        )
    )
    tracing: bool = setting(TRACING)
    table: str = setting(TABLE)
    feed_shards: int = setting(FEED_SHARDS)
    bucket: str = setting(
        Variable(
            "HOMEPORT_BUCKET", TEXT, "the S3 bucket of the sealed credentials", default="homeport", output="Bucket"
        )
    )
    key: str = setting(
        Variable(
            "HOMEPORT_KEY",
            TEXT,
            "the KMS key that seals them, its ARN or alias",
            default="alias/homeport",
            output="Key",
        )
    )
    queues: str = setting(
        Variable(
            "HOMEPORT_QUEUES",
            TEXT,
            "what the names of the lanes' queues begin with, before `-launch` and the like",
            default="homeport",
            output="Queues",
        )
    )
    queue_urls: str = setting(QUEUE_URLS)
    stage: str = setting(STAGE)
    certificates: str = setting(
        Variable(
            "HOMEPORT_CERTIFICATES",
            TEXT,
            "where in SSM the hub's own certificates are: the prefix of their parameters",
            default="/homeport",
            output="Certificates",
        )
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = ENVIRON) -> Config:
        """Read the HOMEPORT_… variables; raises BadConfiguration."""
        return environment.from_environ(cls, environ)

    @property
    def address_policy(self) -> AddressPolicy:
        """Which addresses an endpoint may have."""
        return AddressPolicy(allowed=self.allowed_networks, denied=self.denied_networks, denied_ports=self.denied_ports)

    @property
    def launches_repositories(self) -> bool:
        """Whether repositories can be launched here."""
        return self.builder != "off"

    @property
    def longest_lifetime(self) -> float:
        """How long a session may last that is kept longer, in seconds."""
        return max(self.longest_kept, self.session_lifetime)

    @property
    def pulls(self) -> PullPatience:
        """How long a pull may take."""
        return PullPatience(stalled=self.pull_stalled, longest=self.pull_longest, build=self.build_longest)

    @property
    def allowance(self) -> Allowance:
        """What a launch may ask for."""
        return Allowance(
            most=Limits(memory=self.most_memory, cpus=self.most_cpus, shm=self.most_shm),
            default=Limits(memory=self.default_memory, cpus=self.default_cpus, shm=self.default_shm),
            data=self.data_folders,
            images=self.images,
        )

    def upload_rate(self, network: str) -> Rate | None:
        """How many uploads a network may make; None for any number."""
        if self.network_rate is None:
            return None
        factor = SHARED_FACTOR if is_shared(network, self.shared_networks) else 1
        return Rate(self.network_rate.count * factor)

    def functions_of(self, lane: Lane) -> int:
        """How many functions a lane may have at work at once: its share; what others leave, if that is less."""
        share = max(self.functions * LANE_SHARES[lane] // 100, LEAST_OF_A_LANE)
        if lane is not Lane.LAUNCH:
            return share
        return min(share, self.functions - sum(self.functions_of(other) for other in Lane if other is not lane))

    @property
    def _pulls(self) -> int:
        """How many pulls there may be at once."""
        return self.functions_of(Lane.PULL) * PULL_SLOTS // 100

    @property
    def pull_quota(self) -> Quota:
        """How many pulls there may be at once: no owner and no network takes more than half of them all."""
        in_all = self._pulls
        half = max(1, in_all // 2)
        return Quota(
            per_owner=min(self.owner_limit, half),
            per_network=min(self.network_limit, half),
            shared=self.shared_networks,
            shared_most=max(1, in_all * 3 // 4),
            in_all=in_all,
        )

    @property
    def handover_quota(self) -> Quota:
        """How many pulls may be taken over at once: an owner or a network has half of the functions for that."""
        functions = self.functions_of(Lane.PULL) - self._pulls
        half = max(1, functions // 2)
        return Quota(
            per_owner=half,
            per_network=half,
            shared=self.shared_networks,
            shared_most=max(1, functions * 3 // 4),
        )

    @property
    def repository_quota(self) -> Quota | None:
        """How many notebooks of one repository there may be, whose slots name nobody; None: any number."""
        limit = self.repository_limit
        return None if limit is None else Quota(per_owner=1, per_network=1, in_all=limit)

    def slow_quota(self, lane: Lane) -> Quota:
        """How often an owner or a network may have been slow lately before its sessions need turns in a lane."""
        enough = min(self.turn_quota(lane).per_owner, SLOW_ENOUGH)
        return Quota(per_owner=enough, per_network=enough)

    def turn_quota(self, lane: Lane) -> Quota:
        """How many of a lane's functions an owner or a network may hold then: half of them."""
        functions = self.functions_of(lane)
        half = max(1, functions // 2)
        return Quota(
            per_owner=half,
            per_network=half,
            shared=self.shared_networks,
            shared_most=max(1, functions * 3 // 4),
        )

    def notebook_origin(self, host: str) -> str:
        """The origin (scheme, host, port) at which the proxy serves the notebook of the launch with this `host`."""
        return self.notebook_url.replace("*", host)
