"""The policies as parliament and policy-sentry see them: their findings, each answered here or none."""

from __future__ import annotations

import json
import warnings

import pytest
from policy_sentry.analysis.analyze import analyze_by_access_level
from policy_sentry.querying.actions import get_action_data

from infra.project import POLICIES
from tests.policies import ROOT, function_policy

with warnings.catch_warnings():  # an old package: it is full of what Python and setuptools warn of
    warnings.simplefilter("ignore")
    from parliament import analyze_policy_string

OPERATOR = (ROOT / "infra" / "operator-policy.json").read_text()


@pytest.mark.parametrize("name", POLICIES.values())
def test_parliament_finds_nothing_in_a_functions_policy(name: str) -> None:
    policy = json.dumps(function_policy(name, traced=True))
    found = analyze_policy_string(policy, include_community_auditors=True).findings
    assert [str(finding) for finding in found] == []


@pytest.mark.parametrize("name", POLICIES.values())
def test_no_function_may_manage_permissions(name: str) -> None:
    document = function_policy(name, traced=True)
    assert analyze_by_access_level(dict(document), "Permissions management") == []
    for statement in document["Statement"]:
        for action in statement["Action"]:
            assert get_action_data(*action.split(":", 1)), f"policy-sentry knows no {action}"


def test_parliament_finds_no_more_in_the_operators_policy_than_what_deploying_is() -> None:
    found = analyze_policy_string(OPERATOR).findings
    answered = {
        # The ids of the key and of event sources are known only once AWS has made them.
        "RESOURCE_STAR",
        # Who makes the bucket makes its policy, too. To deploy is to decide who reads what is stored: docs/deploy.md.
        "RESOURCE_POLICY_PRIVILEGE_ESCALATION",
    }
    assert {finding.issue for finding in found} <= answered, [str(finding) for finding in found]


@pytest.mark.parametrize("name", ["operator-policy-proxy", "operator-policy-operations"])
def test_parliament_finds_no_more_in_the_other_policies_than_names_that_aws_makes(name: str) -> None:
    text = (ROOT / "infra" / f"{name}.json").read_text()
    assert len(json.dumps(json.loads(text), separators=(",", ":"))) <= 6144, "IAM takes no longer ones"
    found = analyze_policy_string(text).findings
    assert {finding.issue for finding in found} <= {"RESOURCE_STAR"}, [str(finding) for finding in found]
    for statement in json.loads(text)["Statement"]:
        for action in statement["Action"]:
            assert get_action_data(*action.split(":", 1)), f"policy-sentry knows no {action}"
