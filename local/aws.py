"""AWS on one machine: moto's server as a child, with the stack that a real deployment uses.

1. It listens on 127.0.0.1 only, keeps everything in memory, and is gone with its process.
2. Its DynamoDB loses writes under concurrency; one lock around its calls makes it exact. Its SQS looks for delayed
   messages once a second; here it looks 50 times.
3. The stack is created from infra/resources.yaml through CloudFormation, and the hub's certificates by
   infra/certificates.py, as `make deploy` does. Credentials and account are made up.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from chalicelib.aws.hub_certificates import read_pair
from chalicelib.notebook.pair import Pair
from infra.certificates import ensure_certificates
from infra.stack import deploy_stack
from local import processes
from local.processes import LOOPBACK

ROOT: Final = Path(__file__).parent.parent
STAGE: Final = "local"
CERTIFICATES: Final = "/homeport/local"
REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class Aws:
    """The embedded AWS: what children and clients need to use it."""

    url: str
    environ: Mapping[str, str]

    def client(self, service: str) -> Any:
        """Make a boto3 client of the embedded AWS, whatever this process's own environment says."""
        return _client(service, self.url)

    def secret_pair(self, name: str, *, with_key: bool = True) -> Pair:
        """Read one of the hub's certificates, such as "proxy-client"; some are kept without their key."""
        return read_pair(self.client("ssm"), f"{CERTIFICATES}/{name}", Pair, with_key=with_key)


@contextmanager
def aws(folder: Path) -> Iterator[Aws]:
    """Run the embedded AWS with an empty stack for as long as the block lasts; raises StackError."""
    port = processes.free_port()
    command = [sys.executable, "-m", "local.aws", str(port)]
    environ = own_environ(os.environ) | aws_environ(f"http://{LOOPBACK}:{port}")
    with processes.running("aws", command, folder=folder, environ=environ, cwd=ROOT) as child:
        processes.wait_for_port(port, child=child, deadline=60)
        yield _with_stack(f"http://{LOOPBACK}:{port}")


def own_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Give an environment without the AWS account, and without the proxies, of whoever runs this."""
    foreign = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return {name: value for name, value in environ.items() if not name.startswith(foreign)}


def aws_environ(url: str) -> dict[str, str]:
    """Give what makes every boto3 client of a process use the embedded AWS."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "homeport",
        "AWS_SECRET_ACCESS_KEY": "homeport",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _with_stack(url: str) -> Aws:
    template = (ROOT / "infra" / "resources.yaml").read_text()
    outputs = deploy_stack(
        _client("cloudformation", url), name=f"homeport-{STAGE}", template=template, parameters={"Stage": STAGE}
    )
    ensure_certificates(_client("ssm", url), prefix=CERTIFICATES, key_id=outputs["Key"], now=time.time())
    environ = aws_environ(url) | {
        "HOMEPORT_TABLE": outputs["Table"],
        "HOMEPORT_BUCKET": outputs["Bucket"],
        "HOMEPORT_KEY": outputs["Key"],
        # The stack's own output names AWS's host; the queue here answers at another.
        "HOMEPORT_TICK_QUEUE_URL": _client("sqs", url).get_queue_url(QueueName=outputs["TickQueueName"])["QueueUrl"],
        "HOMEPORT_TICK_QUEUE": outputs["TickQueueName"],
        "HOMEPORT_CERTIFICATES": CERTIFICATES,
    }
    return Aws(url, environ)


def _client(service: str, url: str) -> Any:
    made_up = aws_environ(url)
    session = boto3.Session(made_up["AWS_ACCESS_KEY_ID"], made_up["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    return session.client(service, endpoint_url=url)  # type: ignore[call-overload]  # the name is a variable


# ── the child ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Handler(MotoRequestHandler):
    """Clients keep their connections, and no answer waits for Nagle's algorithm."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def handle_expect_100(self) -> bool:
        """Tell the client to go on at once: S3's clients wait a second for it, and the answer would stay buffered."""
        super().handle_expect_100()
        self.wfile.flush()
        del self.headers["Expect"]  # it is answered
        return True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: hundreds of lines for one notebook."""


def serve(port: int) -> None:
    """Serve moto on 127.0.0.1:`port` until the process ends."""
    from moto.dynamodb.responses import DynamoHandler
    from moto.sqs.models import Queue
    from werkzeug.serving import run_simple

    lock = threading.RLock()
    exact = DynamoHandler.call_action

    def one_at_a_time(handler: Any) -> Any:
        with lock:
            return exact(handler)

    patient = Queue.wait_for_messages

    def wait_for_messages(queue: Queue, _timeout: float) -> None:
        patient(queue, 0.02)  # type: ignore[arg-type]  # passed on to Condition.wait_for, which takes fractions

    Queue.wait_for_messages = wait_for_messages  # type: ignore[method-assign,assignment]
    DynamoHandler.call_action = one_at_a_time  # type: ignore[method-assign]
    os.environ["MOTO_PORT"] = str(port)  # queue URLs carry it
    application = DomainDispatcherApplication(create_backend_app)
    run_simple(LOOPBACK, port, application, threaded=True, request_handler=_Handler)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
