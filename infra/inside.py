"""What AWS says of a stage: whether each of its parts is there, and as infra/resources.yaml and Chalice make it.

Each check is a function of its own, from a client and names to findings. They change nothing, and read no secret: of
certificates the names, of the functions' environment the names.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from chalice.constants import LAMBDA_TRUST_POLICY

from chalicelib.aws.door import DoorStore
from chalicelib.config import TRACING
from chalicelib.session.lanes import Lane, queue_of
from infra.api import find_api, leads_to
from infra.certificates import NAMES, NEXT_NAMES
from infra.findings import Finding
from infra.functions import RUNTIME
from infra.packages import PYTHON
from infra.plain import DIFFERENCES
from infra.preflight import MORE_FUNCTIONS
from infra.project import APP, LANES, NOWHERE, POLICIES, Place, event_sources, function_name, role_name
from infra.quota import Quota
from infra.roles import Document, Role, listed, read_role, statements
from infra.stack import is_protected, stack_status
from infra.tracing import mode

COMPLETE: Final = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})
AT_WORK: Final = "_IN_PROGRESS"
PUBLIC: Final = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
BUCKET_DENIALS: Final = ("TlsOnly", "NobodyButTheLauncherReadsCredentials")
KEY_DENIALS: Final = ("NobodyButTheLauncherOpensCredentials", "NobodyButWhoUsesThemReadsCertificates")
BACKSTOP: Final = "credentials/"  # the prefix whose objects a lifecycle rule deletes
INDEXES: Final = ("feed", "listing", "redrive", "ring")
LAMBDA: Final = "lambda.amazonaws.com"
VISIBILITY: Final = 6  # times the function's timeout, as AWS asks for event sources
MONTH: Final = 31 * 86400.0  # seconds
PARAMETERS_AT_ONCE: Final = 10  # of GetParameters


def stack(cloudformation: Any, name: str, make: str) -> Finding:
    """Look whether a stack is there and complete; `make` is the command that makes it."""
    status = stack_status(cloudformation, name)
    if status is None:
        return Finding(False, f"there is no stack {name} in this account and region", f"Run `{make}`.")
    if status in COMPLETE:
        return Finding(True, f"the stack {name} is complete")
    if status.endswith(AT_WORK):
        return Finding(None, f"the stack {name} is being changed ({status})", "Look again once that is over.")
    what = f"the stack {name} is {status}"
    mend = f"Its last change was undone or failed; its events say why. Then run `{make}` again."
    return Finding(None if status == "UPDATE_ROLLBACK_COMPLETE" else False, what, mend)


def stack_protection(cloudformation: Any, name: str) -> Finding:
    """Look whether a stack, which is there, is protected from being deleted."""
    if is_protected(cloudformation, name):
        return Finding(True, f"the stack {name} is protected from deletion")
    how = f"aws cloudformation update-termination-protection --enable-termination-protection --stack-name {name}"
    return Finding(False, f"the stack {name}, and the key with it, are not protected from deletion", how)


def bucket_closed(s3: Any, name: str) -> Finding:
    """Look whether the bucket of sealed credentials blocks all that is public."""
    found = _or_none(s3, s3.get_public_access_block, "NoSuchPublicAccessBlockConfiguration", Bucket=name)
    if found is not None and all(found["PublicAccessBlockConfiguration"].get(one) for one in PUBLIC):
        return Finding(True, f"the bucket {name} is closed to the public")
    what = f"the bucket {name} does not block public access"
    return Finding(False, what, _restore("aws s3api put-public-access-block"))


def bucket_encryption(s3: Any, name: str, key: str) -> Finding:
    """Look whether the bucket encrypts with the stage's key, an ARN."""
    missing = "ServerSideEncryptionConfigurationNotFoundError"
    found = _or_none(s3, s3.get_bucket_encryption, missing, Bucket=name)
    rules = [] if found is None else found["ServerSideEncryptionConfiguration"]["Rules"]
    defaults = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
    if [(one.get("SSEAlgorithm"), one.get("KMSMasterKeyID")) for one in defaults] == [("aws:kms", key)]:
        return Finding(True, "the bucket encrypts with the stage's key")
    return Finding(
        False, "the bucket does not encrypt with the stage's key", _restore("aws s3api put-bucket-encryption")
    )


