"""The project as Chalice deploys it: a copy, its policies filled with the stack's outputs, its environment set.

    .chalice/policy-*.json    one IAM policy per function, with ${Output} where the stack's outputs go
    .chalice/config.json      gets the functions' environment variables
    .chalice/deployed/        gets what is deployed already, as AWS tells it
    requirements.txt          is empty: the packages are in vendor/ (infra/packages.py)

Chalice remembers what it deployed in a local file, writes it only after a complete run, and makes everything it does
not find there a second time: another event source mapping, another API. So the file is written here, before each run,
from what AWS says exists: a run may fail anywhere and be repeated, from any machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any, Final

from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane

APP: Final = "homeport"  # app_name of .chalice/config.json: part of every function's name
SHIPPED: Final = ("app.py", "chalicelib", ".chalice/config.json")


def stage_project(source: Path, target: Path, *, outputs: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Copy what is deployed from `source` to the new project `target`, policies and environment filled in.

    Raises BadConfiguration when a policy names an output that the stack does not have.
    """
    (target / ".chalice").mkdir(parents=True)
    for name in SHIPPED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(source / name, target / name)
    (target / "requirements.txt").touch()
    for policy in sorted((source / ".chalice").glob("policy-*.json")):
        (target / ".chalice" / policy.name).write_text(render_policy(policy.read_text(), outputs))
    set_environment(target, environment)


def render_policy(text: str, outputs: Mapping[str, str]) -> str:
    """Fill a policy's ${Output}; raises BadConfiguration for one the stack does not have."""
    try:
        return Template(text).substitute(outputs)
    except KeyError as error:
        raise BadConfiguration(
            f"A policy names the output {error}, which infra/resources.yaml does not have"
        ) from error


def set_environment(project: Path, environment: Mapping[str, str]) -> None:
    """Set the environment variables of all functions in a staged project's configuration."""
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    config["environment_variables"] = dict(environment)
    path.write_text(json.dumps(config, indent=2))


def record_deployed(project: Path, stage: str, resources: list[dict[str, str]]) -> None:
    """Write what is deployed already where Chalice looks for it."""
    path = project / ".chalice" / "deployed" / f"{stage}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"resources": resources, "schema_version": "2.0", "backend": "api"}))


def reserve(project: Path, function: str, concurrency: int) -> None:
    """Reserve concurrent functions of the account for a function, in a staged project's configuration."""
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    config["lambda_functions"][function]["reserved_concurrency"] = concurrency
    path.write_text(json.dumps(config, indent=2))


def deployed_resources(
    lambda_: Any, apigateway: Any, *, stage: str, queue_arns: Mapping[Lane, str]
) -> list[dict[str, str]]:
    """Ask AWS which of the things exist that Chalice would otherwise make twice, in its own notation.

    The clients are boto3's for Lambda and API Gateway.
    """
    sources = [_event_source(lambda_, f"{APP}-{stage}-{lane}", lane, arn) for lane, arn in queue_arns.items()]
    return [*chain.from_iterable(sources), *_rest_api(apigateway, stage)]


def _event_source(lambda_: Any, name: str, lane: Lane, queue_arn: str) -> list[dict[str, str]]:
    """The mapping of a lane's queue; any other on it is a left-over, would take its messages, and is deleted."""
    function = f":function:{name}"
    pages = lambda_.get_paginator("list_event_source_mappings").paginate(EventSourceArn=queue_arn)
    mappings = [mapping for page in pages for mapping in page["EventSourceMappings"] if mapping["State"] != "Deleting"]
    ours = [mapping for mapping in mappings if mapping["FunctionArn"].endswith(function)][:1]
    for mapping in mappings:
        if mapping not in ours:
            lambda_.delete_event_source_mapping(UUID=mapping["UUID"])
    return [
        {
            "name": f"{lane}-sqs-event-source",
            "resource_type": "sqs_event",
            "queue": queue_arn.rpartition(":")[2],
            "queue_arn": queue_arn,
            "event_uuid": mapping["UUID"],
            "lambda_arn": mapping["FunctionArn"],
        }
        for mapping in ours
    ]


def _rest_api(apigateway: Any, stage: str) -> list[dict[str, str]]:
    """The API whose methods call the stage's web function; the API's name is the same for every stage."""
    for page in apigateway.get_paginator("get_rest_apis").paginate():
        for api in page["items"]:
            if api["name"] == APP and _calls(apigateway, api["id"], f":function:{APP}-{stage}/"):
                return [{"name": "rest_api", "resource_type": "rest_api", "rest_api_id": api["id"]}]
    return []


def _calls(apigateway: Any, api: str, function: str) -> bool:
    pages = apigateway.get_paginator("get_resources").paginate(restApiId=api, embed=["methods"])
    return any(
        function in method.get("methodIntegration", {}).get("uri", "")
        for page in pages
        for resource in page["items"]
        for method in resource.get("resourceMethods", {}).values()
    )
