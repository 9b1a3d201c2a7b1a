"""The embedded AWS is closed: to the machine's other users, to pages in browsers, and to what Homeport does not use."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.session.lanes import Lane, queue_of
from local import endpoint, private, run
from local.aws import Aws, aws
from local.gate import MAX_BODY, REGION, SERVICES, SKEW, AccessKey, Gate, closed
from local.processes import LOOPBACK, StackError, free_port
from local.settings import Settings
from tests.functional.test_local_run import a_stack

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
CANARY = "canary-of-the-embedded-aws"
NOBODY = 65534
# What another user runs: requests and files as JSON on stdin, what came of them as JSON on stdout. No library needed.
STRANGER = """
import http.client, json, sys
given, found = json.load(sys.stdin), {"answers": [], "files": [], "opened": []}
for request in given["requests"]:
    connection = http.client.HTTPConnection("127.0.0.1", given["port"], timeout=60)
    connection.putrequest(request["method"], request["target"], skip_host=True, skip_accept_encoding=True)
    for name, value in request["headers"].items():
        connection.putheader(name, value)
    connection.endheaders(request["body"].encode("latin-1"))
    answer = connection.getresponse()
    found["answers"].append([answer.status, answer.read().decode("latin-1")])
    connection.close()
for path in given["files"]:
    try:
        with open(path, "rb") as file:
            found["opened"].append(path)
    except OSError:
        pass
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, byte for byte."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    def having(self, **headers: str | None) -> Request:
        """The same request with other headers; None takes one away."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in self.headers.items() if name not in changed}
        return replace(self, headers=kept | {name: value for name, value in changed.items() if value is not None})


@cache
def session() -> boto3.Session:
    return boto3.Session(region_name=REGION)


def client_of(service: str, url: str, key: AccessKey, config: Config | None = None) -> Any:
    """A client like those of local/aws.py; a session for each would take seconds."""
    keys = {"aws_access_key_id": key.id, "aws_secret_access_key": key.secret}
    return session().client(service, endpoint_url=url, config=config, **keys)  # type: ignore[call-overload]


class Caught(Exception):
    """A request that is not to be sent."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


