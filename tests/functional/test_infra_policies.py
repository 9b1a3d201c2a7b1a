"""Every AWS call that a part has in its stores is one its role allows, and no role allows more than these.

Each call is turned into the request IAM would see and held against the role's statements before it is made. Here they
are made by hand, one by one, so that all of what is allowed is used; what whole functions ask for is held to their
roles wherever tests run them (tests/role_guard.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.build_logs import PART_BYTES, BuildLogStore
from chalicelib.aws.credentials import CredentialsStore
from chalicelib.aws.door import DoorStore
from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.errors import CredentialsMissing
from chalicelib.aws.hub_certificates import load_trust
from chalicelib.aws.images import ImageStore
from chalicelib.aws.queues import Handover, TickMessage
from chalicelib.aws.routes import Grant, ProxyStore, RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.slots import Pool, SlotStore, repository_pool
from chalicelib.aws.tokens import TokenStore
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.session.admission import slot_of
from chalicelib.session.door import Door, Rate
from chalicelib.session.events import EndpointVerified, StopRequested
from chalicelib.session.lanes import Lane
from chalicelib.session.looks import OFTEN
from chalicelib.session.machine import advance
from chalicelib.session.values import SavedImage, State, Target
from chalicelib.wiring import Wiring
from infra.certificates import ensure_certificates
from infra.stack import deploy_stack
from tests.builders import LIFETIME, NOW, SIGN_IN, a_session
from tests.contract.images import BUILT
from tests.policies import REGION, ROOT, STAGE
from tests.role_guard import RoleGuard

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")

SESSION: Final = a_session()
# Not a real key: nothing here reads it.
CREDENTIALS: Final = Credentials(Endpoint("203.0.113.7", 2376), b"a CA", b"certificate", b"key")
LONG_LOG: Final = "x" * 2 * PART_BYTES
Client = Callable[[str], Any]
# Purging names the version "null" in a bucket without versions: S3 asks for DeleteObjectVersion then, and for this if
# such a bucket is no exception to how it deletes what has no versions. To be wrong here would be to keep credentials.
KEPT_FOR_SURE: Final = {("leave", "LoadAndPurgeSealedCredentials", "s3:DeleteObject", "")}


@pytest.fixture
def outputs() -> Iterator[dict[str, str]]:
    """The deployed stack's outputs, with the hub's certificates made."""
    with mock_aws():
        cloudformation = _plain_client("cloudformation")
        template = (ROOT / "infra" / "resources.yaml").read_text()
        made = deploy_stack(cloudformation, name=f"homeport-{STAGE}", template=template, parameters={"Stage": STAGE})
        ensure_certificates(_plain_client("ssm"), prefix=made["Certificates"], key_id=made["Key"], now=NOW)
        yield made


@pytest.fixture
def guard(outputs: dict[str, str]) -> RoleGuard:
    return RoleGuard(outputs)


@pytest.fixture
def as_role(guard: RoleGuard) -> Callable[[str], Client]:
    """Clients that make only the calls the role's policy allows, and say which one it does not."""

    def clients(role: str) -> Client:
        return lambda service: _guarded(_plain_client(service), role, guard)

    return clients


def _plain_client(service: str) -> Any:
    return boto3.client(  # type: ignore[call-overload]  # the name is a variable
        service, REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )


def _guarded(client: Any, role: str, guard: RoleGuard) -> Any:
    def check(params: dict[str, Any], model: Any, **_: Any) -> None:
        why = guard.refusal(role, model.service_model.service_name, model.name, params)
        assert not why, why

    client.meta.events.register("provide-client-params.*", check)
    return client


def credentials_store(client: Client, outputs: dict[str, str]) -> CredentialsStore:
    return CredentialsStore(client("s3"), client("kms"), bucket=outputs["Bucket"], key=outputs["Key"])


def test_the_guard_refuses_what_a_role_may_not(outputs: dict[str, str], as_role: Callable[[str], Client]) -> None:
    with pytest.raises(AssertionError, match="not allowed: s3:GetObject"):
        credentials_store(as_role("web"), outputs).get(SESSION.sid, 1, SESSION.owner)
    with pytest.raises(AssertionError, match="not allowed: kms:GenerateDataKey"):
        credentials_store(as_role("leave"), outputs).put(SESSION.sid, 1, SESSION.owner, CREDENTIALS)
    with pytest.raises(AssertionError, match="not allowed: dynamodb:GetItem"):
        SessionStore(as_role("proxy")("dynamodb"), outputs["Table"], lambda: NOW).find(SESSION.sid)


