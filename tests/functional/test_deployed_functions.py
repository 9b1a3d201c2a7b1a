"""The zip as it is deployed, run as Lambda runs it: every function, every address, every event source.

The runtime client is AWS's own, the Python that of the functions' runtime, and the AWS behind them moto's, with the
stack of a deployment, which lets each function do what its own policy allows and no more (tests/role_guard.py). The
events are as AWS documents them (tests/aws_events.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from chalicelib.aws.sessions import SessionStore
from chalicelib.config import VERSION
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.session.values import State, Target
from chalicelib.web.routes import ADDRESSES
from infra.artefact import find_python
from infra.project import POLICIES
from local.aws import Aws
from tests.aws_events import ORIGIN, Browser, scheduled_event, sqs_event
from tests.builders import NOW, a_session
from tests.functional.hostile_engine import LOOPBACK, HostileEngine, Pki, refusal
from tests.functional.hub_rig import a_bundle, zipped
from tests.lambda_rig import PYTHON, USER, Function, Lambda, function, provide
from tests.policies import ROOT
from tests.role_guard import guarded_aws, seen
from tests.roles import environ_of
from tests.secrets_seen import canary_of_bundle
from tests.xray import SAMPLED, SEGMENT, UNSAMPLED, Daemon, daemon, subsegments

STAGE: Final = "test"
ENVIRONMENT: Final = {
    "HOMEPORT_HUB_ORIGIN": ORIGIN,
    "HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.net",
    "HOMEPORT_HUB_NAME": f"homeport-{STAGE}",
    "HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8",
    "HOMEPORT_STAGE": STAGE,
}
Start = Callable[[str], Function]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with guarded_aws(tmp_path_factory.mktemp("aws")) as started:
        yield started


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, aws: Aws) -> Lambda:
    """The zip, and what runs it."""
    if os.geteuid() != 0 or not (find_python(PYTHON) or shutil.which("mmdebstrap")):
        pytest.skip(f"needs root, and Python {PYTHON} or `apt-get install mmdebstrap`")
    return provide(tmp_path_factory.mktemp("lambda"), {**aws.environ, **ENVIRONMENT})


@pytest.fixture(scope="module")
def start(deployed: Lambda) -> Iterator[Start]:
    """Give a function by its name in Chalice's configuration; each is started once."""
    with starting(deployed) as start:
        yield start


@contextmanager
def starting(on: Lambda) -> Iterator[Start]:
    """Starts functions, each once, and with an access key of its own."""
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())["lambda_functions"]
    started: dict[str, Function] = {}
    with ExitStack() as stack:

        def give(name: str) -> Function:
            if name not in started:
                deployed = f"homeport-{STAGE}" + ("" if name == "api_handler" else f"-{name}")
                handler = "app.app" if name == "api_handler" else f"app.{name}"
                timeout, memory = config[name]["lambda_timeout"], config[name]["lambda_memory_size"]
                own = replace(on, environ=environ_of(POLICIES[name], on.environ))
                started[name] = stack.enter_context(function(own, deployed, handler, timeout=timeout, memory=memory))
            return started[name]

        yield give


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def browser(request: pytest.FixtureRequest, start: Start) -> Browser:
    """HTTP/2 has names in lower case, and may split cookies; HTTP/1.1 has both as browsers have always had them."""
    is_new = request.param == "HTTP/2"
    return Browser(start("api_handler"), str.lower if is_new else str, crumbs=is_new)


