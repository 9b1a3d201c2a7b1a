"""Deploy a stage of the hub: `python -m infra.deploy --stage dev`, or `make deploy STAGE=dev`.

1. Preflight: what a deployment needs is looked at (infra/preflight.py), and the packages that Lambda ships are fetched,
   each checked against its hash (infra/packages.py). Nothing is touched before that.
2. Resources: the stack of infra/resources.yaml is created or updated, and the API made (infra/api.py); the network, if
   addresses are to be fixed (infra/network.py). Indexes of the table are made one at a time, and those that the
   functions read no more are removed at the end (infra/indexes.py).
3. Certificates: the hub's own are made, if they are not there (infra/certificates.py).
4. Functions: Chalice's own deployer runs on a copy of the project that is filled with the stack's outputs
   (infra/project.py, infra/functions.py). What was deployed is kept for a rollback (infra/rollback.py). Then the API
   gets what Chalice does not make (infra/api.py), and the functions are traced if that is wanted (infra/tracing.py).
5. Proxy: if HOMEPORT_PROXY says so, its image, network and service (infra/proxy_step.py).
6. Doctor: what was deployed is looked at, as AWS tells it (infra/doctor.py). What visitors see, domains and proxy, is
   `make doctor`'s: after a first deployment their records are still to be made.

`--resources`, or `make resources`, ends after the third step and configures the project for the `chalice` command;
`--api`, or `make api`, does what is left of the fourth, and of the table's indexes, after `chalice deploy`.

Every step may be repeated; a run that failed is repeated by running it again. Options come from HOMEPORT_ variables
(docs/operations.md), AWS credentials and region from where boto3 looks for them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from chalice.deploy.deployer import ChaliceDeploymentError

from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.session.lanes import Lane
from infra.api import ensure_api, ensure_logging, find_api, finish_api
from infra.certificates import ensure_certificates
from infra.doctor import look_inside
from infra.domains import look_at_domains
from infra.findings import AGAIN
from infra.functions import deploy_functions
from infra.images import Docker
from infra.indexes import Table
from infra.network import ensure_network, find_place, give_back, network_name
from infra.packages import fetch_packages
from infra.plain import PYTHONS, difference, record_packages, this_python
from infra.preflight import Preflight, preflight, where
from infra.project import APP, Place, configure_stage, deployed_resources, record_deployed, stage_project
from infra.proxy_step import ProxyOptions, check_proxy, deploy_proxy
from infra.request import Request, functions_environment, read_request
from infra.rollback import built_zip, commit_of, keep
from infra.stack import stack_outputs
from infra.tracing import mode, set_mode

ROOT: Final = Path(__file__).resolve().parent.parent
TEMPLATE: Final = ROOT / "infra" / "resources.yaml"


@dataclass(frozen=True, slots=True)
class Resources:
    """What the functions need, and what exists of them: the stack's outputs, the API's id, Chalice's own record.

    `origin` is the hub's, its own domain or API Gateway's; `place` the network that the lanes' functions are in.
    """

    outputs: Mapping[str, str]
    api: str
    origin: str
    existing: list[dict[str, str]]
    place: Place

    def environment(self, options: Mapping[str, str]) -> dict[str, str]:
        """The functions' environment, from the options as they fit the account."""
        return functions_environment(options, self.outputs, self.origin, self.place.addresses)


def look_first(request: Request, session: boto3.Session, proxy: Callable[[], str] | None = None) -> Preflight:
    """Say what preflight finds; raises BadConfiguration when something is wrong. `proxy` is as for preflight."""
    found = preflight(request, session, proxy)
    _say(f"Before {APP}-{request.stage} is deployed:\n" + "\n".join(f"  {finding}" for finding in found.findings))
    if found.wrong:
        raise BadConfiguration("Nothing was changed in AWS. " + " ".join(f"{one.what}." for one in found.wrong))
    return found


