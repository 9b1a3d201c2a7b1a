"""What the real docker CLI exports is a bundle, whichever version is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from chalicelib.bundle import errors
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.parse import parse
from chalicelib.bundle.sources import CONTEXT
from tests import bundles
from tests.bundles import Pki
from tests.certificates import instant

NOW = instant(2026, 11, 1)
# A newer CLI may lie beside the distribution's: both write contexts, and both are tried.
CLIENTS = sorted({path for path in (shutil.which("docker"), "/usr/bin/docker") if path and os.access(path, os.X_OK)})

pytestmark = pytest.mark.skipif(not CLIENTS, reason="there is no docker CLI: apt-get install docker.io")


def docker(client: str, folder: Path, *arguments: str) -> bytes:
    """Run the docker CLI with a configuration folder of its own; no engine is asked for anything."""
    environment = {"DOCKER_CONFIG": str(folder / "config"), "PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run([client, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    return done.stdout


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_an_exported_context_gives_its_credentials(client: str, kind: str, tmp_path: Path) -> None:
    pki = Pki.new(key=kind)
    for name, data in pki.files.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    endpoint = "host=tcp://192.0.2.7:2376,ca=ca.pem,cert=cert.pem,key=key.pem"
    docker(client, tmp_path, "context", "create", "home", "--docker", endpoint)
    exported = docker(client, tmp_path, "context", "export", "home", "-")
    found = parse(exported, host=None, now=NOW)
    assert found.format == CONTEXT
    assert found.credentials.endpoint == Endpoint("192.0.2.7", 2376)
    assert found.dropped == ()
    assert len(exported) == len(bundles.docker_context(pki))  # our writer leaves out the same padding
    assert found == parse(bundles.docker_context(pki), host=None, now=NOW)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_exported_ssh_context_is_explained(client: str, tmp_path: Path) -> None:
    docker(client, tmp_path, "context", "create", "far", "--docker", "host=ssh://me@192.0.2.7")
    exported = docker(client, tmp_path, "context", "export", "far", "-")
    with pytest.raises(errors.EndpointSchemeSsh, match="TLS"):
        parse(exported, host=None, now=NOW)


@pytest.mark.parametrize("client", CLIENTS)
def test_docker_imports_the_zip_form_that_is_tested(client: str, tmp_path: Path) -> None:
    pki = Pki.new()
    (tmp_path / "home.zip").write_bytes(bundles.docker_context_zip(pki))
    docker(client, tmp_path, "context", "import", "again", "home.zip")
    exported = docker(client, tmp_path, "context", "export", "again", "-")
    assert parse(exported, host=None, now=NOW).owner == parse(bundles.docker_context_zip(pki), host=None, now=NOW).owner
