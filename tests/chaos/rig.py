"""Real parts for chaos: an engine, its TLS endpoint and a tiny notebook, the embedded AWS, and all that they say.

The notebook is HAProxy in an image of this machine's own programs. It is called, gets its files and is asked as any
other: with the launch's certificate, and for that of the hub, which it verifies.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import docker
from docker.errors import NotFound

from chalicelib.aws.queues import TickMessage
from chalicelib.aws.session_items import pk_of
from chalicelib.aws.sessions import SessionStore
from chalicelib.bundle.parse import parse
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.session.values import session_id, volume_name
from local.aws import ROOT, Aws, own_environ
from local.endpoint import LocalEndpoint, endpoint, write_bundle
from local.engine import Engine
from local.settings import NO_RATES
from tests.chaos.launcher import Command, Outcome
from tests.chaos.recorded_aws import entries
from tests.history import Created, Entry, Fact, HelperMade, HelperRemoved, Removed, Started, sid_of
from tests.integration.gated_registry import a_tar
from tests.real_parts import BUILDER_IMAGE
from tests.role_guard import guarded_aws

IMAGE: Final = "homeport-chaos-test:latest"
NOTEBOOK: Final = b"""\
global
    maxconn 64
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend notebook
    bind :8888 ssl crt /opt/homeport/notebook.pem ca-file /opt/homeport/client-ca.pem verify required
    http-request return status 200 content-type application/json string "{}"
