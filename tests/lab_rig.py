"""A real JupyterLab behind the tests' proxy: started as the launcher does it, without a hub."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.errors import NotebookSilent
from chalicelib.engine.probe import probe
from chalicelib.notebook.certificates import HubTrust
from chalicelib.notebook.container import injected_files, specification
from local import containers
from local.endpoint import LocalEndpoint
from local.engine import Engine
from tests.builders import a_session
from tests.proxy_rig import Rig, eventually

HUB_NAME: Final = "lab-tests"


def addresses_are_settled() -> bool:
    """Say whether no interface is about to get its IPv6 address: Chromium gives up all requests at that."""
    interfaces = Path("/proc/net/if_inet6")
    lines = interfaces.read_text().splitlines() if interfaces.exists() else []
    return not any(int(line.split()[4], 16) & 0x40 for line in lines)  # IFA_F_TENTATIVE, rtnetlink(7)


@contextmanager
def jupyterlab(door: Rig, offered: LocalEndpoint, engine: Engine, image: str, *, own: str = "{}") -> Iterator[str]:
    """A JupyterLab in a container, published; gives its host. `own`, JSON, is what the image sets of Jupyter."""
    session = a_session(image=image, label="labtest")
    pki = offered.pki
    credentials = Credentials(
        Endpoint("127.0.0.1", offered.port), pki.ca.encode(), pki.certificate.encode(), pki.key.encode()
    )
    with ExitStack() as stack:
        docker = stack.enter_context(
            DockerEndpoint(credentials, address="127.0.0.1", deadline=120.0, hub_name=HUB_NAME)
        )
        stack.callback(containers.remove_all, engine.url, HUB_NAME, volumes=True)
        found = docker.image_config(image)
        spec = specification(
            session,
            hub_name=HUB_NAME,
            image_workdir=found.workdir,
            publish_address="127.0.0.1",
            idle_lifetime=3600,
        )
        docker.create(spec)
        leaf, client_ca = door.pki.notebook_leaf(session.host), door.pki.client.certificate
        files = injected_files(
            session, workdir=spec.workdir, user=found.user, leaf=leaf, client_ca=client_ca, idle_lifetime=3600
        )
        docker.put_files(spec.name, files)
        docker.put_files(spec.name, _own_file(own.encode()))
        docker.start(spec.name)
        target = docker.published(spec.name)
        trust = HubTrust(door.pki.notebook, client_ca, door.pki.proxy)

        def answers() -> bool:
            try:
                probe(target, session.host, trust, deadline=5)
            except NotebookSilent:
                return False
            return True

        eventually(answers, "JupyterLab", deadline=60)
        eventually(addresses_are_settled, "the container's interface", deadline=60)
        door.publish(session.host, target.port)
        yield session.host


def _own_file(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("etc/jupyter/jupyter_server_config.json")
        member.size, member.mode = len(content), 0o644
        tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
