"""Chalice's own deployer and packager, on a project that infra/project.py has configured, for one version of Python.

Chalice takes the functions' runtime from the Python that runs it. What `make deploy` and `make package` build is for
3.13 on Amazon Linux 2023, whatever runs them.
"""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from chalice.cli.factory import CLIFactory
from chalice.config import Config
from chalice.utils import UI

from infra.packages import PYTHON

RUNTIME: Final = f"python{PYTHON}"


class _Config(Config):
    """Chalice's configuration with the runtime that we build for."""

    @property
    def lambda_python_version(self) -> str:
        """The runtime."""
        return RUNTIME


def deploy_functions(project: Path, stage: str, environ: MutableMapping[str, str]) -> str:
    """Deploy the project's functions and API and return the API's address.

    `environ` is what app.py reads when Chalice imports it. Raises botocore's errors and ChaliceDeploymentError.
    """
    factory = CLIFactory(str(project), environ=environ)
    config = _config(factory, project, stage)
    deployer = factory.create_default_deployer(factory.create_botocore_session(), config, UI())
    with warnings.catch_warnings():  # that another Python runs this, which vendor/ is not for
        warnings.filterwarnings("ignore", "You are currently running python", UserWarning)
        deployed = deployer.deploy(config, chalice_stage_name=stage)
    return next(str(entry["rest_api_url"]) for entry in deployed["resources"] if entry["resource_type"] == "rest_api")


def package_functions(
    project: Path, stage: str, environ: MutableMapping[str, str], *, merge: Path, target: Path
) -> None:
    """Write the functions' zip and their SAM template, with the template `merge` in it, to the folder `target`."""
    factory = CLIFactory(str(project), environ=environ)
    config = _config(factory, project, stage)
    options = factory.create_package_options()
    packager = factory.create_app_packager(config, options, "cloudformation", "json", merge_template=str(merge))
    packager.package_app(config, str(target), stage)


def _config(factory: CLIFactory, project: Path, stage: str) -> _Config:
    """What CLIFactory.create_config_obj gives, but of our own class."""
    given: dict[str, Any] = {}
    config = _Config(
        chalice_stage=stage,
        user_provided_params=given,
        config_from_disk=factory.load_project_config(),
        default_params={"project_dir": str(project)},
    )
    given["chalice_app"] = partial(factory.load_chalice_app, config.environment_variables)
    return config