"""
_ACTIONS: Final[Mapping[str, type[Created | Started | Removed]]] = {
    "create": Created,
    "start": Started,
    "destroy": Removed,
}


@dataclass
class Events:
    """What the engine says, from the moment it is listened to: containers of sessions, and volumes that are gone.

    Of a container: when, what, the session that its label names, its name, and whether it is a helper.
    """

    containers: list[tuple[int, str, str, str, bool]] = field(default_factory=list)
    volumes: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def listen(self, stream: Any) -> None:
        for event in stream:
            with self.changed:
                attributes = event["Actor"]["Attributes"]
                if event["Type"] == "volume" and event["Action"] == "destroy":
                    self.volumes.add(event["Actor"]["ID"])
                elif event["Type"] == "container" and event["Action"] in _ACTIONS:
                    sid, is_helper = attributes.get("homeport.session", ""), "homeport.task" in attributes
                    self.containers.append((event["timeNano"], event["Action"], sid, attributes["name"], is_helper))
                self.changed.notify_all()

    def await_volume(self, name: str) -> None:
        """Wait until the engine has said that a volume is gone, and so all that happened before."""
        with self.changed:
            assert self.changed.wait_for(lambda: name in self.volumes, timeout=60), f"no end of {name} was told"


@dataclass
class Rig:
    """All of it. `launcher` starts processes; `history` is what happened to a session."""

    engine: Engine
    cloud: Aws
    offered: LocalEndpoint
    behind: docker.APIClient
    events: Events
    folder: Path
    _journal: dict[str, list[tuple[int, Entry]]] = field(default_factory=lambda: defaultdict(list))
    _read: int = 0
    _mail: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.environ = self.cloud.environ
        self.sqs = self.cloud.client("sqs")
        self.dynamodb = self.cloud.client("dynamodb")
        self.s3 = self.cloud.client("s3")
        bundle = parse((self.folder / "bundle.zip").read_bytes(), host=None, now=time.time())
        self.owner = bundle.owner

    def sessions(self, clock: Any) -> SessionStore:
        return SessionStore(self.dynamodb, self.environ["HOMEPORT_TABLE"], clock)

    def receive(self, lane: Lane) -> None:
        """Take what is in a lane's queue, for whomever it is."""
        url = queue_of(self.environ["HOMEPORT_QUEUE_URLS"], lane)
        with self._lock:
            for message in self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
                sid = TickMessage.from_body(message["Body"]).sid
                self._mail[sid].append((lane.value, message["Body"]))

    def messages(self, sid: str) -> list[tuple[str, str]]:
        """The messages that were received for a session: lane and body. Whoever handles one takes it away."""
        with self._lock:
            return self._mail[sid]

    def take(self, sid: str) -> list[tuple[str, str]]:
        """Take these messages."""
        with self._lock:
            return self._mail.pop(sid, [])

    def stored(self, sid: str) -> list[str]:
        """The objects that are stored for a session."""
        listed = self.s3.list_objects_v2(Bucket=self.environ["HOMEPORT_BUCKET"], Prefix=f"credentials/{sid}/")
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def containers(self, sid: str) -> list[tuple[str, str]]:
        """The session's containers: name and state."""
        listed = self.behind.containers(all=True, filters={"label": f"homeport.session={sid}"})
        return [(one["Names"][0].removeprefix("/"), one["State"]) for one in listed]

    def has_volume(self, sid: str) -> bool:
        """Whether the session's volume is there."""
        with suppress(NotFound):
            return bool(self.behind.inspect_volume(volume_name(sid)))
        return False

    def clear(self, sid: str) -> None:
        """Remove what is left of a session on the engine, as its owner, and in the table, whose emulation gets slow."""
        table, pk = self.environ["HOMEPORT_TABLE"], {"S": pk_of(sid)}
        listed = self.dynamodb.query(
            TableName=table, KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": pk}
        )
        for item in listed["Items"]:
            self.dynamodb.delete_item(TableName=table, Key={"pk": pk, "sk": item["sk"]})
        self._forget(sid)
        for name, _ in self.containers(sid):
            self.behind.remove_container(name, force=True)
        with suppress(NotFound):
            self.behind.remove_volume(volume_name(sid))

    def _forget(self, sid: str) -> None:
        """Have no history of a session: what comes under its name now is another life."""
        self.history(sid)  # what is still to be read of it is read before
        with self._lock:
            del self._journal[sid]
        with self.events.changed:
            self.events.containers[:] = [told for told in self.events.containers if told[2] != sid]

    def sid_of(self, name: str) -> str:
        """The session of the bundle's key and this name; "" while there is none."""
        sid = session_id(self.owner, name)
        return sid if self.sessions(time.time).find(sid) else ""

    def history(self, sid: str) -> list[Entry]:
        """What happened to a session up to now."""
        self._catch_up()
        with self._lock:
            log = self._more_of_the_log()
            for at, entry in entries(log.decode().splitlines()):
                self._journal[sid_of(entry.fact)].append((at, entry))
            told = list(self._journal[sid])
        with self.events.changed:
            of_session = [told for told in self.events.containers if told[2] == sid]
        seen = [
            (at, Entry(fact))
            for at, what, _, name, is_helper in of_session
            if (fact := _fact(sid, what, name, is_helper))
        ]
        return [entry for _, entry in sorted([*told, *seen], key=lambda one: one[0])]

    def _more_of_the_log(self) -> bytes:
        """The whole lines that the embedded AWS has written since the last time."""
        if self.cloud.child is None:
            return b""
        with self.cloud.child.log.open("rb") as log:
            log.seek(self._read)
            more = log.read()
        whole = more[: more.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole

    def _catch_up(self) -> None:
        """Wait until the engine has said all that has happened up to now."""
        mark = f"homeport-mark-{secrets.token_hex(8)}"
        self.behind.create_volume(mark)
        self.behind.remove_volume(mark)
        self.events.await_volume(mark)

    @contextmanager
    def launchers(self, count: int) -> Iterator[list[Launcher]]:
        """Processes that start others, each for one thread; see launcher.py."""
        environ = (
            own_environ(os.environ)
            | dict(self.environ)
            | dict(NO_RATES)
            | {
                "HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8",
                "HOMEPORT_ENGINE_SOCKET": str(self.engine.socket),
                "HOMEPORT_BUILDER_IMAGE": BUILDER_IMAGE,
            }
        )
        pairs = [socket.socketpair() for _ in range(count)]
        theirs = [pair[1].fileno() for pair in pairs]
        command = [sys.executable, "-m", "tests.chaos.launcher", str(self.folder / "bundle.zip"), IMAGE]
        log = self.folder / "launcher.log"
        with log.open("ab") as output, ExitStack() as ours:
            process = subprocess.Popen(
                [*command, *map(str, theirs)], stdout=output, stderr=output, env=environ, cwd=ROOT, pass_fds=theirs
            )
            ours.callback(process.wait)
            for mine, other in pairs:
                other.close()
                ours.enter_context(mine)
            yield [Launcher(mine, ours.enter_context(mine.makefile("r")), log) for mine, _ in pairs]


@dataclass(frozen=True)
class Launcher:
    """Where commands are sent to, and outcomes come from."""

    commands: socket.socket
    outcomes: IO[str]
    log: Path

    def run(self, command: Command) -> Outcome:
        self.commands.sendall((json.dumps(asdict(command)) + "\n").encode())
        line = self.outcomes.readline()
        assert line, f"the launcher's process ended:\n{self.log.read_text()}"
        return Outcome(**json.loads(line))


@contextmanager
def chaos_rig(folder: Path, running: Engine) -> Iterator[Rig]:
    """All parts, around an engine, for as long as the block lasts."""
    with recorded_aws(folder) as cloud, rig_of(folder, running, cloud) as rig:
        yield rig


def recorded_aws(folder: Path) -> AbstractContextManager[Aws]:
    """The embedded AWS, which says what becomes of sessions, and holds functions to their roles."""
    return guarded_aws(folder / "aws", "tests.chaos.recorded_aws")


@contextmanager
def rig_of(folder: Path, running: Engine, cloud: Aws) -> Iterator[Rig]:
    """An engine's part of it."""
    with endpoint(folder / "endpoint", running.socket) as offered:
        write_bundle(folder / "bundle.zip", offered)
        behind = docker.APIClient(base_url=running.url, timeout=60)
        listener = docker.APIClient(base_url=running.url, timeout=86400)  # for as long as the engine may be silent
        import_notebook(behind)
        stream = listener.events(decode=True, filters={"type": ["container", "volume"]})
        events = Events()
        thread = threading.Thread(target=events.listen, args=(stream,))
        thread.start()
        try:
            yield Rig(running, cloud, offered, behind, events, folder)
        finally:
            stream.close()
            thread.join()
            behind.remove_image(IMAGE, force=True)
            behind.close()
            listener.close()


def _fact(sid: str, what: str, name: str, is_helper: bool) -> Fact | None:
    """What happened to a container; nothing is said of a helper's start."""
    if not is_helper:
        return _ACTIONS[what](name)
    match what:
        case "create":
            return HelperMade(sid, name)
        case "destroy":
            return HelperRemoved(sid, name)
    return None


def import_notebook(behind: docker.APIClient) -> None:
    """Make the image: a shell, and HAProxy under the name of jupyter."""
    programs = [shutil.which(name, path="/usr/sbin:/usr/bin:/bin") or "" for name in ("sh", "haproxy")]
    named = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"(/\S+) \(0x", named))
    files = {path.lstrip("/"): Path(path).read_bytes() for path in {*programs, *libraries}}
    serve = f"{programs[1]} -db -f /notebook.cfg & trap 'kill -9 $!; exit 0' TERM; wait"  # ends at once
    files["usr/bin/jupyter"] = f"#!{programs[0]}\n{serve}\n".encode()
    files["notebook.cfg"] = NOTEBOOK
    changes = ["WORKDIR /work", "USER 1000", "ENV PATH=/usr/bin:/bin"]
    name, tag = IMAGE.split(":")
    behind.import_image_from_data(a_tar(files, mode=0o755, home="work"), repository=name, tag=tag, changes=changes)
