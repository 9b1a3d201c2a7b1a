"""The visitor's Docker Engine API, through docker-py on our own transport; hostile until proven otherwise.

Rules

1. The name is resolved once and every answer checked (`resolve`); from then on there is only that address.
2. docker-py's client is made without its constructor, which reads ~/.docker/config.json: no registry credentials,
   proxies or headers of the hub's own machine ever reach a visitor's endpoint. Environment variables count for nothing.
3. No redirect is followed, no compressed answer decoded, no answer above 4 MiB read, and the whole of one
   DockerEndpoint's calls ends when its deadline does. A pull has a connection and a budget of its own.
4. Every call is safe to repeat. A name that is taken is looked at: our labels mean it is ours, anything else is
   a conflict. What is not ours is never removed, and no volume ever is.
5. From what the endpoint says, only known words, small numbers and short quotes are believed.

Source: Docker Engine API 1.24 to 1.45, https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import requests
from docker.api.client import APIClient
from docker.auth import AuthConfig
from docker.constants import DEFAULT_DOCKER_API_VERSION, MINIMUM_DOCKER_API_VERSION
from docker.errors import InvalidVersion
from docker.types import DeviceRequest, HostConfig, LogConfig, Mount
from docker.utils import parse_repository_tag
from docker.utils.proxy import ProxyConfig
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool
from urllib3.response import HTTPResponse

from chalicelib import errors
from chalicelib.address import AddressPolicy, Endpoint
from chalicelib.bundle import Credentials
from chalicelib.certificates import notebook_name
from chalicelib.engine_words import (
    BAD_IMAGE,
    PullProgress,
    PullStatus,
    message_of,
    pull_failure,
    quoted,
    refusal,
    start_refusal,
)
from chalicelib.events import Target
from chalicelib.notebook import LABEL, LOG_OPTIONS, NOTEBOOK_PORT, HubTrust, Specification
from chalicelib.transport import Budget, Channel, new_context

__all__ = ["ContainerStatus", "DockerEndpoint", "PullStatus", "probe", "resolve"]

STOP_SECONDS: Final = 10  # docker stop's own default; JupyterLab needs one or two
POLL_SECONDS: Final = 0.1
ANSWER_SECONDS: Final = 60.0  # for a pull's first layer: the engine asks the registry first, which may be slow
SILENCE_SECONDS: Final = 600.0  # of a pull without progress; a large layer on a slow disk says nothing for minutes
TICK_SECONDS: Final = 1.0  # between two statuses of a pull that changes
HEARTBEAT_SECONDS: Final = 2.0  # between two statuses of one that does not
TICK_BYTES: Final = 512 * 1024  # of progress lines read per tick; a hundred layers make 200 kB
LINE_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 32 * 1024
QUEUE_CHUNKS: Final = 8
LOG_LINES: Final = 50
LOG_CHARACTERS: Final = 4000
LOWEST_PORT: Final = 1024
HIGHEST_PORT: Final = 65535

_API_VERSION: Final = re.compile(r"1\.([0-9]{1,3})")
_IMAGE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:@-]|/(?!/)){0,254}")
_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")
_OUR_NAME: Final = re.compile(r"homeport-(?P<session>[0-9a-z]+)-(?P<generation>[0-9]+)")
_STATUSES: Final = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """What is known of a container; `status` is Docker's word for it, "missing" or "unknown"."""

    exists: bool
    status: str
    running: bool
    exit_code: int | None
    oom: bool


MISSING: Final = ContainerStatus(exists=False, status="missing", running=False, exit_code=None, oom=False)


def resolve(
    endpoint: Endpoint, policy: AddressPolicy, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
) -> str:
    """Look the endpoint's name up, once, and give the address to connect to.

    Raises ForbiddenAddress when any answer is forbidden, EndpointNameUnknown, EndpointUnreachable.
    """
    policy.check_port(endpoint)
    try:
        answers = getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise errors.EndpointUnreachable(
                f"The name {endpoint.host} could not be looked up just now. It is tried again"
            ) from error
        raise _unknown_name(endpoint) from error
    except UnicodeError as error:
        raise _unknown_name(endpoint) from error
    return policy.check([str(answer[4][0]) for answer in answers])


