"""How JupyterLab is started in the container: as `jupyter lab` does it, in half the time.

Half of JupyterLab's start is the import of one module, rfc3987_syntax, by which jsonschema checks whether a text is an
IRI: it builds some forty parsers, and nothing in the server ever asks (jupyter_server#1559). So the program runs with
an import hook that makes that one module when its function is called for the first time (docs/adr/0014).

Rules

1. It acts in the server's process alone: no environment variable, nothing in the image is changed. Kernels and
   terminals are processes of their own.
2. What runs is the image's own `jupyter-lab`, by the interpreter that its first line names. Where that is no Python
   script, or there is none, START is `jupyter lab`.
3. Only a module that is as we know it is postponed. Once it is used, it is the real one.
"""

from __future__ import annotations

from typing import Final

START: Final = """#!/bin/sh
# Starts JupyterLab as `jupyter lab` does, but quicker, where its program is a Python script.
set -f
program=$(command -v jupyter-lab) && IFS= read -r first < "$program"
case $first in
'#!'*python*) exec ${first#??} @FOLDER@/start.py "$program" --no-browser ;;
esac
exec jupyter lab --no-browser
"""

START_CODE: Final = '''"""Runs the Python script that is named first, and makes rfc3987_syntax when it is first used."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from runpy import run_path
from threading import RLock
from types import ModuleType

MODULE, FUNCTION = "rfc3987_syntax", "is_valid_syntax"
making = RLock()


class Postponed(ModuleType):
    """The module before it is used; what it does not have makes it."""

    def __getattr__(self, name):
        made(self)
        return getattr(self, name)


class Postponing:
    """Finds the module as Python would, and loads it so that it is made later."""

    def __init__(self, loader):
        self.loader = loader

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name) if name == MODULE else None
        if spec is not None and is_as_known(spec):
            spec.loader = cls(spec.loader)
        return spec

    def create_module(self, spec):
        return Postponed(spec.name)

    def exec_module(self, module):
        def is_valid_syntax(*args, **options):
            return made(module).is_valid_syntax(*args, **options)

        module.is_valid_syntax = is_valid_syntax


def made(module):
    """The real module, in the same place."""
    with making:
        if type(module) is Postponed:
            del module.is_valid_syntax
            module.__class__ = ModuleType
            module.__spec__.loader = module.__loader__ = module.__spec__.loader.loader
            module.__loader__.exec_module(module)
    return module


def is_as_known(spec):
    """Whether the module has the function, and all that it needs for it."""
    try:
        text = Path(spec.origin).with_name("syntax_helpers.py").read_text(encoding="utf-8")
    except (OSError, TypeError, ValueError):
        return False
    return f"def {FUNCTION}(" in text and PathFinder.find_spec("lark") is not None


del sys.argv[0]
sys.path[0] = str(Path(sys.argv[0]).parent)  # as for a script that is run by itself
sys.meta_path.insert(0, Postponing)
run_path(sys.argv[0], run_name="__main__")
'''
