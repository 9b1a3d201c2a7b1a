"""The visitor's Docker Engine API, through docker-py on our own transport; hostile until proven otherwise.

Rules

1. The name is resolved once and every answer checked (`resolve`); from then on there is only that address.
2. docker-py's client is made without its constructor, which reads ~/.docker/config.json: no registry credentials,
   proxies or headers of the hub's own machine ever reach a visitor's endpoint. Environment variables count for nothing.
3. No redirect is followed, no compressed answer decoded, no answer above 512 KiB read, and the whole of one
   DockerEndpoint's calls ends when its deadline does. A pull has a connection and a budget of its own.
4. Every call is safe to repeat. A name that is taken is looked at: our labels mean it is ours, anything else is
   a conflict. Ours is adopted if it is what was asked for, else replaced (ownership.py). What is not ours is never
   removed, and a volume only by `remove_volume`.
5. From what the endpoint says, only known words, small numbers and short quotes are believed, and nothing is quoted
   before it has named its API version as an engine does: a bundle may lead the hub to somebody else's server.

Source: Docker Engine API 1.24 to 1.45, https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

from docker.constants import DEFAULT_DOCKER_API_VERSION, MINIMUM_DOCKER_API_VERSION
from docker.errors import InvalidVersion
from docker.utils import parse_repository_tag

from chalicelib.bundle.credentials import Credentials
from chalicelib.engine import errors
from chalicelib.engine.answers import (
    LOG_LINES,
    count_of,
    frames_text,
    image_name,
    is_short,
    labels_of,
    list_of,
    log_text,
    minor_version,
    object_of,
    part_of,
    port_of,
    user_number,
)
from chalicelib.engine.client import ApiError, Client
from chalicelib.engine.creation import container_config, helper_config
from chalicelib.engine.messages import error_for, is_image_in_use, is_name_taken, pull_error, quoted, start_error_for
from chalicelib.engine.ownership import (
    LaunchThere,
    built_name,
    conflict,
    is_adoptable,
    is_helper_name,
    is_volume_of,
    launch_of,
)
from chalicelib.engine.pull import ANSWER_SECONDS, Pull
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.engine.saving import ImageThere, changes, image_there
from chalicelib.engine.transport import Budget, Channel, new_context
from chalicelib.notebook.container import LABEL, NOTEBOOK_PORT, SAVABLE, ImageConfig, Specification
from chalicelib.notebook.helpers import BUILT, DOCKER_SOCKET, PODMAN_SOCKET, TASK, HelperSpecification
from chalicelib.session.options import shown_size
from chalicelib.session.values import Limits, Target, is_session_id, volume_name

STOP_SECONDS: Final = 10  # docker stop's own default; JupyterLab needs one or two
POLL_SECONDS: Final = 0.1
HEARTBEAT_SECONDS: Final = 5.0  # after which whoever waits for a long call may look at something else
VERSION_LENGTH: Final = 40  # characters; it stands in the middle of a line of the log
PODMAN: Final = "Podman Engine"  # what it calls itself among its components
HELPER_LOG_BYTES: Final = 4 << 20  # above what a helper prints
LIST_LENGTH: Final = 50  # containers of one owner and hub that are looked at, the newest first
IMAGES_LENGTH: Final = 100  # images of repositories that are looked at

_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")
_IMAGE_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_OUR_NAME: Final = re.compile(r"homeport-(?P<session>[0-9a-z]+)-(?P<generation>[0-9]+)")
_STATUSES: Final = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})
_PODMAN_STATUSES: Final = {"stopped": "exited"}  # for the moment until Podman has cleaned up


def _is_podman(version: Mapping[str, Any]) -> bool:
    parts = version.get("Components")
    return isinstance(parts, list) and any(isinstance(part, dict) and part.get("Name") == PODMAN for part in parts)


class Meaning(Protocol):
    """Turns an error answer into what it means; see messages.error_for."""

    def __call__(self, status: int, text: str, *, quote: bool) -> errors.EndpointError: ...


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """What is known of a container; `status` is Docker's word for it, "missing" or "unknown"."""

    status: str
    running: bool
    exit_code: int | None
    oom: bool


