"""What `make doctor` says of a stage that is deployed to moto: of all that is well, and of each thing that is not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from chalicelib.session.lanes import Lane
from infra import inside
from infra.certificates import NAMES
from infra.doctor import look_inside
from infra.findings import Finding
from infra.indexes import indexes
from infra.project import render_policy
from infra.request import read_request
from infra.roles import Role
from infra.rotate import Rotation
from tests.deployment import OPTIONS, Rig, aws_environment, rig
from tests.moto_gaps import fill_gaps
from tests.operator_calls import not_allowed
from tests.policies import ROOT, template

NAME = "homeport-test"
LAMBDAS = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
ALARM = {
    "AlarmDescription": "It burns.",
    "MetricName": "Errors",
    "Namespace": "AWS/Lambda",
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 0,
    "ComparisonOperator": "GreaterThanThreshold",
}
Look = Callable[..., list[Finding]]

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A stage as a deployment makes it, with what moto leaves out of it."""
    with rig(tmp_path_factory.mktemp("doctor")) as started:
        done = started.deploy()
        assert done.returncode == 0, done.stdout + done.stderr
        started.said = done.stdout
        fill_gaps(started.client, started.outputs())
        for name in inside.alarm_names((started.project / "infra" / "resources.yaml").read_text(), "test"):
            started.client("cloudwatch").put_metric_alarm(AlarmName=name, **ALARM)
        yield started


@pytest.fixture
def look(hub: Rig, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Look at the stage from inside: some seconds later, with other options."""
    for name, value in aws_environment(hub.endpoint).items():
        monkeypatch.setenv(name, value)

    def at(later: float = 0.0, **options: str) -> list[Finding]:
        request = read_request("test", {**OPTIONS, **options})
        return list(look_inside(request, boto3.Session(), now=time.time() + later))

    return at


def bad(found: list[Finding]) -> list[Finding]:
    """What is not well, but for the proxy's stack, which this stage has not."""
    for one in found:
        assert bool(one.mend) == (one.good is not True), one
    return [one for one in found if one.good is not True and "homeport-test-proxy" not in one.what]


def test_of_what_was_deployed_all_is_well(hub: Rig, look: Look) -> None:
    hub.gateway.calls.clear()
    found = look()
    assert bad(found) == []
    assert len(found) >= 30
    assert not_allowed(hub.gateway.calls) == set()
    names = {call.name for call in hub.gateway.calls}
    assert {name for name in names if not name.startswith(("GET ", "Describe", "Get", "List", "Batch"))} == set()


def test_a_deployment_ends_with_what_doctor_says(hub: Rig) -> None:
    assert "ok: the stack homeport-test is complete" in hub.said
    assert "ok: the lane launch takes messages, 40 at once" in hub.said
    assert "make doctor STAGE=test" in hub.said


@dataclass(frozen=True)
class Breakage:
    """What somebody does to a stage, how that is taken back, and what is said of it in between."""

    make: Callable[[Rig], Any]
    undo: Callable[[Rig], Any]
    good: bool | None
    says: str


def _bucket(hub: Rig) -> str:
    return hub.outputs()["Bucket"]


def _key(hub: Rig) -> str:
    return hub.outputs()["Key"]


def _key_id(hub: Rig) -> str:
    return _key(hub).rpartition("/")[2]  # the one form that moto takes to disable a key


def _fill(hub: Rig) -> None:
    fill_gaps(hub.client, hub.outputs())


def _pull(**change: Any) -> Callable[[Rig], Any]:
    return lambda hub: hub.client("lambda").update_function_configuration(FunctionName=f"{NAME}-pull", **change)


def _told(**variables: str | None) -> Callable[[Rig], Any]:
    def tell(hub: Rig) -> None:
        now = {**hub.variables(f"{NAME}-pull"), **variables}
        _pull(Environment={"Variables": {name: value for name, value in now.items() if value is not None}})(hub)

    return tell


def _source(**change: Any) -> Callable[[Rig], Any]:
    def update(hub: Rig) -> None:
        (uuid,) = (one["UUID"] for one in hub.mappings() if one["FunctionArn"].endswith("-leave"))
        hub.client("lambda").update_event_source_mapping(UUID=uuid, **change)

    return update


def _queue(lane: str, **attributes: str) -> Callable[[Rig], Any]:
    def change(hub: Rig) -> None:
        url = hub.client("sqs").get_queue_url(QueueName=f"{NAME}-{lane}")["QueueUrl"]
        hub.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)

    return change


