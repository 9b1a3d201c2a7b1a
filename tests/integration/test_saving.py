"""A notebook that is saved as an image, on real parts: what is in the image, and what is not."""

from __future__ import annotations

import io
import json
import ssl
import tarfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker
import pytest
import requests
from docker.errors import NotFound

from chalicelib.notebook.container import certificate_file
from local import demo
from local.demo import HubClient
from local.run import Stack
from tests.integration.test_volume import Lab, launched
from tests.secrets_seen import Canary

IMAGE: Final = "localhost/homeport-saving-test:1"
IN_VOLUME: Final = "a-file-of-the-volume-that-is-in-no-image"
PEM: Final = "/opt/homeport/notebook.pem"
# `--no-index`: nothing is asked of a registry of packages.
INSTALL: Final = """
import subprocess, sys, zipfile
from pathlib import Path
wheel, info = "/tmp/installed-1.0-py3-none-any.whl", "installed-1.0.dist-info"
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("installed.py", "answer = 42")
    archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: installed\\nVersion: 1.0\\n")
    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    archive.writestr(f"{info}/RECORD", "")
pip = [sys.executable, "-m", "pip", "install", "--no-index", "--quiet", wheel]
subprocess.run(pip, check=True, capture_output=True)
Path.home().joinpath("marker").write_text("outside of the volume")
Path("mine.txt").write_text("@BACKWARDS@"[::-1])
""".replace("@BACKWARDS@", IN_VOLUME[::-1])  # IPython keeps what was run in the home folder, which is in the image
LOOK: Final = """
from pathlib import Path
import installed
print(installed.answer, Path.home().joinpath("marker").read_text(), Path("mine.txt").exists())
"""


@dataclass
class Saved:
    """What was seen of a save."""

    hub: dict[str, Any] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)
    kernel_before: str = ""
    kernel_after: str = ""
    certificates: list[bytes] = field(default_factory=list)  # the file of certificate and key, before and after
    archive: bytes = field(default=b"", repr=False)  # as `docker save` gives the image
    inspected: dict[str, Any] = field(default_factory=dict)
    original: dict[str, Any] = field(default_factory=dict)


def save(stack: Stack, hub: HubClient, sid: str, image: str) -> requests.Response:
    return hub._http.post(f"{stack.hub_address}/sessions/{sid}/save", json={"image": image}, timeout=60)


def certificate_in(engine: Any, container: str) -> bytes:
    chunks, _ = engine.get_archive(container, PEM)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        found = tar.extractfile(Path(PEM).name)
        assert found is not None
        return found.read()


@pytest.fixture(scope="module")
def engine_of(stack: Stack) -> Iterator[docker.APIClient]:
    with closing(docker.APIClient(base_url=stack.engine_url, timeout=120)) as engine:
        yield engine
        with suppress(NotFound):
            engine.remove_image(IMAGE, force=True)


@pytest.fixture(scope="module")
def saved(stack: Stack, notebook_image: str, engine_of: Any) -> Saved:
    """A notebook in which something is installed, saved while a kernel of it runs."""
    found = Saved(original=engine_of.inspect_image(notebook_image))
    with closing(HubClient(stack.hub_address)) as hub:
        sid = hub.launch(Path(stack.bundle), "to be saved", notebook_image)["id"]
        try:
            ready = demo.follow(hub, sid, "ready")
            lab = Lab(demo.enter(stack.hub_url, hub.enter(sid), stack.proxy_port))
            lab.run(INSTALL)
            found.kernel_before = lab.json("POST", "/api/kernels", {})["id"]
            found.certificates.append(certificate_in(engine_of, ready["container"]))
            found.hub = save(stack, hub, sid, IMAGE).json()
            found.session = demo.follow(hub, sid, "ready")
            found.certificates.append(certificate_in(engine_of, ready["container"]))
            found.kernel_after = next(
                one["id"] for one in lab.json("GET", "/api/kernels") if one["id"] == found.kernel_before
            )
            assert lab.run("print(6 * 7)") == "42"
            found.log = hub.log(sid)
            found.listed = hub._http.get(f"{stack.hub_address}/sessions", timeout=60).json()["images"]
        finally:
            hub.stop(sid)
            demo.follow(hub, sid, "stopped")
    found.archive = b"".join(engine_of.get_image(IMAGE))
    found.inspected = engine_of.inspect_image(IMAGE)
    return found


def test_it_is_saved_and_goes_on(saved: Saved) -> None:
    assert saved.hub["state"] == "saving"
    assert saved.session["error"] is None
    assert saved.session["message"] == f"Your notebook is ready. It is saved as the image {IMAGE}"
    assert any(line.startswith(f"Saved as the image {IMAGE}, ") for line in saved.log)
    assert saved.kernel_after == saved.kernel_before


def test_it_is_in_its_owners_list(saved: Saved) -> None:
    (image,) = (one for one in saved.listed if one["name"] == IMAGE)
    assert image["notebook"] == "to be saved"
    assert image["endpoint"] == saved.session["endpoint"]
    assert image["size"] == saved.inspected["Size"]


def test_no_key_and_no_file_of_the_volume_is_in_the_image(saved: Saved) -> None:
    before, after = saved.certificates
    assert before != after
    assert b"PRIVATE KEY" in before
    assert b"PRIVATE KEY" in after
    keys = Canary.of(*(pem[pem.index(b"-----BEGIN PRIVATE") :] for pem in (before, after)))
    assert len(saved.archive) > 100 << 20, "all layers are in it"
    added = without_older_layers(saved)
    assert keys.places({"where it is": before}), "it is found where it is"
    assert keys.places({"the image": added}) == {}
    assert IN_VOLUME.encode() not in added
    assert b"outside of the volume" in added