MISSING: Final = ContainerStatus(status="missing", running=False, exit_code=None, oom=False)


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """What an engine says of itself that its socket says, too (`known`), where that is, and whether it is rootless."""

    known: Mapping[str, str]
    socket: str
    rootless: bool


@dataclass(frozen=True, slots=True)
class HelperThere:
    """What is known of a helper; `status` is Docker's word for it, "missing" or "unknown".

    `sid` and `label` say which session's launch made it; `exit_code` is None while it has not ended.
    """

    status: str
    exit_code: int | None = None
    sid: str = ""
    label: str = ""


NO_HELPER: Final = HelperThere("missing")


class DockerEndpoint:
    """One visitor's engine: `deadline` seconds from now, or from `renew`, for all calls but `pull` together.

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
        self._docker = Client(self._channel)
        self._negotiated = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def renew(self, deadline: float) -> None:
        """Use it for another effect: `deadline` seconds from now for all calls."""
        self._deadline = deadline
        self._channel.budget = Budget(self._clock, deadline)

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
            note = "Its certificate contains no host name, so only your bundle's CA was checked"
        podman = "Podman " if _is_podman(version) else ""
        return podman + (quoted(version.get("Version"), VERSION_LENGTH) or "unknown"), note

    def check_limits(self, limits: Limits) -> None:
        """See that the engine has what is asked for, and can limit it; raises LimitsRefused, LimitsUnsupported.

        Engines create a container with a limit that they cannot keep, and only warn. GPUs are not listed by all engines
        that have them: the start says whether there are any.
        """
        if limits.memory is None and limits.cpus is None:
            return
        info: Mapping[str, Any] = {}
        with self._calls() as docker, suppress(ApiError):  # an authorization plugin may forbid it: no reason to fail
            info = object_of(docker.info())
        has_cpus, has_memory = count_of(info.get("NCPU")), count_of(info.get("MemTotal"))
        if has_memory and (limits.memory or 0) > has_memory:
            raise errors.LimitsRefused(
                f"The endpoint has {shown_size(has_memory)} of memory, and {shown_size(limits.memory or 0)} were asked "
                "for. Ask for less"
            )
        if has_cpus and (limits.cpus or 0) > has_cpus:
            raise errors.LimitsRefused(
                f"The endpoint has {has_cpus} CPUs, and {limits.cpus:g} were asked for. Ask for less"
            )
        asked = {"memory": (limits.memory, "MemoryLimit"), "CPUs": (limits.cpus, "CpuCfsQuota")}
        for what, (limit, key) in asked.items():
            if limit is not None and info.get(key) is False:
                raise errors.LimitsUnsupported(
                    f"The endpoint's Docker Engine cannot limit {what}: its kernel does not let it (docker info says "
                    "so; a rootless engine needs cgroup v2). Change that there, or launch without that limit"
                )

    def _version(self) -> dict[str, Any]:
        with self._translated(error_for):
            version = object_of(self._docker.version(api_version=False))
        self._negotiate(version.get("ApiVersion"), version.get("MinAPIVersion"))
        return version

    def _negotiate(self, newest: object, oldest: object) -> None:
        """Choose the newest API version that both sides know."""
        theirs, minimum = minor_version(newest), minor_version(oldest) or 0
        if theirs is None:
            raise self._no_version()
        ours, least = minor_version(DEFAULT_DOCKER_API_VERSION) or 0, minor_version(MINIMUM_DOCKER_API_VERSION) or 0
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

    def _no_version(self) -> errors.NotADockerEngine:
        return errors.NotADockerEngine(
            f"{self._channel.host} does not say which Docker API it speaks. Check that the address and port are your "
            "Docker endpoint's"
        )

    @contextmanager
    def _calls(self, meaning: Meaning = error_for) -> Iterator[Client]:
        """Give the client, its API version chosen, and turn what the engine refuses into what it means."""
        if not self._negotiated:
            with self._translated(error_for):
                version = self._docker.ping_version()
            if version is None:
                self._version()
            else:
                self._negotiate(version, None)
        with self._translated(meaning):
            yield self._docker

    @contextmanager
    def _translated(self, meaning: Meaning) -> Iterator[None]:
        try:
            yield
        except ApiError as error:
            if error.status == 404 and not self._negotiated:  # every engine has what is asked for up to then
                raise self._no_version() from error
            raise meaning(error.status, error.text, quote=self._negotiated) from error
        except InvalidVersion as error:
            raise errors.EndpointTooOld(
                "The endpoint's Docker Engine is too old for what was asked (GPUs need Docker 19.03, a data directory "
                "and the build of a repository 17.06). Update it"
            ) from error

    # ── images ──

    def image_present(self, image: str) -> bool:
        """Say whether the image is on the endpoint."""
        return self._image(image) is not None

    def image_config(self, image: str) -> ImageConfig:
        """Say what the image says of its containers; raises ImageNotFound."""
        found = self._image(image)
        if found is None:
            raise error_for(404, "no such image", quote=False)
        config = part_of(found, "Config")
        workdir, user = (config.get(key) for key in ("WorkingDir", "User"))
        return ImageConfig(workdir if isinstance(workdir, str) else "", user if isinstance(user, str) else "")

    def _image(self, image: str) -> dict[str, Any] | None:
        name = image_name(image)
        with self._calls() as docker:
            try:
                return object_of(docker.inspect_image(name))  # type: ignore[no-untyped-call]
            except ApiError as error:
                if error.status == 404:
                    return None
                raise

    def saved_image(self, image: str) -> ImageThere | None:
        """Say what is on the endpoint under the name of an image that a notebook is to be saved as."""
        found = self._image(image)
        return None if found is None else image_there(found)

    def check_savable(self, container: str) -> None:
        """See that the container may be saved as an image; raises ContainerConflict, ContainerNotSavable."""
        self._savable(container)

    def commit(self, container: str, image: str, labels: Mapping[str, str]) -> Generator[None, None, None]:
        """Write the container to an image of that name with these labels; all of its programs stand still meanwhile.

        The image starts as the one it was launched from, and has no label that would make a container of it ours.
        Yields every few seconds until the image is there; closing the iterator hangs up, at which some engines give up
        writing. Raises what check_savable raises.
        """
        found = self._savable(container)
        repository, tag = parse_repository_tag(image_name(image))
        with self._calls() as docker:
            of_image = self._image_by_id(docker, found.get("Image"))
            made = changes(found, of_image, labels)
            yield from self._waiting(lambda: docker.commit(container, repository, tag or "latest", changes=made))

    def _waiting(self, call: Callable[[], object]) -> Generator[None, None, None]:
        """Have a thread make a call that the engine is silent about for long, and yield until it is answered."""
        caller = ThreadPoolExecutor(1, "homeport-call")
        answer = caller.submit(call)
        try:
            while not wait([answer], HEARTBEAT_SECONDS).done:
                yield
        finally:
            if not answer.done():
                self._channel.hang_up()
            caller.shutdown()
        answer.result()

    def _savable(self, container: str) -> Mapping[str, Any]:
        found = self._find(container)
        if found is None:
            raise error_for(404, "", quote=False)
        self._check_removable(found, container)
        if not labels_of(found).get(SAVABLE):
            raise errors.ContainerNotSavable(
                "This notebook was launched by an earlier version of this hub and cannot be saved as an image. Launch "
                "it again, or write the image on the endpoint yourself with docker commit, without its environment"
            )
        return found

    def _image_by_id(self, docker: Client, identity: object) -> Mapping[str, Any]:
        """The image that a container was made of, whatever its name is now; nothing if it is gone or not told."""
        if not isinstance(identity, str) or not _IMAGE_ID.fullmatch(identity):
            return {}
        try:
            return object_of(docker.inspect_image(identity))  # type: ignore[no-untyped-call]
        except ApiError as error:
            if error.status == 404:
                return {}
            raise

    def pull(self, image: str, *, answer_within: float = ANSWER_SECONDS) -> Generator[PullStatus, None, None]:
        """Pull the image and say how far it is, about every second and at least every two.

        Nothing is said before the engine has let this pull join the layers' downloads: from then on another pull of
        the same image may be cut without loss. Closing the iterator cuts this one. Raises an EndpointError.
        """
        repository, tag = parse_repository_tag(image_name(image))
        with self._calls() as docker:
            version = docker.api_version
        channel = Channel(
            self._channel.address,
            self._channel.port,
            self._channel.name,
            self._channel.context,
            Budget(self._clock, answer_within),
        )
        pull = Pull(channel, version, self._clock, answer_within)
        try:
            pull.begin(repository, tag or "latest")
            yield from pull.statuses()
        finally:
            pull.close()
        self._channel.budget = Budget(self._clock, self._deadline)
        if not self.image_present(image):
            raise pull_error("the engine ended the pull, and the image is not there")

    # ── the container ──

    def create(self, spec: Specification) -> None:
        """Create the container, or adopt the one of its name that has its labels; raises ContainerConflict.

        One of ours that is not what this launch asks for is replaced (ownership.is_adoptable).
        """
        while True:
            with self._calls() as docker:
                try:
                    config = container_config(docker, spec)
                    docker.create_container_from_config(config, spec.name)  # type: ignore[no-untyped-call]
                    return
                except ApiError as error:
                    if not is_name_taken(error.status, error.text):
                        raise
            found = self._find(spec.name)
            if found is None:
                self._pause()  # the name was taken, and is gone or not registered yet: another creation is in progress
            elif is_adoptable(found, spec, self._image(spec.image) or {}):
                return
            else:
                self._remove(found, spec.name)

    def user_number(self, container: str, user: str) -> str:
        """Give a user that an image names (`name` or `name:group`) by number; as it is if nothing says which."""
        name = user.partition(":")[0]
        if not name or name.isdigit():
            return user
        with self._calls() as docker:
            try:
                archive = docker.get_bytes("/containers/{0}/archive", container, {"path": "/etc/passwd"})
            except ApiError:
                return user
        return user_number(archive, name) or user

    def put_files(self, container: str, tar: bytes) -> None:
        """Unpack `tar` at the container's root."""
        with self._calls() as docker:
            docker.put_archive(container, "/", tar)

    def start(self, container: str) -> None:
        """Start the container; one that runs already is left alone."""
        with self._calls(start_error_for) as docker:
            docker.start(container)

    def published(self, container: str) -> Target:
        """Say where the notebook is published; raises NotADockerEngine, ContainerMissing.

        The address is the endpoint's, or that of a cluster's node: what the endpoint says, to be checked like its own.
        """
        found = self._find(container)
        if found is None:
            raise error_for(404, "", quote=False)
        ports = part_of(part_of(found, "NetworkSettings"), "Ports").get(f"{NOTEBOOK_PORT}/tcp")
        bindings = [binding for binding in ports if isinstance(binding, dict)] if isinstance(ports, list) else []
        if not bindings:
            raise errors.EndpointFailed(
                "The endpoint has not published the notebook's port yet. The hub will try again"
            )
        node = part_of(found, "Node").get("IP")  # Docker Swarm before Docker had it built in, UCP and MKE
        address = node if isinstance(node, str) and node else self.address
        fitting = [binding for binding in bindings if (":" in str(binding.get("HostIp", ""))) is (":" in address)]
        return Target(address, port_of((fitting or bindings)[0].get("HostPort")))

    def inspect(self, container: str) -> ContainerStatus:
        """Look at the container."""
        found = self._find(container)
        if found is None:
            return MISSING
        state = part_of(found, "State")
        status, code = state.get("Status"), state.get("ExitCode")
        status = _PODMAN_STATUSES.get(status, status) if isinstance(status, str) else "unknown"
        running = state.get("Running") is True and status not in ("paused", "restarting")
        return ContainerStatus(
            status=status if status in _STATUSES else "unknown",
            running=running,
            exit_code=code if type(code) is int and -1 <= code <= 0xFFFF_FFFF and not running else None,
            oom=state.get("OOMKilled") is True,
        )

    def log_tail(self, container: str) -> str:
        """Give the end of the container's log: at most 20 lines and 4,000 characters; "" when there is none to read."""
        params = {"stdout": 1, "stderr": 1, "follow": 0, "tail": LOG_LINES}
        with self._calls() as docker:
            try:
                return log_text(docker.get_bytes("/containers/{0}/logs", container, params))
            except (ApiError, errors.NotADockerEngine):  # it is too long: how the container ended is told without it
                return ""

    def launches(self, owner: str) -> list[LaunchThere]:
        """Say of which launches of this hub and owner there is a container, running or not.

        Of at most LIST_LENGTH, the newest. `remove` looks at each again before it touches it.
        """
        wanted = {f"{LABEL}hub": self._hub_name, f"{LABEL}owner": owner}
        filters = {"label": [f"{label}={value}" for label, value in wanted.items()]}
        with self._calls() as docker:
            listed = list_of(docker.containers(all=True, limit=LIST_LENGTH, filters=filters))
        launches = (launch_of(container, wanted) for container in listed[:LIST_LENGTH])
        return [launch for launch in launches if launch is not None]

    # ── helpers (notebook/helpers.py) ──

    def identity(self) -> EngineIdentity:
        """Say how the engine can be known again by its socket; raises EndpointForbidden and the like."""
        is_podman = _is_podman(self._version())
        with self._calls() as docker:
            info = object_of(docker.info())
        security = info.get("SecurityOptions")
        keys = ("Name", "DockerRootDir") if is_podman else ("ID", "Name", "DockerRootDir")  # Podman's ID is random
        known = {key: value for key in keys if isinstance(value := info.get(key), str) and is_short(value)}
        return EngineIdentity(
            known,
            socket=PODMAN_SOCKET if is_podman else DOCKER_SOCKET,
            rootless=isinstance(security, list) and any(str(option)[:13] == "name=rootless" for option in security),
        )

    def start_helper(self, spec: HelperSpecification, program: bytes) -> None:
        """Have the helper at work, if it is not there yet; raises ContainerConflict for one that is not ours.

        `program` is the tar that is unpacked in it first.
        """
        with self._calls() as docker:
            try:
                docker.create_container_from_config(helper_config(docker, spec), spec.name)  # type: ignore[no-untyped-call]
            except ApiError as error:
                if not is_name_taken(error.status, error.text):
                    raise
        if self.helper(spec.name).status == "created":
            self.put_files(spec.name, program)
            self.start(spec.name)

    def helper(self, name: str) -> HelperThere:
        """Look at a helper; raises ContainerConflict for a container of that name that is none of this hub's."""
        found = self._find(name)
        if found is None:
            return NO_HELPER
        labels = self._check_helper(found, name)
        sid, label = (labels.get(f"{LABEL}{key}") for key in ("session", "label"))
        state = part_of(found, "State")
        status, code = state.get("Status"), state.get("ExitCode")
        status = _PODMAN_STATUSES.get(status, status) if isinstance(status, str) else "unknown"
        return HelperThere(
            status=status if status in _STATUSES else "unknown",
            exit_code=code if type(code) is int and status in ("exited", "dead") else None,
            sid=sid if isinstance(sid, str) and is_session_id(sid) else "",
            label=label if isinstance(label, str) else "",
        )

    def helper_log(self, name: str, lines: int | None) -> str:
        """Give so many lines of the end of a helper's log, or all (None); "" when there is none to read."""
        params = {"stdout": 1, "stderr": 1, "follow": 0, "tail": "all" if lines is None else lines}
        with self._calls() as docker:
            try:
                return frames_text(docker.get_bytes("/containers/{0}/logs", name, params, most=HELPER_LOG_BYTES))
            except (ApiError, errors.NotADockerEngine):
                return ""

    def remove_helper(self, name: str, label: str) -> bool:
        """Stop and remove a helper that the launch of that label made, and say whether it was there."""
        found = self._find(name)
        if found is None:
            return False
        labels = self._check_helper(found, name)
        if labels.get(f"{LABEL}label") != label:
            return False  # it is at work for another launch
        self._remove_found(found)
        return True

    def built_image(self, image: str) -> int | None:
        """Say how large the image of a repository is that this hub had built, in bytes; None if it is not there."""
        found = self._image(image)
        labels = labels_of(found or {})
        if found is None or labels.get(BUILT) != image or labels.get(f"{LABEL}hub") != self._hub_name:
            return None
        return count_of(found.get("Size"))

    def built_images(self) -> list[str]:
        """Name the images of repositories that this hub had built, whoever launched them; at most IMAGES_LENGTH."""
        filters = {"label": f"{LABEL}hub={self._hub_name}"}  # of two labels Podman 4 finds no image at all
        with self._calls() as docker:
            listed = list_of(docker.images(filters=filters))
        names = (built_name(image, self._hub_name) for image in listed)
        return sorted({name for name in names if name})[:IMAGES_LENGTH]

    def remove_built(self, image: str) -> bool:
        """Remove the image of a repository that this hub had built, and say whether it was there; raises ImageInUse."""
        if self.built_image(image) is None:
            return False
        with self._calls() as docker:
            try:
                docker.remove_image(image)
            except ApiError as error:
                if error.status == 404:
                    return False
                if is_image_in_use(error.status, error.text):
                    raise errors.ImageInUse(
                        "A container on the endpoint uses the image, so it stays. Stop that one first"
                    ) from error
                raise
        return True

    def _check_helper(self, found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        labels = labels_of(found)
        if not is_helper_name(name) or labels.get(f"{LABEL}hub") != self._hub_name or not labels.get(TASK):
            raise conflict(name)
        return labels

    # ── removal ──

    def remove(self, container: str) -> bool:
        """Stop and remove the container, and say whether it was there; its volumes stay.

        Raises ContainerConflict for a container that is not ours.
        """
        found = self._find(container)
        if found is not None:
            self._remove(found, container)
        return found is not None

    def remove_volume(self, sid: str, owner: str) -> None:
        """Remove the volume of a session, if it is there, and see that it is gone.

        Raises VolumeConflict for one that says that it was made for another session or owner, VolumeInUse.
        """
        name = volume_name(sid)
        found = self._volume(name)
        if found is None:
            return
        if not is_volume_of(found, sid, owner):
            raise errors.VolumeConflict(
                f"The volume {name} on the endpoint was not made for this notebook, so it was not touched. Look at it "
                "there"
            )
        with self._calls() as docker:
            try:
                docker.remove_volume(name)
            except ApiError as error:
                if error.status == 409:
                    raise errors.VolumeInUse(
                        f"Another container on the endpoint uses the volume {name}. Remove that container there, then "
                        "delete the notebook again"
                    ) from error
                if error.status != 404:
                    raise
        while self._volume(name) is not None:
            self._pause()

    def _volume(self, name: str) -> dict[str, Any] | None:
        with self._calls() as docker:
            try:
                return object_of(docker.inspect_volume(name))
            except ApiError as error:
                if error.status == 404:
                    return None
                raise

    def _remove(self, found: Mapping[str, Any], container: str) -> None:
        self._check_removable(found, container)
        self._remove_found(found)

    def _remove_found(self, found: Mapping[str, Any]) -> None:
        identity = found.get("Id")
        if not isinstance(identity, str) or not _CONTAINER_ID.fullmatch(identity):
            raise errors.NotADockerEngine("The endpoint reports an invalid container id. Remove it there by hand")
        self._stop_and_delete(identity)
        while self._find(identity) is not None:
            self._pause()

    def _stop_and_delete(self, identity: str) -> None:
        with self._calls() as docker:
            with suppress(ApiError):  # whatever it refuses here, the forced removal kills
                docker.stop(identity, timeout=STOP_SECONDS)
            try:
                docker.remove_container(identity, v=False, force=True)
            except ApiError as error:
                if error.status not in (404, 409):  # gone, or "removal … is already in progress": inspect tells
                    raise

    def _check_removable(self, found: Mapping[str, Any], container: str) -> None:
        name = _OUR_NAME.fullmatch(container)
        wanted = {f"{LABEL}{key}": value for key, value in name.groupdict().items()} if name else {}
        labels = labels_of(found)
        wanted |= {f"{LABEL}hub": self._hub_name}
        if name is None or any(labels.get(key) != value for key, value in wanted.items()):
            raise conflict(container)

    def _find(self, container: str) -> dict[str, Any] | None:
        with self._calls() as docker:
            try:
                return object_of(docker.inspect_container(container))
            except ApiError as error:
                if error.status == 404:
                    return None
                raise

    def _pause(self) -> None:
        with self._channel.failures():
            self._sleep(min(POLL_SECONDS, self._channel.budget.seconds()))
