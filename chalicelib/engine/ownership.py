"""Whose a container is that an engine shows, and whether it is the one that was asked for.

1. Labels say whose it is. What has not all of ours is never touched; what has them may be removed.
2. Only what was asked for is adopted: the image, program, variables, user, mounts, isolation, published port and
   limits. Labels can be copied, and say nothing of these.
3. Engines say the same in different words: nothing is null, [], "" or left out; Podman names images in full, names the
   port that it chose, and has a word for each namespace. Whatever else one makes up is not what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.engine import errors
from chalicelib.engine.answers import labels_of, part_of
from chalicelib.engine.creation import CPU_PERIOD, GPU, cpu_quota
from chalicelib.notebook.container import DATA, LABEL, Specification
from chalicelib.notebook.helpers import BUILT, TASK
from chalicelib.repository.tag import is_built
from chalicelib.session.image import is_image
from chalicelib.session.values import LARGEST_GENERATION, Ports, container_name

_SID: Final = re.compile(r"[0-9a-v]{20}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_LABEL: Final = re.compile(r"[0-9a-v]{10}")
_HELPER: Final = re.compile(r"homeport-(?:[0-9a-z]+-[0-9]+-(?:resolve|clone)|build-[0-9a-f]+)", re.ASCII)
_ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")
_DEFAULT_NETWORKS: Final = ("", "default", "bridge", "slirp4netns", "pasta")  # the last two are rootless Podman's
_OWN_NAMESPACES: Final = ("", "private", "shareable")
_EVERY_ADDRESS: Final = ("", "0.0.0.0", "::")  # what an engine says of a port that is bound to all


@dataclass(frozen=True, slots=True)
class LaunchThere:
    """A launch whose container is on an endpoint, as its labels say; times in seconds since the epoch.

    `label` and `image` are empty, and times 0, if they are not said or cannot be believed. `helper` is the name of a
    helper of that launch, and all else is said of it then; empty for its notebook's container.
    """

    sid: str
    generation: int
    running: bool = False
    label: str = ""
    image: str = ""
    expires_at: float = 0.0
    longest_until: float = 0.0
    helper: str = ""


def conflict(container: str) -> errors.ContainerConflict:
    """What is said of a container of that name that is not ours."""
    return errors.ContainerConflict(
        f"A container called {container} is on the endpoint and was not made by this hub for this session. Look at it "
        "there, and rename or remove it"
    )


def launch_of(listed: object, wanted: Mapping[str, str]) -> LaunchThere | None:
    """Say which launch a container of a list was made for.

    None for one that has not the `wanted` labels, or not the name that follows from its others (`/name`, or a
    cluster's `/node/name`).
    """
    entry = listed if isinstance(listed, dict) else {}
    labels, names = part_of(entry, "Labels"), _words(entry.get("Names"))
    sid, label, image = (_word(labels.get(f"{LABEL}{key}")) for key in ("session", "label", "image"))
    generation, expires, longest = (
        _number(labels.get(f"{LABEL}{key}")) for key in ("generation", "expires", "longest")
    )
    if any(labels.get(label) != value for label, value in wanted.items()):
        return None
    if not _SID.fullmatch(sid) or not 0 < generation <= LARGEST_GENERATION or names is None:
        return None
    bare = [word.rpartition("/")[2] for word in names]
    helper = next(filter(is_helper_name, bare), "") if labels.get(TASK) else ""
    if not helper and container_name(sid, generation) not in bare:
        return None
    return LaunchThere(
        sid,
        generation,
        running=entry.get("State") == "running",
        label=label if _LABEL.fullmatch(label) else "",
        image=image if is_image(image) else "",
        expires_at=float(expires),
        longest_until=float(longest),
        helper=helper,
    )


def is_helper_name(name: str) -> bool:
    """Say whether a container of that name can be a helper."""
    return _HELPER.fullmatch(name) is not None


def built_name(listed: object, hub_name: str) -> str:
    """The name of an image of a list, if this hub had it built of a repository; "" if not, or if it has that name not.

    An image that was made of one has its labels, too.
    """
    entry = listed if isinstance(listed, dict) else {}
    labels, names = part_of(entry, "Labels"), _words(entry.get("RepoTags")) or ()
    name = _word(labels.get(BUILT))
    return name if labels.get(f"{LABEL}hub") == hub_name and is_built(name) and name in names else ""


def is_volume_of(found: Mapping[str, Any], sid: str, owner: str) -> bool:
    """Say whether a volume was made for this session of this owner, by whichever hub: it is theirs on all of them.

    Podman, and Docker before API 1.30, do not label a volume that they make for a container. Its name is a digest of
    owner and session, so it is nobody else's by chance.
    """
    labels = part_of(found, "Labels")
    return bool(labels.get(f"{LABEL}session", sid) == sid and labels.get(f"{LABEL}owner", owner) == owner)


def is_adoptable(found: Mapping[str, Any], spec: Specification, image: Mapping[str, Any]) -> bool:
    """Say whether a container found under the name is this launch's own and what was asked for; `image` is its image.

    If not, it is ours to replace: of another launch of this session, whose item was lost, so that launches are counted
    from 1 again and its certificate is for another host; or of another shape. Raises ContainerConflict for one that is
    not ours, EndpointFailed for one on its way out.
    """
    labels = labels_of(found)
    if any(labels.get(f"{LABEL}{key}") != spec.labels[f"{LABEL}{key}"] for key in ("hub", "session", "generation")):
        raise conflict(spec.name)
    if part_of(found, "State").get("Status") in ("removing", "dead"):
        raise errors.EndpointFailed("The endpoint is still removing a container of this name. The hub will try again")
    is_this_launchs = (labels.get(f"{LABEL}label") or "") == spec.labels[f"{LABEL}label"]
    return is_this_launchs and is_as_asked(found, spec, image)


def is_as_asked(found: Mapping[str, Any], spec: Specification, image: Mapping[str, Any]) -> bool:
    """Say whether a container of the `image` is what the specification says (rule 2)."""
    return (
        _runs_the_program(found, spec, image)
        and _has_the_mounts(found, spec, image)
        and _is_isolated(part_of(found, "HostConfig"))
        and _publishes_the_port(part_of(found, "HostConfig"), spec)
        and _has_the_limits(part_of(found, "HostConfig"), spec)
    )


def _runs_the_program(found: Mapping[str, Any], spec: Specification, image: Mapping[str, Any]) -> bool:
    config, of_image = part_of(found, "Config"), part_of(image, "Config")
    identity = _word(image.get("Id"))
    entrypoint = _words(config.get("Entrypoint"))
    return (
        (config.get("Image") == spec.image or (identity != "" and found.get("Image") == identity))
        and entrypoint is not None
        and entrypoint == _words(of_image.get("Entrypoint"))
        and _words(config.get("Cmd")) == spec.command
        and {f"{name}={value}" for name, value in spec.variables.items()} <= set(_words(config.get("Env")) or ())
        and _word(config.get("User")) == _word(of_image.get("User"))
    )


def _has_the_mounts(found: Mapping[str, Any], spec: Specification, image: Mapping[str, Any]) -> bool:
    """Our volume, the visitor's folder, and at most the anonymous volumes that the image itself asks for."""
    host, of_image = part_of(found, "HostConfig"), part_of(part_of(image, "Config"), "Volumes")
    wanted = {spec.workdir: ("volume", spec.volume, True)}
    if spec.data:
        wanted[DATA] = ("bind", spec.data.path, spec.data.writable)
    for mount in _parts(found.get("Mounts")) or ():
        folder, mounted = _word(mount.get("Destination")), _mounted(mount)
        if folder in wanted:
            if wanted.pop(folder) != mounted:
                return False
        elif folder not in of_image or mounted[0] != "volume" or not _ANONYMOUS.fullmatch(mounted[1]):
            return False
    return not wanted and not host.get("Tmpfs") and not host.get("VolumesFrom")


def _mounted(mount: Mapping[str, Any]) -> tuple[str, str, object]:
    """What is mounted: its type, the volume's name or the host's path, and whether it is writable.

    Engines before API 1.25 do not say the type.
    """
    kind = _word(mount.get("Type", "volume"))
    return kind, _word(mount.get("Name" if kind == "volume" else "Source")), mount.get("RW")


def _is_isolated(host: Mapping[str, Any]) -> bool:
    policy = part_of(host, "RestartPolicy").get("Name")
    return (
        not any(host.get(key) for key in ("Privileged", "CapAdd", "Devices", "DeviceCgroupRules", "SecurityOpt"))
        and (host.get("NetworkMode") or "") in _DEFAULT_NETWORKS
        and all((host.get(f"{kind}Mode") or "") in _OWN_NAMESPACES for kind in ("Pid", "Ipc", "UTS", "Userns"))
        and (policy or "no") == "no"
    )


def _publishes_the_port(host: Mapping[str, Any], spec: Specification) -> bool:
    bindings = part_of(host, "PortBindings")
    of_port = _parts(bindings.get(f"{spec.port}/tcp")) or []
    addresses = [binding.get("HostIp") or "" for binding in of_port]
    wanted = (spec.publish_address,) if spec.publish_address else _EVERY_ADDRESS
    return (
        not host.get("PublishAllPorts")
        and len(bindings) == len(addresses) == 1
        and addresses[0] in wanted
        and _is_one_of(of_port[0].get("HostPort"), spec.ports)
    )


def _is_one_of(port: object, ports: Ports | None) -> bool:
    """Whether a published port is as asked: the range itself, or, as Podman says it, the port that was chosen of it."""
    chosen = _word(port)
    in_range = chosen.isascii() and chosen.isdigit() and ports is not None
    return ports is None or chosen == str(ports) or (in_range and ports.first <= int(chosen) <= ports.last)


def _has_the_limits(host: Mapping[str, Any], spec: Specification) -> bool:
    requests = _parts(host.get("DeviceRequests"))
    return (
        (host.get("Memory") or 0) == (spec.limits.memory or 0)
        and spec.limits.shm in (None, host.get("ShmSize"))
        and _quota(host) == cpu_quota(spec.limits)
        and requests is not None
        and [(asked.get("Count"), asked.get("Capabilities")) for asked in requests]
        == ([(spec.limits.gpus, GPU)] if spec.limits.gpus else [])
    )


def _quota(host: Mapping[str, Any]) -> object:
    """The CPU limit as microseconds in each CPU_PERIOD, whichever of its two forms it has; 0 is none."""
    quota, period, nano = (host.get(key) or 0 for key in ("CpuQuota", "CpuPeriod", "NanoCpus"))
    if not all(type(number) is int for number in (quota, period, nano)):
        return None
    if quota > 0:
        return quota * CPU_PERIOD // (period or CPU_PERIOD)
    return nano * CPU_PERIOD // 1_000_000_000


# ── what an engine made up, as far as it has the form of what is compared ────────────────────────────────────────────


def _number(value: object) -> int:
    text = _word(value)
    return int(text) if _NUMBER.fullmatch(text) else 0


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _words(value: object) -> tuple[str, ...] | None:
    """Some strings, none for nothing at all; None for what is something else."""
    value = value or []
    return tuple(value) if isinstance(value, list) and all(isinstance(word, str) for word in value) else None


def _parts(value: object) -> list[Mapping[str, Any]] | None:
    """Some objects, none for nothing at all; None for what is something else."""
    value = value or []
    return value if isinstance(value, list) and all(isinstance(part, dict) for part in value) else None