def _fails_to(queue: str) -> Callable[[Rig], Any]:
    def change(hub: Rig) -> None:
        arn = hub.outputs()["WatchQueueArn"].rpartition(":")[0] + f":{NAME}-{queue}"
        policy = {"deadLetterTargetArn": arn, "maxReceiveCount": 5}
        _queue("watch", RedrivePolicy=json.dumps(policy))(hub)

    return change


def _alarm(state: str) -> Callable[[Rig], Any]:
    return lambda hub: hub.client("cloudwatch").set_alarm_state(
        AlarmName=f"{NAME}-dead-letter", StateValue=state, StateReason="test"
    )


def _role(call: str, **arguments: str) -> Callable[[Rig], Any]:
    return lambda hub: getattr(hub.client("iam"), call)(RoleName=ROLE, **arguments)


def _policy(change: Callable[[str], str]) -> Callable[[Rig], Any]:
    text = (ROOT / "infra" / "policies" / "leave.json").read_text()
    return lambda hub: _role("put_role_policy", PolicyName=ROLE, PolicyDocument=_changed(text, change, hub))(hub)


def _changed(text: str, change: Callable[[str], str], hub: Rig) -> str:
    return change(render_policy(text, hub.outputs()))


def _attach(hub: Rig) -> None:
    made = hub.client("iam").create_policy(PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
    _role("attach_role_policy", PolicyArn=made["Policy"]["Arn"])(hub)


def _detach(hub: Rig) -> None:
    iam = hub.client("iam")
    for one in iam.list_attached_role_policies(RoleName=ROLE)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=ROLE, PolicyArn=one["PolicyArn"])
        iam.delete_policy(PolicyArn=one["PolicyArn"])


def _trust(**change: Any) -> Callable[[Rig], Any]:
    document = json.dumps({"Version": "2012-10-17", "Statement": [{**LAMBDAS, **change}]})
    return _role("update_assume_role_policy", PolicyDocument=document)


def _encrypt(hub: Rig) -> None:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": _key(hub)}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    hub.client("s3").put_bucket_encryption(Bucket=_bucket(hub), ServerSideEncryptionConfiguration=rules)


def _protect(on: bool) -> Callable[[Rig], Any]:
    return lambda hub: hub.client("dynamodb").update_table(
        TableName=hub.outputs()["Table"], DeletionProtectionEnabled=on
    )


def _protect_stack(on: bool) -> Callable[[Rig], Any]:
    return lambda hub: hub.client("cloudformation").update_termination_protection(
        StackName=NAME, EnableTerminationProtection=on
    )


def _open_to_all(hub: Rig) -> None:
    policy = json.loads(hub.client("kms").get_key_policy(KeyId=_key(hub), PolicyName="default")["Policy"])
    DENIALS.extend(one for one in policy["Statement"] if one["Effect"] == "Deny")
    _write(hub, [one for one in policy["Statement"] if one not in DENIALS[:1]])


def _deny_again(hub: Rig) -> None:
    policy = json.loads(hub.client("kms").get_key_policy(KeyId=_key(hub), PolicyName="default")["Policy"])
    _write(hub, [*policy["Statement"], DENIALS[0]])


def _write(hub: Rig, statements: list[dict[str, Any]]) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    hub.client("kms").put_key_policy(KeyId=_key(hub), PolicyName="default", Policy=policy)


