"""The project as Chalice deploys it: its policies filled with the stack's outputs, its environment set.

    infra/policies/*.json            one IAM policy per function, with ${Output} where the stack's outputs go
    .chalice/<stage>/policy-*.json   the same, filled
    .chalice/config.json             gets the stage's part: policies, environment, reserved functions
    .chalice/deployed/<stage>.json   gets what is deployed already, as AWS tells it
    vendor/                          the packages (infra/packages.py); requirements.txt names none

`make deploy` does this to a copy of the project, `make resources` to the project itself, for the `chalice` command.

Chalice remembers what it deployed in a local file, writes it only after a complete run, and makes everything it does
not find there a second time: another event source mapping, another API. So the file is written here, before each run,
from what AWS says exists: a run may fail anywhere and be repeated, from any machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any, Final

from chalicelib.config import TRACING
from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane

APP: Final = "homeport"  # app_name of .chalice/config.json: part of every function's name
SHIPPED: Final = ("app.py", "chalicelib", ".chalice/config.json")
# Chalice's name for a function → its policy's. Chalice calls it, and its role, homeport-<stage>-<name>; but the
# function of the API is homeport-<stage> alone.
API_HANDLER: Final = "api_handler"
POLICIES: Final[Mapping[str, str]] = {
    API_HANDLER: "web",
    **{lane.value: lane.value for lane in Lane},
    "redrive": "redrive",
}
# What Lambda's daemon needs of a function's role to send X-Ray what is traced; these actions know no resources.
TRACE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "Sid": "Trace",
        "Effect": "Allow",
        "Action": ["xray:PutTraceSegments", "xray:PutTelemetryRecords"],
        "Resource": "*",
    }
)
LANES: Final = tuple(lane.value for lane in Lane)  # Chalice's names of the lanes' functions
NONE_RESERVED: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Place:
    """Where functions are: subnets and security groups by their ids, none for no network.

    `addresses` are those of our own NAT gateways. `interfaces`: Lambda may have network interfaces for the functions,
    as it does until some time after they have left a network.
    """

    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    interfaces: bool = False


NOWHERE: Final = Place()


def function_name(stage: str, function: str) -> str:
    """What a function is called in AWS."""
    return f"{APP}-{stage}" if function == API_HANDLER else f"{APP}-{stage}-{function}"


def role_name(stage: str, function: str) -> str:
    """What a function's role is called."""
    return f"{APP}-{stage}-{function}"


def stage_project(
    source: Path,
    target: Path,
    *,
    outputs: Mapping[str, str],
    environment: Mapping[str, str],
    reserved: Mapping[str, int] = NONE_RESERVED,
    place: Place = NOWHERE,
) -> None:
    """Copy what is deployed from `source` to the project `target`, and configure the outputs' stage there.

    Raises BadConfiguration when a policy names an output that the stack does not have.
    """
    (target / ".chalice").mkdir(parents=True)
    for name in SHIPPED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(source / name, target / name)
    configure_stage(source, target, outputs=outputs, environment=environment, reserved=reserved, place=place)


def configure_stage(
    source: Path,
    target: Path,
    *,
    outputs: Mapping[str, str],
    environment: Mapping[str, str],
    reserved: Mapping[str, int] = NONE_RESERVED,
    place: Place = NOWHERE,
) -> None:
    """Write the stage's filled policies and its part of `.chalice/config.json` in the project `target`.

    `environment` is that of all functions; `reserved` says how many of the account's functions are kept for one;
    `place` is the network that those of the lanes are in.
    Chalice looks for a function's settings in the stage's `lambda_functions`, then in the common ones. Raises
    BadConfiguration as stage_project does.
    """
    stage = outputs["Stage"]
    folder = target / ".chalice" / stage
    folder.mkdir(exist_ok=True)
    functions: dict[str, dict[str, Any]] = {}
    for function, policy in POLICIES.items():
        is_lane = function in LANES
        settings = _network_settings(place) if is_lane else {}
        in_network, traced = is_lane and place.interfaces, TRACING.read(environment)
        filled = function_policy(source, policy, outputs, in_network=in_network, traced=traced)
        (folder / f"policy-{policy}.json").write_text(json.dumps(filled, indent=2))
        functions[function] = {"iam_policy_file": f"{stage}/policy-{policy}.json", **settings}
        if function in reserved:
            functions[function]["reserved_concurrency"] = reserved[function]
    path = target / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    config.setdefault("stages", {})[stage] = {
        "environment_variables": dict(sorted(environment.items())),
        "lambda_functions": functions,
    }
    path.write_text(json.dumps(config, indent=2) + "\n")


