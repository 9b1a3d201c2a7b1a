"""Look at a stage of the hub and say what is wrong and how to mend it: `make doctor STAGE=prod`.

    outside   what visitors see: DNS, certificates, the hub's answer and clock, the proxy's (infra/outside.py)
    inside    what AWS says of each part (infra/inside.py), if there are credentials; `WHERE=inside` for that alone

It reads the same HOMEPORT_ variables as the deployment and changes nothing. One thing that cannot be looked at, such as
for want of a permission, hides no other.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.config import TRACING, VERSION, Config
from chalicelib.errors import HomeportError
from chalicelib.session.lanes import Lane
from infra import inside, outside
from infra.api import API_STAGE, find_api
from infra.domains import look_at_domains
from infra.findings import Finding
from infra.network import network_name, wanted_place
from infra.outside import Site
from infra.preflight import where
from infra.project import APP, LANES, NOWHERE, POLICIES, Place, function_policy
from infra.quota import Quota, fit, read_quota
from infra.request import Request, functions_environment, read_request
from infra.stack import stack_outputs

ROOT: Final = Path(__file__).resolve().parent.parent
PLACES: Final = ("outside", "inside")


def looked(what: str, look: Callable[[], Finding | Iterable[Finding]]) -> Iterator[Finding]:
    """What a look finds, as far as it goes; then, if AWS refuses or does not answer, that it was cut off."""
    try:
        found = look()
        yield from [found] if isinstance(found, Finding) else found
    except ClientError as error:
        code = error.response["Error"]["Code"]
        mend = "If that is a permission: infra/operator-policy.json has what is needed, docs/deploy.md says how."
        yield Finding(None, f"{what}: AWS does not say ({code})", mend)
    except (BotoCoreError, HomeportError) as error:
        said = error.message if isinstance(error, HomeportError) else str(error)
        yield Finding(None, f"{what}: not looked at ({said})", "Look again once that is mended.")


def look_outside(request: Request, session: boto3.Session, site: Callable[[str], Site] = Site) -> Iterator[Finding]:
    """Look at what visitors see. AWS is asked only where names lead to, if there are credentials."""
    targets: dict[str, str] = {}
    if _has_credentials(session):
        for suffix in ("domain", "proxy"):
            try:
                targets[suffix] = _outputs(session, f"{APP}-{request.stage}-{suffix}").get("DnsName", "")
            except (ClientError, BotoCoreError):
                continue
    yield from _hub(request, session, targets.get("domain", ""), site)
    notebook = site(outside.a_notebook(request.notebook_domain))
    mend = f'It is a wildcard\'s, *.{request.notebook_domain}: docs/deploy.md, "The proxy".'
    to = targets.get("proxy", "")
    yield outside.addresses(notebook.name, to, outside.resolve, fixed=True, mend=mend)
    if outside.resolve(notebook.name):
        yield outside.certificate(notebook, now=time.time())
        yield outside.proxy(notebook)


def _hub(request: Request, session: boto3.Session, target: str, site: Callable[[str], Site]) -> Iterator[Finding]:
    name, path = request.hub_domain, "/health"
    if not name:
        name, path = _execute_api(request, session), f"/{API_STAGE}/health"
    if not name:
        what = "the hub's address is API Gateway's, which only AWS can say: not looked at"
        yield Finding(None, what, "Set HOMEPORT_HUB_ORIGIN if the hub has a domain; else look with AWS credentials.")
        return
    hub = site(name)
    mend = 'docs/deploy.md, "The hub\'s domain".'
    yield outside.addresses(name, target, outside.resolve, fixed=False, mend=mend)
    if outside.resolve(name):
        yield outside.certificate(hub, now=time.time())
        found = list(outside.hub(hub, path, VERSION, time.time))
        yield from found
        if found[0].good is not False:
            yield outside.own_answers(hub, path)


def _execute_api(request: Request, session: boto3.Session) -> str:
    """The host of the stage's API; "" if AWS does not say or there is none."""
    if not _has_credentials(session):
        return ""
    try:
        api = find_api(session.client("apigateway"), request.stage)
        suffix = _outputs(session, f"{APP}-{request.stage}").get("ApiSuffix", "")
    except (ClientError, BotoCoreError, HomeportError):
        return ""
    return f"{api}.{suffix}" if api and suffix else ""


