"""This hub's containers on an engine, by their label: to show that none is left, and to leave none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker

HUB_LABEL = "homeport.hub"


@contextmanager
def _client(engine_url: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=engine_url, timeout=60)
    try:
        yield client
    finally:
        client.close()


def names_of(engine_url: str, hub_name: str) -> list[str]:
    """List the names of the hub's containers, running or not."""
    with _client(engine_url) as client:
        found = client.containers(all=True, filters={"label": f"{HUB_LABEL}={hub_name}"})
    return sorted(container["Names"][0].removeprefix("/") for container in found)


def hostnames_of(engine_url: str, names: list[str]) -> list[str]:
    """List the host names that containers see as their own."""
    with _client(engine_url) as client:
        return [client.inspect_container(name)["Config"]["Hostname"] for name in names]


def remove_all(engine_url: str, hub_name: str, *, volumes: bool = False) -> list[str]:
    """Remove the hub's containers, and its notebooks' volumes only when told so; give the containers' names."""
    names = names_of(engine_url, hub_name)
    with _client(engine_url) as client:
        for name in names:
            client.remove_container(name, force=True)
        if volumes:
            label = {"label": f"{HUB_LABEL}={hub_name}"}
            for volume in client.volumes(filters=label)["Volumes"] or []:
                client.remove_volume(volume["Name"])
    return names