def test_the_web_function_may_do_all_that_a_visitor_asks_of_it(
    outputs: dict[str, str], as_role: Callable[[str], Client]
) -> None:
    web = as_role("web")
    store = SessionStore(web("dynamodb"), outputs["Table"], lambda: NOW)
    credentials_store(web, outputs).put(SESSION.sid, SESSION.generation, SESSION.owner, CREDENTIALS)
    store.save(SESSION)
    store.find(SESSION.sid)
    stopped = advance(SESSION, StopRequested(), NOW)
    store.save(stopped)
    assert store.earlier_lines(stopped) == list(stopped.log[:-1])
    store.of_owner(SESSION.owner, 10)
    tokens = TokenStore(web("dynamodb"), outputs["Table"], lambda: NOW, lifetime=LIFETIME)
    tokens.put_token("token", [SIGN_IN])
    assert tokens.sign_ins_of("token")
    tokens.put_ticket("ticket", SESSION, SIGN_IN, path="/lab", expires_at=NOW + 60)
    tokens.sign_out(SIGN_IN.browser, [SIGN_IN.owner])
    assert store.may_ask_for_look(SESSION.sid)
    images = ImageStore(web("dynamodb"), outputs["Table"], lambda: NOW)
    images.of_owner(SESSION.owner)
    images.built_of(SESSION.owner)
    BuildLogStore(_plain_client("dynamodb"), outputs["Table"], lambda: NOW).put(SESSION.sid, 1, LONG_LOG)
    assert BuildLogStore(web("dynamodb"), outputs["Table"], lambda: NOW).get(SESSION.sid, 1) == LONG_LOG
    door, rate = DoorStore(web("dynamodb"), outputs["Table"], lambda: NOW), Rate(2)
    assert [door.take("anybody", rate) > 0 for _ in range(3)] == [False, False, True]
    assert door.read() == Door()
    for lane in (Lane.LAUNCH, Lane.LEAVE, Lane.WATCH):
        _wiring(web, outputs).queues.enqueue(TickMessage(SESSION.sid), lane=lane, delay=0.0)


@pytest.mark.parametrize("lane", Lane)
def test_each_lane_may_do_all_that_its_sessions_need(
    outputs: dict[str, str], as_role: Callable[[str], Client], lane: Lane
) -> None:
    credentials_store(as_role("web"), outputs).put(SESSION.sid, 7, SESSION.owner, CREDENTIALS)
    role = as_role(lane)
    store = SessionStore(role("dynamodb"), outputs["Table"], lambda: NOW)
    other = a_session(name=f"in {lane}")
    store.save(other)
    assert store.load(other.sid) == other
    verified = advance(other, EndpointVerified("203.0.113.7", "20.10.24"), NOW)
    store.save(verified)
    kept = SessionStore(_plain_client("dynamodb"), outputs["Table"], lambda: NOW).earlier_lines(verified)
    assert kept == list(verified.log[:-1])
    slots = SlotStore(role("dynamodb"), outputs["Table"], lambda: NOW)
    slots.put(Pool.SLOW, other.sid, slot_of(other, NOW + 60))
    slots.give_back(repository_pool(BUILT.repository), other.sid)
    assert credentials_store(role, outputs).get(SESSION.sid, 7, SESSION.owner) == CREDENTIALS
    with pytest.raises(CredentialsMissing):
        credentials_store(role, outputs).get(other.sid, 1, SESSION.owner)
    for other_lane in Lane:
        _wiring(role, outputs).queues.enqueue(TickMessage(SESSION.sid, Handover("tick")), lane=other_lane, delay=5.0)
    routes = RouteStore(role("dynamodb"), outputs["Table"], lambda: NOW)
    if lane is Lane.LAUNCH:
        routes.publish(a_session(state=State.PUBLISHING, target=Target("203.0.113.7", 32768)))
        image = SavedImage(SESSION.owner, "localhost/a:1", SESSION.endpoint, SESSION.name, NOW, 1 << 30)
        images = ImageStore(role("dynamodb"), outputs["Table"], lambda: NOW)
        images.put(image)
        for is_new in (True, False):
            images.put_built(BUILT, is_new=is_new)
        assert images.built_of(BUILT.owner) == [BUILT]
        images.remove_built(BUILT.owner, BUILT.endpoint, [BUILT.name])
        BuildLogStore(role("dynamodb"), outputs["Table"], lambda: NOW).put(SESSION.sid, 7, LONG_LOG)
    if lane is Lane.LEAVE:
        routes.withdraw(SESSION)
        credentials_store(role, outputs).purge(SESSION.sid, 7)
    if lane in (Lane.LAUNCH, Lane.WATCH):
        load_trust(role("ssm"), outputs["Certificates"], signs=lane is Lane.LAUNCH)


