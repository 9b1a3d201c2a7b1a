"""CloudFormation: stacks, created or updated as a whole, their outputs, and what keeps one from being deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError, WaiterError

from chalicelib.errors import BadConfiguration
from infra.findings import AGAIN

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.literals import CapabilityType
    from mypy_boto3_cloudformation.type_defs import ParameterTypeDef, StackTypeDef

# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
NEVER_CREATED: Final = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"})


def deploy_stack(
    cloudformation: CloudFormationClient,
    *,
    name: str,
    template: str,
    parameters: Mapping[str, str],
    capabilities: Sequence[CapabilityType] = (),
    protected: bool = False,
) -> dict[str, str]:
    """Create or update the stack, wait until it is done, and return its outputs.

    A stack that was never created (its first creation was rolled back) is deleted first: it holds nothing. A parameter
    that is not named keeps its value. `capabilities` acknowledge what the template makes, such as roles. `protected`:
    CloudFormation refuses to delete the stack, until that is taken off. Raises BadConfiguration with CloudFormation's
    own reasons.
    """
    stack = _stack(cloudformation, name)
    if stack is not None and stack["StackStatus"] in NEVER_CREATED:
        unprotect_stack(cloudformation, name)
        cloudformation.delete_stack(StackName=name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name)
        stack = None
    try:
        if stack is None:
            _create(cloudformation, name, template, parameters, capabilities, protected)
        else:
            _update(cloudformation, stack, template, parameters, capabilities)
    except WaiterError as error:
        raise BadConfiguration(f"The stack {name} failed: {_reasons(cloudformation, name)}") from error
    done = _stack(cloudformation, name)
    assert done is not None, "it was there a moment ago"
    if protected and not _is_protected(done):  # an older version made it, or a `make destroy` was broken off
        cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=True)
    return _outputs(done)


def delete_stack(cloudformation: CloudFormationClient, name: str) -> bool:
    """Delete the stack and wait until it is gone; returns whether it was there. Raises BadConfiguration as above."""
    if _stack(cloudformation, name) is None:
        return False
    cloudformation.delete_stack(StackName=name)
    try:
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name)
    except WaiterError as error:
        raise BadConfiguration(f"The stack {name} was not deleted: {_reasons(cloudformation, name)}") from error
    return True


def is_protected(cloudformation: CloudFormationClient, name: str) -> bool:
    """Whether CloudFormation refuses to delete the stack; not if there is no such stack."""
    stack = _stack(cloudformation, name)
    return stack is not None and _is_protected(stack)


def unprotect_stack(cloudformation: CloudFormationClient, name: str) -> bool:
    """Let the stack be deleted; returns whether it was protected from that."""
    if not is_protected(cloudformation, name):
        return False
    cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    return True


def stack_outputs(cloudformation: CloudFormationClient, name: str) -> dict[str, str] | None:
    """The stack's outputs; None if there is no such stack."""
    stack = _stack(cloudformation, name)
    return None if stack is None else _outputs(stack)


def stack_parameters(cloudformation: CloudFormationClient, name: str) -> dict[str, str] | None:
    """The stack's parameters; None if there is no such stack."""
    stack = _stack(cloudformation, name)
    if stack is None:
        return None
    return {found["ParameterKey"]: found["ParameterValue"] for found in stack.get("Parameters", [])}


def stack_status(cloudformation: CloudFormationClient, name: str) -> str | None:
    """The stack's status; None if there is no such stack."""
    stack = _stack(cloudformation, name)
    return None if stack is None else str(stack["StackStatus"])


def deployed_template(cloudformation: CloudFormationClient, name: str) -> str | None:
    """The template that the stack was last created or updated with, YAML or JSON; None if it was never created."""
    if stack_status(cloudformation, name) in {None, *NEVER_CREATED}:
        return None
    found = cloudformation.get_template(StackName=name)["TemplateBody"]
    return found if isinstance(found, str) else json.dumps(found)  # boto3 reads JSON itself


def _outputs(stack: StackTypeDef) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def _is_protected(stack: StackTypeDef) -> bool:
    return stack.get("EnableTerminationProtection", False)


def _stack(cloudformation: CloudFormationClient, name: str) -> StackTypeDef | None:
    try:
        return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return None
        raise


def _create(
    cloudformation: CloudFormationClient,
    name: str,
    template: str,
    parameters: Mapping[str, str],
    capabilities: Sequence[CapabilityType],
    protected: bool,
) -> None:
    given: list[ParameterTypeDef] = [{"ParameterKey": key, "ParameterValue": parameters[key]} for key in parameters]
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=template,
        Parameters=given,
        Capabilities=capabilities,
        EnableTerminationProtection=protected,
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name)


def _update(
    cloudformation: CloudFormationClient,
    stack: StackTypeDef,
    template: str,
    parameters: Mapping[str, str],
    capabilities: Sequence[CapabilityType],
) -> None:
    name = stack["StackName"]
    given: list[ParameterTypeDef] = [{"ParameterKey": key, "ParameterValue": parameters[key]} for key in parameters]
    kept = [found["ParameterKey"] for found in stack.get("Parameters", []) if found["ParameterKey"] not in parameters]
    given += [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
    try:
        cloudformation.update_stack(StackName=name, TemplateBody=template, Parameters=given, Capabilities=capabilities)
    except ClientError as error:
        if "No updates are to be performed" in error.response["Error"]["Message"]:
            return
        raise
    cloudformation.get_waiter("stack_update_complete").wait(StackName=name)


def _reasons(cloudformation: CloudFormationClient, name: str) -> str:
    """What failed first, newest run only, and what to do: CloudFormation lists the newest events first."""
    reasons: list[str] = []
    for event in cloudformation.describe_stack_events(StackName=name)["StackEvents"]:
        if event.get("ResourceStatusReason") == "User Initiated":
            break
        if event.get("ResourceStatus", "").endswith("_FAILED"):
            reasons.append(f"{event.get('LogicalResourceId')}: {event.get('ResourceStatusReason', 'no reason given')}")
    return f"{'; '.join(reversed(reasons)) or 'see its events in the CloudFormation console'}. {AGAIN}"
