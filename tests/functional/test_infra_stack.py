"""A stack as infra/stack.py makes, protects and deletes it, in moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.cloudformation.models import cloudformation_backends

from infra.destroy import destroy
from infra.stack import NEVER_CREATED, delete_stack, deploy_stack, is_protected, stack_status, unprotect_stack
from tests.moto_gaps import let_stacks_be_protected
from tests.policies import REGION

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

NAME = "homeport-test"
QUEUE = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})


@pytest.fixture
def session() -> Iterator[boto3.Session]:
    let_stacks_be_protected()
    with mock_aws():
        yield boto3.Session("test", "test", region_name=REGION)


@pytest.fixture
def cloudformation(session: boto3.Session) -> CloudFormationClient:
    return session.client("cloudformation")


def deploy(cloudformation: CloudFormationClient, *, protected: bool) -> str:
    """Make the stack, or bring it up to date; returns its id."""
    deploy_stack(cloudformation, name=NAME, template=QUEUE, parameters={}, protected=protected)
    return id_of(cloudformation)


def id_of(cloudformation: CloudFormationClient) -> str:
    return cloudformation.describe_stacks(StackName=NAME)["Stacks"][0]["StackId"]


@pytest.mark.parametrize("then", [True, False])
def test_a_stack_is_protected_from_when_it_is_made_or_from_its_next_deployment_on(
    cloudformation: CloudFormationClient, then: bool
) -> None:
    made = deploy(cloudformation, protected=then)
    assert is_protected(cloudformation, NAME) is then
    assert deploy(cloudformation, protected=True) == made
    with pytest.raises(ClientError, match="cannot be deleted while TerminationProtection is enabled"):
        delete_stack(cloudformation, NAME)
    assert id_of(cloudformation) == made


def test_only_what_is_protected_is_let_go(cloudformation: CloudFormationClient) -> None:
    assert not unprotect_stack(cloudformation, NAME), "there is none"
    deploy(cloudformation, protected=True)
    assert [unprotect_stack(cloudformation, NAME) for _ in range(2)] == [True, False]
    assert delete_stack(cloudformation, NAME)


@pytest.mark.parametrize("status", sorted(NEVER_CREATED))
def test_a_stack_that_was_never_complete_is_made_anew_though_it_is_protected(
    cloudformation: CloudFormationClient, status: str
) -> None:
    failed = deploy(cloudformation, protected=True)
    account = failed.split(":")[4]
    cloudformation_backends[account][REGION].get_stack(NAME).status = status
    assert deploy(cloudformation, protected=True) != failed
    assert stack_status(cloudformation, NAME) == "CREATE_COMPLETE"
    assert is_protected(cloudformation, NAME)


def test_a_stage_that_was_never_complete_is_taken_away(session: boto3.Session) -> None:
    """Its stack has no outputs, which say where the rest of it is."""
    deploy(session.client("cloudformation"), protected=True)
    assert list(destroy("test", session)) == [f"protection of the stack {NAME}", f"stack {NAME}"]