def without_older_layers(saved: Saved) -> bytes:
    """The saved image without the layers of the one that it was made of, which are older than any key."""
    layers, original = saved.inspected["RootFS"]["Layers"], saved.original["RootFS"]["Layers"]
    assert layers[: len(original)] == original
    with tarfile.open(fileobj=io.BytesIO(saved.archive)) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(read("manifest.json"))
        older = {name for name, layer in zip(manifest["Layers"], layers, strict=True) if layer in original}
        assert len(older) == len(original) < len(layers)
        return b"".join(read(one.name) for one in archive if one.isfile() and one.name not in older)


def test_the_container_has_a_certificate_of_its_own_again(saved: Saved, tmp_path: Path) -> None:
    """For `docker restart`: certificate and key belong together."""
    (tmp_path / "pem").write_bytes(saved.certificates[1])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "pem")


def test_the_image_starts_as_the_one_it_was_made_of_and_is_no_container_of_the_hubs(saved: Saved) -> None:
    config, original = saved.inspected["Config"], saved.original["Config"]
    for name in ("Cmd", "Entrypoint", "User", "WorkingDir"):
        assert config[name] == original[name], name
    kept = [variable for variable in config["Env"] if not variable.endswith("=")]
    assert sorted(kept) == sorted(original["Env"])
    labels = {name: value for name, value in config["Labels"].items() if value}
    assert set(labels) == {"homeport.saved", "homeport.saved-by", "homeport.saved-at"}
    assert labels["homeport.saved"] == saved.session["id"]


def test_the_image_is_launched_again_with_what_was_installed_and_without_the_volumes_files(
    stack: Stack, saved: Saved
) -> None:
    with launched(stack, "from the saved image", IMAGE, pull="never") as lab:
        assert lab.run(LOOK) == "42 outside of the volume False"
        assert lab.run("import os; print(os.environ['JUPYTER_CONFIG_PATH'])") == "/opt/homeport"
        lab.json("GET", "/lab/api/workspaces")


def test_the_same_notebook_launched_from_its_image_has_both(stack: Stack, saved: Saved) -> None:
    with launched(stack, "to be saved", IMAGE) as lab:
        assert lab.run(LOOK) == "42 outside of the volume True"


def test_what_is_saved_again_from_its_own_image_is_saved_once_more(stack: Stack, saved: Saved, engine_of: Any) -> None:
    with closing(HubClient(stack.hub_address)) as hub:
        sid = hub.launch(Path(stack.bundle), "to be saved", IMAGE)["id"]
        try:
            demo.follow(hub, sid, "ready")
            before = engine_of.inspect_image(IMAGE)["Id"]
            assert save(stack, hub, sid, IMAGE).status_code == 202
            assert demo.follow(hub, sid, "ready")["message"].endswith(IMAGE)
            again = engine_of.inspect_image(IMAGE)
            assert again["Id"] != before
            assert again["Config"]["Cmd"] == saved.original["Config"]["Cmd"]
        finally:
            hub.stop(sid)
            demo.follow(hub, sid, "stopped")


def test_an_image_of_somebody_elses_is_not_replaced_and_variables_are_not_saved(
    stack: Stack, notebook_image: str, engine_of: Any
) -> None:
    before = engine_of.inspect_image(notebook_image)["Id"]
    with closing(HubClient(stack.hub_address)) as hub:
        sid = hub.launch(Path(stack.bundle), "not to be saved", notebook_image)["id"]
        with_variables = hub.launch(Path(stack.bundle), "with variables", notebook_image, env="TOKEN=abc")["id"]
        try:
            demo.follow(hub, sid, "ready")
            assert save(stack, hub, sid, notebook_image).status_code == 202
            refused = demo.follow(hub, sid, "ready")
            assert refused["error"] is None
            assert "It was not saved as an image: The endpoint has an image called" in refused["message"]
            assert engine_of.inspect_image(notebook_image)["Id"] == before
            demo.follow(hub, with_variables, "ready")
            answer = save(stack, hub, with_variables, IMAGE)
            assert (answer.status_code, answer.json()["code"]) == (409, "variables-would-be-saved")
        finally:
            for one in (sid, with_variables):
                hub.stop(one)
                demo.follow(hub, one, "stopped")


def test_a_server_whose_certificate_file_is_empty_still_serves(
    stack: Stack, notebook_image: str, engine_of: Any
) -> None:
    with closing(HubClient(stack.hub_address)) as hub:
        sid = hub.launch(Path(stack.bundle), "emptied", notebook_image)["id"]
        try:
            container = demo.follow(hub, sid, "ready")["container"]
            lab = Lab(demo.enter(stack.hub_url, hub.enter(sid), stack.proxy_port))
            before = certificate_in(engine_of, container)
            engine_of.put_archive(container, "/", certificate_file(None, 0.0))
            ports = engine_of.inspect_container(container)["NetworkSettings"]["Ports"]["8888/tcp"]
            shown = ssl.get_server_certificate(("127.0.0.1", int(ports[0]["HostPort"])))
            assert shown.strip().encode() in before
            assert lab.run("print(6 * 7)") == "42"
            assert json.loads(lab.ask("GET", "/api/status")[1])["kernels"] >= 0
        finally:
            hub.stop(sid)
            demo.follow(hub, sid, "stopped")
