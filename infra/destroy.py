"""Take a stage of the hub away, after asking: `python -m infra.destroy --stage prod`, or `make destroy STAGE=prod`.

Credentials go first, so that a run that fails anywhere has deleted them: the bucket's objects, then the hub's own
certificates. Then what serves and launches: the proxy's and the domain's stacks, event sources, schedule, functions,
API. The stack with table, bucket, queues, key and logs follows, once it and the table are protected no more; then the
network that functions and proxies were in, once Lambda has let go of it, and the functions' roles, by which it does so.
What is not there is passed over, so that a run that failed is repeated by running it again.

It asks no sessions to stop: their containers stay on the visitors' endpoints. Let them end first (docs/deploy.md).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import BadConfiguration, HomeportError
from infra.api import find_api, forget_logging
from infra.certificates import NAMES, NEXT_NAMES
from infra.findings import AGAIN
from infra.network import interfaces_of, network_name
from infra.preflight import where
from infra.project import APP, POLICIES, event_sources, forget_stage, function_name, role_name
from infra.request import check_stage
from infra.stack import delete_stack, stack_outputs, unprotect_stack

ROOT: Final = Path(__file__).resolve().parent.parent
# They import what the stage's own stack exports, or lead to the API, and are deleted before both.
STACKS_BEFORE: Final = ("proxy", "proxy-user", "registry", "domain", "functions")


def destroy(stage: str, session: boto3.Session) -> Iterator[str]:
    """Take the stage away and say, one by one, what was deleted. Raises HomeportError and botocore's errors."""
    cloudformation, lambda_ = session.client("cloudformation"), session.client("lambda")
    name = f"{APP}-{stage}"
    outputs = stack_outputs(cloudformation, name)  # a stack that was never complete has none, and holds nothing
    s3 = session.resource("s3")
    if outputs:
        yield from _empty(s3, outputs["Bucket"])
    yield from _certificates(session.client("ssm"), f"/{APP}/{stage}")
    for suffix in STACKS_BEFORE:
        if delete_stack(cloudformation, f"{name}-{suffix}"):
            yield f"stack {name}-{suffix}"
    yield from _event_sources(lambda_, stage)
    yield from _schedule(session.client("events"), f"{name}-redrive-event")
    yield from _functions(lambda_, stage)
    yield from _api(session.client("apigateway"), stage)
    if outputs:
        if forget_logging(session.client("apigateway"), outputs["GatewayLogsRole"]):
            yield "API Gateway's role for logs, in the account's settings"
        yield from _empty(s3, outputs["Bucket"])  # what was uploaded until the functions were gone
        yield from _unprotect(session.client("dynamodb"), outputs["Table"])
    if unprotect_stack(cloudformation, name):
        yield f"protection of the stack {name}"
    if delete_stack(cloudformation, name):
        yield f"stack {name}"
    await_interfaces(session.client("ec2"), stage)
    if delete_stack(cloudformation, network_name(stage)):
        yield f"stack {network_name(stage)}"
    yield from _roles(session.client("iam"), stage)


def await_interfaces(ec2: Any, stage: str) -> None:
    """See that Lambda has let go of the functions' network, which it does by their roles; raises BadConfiguration."""
    if left := interfaces_of(ec2, stage):
        raise BadConfiguration(
            f"Lambda still has {left} network interfaces for the functions, for up to an hour after they are gone. All "
            "else is deleted but the network and the functions' roles: run this again then"
        )


def _empty(s3: Any, bucket: str) -> Iterator[str]:
    """Delete all objects of the bucket; it keeps no versions. Raises BadConfiguration if one is left."""
    try:
        answers = s3.Bucket(bucket).objects.all().delete()
    except s3.meta.client.exceptions.NoSuchBucket:
        return
    if deleted := [one for answer in answers for one in answer.get("Deleted", [])]:
        yield f"{len(deleted)} objects of the bucket {bucket}"
    # S3 answers with success, and says of each object why it is still there.
    if left := [f"{one['Code']}: {one['Message']}" for answer in answers for one in answer.get("Errors", [])]:
        raise BadConfiguration(f"S3 did not delete {len(left)} objects of the bucket {bucket} ({left[0]}). {AGAIN}")


