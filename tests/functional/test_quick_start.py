"""JupyterLab's start script, run by real shells and interpreters on small stand-ins for an image's files."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from chalicelib.notebook.container import FOLDER
from chalicelib.notebook.start import START, START_CODE

HELPERS: Final = """
import lark
print("made")
TERMS = ["iri"]
def is_valid_syntax(term, value):
    return " " not in value
"""


class Image:
    """A folder with our start files, a Python environment's packages and its programs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.packages, self.programs = folder, folder / "packages", folder / "bin"
        for made in (self.packages, self.programs):
            made.mkdir()
        self.write("start", START.replace("@FOLDER@", str(folder)))
        self.write("start.py", START_CODE)
        self.write("packages/rfc3987_syntax/__init__.py", "from .syntax_helpers import *")
        self.write("packages/rfc3987_syntax/syntax_helpers.py", HELPERS)
        self.write("packages/lark.py", "")
        self.program("jupyter", "#!/bin/sh", 'echo "jupyter $@"')

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(text))
        return file

    def program(self, name: str, *lines: str) -> Path:
        file = self.write(f"bin/{name}", "\n".join(map(dedent, lines)) + "\n")
        file.chmod(0o755)
        return file

    def lab(self, code: str, first: str = f"#!{sys.executable}") -> Path:
        return self.program("jupyter-lab", first, code)

    def run(self, *command: str) -> str:
        environ = {"PATH": f"{self.programs}:/usr/bin:/bin", "PYTHONPATH": str(self.packages)}
        made = subprocess.run(command, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=60)
        return made.stdout + made.stderr + (f"exit {made.returncode}\n" if made.returncode else "")

    def start(self) -> str:
        """What the container's command prints."""
        return self.run("sh", str(self.folder / "start"))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_the_script_finds_its_other_half_where_the_container_has_it() -> None:
    assert START.count("@FOLDER@") == 1
    assert f"{FOLDER}/start.py" in START.replace("@FOLDER@", FOLDER)


# ── which program runs ──


@pytest.mark.parametrize(
    "first", ["#!{python}", "#! {python}", "#!/usr/bin/env python3", "#!{python} -s", "#!{python} -E -s"]
)
def test_a_python_script_runs_by_the_interpreter_of_its_first_line(image: Image, first: str) -> None:
    (image.programs / "python3").symlink_to(sys.executable)
    image.lab(
        "import sys; print(sys.argv[1:], sys.flags.no_user_site)",
        first.format(python=sys.executable),
    )
    assert image.start() == f"['--no-browser'] {int('-s' in first)}\n"


@pytest.mark.parametrize(
    "lines",
    [
        ["#!/bin/sh", 'echo "a wrapper $@"'],
        ["#!/bin/bash", 'exec python3 -c "print(1)"'],
        ["\x00\x7fELF", "python"],
        [""],
        ["print('no first line')"],
    ],
    ids=["shell", "bash", "binary", "empty", "no first line"],
)
def test_what_is_no_python_script_is_left_to_jupyter(image: Image, lines: list[str]) -> None:
    image.program("jupyter-lab", *lines)
    assert image.start().endswith("jupyter lab --no-browser\n")


def test_without_such_a_program_it_is_left_to_jupyter(image: Image) -> None:
    assert image.start() == "jupyter lab --no-browser\n"


def test_the_script_notices_no_difference(image: Image) -> None:
    """Its name, its arguments, where it imports from, how it ends."""
    code = """
    import os, sys
    print(__name__, __file__, sys.argv, sys.path, sys.modules["__main__"].__dict__ is globals(), os.getppid())
    sys.exit(3)
    """
    script = image.lab(code)
    (image.programs / "beside.py").write_text("")
    assert image.start() == image.run(str(script), "--no-browser")


