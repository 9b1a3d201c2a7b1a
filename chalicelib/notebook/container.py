"""What runs on the visitor's endpoint: the container's specification, and the files put into it before it starts.

Rules

1. The image stays as it is: its entrypoint is kept (the Jupyter Docker Stacks set their environment up there) and is
   expected to run the command it is given; `jupyter` must be on its PATH, and `sh` unless the quick start (start.py) is
   switched off.
2. Configuration comes from one folder through JUPYTER_CONFIG_PATH, which outranks the image's and the user's own files.
3. The notebook listens with its own leaf certificate and answers only who shows a certificate of the hub's client CA.
   So there is no token, and Jupyter makes its own XSRF and websocket-origin checks (it skips both for a request
   that carries a token).
4. Idle stop is Jupyter's own: kernels without a connection are culled when idle, never while busy; a server without
   kernels and terminals ends. That works when the hub is gone.
5. The work folder is a named volume that the engine fills from the image when it is new. Only *Delete* removes it. It
   is mounted beside the user's home and beside all that an image runs, and JupyterLab starts outside of it. So the
   next launch gets files, and JupyterLab's settings and workspaces, and nothing that runs by being there
   (docs/adr/0013).
6. A folder of the endpoint's host that the visitor names is mounted at DATA, outside of the volume: what a notebook
   left in the volume, a link for one, cannot say where it goes. The server links it into the volume, where
   JupyterLab's file browser shows it, unless there is something of that name.
7. Variables that the visitor sets never replace the hub's own.
8. The container has the engine's default confinement and no privilege on top. `no-new-privileges` is left off: the
   machine and the notebook are the same person's, and it would break `sudo` in images that offer it. No extra init: the
   engine may have none, and the Docker Stacks bring tini.
9. The server reads its certificate once. So the file can be emptied while it runs, when the container is saved as an
   image: no key gets into that (docs/adr/0018). The label SAVABLE says that a container is of this kind.
10. The image's health check is switched off: without a client certificate it would call a healthy notebook unhealthy.
11. The server compresses what JupyterLab loads of itself, and nothing else (docs/adr/0026).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from chalicelib.notebook.certificates import Ca, Leaf, fingerprint
from chalicelib.notebook.start import START, START_CODE
from chalicelib.session.values import DataFolder, Limits, Ports, Session, container_name, volume_name

NOTEBOOK_PORT: Final = 8888
FOLDER: Final = "/opt/homeport"  # in the container's own layer: put_archive into a tmpfs mount is invisible inside
DATA: Final = "/data"  # where the visitor's folder of the endpoint's host is, and its link's name in the volume
WORK: Final = "work"  # the Jupyter Docker Stacks' own name for it
DEFAULT_WORKDIR: Final = f"/home/jovyan/{WORK}"
RUNTIME_FOLDER: Final = "/tmp/homeport-runtime"  # noqa: S108 - inside the container; short, as sockets' paths end at 107 bytes
COMMAND: Final = ("sh", f"{FOLDER}/start")
PLAIN_COMMAND: Final = ("jupyter", "lab", "--no-browser")
LABEL: Final = "homeport."
SAVABLE: Final = f"{LABEL}savable"  # has a value if the container's certificate file can be emptied
CERTIFICATE: Final = "notebook.pem"
LOG_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({"max-size": "1m", "max-file": "2"})

_WORKDIR: Final = re.compile(r"(?:/[A-Za-z0-9_.+-][A-Za-z0-9_.+ -]*){1,16}")  # no ":" (bind syntax), no empty part
_WORKDIR_LENGTH: Final = 200
_UID: Final = re.compile(r"([0-9]{1,9})(?::.*)?", re.ASCII)
_SYSTEM: Final = frozenset(
    ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var")  # noqa: S108
)


# What JSON cannot say, for Jupyter Server; `WORK` is the volume's folder, and `DATA` the visitor's if it `HAS_DATA`.
# `CERTIFICATE` is the file of certificate and key.
SERVER_CODE: Final = '''
import re
from contextlib import suppress
from pathlib import Path, PurePath

import tornado.netutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_server_terminals.terminalmanager import TerminalManager
from tornado.web import GZipContentEncoding, OutputTransform

# `python -m` looks for the module, and for all that it imports, in the folder that it is started in before anywhere
# else: a file of the volume that is called like one of those would run whenever a kernel starts. IPython adds the
# folder when it has started, for what cells import.
START = """
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
from runpy import run_module
run_module({!r}, run_name="__main__", alter_sys=True)
"""


class StartedWithoutItsFolder(KernelSpec):
    """Starts a kernel that is `python -m module` without the folder that it is started in."""

    def __init__(self, **spec):
        super().__init__(**spec)
        option = self.argv.index("-m") if "-m" in self.argv[:-1] else 0
        program = next((word for word in reversed(self.argv[:option]) if not word.startswith("-")), "")
        if PurePath(program).name.startswith("python"):
            self.argv[option : option + 2] = ["-c", START.format(self.argv[option + 1])]


class StartedInTheVolume(TerminalManager):
    """Opens terminals in the volume: the server's own folder is not kept."""

    def new_terminal(self, **options):
        return super().new_terminal(**{"cwd": WORK, **options})