def signed(
    call: Callable[[Any], object], service: str, url: str, key: AccessKey, config: Config | None = None
) -> Request:
    """Have boto3 make and sign a request, which is caught before it is sent."""

    def catch(request: Any, **_others: Any) -> None:
        raise Caught(request)

    client = client_of(service, url, key, config)
    client.meta.events.register("before-send", catch)
    with pytest.raises(Caught) as caught:
        call(client)
    request = caught.value.request
    host = request.url.removeprefix("http://").partition("/")[0]
    body = request.body.read() if hasattr(request.body, "read") else request.body or b""
    headers = {
        name.lower(): value if isinstance(value, str) else value.decode() for name, value in request.headers.items()
    }
    headers.pop("expect", None)
    return Request(
        request.method,
        request.url.partition(host)[2],
        headers | {"host": host, "content-length": str(len(body))},
        (body if isinstance(body, bytes) else body.encode()).decode("latin-1"),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """An embedded AWS with something worth reading in each service, and the calls that read or change it."""

    cloud: Aws
    folder: Path
    calls: Mapping[str, tuple[str, Callable[[Any], object]]]

    @property
    def port(self) -> int:
        return int(self.cloud.url.rpartition(":")[2])

    @property
    def host(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def key(self) -> AccessKey:
        return AccessKey.from_environ(self.cloud.environ)

    def requests(self, key: AccessKey | None = None) -> dict[str, Request]:
        """Each call's request, signed with the key: the run's own when none is given."""
        return {
            name: signed(call, service, self.cloud.url, key or self.key) for name, (service, call) in self.calls.items()
        }

    def ask(self, request: Request) -> tuple[int, str]:
        """Send a request as it is; give status and body."""
        with closing(http.client.HTTPConnection(LOOPBACK, self.port, timeout=60)) as connection:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(request.body.encode("latin-1"))
            answer = connection.getresponse()
            return answer.status, answer.read().decode("latin-1")

    def contents(self) -> object:
        """What is stored, as its owner sees it."""
        environ = self.cloud.environ
        names = ("s3", "dynamodb", "sqs", "ssm")
        s3, dynamodb, sqs, ssm = (client_of(name, self.cloud.url, self.key) for name in names)
        queue = {"QueueUrl": queue_of(environ["HOMEPORT_QUEUE_URLS"], Lane.LAUNCH), "AttributeNames": ["All"]}
        return (
            [
                (found["Key"], found["ETag"])
                for found in s3.list_objects_v2(Bucket=environ["HOMEPORT_BUCKET"])["Contents"]
            ],
            dynamodb.scan(TableName=environ["HOMEPORT_TABLE"])["Items"],
            {
                name: value
                for name, value in sqs.get_queue_attributes(**queue)["Attributes"].items()
                if name.startswith("ApproximateNumber")
            },
            sorted(found["Name"] for found in ssm.describe_parameters()["Parameters"]),
        )


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """It keeps its log below a folder that everybody may enter, as a checkout is."""
    with tempfile.TemporaryDirectory(prefix="hp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with aws(folder / "logs") as cloud:
            environ = cloud.environ
            bucket, table = (environ[f"HOMEPORT_{name}"] for name in ("BUCKET", "TABLE"))
            queue = queue_of(environ["HOMEPORT_QUEUE_URLS"], Lane.LAUNCH)
            cloud.client("s3").put_object(Bucket=bucket, Key="credentials/sid/1", Body=CANARY.encode())
            item = {"pk": {"S": "route#sid"}, "sk": {"S": CANARY}}
            cloud.client("dynamodb").put_item(TableName=table, Item=item)
            cloud.client("sqs").send_message(QueueUrl=queue, MessageBody=CANARY)
            sealed = cloud.client("kms").encrypt(KeyId=environ["HOMEPORT_KEY"], Plaintext=CANARY.encode())
            ca = f"{environ['HOMEPORT_CERTIFICATES']}/notebook-ca"
            yield Target(
                cloud,
                folder,
                {
                    "read the CA's key": ("ssm", lambda c: c.get_parameter(Name=ca, WithDecryption=True)),
                    "decrypt": ("kms", lambda c: c.decrypt(CiphertextBlob=sealed["CiphertextBlob"])),
                    "list objects": ("s3", lambda c: c.list_objects_v2(Bucket=bucket)),
                    "read an object": ("s3", lambda c: c.get_object(Bucket=bucket, Key="credentials/sid/1")),
                    "scan the table": ("dynamodb", lambda c: c.scan(TableName=table)),
                    "receive messages": ("sqs", lambda c: c.receive_message(QueueUrl=queue, VisibilityTimeout=0)),
                    "describe the stack": ("cloudformation", lambda c: c.describe_stacks()),
                    "overwrite an object": (
                        "s3",
                        lambda c: c.put_object(Bucket=bucket, Key="credentials/sid/1", Body=CANARY.encode()),
                    ),
                },
            )


def as_another_user(
    target: Target, requests: list[Request], files: list[Path]
) -> tuple[list[tuple[int, str]], list[str]]:
    """Send requests and open files as a user without any right; give the answers, and which files opened."""
    interpreter = os.path.realpath(sys.executable)
    command = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        interpreter,
        "-I",
        "-S",
        "-c",
        STRANGER,
    ]
    given = {"port": target.port, "requests": [asdict(request) for request in requests], "files": list(map(str, files))}
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return [(status, body) for status, body in found["answers"]], found["opened"]


def forged(good: Request) -> dict[str, Request]:
    """What somebody could make of a request, without its key."""
    authorization = good.headers["authorization"]
    tampered = authorization[:-1] + ("0" if authorization[-1] != "0" else "1")
    other = good.body + " "
    return {
        "no signature": good.having(authorization=None),
        "a tampered signature": good.having(authorization=tampered),
        "another body": replace(good, body=other).having(content_length=str(len(other))),
        "another method": replace(good, method="DELETE"),
        "another path": replace(good, target=good.target.partition("?")[0] + "/other"),
        "another query": replace(good, target=good.target + ("&" if "?" in good.target else "?") + "other=1"),
        "another date": good.having(x_amz_date="20200101T000000Z"),
        "another operation": good.having(x_amz_target="AmazonSSM.DeleteParameter"),
        "one more header": good.having(x_amz_copy_source="bucket/key"),
    }


@needs_root
def test_another_user_of_the_machine_reads_and_changes_nothing(target: Target) -> None:
    good = target.requests()
    answers, _ = as_another_user(target, list(good.values()), [])
    assert [status for status, _body in answers] == [200] * len(good), "the calls are possible, with the key"
    before = target.contents()

    keys = {
        "the key of earlier versions": AccessKey("homeport", "homeport"),
        "a guessed key": AccessKey.new(),
        "the id and a guessed secret": replace(AccessKey.new(), id=target.key.id),
    }
    attempts = {f"{call}, {how}": request for call in good for how, request in forged(good[call]).items()}
    for how, key in keys.items():
        attempts |= {f"{call}, {how}": request for call, request in target.requests(key).items()}
    answers, _ = as_another_user(target, list(attempts.values()), [])
    assert [name for name, (status, _body) in zip(attempts, answers, strict=True) if status != 403] == []
    told = " ".join(body for _status, body in answers)
    assert not any(text in told for text in (CANARY, "PRIVATE KEY", base64.b64encode(CANARY.encode()).decode()))
    assert target.contents() == before


@needs_root
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="apt-get install haproxy")
def test_another_user_opens_neither_logs_nor_keys_nor_bundle(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = target.folder
    found = a_stack(Settings(state=folder))
    with (
        run.announcement(folder / "stack.json", found),
        endpoint.endpoint(folder / "endpoint", folder / "no-engine.sock") as offered,
    ):
        endpoint.write_bundle(folder / "credentials.zip", offered)
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = {path.name for path in files}
        assert names >= {"aws.log", "endpoint.log", "stack.json", "credentials.zip", "pki.json", "server.pem"}
        assert target.cloud.child is not None
        environ = Path(f"/proc/{target.cloud.child.pid}/environ")
        assert target.key.secret in environ.read_text()
        _, opened = as_another_user(target, [], [*files, environ])
        assert opened == []


def test_nothing_secret_is_on_the_command_line(target: Target) -> None:
    assert target.cloud.child is not None
    command = Path(f"/proc/{target.cloud.child.pid}/cmdline").read_text()
    assert "local.aws" in command
    assert target.key.id not in command
    assert target.key.secret not in command


def test_every_run_has_its_own_key() -> None:
    keys = [AccessKey.new() for _ in range(3)]
    assert len({key.id for key in keys} | {key.secret for key in keys}) == 6
    assert all(len(key.id) >= 32 and len(key.secret) >= 64 and key.secret not in repr(key) for key in keys)


@pytest.mark.parametrize("name", ["evil.example", "localhost", "sid.localhost", "127.0.0.2"])
def test_a_name_that_was_bound_again_is_refused(target: Target, name: str) -> None:
    for service, call in target.calls.values():
        request = signed(
            call, service, f"http://{name}:{target.port}", target.key, Config(s3={"addressing_style": "path"})
        )
        assert target.ask(request)[0] == 403
        absolute = f"http://{name}:{target.port}{request.target}"
        assert target.ask(replace(request, target=absolute).having(host=target.host))[0] == 403


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "http://sid.localhost:8080"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "no-cors"),
        ("Sec-Ch-Ua", '"Chromium"'),
    ],
)
def test_a_page_is_refused_even_with_the_key(target: Target, name: str, value: str) -> None:
    for request in target.requests().values():
        assert target.ask(request.having(**{name: value}))[0] == 403
    for service in sorted(SERVICES - {"s3"}):
        call = next(call for known, call in target.calls.values() if known == service)
        client = client_of(service, target.cloud.url, target.key)
        client.meta.events.register("before-sign", lambda request, **_: request.headers.add_header(name, value))
        with pytest.raises(ClientError, match=r"AccessDenied.*Requests of browsers"):
            call(client)