def _unknown_name(endpoint: Endpoint) -> errors.EndpointNameUnknown:
    return errors.EndpointNameUnknown(
        f"No address is known for {endpoint.host}. Check the name's spelling, or give the endpoint's IP address"
    )


class DockerEndpoint:
    """One visitor's engine for the time of one effect: `deadline` seconds from now for all calls but `pull` together.

    `address` is what `resolve` gave. `hub_name` is whose containers `remove` may remove.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        address: str,
        deadline: float,
        hub_name: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self._deadline = deadline
        self._hub_name = hub_name
        self._clock = clock
        self._sleep = sleep
        self._channel = Channel(
            address,
            credentials.endpoint.port,
            credentials.endpoint.host,
            new_context(ca=credentials.ca, certificate=credentials.certificate, key=credentials.key),
            Budget(clock, deadline),
        )
        self._docker = _Client(self._channel)
        self._negotiated = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._docker.close()

    # ── the engine ──

    def verify(self) -> tuple[str, str]:
        """Connect, show the certificate and ask for the version: gives it, and a note for the visitor or ""."""
        version = self._version()
        if version.get("Os", "linux") != "linux":
            raise errors.EndpointNotLinux(
                "The endpoint's Docker Engine runs Windows containers, and notebooks are Linux containers. Switch it "
                "to Linux containers"
            )
        note = ""
        if self._channel.nameless:
            note = "Its certificate names no address, so your bundle's CA alone vouches for it"
        return quoted(version.get("Version"))[:40] or "unknown", note

    def _version(self) -> dict[str, Any]:
        with self._refusals(refusal):
            version = _object(self._docker.version(api_version=False))
        self._negotiate(version.get("ApiVersion"), version.get("MinAPIVersion"))
        return version

    def _negotiate(self, newest: object, oldest: object) -> None:
        """Choose the newest API version that both sides know."""
        theirs, minimum = _minor(newest), _minor(oldest) or 0
        if theirs is None:
            raise errors.EndpointMisbehaved(
                f"{self._channel.host} does not say which Docker API it speaks. Check that the address and port are "
                "your Docker endpoint's"
            )
        ours, least = _minor(DEFAULT_DOCKER_API_VERSION) or 0, _minor(MINIMUM_DOCKER_API_VERSION) or 0
        if theirs < least:
            raise errors.EndpointTooOld(
                f"The endpoint's Docker Engine speaks API 1.{theirs}; at least 1.{least} is needed. Update Docker there"
            )
        if minimum > ours:
            raise errors.EndpointTooNew(
                f"The endpoint's Docker Engine wants API 1.{minimum} or newer, and this hub knows 1.{ours}. Tell the "
                "hub's operator"
            )
        self._docker.use_version(f"1.{min(theirs, ours)}")
        self._negotiated = True

    @contextmanager
    def _calls(self, meaning: Callable[[int, str], errors.EndpointError] = refusal) -> Iterator[_Client]:
        """Give the client, its API version chosen, and turn what the engine refuses into what it means."""
        if not self._negotiated:
            version = self._docker.ping_version()
            if version is None:
                self._version()
            else:
                self._negotiate(version, None)
        with self._refusals(meaning):
            yield self._docker

    @contextmanager
    def _refusals(self, meaning: Callable[[int, str], errors.EndpointError]) -> Iterator[None]:
        try:
            yield
        except _Refusal as refused:
            raise meaning(refused.status, refused.text) from refused
        except InvalidVersion as error:
            raise errors.EndpointTooOld(
                "The endpoint's Docker Engine is too old for what was asked (GPUs need Docker 19.03). Update it"
            ) from error

    # ── images ──

    def image_present(self, image: str) -> bool:
        """Say whether the image is on the endpoint."""
        return self._image(image) is not None

    def image_workdir(self, image: str) -> str:
        """Give the image's working directory, empty when it has none; raises ImageNotFound."""
        found = self._image(image)
        if found is None:
            raise refusal(404, "no such image")
        workdir = _part(found, "Config").get("WorkingDir")
        return workdir if isinstance(workdir, str) else ""

    def _image(self, image: str) -> dict[str, Any] | None:
        name = _image_name(image)
        with self._calls() as docker:
            try:
                return _object(docker.inspect_image(name))  # type: ignore[no-untyped-call]
            except _Refusal as refused:
                if refused.status == 404:
                    return None
                raise

    def pull(self, image: str, *, answer_within: float = ANSWER_SECONDS) -> Generator[PullStatus, None, None]:
        """Pull the image and say how far it is, about every second and at least every two.

        Nothing is said before the engine has let this pull join the layers' downloads: from then on another pull of
        the same image may be cut without loss. Closing the iterator cuts this one. Raises an EndpointError.
        """
        repository, tag = parse_repository_tag(_image_name(image))
        with self._calls() as docker:
            version = docker.api_version
        channel = Channel(
            self._channel.address,
            self._channel.port,
            self._channel.name,
            self._channel.context,
            Budget(self._clock, answer_within),
        )
        pull = _Pull(channel, version, self._clock, answer_within)
        try:
            pull.begin(repository, tag or "latest")
            yield from pull.statuses()
        finally:
            pull.close()
        self._channel.budget = Budget(self._clock, self._deadline)
        if not self.image_present(image):
            raise pull_failure("the engine ended the pull, and the image is not there")

    # ── the container ──

    def create(self, spec: Specification) -> None:
        """Create the container, or adopt the one of its name that has its labels; raises ContainerConflict."""
        while True:
            with self._calls() as docker:
                try:
                    config = _container_config(docker, spec)
                    docker.create_container_from_config(config, spec.name)  # type: ignore[no-untyped-call]
                    return
                except _Refusal as refused:
                    if refused.status != 409:
                        raise
            found = self._find(spec.name)
            if found is not None:
                _adopt(found, spec)
                return
            self._pause()  # the name was taken, and is gone or not registered yet: another creation is in progress

    def put_files(self, container: str, tar: bytes) -> None:
        """Unpack `tar` at the container's root."""
        with self._calls() as docker:
            docker.put_archive(container, "/", tar)

    def start(self, container: str) -> None:
        """Start the container; one that runs already is left alone."""
        with self._calls(start_refusal) as docker:
            docker.start(container)

    def published_port(self, container: str) -> int:
        """Say at which port of the endpoint the notebook is published; raises EndpointMisbehaved, ContainerMissing."""
        found = self._found(container)
        ports = _part(_part(found, "NetworkSettings"), "Ports").get(f"{NOTEBOOK_PORT}/tcp")
        bindings = [binding for binding in ports if isinstance(binding, dict)] if isinstance(ports, list) else []
        if not bindings:
            raise errors.EndpointFailed("The endpoint has not published the notebook's port yet. It is asked again")
        six = ip_address(self.address).version == 6
        fitting = [binding for binding in bindings if (":" in str(binding.get("HostIp", ""))) is six]
        return _port((fitting or bindings)[0].get("HostPort"))

    def inspect(self, container: str) -> ContainerStatus:
        """Look at the container."""
        found = self._find(container)
        if found is None:
            return MISSING
        state = _part(found, "State")
        status, code = state.get("Status"), state.get("ExitCode")
        running = state.get("Running") is True and status not in ("paused", "restarting")
        return ContainerStatus(
            exists=True,
            status=status if isinstance(status, str) and status in _STATUSES else "unknown",
            running=running,
            exit_code=code if type(code) is int and -1 <= code <= 0xFFFF_FFFF and not running else None,
            oom=state.get("OOMKilled") is True,
        )

    def log_tail(self, container: str) -> str:
        """Give the end of the container's log: at most 50 lines and 4,000 characters; "" when there is none to read."""
        params = {"stdout": 1, "stderr": 1, "follow": 0, "tail": LOG_LINES}
        with self._calls() as docker:
            try:
                return _log_text(docker.get_bytes("/containers/{0}/logs", container, params))[-LOG_CHARACTERS:]
            except _Refusal:
                return ""

    def remove(self, container: str) -> None:
        """Stop and remove the container; its volumes stay, and one that is not there is removed already.

        Raises ContainerConflict for a container that is not ours.
        """
        found = self._find(container)
        if found is None:
            return
        self._check_removable(found, container)
        identity = found.get("Id")
        if not isinstance(identity, str) or not _CONTAINER_ID.fullmatch(identity):
            raise errors.EndpointMisbehaved("The endpoint gives a container an impossible id. Remove it there by hand")
        self._stop_and_delete(identity)
        while self._find(identity) is not None:
            self._pause()

    def _stop_and_delete(self, identity: str) -> None:
        with self._calls() as docker:
            with suppress(_Refusal):  # whatever it refuses here, the forced removal kills
                docker.stop(identity, timeout=STOP_SECONDS)
            try:
                docker.remove_container(identity, v=False, force=True)
            except _Refusal as refused:
                if refused.status not in (404, 409):  # gone, or "removal … is already in progress": inspect tells
                    raise

    def _check_removable(self, found: Mapping[str, Any], container: str) -> None:
        name = _OUR_NAME.fullmatch(container)
        wanted = {f"{LABEL}{key}": value for key, value in name.groupdict().items()} if name else {}
        labels = _labels(found)
        wanted |= {f"{LABEL}hub": self._hub_name}
        if name is None or any(labels.get(key) != value for key, value in wanted.items()):
            raise _conflict(container)

    def _find(self, container: str) -> dict[str, Any] | None:
        with self._calls() as docker:
            try:
                return _object(docker.inspect_container(container))
            except _Refusal as refused:
                if refused.status == 404:
                    return None
                raise

    def _found(self, container: str) -> dict[str, Any]:
        found = self._find(container)
        if found is None:
            raise refusal(404, "")
        return found

    def _pause(self) -> None:
        with self._channel.failures():
            self._sleep(min(POLL_SECONDS, self._channel.budget.seconds()))


