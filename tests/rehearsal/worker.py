"""One version of Homeport, run as AWS runs it: processes that requests, messages and the schedule come to in turn.

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
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

from chalice.test import Client

import app
from chalicelib import wiring
from chalicelib.session.values import State
from tests.rehearsal.commands import Command, Outcome
from tests.roles import become

SERVICES: Final = ("dynamodb", "s3", "kms", "sqs", "ssm")
SCHEDULED: Final = ("version", "account", "region", "detail", "detail-type", "source", "time", "id", "resources")


class Doors:
    """Has the time, watches what a process writes, and ends it when a session is saved in a certain state.

    `tell` is called before that.
    """

    def __init__(self) -> None:
        self.command = Command("")
        self.outcome = Outcome()
        self.tell: Callable[[], None] = lambda: None
        self._saving = False
        table, queues = (wiring.wiring().client(service).meta.events for service in ("dynamodb", "sqs"))
        table.register("provide-client-params.dynamodb.PutItem", self._before_save)
        table.register("after-call.dynamodb.PutItem", self._after_save)
        queues.register("provide-client-params.sqs", self._before_message)
        wiring.CLOCK = self._clock  # type: ignore[misc]  # Final, for everybody else

    def _clock(self) -> float:
        return time.time() + self.command.offset

    def _before_save(self, params: dict[str, Any], **_: Any) -> None:
        when, state = self.command.dies.split(" ", 1) if self.command.dies else ("", "")
        item = params["Item"]
        self._saving = item["sk"]["S"] == "session" and _name(json.loads(item["session"]["S"])) == state
        if self._saving and when == "before":
            self._die()

    def _after_save(self, **_: Any) -> None:
        if self._saving:
            self._die()

    def _before_message(self, params: dict[str, Any], **_: Any) -> None:
        """Have SQS not delay a message: whoever receives it lets the time pass."""
        params.pop("DelaySeconds", None)
        self.outcome.sent.append(params["QueueUrl"])

    def _die(self) -> None:
        self.outcome.killed = True
        self.tell()
        os.kill(os.getpid(), signal.SIGKILL)


def _name(values: dict[str, Any]) -> str:
    return f"{values['state']}+" if values.get("fraction") is not None else str(values["state"])


def perform(doors: Doors, command: Command) -> Outcome:
    """Do it, in this process."""
    doors.command, outcome = command, Outcome()
    doors.outcome = outcome
    context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 120_000)
    try:
        match command.do:
            case "ask":
                become("web")
                body = base64.b64decode(command.body)
                answer = Client(app.app).http.request("POST", command.path, headers=command.headers, body=body)
                outcome.status, outcome.body = answer.status_code, answer.body.decode()
            case "tick":
                become(command.lane)
                getattr(app, command.lane)({"Records": [{"body": command.body, "receiptHandle": ""}]}, context)
            case "schedule":
                become("redrive")
                app.redrive(dict.fromkeys(SCHEDULED, ""), context)
    except BaseException:  # noqa: BLE001 - whoever asked is told of it
        outcome.error = traceback.format_exc()
    return outcome


def perform_and_die(doors: Doors, command: Command) -> Outcome:
    """Do it in a fork, which is killed if it comes so far."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        _disconnect()
        doors.tell = lambda: _write(writes, doors.outcome)
        perform(doors, command)
        doors.tell()
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as told:
        text = told.read()
    os.waitpid(pid, 0)
    return Outcome(**json.loads(text)) if text else Outcome(error="the process ended without a word")


def _disconnect() -> None:
    """Close the connections to AWS: none is for two processes. The next call makes another one."""
    for service in SERVICES:
        wiring.wiring().client(service).close()


def _write(descriptor: int, outcome: Outcome) -> None:
    os.write(descriptor, json.dumps(asdict(outcome)).encode())


def serve(descriptor: int) -> None:
    """Say who this is, and perform the commands of a socket until there are no more."""
    doors = Doors()
    with socket.socket(fileno=descriptor) as peer, peer.makefile("r") as commands:
        who = {"code": str(wiring.__file__), "states": [state.value for state in State]}
        peer.sendall((json.dumps(who) + "\n").encode())
        for line in commands:
            command = Command(**json.loads(line))
            outcome = perform_and_die(doors, command) if command.dies else perform(doors, command)
            peer.sendall((json.dumps(asdict(outcome)) + "\n").encode())


def main(descriptors: list[int]) -> None:
    """Serve each socket in a process of its own, all of it loaded and no connection made."""
    parts = wiring.wiring()
    for service in SERVICES:
        parts.client(service)
    become("launch")
    assert parts.signing_trust
    become("watch")
    assert parts.probing_trust
    _disconnect()
    import_module("chalicelib.launcher.tick")  # as ticks do

    for descriptor in descriptors:
        if os.fork() == 0:
            serve(descriptor)
            os._exit(0)
    for _ in descriptors:
        os.wait()


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
