"""Who may do what: every role's statements, tried with the requests that matter."""

from __future__ import annotations

import re

import pytest

from chalicelib.session.lanes import Lane
from infra.project import POLICIES
from tests.policies import (
    ACCOUNT,
    OUTPUTS,
    ROOT,
    Context,
    Document,
    allows,
    denied,
    function_policy,
    listed,
    proxy_policy,
    resource_policy,
    statements,
)

ROLES: dict[str, Document] = {
    "web": function_policy("web"),
    **{lane.value: function_policy(lane) for lane in Lane},
    "redrive": function_policy("redrive"),
    "proxy": proxy_policy("TaskRole"),
    "proxy-start": proxy_policy("ExecutionRole"),
}
TABLE, BUCKET, KEY = OUTPUTS["TableArn"], OUTPUTS["BucketArn"], OUTPUTS["KeyArn"]
CERTIFICATES = OUTPUTS["CertificatesArn"]
LANES: set[str] = set(Lane)
OBJECT = f"{BUCKET}/credentials/abc/1"
NAMES = ["homeport:session", "homeport:generation", "homeport:owner"]


def sealed(*names: str) -> Context:
    """The condition keys of a KMS request with these names in its encryption context."""
    return {"kms:EncryptionContextKeys": list(names), **{f"kms:EncryptionContext:{name}": "value" for name in names}}


def through_s3(arn: str) -> Context:
    return {"kms:ViaService": OUTPUTS["S3Service"], "kms:EncryptionContext:aws:s3:arn": arn, **_keys("aws:s3:arn")}


def through_ssm(name: str) -> Context:
    arn = f"{CERTIFICATES}/{name}"
    return {
        "kms:ViaService": OUTPUTS["SsmService"],
        "kms:EncryptionContext:PARAMETER_ARN": arn,
        **_keys("PARAMETER_ARN"),
    }


def _keys(name: str) -> Context:
    return {"kms:EncryptionContextKeys": [name]}


def item(kind: str) -> Context:
    return {"dynamodb:LeadingKeys": [f"{kind}#0123"]}


def who(action: str, resource: str, context: Context | None = None) -> set[str]:
    """The roles that may."""
    return {name for name, policy in ROLES.items() if allows(policy, action, resource, context)}


# ── credentials ──


def test_the_web_function_seals_and_cannot_open() -> None:
    assert who("kms:GenerateDataKey", KEY, sealed(*NAMES)) == {"web"}
    assert who("s3:PutObject", OBJECT) == {"web"}
    assert who("kms:GenerateDataKey", KEY, through_s3(OBJECT)) == {"web"}
    for context in (sealed(*NAMES), through_s3(OBJECT), through_ssm("notebook-ca"), {}):
        assert not allows(ROLES["web"], "kms:Decrypt", KEY, context)
    for action in ("s3:GetObject", "s3:GetObjectVersion", "s3:DeleteObject", "s3:ListBucket"):
        assert not allows(ROLES["web"], action, OBJECT)
        assert not allows(ROLES["web"], action, BUCKET)


