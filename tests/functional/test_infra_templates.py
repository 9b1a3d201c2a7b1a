"""The CloudFormation templates: clean by cfn-lint, and the promises they make to visitors and operators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chalicelib.launcher.effects import SLOT_SECONDS
from chalicelib.metrics import NAMESPACE, OF_A_LANE, Metric
from chalicelib.session.lanes import Lane
from tests.policies import ROOT, template

PROGRAMS = Path(sys.executable).parent
RESOURCES = template("resources.yaml")["Resources"]


def properties(name: str) -> dict[str, Any]:
    return dict(RESOURCES[name]["Properties"])


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "infra").glob("*.yaml")))
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
    assert rules["credentials-backstop"]["ExpirationInDays"] == 32
    assert rules["abandoned-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}


@pytest.mark.parametrize(("policy", "action"), [("BucketPolicy", "s3:*"), ("QueuePolicy", "sqs:*")])
def test_nothing_is_spoken_to_without_tls(policy: str, action: str) -> None:
    statement, *_ = properties(policy)["PolicyDocument"]["Statement"]
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
    assert groups == {"WebLogs", *(f"{lane.capitalize()}Logs" for lane in Lane), "RedriveLogs", "AccessLogs"}
    assert {properties(name)["RetentionInDays"] for name in groups} == {30}


@pytest.mark.parametrize("name", ["resources.yaml", "proxy.yaml"])
def test_every_alarm_tells_the_operator_when_it_begins_and_when_it_ends(name: str) -> None:
    found = template(name)["Resources"].values()
    alarms = [resource["Properties"] for resource in found if resource["Type"] == "AWS::CloudWatch::Alarm"]
    assert alarms
    for alarm in alarms:
        assert alarm["AlarmActions"] == alarm["OKActions"] == {"Fn::If": ["HasAlarmEmail", [{"Ref": "AlarmTopic"}], []]}
        assert alarm["AlarmDescription"]


ALARMS = {
    name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == "AWS::CloudWatch::Alarm"
}
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def ours() -> list[tuple[str, frozenset[str]]]:
    """The hub's own figures that alarms are on: each figure's name and its dimensions."""
    metrics = [
        query["MetricStat"]["Metric"]
        for alarm in ALARMS.values()
        for query in alarm.get("Metrics", ())
        if "MetricStat" in query
    ]
    metrics += [alarm for alarm in ALARMS.values() if "Dimensions" in alarm]  # those of the logs' filters have none
    found = [metric for metric in metrics if metric["Namespace"] == NAMESPACE]
    for metric in found:
        values = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        assert values["Stage"] == {"Ref": "Stage"}
        assert values.get("Lane", Lane.LEAVE) in set(Lane)
    return [(metric["MetricName"], frozenset(each["Name"] for each in metric["Dimensions"])) for metric in found]


def test_alarms_are_on_figures_that_the_functions_write_with_just_their_dimensions() -> None:
    of_stage, of_lane = frozenset({"Stage"}), frozenset({"Stage", "Lane"})
    assert set(ours()) <= {(metric, of_lane if metric in OF_A_LANE else of_stage) for metric in Metric}
    watched = {Metric.LAUNCHES, Metric.FAILURES, Metric.STORE_REFUSALS, Metric.PURGES_OUTSTANDING, Metric.LANE_AGE}
    assert {name for name, _ in ours()} == watched
    assert sum(name == Metric.LANE_AGE for name, _ in ours()) == len(Lane)


def test_the_dashboard_shows_every_figure_of_the_hubs_own_and_functions_and_queues_that_exist() -> None:
    body = properties("Dashboard")["DashboardBody"]["Fn::Sub"].replace("${Stage}", "test")
    shown = [metric for widget in json.loads(body)["widgets"] for metric in widget["properties"]["metrics"]]
    ours = {(name, *dimensions) for space, name, *dimensions in map(plain, shown) if space == NAMESPACE}
    assert {name for name, *_ in ours} == set(Metric)
    assert {tuple(dimensions) for _, *dimensions in ours} <= {
        ("Stage", "test"),
        *(("Stage", "test", "Lane", lane.value) for lane in Lane),
    }
    functions = {metric[3] for metric in shown if metric[0] == "AWS/Lambda"}
    assert functions == {"homeport-test", *(f"homeport-test-{lane}" for lane in Lane), "homeport-test-redrive"}
    queues = {metric[3] for metric in shown if metric[0] == "AWS/SQS"}
    assert queues == {*(f"homeport-test-{lane}" for lane in Lane), "homeport-test-dead-letter"}


def plain(metric: list[Any]) -> list[str]:
    """A dashboard's metric without how it is drawn."""
    return [part for part in metric if isinstance(part, str)]


def test_a_schedule_that_does_not_run_is_an_alarm() -> None:
    assert [name for name, alarm in ALARMS.items() if alarm["TreatMissingData"] == "breaching"] == ["LaneAgeAlarm"]


def test_the_operators_page_says_what_every_figure_counts_and_what_to_do_at_every_alarm() -> None:
    assert [metric for metric in Metric if f"`{metric}`" not in OPERATIONS] == []
    names = [alarm["AlarmName"]["Fn::Sub"].removeprefix("homeport-${Stage}-") for alarm in ALARMS.values()]
    rows = [line.split(" | ") for line in OPERATIONS.splitlines() if line.startswith("| `…-")]
    assert [name for name in names if not any(f"`…-{name}`" in row[0] and len(row) == 3 for row in rows)] == []


def config() -> dict[str, Any]:
    return dict(json.loads((ROOT / ".chalice" / "config.json").read_text()))
