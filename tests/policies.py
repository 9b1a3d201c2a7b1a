"""What an IAM policy allows, as far as Homeport's own go: a small evaluator that refuses what it does not know.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from chalicelib.session.lanes import Lane
from infra import project

ROOT = Path(__file__).resolve().parents[1]
ACCOUNT, REGION, STAGE = "111122223333", "eu-west-1", "test"

# What the stack of a stage called "test" would put out.
OUTPUTS: Mapping[str, str] = {
    "Stage": STAGE,
    "Certificates": "/homeport/test",
    "CertificatesArn": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/homeport/test",
    "BucketArn": "arn:aws:s3:::homeport-test-bucket",
    "KeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0a1b2c3d-0000-4000-8000-000000000000",
    "RedriveLogsArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/homeport-test-redrive:*",
    "S3Service": f"s3.{REGION}.amazonaws.com",
    "SsmService": f"ssm.{REGION}.amazonaws.com",
    "Table": "homeport-test-table",
    "TableArn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/homeport-test-table",
    **{
        f"{lane.capitalize()}LogsArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/homeport-test-{lane}:*"
        for lane in Lane
    },
    **{f"{lane.capitalize()}QueueArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:homeport-test-{lane}" for lane in Lane},
    "WebLogsArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/homeport-test:*",
}

Document = Mapping[str, Any]
Context = Mapping[str, str | list[str]]


def function_policy(name: str, outputs: Mapping[str, str] = OUTPUTS, *, traced: bool = False) -> Document:
    """The policy of one function (web, redrive, or a lane's) as it is deployed."""
    return project.function_policy(ROOT, name, outputs, in_network=False, traced=traced)


def operator_policy(part: str = "") -> Document:
    """A policy for operators: of whoever deploys (""), "proxy" or "operations"."""
    name = f"operator-policy-{part}" if part else "operator-policy"
    return dict(json.loads((ROOT / "infra" / f"{name}.json").read_text()))


def proxy_policy(role: str, outputs: Mapping[str, str] = OUTPUTS) -> Document:
    """The inline policy of a role (TaskRole, ExecutionRole) in infra/proxy.yaml."""
    return template_policies("proxy.yaml", outputs)[role]


def template_policies(name: str, outputs: Mapping[str, str] = OUTPUTS) -> dict[str, Document]:
    """The policies of the roles and users that a template of infra/ makes, by the resource that has it."""
    found: dict[str, Document] = {}
    for logical, resource in template(name)["Resources"].items():
        properties = resource["Properties"]
        inline = properties.get("Policies", [])
        for policy in [properties] if resource["Type"] == "AWS::IAM::RolePolicy" else inline:
            assert logical not in found, "one policy each"
            found[logical] = dict(_resolve(policy["PolicyDocument"], outputs))
    return found


def template(name: str) -> dict[str, Any]:
    """A template of infra/, its short intrinsics spelled out."""
    return deepcopy(_parsed(name))


@cache
def _parsed(name: str) -> dict[str, Any]:
    return dict(yaml.load((ROOT / "infra" / name).read_text(), Loader=_Loader))


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's tags: !Ref x → {"Ref": x}, !Sub x → {"Fn::Sub": x}."""


def _tag(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    raise AssertionError(f"a mapping under !{suffix}")


_Loader.add_multi_constructor("!", _tag)


def _resolve(value: Any, outputs: Mapping[str, str]) -> Any:
    _, partition, _, region, account, _ = outputs["TableArn"].split(":", 5)
    pseudo = {
        "Bucket.Arn": outputs["BucketArn"],
        "AWS::Partition": partition,
        "AWS::Region": region,
        "AWS::AccountId": account,
        "Stage": outputs["Stage"],
        "EcrRepository": f"homeport-{outputs['Stage']}-proxy",
    }
    match value:
        case {"Fn::ImportValue": name}:
            return outputs[_resolve(name, outputs).removeprefix(f"homeport-{outputs['Stage']}-")]
        case {"Fn::Sub": [str(text), dict(names)]}:
            return _fill(text, pseudo | {name: _resolve(names[name], outputs) for name in names})
        case {"Fn::Sub": str(text)}:
            return _fill(text, pseudo)
        case {"Fn::If": [_, _, otherwise]}:  # the conditions are about what a stage need not have
            return _resolve(otherwise, outputs)
        case {"Ref": "AWS::NoValue"}:
            return None
        case {"Ref": name}:
            return pseudo[name]
        case {"Fn::GetAtt": name}:
            return outputs[str(name).replace(".", "")]
        case dict():
            return {key: _resolve(inner, outputs) for key, inner in value.items()}
        case list():
            return [inner for inner in (_resolve(one, outputs) for one in value) if inner is not None]
        case _:
            return value


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{([^}]+)}", lambda found: values[found[1]], text)


def statements(document: Document) -> list[Mapping[str, Any]]:
    """The statements of a policy."""
    return list(document["Statement"])


def listed(value: str | list[str]) -> list[str]:
    """IAM takes one string for a list of one."""
    return [value] if isinstance(value, str) else list(value)


def allows(document: Document, action: str, resource: str, context: Context | None = None) -> bool:
    """Whether the policy allows the action on the resource; `context` holds the request's condition keys."""
    return any(_applies(statement, action, resource, context or {}) for statement in statements(document))


def denied(document: Document, principal: str, action: str, resource: str, context: Context | None = None) -> bool:
    """Whether a resource's own policy denies it to a role or user, whatever theirs allow."""
    known = {**(context or {}), "aws:PrincipalArn": principal}
    denials = [statement for statement in statements(document) if statement["Effect"] == "Deny"]
    assert all(statement["Principal"] in ("*", {"AWS": "*"}) for statement in denials)
    plain = [{**statement, "Effect": "Allow"} for statement in denials]
    return any(
        _applies({key: part for key, part in statement.items() if key != "Principal"}, action, resource, known)
        for statement in plain
    )


def own_denials(document: Document, action: str, resource: str, context: Context) -> bool:
    """Whether a role's own policy denies the action, whatever it allows besides."""
    denials = [{**statement, "Effect": "Allow"} for statement in statements(document) if statement["Effect"] == "Deny"]
    return any(_applies(statement, action, resource, context) for statement in denials)


def resource_policy(resource: str, name: str, outputs: Mapping[str, str] = OUTPUTS) -> Document:
    """The policy of a resource of infra/resources.yaml, called so among its properties."""
    return dict(_resolve(template("resources.yaml")["Resources"][resource]["Properties"][name], outputs))


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    assert statement["Effect"] == "Allow", "an evaluator of Deny has to look at all statements"
    assert not statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
    return (
        any(_like(action.lower(), pattern.lower()) for pattern in listed(statement["Action"]))
        and any(_like(resource, pattern) for pattern in listed(statement["Resource"]))
        and all(
            _holds(operator, key, listed(values), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, key: str, values: list[str], context: Context) -> bool:
    present = key in context
    given = listed(context.get(key, []))
    match operator:
        case "Null":
            return values == [("false" if present else "true")]
        case "StringEquals":
            return present and all(one in values for one in given)
        case "StringLike" | "ArnLike":
            return present and _all_like(given, values)
        case "StringNotLike":
            return not (present and any(_like(one, pattern) for one in given for pattern in values))
        case "Bool":
            return [str(one).lower() for one in given] == values
        case "StringEqualsIfExists":
            return all(one in values for one in given)
        case "ForAllValues:StringEquals":
            return all(one in values for one in given)
        case "ForAllValues:StringLike":
            return _all_like(given, values)
        case _:
            raise AssertionError(f"no such operator here: {operator}")


def _all_like(given: Iterable[str], patterns: list[str]) -> bool:
    return all(any(_like(one, pattern) for pattern in patterns) for one in given)


def _like(text: str, pattern: str) -> bool:
    """IAM's wildcards: * is any run of characters, slashes and colons too, ? is any one."""
    expression = "".join(".*" if part == "*" else "." if part == "?" else re.escape(part) for part in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None
