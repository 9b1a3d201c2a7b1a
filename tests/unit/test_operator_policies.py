"""What those who deploy and run a hub may do: each stack, each command that a page or a finding names, and no more."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Final

import boto3
import pytest
from botocore import xform_name
from botocore.session import get_session

from infra.proxy_step import SERVICES
from tests.iam_requests import PLACE, S3_ACTIONS, make_service_role, pass_role, refused
from tests.policies import ACCOUNT, ROOT, Document, allows, listed, operator_policy, statements, template
from tests.stack_requests import ARNS, NEVER, ONLY_WITH, Stack, schema

DEPLOY, PROXY, OPERATIONS = operator_policy(), operator_policy("proxy"), operator_policy("operations")
POLICIES: Final = {"deploy": DEPLOY, "proxy": PROXY, "operations": OPERATIONS}
NETWORK: Final = {"Statement": [one for one in statements(PROXY) if one["Sid"] == "Network"]}

# ── stacks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STACKS: Final = {  # a template → who makes its stack, as docs/deploy.md and its relatives say
    "resources.yaml": (DEPLOY,),
    "domain.yaml": (DEPLOY,),
    "network.yaml": (DEPLOY, NETWORK),
    "registry.yaml": (DEPLOY, PROXY),
    "proxy.yaml": (DEPLOY, PROXY),
}
ADMINISTRATORS: Final = {"proxy-user.yaml"}


def stack(name: str) -> Stack:
    part = name.removesuffix(".yaml")
    return Stack("homeport-test" if part == "resources" else f"homeport-test-{part}", template(name)["Resources"])


RESOURCES: Final = [(name, logical) for name in STACKS for logical in template(name)["Resources"]]


@pytest.mark.parametrize(("name", "logical"), RESOURCES)
def test_whoever_makes_a_stack_may_do_all_that_aws_does_for_each_of_its_resources(name: str, logical: str) -> None:
    policies = STACKS[name]
    if name == "domain.yaml" and "Condition" in template(name)["Resources"][logical]:
        policies = (DEPLOY, PROXY)  # with a zone in Route 53
    asked = list(stack(name).requests(logical))
    assert asked
    assert list(refused(asked, *policies)) == []


def test_every_template_has_somebody_who_makes_its_stack() -> None:
    assert {path.name for path in (ROOT / "infra").glob("*.yaml")} == STACKS.keys() | ADMINISTRATORS


def test_the_user_of_a_proxy_elsewhere_is_an_administrators_to_make_and_to_delete() -> None:
    asked = stack("proxy-user.yaml").requests("User")
    kept = {action for action, _ in refused(asked, *POLICIES.values())}
    assert kept >= {"iam:CreateUser", "iam:PutUserPolicy", "iam:DeleteUser", "iam:DeleteUserPolicy"}


@pytest.mark.parametrize("kind", sorted({*ONLY_WITH, *NEVER}))
def test_what_a_type_does_not_need_is_something_that_aws_lists_for_it(kind: str) -> None:
    """A property or an action that AWS has renamed would be looked for in vain."""
    known = schema(kind)
    handlers = [*known["handlers"].values(), known.get("tagging", {})]
    listed_by_aws = {action for one in handlers for action in one.get("permissions", ())}
    for path, actions in ONLY_WITH.get(kind, {}).items():
        assert re.split(r"[.=]", path)[0] in known["properties"]
        assert set(actions) <= listed_by_aws
    assert {*NEVER.get(kind, ())} <= listed_by_aws


def test_what_is_set_is_asked_for() -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"VersioningConfiguration": {"Status": "Enabled"}}}
    assert list(refused(Stack("homeport-test", {"Bucket": bucket}).requests("Bucket"), DEPLOY)) == [
        ("s3:PutBucketVersioning", "arn:aws:s3:::homeport-test-bucket-1a2b3c4d5e6f")
    ]


def test_what_has_another_name_is_not_the_operators() -> None:
    assert allows(DEPLOY, "sqs:CreateQueue", ARNS["AWS::SQS::Queue"][1].format("homeport-test-launch"))
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "orders"}}
    found = {action for action, _ in refused(Stack("homeport-test", {"Queue": queue}).requests("Queue"), DEPLOY)}
    assert found >= {"sqs:CreateQueue", "sqs:DeleteQueue", "sqs:SetQueueAttributes"}


# ── what AWS makes itself ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("policy", "services"),
    [
        (DEPLOY, {"ops.apigateway.amazonaws.com"}),
        (PROXY, set(SERVICES)),
        (OPERATIONS, {"servicequotas.amazonaws.com"}),
    ],
)
def test_roles_of_aws_services_are_made_for_those_that_are_used_alone(policy: Document, services: set[str]) -> None:
    every = {"ops.apigateway.amazonaws.com", "servicequotas.amazonaws.com", "rds.amazonaws.com", *SERVICES}
    assert {one for one in every if allows(policy, *make_service_role(one))} == services
    action, arn, _ = make_service_role(next(iter(services)))
    assert not allows(policy, action, arn, make_service_role("rds.amazonaws.com")[2])


def test_roles_are_handed_to_tasks_by_the_proxys_policy_and_to_nothing_else() -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/homeport-test-proxy-TaskRole-1A2B3C4D5E6F"
    assert allows(PROXY, *pass_role(role, "ecs-tasks.amazonaws.com"))
    assert not allows(PROXY, *pass_role(role, "ec2.amazonaws.com"))
    assert not allows(PROXY, *pass_role(f"arn:aws:iam::{ACCOUNT}:role/admin", "ecs-tasks.amazonaws.com"))


def test_alarms_are_looked_for_among_all_and_written_among_ours() -> None:
    ours = f"arn:aws:cloudwatch:{PLACE}:alarm:homeport-test-failures"
    of_scaling = f"arn:aws:cloudwatch:{PLACE}:alarm:TargetTracking-service/homeport-test/proxy-AlarmHigh-0a1b2c3d"
    of_others = f"arn:aws:cloudwatch:{PLACE}:alarm:TargetTracking-service/shop/web-AlarmHigh-0a1b2c3d"
    assert allows(DEPLOY, "cloudwatch:DescribeAlarms", "*")
    for action in ("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"):
        assert allows(DEPLOY, action, ours)
        assert allows(PROXY, action, of_scaling)
        assert not any(allows(policy, action, of_others) for policy in POLICIES.values())


# ── form ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

# The statements about "*": AWS takes no names for their actions, or makes the names itself.
EVERYWHERE: Final = {
    "deploy": {"Key", "AccessLogsOfTheApi", "NamedByAws", "LookAtTheAccount", "Api"},
    "proxy": {
        "LogInToTheRegistry", "Network", "TaskDefinitions", "LoadBalancer", "Scaling", "Certificate", "Record",
        "LookForServiceRoles",
    },
    "operations": {
        "AskForQuotasAndCertificates", "ReadWhatARotationReads", "ReadAnswersOfQueriesAndTraces", "MendTheKey",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_has_the_hubs_own_names_where_aws_takes_names_and_no_wildcard_action(name: str) -> None:
    own = statements(POLICIES[name])
    actions = [action for one in own for action in listed(one["Action"])]
    assert not [action for action in actions if "*" in action or "?" in action]
    assert len(set(actions)) == len(actions)
    assert {one["Sid"] for one in own if one["Resource"] == "*"} == EVERYWHERE[name]
    ours = r".*[:/](homeport[-/]|aws-service-role/|event-source-mapping:|transform/Serverless-).*"  # or AWS's, but few
    assert all(re.fullmatch(ours, arn) for one in own for arn in listed(one["Resource"]) if arn != "*")


@pytest.mark.parametrize("name", POLICIES)
def test_iam_takes_a_policy_as_it_is(name: str) -> None:
    assert len("".join(json.dumps(POLICIES[name]).split())) <= 6144, "of a managed policy, without white space"


# ── the commands that pages and findings name ────────────────────────────────────────────────────────────────────────

PAGES: Final = ("README.md", "SECURITY.md", "proxy/README.md", "docs/*.md", "infra/*.py", "infra/*.yaml")
COMMAND: Final = re.compile(r"\baws ([a-z0-9]+(?:-[a-z0-9]+)*) ([a-z0-9]+(?:-[a-z0-9]+)+|deploy)\b")
CHANGE_SETS: Final = {
    f"cloudformation:{one}" for one in ("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DescribeStacks")
}
# What the page says an administrator does.
NOT_OPERATORS: Final = {"iam:CreatePolicy", "iam:AttachUserPolicy", "iam:CreateAccessKey", "iam:DeleteAccessKey"}


def texts() -> Iterator[str]:
    """The pages, and what is written in the programs: a text that goes over several lines is one."""
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        text = path.read_text()
        if path.suffix != ".py":
            yield text
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def actions_of(service: str, command: str) -> set[str]:
    """The actions that a command of the `aws` program is; `deploy` is the one that is more than a call."""
    if (service, command) == ("cloudformation", "deploy"):
        return CHANGE_SETS
    model = get_session().get_service_model("s3" if service == "s3api" else service)
    (name,) = [one for one in model.operation_names if xform_name(one, "-") == command]
    match service:
        case "apigateway":
            return {f"apigateway:{model.operation_model(name).http['method']}"}
        case "s3api":
            return {S3_ACTIONS.get(name, f"s3:{name}")}
    return {f"{model.signing_name}:{name}"}


def test_every_command_that_a_page_or_a_finding_names_is_allowed_by_a_policy_or_an_administrators() -> None:
    commands = {found.groups() for text in texts() for found in COMMAND.finditer(text)}
    assert len(commands) > 40
    known = set(boto3.Session().get_available_services()) | {"s3api"}
    assert {service for service, _ in commands} <= known
    asked = {action for service, command in commands for action in actions_of(service, command)}
    allowed = {action for policy in POLICIES.values() for one in statements(policy) for action in one["Action"]}
    assert asked - allowed == NOT_OPERATORS


def test_the_versions_of_a_bucket_that_keeps_some_can_be_forgotten() -> None:
    bucket = "arn:aws:s3:::homeport-test-bucket-1a2b3c4d5e6f"
    for action in ("s3:PutBucketVersioning", "s3:ListBucketVersions"):
        assert allows(OPERATIONS, action, bucket)
        assert not allows(OPERATIONS, action, "arn:aws:s3:::another")
    assert allows(OPERATIONS, "s3:DeleteObjectVersion", f"{bucket}/credentials/0123/1")
    assert not allows(OPERATIONS, "s3:DeleteObjectVersion", "arn:aws:s3:::another/x")