# ── docker-py on our transport ───────────────────────────────────────────────────────────────────────────────────


class _Refusal(Exception):
    """The engine answered with an error status and this sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {quoted(text)}")
        self.status = status
        self.text = text


class _Client(APIClient):
    """docker-py's low-level client without its files, environment variables, redirects and trust in answers."""

    def __init__(self, channel: Channel) -> None:
        requests.Session.__init__(self)  # not APIClient's: it reads ~/.docker/config.json and connects
        self._channel = channel
        self.adapters.clear()
        self.mount("https://", _Adapter(channel))
        self.trust_env = False
        self.headers.update({"Accept-Encoding": "identity", "Host": channel.host, "User-Agent": "homeport"})
        self.base_url = f"https://{channel.host}"
        self.timeout = None  # type: ignore[assignment]  # the channel's budget is the one clock
        self.credstore_env = None
        self._general_configs: dict[str, Any] = {}
        self._proxy_configs = ProxyConfig()
        self._auth_configs = AuthConfig({})
        self._version = MINIMUM_DOCKER_API_VERSION

    def url(self, path: str, *names: str) -> str:
        """The URL of a path of the API, its {0}… replaced by names."""
        return f"{self.base_url}/v{self._version}{path.format(*(quote(name, safe='') for name in names))}"

    def use_version(self, version: str) -> None:
        """Speak this version of the API from now on."""
        self._version = version

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; everything docker-py does comes through here. Raises an EndpointError."""
        kwargs["allow_redirects"] = False
        self._channel.budget.begin_call()
        with self._channel.failures():
            return super().request(*args, **kwargs)

    def ping_version(self) -> str | None:
        """Ask for the newest API version the cheap way; None when the engine does not say it there."""
        response = self.get(f"{self.base_url}/_ping")
        self._raise_for_status(response)
        version = response.headers.get("Api-Version")
        return version if _minor(version) is not None else None

    def get_bytes(self, path: str, name: str, params: Mapping[str, Any]) -> bytes:
        """GET what is not JSON."""
        response = self.get(self.url(path, name), params=params)
        self._raise_for_status(response)
        return bytes(response.content)

    def _raise_for_status(self, response: requests.Response) -> None:
        if response.status_code >= 400:
            raise _Refusal(response.status_code, message_of(response.content))

    def _result(self, response: requests.Response, json: bool = False, binary: bool = False) -> Any:
        self._raise_for_status(response)
        if json:
            return _json(response.content)
        return response.content if binary else response.content.decode("utf-8", "replace")


class _Adapter(HTTPAdapter):
    """requests' adapter on a channel's one pool; it refuses what is never followed or decoded."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pool = channel.open_pool()
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """Give the one pool there is, whatever the URL, proxies or trust that requests worked out."""
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the context alone: requests would put its own trust into it."""

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()
        super().close()

    def build_response(self, req: requests.PreparedRequest, resp: BaseHTTPResponse) -> requests.Response:
        """Refuse redirects and encodings before a byte of the body is read."""
        try:
            self._check(resp)
        except errors.EndpointError:
            resp.close()
            raise
        original = getattr(resp, "_original_response", None)
        if original is not None:
            del original.msg["Set-Cookie"]  # an engine sets none, and none would be sent back
        return super().build_response(req, resp)

    def _check(self, resp: BaseHTTPResponse) -> None:
        if 300 <= resp.status < 400 and resp.status != 304:
            raise errors.EndpointRedirected(
                f"{self._channel.host} redirects elsewhere ({resp.status}), and the hub follows no redirect. Give the "
                "Docker endpoint's own address"
            )
        if (
            not 200 <= resp.status < 600
            or resp.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
        ):
            raise errors.EndpointMisbehaved(
                f"{self._channel.host} does not answer like a Docker Engine. Check that the address and port are your "
                "Docker endpoint's, without a web server that compresses its answers in between"
            )


# ── a pull ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Pull:
    """One pull on a connection of its own; a thread reads it, so that the caller hears something while it is silent.

    At most QUEUE_CHUNKS chunks are in memory and TICK_BYTES read per tick: a flood only fills the network's buffers.
    """

    def __init__(self, channel: Channel, version: str, clock: Callable[[], float], answer_within: float) -> None:
        self._channel = channel
        self._docker = _Client(channel)
        self._docker.use_version(version)
        self._clock = clock
        self._joins_by = clock() + answer_within
        self._chunks: queue.Queue[bytes | errors.EndpointError] = queue.Queue(QUEUE_CHUNKS)
        self._closed = threading.Event()
        self._response: requests.Response | None = None
        self._reader = threading.Thread(target=self._read, name="homeport-pull", daemon=True)
        self._progress = PullProgress()
        self._rest = b""

    def begin(self, repository: str, tag: str) -> None:
        """Ask for the pull and wait for the answer's head; raises an EndpointError."""
        self._response = self._docker.post(
            self._docker.url("/images/create"),
            params={"fromImage": repository, "tag": tag},
            stream=True,
        )
        if self._response.status_code >= 400:
            raise pull_refusal(self._response.status_code, message_of(self._response.content))
        self._channel.budget.stream(SILENCE_SECONDS)
        self._reader.start()

    def statuses(self) -> Iterator[PullStatus]:
        """Yield statuses until the pull ends; raises an EndpointError."""
        said: PullStatus | None = None
        said_at = changed_at = self._clock()
        changes, begun, joined = -1, False, False
        while not self._listen(self._clock() + TICK_SECONDS):
            now, status = self._clock(), self._progress.status()
            if self._progress.changes != changes:
                changes, changed_at = self._progress.changes, now
            if now - changed_at > SILENCE_SECONDS:
                raise errors.EndpointTimeout("The pull made no progress for ten minutes. It is begun anew")
            if not joined:
                joined = self._progress.joined or begun  # for sure, or its first layer was named a whole tick ago
                begun = self._progress.begun
                if not joined and now > self._joins_by:
                    raise errors.EndpointTimeout("The endpoint did not begin the pull in time. It is tried again")
            if joined and (status != said or now - said_at >= HEARTBEAT_SECONDS - TICK_SECONDS / 2):
                yield status
                said, said_at = status, self._clock()

    def close(self) -> None:
        """Cut the pull if it goes on, and end the thread."""
        self._closed.set()
        self._channel.hang_up()
        if self._reader.ident is not None:
            self._reader.join()
        self._docker.close()

    def _listen(self, until: float) -> bool:
        """Take in what comes until then; True when the pull has ended."""
        allowance = TICK_BYTES
        while (left := until - self._clock()) > 0:
            if allowance <= 0:
                self._closed.wait(left)
                continue
            try:
                chunk = self._chunks.get(timeout=left)
            except queue.Empty:
                return False
            if isinstance(chunk, errors.EndpointError):
                raise chunk
            allowance -= len(chunk)
            if not self._feed(chunk):
                return True
        return False

    def _feed(self, chunk: bytes) -> bool:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines if chunk else (self._rest,):
            self._progress.feed(line)
        if len(self._rest) > LINE_BYTES:
            raise errors.EndpointMisbehaved("The endpoint's report of the pull is not a Docker Engine's. Launch again")
        return bool(chunk)

    def _read(self) -> None:
        assert self._response is not None
        raw = self._response.raw
        assert isinstance(raw, HTTPResponse)
        try:
            with self._channel.failures():
                while chunk := raw.read1(CHUNK_BYTES):
                    self._put(chunk)
            self._put(b"")
        except errors.EndpointError as error:
            self._put(error)

    def _put(self, item: bytes | errors.EndpointError) -> None:
        while not self._closed.is_set():
            try:
                self._chunks.put(item, timeout=HEARTBEAT_SECONDS)
            except queue.Full:
                continue
            return


