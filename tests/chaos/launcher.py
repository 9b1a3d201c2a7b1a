"""The launcher, and the hub's requests, in processes that end by SIGKILL at an instruction that is named beforehand.

`python -m tests.chaos.launcher BUNDLE IMAGE DESCRIPTOR…` reads commands from each of the sockets, one in a line
(`Command`), and answers each with a line (`Outcome`). It makes all parts and clients once and performs each command in
a fork of itself, so that a process costs milliseconds and is a real one all the same. It ends with its sockets.

A process signs with the access key of the function that it is (tests/roles.py), and may do no more.

An instruction is the moment before or after something that has an effect outside: a write to DynamoDB or S3, a message
to SQS, a request to the engine that is no question. Time is the machine's, and `offset` seconds.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import requests

from chalicelib.aws.build_logs import BuildLogStore
from chalicelib.aws.credentials import CredentialsStore
from chalicelib.aws.door import DoorStore
from chalicelib.aws.hub_certificates import load_trust
from chalicelib.aws.images import ImageStore
from chalicelib.aws.queues import TickMessage, TickQueues
from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.slots import SlotStore
from chalicelib.aws.tokens import TokenStore
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.client import Client
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.errors import HomeportError
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.tick import Launcher
from chalicelib.repository.address import parse_repository
from chalicelib.session.lanes import Lane
from chalicelib.session.values import Limits
from chalicelib.web.forms import Deletion, Launch
from chalicelib.web.hub import Hub
from chalicelib.wiring import HELPER, aws_client
from tests.chaos.recorded_aws import BY
from tests.roles import become

WRITES: Final = (
    ("dynamodb", "PutItem"),
    ("dynamodb", "DeleteItem"),
    ("dynamodb", "TransactWriteItems"),
    ("s3", "PutObject"),
    ("s3", "DeleteObject"),
    ("sqs", "SendMessage"),
)


@dataclass(frozen=True, slots=True)
class Command:
    """What a process is to do: "tick" (with `lane` and `body`), or what a visitor does (Parts.run; `name`, `sid`).

    A launch is that of a `repository`, if one is named.

    At the instruction `kill_at`, counted from 1, it is killed (None: never), or at the first that is called `kill_on`.
    """

    do: str
    sid: str
    name: str = ""
    lane: str = ""
    body: str = ""
    offset: float = 0.0
    kill_at: int | None = None
    kill_on: str = ""
    repository: str = ""


@dataclass(slots=True)
class Outcome:
    """How it ended: how many `instructions` there were, at which it was `killed` ("": at none), and why it failed.

    `sent` are the lanes of messages that were put on a queue, or may have been; `refused` is a code of the hub's own.
    """

    instructions: int = 0
    killed: str = ""
    refused: str = ""
    error: str = ""
    sent: list[str] = field(default_factory=list)


class Doors:
    """Counts the instructions of a process, and ends it at one of them."""

    def __init__(self) -> None:
        self.name = ""
        self.kill_at: int | None = None
        self.kill_on = ""
        self.outcome = Outcome()
        self.tell: Callable[[Outcome], None] = lambda outcome: None

    def step(self, when: str, what: str) -> None:
        self.outcome.instructions += 1
        if self.outcome.instructions == self.kill_at or f"{when} {what}" == self.kill_on:
            self.outcome.killed = f"{when} {what}"
            self.tell(self.outcome)
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, client: Any) -> None:
        """Count what an AWS client writes, and have it say who it is."""
        service = client.meta.service_model.service_name

        def name(params: dict[str, Any], **_: Any) -> None:
            params["headers"][BY] = self.name

        client.meta.events.register(f"before-call.{service}", name)
        for writes, operation in WRITES:
            if writes == service:
                self._watch(client, service, operation)

    def _watch(self, client: Any, service: str, operation: str) -> None:
        what = f"{service} {operation}"
        client.meta.events.register(f"before-call.{service}.{operation}", lambda **_: self.step("before", what))
        client.meta.events.register(f"after-call.{service}.{operation}", lambda **_: self.step("after", what))


class CountedClient(Client):
    """docker-py's client as Homeport has it; what is no question is counted."""

    doors: Doors

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        method, path = str(args[0]).upper(), str(args[1]).partition("?")[0].split("/")
        if method in ("GET", "HEAD"):
            return super().request(*args, **kwargs)
        words = [word for word in path if word in ("create", "start", "stop", "archive", "volumes")]
        self.doors.step("before", what := " ".join(["engine", method, *words]))
        answer = super().request(*args, **kwargs)
        self.doors.step("after", what)
        return answer


