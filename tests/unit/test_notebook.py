"""The container's specification and its files: what every container of this hub has, and none ever has."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import pytest

from chalicelib.notebook.certificates import Leaf, fingerprint, new_ca
from chalicelib.notebook.container import (
    DATA,
    DEFAULT_WORKDIR,
    FOLDER,
    NOTEBOOK_PORT,
    SERVER_CODE,
    Specification,
    hub_label,
    injected_files,
    jupyter_config,
    specification,
    work_folder,
)
from chalicelib.session.values import DataFolder, Limits, Options, Ports, container_name
from tests.builders import LIFETIME, NOW, a_session

SERVER_CONFIG = f"{FOLDER.strip('/')}/jupyter_server_config.py"
LEAF = Leaf(b"-----BEGIN CERTIFICATE-----\nleaf\n-----END CERTIFICATE-----\n", b"-----BEGIN PRIVATE KEY-----\n")


def a_specification(**changes: Any) -> Specification:
    session = a_session(**changes.pop("session", {}))
    arguments: dict[str, Any] = {
        "hub_name": "hub",
        "image_workdir": "",
        "publish_address": "",
        "idle_lifetime": 60.0,
    } | changes
    return specification(session, **arguments)


def test_the_container_is_named_after_session_and_launch() -> None:
    spec = a_specification(session={"generation": 3})
    assert spec.name == container_name(a_session().sid, 3)


def test_the_labels_tell_the_session_from_the_endpoint_alone() -> None:
    session = a_session(generation=2)
    assert a_specification(session={"generation": 2}).labels == {
        "homeport.hub": "hub",
        "homeport.session": session.sid,
        "homeport.generation": "2",
        "homeport.label": session.label,
        "homeport.owner": session.owner,
        "homeport.name": session.name,
        "homeport.image": session.image,
        "homeport.expires": str(int(session.expires_at)),
        "homeport.longest": str(int(session.longest_until)),
        "homeport.idle": "60",
        "homeport.savable": "1",
    }


def test_a_hub_is_told_from_another_of_its_name_by_its_ca() -> None:
    one, other = (new_ca("notebooks", now=NOW, lifetime=LIFETIME) for _ in range(2))
    assert hub_label("homeport-prod", one) == f"homeport-prod-{fingerprint(one)}"
    assert hub_label("homeport-prod", one) != hub_label("homeport-prod", other)


def test_all_launches_of_a_session_share_one_volume_and_no_other_session_has_it() -> None:
    first, again = (a_specification(session={"generation": number}).volume for number in (1, 2))
    assert first == again
    assert a_specification(session={"name": "other"}).volume != first


def test_limits_image_and_address_are_the_sessions() -> None:
    limits = Limits(memory=1 << 30, cpus=0.5, gpus=1)
    spec = a_specification(session={"limits": limits, "image": "x/y:z"}, publish_address="127.0.0.1")
    assert (spec.limits, spec.image, spec.publish_address, spec.port) == (limits, "x/y:z", "127.0.0.1", NOTEBOOK_PORT)


@pytest.mark.parametrize("workdir", ["/home/jovyan", "/root", "/work", "/srv/my notebooks", "/usr/src/app"])
def test_the_volume_goes_beside_what_the_image_has_in_its_working_directory(workdir: str) -> None:
    assert work_folder(workdir) == f"{workdir}/work"


def test_a_working_directory_that_is_the_docker_stacks_work_folder_is_the_volumes() -> None:
    assert work_folder("/home/jovyan/work") == "/home/jovyan/work"


@pytest.mark.parametrize(
    "workdir",
    ["", "/", "work", "/a:/b", "/a:ro", "/a//b", "/a/", "/a/../etc", "/a/.", "/..", "/a\n", "/a\0", "/" + "a" * 200,
     "/etc", "/usr", "/tmp", "/proc", "/dev", "/opt", "/opt/homeport", "/opt/homeport/x", "C:\\work", "/é"],
)  # fmt: skip
def test_a_working_directory_that_has_no_place_for_a_volume_is_replaced(workdir: str) -> None:
    assert work_folder(workdir) == DEFAULT_WORKDIR


def the_files(**changes: Any) -> bytes:
    session = a_session(options=changes.pop("options", Options()))
    arguments: dict[str, Any] = {"workdir": "/srv/me/work", "user": ""} | changes
    return injected_files(session, **arguments, leaf=LEAF, client_ca=b"CA", idle_lifetime=60)


def members(tar: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {
            member.name: (member, file.read() if (file := archive.extractfile(member)) else b"")
            for member in archive.getmembers()
        }


def test_the_injected_files_are_these_and_lie_in_one_folder() -> None:
    found = members(the_files())
    folder = FOLDER.strip("/")
    names = {
        "jupyter_server_config.json",
        "jupyter_server_config.py",
        "notebook.pem",
        "client-ca.pem",
        "start",
        "start.py",
    }
    assert found.keys() == {"srv/me/work", folder} | {f"{folder}/{name}" for name in names}
    assert found[f"{folder}/client-ca.pem"][1] == b"CA"
    assert found[f"{folder}/notebook.pem"][1] == LEAF.certificate + LEAF.key
    assert json.loads(found[f"{folder}/jupyter_server_config.json"][1]) == jupyter_config("/srv/me/work", 60)


def test_nobody_in_the_container_but_root_may_change_the_injected_files() -> None:
    for name, (member, _) in members(the_files(user="1000")).items():
        if name != "srv/me/work":
            assert (member.uid, member.gid) == (0, 0)
            assert member.mode == (0o755 if member.isdir() else 0o444)
            assert member.isdir() or member.isreg()


@pytest.mark.parametrize(
    ("user", "uid"),
    [("1000", 1000), ("1000:100", 1000), ("999999999", 999_999_999), ("0", 0), ("", 0), ("jovyan", 0), ("jovyan:7", 0),
     ("-1", 0), ("1" * 10, 0), ("١", 0), ("1000\n", 0), (":5", 0)],
)  # fmt: skip
def test_the_work_folder_is_the_images_users_if_they_have_a_number_and_always_open_to_them(user: str, uid: int) -> None:
    folder, _ = members(the_files(user=user))["srv/me/work"]
    assert folder.isdir()
    assert (folder.uid, folder.gid, folder.mode) == (uid, 0, 0o777)


def test_the_longest_work_folder_has_a_place_in_the_tar() -> None:
    longest = work_folder("/" + "a" * 199)
    assert longest.strip("/") in members(the_files(workdir=longest))


def test_the_same_session_gets_the_same_bytes() -> None:
    assert the_files() == the_files()


def test_jupyter_demands_a_certificate_and_keeps_its_own_checks() -> None:
    config = jupyter_config("/w/work", 7200)
    server = config["ServerApp"]
    assert server["client_ca"] == f"{FOLDER}/client-ca.pem"
    assert server["certfile"] == server["keyfile"] == f"{FOLDER}/notebook.pem"
    assert config["IdentityProvider"] == {"token": ""}
    assert not server.keys() & {"disable_check_xsrf", "allow_origin", "allow_origin_pat", "allow_credentials"}
    assert config["KernelManager"]["transport"] == "ipc"


def test_a_busy_kernel_is_never_culled_nor_one_with_an_open_page() -> None:
    kernels = jupyter_config("/w/work", 7200)["MappingKernelManager"]
    assert (kernels["cull_busy"], kernels["cull_connected"]) == (False, False)


@pytest.mark.parametrize(("lifetime", "interval"), [(7200, 300), (60, 15), (2, 1), (0.5, 1)])
def test_idle_is_looked_for_often_enough_to_be_seen(lifetime: float, interval: int) -> None:
    config = jupyter_config("/w/work", lifetime)
    idle = max(int(lifetime), 1)
    assert config["ServerApp"]["shutdown_no_activity_timeout"] == idle
    assert config["MappingKernelManager"]["cull_idle_timeout"] == idle
    assert config["TerminalManager"]["cull_inactive_timeout"] == idle
    assert config["MappingKernelManager"]["cull_interval"] == interval


def test_data_and_ports_are_the_sessions() -> None:
    options = Options(data=DataFolder("/srv/data"), ports=Ports(40000, 40099))
    spec = a_specification(session={"options": options})
    assert (spec.data, spec.ports) == (options.data, options.ports)
    assert (a_specification().data, a_specification().ports) == (None, None)


def test_the_volume_is_never_within_the_data_directory_nor_above_it() -> None:
    for workdir in (DATA, f"{DATA}/x"):
        assert work_folder(workdir) == DEFAULT_WORKDIR
    assert not f"{DEFAULT_WORKDIR}/".startswith(f"{DATA}/")


def linked(folder: Path, data: Path, *, has_data: bool = True) -> None:
    """Run what the server's configuration does about the link to the data, as for a volume at `folder`."""
    code = SERVER_CODE[SERVER_CODE.index("link = ") :].split("\n\n")[0]
    names = {"WORK": str(folder), "DATA": str(data), "HAS_DATA": has_data}
    exec(code, {"Path": Path, "PurePath": PurePath, "suppress": suppress, **names})


