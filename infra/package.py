"""Package a stage for CloudFormation alone: `python -m infra.package --stage prod --out OUT`, or `make package`.

It writes the functions' zip and a SAM template to OUT, by Chalice's own packager, and asks AWS only for the outputs of
the stage's stack (`make resources`). Chalice's template leaves names to CloudFormation; the template that is merged
into it here sets those that log groups, alarms and policies are made for, and what infra/api.py sets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import BadConfiguration, HomeportError
from infra.api import ACCESS_LOG, extensions
from infra.functions import package_functions
from infra.network import find_place
from infra.packages import fetch_packages
from infra.preflight import where
from infra.project import API_HANDLER, APP, POLICIES, function_name, role_name, stage_project
from infra.quota import Quota, fit, read_quota, reserved_for_leaving
from infra.request import Request, functions_environment, read_request
from infra.stack import stack_outputs
from infra.tracing import mode

# What checkov finds in the template once it is expanded, and why it is so:
# CKV_AWS_115  No limit for a function: event sources limit the lanes; reserving would take functions from the pages.
# CKV_AWS_116  No dead-letter queue of a function: the lanes' queues have one, and the schedule's next run makes up.
# CKV_AWS_117  Not in a VPC unless addresses are to be fixed: the functions need the Internet, where endpoints are.
# CKV_AWS_120  The API caches nothing: its answers are for one visitor.
# CKV_AWS_173  Variables are encrypted with Lambda's own key: none of them is a secret.
# CKV_AWS_73   The API's stage is not traced: its segments have visitors' addresses and whole URLs (docs/adr/0028).
ROOT: Final = Path(__file__).resolve().parent.parent
ORIGIN: Final = "HOMEPORT_HUB_ORIGIN"


def merge_template(request: Request, outputs: Mapping[str, str]) -> dict[str, Any]:
    """What Chalice's template does not say: names, the hub's origin as a parameter, the API's limits and answers."""
    stage = request.stage
    resources: dict[str, Any] = {}
    for function in POLICIES:
        name, role = _logical(function)
        properties = {"FunctionName": function_name(stage, function), "Tracing": mode(request.options)}
        resources[role] = {"Properties": {"RoleName": role_name(stage, function)}}
        resources[name] = {"Properties": {**properties, "Environment": {"Variables": {ORIGIN: {"Ref": "HubOrigin"}}}}}
    rule = {"Properties": {"Name": f"{APP}-{stage}-redrive-event"}}
    resources["Redrive"]["Properties"]["Events"] = {"RedriveEvent": rule}
    resources["RestAPI"] = {
        "Properties": {
            "Name": f"{APP}-{stage}",
            "DefinitionBody": extensions(request.hub_domain),
            "DisableExecuteApiEndpoint": {"Fn::If": ["DomainLeadsHere", True, False]},
            "AccessLogSetting": {"DestinationArn": outputs["AccessLogsArn"], "Format": ACCESS_LOG},
            "MethodSettings": [
                {
                    "HttpMethod": "*",
                    "ResourcePath": "/*",
                    "ThrottlingRateLimit": request.request_rate,
                    "ThrottlingBurstLimit": 2 * request.request_rate,
                }
            ],
        }
    }
    parameters = {
        "HubOrigin": {
            "Type": "String",
            "Default": request.options.get(ORIGIN, ""),
            "AllowedPattern": "(https://[^/]+)?",
            "Description": "The hub's origin as browsers show it; without a domain, EndpointURL's, once it is known.",
        },
        "DomainLeadsToApi": {
            "Type": "String",
            "Default": "no",
            "AllowedValues": ["yes", "no"],
            "Description": "yes closes the API's own address, once a domain (infra/domain.yaml) leads to it.",
        },
    }
    conditions = {"DomainLeadsHere": {"Fn::Equals": [{"Ref": "DomainLeadsToApi"}, "yes"]}}
    return {"Parameters": parameters, "Conditions": conditions, "Resources": resources}


def _logical(function: str) -> tuple[str, str]:
    """What Chalice's template calls a function and its role."""
    return (
        ("APIHandler", "ApiHandlerRole")
        if function == API_HANDLER
        else (function.capitalize(), f"{function.capitalize()}Role")
    )


def package(request: Request, session: boto3.Session, environ: MutableMapping[str, str], out: Path) -> None:
    """Write the zip and the template to the folder `out`; raises HomeportError and botocore's errors."""
    where(session)
    outputs = stack_outputs(session.client("cloudformation"), f"{APP}-{request.stage}")
    if outputs is None:
        raise BadConfiguration(
            f"There is no stack {APP}-{request.stage}. Run `make resources STAGE={request.stage}` first: the functions "
            "are told what it makes"
        )
    quota = read_quota(session.client("lambda"), request.stage)
    known = quota if isinstance(quota, Quota) else None
    options = fit(request.options, known)
    place = find_place(session, request.stage, request.network)
    told = functions_environment(options, outputs, "", place.addresses)
    with tempfile.TemporaryDirectory(prefix="homeport-package-") as folder:
        project, merge = Path(folder) / "project", Path(folder) / "merge.json"
        fetch_packages(ROOT, project)
        merge.write_text(json.dumps(merge_template(request, outputs)))
        stage_project(
            ROOT,
            project,
            outputs=outputs,
            environment={**told, ORIGIN: options.get(ORIGIN, "")},
            reserved=reserved_for_leaving(options, known),
            place=place,
        )
        package_functions(project, request.stage, environ, print, merge=merge, target=out)


def main(arguments: list[str], environ: MutableMapping[str, str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description="Package a stage for CloudFormation.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write to")
    given = parser.parse_args(arguments)
    try:
        request = read_request(given.stage, environ)
        package(request, boto3.Session(), environ, given.out)
    except HomeportError as error:
        print(f"Not packaged. {error.message}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"Not packaged. AWS said: {error}", file=sys.stderr)
        return 1
    name, out = f"{APP}-{request.stage}-functions", given.out
    print(
        f"Written to {out}: deployment.zip and sam.json. With a bucket of yours for the code and the template:\n"
        f"    aws cloudformation package --template-file {out}/sam.json --output-template-file {out}/packaged.yaml "
        f"--s3-bucket <bucket>\n"
        f"    aws cloudformation deploy --template-file {out}/packaged.yaml --stack-name {name} "
        "--s3-bucket <bucket> --capabilities CAPABILITY_NAMED_IAM CAPABILITY_AUTO_EXPAND"
    )
    if not request.options.get(ORIGIN):
        print(
            "The hub has no domain of its own: deploy once more with `--parameter-overrides HubOrigin=https://…`, the "
            "origin of the stack's output EndpointURL. Until then it refuses uploads"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