def test_the_lanes_open_and_one_of_them_deletes_and_none_can_write() -> None:
    assert who("kms:Decrypt", KEY, sealed(*NAMES)) == LANES
    assert who("kms:Decrypt", KEY, through_s3(OBJECT)) == LANES
    assert who("s3:GetObject", OBJECT) == LANES
    assert who("s3:ListBucket", BUCKET) == LANES  # else S3 does not tell what is gone from what is forbidden
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion"):
        assert who(action, OBJECT) == {Lane.LEAVE}
    assert who("s3:ListBucketVersions", BUCKET) == {Lane.LEAVE}
    for action in ("s3:PutObject", "kms:GenerateDataKey", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"):
        for context in (sealed(*NAMES), through_s3(OBJECT)):
            assert not who(action, OBJECT, context) & LANES
            assert not who(action, KEY, context) & LANES


@pytest.mark.parametrize("names", [[], NAMES[:2], NAMES[1:], [*NAMES, "more"], ["other"]])
def test_a_data_key_that_is_not_bound_to_a_whole_session_is_refused(names: list[str]) -> None:
    assert who("kms:GenerateDataKey", KEY, sealed(*names)) == set()
    assert who("kms:Decrypt", KEY, sealed(*names)) == set()


def test_only_objects_under_credentials_can_be_reached() -> None:
    for other in (f"{BUCKET}/other", f"{BUCKET}/credentials", "arn:aws:s3:::another/credentials/abc/1"):
        for action in ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"):
            assert who(action, other) == set()
        assert who("kms:GenerateDataKey", KEY, through_s3(other)) == set()
        assert who("kms:Decrypt", KEY, through_s3(other)) == set()


def test_neither_the_schedule_nor_the_proxy_touches_credentials() -> None:
    for role in ("redrive", "proxy", "proxy-start"):
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "kms:Decrypt", "kms:GenerateDataKey"):
            for context in (sealed(*NAMES), through_s3(OBJECT), {}):
                assert not allows(ROLES[role], action, OBJECT, context)
                assert not allows(ROLES[role], action, KEY, context)


# ── the hub's own certificates ──


def test_each_certificate_is_read_by_those_who_need_it_alone() -> None:
    readers = {
        name: who("ssm:GetParameter", f"{CERTIFICATES}/{name}") | who("ssm:GetParameters", f"{CERTIFICATES}/{name}")
        for name in ("notebook-ca", "notebook-ca-certificate", "client-ca", "launcher-client", "proxy-client")
    }
    assert readers == {
        "notebook-ca": {Lane.LAUNCH},
        "notebook-ca-certificate": {"proxy-start", Lane.WATCH},
        "client-ca": {Lane.LAUNCH, Lane.WATCH},
        "launcher-client": {Lane.LAUNCH, Lane.WATCH},
        "proxy-client": {"proxy-start"},
    }
    for name, expected in readers.items():
        assert who("kms:Decrypt", KEY, through_ssm(name)) == expected


def test_nobody_writes_certificates() -> None:
    for name in ("notebook-ca", "client-ca", "proxy-client"):
        for action in ("ssm:PutParameter", "ssm:DeleteParameter"):
            assert who(action, f"{CERTIFICATES}/{name}") == set()


# ── the table ──


@pytest.mark.parametrize(
    ("action", "readers"),
    [
        (
            "dynamodb:GetItem",
            {
                "session": {"web", *LANES},
                "slots": LANES,
                "token": {"web"},
                "signed-out": set(),
                "ticket": set(),
                "route": {"proxy"},
                "grant": {"proxy"},
                "owner": {Lane.LAUNCH},
            },
        ),
        (
            "dynamodb:BatchGetItem",
            {
                "session": {"web"},
                "token": set(),
                "signed-out": {"web", "proxy"},
                "ticket": set(),
                "route": set(),
                "grant": set(),
                "slots": set(),
                "owner": set(),
            },
        ),
        (
            "dynamodb:PutItem",
            {
                "session": {"web", *LANES},
                "slots": LANES,
                "token": {"web"},
                "signed-out": {"web"},
                "ticket": {"web"},
                "route": {Lane.LAUNCH, Lane.LEAVE},
                "grant": {"proxy"},
                "owner": {Lane.LAUNCH},
            },
        ),
        (
            "dynamodb:DeleteItem",
            {
                "session": set(),
                "token": set(),
                "signed-out": set(),
                "ticket": {"proxy"},
                "route": set(),
                "grant": set(),
                "slots": set(),
                "owner": {Lane.LAUNCH},
            },
        ),
        (
            "dynamodb:UpdateItem",
            {
                "session": {"redrive"},
                "token": set(),
                "signed-out": set(),
                "ticket": set(),
                "route": set(),
                "grant": set(),
                "slots": set(),
                "owner": set(),
            },
        ),
    ],
)
def test_each_kind_of_item_has_its_own_readers_and_writers(action: str, readers: dict[str, set[str]]) -> None:
    assert {kind: who(action, TABLE, item(kind)) for kind in readers} == readers
    assert who(action, TABLE, {}) == set(), "a request that names no key"