DENIALS: list[dict[str, Any]] = []  # of the key's policy, while it lacks one
RULE = f"{NAME}-redrive-event"
ROLE = f"{NAME}-leave"
PULL = json.loads((ROOT / ".chalice" / "config.json").read_text())["lambda_functions"]["pull"]
EVERYTHING = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
BREAKAGES = {
    "public": Breakage(
        lambda hub: hub.client("s3").delete_public_access_block(Bucket=_bucket(hub)),
        _fill,
        False,
        "does not block public access",
    ),
    "lifecycle": Breakage(
        lambda hub: hub.client("s3").delete_bucket_lifecycle(Bucket=_bucket(hub)),
        _fill,
        False,
        "keeps for ever what is forgotten below credentials/",
    ),
    "bucket policy": Breakage(
        lambda hub: hub.client("s3").delete_bucket_policy(Bucket=_bucket(hub)),
        _fill,
        False,
        "lacks TlsOnly, NobodyButTheLauncherReadsCredentials",
    ),
    "encryption": Breakage(
        lambda hub: hub.client("s3").delete_bucket_encryption(Bucket=_bucket(hub)),
        _encrypt,
        False,
        "does not encrypt with the stage's key",
    ),
    "key": Breakage(
        lambda hub: hub.client("kms").disable_key(KeyId=_key_id(hub)),
        lambda hub: hub.client("kms").enable_key(KeyId=_key_id(hub)),
        False,
        "the key is Disabled",
    ),
    "rotation": Breakage(
        lambda hub: hub.client("kms").disable_key_rotation(KeyId=_key(hub)),
        lambda hub: hub.client("kms").enable_key_rotation(KeyId=_key(hub)),
        False,
        "does not rotate",
    ),
    "key policy": Breakage(_open_to_all, _deny_again, False, "lacks NobodyButTheLauncherOpensCredentials:"),
    "backup": Breakage(
        lambda hub: hub.client("dynamodb").update_continuous_backups(
            TableName=hub.outputs()["Table"], PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
        ),
        _fill,
        False,
        "no point-in-time recovery",
    ),
    "protection": Breakage(_protect(False), _protect(True), False, "not protected from deletion"),
    "stack": Breakage(
        _protect_stack(False), _protect_stack(True), False, "the key with it, are not protected from deletion"
    ),
    "door": Breakage(
        lambda hub: hub.make("door", "--close", "Back at noon."),
        lambda hub: hub.make("door"),
        None,
        "closed for launches and says: Back at noon.",
    ),
    "runtime": Breakage(
        _pull(Runtime="python3.11"),
        _pull(Runtime="python3.13"),
        None,
        "Amazon Linux 2 (glibc 2.26), which has no memfd",
    ),
    "limits": Breakage(
        _pull(Timeout=600, MemorySize=128),
        _pull(Timeout=PULL["lambda_timeout"], MemorySize=PULL["lambda_memory_size"]),
        None,
        f"Timeout is 600, not {PULL['lambda_timeout']}, MemorySize is 128, not {PULL['lambda_memory_size']}",
    ),
    "tracing": Breakage(
        _pull(TracingConfig={"Mode": "Active"}),
        _pull(TracingConfig={"Mode": "PassThrough"}),
        None,
        "the tracing of homeport-test-pull is Active, and these options make that PassThrough",
    ),
    "environment": Breakage(
        _told(HOMEPORT_HUB_NAME="another", HOMEPORT_IMAGE=None, MINE="s3cret"),
        _told(HOMEPORT_HUB_NAME=NAME, HOMEPORT_IMAGE=OPTIONS["HOMEPORT_IMAGE"], MINE=None),
        None,
        "it is not told HOMEPORT_IMAGE; it is told besides MINE; other values HOMEPORT_HUB_NAME",
    ),
    "policy": Breakage(
        _policy(lambda text: text.replace("sqs:DeleteMessage", "sqs:*")),
        _policy(str),
        False,
        "homeport-test-leave does not have the policy infra/policies/leave.json as this checkout has it",
    ),
    "another inline policy": Breakage(
        _role("put_role_policy", PolicyName="x", PolicyDocument=json.dumps(EVERYTHING)),
        _role("delete_role_policy", PolicyName="x"),
        False,
        "homeport-test-leave has the policy x besides its own",
    ),
    "an attached policy": Breakage(_attach, _detach, False, ":policy/all besides its own"),
    "another principal": Breakage(
        _trust(Principal={"Service": "lambda.amazonaws.com", "AWS": "*"}), _trust(), False, "others than Lambda"
    ),
    "a trust of nobody": Breakage(_trust(Effect="Deny"), _trust(), False, "or not by Lambda"),
    "event source": Breakage(_source(Enabled=False), _source(Enabled=True), False, "is Disabled: its messages wait"),
    "limit of an event source": Breakage(
        _source(ScalingConfig={"MaximumConcurrency": 3}),
        _source(ScalingConfig={"MaximumConcurrency": 20}),
        None,
        "homeport-test-leave may run 3 times at once, and these options make that 20",
    ),
    "visibility": Breakage(
        _queue("launch", VisibilityTimeout="30"),
        _queue("launch", VisibilityTimeout="720"),
        False,
        "hides a message for 30 seconds",
    ),
    "dead letters": Breakage(
        _fails_to("launch"), _fails_to("dead-letter"), False, "does not go to homeport-test-dead-letter"
    ),
    "schedule": Breakage(
        lambda hub: hub.client("events").disable_rule(Name=RULE),
        lambda hub: hub.client("events").enable_rule(Name=RULE),
        False,
        "is DISABLED",
    ),
    "failed messages": Breakage(
        lambda hub: hub.client("sqs").send_message(QueueUrl=hub.outputs()["DeadLetterQueueUrl"], MessageBody="x"),
        lambda hub: hub.client("sqs").purge_queue(QueueUrl=hub.outputs()["DeadLetterQueueUrl"]),
        None,
        "messages failed for good: 1",
    ),
    "alarm": Breakage(
        _alarm("ALARM"), _alarm("OK"), False, "the alarm homeport-test-dead-letter has gone off: It burns."
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_said_and_nothing_else(name: str, hub: Rig, look: Look) -> None:
    """Nor what was broken before: the test of one shows that the one before it was taken back."""
    broken = BREAKAGES[name]
    broken.make(hub)
    try:
        (found,) = bad(look())
    finally:
        broken.undo(hub)
    assert found.good is broken.good
    assert broken.says in found.what
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        ("DescribeTable", "the table: AWS does not say"),
        ("DescribeKey", "the key: AWS does not say"),
        ("GET /2015-03-31/functions/.*/configuration", "the functions: AWS does not say"),
        ("GetRolePolicy", "the roles: AWS does not say"),
        ("DescribeAlarms", "alarms: AWS does not say"),
        ("GET /restapis", "the API: AWS does not say"),
        ("GET /2016-08-19/account-settings", "quota of concurrent functions cannot be read"),
        ("BatchGetItem", "whether visitors may launch: not looked at"),
    ],
)
def test_what_aws_does_not_say_hides_nothing_else(refused: str, says: str, hub: Rig, look: Look) -> None:
    whole = len(look())
    hub.gateway.refused = refused
    found = look()
    hub.gateway.refused = ""
    (unknown,) = bad(found)
    assert unknown.good is None
    assert says in unknown.what
    assert len(found) > whole - 6  # the six functions are one look