def deploy(
    request: Request, proxy: ProxyOptions, session: boto3.Session, environ: MutableMapping[str, str], *, now: float
) -> str:
    """Deploy and return the hub's URL. `environ` is what app.py reads when Chalice imports it; `now` epoch seconds.

    Raises HomeportError, botocore's errors and ChaliceDeploymentError.
    """
    docker = Docker(dict(environ))
    found = look_first(request, session, partial(check_proxy, request, proxy, docker) if proxy.where else None)
    with tempfile.TemporaryDirectory(prefix="homeport-deploy-") as folder:
        project = Path(folder) / "project"
        fetch_packages(ROOT, project)
        _say("The functions' packages: all as requirements-lambda.txt locks them")
        made = deploy_resources(request, session, now=now)
        environment = made.environment(found.options)
        stage_project(
            ROOT, project, outputs=made.outputs, environment=environment, reserved=found.reserved, place=made.place
        )
        record_deployed(project, request.stage, made.existing)
        url = deploy_functions(project, request.stage, environ, _say)
        _keep_record(project, request.stage)
        kept = keep(
            session.client("s3"),
            made.outputs["Bucket"],
            built_zip(project),
            commit=commit_of(ROOT),
            environment=environment,
            now=now,
        )
        _say(f"Kept for `make rollback`: {kept}")
    complete_api(request, session, outputs=made.outputs, api=made.api)
    _trace(request, session)
    if proxy.where:
        page = f"{made.origin}/" if request.hub_domain else url
        running = deploy_proxy(request, proxy, session, docker, hub_origin=made.origin, hub_url=page, say=_say)
        if not running.has_record:
            _say(f"The proxy: let *.{request.notebook_domain} be a CNAME for {running.dns_name}")
    remove_unused(request, session)
    return url


def table_of(request: Request, session: boto3.Session) -> Table:
    """The stage's table."""
    return Table(session, request.stage, _say, time.sleep)


def complete_api(request: Request, session: boto3.Session, *, outputs: Mapping[str, str], api: str) -> None:
    """Give the API that Chalice has filled what Chalice does not make, and say so; raises botocore's errors."""
    closed = finish_api(
        session.client("apigateway"),
        api,
        log_group=outputs["AccessLogsArn"],
        rate=request.request_rate,
        domain=request.hub_domain,
    )
    _say(f"The API's own answers, limits and log are set{', and its first address is closed' if closed else ''}")


def _trace(request: Request, session: boto3.Session) -> None:
    """Have the functions traced if that is wanted, and say so; raises botocore's errors."""
    if changed := set_mode(session.client("lambda"), request.stage, mode(request.options)):
        _say(f"Tracing {'on' if mode(request.options) == 'Active' else 'off'}: {', '.join(changed)}")


def after_chalice(request: Request, session: boto3.Session) -> None:
    """Do what is left after the `chalice` command has deployed the stage; raises BadConfiguration if it has not."""
    where(session)
    outputs = stack_outputs(session.client("cloudformation"), f"{APP}-{request.stage}")
    api = find_api(session.client("apigateway"), request.stage)
    if outputs is None or api is None:
        raise BadConfiguration(f"There is no {APP}-{request.stage}. Run `make resources STAGE={request.stage}` first")
    complete_api(request, session, outputs=outputs, api=api)
    _trace(request, session)
    remove_unused(request, session)


def prepare(request: Request, session: boto3.Session, *, now: float) -> None:
    """Make the stage's resources and certificates, and configure this project for the `chalice` command.

    Raises HomeportError and botocore's errors.
    """
    found = look_first(request, session)
    python = this_python()
    if python in PYTHONS:  # the `chalice` command is refused by any other
        fetch_packages(ROOT, ROOT, python)
        record_packages(ROOT, python)
    made = deploy_resources(request, session, now=now)
    environment = made.environment(found.options)
    configure_stage(
        ROOT, ROOT, outputs=made.outputs, environment=environment, reserved=found.reserved, place=made.place
    )
    record_deployed(ROOT, request.stage, made.existing)
    remove_unused(request, session)
    if said := difference(python):
        _say(said)