def test_each_index_has_one_reader() -> None:
    names = ("listing", "redrive", "ring", "feed")
    indexes = {name: who("dynamodb:Query", f"{TABLE}/index/{name}") for name in names}
    assert indexes == {"listing": {"web"}, "redrive": {"redrive"}, "ring": {"redrive"}, "feed": {"proxy"}}


@pytest.mark.parametrize(("attribute", "writer"), [("redrive_at", "redrive"), ("session", None)])
def test_of_a_sessions_item_one_attribute_may_be_changed_alone(attribute: str, writer: str | None) -> None:
    context = {**item("session"), "dynamodb:Attributes": ["pk", "sk", attribute]}
    assert who("dynamodb:UpdateItem", TABLE, context) == ({writer} if writer else set())
    assert who("dynamodb:UpdateItem", TABLE, {**context, "dynamodb:ReturnValues": "ALL_OLD"}) == set()


def test_of_the_table_itself_a_sessions_log_and_an_owners_images_alone_are_queried() -> None:
    kinds = ("session", "owner", "token", "ticket", "route", "grant", "slots")
    readers = {kind: who("dynamodb:Query", TABLE, item(kind)) for kind in kinds}
    assert readers == {
        "session": {"web"},
        "owner": {"web", Lane.LAUNCH},
        "token": set(),
        "ticket": set(),
        "route": set(),
        "grant": set(),
        "slots": set(),
    }
    assert who("dynamodb:Query", TABLE) == set(), "a request that names no key"


def test_nobody_scans_or_changes_the_table_itself() -> None:
    for resource in (TABLE, f"{TABLE}/index/listing", f"{TABLE}/index/feed", f"{TABLE}/index/redrive"):
        for action in ("dynamodb:Scan", "dynamodb:BatchWriteItem", "dynamodb:DeleteTable", "dynamodb:PartiQLSelect"):
            assert who(action, resource, item("session")) == set()


# ── the queues ──


@pytest.mark.parametrize("lane", Lane)
def test_everybody_behind_the_page_may_ask_for_ticks_and_a_lanes_function_alone_takes_them(lane: Lane) -> None:
    queue = OUTPUTS[f"{lane.capitalize()}QueueArn"]
    page = set() if lane is Lane.PULL else {"web"}  # pulls are admitted by the launch lane
    proxy = {"proxy"} if lane is Lane.WATCH else set()
    assert who("sqs:SendMessage", queue) == {*LANES, *page, *proxy, "redrive"}
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage"):
        assert who(action, queue) == {lane}
    assert who("sqs:GetQueueAttributes", queue) == {lane, *({"redrive"} if lane is Lane.WATCH else ())}
    assert who("sqs:PurgeQueue", queue) == set()


# ── form ──


@pytest.mark.parametrize("role", ROLES)
def test_no_action_is_a_wildcard_and_no_resource_is_everything(role: str) -> None:
    for statement in statements(ROLES[role]):
        assert not any("*" in action or "?" in action for action in listed(statement["Action"]))
        for resource in listed(statement["Resource"]):
            assert re.fullmatch(r"arn:aws:[a-z0-9]+:[^*]*(/\*|:\*)?", resource), resource


@pytest.mark.parametrize("role", ["web", *Lane, "redrive"])
def test_a_function_writes_its_own_log_and_no_other(role: str) -> None:
    stream = {
        name: OUTPUTS[f"{name.capitalize()}LogsArn"].removesuffix("*") + "log-stream:2026/11/23/[$LATEST]ab"
        for name in ("web", *Lane, "redrive")
    }
    for name, arn in stream.items():
        assert allows(ROLES[role], "logs:PutLogEvents", arn) == (name == role)
        assert not allows(ROLES[role], "logs:CreateLogGroup", arn)


def test_a_function_that_is_traced_may_tell_x_ray_and_do_no_more_than_others() -> None:
    for name in POLICIES.values():
        added = [one for one in statements(function_policy(name, traced=True)) if one not in statements(ROLES[name])]
        assert [one["Action"] for one in added] == [["xray:PutTraceSegments", "xray:PutTelemetryRecords"]]