def pull_refusal(status: int, text: str) -> errors.EndpointError:
    """Say what an error answer to a pull means: the registry's words, or the endpoint's own refusal."""
    error = refusal(status, text)
    plain = isinstance(error, errors.EndpointDeclined | errors.EndpointFailed | errors.ContainerMissing)
    return pull_failure(text) if plain else error


# ── the container, as the engine wants it ────────────────────────────────────────────────────────────────────────


def _container_config(docker: _Client, spec: Specification) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    config = dict(
        docker.create_container_config(
            image=_image_name(spec.image),
            command=list(spec.command),
            detach=True,
            ports=[spec.port],
            environment=dict(spec.environment),
            labels=dict(spec.labels),
            working_dir=spec.workdir,
            host_config=_host_config(docker, spec),
        )
    )
    return config | {"Healthcheck": {"Test": ["NONE"]}}  # docker-py's own class fails on engines before API 1.29


def _host_config(docker: _Client, spec: Specification) -> HostConfig:
    limits = spec.limits
    options: dict[str, Any] = {
        "port_bindings": {f"{spec.port}/tcp": (spec.publish_address,) if spec.publish_address else None},
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type=LogConfig.types.JSON, config=dict(LOG_OPTIONS)),
    }
    if _minor(docker.api_version) in range(30):  # docker-py knows mounts from API 1.30 on
        options["binds"] = {spec.volume: {"bind": spec.workdir, "mode": "rw"}}
    else:
        options["mounts"] = [Mount(spec.workdir, spec.volume, type="volume", labels=_volume_labels(spec))]
    if limits.memory is not None:
        options["mem_limit"] = limits.memory
    if limits.cpus is not None:
        options |= {"cpu_period": 100_000, "cpu_quota": max(int(limits.cpus * 100_000), 1000)}
    if limits.gpus:
        options["device_requests"] = [DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])]
    return docker.create_host_config(**options)


