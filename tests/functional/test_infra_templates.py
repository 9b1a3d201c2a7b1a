"""The CloudFormation templates: clean by cfn-lint, and the promises they make to visitors and operators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chalicelib.launcher.effects import SLOT_SECONDS
from chalicelib.session.lanes import Lane
from tests.policies import ROOT, template

PROGRAMS = Path(sys.executable).parent
RESOURCES = template("resources.yaml")["Resources"]


def properties(name: str) -> dict[str, Any]:
    return dict(RESOURCES[name]["Properties"])


@pytest.mark.parametrize("name", ["resources.yaml", "proxy.yaml", "domain.yaml"])
def test_the_template_passes_cfn_lint(name: str) -> None:
    linted = subprocess.run([PROGRAMS / "cfn-lint", ROOT / "infra" / name], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_a_deleted_credential_is_gone_because_the_bucket_keeps_no_versions() -> None:
    assert "VersioningConfiguration" not in properties("Bucket")
    assert "ObjectLockEnabled" not in properties("Bucket")
    assert "ReplicationConfiguration" not in properties("Bucket")


def test_the_bucket_cannot_be_made_public() -> None:
    assert set(properties("Bucket")["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties("Bucket")["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def test_credentials_are_encrypted_with_the_hubs_own_key_which_rotates() -> None:
    (rule,) = properties("Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": {"Fn::GetAtt": "Key.Arn"},
    }
    assert properties("Key")["EnableKeyRotation"] is True


def test_credentials_that_nobody_purged_expire_all_the_same() -> None:
    rules = {rule["Id"]: rule for rule in properties("Bucket")["LifecycleConfiguration"]["Rules"]}
    assert rules["credentials-backstop"]["Prefix"] == "credentials/"
    assert rules["credentials-backstop"]["ExpirationInDays"] == 8
    assert rules["abandoned-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}


@pytest.mark.parametrize(("policy", "action"), [("BucketPolicy", "s3:*"), ("QueuePolicy", "sqs:*")])
def test_nothing_is_spoken_to_without_tls(policy: str, action: str) -> None:
    (statement,) = properties(policy)["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", action)
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize("lane", Lane)
def test_a_message_is_invisible_for_six_times_as_long_as_its_function_may_run(lane: Lane) -> None:
    timeout = config()["lambda_functions"][lane]["lambda_timeout"]
    queue = properties(f"{lane.capitalize()}Queue")
    assert queue["VisibilityTimeout"] == 6 * timeout
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5


@pytest.mark.parametrize("lane", Lane)
def test_a_message_that_comes_again_after_a_killed_function_is_no_alarm(lane: Lane) -> None:
    alarm, queue = properties(f"{lane.capitalize()}AgeAlarm"), f"{lane.capitalize()}Queue"
    assert alarm["MetricName"] == "ApproximateAgeOfOldestMessage"
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": f"{queue}.QueueName"}}]
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    timeout = config()["lambda_functions"][lane]["lambda_timeout"]  # while it runs, its message is in the queue
    assert alarm["Threshold"] >= properties(queue)["VisibilityTimeout"] + timeout


def test_a_slot_outlives_the_function_that_pulls() -> None:
    assert config()["lambda_functions"][Lane.PULL]["lambda_timeout"] < SLOT_SECONDS


def test_queues_and_table_are_encrypted_and_the_table_can_be_brought_back() -> None:
    for lane in Lane:
        assert properties(f"{lane.capitalize()}Queue")["SqsManagedSseEnabled"] is True
    assert properties("DeadLetterQueue")["SqsManagedSseEnabled"] is True
    assert properties("Table")["SSESpecification"] == {"SSEEnabled": True}
    assert properties("Table")["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties("Table")["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


def test_logs_expire() -> None:
    groups = {name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Logs::LogGroup"}
    assert groups == {"WebLogs", *(f"{lane.capitalize()}Logs" for lane in Lane), "RedriveLogs"}
    assert {properties(name)["RetentionInDays"] for name in groups} == {30}


@pytest.mark.parametrize("name", ["resources.yaml", "proxy.yaml"])
def test_every_alarm_tells_the_operator_when_it_begins_and_when_it_ends(name: str) -> None:
    found = template(name)["Resources"].values()
    alarms = [resource["Properties"] for resource in found if resource["Type"] == "AWS::CloudWatch::Alarm"]
    assert alarms
    for alarm in alarms:
        assert alarm["AlarmActions"] == alarm["OKActions"] == {"Fn::If": ["HasAlarmEmail", [{"Ref": "AlarmTopic"}], []]}
        assert alarm["AlarmDescription"]


def config() -> dict[str, Any]:
    return dict(json.loads((ROOT / ".chalice" / "config.json").read_text()))