@pytest.mark.parametrize(
    ("service", "call"),
    [
        ("batch", lambda c: c.describe_job_queues()),
        ("ec2", lambda c: c.describe_instances()),
        ("lambda", lambda c: c.list_functions()),
        ("iam", lambda c: c.list_users()),
        ("ecs", lambda c: c.list_clusters()),
        ("sts", lambda c: c.get_caller_identity()),
        ("secretsmanager", lambda c: c.list_secrets()),
        ("dynamodbstreams", lambda c: c.list_streams()),
    ],
)
def test_a_service_that_homeport_does_not_use_is_refused_even_with_the_key(
    target: Target, service: str, call: Callable[[Any], object]
) -> None:
    status, body = target.ask(signed(call, service, target.cloud.url, target.key))
    assert (status, "not offered here" in body) == (403, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/moto-api/"),
        ("GET", "/moto-api/data.json"),
        ("POST", "/moto-api/reset"),
        ("GET", "/favicon.ico"),
        ("GET", "/latest/meta-data/iam/security-credentials/"),
        ("GET", "/latest/api/token"),
        ("GET", "/v20180820/accesspoint"),
    ],
)
def test_motos_own_pages_are_refused_with_and_without_the_key(target: Target, method: str, path: str) -> None:
    before = target.contents()
    assert target.ask(Request(method, path, {"host": target.host, "content-length": "0"}))[0] == 403
    client = client_of("s3", target.cloud.url, target.key)

    def elsewhere(request: Any, **_others: Any) -> None:
        request.method, request.url = method, target.cloud.url + path

    client.meta.events.register("before-sign", elsewhere)
    with pytest.raises(ClientError, match="not offered here"):
        client.list_buckets()
    assert target.contents() == before