def deploy_resources(request: Request, session: boto3.Session, *, now: float) -> Resources:
    """Bring the stack, the API and the certificates up to date; say so."""
    parameters = {"Stage": request.stage}
    if request.alarm_email is not None:
        parameters["AlarmEmail"] = request.alarm_email
    if request.certificate_reader is not None:
        parameters["CertificateReader"] = request.certificate_reader
    outputs = table_of(request, session).deploy(TEMPLATE.read_text(), parameters)
    _say(f"Stack {APP}-{request.stage} is up to date")
    apigateway = session.client("apigateway")
    ensure_logging(apigateway, outputs["GatewayLogsRole"], time.sleep)
    api = ensure_api(apigateway, request.stage)
    made = ensure_certificates(session.client("ssm"), prefix=outputs["Certificates"], key_id=outputs["Key"], now=now)
    _say(f"The hub's certificates: {'made ' + ', '.join(made) if made else 'all there'}")
    if mode(request.options) != "Active":  # before roles are written that do not allow it any more
        _trace(request, session)
    existing = deployed_resources(
        session.client("lambda"),
        stage=request.stage,
        queue_arns={lane: outputs[f"{lane.capitalize()}QueueArn"] for lane in Lane},
        api=api,
    )
    origin = request.options.get("HOMEPORT_HUB_ORIGIN") or f"https://{api}.{outputs['ApiSuffix']}"
    return Resources(outputs, api, origin, existing, _provide_place(request, session))


def _provide_place(request: Request, session: boto3.Session) -> Place:
    """The network that the lanes' functions are to be in, made if it is to be one of ours; say so."""
    cloudformation = session.client("cloudformation")
    if fixed := request.network.addresses(cloudformation, request.stage):
        ensure_network(cloudformation, request.stage, fixed)
    place = find_place(session, request.stage, request.network)
    if fixed:
        name = network_name(request.stage)
        _say(f"Stack {name} is up to date: the launcher connects from {' and '.join(place.addresses)}")
    return place


def remove_unused(request: Request, session: boto3.Session) -> None:
    """Remove what an earlier deployment needed: indexes that nobody reads, addresses that nobody is behind; say so.

    It may be called at any time: it looks at what there is.
    """
    table_of(request, session).remove_unread(TEMPLATE.read_text())
    cloudformation = session.client("cloudformation")
    fixed = request.network.addresses(cloudformation, request.stage)
    if said := give_back(cloudformation, session.client("lambda"), request.stage, fixed):
        _say(said)


def _keep_record(project: Path, stage: str) -> None:
    """Keep what Chalice recorded, for its other commands: `chalice logs`, `chalice url`."""
    record = Path(".chalice") / "deployed" / f"{stage}.json"
    (ROOT / record).parent.mkdir(exist_ok=True)
    shutil.copyfile(project / record, ROOT / record)


def _look_afterwards(request: Request) -> None:
    """Say what doctor finds. What is deployed is deployed, whatever that is."""
    for finding in chain(look_at_domains(request), look_inside(request, boto3.Session(), now=time.time())):
        _say(str(finding))
    _say(f"`make doctor STAGE={request.stage}` says the same, and what visitors see: domains, certificates, proxy")


def _say(line: str) -> None:
    print(line, flush=True)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description="Deploy a stage of the hub to AWS.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--resources", action="store_true", help="only what the `chalice` command needs")
    only.add_argument("--api", action="store_true", help="only what the API lacks after `chalice deploy`")
    return parser.parse_args(arguments)


def main(arguments: list[str], environ: MutableMapping[str, str]) -> int:
    """Run the command; returns the exit status."""
    wanted = _arguments(arguments)
    try:
        request = read_request(wanted.stage, environ)
        proxy = ProxyOptions.from_environ(environ)
        if wanted.resources:
            prepare(request, boto3.Session(), now=time.time())
            _say(f"Now `chalice deploy --stage {request.stage}` and `chalice package --stage {request.stage}` work")
            return 0
        if wanted.api:
            after_chalice(request, boto3.Session())
            return 0
        url = deploy(request, proxy, boto3.Session(), environ, now=time.time())
    except HomeportError as error:
        print(f"Not deployed. {error.message}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError, ChaliceDeploymentError) as error:
        print(f"Not deployed. AWS said: {error}\n{AGAIN}.", file=sys.stderr)
        return 1
    _look_afterwards(request)
    if origin := request.options.get("HOMEPORT_HUB_ORIGIN"):
        _say(f"The hub: {origin}/, once its domain points to {url}")
    else:
        _say(f"The hub: {url}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
