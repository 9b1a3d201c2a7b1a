"""This hub's containers on an engine, by their label: to show that none is left, and to leave none.

The label is the hub's name and the fingerprint of its CA, which `make run` makes anew each time: here the name counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
        found = client.containers(all=True, filters={"label": HUB_LABEL})
    mine = [container for container in found if _is_of(hub_name, container)]
    return sorted(container["Names"][0].removeprefix("/") for container in mine)


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
            for volume in client.volumes(filters={"label": HUB_LABEL})["Volumes"] or []:
                if _is_of(hub_name, volume):
                    client.remove_volume(volume["Name"])
    return names


def _is_of(hub_name: str, found: Mapping[str, Any]) -> bool:
    return re.fullmatch(f"{re.escape(hub_name)}(-[0-9a-f]{{16}})?", found["Labels"][HUB_LABEL]) is not None
