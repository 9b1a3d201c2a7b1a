"""Archives made by the programs of a plain Debian machine are bundles."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from chalicelib.bundle.parse import parse
from chalicelib.bundle.sources import CARINA
from tests import bundles
from tests.bundles import Pki
from tests.certificates import instant


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


@pytest.mark.parametrize(
    "options", ["--format=gnu", "--format=pax", "--format=ustar", "--format=v7", "-z", "--xattrs", "-S"]
)
@pytest.mark.parametrize("top", ["Mon dossier é", "."])
def test_what_gnu_tar_packs_is_a_bundle(options: str, top: str, pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / top
    folder.mkdir(exist_ok=True)
    for name, data in {**pki.files, "docker.env": "export DOCKER_HOST=tcp://192.0.2.7\n"}.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    packed = subprocess.run(["tar", "-c", options, top], cwd=tmp_path, capture_output=True, check=True).stdout
    found = parse(packed, host=None, now=instant(2026, 11, 1))
    assert (found.format, found.dropped) == (CARINA, ())
    assert found.owner == parse(bundles.carina_late(pki), host=None, now=instant(2026, 11, 1)).owner