# Tornado makes a context for each connection, of what is in the files then. One is enough, and the file with the key is
# empty while the container is saved as an image.
new_context, contexts = tornado.netutil.ssl_options_to_context, []


def same_context(ssl_options, server_side=None):
    if not server_side or not isinstance(ssl_options, dict) or ssl_options.get("certfile") != CERTIFICATE:
        return new_context(ssl_options, server_side=server_side)
    if not contexts:
        contexts.append(new_context(ssl_options, server_side=server_side))
    return contexts[0]


tornado.netutil.ssl_options_to_context = same_context

# JupyterLab's own files, and what describes its settings and languages: nearly all that a page loads, and nothing that
# answers with what somebody else has written. Pages, files and outputs are never compressed (docs/adr/0026).
STATIC = re.compile("/(static|lab/extensions|lab/api/(settings|themes|translations)|lsp/status|kernelspecs)(/|$)")


class Compressed(GZipContentEncoding):
    """Compresses whole files of kinds that get smaller."""

    CONTENT_TYPES = {*GZipContentEncoding.CONTENT_TYPES, "application/wasm", "image/vnd.microsoft.icon", "image/x-icon"}

    def transform_first_chunk(self, status, headers, chunk, finishing):
        if status != 200 or headers.get("Content-Type", "").startswith("text/html"):
            self._gzipping = False
        status, headers, chunk = super().transform_first_chunk(status, headers, chunk, finishing)
        if self._gzipping:  # what is compressed is another sequence of bytes, whose parts cannot be had
            headers.pop("Accept-Ranges", None)
            if headers.get("Etag", "").startswith('"'):
                headers["Etag"] = "W/" + headers["Etag"]
        return status, headers, chunk


def transform(request):
    compresses = STATIC.match(request.path) and "Range" not in request.headers
    return Compressed(request) if compresses else OutputTransform(request)


c.ServerApp.tornado_settings.update({"transforms": [transform]})  # an image's own settings stay

link = Path(WORK, PurePath(DATA).name)
with suppress(OSError):  # there is something of that name, or the volume is not ours to write to
    if HAS_DATA:
        link.symlink_to(DATA)
    elif link.is_symlink() and not link.exists() and link.readlink() == Path(DATA):  # an earlier launch had data
        link.unlink()

