"""The peers that Homeport is measured beside: installed here, and run for as long as a measurement lasts.

1. JupyterHub and DockerSpawner are in an environment of their own, from bench/requirements-peers.txt;
   configurable-http-proxy is npm's, in one version. Both stay in build/bench, and `make clean` removes them.
2. A notebook under JupyterHub is its `jupyterhub-singleuser`, which `make run`'s image does not have. So all that are
   compared, Homeport and `docker run` too, start that image with JupyterHub's packages installed into it.
3. JupyterHub is set up as its documentation has it: DockerSpawner with its defaults on the same engine, and
   configurable-http-proxy in front. Its time limits alone are longer: 50 launches at once outlast them.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker
import requests
from docker.models.containers import Container

from local import image, private, processes
from local.engine import Engine
from local.processes import LOOPBACK, StackError
from local.settings import ROOT

KEPT: Final = ROOT / "build" / "bench"
LOCK: Final = Path(__file__).with_name("requirements-peers.txt")
CHP: Final = "configurable-http-proxy"
CHP_VERSION: Final = "5.3.0"
PATIENCE: Final = 900  # seconds of any one launch
_DIGEST: Final = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
_QUIETLY: Final = ("-qq", "--disable-pip-version-check")
# In the image, as root: $1 is its environment, $2 the folder with the wheels and the lock.
_INSTALL: Final = """
set -e
"$1"/bin/pip --isolated -qq install --no-compile --no-cache-dir --root-user-action=ignore \\
    --no-index --find-links="$2" --require-hashes -r "$2"/requirements-peers.txt
"$1"/bin/python -m compileall -q -j0 --invalidation-mode unchecked-hash "$1"/lib || true
rm -rf "$2"
"""
_CONFIGURATION: Final = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://{gateway}:{hub_port}"  # where the containers reach it
c.JupyterHub.db_url = "sqlite:///{folder}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = "{token}"
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.client_kwargs = {{"base_url": "{engine}"}}
c.DockerSpawner.image = "{image}"
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]  # else the image's own command, which is not JupyterHub's
c.DockerSpawner.remove = True
c.Spawner.start_timeout = c.Spawner.http_timeout = {patience}
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}
]
"""


# ── what is installed ────────────────────────────────────────────────────────────────────────────────────────────


def environment() -> Path:
    """Give the folder of the peers' Python programs, once they are installed."""
    folder = KEPT / f"peers-{_DIGEST}"
    complete = folder / "complete"  # its programs name its path, so that it cannot be renamed once it is
    if not complete.exists():
        print("installing JupyterHub and DockerSpawner", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", folder)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", *_QUIETLY]
        _run(*install, "--require-hashes", "--only-binary=:all:", f"--requirement={LOCK}")
        complete.touch()
    return folder / "bin"


def chp() -> Path:
    """Give the program configurable-http-proxy, once it is installed."""
    folder = KEPT / f"chp-{CHP_VERSION}"
    if not folder.exists():
        print(f"installing {CHP} {CHP_VERSION}", flush=True)
        partial = folder.with_suffix(".part")
        partial.mkdir(parents=True, exist_ok=True)
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", f"--prefix={partial}",
             f"{CHP}@{CHP_VERSION}")  # fmt: skip
        partial.rename(folder)
    return folder / "node_modules" / CHP / "bin" / CHP


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def versions() -> str:
    """Say which versions are installed."""
    locked = dict(re.findall(r"^([a-z-]+)==([^ ]+)", LOCK.read_text(), re.MULTILINE))
    return f"JupyterHub {locked['jupyterhub']}, DockerSpawner {locked['dockerspawner']}, {CHP} {CHP_VERSION}"