def _unprotect(dynamodb: Any, table: str) -> Iterator[str]:
    """Let the table be deleted, which it is protected from."""
    try:
        found = dynamodb.describe_table(TableName=table)["Table"]
    except dynamodb.exceptions.ResourceNotFoundException:
        return
    if found.get("DeletionProtectionEnabled"):
        dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
        yield f"protection of the table {table}"


def _certificates(ssm: Any, prefix: str) -> Iterator[str]:
    names = (*NAMES, *NEXT_NAMES)
    deleted = ssm.delete_parameters(Names=[f"{prefix}/{name}" for name in names])["DeletedParameters"]
    if deleted:
        yield f"the hub's certificates: {', '.join(deleted)}"


def _event_sources(lambda_: Any, stage: str) -> Iterator[str]:
    ours = {function_name(stage, function) for function in POLICIES}
    for mapping in event_sources(lambda_):
        name = mapping["FunctionArn"].rpartition(":function:")[2]
        if name in ours:
            lambda_.delete_event_source_mapping(UUID=mapping["UUID"])
            yield f"event source of {name}"


def _schedule(events: Any, rule: str) -> Iterator[str]:
    try:
        targets = [target["Id"] for target in events.list_targets_by_rule(Rule=rule)["Targets"]]
    except events.exceptions.ResourceNotFoundException:
        return
    if targets:
        events.remove_targets(Rule=rule, Ids=targets)
    events.delete_rule(Name=rule)
    yield f"schedule {rule}"


def _functions(lambda_: Any, stage: str) -> Iterator[str]:
    for function in POLICIES:
        name = function_name(stage, function)
        try:
            lambda_.delete_function(FunctionName=name)
        except lambda_.exceptions.ResourceNotFoundException:
            continue
        yield f"function {name}"


def _api(apigateway: Any, stage: str) -> Iterator[str]:
    api = find_api(apigateway, stage)
    if api is not None:
        apigateway.delete_rest_api(restApiId=api)
        yield f"API {api}"


def _roles(iam: Any, stage: str) -> Iterator[str]:
    for function in POLICIES:
        role = role_name(stage, function)
        try:
            for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
                iam.delete_role_policy(RoleName=role, PolicyName=policy)
            iam.delete_role(RoleName=role)
        except iam.exceptions.NoSuchEntityException:
            continue
        yield f"role {role}"


def confirm(stage: str, environ: Mapping[str, str], ask: Callable[[str], str]) -> None:
    """Have the stage's name typed, or given as CONFIRM; raises BadConfiguration if it is another one."""
    question = (
        f"This deletes {APP}-{stage}: sealed credentials, certificates, sessions, functions, key. Notebooks that run "
        f"are out of reach after it.\nType the stage's name to go on: "
    )
    if (environ.get("CONFIRM") or ask(question)).strip() != stage:
        raise BadConfiguration("That is not the stage's name: nothing was deleted")


def _ask(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        return ""


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.destroy", description="Take a stage of the hub away.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    wanted = parser.parse_args(arguments)
    try:
        stage, session = check_stage(wanted.stage), boto3.Session()
        print(where(session).what)
        confirm(stage, environ, _ask)
        for deleted in destroy(stage, session):
            print(f"deleted: {deleted}", flush=True)
        forget_stage(ROOT, stage)
    except HomeportError as error:
        print(f"Not all is deleted. {error.message}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"Not all is deleted. AWS said: {error}\n{AGAIN}.", file=sys.stderr)
        return 1
    print("Nothing of the stage is left, but for its key, which is deleted in seven days")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
