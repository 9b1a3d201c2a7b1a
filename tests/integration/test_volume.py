"""What a launch leaves behind, and what of it the next launch of its session gets: all parts real.

The first launch runs hostile code, which leaves in its home folder, in the volume and beside notebooks whatever runs by
being there, and a visitor's things. The second one starts a kernel, runs a cell and opens a terminal.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import docker
import pytest
from websocket import create_connection

from local import demo
from local.demo import HubClient, Notebook
from local.run import Stack

# As the Jupyter Docker Stacks and repo2docker have it: the working directory is the user's home, Python looks for
# packages there, Jupyter for kernels before anywhere else, and the shell for programs. There is a Node.js, or something
# that is called so.
HOME_IMAGE: Final = """
FROM {image}
USER root
RUN sed -i 's/^include-system-site-packages = .*/include-system-site-packages = true/' /opt/jupyter/pyvenv.cfg
RUN ln -s /bin/true /usr/local/bin/node
USER jovyan
ENV PATH=/home/jovyan/.local/bin:$PATH JUPYTER_PREFER_ENV_PATH=0
WORKDIR /home/jovyan
"""

# Leaves things in the home folder and the same ones in the volume, where older versions had the home folder; each of
# them that runs makes a file /tmp/ran-….
HOSTILE: Final = """
import json, os, shutil, sys
from pathlib import Path

home, volume = Path.home(), Path.cwd()

def leave(path, text):
    for folder in {home, volume}:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

def python(kind):
    return f"open('/tmp/ran-{kind}', 'w').close()\\n"

jupyter, data, profile = ".jupyter", ".local/share/jupyter", ".ipython/profile_default"
packages = f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
leave(f"{jupyter}/jupyter_config.py", python("jupyter-config"))
leave(f"{jupyter}/jupyter_server_config.py", python("server-config"))
leave(f"{jupyter}/jupyter_lab_config.py", python("lab-config"))
enabled = {"ServerApp": {"jpserver_extensions": {"hostile": True}}}
leave(f"{jupyter}/jupyter_server_config.d/hostile.json", json.dumps(enabled))
leave(f"{jupyter}/labconfig/page_config.json", json.dumps({"disabledExtensions": {"hostile": True}}))
leave(f"{packages}/hostile.py", python("server-extension") + "def _load_jupyter_server_extension(app): pass")
leave(f"{packages}/hostile.pth", "import os; " + python("pth"))
leave(f"{packages}/usercustomize.py", python("usercustomize"))
leave(f"{profile}/ipython_config.py", python("ipython-config"))
leave(f"{profile}/startup/00-hostile.py", python("ipython-startup"))
start = "touch /tmp/ran-kernel; exec python -m ipykernel_launcher -f {connection_file}"
kernel = {"argv": ["sh", "-c", start], "display_name": "Python 3", "language": "python"}
leave(f"{data}/kernels/python3/kernel.json", json.dumps(kernel))
extension = {"name": "hostile", "version": "1.0.0", "jupyterlab": {"_build": {"load": "static/hostile.js"}}}
leave(f"{data}/labextensions/hostile/package.json", json.dumps(extension))
leave(f"{data}/labextensions/hostile/static/hostile.js", "hostile")
for name in (".bashrc", ".bash_profile", ".bash_login", ".profile"):
    leave(name, "touch /tmp/ran-shell\\n")
leave(".local/bin/jupyter", f'#!/bin/sh\\ntouch /tmp/ran-program\\nexec {sys.prefix}/bin/jupyter "$@"\\n')
for name in ("nbsignatures.db", "notebook_secret"):
    if home != volume:
        shutil.copy(home / data / name, volume / data / name)

# What JupyterLab takes for a language server, and what a kernel's command, `python -m ipykernel_launcher`, finds first.
leave("node_modules/pyright/langserver.index.js", "")
launch = "runpy.run_module('ipykernel_launcher', run_name='__main__', alter_sys=True)"
leave("ipykernel_launcher.py", python("beside-the-notebook") + "import sys, runpy\\ndel sys.path[0]\\n" + launch)
"""

INSTALL: Final = """
import subprocess, sys, zipfile
wheel, info = "/tmp/installed-1.0-py3-none-any.whl", "installed-1.0.dist-info"
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("installed.py", "")
    archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: installed\\nVersion: 1.0\\n")
    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    archive.writestr(f"{info}/RECORD", "")