class Parts:
    """All that a process needs, made once and before any is started."""

    def __init__(self, bundle: bytes, image: str) -> None:
        self.config = Config.from_environ()
        self.bundle, self.image = bundle, image
        self.doors = Doors()
        self.clients = {service: aws_client(service) for service in ("dynamodb", "s3", "kms", "sqs", "ssm")}
        for client in self.clients.values():
            self.doors.watch(client)
        become(Lane.LAUNCH)
        self.trust = load_trust(self.clients["ssm"], self.config.certificates, signs=True)
        self.clients["ssm"].close()  # a connection is not for two processes
        self.offset = 0.0

    def run(self, command: Command) -> None:
        """Do what is asked, in a process of its own."""
        self.offset, self.doors.name = command.offset, secrets.token_hex(4)
        self.doors.kill_at, self.doors.kill_on = command.kill_at, command.kill_on
        become(command.lane if command.do == "tick" else "web")
        match command.do:
            case "tick":
                self.launcher(Lane(command.lane)).tick(TickMessage.from_body(command.body))
            case "launch":
                self.hub().launch(self.form(command.name, command.repository))
            case "stop":
                self.hub().stop(self.sessions().load(command.sid))
            case "forget":
                self.hub().forget(self.sessions().load(command.sid))
            case "again":
                self.hub().launch_again(self.sessions().load(command.sid))
            case "keep":
                self.hub().stop(self.sessions().load(command.sid), keep=True)
            case "longer":
                self.hub().keep_longer(self.sessions().load(command.sid))
            case "delete":
                session = self.sessions().load(command.sid)
                self.hub().delete(session, Deletion(name=session.name, bundle=self.bundle))

    def form(self, name: str, repository: str) -> Launch:
        return Launch(
            bundle=self.bundle,
            name=name,
            host=None,
            image=None if repository else self.image,
            repository=parse_repository(repository).source if repository else None,
            limits=Limits(),
            open_path="",
        )

    def clock(self) -> float:
        return time.time() + self.offset

    def sessions(self) -> SessionStore:
        return SessionStore(self.clients["dynamodb"], self.config.table, self.clock)

    def credentials(self) -> CredentialsStore:
        return CredentialsStore(self.clients["s3"], self.clients["kms"], bucket=self.config.bucket, key=self.config.key)

    def hub(self) -> Hub:
        dynamodb, lifetime = self.clients["dynamodb"], self.config.session_lifetime
        return Hub(
            config=self.config,
            sessions=self.sessions(),
            tokens=TokenStore(dynamodb, self.config.table, self.clock, lifetime=lifetime),
            credentials=self.credentials(),
            images=ImageStore(dynamodb, self.config.table, self.clock),
            build_logs=BuildLogStore(dynamodb, self.config.table, self.clock),
            door=DoorStore(dynamodb, self.config.table, self.clock),
            enqueue=self.enqueue,
            clock=self.clock,
            secret=lambda: secrets.token_urlsafe(32),
        )

    def launcher(self, lane: Lane) -> Launcher:
        dynamodb = self.clients["dynamodb"]
        effects = Effects(
            config=self.config,
            credentials=self.credentials(),
            routes=RouteStore(dynamodb, self.config.table, self.clock),
            slots=SlotStore(dynamodb, self.config.table, self.clock),
            images=ImageStore(dynamodb, self.config.table, self.clock),
            build_logs=BuildLogStore(dynamodb, self.config.table, self.clock),
            trust=lambda: self.trust,
            find_session=self.sessions().find,
            clock=self.clock,
            sleep=time.sleep,
            connect=self.connect,
            program=HELPER.read_bytes(),
        )
        return Launcher(
            sessions=self.sessions(),
            effects=effects,
            enqueue=self.enqueue,
            lane=lane,
            pulls=self.config.pulls,
            clock=self.clock,
            time_left=lambda: 120.0,
            name=self.doors.name,
        )

    def connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> DockerEndpoint:
        endpoint = DockerEndpoint(credentials, address=address, deadline=deadline, hub_name=hub_name)
        endpoint._docker = CountedClient(endpoint._channel)
        endpoint._docker.doors = self.doors
        return endpoint

    def enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        """Send it really, but without delay: whoever receives it lets the time pass by `offset`."""
        self.doors.outcome.sent.append(lane.value)
        TickQueues(self.clients["sqs"], self.config.queue_urls).enqueue(message, lane=lane, delay=0.0)


def perform(parts: Parts, command: Command) -> Outcome:
    """Perform a command in a fork, and say how that ended."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        _in_child(parts, command, writes)
    os.close(writes)
    with open(reads, "rb") as told:
        text = told.read()
    _, status = os.waitpid(pid, 0)
    outcome = Outcome(**json.loads(text)) if text else Outcome(error=f"the process ended with status {status}")
    if os.WIFSIGNALED(status) is not bool(outcome.killed):
        outcome.error += f" (status {status})"
    return outcome


def _in_child(parts: Parts, command: Command, writes: int) -> None:
    doors = parts.doors
    doors.tell = lambda outcome: _write(writes, outcome)
    try:
        parts.run(command)
    except HomeportError as error:
        if command.do == "tick":  # nothing that a tick may raise happens here
            doors.outcome.error = traceback.format_exc()
        doors.outcome.refused = error.code
    except BaseException:  # noqa: BLE001 - whoever asked is told of it
        doors.outcome.error = traceback.format_exc()
    doors.tell(doors.outcome)
    os._exit(0)


def _write(descriptor: int, outcome: Outcome) -> None:
    os.write(descriptor, json.dumps(asdict(outcome)).encode())


def serve(parts: Parts, descriptor: int) -> None:
    """Perform the commands of a socket until there are no more."""
    with socket.socket(fileno=descriptor) as peer, peer.makefile("r") as commands:
        for line in commands:
            outcome = perform(parts, Command(**json.loads(line)))
            peer.sendall((json.dumps(asdict(outcome)) + "\n").encode())


def main(bundle: Path, image: str, descriptors: list[int]) -> None:
    """Serve each socket in a process of its own."""
    parts = Parts(bundle.read_bytes(), image)
    for descriptor in descriptors:
        if os.fork() == 0:
            serve(parts, descriptor)
            os._exit(0)
    for _ in descriptors:
        os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(number) for number in sys.argv[3:]])