def test_every_address_answers(browser: Browser) -> None:
    """Each with what its view says of a launch that has just begun; none is a failure of ours."""
    number = 1 + browser.crumbs
    bundle = ("credentials.zip", a_bundle(number, host=f"tcp://{LOOPBACK}:2376"))
    launched = browser.ask("POST", "/sessions", multipart={"credentials": bundle, "name": "lessons"})
    assert launched.status == 201, launched.text
    sid = launched.json["id"]
    visitor = browser.signed_in(launched)
    of_session = {"sid": sid}
    parts = ("gh", "owner", "name", "main", "a", "b", "c", "d", "e", "f")
    followed = {
        "/v2/" + "/".join(f"{{part{place + 1}}}" for place in range(count)): {
            f"part{place + 1}": parts[place] for place in range(count)
        }
        for count in range(2, 11)
    }
    # What is asked → the status; in this order.
    asked: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/sessions", {"multipart": {"credentials": bundle, "name": "lessons"}}, 200),
        ("POST", "/bundles", {"multipart": {"credentials": bundle}}, 200),
        ("GET", "/", {"html": True}, 200),
        ("GET", "/repository", {"query": {"repo": "owner/name"}}, 200),
        *(("GET", path, {"parameters": given}, 303 if len(given) > 2 else 400) for path, given in followed.items()),
        ("GET", "/badge", {"query": {"repo": "owner/name"}}, 200),
        ("GET", "/badge.svg", {}, 200),
        ("GET", "/health", {}, 200),
        ("GET", "/sessions", {}, 200),
        ("GET", "/sessions/{sid}", {"parameters": of_session, "html": True}, 200),
        ("GET", "/sessions/{sid}/events", {"parameters": of_session, "query": {"after": "0"}}, 200),
        ("GET", "/sessions/{sid}/build-log", {"parameters": of_session}, 404),
        ("POST", "/sessions/{sid}/enter", {"parameters": of_session, "form": {}}, 409),
        ("POST", "/sessions/{sid}/keep", {"parameters": of_session, "form": {}}, 409),
        ("POST", "/sessions/{sid}/save", {"parameters": of_session, "form": {"image": "mine"}}, 409),
        ("POST", "/sessions/{sid}/images", {"parameters": of_session, "form": {"image": "all"}}, 409),
        ("POST", "/sessions/{sid}/forget", {"parameters": of_session, "form": {}}, 409),
        ("POST", "/sessions/{sid}/start", {"parameters": of_session, "form": {}}, 202),
        ("POST", "/sessions/{sid}/stop", {"parameters": of_session, "form": {"keep": ""}}, 202),
        ("DELETE", "/sessions/{sid}", {"parameters": of_session}, 202),
        ("POST", "/sessions/{sid}/delete", {"parameters": of_session, "multipart": {"name": "lessons"}}, 202),
        ("GET", "/sign-out", {"html": True}, 200),
        ("POST", "/sign-out", {"form": {"everywhere": "yes"}}, 204),
        ("GET", "/{proxy+}", {"parameters": {"proxy": "no/where"}}, 404),
    ]
    assert {(method, resource) for method, resource, _, _ in asked} == {entry[:2] for entry in ADDRESSES}
    found = [(method, resource, visitor.ask(method, resource, **given).status) for method, resource, given, _ in asked]
    assert found == [(method, resource, status) for method, resource, _, status in asked]
    assert visitor.ask("GET", "/sessions/{sid}", parameters=of_session).status == 401  # signed out


def test_the_first_page_of_a_function_is_whole(browser: Browser) -> None:
    page = browser.ask("GET", "/", html=True)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    assert page.text.rstrip().endswith("</html>")
    assert page.headers["strict-transport-security"]
    assert browser.ask("GET", "/health").json == {"status": "ok", "version": VERSION}


def test_what_chalice_refuses_has_our_form(browser: Browser) -> None:
    wrong = browser.ask("DELETE", "/health")
    assert (wrong.status, wrong.json["code"]) == (405, "method-not-allowed")
    assert browser.ask("POST", "/sessions", form={"a": "b"}).json["code"] == "unsupported-media-type"


