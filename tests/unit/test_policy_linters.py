"""The policies as parliament and policy-sentry see them: their findings, each answered here or none."""

from __future__ import annotations

import json
import warnings
from typing import Any, Final

import pytest
from botocore.session import get_session
from policy_sentry.analysis.analyze import analyze_by_access_level
from policy_sentry.querying.actions import get_action_data

from infra.project import POLICIES
from tests.policies import Document, function_policy, listed, operator_policy, statements, template_policies

with warnings.catch_warnings():  # an old package: it is full of what Python and setuptools warn of
    warnings.simplefilter("ignore")
    from parliament import analyze_policy_string

FUNCTIONS: Final = {name: function_policy(name, traced=True) for name in (*POLICIES.values(), "network")}
OPERATORS: Final = {name or "deploy": operator_policy(name) for name in ("", "proxy", "operations")}
MADE_BY_STACKS: Final = {**template_policies("proxy.yaml"), **template_policies("proxy-user.yaml")}
SHIPPED: Final[dict[str, Document]] = {**FUNCTIONS, **OPERATORS, **MADE_BY_STACKS}

# What parliament finds, with the auditors that come with it. Of all else: nothing.
ANSWERED: Final = {
    "network": {
        # Network interfaces have names that AWS makes. The code of a function gets none of this: the second statement.
        "RESOURCE_STAR",
        # AWS has lambda:SourceFunctionArn in each call of a function's code, of whatever service; parliament does not:
        # https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
        "UNKNOWN_CONDITION_FOR_ACTION",
    },
    "deploy": {
        # The ids of the key and of event sources are known only once AWS has made them; lists are of the account.
        "RESOURCE_STAR",
        # Who makes the bucket makes its policy, too. To deploy is to decide who reads what is stored: docs/deploy.md.
        "RESOURCE_POLICY_PRIVILEGE_ESCALATION",
        # Who makes the functions makes their roles, and could make one that may do everything. So the policy is not for
        # people who may do less in the account: docs/deploy.md says so.
        "PRIVILEGE_ESCALATION",
        "PERMISSIONS_MANAGEMENT_ACTIONS",
    },
    "proxy": {
        # Networks, load balancers, certificates and records have names that AWS makes: docs/deploy-proxy.md.
        "RESOURCE_STAR",
        # The password of the account's registry, by which `docker push` signs in. It lets nobody do more.
        "CREDENTIALS_EXPOSURE",
        # Roles of AWS's own services, and the proxy's roles handed to its tasks: both bound by a condition.
        "PERMISSIONS_MANAGEMENT_ACTIONS",
    },
    "operations": {
        # Quotas, certificates, queries and traces have no names; the key's is AWS's.
        "RESOURCE_STAR",
        # The role that Service Quotas works with, bound by a condition.
        "PERMISSIONS_MANAGEMENT_ACTIONS",
        # A change set is asked for on the transform of its template, too; parliament knows it for stacks alone:
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/control-access-with-iam.html
        "RESOURCE_MISMATCH",
    },
    # The same password, by which ECS fetches the proxy's image.
    "PullPolicy": {"CREDENTIALS_EXPOSURE"},
}

# What policy-sentry counts as management of permissions. Of all else: nothing.
MANAGES: Final = {
    "deploy": {
        # the functions' roles, and API Gateway's for its logs; what they are handed to
        "iam:AttachRolePolicy",
        "iam:CreateRole",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:PassRole",
        "iam:PutRolePolicy",
        "iam:UpdateAssumeRolePolicy",
        # API Gateway's role for domains
        "iam:CreateServiceLinkedRole",
        # the policies of key, bucket and queues, which deny what nobody is to do
        "kms:PutKeyPolicy",
        "s3:DeleteBucketPolicy",
        "s3:PutBucketPolicy",
        "s3:PutBucketPublicAccessBlock",
        "sqs:CreateQueue",
        "sqs:SetQueueAttributes",
        # who may call a function: API Gateway and the schedule
        "lambda:AddPermission",
        "lambda:RemovePermission",
        # that API Gateway may write the access log
        "logs:PutResourcePolicy",
        # the topic of the alarms
        "sns:CreateTopic",
        "sns:SetTopicAttributes",
    },
    "proxy": {"iam:CreateServiceLinkedRole", "iam:PassRole"},
    "operations": {"iam:CreateServiceLinkedRole"},
}


# Younger than the linters' lists, and operations that botocore knows.
TOO_NEW: Final = {
    "ec2:DescribeVpcEncryptionControls",
    "ecs:StopServiceDeployment",
    "lambda:GetFunctionScalingConfig",
}


def known(document: Document) -> dict[str, Any]:
    """A policy without what the linters cannot know: parliament looks no further once it finds an action unknown."""
    kept = [
        {**one, "Action": [action for action in listed(one["Action"]) if action not in TOO_NEW]}
        for one in statements(document)
    ]
    return {**document, "Statement": kept}


@pytest.mark.parametrize("name", SHIPPED)
def test_parliament_finds_nothing_that_is_not_answered(name: str) -> None:
    text = json.dumps(known(SHIPPED[name]))
    found = list(analyze_policy_string(text, include_community_auditors=True).findings)
    assert {one.issue for one in found} == ANSWERED.get(name, set()), [str(one) for one in found]


@pytest.mark.parametrize("name", SHIPPED)
def test_policy_sentry_finds_no_management_of_permissions_that_is_not_answered(name: str) -> None:
    found = analyze_by_access_level(known(SHIPPED[name]), "Permissions management")
    assert set(found) == MANAGES.get(name, set())


def test_each_action_is_one_that_aws_has() -> None:
    actions = {
        action for document in SHIPPED.values() for one in statements(document) for action in listed(one["Action"])
    }
    assert {action for action in actions if not get_action_data(*action.split(":", 1))} == TOO_NEW
    for service, name in (action.split(":", 1) for action in TOO_NEW):
        assert name in get_session().get_service_model(service).operation_names