def test_the_data_directory_is_linked_into_the_volume_where_there_is_nothing_of_its_name(tmp_path: Path) -> None:
    data, volume = tmp_path / "data", tmp_path / "volume"
    volume.mkdir()
    for _ in range(2):
        linked(volume, data)
        assert (volume / "data").readlink() == data
    (volume / "data").unlink()
    (volume / "data").write_text("mine")
    linked(volume, data)
    assert (volume / "data").read_text() == "mine"
    linked(tmp_path / "missing", data)


def test_a_link_to_data_that_are_not_there_any_more_goes_and_nothing_else(tmp_path: Path) -> None:
    data, volume = tmp_path / "data", tmp_path / "volume"
    volume.mkdir()
    linked(volume, data)
    linked(volume, data, has_data=False)
    assert list(volume.iterdir()) == []
    for target in (tmp_path / "other", volume):
        (volume / "data").symlink_to(target)
        linked(volume, data, has_data=False)
        assert (volume / "data").readlink() == target
        (volume / "data").unlink()
    linked(volume, data)
    data.mkdir()
    linked(volume, data, has_data=False)
    assert (volume / "data").is_symlink()


def test_the_server_is_told_whether_there_are_data() -> None:
    for options, said in ((Options(), b"HAS_DATA = False\n"), (Options(data=DataFolder("/srv")), b"HAS_DATA = True\n")):
        told = members(the_files(options=options))[SERVER_CONFIG][1]
        assert told.startswith(b"WORK = '/srv/me/work'\nDATA = '/data'\n" + said)


def test_a_specification_shows_no_secret() -> None:
    spec = a_specification(variables={"TOKEN": "s3cret"})
    assert spec.variables == {"TOKEN": "s3cret"}
    assert "s3cret" not in repr(spec)
    assert "s3cret" not in str(spec.labels)
    assert "PRIVATE KEY" not in repr(spec)
    assert set(spec.environment) == {
        "JUPYTER_CONFIG_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"
    }  # fmt: skip


def test_jupyterlab_shows_the_volume_and_keeps_there_what_the_next_launch_needs_to_look_the_same() -> None:
    spec = a_specification(image_workdir="/home/me")
    assert jupyter_config(spec.workdir, 60)["ServerApp"]["root_dir"] == spec.workdir == "/home/me/work"
    kept = {name for name, value in spec.environment.items() if value.startswith(f"{spec.workdir}/")}
    assert kept == {"JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"}


def test_the_quick_start_can_be_switched_off() -> None:
    assert a_specification().command == ("sh", f"{FOLDER}/start")
    assert a_specification(quick_start=False).command == ("jupyter", "lab", "--no-browser")
