"""A container as the engine wants it described, and whether one that has its name already is the one."""

from __future__ import annotations

from collections.abc import Mapping
from posixpath import dirname
from typing import Any

from docker.types import DeviceRequest, HostConfig, LogConfig, Mount

from chalicelib.engine import errors
from chalicelib.engine.answers import image_name, labels_of, minor_version, part_of
from chalicelib.engine.client import Client
from chalicelib.notebook.container import LABEL, LOG_OPTIONS, Specification


def container_config(docker: Client, spec: Specification) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    config = dict(
        docker.create_container_config(
            image=image_name(spec.image),
            command=list(spec.command),
            detach=True,
            ports=[spec.port],
            environment=dict(spec.environment),
            labels=dict(spec.labels),
            working_dir=dirname(spec.workdir),
            host_config=_host_config(docker, spec),
        )
    )
    return config | {"Healthcheck": {"Test": ["NONE"]}}  # docker-py's own class fails on engines before API 1.29


def _host_config(docker: Client, spec: Specification) -> HostConfig:
    limits = spec.limits
    options: dict[str, Any] = {
        "port_bindings": {f"{spec.port}/tcp": (spec.publish_address,) if spec.publish_address else None},
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type=LogConfig.types.JSON, config=dict(LOG_OPTIONS)),
    }
    if minor_version(docker.api_version) in range(30):  # docker-py knows mounts from API 1.30 on
        options["binds"] = {spec.volume: {"bind": spec.workdir, "mode": "rw"}}
    else:
        lasting = (f"{LABEL}{key}" for key in ("hub", "session", "owner", "name"))  # the volume outlives the launch
        labels = {label: spec.labels[label] for label in lasting}
        options["mounts"] = [Mount(spec.workdir, spec.volume, type="volume", labels=labels)]
    if limits.memory is not None:
        options["mem_limit"] = limits.memory
    if limits.cpus is not None:
        options |= {"cpu_period": 100_000, "cpu_quota": max(int(limits.cpus * 100_000), 1000)}
    if limits.gpus:
        options["device_requests"] = [DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])]
    return docker.create_host_config(**options)


def is_adoptable(found: Mapping[str, Any], spec: Specification) -> bool:
    """Say whether a container found under the name is this launch's own.

    If not, it is of another launch of this session, whose item was lost, so that launches are counted anew: its
    certificate is for another host. Raises ContainerConflict for one that is not ours, EndpointFailed for one on its
    way out.
    """
    labels = labels_of(found)
    if any(labels.get(f"{LABEL}{key}") != spec.labels[f"{LABEL}{key}"] for key in ("hub", "session", "generation")):
        raise conflict(spec.name)
    if part_of(found, "State").get("Status") in ("removing", "dead"):
        raise errors.EndpointFailed("The endpoint is still removing a container of this name. The hub will try again")
    return bool((labels.get(f"{LABEL}label") or "") == spec.labels[f"{LABEL}label"])


def conflict(container: str) -> errors.ContainerConflict:
    """What is said of a container of that name that is not ours."""
    return errors.ContainerConflict(
        f"A container called {container} is on the endpoint and was not made by this hub for this session. Look at it "
        "there, and rename or remove it"
    )