def _network_settings(place: Place) -> dict[str, list[str]]:
    """What Chalice is told of a function's network."""
    if not place.subnets:
        return {}
    return {"subnet_ids": list(place.subnets), "security_group_ids": list(place.security_groups)}


def function_policy(
    source: Path, name: str, outputs: Mapping[str, str], *, in_network: bool, traced: bool
) -> dict[str, Any]:
    """One of infra/policies, filled, with what a function may besides that is in a network, or that is traced.

    Raises BadConfiguration as render_policy does.
    """
    folder = source / "infra" / "policies"
    policy: dict[str, Any] = json.loads(render_policy((folder / f"{name}.json").read_text(), outputs))
    if in_network:
        policy["Statement"] += json.loads(render_policy((folder / "network.json").read_text(), outputs))["Statement"]
    if traced:
        policy["Statement"].append(dict(TRACE))
    return policy


def forget_stage(project: Path, stage: str) -> None:
    """Remove what configure_stage and record_deployed wrote."""
    path = project / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    if config.get("stages", {}).pop(stage, None) is not None:
        if not config["stages"]:
            del config["stages"]
        path.write_text(json.dumps(config, indent=2) + "\n")
    shutil.rmtree(project / ".chalice" / stage, ignore_errors=True)
    (project / ".chalice" / "deployed" / f"{stage}.json").unlink(missing_ok=True)


def render_policy(text: str, outputs: Mapping[str, str]) -> str:
    """Fill a policy's ${Output}; raises BadConfiguration for one the stack does not have."""
    try:
        return Template(text).substitute(outputs)
    except KeyError as error:
        raise BadConfiguration(
            f"A policy names the output {error}, which infra/resources.yaml does not have"
        ) from error


def record_deployed(project: Path, stage: str, resources: list[dict[str, str]]) -> None:
    """Write what is deployed already where Chalice looks for it."""
    path = project / ".chalice" / "deployed" / f"{stage}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"resources": resources, "schema_version": "2.0", "backend": "api"}))


def deployed_resources(lambda_: Any, *, stage: str, queue_arns: Mapping[Lane, str], api: str) -> list[dict[str, str]]:
    """Ask AWS which of the things exist that Chalice would otherwise make twice, in its own notation.

    `lambda_` is boto3's client, `api` the id of the stage's API.
    """
    sources = [_event_source(lambda_, function_name(stage, lane), lane, arn) for lane, arn in queue_arns.items()]
    rest_api = {"name": "rest_api", "resource_type": "rest_api", "rest_api_id": api}
    return [*chain.from_iterable(sources), rest_api]


def _event_source(lambda_: Any, name: str, lane: Lane, queue_arn: str) -> list[dict[str, str]]:
    """The mapping of a lane's queue; any other on it is a left-over, would take its messages, and is deleted."""
    mappings = event_sources(lambda_, EventSourceArn=queue_arn)
    ours = [mapping for mapping in mappings if mapping["FunctionArn"].endswith(f":function:{name}")][:1]
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


def event_sources(lambda_: Any, **of: str) -> list[dict[str, Any]]:
    """The event source mappings, all or those of a queue (EventSourceArn), that are not being deleted."""
    pages = lambda_.get_paginator("list_event_source_mappings").paginate(**of)
    return [mapping for page in pages for mapping in page["EventSourceMappings"] if mapping["State"] != "Deleting"]