def test_presigned_urls_are_refused(target: Target) -> None:
    bucket = target.cloud.environ["HOMEPORT_BUCKET"]
    for version in ("s3v4", "s3"):
        s3 = client_of("s3", target.cloud.url, target.key, Config(signature_version=version))
        url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "credentials/sid/1"})
        status, body = target.ask(Request("GET", url.removeprefix(target.cloud.url), {"host": target.host}))
        assert (status, CANARY in body) == (403, False)
        assert "presigned URLs are not accepted" in body


def test_bodies_that_no_signature_covers_are_refused(target: Target) -> None:
    bucket = target.cloud.environ["HOMEPORT_BUCKET"]
    s3 = client_of("s3", target.cloud.url, target.key, Config(s3={"payload_signing_enabled": False}))
    with pytest.raises(ClientError, match=r"AccessDenied.*unsigned bodies"):
        s3.put_object(Bucket=bucket, Key="credentials/sid/1", Body=b"other")
    good = target.requests()["overwrite an object"]
    chunked = good.having(content_length=None, transfer_encoding="chunked")
    assert target.ask(replace(chunked, body=f"{len(good.body):x}\r\n{good.body}\r\n0\r\n\r\n"))[0] == 403


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_refusal_is_an_error_of_aws_that_says_why(target: Target, service: str) -> None:
    call = next(call for known, call in target.calls.values() if known == service)
    wrong = AccessKey(target.key.id, "0" * 64)
    client = client_of(service, target.cloud.url, wrong)
    with pytest.raises(ClientError) as refused:
        call(client)
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    assert refused.value.response["Error"]["Message"] == "The signature is not the one of this request."
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_request_without_body_is_refused_with_its_code_too(target: Target) -> None:
    client = client_of("s3", target.cloud.url, AccessKey.new())
    with pytest.raises(ClientError, match="403"):
        client.head_bucket(Bucket=target.cloud.environ["HOMEPORT_BUCKET"])


def test_an_old_signature_is_refused() -> None:
    key = AccessKey.new()
    request = signed(lambda c: c.list_tables(), "dynamodb", "http://127.0.0.1:1", key)
    assert through_the_gate(request, key, time.time() + SKEW / 2) == "200 OK"
    assert through_the_gate(request, key, time.time() + 2 * SKEW) == "403 Forbidden"
    assert through_the_gate(request, key, time.time() - 2 * SKEW) == "403 Forbidden"


@pytest.mark.parametrize("key", ["a b", "ünïcode/😀", "plus+percent%7E~", "a//b", "dots/../x", "q?x=1&y=2", "=;,'()*!"])
def test_any_name_of_an_object_that_the_holder_of_the_key_asks_for_gets_in(target: Target, key: str) -> None:
    s3, bucket = client_of("s3", target.cloud.url, target.key), target.cloud.environ["HOMEPORT_BUCKET"]
    gate_key = target.key
    request = signed(lambda c: c.put_object(Bucket=bucket, Key=key, Body=b"x"), "s3", "http://127.0.0.1:1", gate_key)
    assert through_the_gate(request, gate_key, time.time()) == "200 OK"
    s3.put_object(Bucket=bucket, Key=f"names/{key}", Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=f"names/{key}")["Body"].read() == key.encode()
    assert f"names/{key}" in [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix="names/")["Contents"]]
    s3.delete_object(Bucket=bucket, Key=f"names/{key}")


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", str(MAX_BODY + 1)])
def test_a_body_without_a_good_length_is_not_read(length: str) -> None:
    key = AccessKey.new()
    request = signed(lambda c: c.list_tables(), "dynamodb", "http://127.0.0.1:1", key).having(content_length=length)
    expected = "403 Forbidden"
    assert through_the_gate(request, key, time.time()) == expected