def _outputs(session: boto3.Session, name: str) -> Mapping[str, str]:
    return stack_outputs(session.client("cloudformation"), name) or {}


def _has_credentials(session: boto3.Session) -> bool:
    try:
        return session.region_name is not None and session.get_credentials() is not None
    except BotoCoreError:  # such as of a profile whose sign-in has expired
        return False


def look_inside(request: Request, session: boto3.Session, *, now: float) -> Iterator[Finding]:
    """Look at each part of the stage as AWS tells it; `now` in epoch seconds."""
    if not _has_credentials(session):
        what = (
            "not looked at, for want of AWS credentials or a region: stack, bucket, key, table, certificates, quota, "
            "functions, lanes, schedule, alarms, the proxy's service"
        )
        yield Finding(None, what, "Set AWS_PROFILE, or what `aws configure` asks for.")
        return
    yield from looked("account and region", lambda: where(session))
    stage, cloudformation = request.stage, session.client("cloudformation")
    name, make = f"{APP}-{stage}", f"make deploy STAGE={stage}"
    try:
        outputs = stack_outputs(cloudformation, name)
    except (ClientError, BotoCoreError) as error:
        mend = "infra/operator-policy.json has what is needed."
        yield Finding(None, f"nothing of {name} was looked at: AWS does not describe its stack: {error}", mend)
        return
    yield from looked(f"the stack {name}", lambda: inside.stack(cloudformation, name, make))
    if outputs and "Stage" in outputs:
        yield from looked("the stack's protection", lambda: inside.stack_protection(cloudformation, name))
        yield from _stores(session, outputs, now)
        yield from _works(request, session, outputs)


def _stores(session: boto3.Session, outputs: Mapping[str, str], now: float) -> Iterator[Finding]:
    stage, table, key = outputs["Stage"], outputs["Table"], outputs["Key"]
    s3, kms, dynamodb = session.client("s3"), session.client("kms"), session.client("dynamodb")
    bucket = outputs["Bucket"]
    yield from looked("the bucket's public access", lambda: inside.bucket_closed(s3, bucket))
    yield from looked("the bucket's encryption", lambda: inside.bucket_encryption(s3, bucket, key))
    yield from looked("the bucket's lifecycle", lambda: inside.bucket_lifecycle(s3, bucket))
    yield from looked("the bucket's policy", lambda: inside.bucket_policy(s3, bucket))
    yield from looked("the bucket's versions", lambda: inside.bucket_versions(s3, bucket))
    yield from looked("the key", lambda: inside.key_state(kms, key))
    yield from looked("the key's rotation", lambda: inside.key_rotation(kms, key))
    yield from looked("the key's policy", lambda: inside.key_policy(kms, key))
    yield from looked("the table", lambda: inside.table(dynamodb, table))
    yield from looked("the table's backup", lambda: inside.table_backup(dynamodb, table))
    yield from looked("whether visitors may launch", lambda: inside.door(dynamodb, table, stage))
    prefix = outputs["Certificates"]
    yield from looked("certificates", lambda: inside.certificates(session.client("ssm"), prefix, now=now))


def _works(request: Request, session: boto3.Session, outputs: Mapping[str, str]) -> Iterator[Finding]:
    """What works: functions, lanes, schedule, proxies; and the alarms that say when they do not."""
    stage, lambda_, sqs = request.stage, session.client("lambda"), session.client("sqs")
    settings = json.loads((ROOT / ".chalice" / "config.json").read_text())["lambda_functions"]
    try:
        quota = read_quota(lambda_, stage)
    except BotoCoreError as error:
        quota = str(error)
    options = fit(request.options, quota if isinstance(quota, Quota) else None)
    config = Config.from_environ(options)
    yield inside.quota(quota, config.functions)
    apigateway, origin = session.client("apigateway"), _origin(request, session)
    yield from looked("the API", lambda: inside.api(apigateway, stage, request.hub_domain))
    place = yield from _place(request, session)
    environment: dict[str, str | None] = {**functions_environment(options, outputs, origin, place.addresses)}
    if not origin:
        environment["HOMEPORT_HUB_ORIGIN"] = None
    yield from looked("the functions", lambda: inside.functions(lambda_, stage, settings, environment, place))
    yield from looked("the roles", lambda: _roles(session, outputs, place, options))
    arns = {lane: outputs[f"{lane.capitalize()}QueueArn"] for lane in Lane}
    timeouts = {lane: int(settings[lane]["lambda_timeout"]) for lane in Lane}
    limits = {lane: config.functions_of(lane) for lane in Lane}
    yield from looked("the lanes", lambda: inside.lanes(sqs, lambda_, stage, arns, timeouts, limits))
    yield from looked("the schedule", lambda: inside.schedule(session.client("events"), stage))
    yield from looked("what failed", lambda: inside.dead_letters(sqs, outputs["DeadLetterQueueUrl"]))
    names = [*_alarms("resources.yaml", stage), *_alarms("proxy.yaml", stage)]
    yield from looked("alarms", lambda: inside.alarms(session.client("cloudwatch"), names))
    yield from looked("the proxy", lambda: _proxies(session, stage))