def _volume_labels(spec: Specification) -> dict[str, str]:
    """A volume outlives the launch, so it carries what does too."""
    return {f"{LABEL}{key}": spec.labels[f"{LABEL}{key}"] for key in ("hub", "session", "owner", "name")}


def _adopt(found: Mapping[str, Any], spec: Specification) -> None:
    labels = _labels(found)
    if any(labels.get(f"{LABEL}{key}") != spec.labels[f"{LABEL}{key}"] for key in ("hub", "session", "generation")):
        raise _conflict(spec.name)
    if _part(found, "State").get("Status") in ("removing", "dead"):
        raise errors.EndpointFailed("The endpoint is still removing a container of this name. It is tried again")


def _conflict(container: str) -> errors.ContainerConflict:
    return errors.ContainerConflict(
        f"A container called {container} is on the endpoint and was not made by this hub for this session. Look at it "
        "there, and rename or remove it"
    )


# ── what the endpoint says ───────────────────────────────────────────────────────────────────────────────────────


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _not_docker() from None


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _not_docker()
    return value


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _labels(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return _part(_part(found, "Config"), "Labels")


def _not_docker() -> errors.EndpointMisbehaved:
    return errors.EndpointMisbehaved(
        "The endpoint's answer is not what a Docker Engine says. Check that address and port are your Docker endpoint's"
    )


def _minor(version: object) -> int | None:
    match = _API_VERSION.fullmatch(version) if isinstance(version, str) else None
    return int(match[1]) if match else None


def _port(value: object) -> int:
    """Believe a port: an int, or a string of ASCII digits, from 1024 to 65535."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if type(value) is not int or not LOWEST_PORT <= value <= HIGHEST_PORT:
        raise errors.EndpointMisbehaved(
            f"The endpoint publishes the notebook at an impossible port; it must be {LOWEST_PORT} to {HIGHEST_PORT}"
        )
    return value


def _image_name(image: str) -> str:
    if not _IMAGE.fullmatch(image) or ".." in image:
        raise errors.BadImage(BAD_IMAGE)
    return image


def _log_text(stream: bytes) -> str:
    """Take the frames of a log apart: 8 bytes of head (kind, 0, 0, 0, length), then the text; a TTY's has no frames."""
    parts, rest = [], stream
    while len(rest) >= 8 and rest[0] in (0, 1, 2) and rest[1:4] == b"\0\0\0":
        end = 8 + int.from_bytes(rest[4:8], "big")
        parts.append(rest[8:end])
        rest = rest[end:]
    text = b"".join(parts or [rest]).decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text.replace("\r\n", "\n"))