def test_every_placeholder_of_a_policy_is_an_output_of_the_stack() -> None:
    text = (ROOT / "infra" / "resources.yaml").read_text().partition("\nOutputs:\n")[2]
    outputs = set(re.findall(r"^  (\w+):", text, re.MULTILINE))
    for policy in (ROOT / "infra" / "policies").glob("*.json"):
        assert set(re.findall(r"\$\{(\w+)}", policy.read_text())) <= outputs
    exported = set(re.findall(r'Export: \{Name: !Sub "homeport-\$\{Stage}-(\w+)"}', text))
    imported = set(
        re.findall(r'ImportValue": !Sub "homeport-\$\{Stage}-(\w+)"', (ROOT / "infra/proxy.yaml").read_text())
    )
    assert imported == exported - {"AuthorityArn"}  # which proxy stacks of before import


# ── whoever has everything ──


ADMINISTRATORS = [
    f"arn:aws:iam::{ACCOUNT}:role/admin",
    f"arn:aws:iam::{ACCOUNT}:root",
    f"arn:aws:iam::{ACCOUNT}:role/homeport-other-launch",  # another stage's
    f"arn:aws:iam::{ACCOUNT}:role/homeport-test",
    f"arn:aws:iam::{ACCOUNT}:role/homeport-test-redrive",
    f"arn:aws:iam::{ACCOUNT}:role/homeport-test-proxy-TaskRole-1A2B",
]
LAUNCHERS = [f"arn:aws:iam::{ACCOUNT}:role/homeport-test-{lane}" for lane in Lane]
PROXY_START = f"arn:aws:iam::{ACCOUNT}:role/homeport-test-proxy-ExecutionRole-1A2B"


@pytest.mark.parametrize("context", [sealed(*NAMES), sealed(), through_s3(OBJECT), {}])
def test_credentials_are_opened_by_the_launchers_functions_alone_whoever_has_everything(context: Context) -> None:
    key, bucket = resource_policy("Key", "KeyPolicy"), resource_policy("BucketPolicy", "PolicyDocument")
    for principal in [*ADMINISTRATORS, PROXY_START]:
        assert denied(key, principal, "kms:Decrypt", KEY, context)
        assert denied(key, principal, "kms:ReEncryptFrom", KEY, context)
        assert denied(bucket, principal, "s3:GetObject", OBJECT)
        assert not denied(key, principal, "kms:GenerateDataKey", KEY, context)
        assert not denied(key, principal, "kms:PutKeyPolicy", KEY)  # or nobody could change it any more
    for principal in LAUNCHERS:
        assert not denied(key, principal, "kms:Decrypt", KEY, context)
        assert not denied(bucket, principal, "s3:GetObject", OBJECT)


def test_private_keys_of_the_hub_are_read_by_who_uses_them_alone_whoever_has_everything() -> None:
    key = resource_policy("Key", "KeyPolicy")
    for name in ("notebook-ca", "launcher-client", "proxy-client"):
        for principal in ADMINISTRATORS:
            assert denied(key, principal, "kms:Decrypt", KEY, through_ssm(name))
        for principal in (LAUNCHERS[0], PROXY_START):
            assert not denied(key, principal, "kms:Decrypt", KEY, through_ssm(name))
    for name in ("notebook-ca-certificate", "client-ca", "notebook-ca-next", "client-ca-next"):
        assert not denied(key, ADMINISTRATORS[0], "kms:Decrypt", KEY, through_ssm(name))


def test_nobody_speaks_to_the_bucket_in_the_clear() -> None:
    bucket = resource_policy("BucketPolicy", "PolicyDocument")
    for principal in LAUNCHERS:
        assert denied(bucket, principal, "s3:GetObject", OBJECT, {"aws:SecureTransport": "false"})
        assert not denied(bucket, principal, "s3:GetObject", OBJECT, {"aws:SecureTransport": "true"})
