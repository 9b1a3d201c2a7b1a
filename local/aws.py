"""AWS on one machine: moto's server as a child, with the stack that a real deployment uses.

1. It listens on 127.0.0.1 only, keeps everything in memory, and is gone with its process. The port is bound here and
   handed on, so that nobody else can take it, not even when the process ends.
2. Its DynamoDB is made exact and fast (local/table.py). Its SQS looks for delayed messages once a second; here it
   looks 50 times.
3. The stack is created from infra/resources.yaml through CloudFormation, and the hub's certificates by
   infra/certificates.py, as `make deploy` does.
4. Each run has a random access key, and every request must be signed with it: local/gate.py. The key is handed on in
   environments, which other users cannot read as they can a command line.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from chalicelib.aws.hub_certificates import read_pair
from chalicelib.notebook.pair import Pair
from chalicelib.session.lanes import Lane, queue_of
from infra.certificates import ensure_certificates
from infra.stack import deploy_stack
from local import processes
from local.gate import REGION, SERVICES, AccessKey, Gate, closed
from local.processes import LOOPBACK, Child

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

ROOT: Final = Path(__file__).parent.parent
STAGE: Final = "local"
CERTIFICATES: Final = "/homeport/local"


@dataclass(frozen=True, slots=True)
class Aws:
    """The embedded AWS: what children and clients need to use it. `environ` holds its access key."""

    url: str
    environ: Mapping[str, str] = field(repr=False)
    child: Child | None = None

    def client(self, service: str) -> Any:
        """Make a boto3 client of the embedded AWS, whatever this process's own environment says."""
        return _client(service, self.url, AccessKey.from_environ(self.environ))

    def secret_pair(self, name: str, *, with_key: bool = True) -> Pair:
        """Read one of the hub's certificates, such as "proxy-client"; some are kept without their key."""
        return read_pair(self.client("ssm"), f"{CERTIFICATES}/{name}", Pair, with_key=with_key)


@contextmanager
def aws(folder: Path, *, program: str = "local.aws") -> Iterator[Aws]:
    """Run the embedded AWS with an empty stack for as long as the block lasts; raises StackError.

    `program` is the module that serves it, on a socket whose number is its argument.
    """
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        port, descriptor = bound.getsockname()[1], bound.fileno()
        url, key = f"http://{LOOPBACK}:{port}", AccessKey.new()
        command = [sys.executable, "-m", program, str(descriptor)]
        environ = own_environ(os.environ) | aws_environ(url, key) | {"MOTO_DISABLE_GLOBAL_CORS": "true"}
        with processes.running(
            "aws", command, folder=folder, environ=environ, cwd=ROOT, descriptors=(descriptor,)
        ) as child:
            processes.wait_for_port(port, child=child, deadline=60)
            yield _with_stack(url, key, child)


def own_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Give an environment without the AWS account, and without the proxies, of whoever runs this."""
    foreign = ("AWS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return {name: value for name, value in environ.items() if not name.startswith(foreign)}


def aws_environ(url: str, key: AccessKey) -> dict[str, str]:
    """Give what makes every boto3 client of a process use the embedded AWS."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _with_stack(url: str, key: AccessKey, child: Child) -> Aws:
    template = (ROOT / "infra" / "resources.yaml").read_text()
    outputs = deploy_stack(
        _client("cloudformation", url, key), name=f"homeport-{STAGE}", template=template, parameters={"Stage": STAGE}
    )
    ensure_certificates(_client("ssm", url, key), prefix=CERTIFICATES, key_id=outputs["Key"], now=time.time())
    queue = _client("sqs", url, key).get_queue_url(QueueName=queue_of(outputs["Queues"], Lane.LAUNCH))["QueueUrl"]
    environ = aws_environ(url, key) | {
        "HOMEPORT_TABLE": outputs["Table"],
        "HOMEPORT_BUCKET": outputs["Bucket"],
        "HOMEPORT_KEY": outputs["Key"],
        # The stack's own output names AWS's host; the queues here answer at another.
        "HOMEPORT_QUEUE_URLS": queue.removesuffix(f"-{Lane.LAUNCH}"),
        "HOMEPORT_QUEUES": outputs["Queues"],
        "HOMEPORT_CERTIFICATES": CERTIFICATES,
    }
    return Aws(url, environ, child)


def _client(service: str, url: str, key: AccessKey) -> Any:
    session = boto3.Session(key.id, key.secret, region_name=REGION)
    return session.client(service, endpoint_url=url)  # type: ignore[call-overload]  # the name is a variable


# ── the child ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Handler(MotoRequestHandler):
    """HTTP/1.1 for `Expect: 100-continue`, and with connections that last; no answer waits for Nagle's algorithm.

    Werkzeug's own ends each connection, since an application may leave some of a request unread, and waits for the
    rest: a thread, a handshake and a hundredth of a second for every call. The gate reads what it lets in to its end.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def handle_expect_100(self) -> bool:
        """Tell the client to go on at once: S3's clients wait a second for it, and the answer would stay buffered."""
        super().handle_expect_100()
        self.wfile.flush()
        del self.headers["Expect"]  # it is answered
        return True

    def run_wsgi(self) -> None:
        """Answer one request."""
        answer: list[Any] = []
        environ = self.make_environ()
        unread = environ["wsgi.input"]
        body = b"".join(self.server.app(environ, lambda *started: answer.extend(started)))  # type: ignore[arg-type]
        status, headers = answer[:2]
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        if environ["wsgi.input"] is unread:  # refused before it was read
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: hundreds of lines for one notebook."""


def serve(
    listener: socket.socket, key: AccessKey, *, around: Callable[[WSGIApplication], WSGIApplication] = lambda gate: gate
) -> None:
    """Serve moto to the holder of the key, on a socket that is bound to a port of 127.0.0.1, until the process ends.

    `around` puts something in front of all of it.
    """
    from moto.sqs.models import Queue
    from werkzeug.serving import make_server

    from local.table import improve_dynamodb

    patient = Queue.wait_for_messages

    def wait_for_messages(queue: Queue, _timeout: float) -> None:
        patient(queue, 0.02)  # type: ignore[arg-type]  # passed on to Condition.wait_for, which takes fractions

    Queue.wait_for_messages = wait_for_messages  # type: ignore[method-assign,assignment]
    improve_dynamodb()
    host, port = listener.getsockname()
    os.environ["MOTO_PORT"] = str(port)  # queue URLs carry it
    moto = DomainDispatcherApplication(_backend)  # type: ignore[arg-type]  # any WSGI application will do
    gate = Gate(moto, key=key, host=f"{host}:{port}", clock=time.time)
    server = make_server(host, port, around(gate), threaded=True, request_handler=_Handler, fd=listener.fileno())
    listener.listen(128)
    server.serve_forever()


def _backend(service: Any) -> WSGIApplication:
    """Make moto's application for one of its backends; some, such as its dashboard, are found by path alone."""
    return create_backend_app(service) if service in SERVICES else closed


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), AccessKey.from_environ(os.environ))