def _place(request: Request, session: boto3.Session) -> Generator[Finding, None, Place]:
    """Look at the network; returns where in it the lanes' functions should be."""
    name, make = network_name(request.stage), f"make deploy STAGE={request.stage}"
    cloudformation = session.client("cloudformation")
    try:
        place = wanted_place(cloudformation, request.stage, request.network)
    except (ClientError, BotoCoreError, HomeportError) as error:
        said = error.message if isinstance(error, HomeportError) else str(error)
        yield Finding(None, f"the network: not looked at ({said})", "Look again once that is mended.")
        return NOWHERE
    if place.addresses:
        yield from looked(f"the stack {name}", lambda: inside.stack(cloudformation, name, make))
    return place


def _roles(
    session: boto3.Session, outputs: Mapping[str, str], place: Place, options: Mapping[str, str]
) -> Iterator[Finding]:
    """Look at the functions' roles. Those that have left a network keep the role of one that is in it for a while."""
    traced = TRACING.read(options)
    policies = {
        function: [
            function_policy(ROOT, policy, outputs, in_network=networked, traced=traced)
            for networked in ((True,) if place.subnets and function in LANES else (False, function in LANES))
        ]
        for function, policy in POLICIES.items()
    }
    yield from inside.roles(session.client("iam"), outputs["Stage"], policies)


def _origin(request: Request, session: boto3.Session) -> str:
    """The hub's own origin; "" if it is API Gateway's and AWS does not say which that is."""
    host = _execute_api(request, session)
    return request.options.get("HOMEPORT_HUB_ORIGIN") or (f"https://{host}" if host else "")


def _alarms(template: str, stage: str) -> list[str]:
    return inside.alarm_names((ROOT / "infra" / template).read_text(), stage)


def _proxies(session: boto3.Session, stage: str) -> Iterator[Finding]:
    name = f"{APP}-{stage}-proxy"
    cloudformation: Any = session.client("cloudformation")
    if stack_outputs(cloudformation, name) is None:
        what = f"there is no stack {name}"
        yield Finding(None, what, 'Well if the proxy runs elsewhere; else docs/deploy.md, "The proxy".')
        return
    yield inside.stack(cloudformation, name, "make deploy STAGE=" + stage)
    yield inside.proxy_service(session.client("ecs"), stage)


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Print what is found, one by one; the exit status is 1 if something is wrong, 2 if nothing could be looked at."""
    parser = argparse.ArgumentParser(prog="python -m infra.doctor", description="Look at a stage of the hub.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    parser.add_argument("--where", choices=PLACES, help="look from there alone")
    asked = parser.parse_args(arguments)
    try:
        request, session = read_request(asked.stage, environ), boto3.Session()
    except HomeportError as error:
        print(f"Not looked at. {error.message}", file=sys.stderr)
        return 2
    except BotoCoreError as error:  # such as of a profile that is not there
        print(f"Not looked at. {error}", file=sys.stderr)
        return 2
    looks = {
        "outside": lambda: look_outside(request, session),
        "inside": lambda: look_inside(request, session, now=time.time()),
    }
    wrong = 0
    places = [place for place in PLACES if asked.where in (None, place)]
    for finding in chain(look_at_domains(request), *(looks[place]() for place in places)):
        print(finding, flush=True)
        wrong += finding.good is False
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