@dataclass
class Queues:
    """Takes messages from the queues to the lanes' functions, as the event source mappings do."""

    aws: Aws
    start: Start

    def drive(self, lane: Lane) -> int:
        """Hand each message of a lane to its function; gives how many there were."""
        handed = 0
        while (body := self.taken(lane)) is not None:
            self.deliver(lane, body)
            handed += 1
        return handed

    def taken(self, lane: Lane) -> str | None:
        """Take a message from a lane's queue, if there is one."""
        sqs, url = self.aws.client("sqs"), queue_of(self.aws.environ["HOMEPORT_QUEUE_URLS"], lane)
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages", []):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return str(message["Body"])
        return None

    def deliver(self, lane: Lane, body: str) -> None:
        """Hand a message to a lane's function, in an event of a batch of one."""
        assert self.start(lane).invoke(sqs_event(lane, body)).json is None


@pytest.fixture
def queues(aws: Aws, start: Start) -> Queues:
    queues = Queues(aws, start)
    for lane in Lane:  # what other tests have sent
        while queues.taken(lane) is not None:
            pass
    return queues


def test_a_launch_goes_through_three_lanes_until_nothing_of_it_is_left(
    aws: Aws, start: Start, queues: Queues, browser: Browser
) -> None:
    """The engine is well and has no image, and no registry has it either: verified, not pulled, purged."""
    pki = Pki.new()
    nowhere = refusal(404, "manifest unknown")
    with HostileEngine(pki, {"POST /images/create": nowhere}) as engine:
        bundle = zipped(pki.ca.certificate, pki.client, f"tcp://{LOOPBACK}:{engine.port}")
        launched = browser.ask(
            "POST", "/sessions", multipart={"credentials": ("c.zip", bundle), "name": f"lane-{browser.crumbs}"}
        )
        assert launched.status == 201, launched.text
        handed = {lane: queues.drive(lane) for lane in (Lane.LAUNCH, Lane.PULL, Lane.LEAVE)}
        assert all(handed.values())
        asked = {f"{request.method} {request.path.partition('?')[0]}" for request in engine.heard}
    assert any(call.endswith("/images/create") for call in asked)
    visitor = browser.signed_in(launched)
    stopped = visitor.ask("GET", "/sessions/{sid}", parameters={"sid": launched.json["id"]}).json
    assert stopped["state"] == "stopped"
    assert stopped["error"]["code"] == "image-not-found"
    kept = aws.client("s3").list_objects_v2(Bucket=aws.environ["HOMEPORT_BUCKET"]).get("Contents", [])
    assert [entry["Key"] for entry in kept if launched.json["id"] in entry["Key"]] == []


def test_the_watch_lane_asks_a_notebook_with_the_hubs_certificates(aws: Aws, queues: Queues) -> None:
    """The certificates are read from SSM; nobody is at the notebook's port."""
    store = SessionStore(aws.client("dynamodb"), aws.environ["HOMEPORT_TABLE"], lambda: NOW)
    session = a_session(
        name="watched", state=State.READY, hub=f"homeport-{STAGE}", target=Target(LOOPBACK, 1), address=LOOPBACK
    )
    store.save(session)
    queues.deliver(Lane.WATCH, json.dumps({"session": session.sid}))
    looked_at = store.load(session.sid)
    assert looked_at.state is not State.READY or looked_at.last_problem is not None


def test_the_schedule_sends_what_is_due(aws: Aws, start: Start, queues: Queues) -> None:
    store = SessionStore(aws.client("dynamodb"), aws.environ["HOMEPORT_TABLE"], lambda: NOW)
    store.save(a_session(name="due"))
    assert start("redrive").invoke(scheduled_event()).json["enqueued"] >= 1


def test_a_message_that_no_queue_of_ours_sent_fails_and_the_function_lives_on(start: Start, queues: Queues) -> None:
    failed = start("launch").invoke({"Records": [{"body": "a payload", "receiptHandle": "", "eventSourceARN": ""}]})
    assert failed.failed
    assert "JSONDecodeError" in failed.cause
    assert "a payload" not in failed.cause
    queues.deliver(Lane.LAUNCH, json.dumps({"session": "0" * 20}))