def test_it_is_the_process_that_was_started(image: Image) -> None:
    """A signal for the container's program reaches JupyterLab itself."""
    image.lab("import os; print(os.getpid())")
    with subprocess.Popen(
        ["sh", str(image.folder / "start")],
        env={"PATH": f"{image.programs}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.communicate(timeout=60)[0] == f"{started.pid}\n"


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_images_shell_runs_it(image: Image, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} on this machine (apt install {shell})")
    image.lab("print('JupyterLab')")
    command = [program, "sh"] if shell == "busybox" else [program]
    assert image.run(*command, str(image.folder / "start")) == "JupyterLab\n"


# ── the module that is postponed ──

USES: Final = {
    "the function": (
        "from rfc3987_syntax import is_valid_syntax as f",
        "print(f('iri', 'a b'), f('iri', value='ab'))",
        "False True",
    ),
    "the module's function": ("import rfc3987_syntax as r", "print(r.is_valid_syntax('iri', 'a b'))", "False"),
    "another name": ("import rfc3987_syntax as r", "print(r.TERMS)", "['iri']"),
    "a name it has not": ("import rfc3987_syntax as r", "print(hasattr(r, 'other'))", "False"),
    "all names": ("import rfc3987_syntax as r", "from rfc3987_syntax import *; print(TERMS)", "['iri']"),
    "a module in it": (
        "import rfc3987_syntax",
        "from rfc3987_syntax.syntax_helpers import TERMS; print(TERMS)",
        "['iri']",
    ),
}


@pytest.mark.parametrize(("imported", "used", "printed"), USES.values(), ids=USES)
def test_the_module_is_made_when_it_is_used_and_is_the_real_one(
    image: Image, imported: str, used: str, printed: str
) -> None:
    after = (
        "import rfc3987_syntax as r; print(r.is_valid_syntax('iri', ''), type(r).__name__, type(r.__loader__).__name__)"
    )
    script = image.lab("\n".join([imported, "print('imported')", used, after]))
    postponed, plain = image.start(), image.run(str(script))
    assert postponed == f"imported\nmade\n{printed}\nTrue module SourceFileLoader\n"
    assert sorted(postponed.splitlines()) == sorted(plain.splitlines())


def test_a_module_that_is_not_used_is_never_made(image: Image) -> None:
    image.lab("from rfc3987_syntax import is_valid_syntax; import sys; print('lark' in sys.modules)")
    assert image.start() == "False\n"


def test_threads_that_use_it_at_once_make_it_once(image: Image) -> None:
    image.write("packages/lark.py", "import time; time.sleep(0.2)")
    image.lab(
        """
        from concurrent.futures import ThreadPoolExecutor
        from rfc3987_syntax import is_valid_syntax
        with ThreadPoolExecutor(8) as pool:
            print(set(pool.map(lambda _: is_valid_syntax("iri", "ab"), range(64))))
        """
    )
    assert image.start() == "made\n{True}\n"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("packages/rfc3987_syntax/syntax_helpers.py", "def is_valid(term, value): return True"),
        ("packages/rfc3987_syntax/syntax_helpers.py", "raise ImportError('broken')"),
        ("packages/rfc3987_syntax/syntax_helpers.py", None),
        ("packages/rfc3987_syntax/__init__.py", None),
        ("packages/rfc3987_syntax", None),
        ("packages/lark.py", None),
    ],
    ids=["no such function", "broken", "not whole", "a namespace", "not there", "no parser"],
)
def test_a_module_that_is_not_as_known_is_imported_as_ever(image: Image, path: str, text: str | None) -> None:
    file = image.folder / path
    if text is not None:
        file.write_text(text)
    elif file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink()
    code = """
    try:
        from rfc3987_syntax import is_valid_syntax
    except ImportError as error:
        print(type(error).__name__, error)
    """
    script = image.lab(code)
    assert image.start() == image.run(str(script))
    assert "Error" in image.start()


def test_no_other_process_knows_of_it(image: Image) -> None:
    """A kernel's imports are its own."""
    image.lab(
        """
        import os, subprocess, sys
        from rfc3987_syntax import is_valid_syntax
        subprocess.run([sys.executable, "-c", "import rfc3987_syntax"])
        print(sorted(name for name in os.environ if name.startswith("PYTHON")))
        """
    )
    assert image.start() == "made\n['PYTHONPATH']\n"


def test_an_old_images_interpreter_understands_it() -> None:
    ast.parse(START_CODE, feature_version=(3, 8))