def test_a_stack_that_aws_does_not_describe_is_said(hub: Rig, look: Look) -> None:
    hub.gateway.refused = "DescribeStacks"
    place, unknown = look()
    hub.gateway.refused = ""
    assert (place.good, unknown.good) == (True, None)
    assert "nothing of homeport-test was looked at" in unknown.what


def test_other_options_than_those_of_the_deployment_are_named(look: Look) -> None:
    found = bad(look(HOMEPORT_FUNCTIONS="50", HOMEPORT_IDLE_MINUTES="30"))
    assert sum("it is not told HOMEPORT_FUNCTIONS, HOMEPORT_IDLE_MINUTES" in one.what for one in found) == 6
    assert sum("times at once, and these options make that" in one.what for one in found) == 4
    quota, *_ = bad(look(HOMEPORT_FUNCTIONS="1200"))
    assert "1200 of the account's 1000" in quota.what


def test_a_certificate_that_is_lost_and_a_rotation_that_was_forgotten_are_said(hub: Rig, look: Look) -> None:
    ssm = hub.client("ssm")
    rotation = Rotation(ssm, "/homeport/test", _key(hub), "client", 1.0, time.time())
    rotation.take("begin")
    assert bad(look(later=30 * 86400)) == []
    (forgotten,) = bad(look(later=32 * 86400))
    rotation.take("switch", forced=True)
    rotation.take("end", forced=True)
    assert forgotten.good is None
    assert "the rotation of the client CA was begun 32 days ago" in forgotten.what
    assert "make rotate STAGE=test CA=client STEP=switch" in forgotten.mend
    lost = f"/homeport/test/{NAMES[0]}"
    kept = ssm.get_parameter(Name=lost, WithDecryption=True)["Parameter"]["Value"]
    ssm.delete_parameter(Name=lost)
    (missing,) = bad(look())
    ssm.put_parameter(Name=lost, Value=kept, Type="SecureString", KeyId=_key(hub))
    assert missing.good is False
    assert missing.what.endswith(lost)