pip = [sys.executable, "-m", "pip", "install", "--user", "--no-index", "--quiet", wheel]
subprocess.run(pip, check=True, capture_output=True)
"""
IMPORT: Final = """
import subprocess, sys
print(subprocess.run([sys.executable, "-c", "import installed"], capture_output=True).returncode)
"""

THEME: Final = "/lab/api/settings/@jupyterlab/apputils-extension:themes"
DARK: Final = '{"theme": "JupyterLab Dark"}'
WORKSPACE: Final = {
    "data": {"layout-restorer:data": {"main": {"dock": None}}, "file-browser-filebrowser:cwd": {"path": "seen"}},
    "metadata": {"id": "default"},
}
OUTPUT: Final = {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>hostile</script>"}}
CELL: Final = {"cell_type": "code", "source": "", "metadata": {}, "execution_count": 1, "outputs": [OUTPUT]}
NOTEBOOK: Final = {"cells": [CELL], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


class Lab:
    """One launch's JupyterLab, as its page speaks to it through the proxy."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self._xsrf = secrets.token_hex(16)
        self._cookie = f"{demo.COOKIE}={notebook.grant}; _xsrf={self._xsrf}"

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        headers = {"Origin": self.notebook.origin, "Cookie": self._cookie, "X-XSRFToken": self._xsrf}
        content = None if body is None else json.dumps(body).encode()
        status, _, answer = self.notebook.request(method, path, content, headers)
        return status, answer

    def json(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self.ask(method, path, body)
        assert 200 <= status < 300, (status, answer)
        return json.loads(answer) if answer else None

    def run(self, code: str) -> str:
        """Start a kernel, run a cell."""
        return demo.run_cell(self.notebook, code).strip()

    def in_terminal(self, command: str) -> None:
        """Open a terminal, and wait until its shell has run a command."""
        name = self.json("POST", "/api/terminals", {})["name"]
        with closing(
            create_connection(
                f"ws://127.0.0.1:{self.notebook.port}/terminals/websocket/{name}",
                host=self.notebook.host,
                origin=self.notebook.origin,
                cookie=self._cookie,
                timeout=60,
            )
        ) as terminal:
            terminal.send(json.dumps(["stdin", f"{command}; echo that''-was-it\r"]))
            while "that-was-it" not in "".join(str(part) for part in json.loads(terminal.recv())):
                pass

    def is_trusted(self, path: str) -> bool:
        (cell,) = self.json("GET", f"/api/contents/{path}")["content"]["cells"]
        return bool(cell["metadata"]["trusted"])


@contextmanager
def launched(stack: Stack, name: str, image: str, **options: str) -> Iterator[Lab]:
    """One launch; stopped afterwards."""
    with closing(HubClient(stack.hub_address)) as hub:
        session = hub.launch(Path(stack.bundle), name, image, **options)
        try:
            demo.follow(hub, session["id"], "ready")
            yield Lab(demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port))
        finally:
            hub.stop(session["id"])
            demo.follow(hub, session["id"], "stopped")


@pytest.fixture(scope="module", params=["home", "work"])
def image(request: pytest.FixtureRequest, stack: Stack, notebook_image: str) -> Iterator[str]:
    """An image whose working directory is the user's home, and one in which it is a folder for work."""
    if request.param == "work":
        yield notebook_image
        return
    client = docker.DockerClient(base_url=stack.engine_url)
    dockerfile = io.BytesIO(HOME_IMAGE.format(image=notebook_image).encode())
    client.images.build(fileobj=dockerfile, tag="homeport-home-test:latest", rm=True)
    yield "homeport-home-test:latest"
    client.images.remove("homeport-home-test:latest", force=True)
    client.close()


@pytest.fixture(scope="module")
def second(stack: Stack, image: str) -> Iterator[Lab]:
    """The second launch of a session."""
    name = f"volume of {image}"
    with launched(stack, name, image) as first:
        first.json("PUT", THEME, {"raw": DARK})
        first.json("PUT", "/lab/api/workspaces/default", WORKSPACE)
        first.json("PUT", "/api/contents/seen", {"type": "directory"})
        first.json("PUT", "/api/contents/seen/kept.txt", {"type": "file", "format": "text", "content": "mine"})
        first.json("PUT", "/api/contents/seen/trusted.ipynb", {"type": "notebook", "content": NOTEBOOK})
        first.json("POST", "/api/contents/seen/trusted.ipynb/trust")
        assert first.is_trusted("seen/trusted.ipynb")
        first.run("open('written.txt', 'w').write('by a cell')")
        if image.startswith("homeport-home"):
            first.run(INSTALL)
            assert first.run(IMPORT) == "0"
        first.run(HOSTILE)
    with launched(stack, name, image) as second:
        yield second


def test_nothing_runs_by_having_been_left(second: Lab) -> None:
    second.in_terminal("true")
    assert second.run("import glob; print(sorted(glob.glob('/tmp/ran-*')))") == "[]"