def test_the_schedule_may_find_what_is_due_and_enqueue_it(
    outputs: dict[str, str], as_role: Callable[[str], Client]
) -> None:
    store = SessionStore(_plain_client("dynamodb"), outputs["Table"], lambda: NOW)
    due = a_session(name="due", next_attempt_at=0.0)
    store.save(due)
    for number in range(OFTEN * 8):
        store.save(a_session(name=f"ready {number}", state=State.READY, next_attempt_at=4e9))
    sent = list(_wiring(as_role("redrive"), outputs).redrive())
    assert due.sid in sent
    assert len(sent) > 1
    assert due.sid not in set(_wiring(as_role("redrive"), outputs).redrive()), "it was sent a moment ago"


def test_the_schedule_may_count_the_sessions_of_a_hub_that_has_a_limit(
    outputs: dict[str, str], as_role: Callable[[str], Client]
) -> None:
    store = SessionStore(_plain_client("dynamodb"), outputs["Table"], lambda: NOW)
    for number, state in enumerate((State.PULLING, State.READY, State.REMOVING, State.KEPT, State.STOPPED)):
        due = None if state is State.STOPPED else 4e9
        store.save(a_session(name=f"counted {number}", state=state, next_attempt_at=due))
    before = store.count(1000)
    assert before >= 4
    list(_wiring(as_role("redrive"), outputs, HOMEPORT_NOTEBOOKS="1000").redrive())
    counted = DoorStore(_plain_client("dynamodb"), outputs["Table"], lambda: NOW).read()
    assert (counted.sessions, counted.message) == (before, "")
    assert store.count(2) == 2


def test_the_proxy_may_follow_look_up_redeem_and_remember(
    outputs: dict[str, str], as_role: Callable[[str], Client]
) -> None:
    store = ProxyStore(as_role("proxy")("dynamodb"), outputs["Table"], lambda: NOW)
    list(store.changes(0))
    store.route(SESSION.host)
    tokens = TokenStore(_plain_client("dynamodb"), outputs["Table"], lambda: NOW, lifetime=LIFETIME)
    tokens.put_ticket("ticket", SESSION, SIGN_IN, path="/lab", expires_at=NOW + 60)
    store.redeem_ticket("ticket", SESSION.host)
    store.put_grant(Grant(digest_of("cookie"), SESSION.host, False, 0, int(NOW) + 60, SIGN_IN))
    store.grant(digest_of("cookie"))
    queues = _wiring(as_role("proxy"), outputs).queues
    queues.enqueue(TickMessage(SESSION.sid), lane=Lane.WATCH, delay=0.0)
    with pytest.raises(AssertionError, match="not allowed: sqs:SendMessage"):
        queues.enqueue(TickMessage(SESSION.sid), lane=Lane.LAUNCH, delay=0.0)


def test_no_role_may_do_what_nothing_does(
    outputs: dict[str, str], as_role: Callable[[str], Client], guard: RoleGuard
) -> None:
    test_the_web_function_may_do_all_that_a_visitor_asks_of_it(outputs, as_role)
    for lane in Lane:
        test_each_lane_may_do_all_that_its_sessions_need(outputs, as_role, lane)
    test_the_schedule_may_find_what_is_due_and_enqueue_it(outputs, as_role)
    test_the_schedule_may_count_the_sessions_of_a_hub_that_has_a_limit(outputs, as_role)
    test_the_proxy_may_follow_look_up_redeem_and_remember(outputs, as_role)
    unused = guard.granted() - guard.used - KEPT_FOR_SURE
    assert not unused, "\n".join(map(str, sorted(unused)))


def _wiring(client: Client, outputs: dict[str, str], **environment: str) -> Wiring:
    """A process's parts, on guarded clients."""
    environ = {"HOMEPORT_QUEUE_URLS": outputs["QueueUrls"], "HOMEPORT_TABLE": outputs["Table"], **environment}
    return Wiring(Config.from_environ(environ), client)
