"""One version of Homeport, run as AWS runs it: requests, messages and the schedule, each in a process of its own.

`python -P -m tests.rehearsal.worker DESCRIPTOR…` says who it is on each of the sockets, in a line of JSON, and then
performs commands of it, one in a line, and answers each with a line (commands.py). It ends with its sockets.

Which version it is, PYTHONPATH says. So this knows nothing of the hub but what a deployment does: app.py's functions,
its HTTP interface, and the stored `state`; and that wiring.py has the clock.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

from chalice.test import Client

import app
from chalicelib import wiring
from chalicelib.session.values import State
from tests.rehearsal.commands import Command, Outcome

SERVICES: Final = ("dynamodb", "s3", "kms", "sqs", "ssm")
SCHEDULED: Final = ("version", "account", "region", "detail", "detail-type", "source", "time", "id", "resources")


class Doors:
    """Watches what a process writes, and ends it when a session is saved in a certain state."""

    def __init__(self, dies: str, writes: int) -> None:
        self.when, _, self.state = dies.partition(" ")
        self.writes = writes
        self.saving = False
        self.outcome = Outcome()
        table, queues = (wiring.wiring().client(service).meta.events for service in ("dynamodb", "sqs"))
        table.register("provide-client-params.dynamodb.PutItem", self.before_save)
        table.register("after-call.dynamodb.PutItem", self.after_save)
        queues.register("provide-client-params.sqs", self.before_message)

    def before_save(self, params: dict[str, Any], **_: Any) -> None:
        item = params["Item"]
        self.saving = item["sk"]["S"] == "session" and self._name(json.loads(item["session"]["S"])) == self.state
        if self.saving and self.when == "before":
            self._die()

    def after_save(self, **_: Any) -> None:
        if self.saving:
            self._die()

    def before_message(self, params: dict[str, Any], **_: Any) -> None:
        """Have SQS not delay a message: whoever receives it lets the time pass."""
        params.pop("DelaySeconds", None)
        self.outcome.sent.append(params["QueueUrl"])

    def tell(self) -> None:
        os.write(self.writes, json.dumps(asdict(self.outcome)).encode())

    def _name(self, values: dict[str, Any]) -> str:
        return f"{values['state']}+" if values.get("fraction") is not None else str(values["state"])

    def _die(self) -> None:
        self.outcome.killed = True
        self.tell()
        os.kill(os.getpid(), signal.SIGKILL)


def perform(command: Command, outcome: Outcome) -> None:
    """Do it, in this process."""
    wiring.CLOCK = lambda: time.time() + command.offset  # type: ignore[misc]  # Final, for everybody else
    context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 120_000)
    match command.do:
        case "ask":
            body = base64.b64decode(command.body)
            answer = Client(app.app).http.request("POST", command.path, headers=command.headers, body=body)
            outcome.status, outcome.body = answer.status_code, answer.body.decode()
        case "tick":
            getattr(app, command.lane)({"Records": [{"body": command.body, "receiptHandle": ""}]}, context)
        case "schedule":
            app.redrive(dict.fromkeys(SCHEDULED, ""), context)


def in_a_process(command: Command) -> Outcome:
    """Perform a command in a fork, and say how that ended."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        doors = Doors(command.dies, writes)
        try:
            perform(command, doors.outcome)
        except BaseException:  # noqa: BLE001 - whoever asked is told of it
            doors.outcome.error = traceback.format_exc()
        doors.tell()
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as told:
        text = told.read()
    os.waitpid(pid, 0)
    return Outcome(**json.loads(text)) if text else Outcome(error="the process ended without a word")


def serve(descriptor: int) -> None:
    """Say who this is, and perform the commands of a socket until there are no more."""
    with socket.socket(fileno=descriptor) as peer, peer.makefile("r") as commands:
        who = {"code": str(wiring.__file__), "states": [state.value for state in State]}
        peer.sendall((json.dumps(who) + "\n").encode())
        for line in commands:
            outcome = in_a_process(Command(**json.loads(line)))
            peer.sendall((json.dumps(asdict(outcome)) + "\n").encode())


def main(descriptors: list[int]) -> None:
    """Serve each socket in a process of its own, all of it loaded and no connection made."""
    parts = wiring.wiring()
    for service in SERVICES:
        parts.client(service)
    assert parts.signing_trust
    assert parts.probing_trust
    parts.client("ssm").close()  # a connection is not for two processes
    import_module("chalicelib.launcher.tick")  # as ticks do

    for descriptor in descriptors:
        if os.fork() == 0:
            serve(descriptor)
            os._exit(0)
    for _ in descriptors:
        os.wait()


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