# ── the notebook ─────────────────────────────────────────────────────────────────────────────────────────────────


def probe(
    target: Target, sid: str, trust: HubTrust, *, deadline: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Ask the notebook for its status over mutual TLS, `deadline` seconds long.

    Raises NotebookSilent, NotebookWrongCertificate.
    """
    ca, leaf = trust.notebook_authority.certificate, trust.probe
    context = new_context(ca=ca, certificate=leaf.certificate, key=leaf.key)
    channel = Channel(target.address, target.port, notebook_name(sid), context, Budget(clock, deadline))
    try:
        status = _status(channel)
    except errors.EndpointWrongCertificate as error:
        raise errors.NotebookWrongCertificate(
            f"Port {target.port} of the endpoint is answered by something else than this notebook. Launch again"
        ) from error
    except (errors.EndpointTimeout, errors.EndpointUnreachable) as error:
        raise errors.NotebookSilent(
            f"The notebook's port {target.port} cannot be reached from the hub. Open the ports that Docker publishes "
            "(usually 32768 to 60999) in the endpoint's firewall"
        ) from error
    except errors.EndpointError as error:
        raise errors.NotebookSilent("The notebook does not answer yet") from error
    if status != 200:
        raise errors.NotebookSilent(f"The notebook answers with status {status}")
    if channel.nameless:
        raise errors.NotebookWrongCertificate("The notebook's certificate names nothing. Launch again")


def _status(channel: Channel) -> int:
    pool = channel.open_pool()
    try:
        with channel.failures():
            response = pool.urlopen(
                "GET",
                "/api/status",
                headers={"Host": channel.host, "Accept-Encoding": "identity", "User-Agent": "homeport"},
                retries=False,
                redirect=False,
                preload_content=False,
            )
            response.close()
            return int(response.status)
    finally:
        pool.close()
