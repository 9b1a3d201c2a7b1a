"""A container as the engine wants it described."""

from __future__ import annotations

from posixpath import dirname
from typing import Any, Final

from docker.types import DeviceRequest, HostConfig, LogConfig, Mount

from chalicelib.engine.answers import image_name, minor_version
from chalicelib.engine.client import Client
from chalicelib.notebook.container import DATA, LABEL, LOG_OPTIONS, Specification
from chalicelib.notebook.helpers import HELPER_LOG_OPTIONS, SOCKET, WORK, HelperSpecification
from chalicelib.session.values import Limits

CPU_PERIOD: Final = 100_000  # microseconds; the kernel's default
GPU: Final = [["gpu"]]


def container_config(docker: Client, spec: Specification) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    config = dict(
        docker.create_container_config(
            image=image_name(spec.image),
            command=list(spec.command),
            detach=True,
            ports=[spec.port],
            environment={**spec.variables, **spec.environment},
            labels=dict(spec.labels),
            working_dir=dirname(spec.workdir),
            host_config=_host_config(docker, spec),
        )
    )
    return config | {"Healthcheck": {"Test": ["NONE"]}}  # docker-py's own class fails on engines before API 1.29


def helper_config(docker: Client, spec: HelperSpecification) -> dict[str, Any]:
    """The body of `POST /containers/create` for a helper."""
    mounts = []
    if spec.socket:  # unlike a bind, a mount whose source is missing is refused, not made
        mounts.append(Mount(SOCKET, spec.socket, type="bind"))
    if spec.volume:
        mounts.append(Mount(WORK, spec.volume, type="volume", no_copy=True))
    options: dict[str, Any] = {"mounts": mounts}
    if minor_version(docker.api_version) in range(30) and not spec.socket:  # docker-py knows mounts from 1.30 on
        options = {"binds": {spec.volume: {"bind": WORK, "mode": "rw"}} if spec.volume else None}
    host_config = docker.create_host_config(
        restart_policy={"Name": "no"},
        log_config=LogConfig(type=LogConfig.types.JSON, config=dict(HELPER_LOG_OPTIONS)),
        security_opt=["label=disable"] if spec.socket else None,
        **options,
    )
    config = docker.create_container_config(
        image=image_name(spec.image),
        command=[],
        entrypoint=list(spec.command),
        detach=True,
        labels=dict(spec.labels),
        user=spec.user or None,
        working_dir="/",
        host_config=host_config,
    )
    return dict(config) | {"Healthcheck": {"Test": ["NONE"]}}


def _host_config(docker: Client, spec: Specification) -> HostConfig:
    limits = spec.limits
    options: dict[str, Any] = {
        # An engine takes a free port of a range, or of all when none is named.
        "port_bindings": {f"{spec.port}/tcp": (spec.publish_address, str(spec.ports) if spec.ports else None)},
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type=LogConfig.types.JSON, config=dict(LOG_OPTIONS)),
        "mounts": _mounts(spec),
    }
    if minor_version(docker.api_version) in range(30) and spec.data is None:  # docker-py knows mounts from 1.30 on
        options |= {"mounts": None, "binds": {spec.volume: {"bind": spec.workdir, "mode": "rw"}}}
    if limits.shm is not None:
        options["shm_size"] = limits.shm
    if limits.memory is not None:
        options["mem_limit"] = limits.memory
    if limits.cpus is not None:
        options |= {"cpu_period": CPU_PERIOD, "cpu_quota": cpu_quota(limits)}
    if limits.gpus:
        options["device_requests"] = [DeviceRequest(count=limits.gpus, capabilities=GPU)]
    return docker.create_host_config(**options)


def _mounts(spec: Specification) -> list[Mount]:
    """The volume, and the visitor's folder: unlike a bind, a mount whose source is missing is refused, not made."""
    lasting = (f"{LABEL}{key}" for key in ("hub", "session", "owner", "name"))  # the volume outlives the launch
    mounts = [Mount(spec.workdir, spec.volume, type="volume", labels={label: spec.labels[label] for label in lasting})]
    if spec.data is not None:
        mounts.append(Mount(DATA, spec.data.path, type="bind", read_only=not spec.data.writable))
    return mounts


def cpu_quota(limits: Limits) -> int:
    """The microseconds of CPU in each CPU_PERIOD of them; 0 is no limit, and 1000 the least an engine accepts."""
    return 0 if limits.cpus is None else max(int(limits.cpus * CPU_PERIOD), 1000)