def test_the_visitors_files_are_where_they_were(second: Lab) -> None:
    assert second.json("GET", "/api/contents/seen/kept.txt")["content"] == "mine"
    assert second.json("GET", "/api/contents/written.txt")["content"] == "by a cell"
    assert second.run("print(open('written.txt').read(), open('seen/kept.txt').read())") == "by a cell mine"


def test_jupyterlab_looks_as_it_was_left(second: Lab) -> None:
    assert second.json("GET", THEME)["settings"] == json.loads(DARK)
    assert second.json("GET", "/lab/api/workspaces/default")["data"] == WORKSPACE["data"]


def test_a_notebook_that_was_trusted_is_not_trusted_any_more(second: Lab) -> None:
    assert not second.is_trusted("seen/trusted.ipynb")


def test_no_extension_that_was_left_is_listed_or_served(second: Lab) -> None:
    status, page = second.ask("GET", "/lab")
    assert (status, b"federated_extensions" in page, b"hostile" in page) == (200, True, False)
    assert second.ask("GET", "/lab/extensions/hostile/static/hostile.js")[0] == 404


def test_no_language_server_that_was_left_is_found(second: Lab) -> None:
    status = second.json("GET", "/lsp/status")
    assert (status["sessions"], "pyright" in status["specs"]) == ({}, False)


def test_what_is_made_in_a_terminal_is_kept(second: Lab) -> None:
    """A terminal for no folder, as File > New > Terminal opens it."""
    second.in_terminal("touch made-in-a-terminal")
    assert second.ask("GET", "/api/contents/made-in-a-terminal")[0] == 200


def test_what_pip_installed_for_the_user_is_gone(second: Lab) -> None:
    assert second.run(IMPORT) == "1"


def test_a_cell_and_a_script_import_what_is_beside_them(second: Lab) -> None:
    code = """
        import subprocess, sys
        open("mine.py", "w").write("answer = 42")
        open("script.py", "w").write("import mine; print(mine.answer)")
        import mine
        print(mine.answer, subprocess.run([sys.executable, "script.py"], capture_output=True, text=True).stdout)
    """
    assert second.run(dedent(code)).split() == ["42", "42"]


COMMANDS: Final = {
    "python -m kernel -f x": "python -c CODE -f x",
    "/opt/python3.13 -Xfrozen_modules=off -m kernel -m x": "/opt/python3.13 -Xfrozen_modules=off -c CODE -m x",
    "conda run -n env python -m kernel": "conda run -n env python -c CODE",
    "python script.py -m kernel": "python script.py -m kernel",
    "R --slave -e IRkernel::main() --args x": "R --slave -e IRkernel::main() --args x",
    "python -m": "python -m",
    "-m kernel": "-m kernel",
}


def test_the_data_directory_is_in_the_file_browser_and_in_no_later_launch(
    stack: Stack, notebook_image: str, tmp_path: Path
) -> None:
    """JupyterLab shows the link to it, and a notebook reads it; the next launch has neither."""
    tmp_path.chmod(0o755)
    (tmp_path / "measured.csv").write_text("1,2,3")
    name = f"data of {notebook_image}"
    with launched(stack, name, notebook_image, data=str(tmp_path), env="GREETING=a=b c", shm="96m") as lab:
        (file,) = lab.json("GET", "/api/contents/data")["content"]
        assert file["name"] == "measured.csv"
        assert lab.json("GET", "/api/contents/data/measured.csv")["content"] == "1,2,3"
        said = (
            "import os; print(open('/data/measured.csv').read(), os.environ['GREETING'], os.access('/data', os.W_OK))"
        )
        assert lab.run(said) == "1,2,3 a=b c False"
        shm = "import os; found = os.statvfs('/dev/shm'); print(found.f_blocks * found.f_frsize)"
        assert lab.run(shm) == str(96 << 20)
    with launched(stack, name, notebook_image) as lab:
        assert "data" not in [file["name"] for file in lab.json("GET", "/api/contents/")["content"]]
        assert lab.run("import os; print(os.path.exists('/data'), os.path.islink('data'))") == "False False"


def test_no_kernels_command_is_changed_but_that_of_python_with_a_module(second: Lab) -> None:
    code = f"""
        from traitlets.config import Config
        c = Config()
        exec(open("/opt/homeport/jupyter_server_config.py").read())
        for command in {[*COMMANDS]}:
            made = c.KernelSpecManager.kernel_spec_class(argv=command.split()).argv
            print(*["CODE" if "run_module('kernel'" in word else word for word in made])
    """
    assert second.run(dedent(code)).splitlines() == [*COMMANDS.values()]