def through_the_gate(request: Request, key: AccessKey, now: float) -> str:
    """Give a request to a gate in front of nothing; give the status."""
    statuses: list[str] = []

    def start_response(
        status: str, _headers: list[tuple[str, str]], _exc_info: Any = None
    ) -> Callable[[bytes], object]:
        statuses.append(status)
        return lambda _data: None

    def behind(_environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [])
        return []

    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    environ |= {"REQUEST_METHOD": request.method, "REQUEST_URI": request.target}
    gate = Gate(behind, key=key, host="127.0.0.1:1", clock=lambda: now)
    list(gate({**environ, "wsgi.input": io.BytesIO(request.body.encode("latin-1"))}, start_response))
    return statuses[0]


def test_an_application_of_moto_that_is_not_needed_answers_nothing() -> None:
    statuses: list[str] = []
    answer = closed({"REQUEST_METHOD": "GET"}, lambda status, *_: statuses.append(status))  # type: ignore[arg-type]
    assert b"not offered here" in b"".join(answer)
    assert statuses == ["403 Forbidden"]


def test_the_docker_engine_of_whoever_runs_this_does_not_reach_moto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, "unix:///run/somebody-elses.sock")
    with aws(tmp_path) as cloud:
        assert cloud.child is not None
        environ = Path(f"/proc/{cloud.child.pid}/environ").read_text().split("\0")
        assert f"AWS_ENDPOINT_URL={cloud.url}" in environ
        assert [line for line in environ if "DOCKER" in line or "somebody" in line] == []


def test_nobody_else_takes_the_port_when_the_embedded_aws_ends(tmp_path: Path) -> None:
    with aws(tmp_path) as cloud:
        assert cloud.child is not None
        cloud.child.process.kill()
        cloud.child.process.wait()
        with (
            pytest.raises(OSError, match="in use"),
            socket.create_server((LOOPBACK, int(cloud.url.rpartition(":")[2]))),
        ):
            pass


def test_a_state_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "logs").mkdir(parents=True)
    state.chmod(0o755)
    with run.alone(a_settings(state)):
        assert state.stat().st_mode & 0o777 == 0o700
        assert (state / "run.lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_with_other_uses_is_left_as_it_is_and_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(StackError, match="HOMEPORT_STATE_DIR"), run.alone(a_settings(folder)):
        pass
    folder.chmod(0o755)
    (folder / "thesis.tex").touch()
    with pytest.raises(StackError, match="HOMEPORT_STATE_DIR"), run.alone(a_settings(folder)):
        pass
    assert folder.stat().st_mode & 0o777 == 0o755
    folder.chmod(0o700)
    with run.alone(a_settings(folder)):
        assert (folder / "thesis.tex").exists()


@needs_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(StackError, match="HOMEPORT_STATE_DIR"), run.alone(a_settings(folder)):
        pass


def test_a_file_that_was_open_is_closed_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "aws.log"
    path.touch(mode=0o644)
    private.write_file(path, b"port")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"port", 0o600)


def test_a_stack_of_an_earlier_version_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"hub_name": "local-1", "aws_url": "http://127.0.0.1:1"}))
    assert run.announced(a_settings(tmp_path)) is None


def test_the_demo_finds_the_key_in_the_announcement_and_no_one_sees_it_in_a_message(tmp_path: Path) -> None:
    found = replace(a_stack(a_settings(tmp_path)), aws_url="http://127.0.0.1:1", aws_key="ID", aws_secret="SECRET")
    with run.announcement(tmp_path / "stack.json", found):
        assert json.loads((tmp_path / "stack.json").read_text())["aws_secret"] == "SECRET"
        assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600
    assert AccessKey.from_environ(found.cloud.environ) == AccessKey("ID", "SECRET")
    assert "SECRET" not in repr(found) + repr(found.cloud)


def a_settings(state: Path) -> Settings:
    return Settings(state=state, hub_port=free_port(), proxy_port=free_port())