def test_what_is_not_there_is_said(hub: Rig) -> None:
    lambda_ = hub.client("lambda")
    assert inside.schedule(hub.client("events"), "none").good is False
    (gone,) = inside.roles(hub.client("iam"), "none", {"launch": [{}]})
    assert (gone.good, gone.what) == (False, "there is no role homeport-none-launch")
    (gone,) = inside.functions(lambda_, "none", {"launch": {}}, {})
    assert gone.what == "there is no function homeport-none-launch"
    lane, arn = Lane.LAUNCH, hub.outputs()["LaunchQueueArn"] + "-none"
    found = inside.lanes(hub.client("sqs"), lambda_, "none", {lane: arn}, {lane: 1}, {lane: 1})
    assert [one.what.partition(" homeport")[0] for one in found] == [
        "there is no queue",
        "nothing takes the messages of the lane launch to",
    ]
    assert inside.stack(hub.client("cloudformation"), "homeport-none", "make it").mend == "Run `make it`."
    (none,) = inside.alarms(hub.client("cloudwatch"), ["homeport-none-x"])
    assert none.good is None


def test_a_lane_whose_messages_somebody_else_takes_is_wrong(hub: Rig, look: Look) -> None:
    arn = hub.outputs()["LeaveQueueArn"]
    made = hub.client("lambda").create_event_source_mapping(EventSourceArn=arn, FunctionName=f"{NAME}-redrive")
    (found,) = bad(look())
    hub.client("lambda").delete_event_source_mapping(UUID=made["UUID"])
    assert "taken away by homeport-test-redrive" in found.what


def test_an_address_of_the_api_beside_the_hubs_domain_is_said(hub: Rig) -> None:
    gateway = hub.client("apigateway")
    assert inside.api(gateway, "none", "").good is None
    assert inside.api(gateway, "test", "hub.example.com").good is True
    gateway.create_domain_name(domainName="hub.example.com")
    (api,) = hub.apis()
    gateway.create_base_path_mapping(domainName="hub.example.com", restApiId=api["id"], stage="api")
    found = inside.api(gateway, "test", "hub.example.com")
    gateway.delete_base_path_mapping(domainName="hub.example.com", basePath="(none)")
    gateway.delete_domain_name(domainName="hub.example.com")
    assert found.good is None
    assert "past what protects hub.example.com" in found.what


@dataclass(frozen=True)
class Answers:
    """A client that gives one answer."""

    said: Any

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **_: self.said


