"""Deploy a stage of the hub: `python -m infra.deploy --stage dev`, or `make deploy STAGE=dev`.

1. The packages that Lambda ships are fetched, each checked against its hash (infra/packages.py).
2. The stack of infra/resources.yaml is created or updated.
3. The hub's own certificates are made, if they are not there (infra/certificates.py).
4. Chalice's own deployer runs on a copy of the project that is filled with the stack's outputs (infra/project.py).

Every step may be repeated; a run that failed is repeated by running it again. Options come from HOMEPORT_ variables
(docs/operations.md), AWS credentials and region from where boto3 looks for them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from chalice.cli.factory import CLIFactory
from chalice.deploy.deployer import ChaliceDeploymentError
from chalice.utils import UI

import local.settings
import proxy.settings
from chalicelib.config import Config
from chalicelib.environment import TEXT, Variable, variables
from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.session.lanes import Lane
from infra.artefact import build_zip
from infra.certificates import ensure_certificates
from infra.packages import THIS, fetch_packages
from infra.project import APP, deployed_resources, record_deployed, reserve, set_environment, stage_project
from infra.stack import deploy_stack

ROOT: Final = Path(__file__).resolve().parent.parent

LEAST_UNRESERVED: Final = 100  # AWS's own rule

ALARM_EMAIL: Final = Variable(
    "HOMEPORT_ALARM_EMAIL",
    TEXT,
    "read by `make deploy` alone: who is told of alarms. Confirm the message that SNS sends",
    note="as before",
)
# What the deployment knows itself: the function's variable → the stack's output.
FROM_OUTPUTS: Final[Mapping[str, str]] = {known.name: known.output for known in variables(Config) if known.output}
# What the operator may choose; handed to the functions as it is, after Config has read it.
OPTIONS: Final = frozenset(known.name for known in variables(Config)) - FROM_OUTPUTS.keys()
# What an option is when it is not chosen, where that is not Config's own default.
DEFAULTS: Final[Mapping[str, str]] = {
    "HOMEPORT_NOTEBOOK_URL": "none, required",
    "HOMEPORT_HUB_ORIGIN": "API Gateway's",
    "HOMEPORT_HUB_NAME": f"`{APP}-<stage>`",
}
# What `make run` and the proxy understand and the functions have no use for.
NOT_OURS: Final = (
    frozenset(known.name for known in variables(local.settings.Settings) + variables(proxy.settings.Settings))
    - OPTIONS
    - FROM_OUTPUTS.keys()
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be deployed: the stage, the functions' options, and who is told of alarms (None: as before)."""

    stage: str
    options: Mapping[str, str]
    alarm_email: str | None


def read_request(stage: str, environ: Mapping[str, str]) -> Request:
    """Read the operator's wishes; raises BadConfiguration, before anything is touched."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,15}", stage):
        raise BadConfiguration("The stage must be 1 to 16 of a-z, 0-9 and -, beginning with a letter")
    ours = [name for name in environ if name.startswith("HOMEPORT_") and name not in NOT_OURS]
    given = {name: environ[name] for name in ours}
    alarm_email = given.pop(ALARM_EMAIL.name, None)
    if known := sorted(given.keys() & FROM_OUTPUTS.keys()):
        raise BadConfiguration(f"{', '.join(known)}: the deployment sets this itself; unset it")
    if unknown := sorted(given.keys() - OPTIONS):
        raise BadConfiguration(f"{', '.join(unknown)}: no such option. There are: {', '.join(sorted(OPTIONS))}")
    options = {"HOMEPORT_HUB_NAME": f"{APP}-{stage}", **given}
    Config.from_environ(options)  # raises BadConfiguration
    _require_https("HOMEPORT_NOTEBOOK_URL", options.get("HOMEPORT_NOTEBOOK_URL", ""), "https://*.notebooks.example.org")
    if options.get("HOMEPORT_HUB_ORIGIN"):
        _require_https("HOMEPORT_HUB_ORIGIN", options["HOMEPORT_HUB_ORIGIN"], "https://hub.example.com")
    return Request(stage, options, alarm_email)


def _require_https(name: str, value: str, example: str) -> None:
    if not value.startswith("https://"):
        raise BadConfiguration(f"{name} is needed and must be an https origin, such as {example}")


def deploy(request: Request, session: boto3.Session, environ: MutableMapping[str, str], *, now: float) -> str:
    """Deploy and return the hub's URL. `environ` is what app.py reads when Chalice imports it; `now` epoch seconds.

    Raises HomeportError, botocore's errors and ChaliceDeploymentError.
    """
    _say(f"Deploying {APP}-{request.stage}: {_where(session)}")
    with tempfile.TemporaryDirectory(prefix="homeport-deploy-") as folder:
        project = Path(folder) / "project"
        fetch_packages(ROOT, project)
        _say("The functions' packages: all as requirements.txt locks them")
        outputs = _deploy_resources(request, session, now=now)
        return _deploy_functions(request, session, environ, outputs, project)


def _deploy_resources(request: Request, session: boto3.Session, *, now: float) -> Mapping[str, str]:
    """Bring stack and certificates up to date; return the stack's outputs."""
    parameters = {"Stage": request.stage}
    if request.alarm_email is not None:
        parameters["AlarmEmail"] = request.alarm_email
    outputs = deploy_stack(
        session.client("cloudformation"),
        name=f"{APP}-{request.stage}",
        template=(ROOT / "infra" / "resources.yaml").read_text(),
        parameters=parameters,
    )
    _say(f"Stack {APP}-{request.stage} is up to date")
    made = ensure_certificates(session.client("ssm"), prefix=outputs["Certificates"], key_id=outputs["Key"], now=now)
    _say(f"The hub's certificates: {'made ' + ', '.join(made) if made else 'all there'}")
    return outputs