def bucket_lifecycle(s3: Any, name: str) -> Finding:
    """Look whether the bucket deletes credentials that nobody deleted."""
    found = _or_none(s3, s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration", Bucket=name)
    for rule in [] if found is None else found["Rules"]:
        prefixes = (rule.get("Prefix"), rule.get("Filter", {}).get("Prefix"))
        if rule["Status"] == "Enabled" and BACKSTOP in prefixes and rule.get("Expiration", {}).get("Days"):
            return Finding(True, f"the bucket deletes what is below {BACKSTOP} after some days, whatever fails")
    what = f"the bucket keeps for ever what is forgotten below {BACKSTOP}"
    return Finding(False, what, _restore("aws s3api put-bucket-lifecycle-configuration"))


def bucket_policy(s3: Any, name: str) -> Finding:
    """Look whether the bucket's policy still denies what it is there to deny."""
    found = _or_none(s3, s3.get_bucket_policy, "NoSuchBucketPolicy", Bucket=name)
    missing = _missing_denials("{}" if found is None else found["Policy"], BUCKET_DENIALS)
    if missing:
        what = f"the bucket's policy lacks {', '.join(missing)}: others may read sealed credentials"
        return Finding(False, what, f"CloudTrail says who did it. {_restore('aws s3api put-bucket-policy')}")
    return Finding(True, "the bucket's policy denies reading credentials to all but the launcher's functions")


def bucket_versions(s3: Any, name: str) -> Finding:
    """Look whether the bucket forgets what is deleted."""
    status = s3.get_bucket_versioning(Bucket=name).get("Status", "")
    if not status:
        return Finding(True, "the bucket keeps no versions of what was deleted")
    what = f"the bucket's versioning is {status.lower()}: credentials that were deleted are, or were, kept"
    mend = (
        f"aws s3api put-bucket-versioning --bucket {name} --versioning-configuration Status=Suspended; then delete "
        f"each version that is not the latest: aws s3api list-object-versions --bucket {name} lists them, "
        f"aws s3api delete-object --bucket {name} --key … --version-id … deletes one."
    )
    return Finding(False, what, mend)


def _or_none(client: Any, call: Any, missing: str, **arguments: str) -> Any:
    """A call's answer; None when AWS answers with the error `missing`."""
    try:
        return call(**arguments)
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == missing:
            return None
        raise


def key_state(kms: Any, arn: str) -> Finding:
    """Look whether the key that seals credentials works."""
    state = kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"]
    if state == "Enabled":
        return Finding(True, "the key is enabled")
    mend = f"aws kms enable-key --key-id {arn}; if it is to be deleted, aws kms cancel-key-deletion first."
    return Finding(False, f"the key is {state}: nothing can be sealed or opened", mend)


def key_rotation(kms: Any, arn: str) -> Finding:
    """Look whether the key rotates."""
    if kms.get_key_rotation_status(KeyId=arn)["KeyRotationEnabled"]:
        return Finding(True, "the key rotates each year")
    return Finding(False, "the key does not rotate", f"aws kms enable-key-rotation --key-id {arn}")


def key_policy(kms: Any, arn: str) -> Finding:
    """Look whether the key's policy still denies what it is there to deny."""
    missing = _missing_denials(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"], KEY_DENIALS)
    if missing:
        what = f"the key's policy lacks {', '.join(missing)}: whoever may do everything opens what is sealed"
        return Finding(False, what, f"CloudTrail says who did it. {_restore('aws kms put-key-policy')}")
    return Finding(True, "the key's policy denies opening to all but the launcher's functions and the proxy")


def _missing_denials(policy: str, wanted: tuple[str, ...]) -> list[str]:
    """Which statements, by Sid, a policy does not have, or has no more as denials."""
    statements = json.loads(policy).get("Statement", [])
    denials = {one.get("Sid") for one in statements if one["Effect"] == "Deny"}
    return [sid for sid in wanted if sid not in denials]


def _restore(command: str) -> str:
    """How to mend what somebody changed behind CloudFormation's back."""
    return (
        f"Set it again as infra/resources.yaml has it, by `{command}`: a deployment does not, since to "
        "CloudFormation nothing has changed."
    )


def table(dynamodb: Any, name: str) -> Iterator[Finding]:
    """Look at the table: its indexes, its protection."""
    found = dynamodb.describe_table(TableName=name)["Table"]
    indexes = {one["IndexName"]: one.get("IndexStatus", "ACTIVE") for one in found.get("GlobalSecondaryIndexes", [])}
    missing = [one for one in INDEXES if one not in indexes]
    building = [one for one, status in indexes.items() if status != "ACTIVE"]
    more = [one for one in indexes if one not in INDEXES]
    if missing:
        how = (
            "Run `make deploy`, which makes one at a time. If that does not, somebody deleted it: make it again as "
            "infra/resources.yaml has it, by `aws dynamodb update-table`."
        )
        yield Finding(False, f"the table has no index {', '.join(missing)}: what reads it fails", how)
    elif building:
        what = f"the table's index {', '.join(building)} is not active: what reads it fails until then"
        yield Finding(None, what, "Wait some minutes, and look again.")
    else:
        yield Finding(True, f"the table {name} has its indexes")
    if more:
        how = "The next `make deploy` removes what an older version read; what was made by hand stays, and is billed."
        yield Finding(None, f"the table has the index {', '.join(more)}, which this version does not read", how)
    if found.get("DeletionProtectionEnabled"):
        yield Finding(True, "the table is protected from deletion")
    else:
        how = f"aws dynamodb update-table --deletion-protection-enabled --table-name {name}"
        yield Finding(False, "the table is not protected from deletion", how)


def table_backup(dynamodb: Any, name: str) -> Finding:
    """Look whether the table can be brought back to a moment before now."""
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    if backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED":
        return Finding(True, "the table can be brought back to any second of 35 days")
    how = _restore("aws dynamodb update-continuous-backups")
    return Finding(False, "the table has no point-in-time recovery: what is lost is lost", how)


def door(dynamodb: Any, name: str, stage: str) -> Finding:
    """Look whether visitors may launch; raises StoreUnavailable."""
    message = DoorStore(dynamodb, name, time.time).read().message
    if message:
        return Finding(None, f"the hub is closed for launches and says: {message}", f"Open: `make open STAGE={stage}`.")
    return Finding(True, "the hub is open for launches")


def certificates(ssm: Any, prefix: str, *, now: float) -> Iterator[Finding]:
    """Look whether the hub's own certificates are there, and whether a rotation was forgotten."""
    names = [f"{prefix}/{name}" for name in (*NAMES, *NEXT_NAMES)]
    found: dict[str, float] = {}
    for start in range(0, len(names), PARAMETERS_AT_ONCE):
        answer = ssm.get_parameters(Names=names[start : start + PARAMETERS_AT_ONCE], WithDecryption=False)
        found |= {one["Name"]: one["LastModifiedDate"].timestamp() for one in answer["Parameters"]}
    missing = [f"{prefix}/{name}" for name in NAMES if f"{prefix}/{name}" not in found]
    if missing:
        mend = "`make deploy` makes them if none of a set is there, and says what to delete if half of one is."
        yield Finding(False, f"the hub's certificates are missing: {', '.join(missing)}", mend)
    else:
        yield Finding(True, "the hub's own certificates are there")
    for name in NEXT_NAMES:
        days = (now - found.get(f"{prefix}/{name}", now)) / 86400
        ca = name.removesuffix("-ca-next")
        if days * 86400 > MONTH:
            what = f"the rotation of the {ca} CA was begun {days:.0f} days ago, and is not over"
            yield Finding(None, what, f"Go on: `make rotate STAGE={prefix.rpartition('/')[2]} CA={ca} STEP=switch`.")


def quota(found: Quota | str, functions: int) -> Finding:
    """Compare the account's concurrent functions with those of the lanes (HOMEPORT_FUNCTIONS)."""
    if not isinstance(found, Quota):
        what = f"the account's quota of concurrent functions cannot be read ({found})"
        return Finding(None, what, "infra/operator-policy.json has what is needed.")
    what = f"the lanes may have {functions} of the account's {found.in_all} concurrent functions"
    if functions > found.free:
        return Finding(None, f"{what}, of which {found.free} are not reserved: pages fail meanwhile", MORE_FUNCTIONS)
    return Finding(True, what)


def functions(
    lambda_: Any,
    stage: str,
    settings: Mapping[str, Mapping[str, int]],
    environment: Mapping[str, str | None],
    place: Place = NOWHERE,
) -> Iterator[Finding]:
    """Look at each function.

    `settings` are those of .chalice/config.json, `environment` what it should be told; None for any value. `place` is
    the network that those of the lanes should be in.
    """
    for name, wanted in settings.items():
        called = function_name(stage, name)
        try:
            found = lambda_.get_function_configuration(FunctionName=called)
        except lambda_.exceptions.ResourceNotFoundException:
            yield Finding(False, f"there is no function {called}", f"Run `make deploy STAGE={stage}`.")
            continue
        subnets = place.subnets if name in LANES else ()
        problems = [*_of_function(called, found, wanted, environment, stage), *_network(called, found, subnets, stage)]
        yield from problems or [Finding(True, f"the function {called} is as this checkout and these options make it")]


def _network(called: str, found: Mapping[str, Any], subnets: Sequence[str], stage: str) -> Iterator[Finding]:
    """Compare the subnets that a function is in with those that it should be in."""
    those = found.get("VpcConfig", {}).get("SubnetIds", [])
    if set(those) != set(subnets):
        what = f"{called} is in {', '.join(sorted(those)) or 'no network'}, not in {', '.join(subnets) or 'none'}"
        mend = "visitors' firewalls may not let it through" if subnets else "it may have no way to endpoints"
        yield Finding(False, f"{what}: {mend}", f"Run `make deploy STAGE={stage}`.")


def _of_function(
    called: str, found: Mapping[str, Any], wanted: Mapping[str, int], environment: Mapping[str, str | None], stage: str
) -> Iterator[Finding]:
    again = f"Run `make deploy STAGE={stage}`."
    if found["Runtime"] != RUNTIME:
        python = found["Runtime"].removeprefix("python")
        means = f": {DIFFERENCES[python]}" if python in DIFFERENCES else ""
        yield Finding(
            None, f"{called} runs on {found['Runtime']}, not on {RUNTIME}{means}", f"{again} It builds for {PYTHON}."
        )
    limits = {"Timeout": wanted["lambda_timeout"], "MemorySize": wanted["lambda_memory_size"]}
    other = [f"{one} is {found[one]}, not {limits[one]}" for one in limits if found[one] != limits[one]]
    if other:
        yield Finding(None, f"{called} is not as .chalice/config.json says: {', '.join(other)}", again)
    traced = found.get("TracingConfig", {}).get("Mode", "PassThrough")
    wants = mode({TRACING.name: environment.get(TRACING.name) or ""})
    if traced != wants:
        yield Finding(None, f"the tracing of {called} is {traced}, and these options make that {wants}", again)
    told = found.get("Environment", {}).get("Variables", {})
    missing, extra = sorted(environment.keys() - told.keys()), sorted(told.keys() - environment.keys())
    changed = sorted(one for one in environment.keys() & told.keys() if environment[one] not in (None, told[one]))
    said = {"it is not told": missing, "it is told besides": extra, "other values": changed}
    if differs := [f"{how} {', '.join(names)}" for how, names in said.items() if names]:
        mend = f"Are the options of this shell those of the last deployment? Else run `make deploy STAGE={stage}`."
        yield Finding(None, f"{called} has another environment than these options make: {'; '.join(differs)}", mend)
    status, why = found.get("LastUpdateStatus", "Successful"), found.get("LastUpdateStatusReason", "")
    if status != "Successful":
        good = None if status == "InProgress" else False
        yield Finding(good, f"the last update of {called}: {status} {why}".rstrip(), again)


def roles(iam: Any, stage: str, policies: Mapping[str, Sequence[Document]]) -> Iterator[Finding]:
    """Look at each function's role; `policies` are those of which each function's role should have one, by function."""
    for function, wanted in policies.items():
        name = role_name(stage, function)
        role = read_role(iam, name)
        if role is None:
            yield Finding(False, f"there is no role {name}", f"Run `make deploy STAGE={stage}`.")
            continue
        source = f"infra/policies/{POLICIES[function]}.json"
        problems = [*_own_policy(name, role, wanted, source, stage), *trust(name, role)]
        yield from problems or [Finding(True, f"the role {name} has the policy {source} alone, and is Lambda's alone")]


def _own_policy(name: str, role: Role, wanted: Sequence[Document], source: str, stage: str) -> Iterator[Finding]:
    right = [one for one, document in role.inline.items() if document in wanted]
    if not right:
        what = f"the role {name} does not have the policy {source} as this checkout has it"
        yield Finding(False, what, f"Run `make deploy STAGE={stage}`. If nobody deployed, CloudTrail says who did it.")
    own = right[0] if right else name if name in role.inline else next(iter(role.inline), "")
    more = {one: f"aws iam delete-role-policy --policy-name {one}" for one in role.inline if one != own}
    more |= {arn: f"aws iam detach-role-policy --policy-arn {arn}" for arn in role.attached}
    for one, command in more.items():
        mend = f"CloudTrail says who did it. {command} --role-name {name}"
        yield Finding(False, f"the role {name} has the policy {one} besides its own", mend)


def trust(name: str, role: Role) -> Iterator[Finding]:
    """Look whether Lambda alone may take a role."""
    found = statements(role.trust)
    if len(found) != 1 or not _lets_lambda_in(found[0]):
        mend = (
            f"CloudTrail says who did it. aws iam update-assume-role-policy --role-name {name} --policy-document "
            f"'{json.dumps(LAMBDA_TRUST_POLICY)}'"
        )
        yield Finding(False, f"the role {name} may be taken by others than Lambda, or not by Lambda", mend)


def _lets_lambda_in(statement: Mapping[str, Any]) -> bool:
    """Whether a statement of a trust policy lets Lambda take the role, nobody else, and on no condition."""
    said = {key: part for key, part in statement.items() if key not in ("Sid", "Action", "Principal")}
    return (
        said == {"Effect": "Allow"}
        and listed(statement.get("Action", [])) == ["sts:AssumeRole"]
        and statement.get("Principal") in ({"Service": LAMBDA}, {"Service": [LAMBDA]})
    )


def lanes(
    sqs: Any,
    lambda_: Any,
    stage: str,
    arns: Mapping[Lane, str],
    timeouts: Mapping[Lane, int],
    limits: Mapping[Lane, int],
) -> Iterator[Finding]:
    """Look at each lane: its queue, and what takes its messages to its function.

    `arns` are the queues', `timeouts` the functions' in seconds, `limits` how many functions each lane may have.
    """
    dead = f"{APP}-{stage}-dead-letter"
    for lane, arn in arns.items():
        problems = [*_queue(sqs, lane, stage, dead, timeouts[lane]), *_source(lambda_, lane, stage, arn, limits[lane])]
        yield from problems or [Finding(True, f"the lane {lane} takes messages, {limits[lane]} at once")]


def _queue(sqs: Any, lane: Lane, stage: str, dead: str, timeout: int) -> Iterator[Finding]:
    name = queue_of(f"{APP}-{stage}", lane)
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        yield Finding(False, f"there is no queue {name}", _restore("aws sqs create-queue"))
        return
    wanted = ["VisibilityTimeout", "RedrivePolicy"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
    if not json.loads(found.get("RedrivePolicy", "{}")).get("deadLetterTargetArn", "").endswith(f":{dead}"):
        yield Finding(
            False, f"what fails in the queue {name} does not go to {dead}", _restore("aws sqs set-queue-attributes")
        )
    if int(found["VisibilityTimeout"]) < VISIBILITY * timeout:
        what = f"the queue {name} hides a message for {found['VisibilityTimeout']} seconds"
        needed = f"{VISIBILITY} times the function's timeout are needed, {VISIBILITY * timeout}."
        yield Finding(False, what, f"{needed} {_restore('aws sqs set-queue-attributes')}")


def _source(lambda_: Any, lane: Lane, stage: str, arn: str, limit: int) -> Iterator[Finding]:
    again = f"Run `make deploy STAGE={stage}`."
    name = function_name(stage, lane)
    sources = event_sources(lambda_, EventSourceArn=arn)
    ours = [one for one in sources if one["FunctionArn"].endswith(f":function:{name}")]
    if len(ours) != len(sources):
        others = sorted({one["FunctionArn"].rpartition(":")[2] for one in sources if one not in ours})
        yield Finding(False, f"the lane {lane} has its messages taken away by {', '.join(others)}", again)
    if not ours:
        yield Finding(False, f"nothing takes the messages of the lane {lane} to {name}", again)
        return
    for one in ours:
        if one["State"] not in ("Enabled", "Enabling", "Updating", "Creating"):
            mend = f"aws lambda update-event-source-mapping --enabled --uuid {one['UUID']}"
            yield Finding(False, f"the event source of {name} is {one['State']}: its messages wait", mend)
        most = one.get("ScalingConfig", {}).get("MaximumConcurrency")
        if most != limit:
            what = f"{name} may run {most or 'any number of'} times at once, and these options make that {limit}"
            yield Finding(None, what, again)


def schedule(events: Any, stage: str) -> Finding:
    """Look at the schedule that sends what is due to its lane."""
    rule, target = f"{APP}-{stage}-redrive-event", function_name(stage, "redrive")
    again = f"Run `make deploy STAGE={stage}`."
    try:
        state = events.describe_rule(Name=rule)["State"]
        targets = [one["Arn"].rpartition(":function:")[2] for one in events.list_targets_by_rule(Rule=rule)["Targets"]]
    except events.exceptions.ResourceNotFoundException:
        return Finding(False, f"there is no schedule {rule}: what waits is driven on by nothing", again)
    if state != "ENABLED":
        return Finding(False, f"the schedule {rule} is {state}", f"aws events enable-rule --name {rule}")
    if targets != [target]:
        what = f"the schedule {rule} calls {', '.join(targets) or 'nothing'}, not {target}"
        return Finding(False, what, again)
    return Finding(True, f"the schedule {rule} is enabled")


def dead_letters(sqs: Any, url: str) -> Finding:
    """Look whether messages failed for good."""
    name = "ApproximateNumberOfMessages"
    count = int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])
    if count:
        return Finding(None, f"messages failed for good: {count}", 'docs/operations.md, "Alarms", says what to do.')
    return Finding(True, "no message failed for good")


def alarm_names(template: str, stage: str) -> list[str]:
    """The names of the alarms that a template makes for a stage."""
    return [name.replace("${Stage}", stage) for name in re.findall(r'AlarmName: !Sub "([^"]+)"', template)]


def alarms(cloudwatch: Any, names: Sequence[str]) -> Iterator[Finding]:
    """Look which of the alarms have gone off."""
    found = cloudwatch.describe_alarms(AlarmNames=names, MaxRecords=100)["MetricAlarms"]
    if not found:
        yield Finding(None, "the stage has no alarms", "They are in infra/resources.yaml: who deleted them?")
        return
    gone_off = [one for one in found if one["StateValue"] == "ALARM"]
    for one in gone_off:
        what = f"the alarm {one['AlarmName']} has gone off: {one.get('AlarmDescription', '')}"
        yield Finding(False, what, 'docs/operations.md, "Alarms", says what to do.')
    if not gone_off:
        yield Finding(True, f"of {len(found)} alarms none has gone off")


def api(apigateway: Any, stage: str, domain: str) -> Finding:
    """Look whether the stage has its API, and one way in; `domain` is the hub's own, "" for none.

    Raises BadConfiguration when there are two.
    """
    found = find_api(apigateway, stage)
    if found is None:
        mend = f"Well if the stage was deployed by `make package`; else run `make deploy STAGE={stage}`."
        return Finding(None, "the stage has no API of `make deploy`", mend)
    is_open = not apigateway.get_rest_api(restApiId=found).get("disableExecuteApiEndpoint")
    if is_open and domain and leads_to(apigateway, domain, found):
        what = f"the API {found} answers at execute-api, too, past what protects {domain}"
        return Finding(None, what, f"Run `make deploy STAGE={stage}`: it closes that address.")
    return Finding(True, f"the API {found} is there")


def proxy_service(ecs: Any, stage: str) -> Finding:
    """Look whether as many proxies run on Fargate as there should."""
    cluster = f"{APP}-{stage}"
    found = ecs.describe_services(cluster=cluster, services=["proxy"])["services"]
    if not found:
        return Finding(
            False, f"the cluster {cluster} has no service proxy", "Update the proxy's stack: docs/deploy.md."
        )
    running, wanted = found[0]["runningCount"], found[0]["desiredCount"]
    if wanted == 0:
        mend = "Deploy with HOMEPORT_PROXY_TASKS of 1 or more."
        return Finding(False, "the proxy is scaled to none: no notebook can be reached", mend)
    what = f"{running} of {wanted} proxies run"
    if running >= wanted:
        return Finding(True, what)
    mend = f"aws ecs describe-services --cluster {cluster} --services proxy has the service's events."
    return Finding(None if running else False, what, mend)