def provide_image(client: docker.DockerClient, engine: Engine) -> str:
    """Name the image that all start, made on this engine unless it is there."""
    name = f"homeport-bench:{hashlib.sha256((image.RECIPE + _DIGEST).encode()).hexdigest()[:12]}"
    if client.images.list(name):
        return name
    base = image.provide_local(engine.url, KEPT / "image", print)
    print("adding JupyterHub to the notebook image", flush=True)
    container = client.containers.run(base, ["sleep", "600"], user="root", network_mode="none", detach=True)
    try:
        version = _inside(container, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        container.put_archive("/tmp", _wheels(version))
        _inside(container, "sh", "-c", _INSTALL, "sh", image.ENVIRONMENT, "/tmp/wheels")
        repository, _, tag = name.partition(":")
        container.commit(repository, tag, changes="\n".join(image.NOTEBOOK.configuration))
    finally:
        container.remove(force=True)
    return name


def _inside(container: Container, *command: str) -> str:
    status, output = container.exec_run(list(command), user="root")
    said = bytes(output).decode(errors="replace").strip()  # type: ignore[arg-type] # not streamed
    if status != 0:
        raise StackError(f"{shlex.join(command[:3])} in the image: {said[-2000:]}")
    return said


def _wheels(python: str) -> bytes:
    """Give a tar of the folder `wheels`: what the lock names, for that Python, fetched by the machine's own pip."""
    wheels = KEPT / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    download = [sys.executable, "-m", "pip", "download", *_QUIETLY, f"--python-version={python}"]
    _run(*download, "--require-hashes", "--only-binary=:all:", f"--dest={wheels}", f"--requirement={LOCK}")
    shutil.copy(LOCK, wheels)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(wheels, "wheels")
    shutil.rmtree(wheels)
    return packed.getvalue()


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def running_chp(folder: Path, *arguments: str, token: str) -> Iterator[tuple[int, int]]:
    """Run configurable-http-proxy for as long as the block lasts; gives its port and its API's."""
    port, api_port = processes.free_port(), processes.free_port()
    listening = (f"--ip={LOOPBACK}", f"--port={port}", f"--api-ip={LOOPBACK}", f"--api-port={api_port}")
    command = [str(chp()), *listening, *arguments]
    environ = dict(os.environ) | {"CONFIGPROXY_AUTH_TOKEN": token, "NODE_ENV": "production"}
    with processes.running("chp", command, folder=folder, environ=environ) as child:
        processes.wait_for_port(port, child=child)
        processes.wait_for_port(api_port, child=child)
        yield port, api_port


class JupyterHub:
    """A running JupyterHub: its users are bench-0, bench-1 …"""

    def __init__(self, port: int, token: str) -> None:
        self._url = f"http://{LOOPBACK}:{port}"
        self._headers = {"Authorization": f"token {token}"}

    def add_users(self, count: int) -> None:
        """Make the users."""
        self._ask("POST", "/hub/api/users", json={"usernames": [f"bench-{number}" for number in range(count)]})

    def start(self, number: int, pause: float) -> Callable[[], None]:
        """Start a user's notebook and wait for its first 200 through the proxy; gives what stops it."""
        user, until = f"bench-{number}", time.monotonic() + PATIENCE
        self._ask("POST", f"/hub/api/users/{user}/server")
        while (status := self._get(f"/user/{user}/api/status").status_code) != 200:
            if time.monotonic() > until:
                raise StackError(f"JupyterHub's notebook of {user} answers {status}")
            time.sleep(pause)
        return lambda: self._stop(user)

    def _stop(self, user: str) -> None:
        self._ask("DELETE", f"/hub/api/users/{user}/server")
        while self._get(f"/hub/api/users/{user}").json()["servers"]:
            time.sleep(0.05)

    def _get(self, path: str) -> requests.Response:
        return requests.get(self._url + path, headers=self._headers, timeout=PATIENCE)

    def _ask(self, method: str, path: str, json: Mapping[str, object] | None = None) -> None:
        answer = requests.request(method, self._url + path, headers=self._headers, json=json, timeout=PATIENCE)
        if not answer.ok:
            raise StackError(f"JupyterHub answered {answer.status_code} to {method} {path}: {answer.text[:500]}")


@contextmanager
def jupyterhub(folder: Path, engine: Engine, gateway: str, image_name: str) -> Iterator[JupyterHub]:
    """Run JupyterHub with DockerSpawner for as long as the block lasts; `gateway` is the host as containers see it."""
    programs, hub_port, token = environment(), processes.free_port(), secrets.token_hex(32)
    private.make_folder(folder)
    with running_chp(folder, f"--error-target=http://{gateway}:{hub_port}/hub/error", token=token) as (port, api_port):
        config = folder / "jupyterhub_config.py"
        config.write_text(
            _CONFIGURATION.format(
                port=port, hub_port=hub_port, api_port=api_port, gateway=gateway, folder=folder, token=token,
                engine=engine.url, image=image_name, patience=PATIENCE,
            )
        )  # fmt: skip
        environ = dict(os.environ) | {"PATH": f"{programs}:{os.environ['PATH']}"}
        command = [str(programs / "jupyterhub"), f"--config={config}"]
        with processes.running("jupyterhub", command, folder=folder, cwd=folder, environ=environ, patience=60) as child:
            hub = f"http://{LOOPBACK}:{port}/hub/health"
            processes.wait_until(lambda: _answers(hub), what="JupyterHub answering", deadline=60, child=child)
            yield JupyterHub(port, token)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False