c.KernelSpecManager.kernel_spec_class = StartedWithoutItsFolder
c.TerminalsExtensionApp.terminal_manager_class = StartedInTheVolume
'''


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of its containers: their working directory and their user, each empty when it says none."""

    workdir: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """One container, in values every Docker Engine understands. Shows no secret.

    `workdir` is where the volume is, and all that JupyterLab shows; the container starts in the folder above it.
    `variables` are the visitor's, which may be secrets; `data` is mounted at DATA; `ports` None is any port.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    variables: Mapping[str, str] = field(repr=False)
    labels: Mapping[str, str]
    volume: str
    workdir: str
    port: int
    publish_address: str
    ports: Ports | None
    data: DataFolder | None
    limits: Limits


def hub_label(hub_name: str, ca: Ca) -> str:
    """Say what a hub labels its containers with: its name is another operator's too, its CA is nobody else's."""
    return f"{hub_name}-{fingerprint(ca)}"


def specification(
    session: Session,
    *,
    hub_name: str,
    image_workdir: str,
    publish_address: str,
    idle_lifetime: float,
    quick_start: bool = True,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Specification:
    """Say what container `session` needs.

    `hub_name` is the label that says whose it is; `image_workdir` the image's own working directory or empty;
    `publish_address` the endpoint's address to bind the notebook's port to, empty for all; `idle_lifetime` is in
    seconds; `quick_start` starts JupyterLab as start.py says; `variables` are the visitor's.
    """
    workdir = work_folder(image_workdir)
    return Specification(
        name=container_name(session.sid, session.generation),
        image=session.image,
        command=COMMAND if quick_start else PLAIN_COMMAND,
        environment=MappingProxyType(environment(workdir)),
        variables=variables,
        labels=MappingProxyType(labels(session, hub_name=hub_name, idle_lifetime=idle_lifetime)),
        volume=volume_name(session.sid),
        workdir=workdir,
        port=NOTEBOOK_PORT,
        publish_address=publish_address,
        ports=session.options.ports,
        data=session.options.data,
        limits=session.limits,
    )


def environment(workdir: str) -> dict[str, str]:
    """Name the variables that are set in the container. JupyterLab's settings and workspaces are in the volume."""
    return {
        "JUPYTER_CONFIG_PATH": FOLDER,
        "JUPYTER_RUNTIME_DIR": RUNTIME_FOLDER,
        # As they are named below a home folder, which is where older launches had the volume.
        "JUPYTERLAB_SETTINGS_DIR": f"{workdir}/.jupyter/lab/user-settings",
        "JUPYTERLAB_WORKSPACES_DIR": f"{workdir}/.jupyter/lab/workspaces",
    }


HUB_VARIABLES: Final = tuple(environment(""))


def labels(session: Session, *, hub_name: str, idle_lifetime: float) -> dict[str, str]:
    """Name the labels from which the session can be told, and found again, on the endpoint alone."""
    return {
        f"{LABEL}hub": hub_name,
        f"{LABEL}session": session.sid,
        f"{LABEL}generation": str(session.generation),
        f"{LABEL}label": session.label,
        f"{LABEL}owner": session.owner,
        f"{LABEL}name": session.name,
        f"{LABEL}image": session.image,
        f"{LABEL}expires": str(int(session.expires_at)),
        f"{LABEL}longest": str(int(session.longest_until)),
        f"{LABEL}idle": str(int(idle_lifetime)),
        SAVABLE: "1",
    }


def work_folder(image_workdir: str) -> str:
    """Choose where the volume goes: a folder `work` in the image's working directory.

    An image whose working directory is none, or part of the system, gets that of the Jupyter Docker Stacks.
    """
    usable = len(image_workdir) <= _WORKDIR_LENGTH and _WORKDIR.fullmatch(image_workdir) is not None
    parts = image_workdir.split("/")
    beside_ours = not any(
        f"{image_workdir}/".startswith(f"{ours}/") or ours.startswith(f"{image_workdir}/") for ours in (FOLDER, DATA)
    )
    if usable and beside_ours and ".." not in parts and "." not in parts and image_workdir not in _SYSTEM:
        return image_workdir if image_workdir == DEFAULT_WORKDIR else f"{image_workdir}/{WORK}"
    return DEFAULT_WORKDIR


def injected_files(
    session: Session, *, workdir: str, user: str, leaf: Leaf, client_ca: bytes, idle_lifetime: float
) -> bytes:
    """Make the tar that is unpacked at "/" before the container starts: configuration, certificate and key, client CA.

    Readable for everyone inside, because the image decides which user that is; the key opens nothing but this
    notebook's own name. The tar also opens the volume's folder to that user, `user` by number or as the image names
    it: an engine makes it root's if the image has none.
    """
    config = jupyter_config(workdir, idle_lifetime)
    has_data = session.options.data is not None
    values = {"WORK": workdir, "DATA": DATA, "HAS_DATA": has_data, "CERTIFICATE": f"{FOLDER}/{CERTIFICATE}"}
    known = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    files = {
        "jupyter_server_config.json": json.dumps(config, indent=1, sort_keys=True).encode(),
        "jupyter_server_config.py": f"{known}{SERVER_CODE}".encode(),
        CERTIFICATE: _pem(leaf),
        "client-ca.pem": client_ca,
        "start": START.replace("@FOLDER@", FOLDER).encode(),
        "start.py": START_CODE.encode(),
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_member(FOLDER.lstrip("/"), 0o755, session.created_at, tarfile.DIRTYPE))
        for name, content in files.items():
            _add_file(tar, name, content, session.created_at)
        work = _member(workdir.lstrip("/"), 0o777, session.created_at, tarfile.DIRTYPE)
        number = _UID.fullmatch(user)  # a user's name has a number in the image alone
        work.uid = int(number[1]) if number else 0
        tar.addfile(work)
    return archive.getvalue()


def certificate_file(leaf: Leaf | None, modified: float) -> bytes:
    """Make the tar that replaces the file of certificate and key in a container, or empties it (None)."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        _add_file(tar, CERTIFICATE, _pem(leaf) if leaf else b"", modified)
    return archive.getvalue()


def _pem(leaf: Leaf) -> bytes:
    return leaf.certificate.rstrip() + b"\n" + leaf.key.rstrip() + b"\n"


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, modified: float) -> None:
    member = _member(f"{FOLDER.lstrip('/')}/{name}", 0o444, modified, tarfile.REGTYPE)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def jupyter_config(workdir: str, idle_lifetime: float) -> dict[str, Any]:
    """Jupyter Server's configuration (jupyter-server 2.20 or later, for CVE-2026-44727).

    `workdir` is what it shows; `idle_lifetime` in seconds.
    """
    idle = max(int(idle_lifetime), 1)
    interval = min(300, max(1, idle // 4))  # seconds between looks; Jupyter's own default is 300
    return {
        "ServerApp": {
            "ip": "0.0.0.0",
            "port": NOTEBOOK_PORT,
            "port_retries": 0,
            "base_url": "/",
            "root_dir": workdir,
            "open_browser": False,
            "allow_root": True,
            "allow_remote_access": True,  # the Host header is the proxy's concern, which knows the launch's one name
            "certfile": f"{FOLDER}/{CERTIFICATE}",
            "keyfile": f"{FOLDER}/{CERTIFICATE}",
            "client_ca": f"{FOLDER}/client-ca.pem",
            "shutdown_no_activity_timeout": idle,
        },
        "IdentityProvider": {"token": ""},
        "PasswordIdentityProvider": {"hashed_password": "", "password_required": False, "allow_password_change": False},
        "MappingKernelManager": {
            "cull_idle_timeout": idle,
            "cull_interval": interval,
            "cull_busy": False,
            "cull_connected": False,
        },
        "KernelManager": {"transport": "ipc"},
        "TerminalManager": {"cull_inactive_timeout": idle, "cull_interval": interval},
    }


def _member(name: str, mode: int, modified: float, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = mode
    member.mtime = int(modified)
    return member