@pytest.mark.parametrize(("status", "good"), [(None, True), ("Suspended", False), ("Enabled", False)])
def test_a_bucket_that_keeps_versions_is_wrong(status: str | None, good: bool) -> None:
    assert inside.bucket_versions(Answers({"Status": status} if status else {}), "homeport-test").good is good


@pytest.mark.parametrize(
    ("services", "good"),
    [
        ([], False),
        ([{"runningCount": 0, "desiredCount": 0}], False),
        ([{"runningCount": 0, "desiredCount": 2}], False),
        ([{"runningCount": 1, "desiredCount": 2}], None),
        ([{"runningCount": 2, "desiredCount": 2}], True),
        ([{"runningCount": 3, "desiredCount": 2}], True),
    ],
)
def test_proxies_are_counted(services: list[dict[str, int]], good: bool | None) -> None:
    assert inside.proxy_service(Answers({"services": services}), "test").good is good


@pytest.mark.parametrize(
    ("status", "good"),
    [
        ("UPDATE_COMPLETE", True),
        ("UPDATE_IN_PROGRESS", None),
        ("UPDATE_ROLLBACK_COMPLETE", None),
        ("ROLLBACK_COMPLETE", False),
        ("UPDATE_ROLLBACK_FAILED", False),
    ],
)
def test_a_stacks_status_is_judged(status: str, good: bool | None) -> None:
    assert inside.stack(Answers({"Stacks": [{"StackStatus": status}]}), "homeport-test", "make it").good is good


@pytest.mark.parametrize(
    ("indexes", "good"),
    [({}, False), ({"feed": "ACTIVE", "listing": "ACTIVE", "redrive": "ACTIVE", "ring": "CREATING"}, None)],
)
def test_an_index_that_is_not_there_or_not_yet_is_said(indexes: dict[str, str], good: bool | None) -> None:
    listed = [{"IndexName": name, "IndexStatus": status} for name, status in indexes.items()]
    answered = Answers({"Table": {"GlobalSecondaryIndexes": listed, "DeletionProtectionEnabled": True}})
    first, *_ = inside.table(answered, "homeport-test-table")
    assert first.good is good


def test_an_index_that_is_not_ours_any_more_is_said() -> None:
    listed = [{"IndexName": name} for name in (*inside.INDEXES, "owner")]
    answered = Answers({"Table": {"GlobalSecondaryIndexes": listed, "DeletionProtectionEnabled": True}})
    _, more, _ = inside.table(answered, "homeport-test-table")
    assert (more.good, more.what) == (None, "the table has the index owner, which this version does not read")


def test_the_indexes_that_are_looked_for_are_those_of_the_template() -> None:
    assert set(inside.INDEXES) == indexes(template("resources.yaml")).keys()


@pytest.mark.parametrize(
    ("trust", "good"),
    [
        ({"Action": ["sts:AssumeRole"], "Principal": {"Service": ["lambda.amazonaws.com"]}}, True),  # as SAM writes it
        ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, False),
        ({"Action": ["sts:AssumeRole", "sts:TagSession"]}, False),
        ({"Principal": {"Service": ["lambda.amazonaws.com", "ec2.amazonaws.com"]}}, False),
    ],
)
def test_a_role_is_lambdas_alone(trust: Any, good: bool) -> None:
    role = Role({"Statement": {**LAMBDAS, **trust}}, {}, ())
    assert [one.good for one in inside.trust("homeport-test-leave", role)] == [False] * (not good)


@pytest.mark.parametrize(("status", "good"), [("InProgress", None), ("Failed", False)])
def test_an_update_that_is_not_over_is_said(status: str, good: bool | None) -> None:
    found = {"Runtime": "python3.13", "Timeout": 1, "MemorySize": 2, "LastUpdateStatus": status}
    settings = {"launch": {"lambda_timeout": 1, "lambda_memory_size": 2}}
    (one,) = inside.functions(Answers(found), "test", settings, {})
    assert one.good is good