def _deploy_functions(
    request: Request,
    session: boto3.Session,
    environ: MutableMapping[str, str],
    outputs: Mapping[str, str],
    project: Path,
) -> str:
    """Stage the project beside its packages and have Chalice deploy it; return the hub's URL."""
    environment = {**request.options, **{name: outputs[output] for name, output in FROM_OUTPUTS.items()}}
    lambda_ = session.client("lambda")
    existing = deployed_resources(
        lambda_,
        session.client("apigateway"),
        stage=request.stage,
        queue_arns={lane: outputs[f"{lane.capitalize()}QueueArn"] for lane in Lane},
    )
    reserved = _reserved(lambda_, request.stage, Config.from_environ(request.options).functions_of(Lane.LEAVE))
    apis = [entry["rest_api_id"] for entry in existing if entry["resource_type"] == "rest_api"]
    # Without a domain of its own the hub's origin is API Gateway's.
    origin = environment.get("HOMEPORT_HUB_ORIGIN") or "".join(f"https://{api}.{outputs['ApiSuffix']}" for api in apis)
    stage_project(ROOT, project, outputs=outputs, environment=environment | {"HOMEPORT_HUB_ORIGIN": origin})
    if reserved:
        reserve(project, Lane.LEAVE, reserved)
    record_deployed(project, request.stage, existing)
    _say(str(build_zip(project, THIS)))
    url = _run_chalice(project, request.stage, environ)
    if not origin:  # it is known only now that the API is there
        set_environment(project, environment | {"HOMEPORT_HUB_ORIGIN": _origin(url)})
        url = _run_chalice(project, request.stage, environ)
    _keep_record(project, request.stage)
    return url


def _reserved(lambda_: Any, stage: str, wanted: int) -> int:
    """How many of the account's concurrent functions to reserve for the lane that leaves; 0 if there are too few.

    AWS wants at least 100 left unreserved, and a new account has 10 in all. The lane has a queue of its own without.
    """
    try:
        limits = lambda_.get_account_settings()["AccountLimit"]
        free = int(limits["UnreservedConcurrentExecutions"]) + _reserved_already(lambda_, f"{APP}-{stage}-{Lane.LEAVE}")
    except ClientError as error:
        _say(f"No functions are reserved for deleting credentials: the account's quota cannot be read ({error})")
        return 0
    if free >= wanted + LEAST_UNRESERVED:
        return wanted
    _say(
        f"No functions are reserved for deleting credentials: this account has {free} that are not reserved for other "
        f"functions, and {wanted + LEAST_UNRESERVED} are needed for that. Credentials are deleted all the same, but "
        "under full load perhaps late. Ask AWS for a higher quota of concurrent executions, then deploy again"
    )
    return 0


def _reserved_already(lambda_: Any, function: str) -> int:
    """How many a run before this one reserved for the function, which may not exist yet."""
    try:
        return int(lambda_.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions", 0))
    except lambda_.exceptions.ResourceNotFoundException:
        return 0


def _run_chalice(project: Path, stage: str, environ: MutableMapping[str, str]) -> str:
    """Run Chalice's deployer on the staged project and return the API's URL."""
    factory = CLIFactory(str(project), environ=environ)
    config = factory.create_config_obj(chalice_stage_name=stage)
    deployer = factory.create_default_deployer(factory.create_botocore_session(), config, UI())
    deployed = deployer.deploy(config, chalice_stage_name=stage)
    return next(str(entry["rest_api_url"]) for entry in deployed["resources"] if entry["resource_type"] == "rest_api")


def _keep_record(project: Path, stage: str) -> None:
    """Keep what Chalice recorded, for its other commands: `chalice logs`, `chalice delete`, `chalice url`."""
    record = Path(".chalice") / "deployed" / f"{stage}.json"
    (ROOT / record).parent.mkdir(exist_ok=True)
    shutil.copyfile(project / record, ROOT / record)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _where(session: boto3.Session) -> str:
    """The account and region, which also proves that there are credentials; raises BadConfiguration."""
    if session.region_name is None:
        raise BadConfiguration("No AWS region. Set AWS_DEFAULT_REGION, or a region in the profile named by AWS_PROFILE")
    if session.get_credentials() is None:
        raise BadConfiguration("No AWS credentials. Run `aws configure`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID")
    return f"account {session.client('sts').get_caller_identity()['Account']}, region {session.region_name}"


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str], environ: MutableMapping[str, str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description="Deploy a stage of the hub to AWS.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    try:
        request = read_request(parser.parse_args(arguments).stage, environ)
        url = deploy(request, boto3.Session(), environ, now=time.time())
    except HomeportError as error:
        print(f"Not deployed. {error.message}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError, ChaliceDeploymentError) as error:
        print(f"Not deployed. AWS said: {error}\nRun the same command again once that is fixed.", file=sys.stderr)
        return 1
    if origin := request.options.get("HOMEPORT_HUB_ORIGIN"):
        _say(f"The hub: {origin}/, once its domain points to {url}")
    else:
        _say(f"The hub: {url}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
