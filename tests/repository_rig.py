"""Repositories that the containers of the real engine reach: real Git over TLS, on the bridge of that engine.

Their images are built from the local notebook image, and nothing is downloaded.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.git_rig import GitSite, Repository, git_site
from tests.real_parts import BUILDER_IMAGE, KEPT_IMAGES

if TYPE_CHECKING:
    import docker

    from local.run import Stack


@pytest.fixture(scope="module")
def site(stack: Stack, report: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitSite]:
    """Repositories behind TLS on the engine's bridge, and a builder image that trusts their site."""
    import docker

    from local import builder
    from tests.certificates import Ca
    from tests.functional.hostile_engine import load_leaf
    from tests.integration.test_quick_start import an_image

    builder.provide_local(stack.engine_url, KEPT_IMAGES, report)
    with closing(docker.DockerClient(base_url=stack.engine_url)) as client:
        (network,) = client.networks.get("bridge").attrs["IPAM"]["Config"]
    host = network.get("Gateway") or network["Subnet"].rpartition(".")[0] + ".1"
    ca = Ca.new("Repositories")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_leaf(tls, ca.issue("repositories", sans=(host,), server=True))
    lines = ca.certificate.decode().strip().splitlines()
    trusts = (
        f"FROM {builder.LOCAL_BUILDER}\n"
        f"RUN printf '%s\\n' {' '.join(repr(line) for line in lines)} > /repositories.pem\n"
        "ENV GIT_SSL_CAINFO=/repositories.pem SSL_CERT_FILE=/repositories.pem\n"
    )
    name = BUILDER_IMAGE.removeprefix("homeport-").removesuffix("-test:latest")
    with an_image(stack, name, trusts), git_site(tmp_path_factory.mktemp("git") / "site", host, tls) as served:
        yield served


@pytest.fixture
def behind(stack: Stack) -> Iterator[docker.APIClient]:
    """The engine, and no helper and no image of a repository on it afterwards."""
    import docker

    from chalicelib.repository.tag import REPOSITORY

    with closing(docker.APIClient(stack.engine_url, timeout=60)) as client:
        yield client
        assert client.containers(all=True, filters={"label": "homeport.task"}) == []
        for image in client.images(name=REPOSITORY):
            client.remove_image(image["Id"], force=True)


def lessons(site: GitSite, name: str, image: str, **files: str) -> Repository:
    """A repository with a Dockerfile, a notebook and data."""
    repository = site.repository(name)
    dockerfile = f"FROM {image}\nRUN echo of {name} > /home/jovyan/built.txt\n"
    repository.commit(**{"Dockerfile": dockerfile, "first_dot_ipynb": "lesson", "data__second_dot_csv": "1,2"} | files)
    return repository