def test_no_function_asks_for_what_its_own_policy_does_not_allow(aws: Aws, start: Start, queues: Queues) -> None:
    """Neither here nor in any test before."""
    browser = Browser(start("api_handler"), str, crumbs=False)
    assert browser.ask("POST", "/sessions", multipart={"credentials": ("c.zip", a_bundle(3))}).status == 201
    assert start("redrive").invoke(scheduled_event()).json is not None
    for lane in Lane:
        queues.deliver(lane, json.dumps({"session": "0" * 20}))
    used, refused = seen(aws)
    assert refused == []
    assert {role for role, *_ in used} == set(POLICIES.values())


@pytest.mark.parametrize("name", ["api_handler", "redrive", *Lane])
def test_a_function_runs_as_a_user_that_may_do_nothing_on_a_system_that_cannot_be_written(
    start: Start, name: str
) -> None:
    process = Path("/proc") / str(start(name).pid)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {USER}
    assert set(status["Gid"].split()) == {USER}
    assert (int(status["CapPrm"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    mounts = {line.split()[4]: line.split()[5].split(",") for line in (process / "mountinfo").read_text().splitlines()}
    assert [place for place, options in mounts.items() if "ro" not in options] == ["/tmp", "/proc"]
    assert "ro" in mounts["/var/task"]
    assert os.readlink(process / "cwd").endswith("/root/var/task")  # as it is seen from here


@pytest.mark.parametrize("name", ["api_handler", "redrive", *Lane])
def test_a_start_logs_nothing(start: Start, name: str) -> None:
    assert "Not all was made" not in start(name).log.read_text()


@pytest.mark.parametrize("name", ["api_handler", "redrive", *Lane])
def test_a_function_that_has_worked_has_had_two_thirds_of_its_memory_at_most(start: Start, name: str) -> None:
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())["lambda_functions"]
    assert start(name).most_memory < 2 / 3 * config[name]["lambda_memory_size"]


# ── what is traced (docs/adr/0028) ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def x_rays() -> Iterator[Daemon]:
    with daemon() as started:
        yield started


@pytest.fixture(scope="module")
def traced(deployed: Lambda, x_rays: Daemon) -> Iterator[Start]:
    """Give a function that tells the daemon; whether it does, each event's trace header says."""
    environ = {**deployed.environ, "HOMEPORT_TRACING": "on", "AWS_XRAY_DAEMON_ADDRESS": x_rays.address}
    with starting(replace(deployed, environ=environ, folder=deployed.folder / "traced")) as start:
        yield start


def sampled(start: Start) -> Start:
    """The functions whose events are traced from now on."""

    def give(name: str) -> Function:
        found = start(name)
        found.api.trace = SAMPLED
        return found

    return give


def test_a_launch_is_told_by_its_effects_pages_and_calls_and_nothing_of_what_they_are_about(
    aws: Aws, traced: Start, x_rays: Daemon, queues: Queues
) -> None:
    pki, told, taken = Pki.new(), dict[str, list[dict[str, Any]]](), list[bytes]()
    with HostileEngine(pki, {"POST /images/create": refusal(404, "manifest unknown: said-the-registry")}) as engine:
        address = f"{LOOPBACK}:{engine.port}"
        bundle = zipped(pki.ca.certificate, pki.client, f"tcp://{address}")
        fields = {
            "credentials": ("c.zip", bundle),
            "name": "private-notes",
            "image": "ghcr.io/somebody/secret-image:v1",
        }
        browser = Browser(sampled(traced)("api_handler"), str, crumbs=False)
        launched = browser.ask("POST", "/sessions", multipart={**fields, "env": "TOKEN=a-hidden-value"})
        assert launched.status == 201, launched.text
        sid, visitor = launched.json["id"], browser.signed_in(launched)
        taken += (came := x_rays.taken())
        told["page"] = subsegments(came)
        for lane in (Lane.LAUNCH, Lane.PULL, Lane.LEAVE):
            assert Queues(aws, sampled(traced)).drive(lane)
            taken += (came := x_rays.taken())
            told[lane] = subsegments(came)
        assert visitor.ask("GET", "/sessions/{sid}", parameters={"sid": sid}, html=True).status == 200
        taken += (came := x_rays.taken())
        told["session"] = subsegments(came)
    spans = {
        where: [
            (one["name"], one.get("annotations", {}).get("state"), one.get("annotations", {}).get("code"))
            for one in found
            if "namespace" not in one
        ]
        for where, found in told.items()
    }
    assert spans["page"] == [("POST /sessions", None, None)]
    assert spans["session"] == [("GET /sessions/:sid", None, None)]
    assert spans[Lane.LAUNCH][:2] == [("VerifyEndpoint", "verifying", None), ("FindImage", "pulling", None)]
    assert spans[Lane.PULL] == [("PullImage", "pulling", "image-not-found")]
    assert spans[Lane.LEAVE][-1] == ("PurgeCredentials", "purging", None)
    parts = [one for found in told.values() for one in found if "namespace" not in one]
    assert {one["annotations"]["session"] for one in parts} == {sid}
    assert {one["parent_id"] for one in parts} == {SEGMENT}
    calls = [(where, one["name"], one["aws"]["operation"]) for where in told for one in told[where] if "aws" in one]
    assert {("page", "KMS", "GenerateDataKey"), ("page", "S3", "PutObject"), ("page", "SQS", "SendMessage")} < set(
        calls
    )
    assert {(Lane.LAUNCH, "KMS", "Decrypt"), (Lane.LAUNCH, "DynamoDB", "PutItem")} < set(calls)
    parents = {one["id"]: one["name"] for one in parts}
    assert {parents.get(one["parent_id"]) for one in told["page"] if "aws" in one} == {"POST /sessions"}
    all_said = b"".join(taken)
    assert not canary_of_bundle(bundle).seen_in(all_said)
    personal = ["private-notes", "somebody", "secret-image", "hidden-value", "TOKEN", "said-the-registry"]
    personal += [
        LOOPBACK,
        address.partition(LOOPBACK)[2],
        "198.51.100.7",
        "a browser",
        "http:",
        "https:",
        "hub.example",
    ]
    personal += [visitor.cookie, f"/{sid}"]
    personal += [aws.environ[name] for name in ("HOMEPORT_BUCKET", "HOMEPORT_TABLE", "HOMEPORT_KEY")]
    assert [word for word in personal if word.encode() in all_said] == []


def test_an_invocation_that_is_not_sampled_or_a_hub_that_is_not_traced_tells_nothing(
    traced: Start, start: Start, x_rays: Daemon
) -> None:
    x_rays.taken()
    traced("api_handler").api.trace = UNSAMPLED
    assert Browser(traced("api_handler"), str, crumbs=False).ask("GET", "/", html=True).status == 200
    untraced = sampled(start)("api_handler")
    assert Browser(untraced, str, crumbs=False).ask("GET", "/", html=True).status == 200
    assert x_rays.taken() == []


def test_a_daemon_that_is_gone_is_not_missed(deployed: Lambda) -> None:
    with daemon() as started:
        gone = started.address
    environ = {**deployed.environ, "HOMEPORT_TRACING": "on", "AWS_XRAY_DAEMON_ADDRESS": gone}
    with starting(replace(deployed, environ=environ, folder=deployed.folder / "alone")) as start:
        browser = Browser(sampled(start)("api_handler"), str, crumbs=False)
        assert browser.ask("GET", "/", html=True).status == 200
        assert browser.ask("POST", "/sessions", multipart={"credentials": ("c.zip", a_bundle(7))}).status == 201
