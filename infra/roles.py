"""The functions' roles as IAM has them: who may take one, and what it allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Role:
    """A role: its trust policy, its inline policies by name, the ARNs of the policies attached to it."""

    trust: Document
    inline: Mapping[str, Document]
    attached: tuple[str, ...]

    def names(self, resource: str) -> bool:
        """Whether an inline policy allows something on the resource, an ARN, that its service knows."""
        service = resource.split(":")[2]
        return any(
            fnmatchcase(resource, pattern)
            for document in self.inline.values()
            for statement in statements(document)
            if statement["Effect"] == "Allow" and _is_about(service, statement)
            for pattern in listed(statement.get("Resource", "*"))
        )


def _is_about(service: str, statement: Mapping[str, Any]) -> bool:
    """Whether a statement has an action of the service; one that says which it has not may."""
    return any(action.partition(":")[0].lower() in (service, "*") for action in listed(statement.get("Action", "*")))


def read_role(iam: Any, name: str) -> Role | None:
    """Ask for a role; None if there is none. Raises botocore's errors."""
    try:
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return None
    inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    return Role(
        trust,
        {one: iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"] for one in inline},
        tuple(one["PolicyArn"] for one in attached),
    )


def statements(document: Document) -> list[Mapping[str, Any]]:
    """A policy's statements: IAM takes one for a list of one."""
    found = document.get("Statement", [])
    return [found] if isinstance(found, dict) else found


def listed(value: str | list[str]) -> list[str]:
    """The same of actions, resources and principals."""
    return [value] if isinstance(value, str) else value
