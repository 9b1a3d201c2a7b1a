"""Chalice's own deployer and packager, on a project that infra/project.py has configured, for one version of Python.

Chalice takes the functions' runtime from the Python that runs it. What `make deploy` and `make package` build is for
3.13 on Amazon Linux 2023, whatever runs them.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

from botocore.session import Session
from chalice.awsclient import TypedAWSClient
from chalice.config import Config
from chalice.deploy.deployer import create_default_deployer
from chalice.package import PackageOptions, create_app_packager
from chalice.utils import UI

from infra.artefact import build_zip
from infra.packages import PYTHON

RUNTIME: Final = f"python{PYTHON}"


class _Config(Config):
    """Chalice's configuration with the runtime that we build for."""

    @property
    def lambda_python_version(self) -> str:
        """The runtime."""
        return RUNTIME


def deploy_functions(project: Path, stage: str, environ: MutableMapping[str, str], say: Callable[[str], None]) -> str:
    """Deploy the project's functions and API and return the API's address; `say` is told of the zip.

    `environ` is what app.py reads when it is imported. Raises botocore's errors and ChaliceDeploymentError.
    """
    say(str(build_zip(project, PYTHON)))
    config = _config(project, stage, environ)
    deployer = create_default_deployer(Session(), config, UI())
    with warnings.catch_warnings():  # that another Python runs this, which vendor/ is not for
        warnings.filterwarnings("ignore", "You are currently running python", UserWarning)
        deployed = deployer.deploy(config, chalice_stage_name=stage)
    return next(str(entry["rest_api_url"]) for entry in deployed["resources"] if entry["resource_type"] == "rest_api")


def package_functions(
    project: Path,
    stage: str,
    environ: MutableMapping[str, str],
    say: Callable[[str], None],
    *,
    merge: Path,
    target: Path,
) -> None:
    """Write the functions' zip and their SAM template, with the template `merge` in it, to the folder `target`."""
    say(str(build_zip(project, PYTHON)))
    config = _config(project, stage, environ)
    options = PackageOptions(TypedAWSClient(Session()))
    packager = create_app_packager(config, options, "cloudformation", "json", merge_template=str(merge))
    packager.package_app(config, str(target), stage)


def _config(project: Path, stage: str, environ: MutableMapping[str, str]) -> _Config:
    """The configuration as the `chalice` command makes it, but of our own class, and without that command."""
    given: dict[str, Any] = {"project_dir": str(project)}
    from_disk = json.loads((project / ".chalice" / "config.json").read_text())
    config = _Config(chalice_stage=stage, user_provided_params=given, config_from_disk=from_disk)

    def app() -> Any:
        environ.update(config.environment_variables)
        sys.path.insert(0, str(project))
        return importlib.import_module("app").app

    given["chalice_app"] = app
    return config
