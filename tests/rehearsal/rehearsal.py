"""A hub is upgraded, or rolled back, with sessions in every state: two versions of its code, one after the other.

Both run as processes of their own (worker.py) on the same embedded AWS and the same engine. `begin` has one version
bring sessions somewhere, `reign` lets another one go on, with its schedule and with all messages that there are, and
`look` says how they are. Time is not waited for: `offset` is how far the hub's clock is ahead.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final
from urllib.parse import urlencode

from docker.errors import NotFound
from urllib3.filepost import encode_multipart_formdata

from chalicelib.aws.dynamodb import Item
from chalicelib.aws.hub_certificates import load_trust
from chalicelib.aws.queues import TickMessage
from chalicelib.aws.session_items import FORMAT, pk_of, session_of
from chalicelib.bundle.parse import parse
from chalicelib.engine.errors import EndpointError
from chalicelib.engine.probe import probe
from chalicelib.launcher.tick import EARLY_SECONDS
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.session.looks import OFTEN
from chalicelib.session.values import Phase, Session, State, session_id, volume_name
from local.aws import ROOT, Aws, own_environ
from local.endpoint import RENEWAL, Pki, write_bundle
from local.processes import LOOPBACK
from tests.certificates import Ca
from tests.chaos.rig import IMAGE, Rig
from tests.history import Entry, Saved, violations
from tests.real_parts import BUILDER_IMAGE
from tests.rehearsal.cases import EXPIRE, NAME, REST, UNTOUCHED, Case, Step
from tests.rehearsal.commands import Command, Outcome

ARTEFACT: Final = ROOT / "tests" / "frozen" / "homeport-39a360d.tar.xz"
NEW_CODE: Final = ROOT
WORKERS: Final = 3
PAST_A_LEASE: Final = 120.0
LOOKS: Final = OFTEN + 1  # the schedule's runs in which every ready session is looked at
LONGEST: Final = 1800.0
ROUNDS: Final = 40
OF_ONE_OWNER: Final = 4  # sessions; a launch looks at the others that its owner has on the endpoint
JSON: Final = {"Accept": "application/json", "Host": "localhost:8000"}


class Owners:
    """Makes bundles of several visitors for an endpoint in a folder: its certificates are made here, before it is."""

    def __init__(self, folder: Path) -> None:
        self._ca = Ca.new()
        server = self._ca.issue(LOOPBACK, server=True, sans=(LOOPBACK,))
        visitor = self._ca.issue("visitor", client=True)
        pki = Pki(
            port=0,
            not_after=time.time() + 2 * RENEWAL.total_seconds(),
            ca=self._ca.certificate.decode(),
            server=(server.certificate + server.key).decode(),
            certificate=visitor.certificate.decode(),
            key=visitor.key.decode(),
        )
        (folder / "endpoint").mkdir()
        (folder / "endpoint" / "pki.json").write_text(json.dumps(asdict(pki)))

    def bundle(self, rig: Rig) -> bytes:
        """The bundle of another visitor."""
        leaf = self._ca.issue("visitor", client=True)
        pki = replace(rig.offered.pki, certificate=leaf.certificate.decode(), key=leaf.key.decode())
        return write_bundle(rig.folder / "bundle.zip", replace(rig.offered, pki=pki)).read_bytes()


@dataclass(frozen=True)
class Worker:
    """Where a version's commands are sent to, and their outcomes come from."""

    commands: socket.socket
    outcomes: IO[str]
    log: Path

    def read(self) -> Any:
        line = self.outcomes.readline()
        assert line, f"the worker ended:\n{self.log.read_text()}"
        return json.loads(line)


@dataclass
class Version:
    """One version of the code: the `states` that it knows, and processes of it."""

    name: str
    states: frozenset[str]
    workers: SimpleQueue[Worker]

    def run(self, command: Command) -> Outcome:
        worker = self.workers.get()
        try:
            worker.commands.sendall((json.dumps(asdict(command)) + "\n").encode())
            outcome = Outcome(**worker.read())
        finally:
            self.workers.put(worker)
        assert not outcome.error, f"{self.name}, {command}:\n{outcome.error}"
        return outcome


@dataclass(frozen=True)
class Seen:
    """How a session was: as it is stored, and all that there is of it; `answers`: its notebook does.

    `containers` are id, status and since when it runs; `published` hosts, `stored` the launches of credentials.
    """

    session: Session
    item: Item
    containers: tuple[tuple[str, str, str], ...]
    has_volume: bool
    published: tuple[str, ...]
    stored: tuple[int, ...]
    answers: bool

    @property
    def is_newer(self) -> bool:
        """Say whether the version before does not understand it."""
        return int(self.item["format"]["N"]) > FORMAT

    @property
    def content(self) -> Item:
        """The item but for when the schedule looks at it next."""
        return {name: value for name, value in self.item.items() if name != "redrive_at"}

    @property
    def runs(self) -> tuple[tuple[str, str, str], ...]:
        return tuple(one for one in self.containers if one[1] == "running")


@dataclass
class Life:
    """What became of a case: as it was left, after the next version, after the new one went on, and at its end."""

    case: Case
    name: str
    bundle: bytes
    sid: str
    token: str = ""
    left: Seen | None = None
    then: Seen | None = None
    back: Seen | None = None
    ended: Seen | None = None
    wrong: list[str] = field(default_factory=list)


@dataclass
class Rehearsal:
    """See the module; `rig` has the engine and AWS."""

    rig: Rig
    owners: Owners
    gate: threading.Event = field(default_factory=threading.Event)  # closed, no pull comes to its end
    offset: float = 0.0
    lives: list[Life] = field(default_factory=list)
    _mail: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.store = self.rig.sessions(time.time)
        self.table = self.rig.environ["HOMEPORT_TABLE"]
        self.queues = {lane: queue_of(self.rig.environ["HOMEPORT_QUEUE_URLS"], lane) for lane in Lane}
        certificates = self.rig.environ["HOMEPORT_CERTIFICATES"]
        self.trust = load_trust(self.rig.cloud.client("ssm"), certificates, signs=False)

    # ── the phases ──

    def begin(self, version: Version, cases: Iterable[Case]) -> None:
        """Have a version bring the session of each case where it says."""
        for number, case in enumerate(cases):
            if number % OF_ONE_OWNER == 0:
                bundle = self.owners.bundle(self.rig)
                owner = parse(bundle, host=None, now=time.time()).owner
            self.lives.append(Life(case, case.name, bundle, session_id(owner, case.name)))
        self.gate.clear()
        self._of_all(lambda life: self._play(version, life, life.case.steps))
        self.gate.set()
        self.look("left")

    def reign(self, version: Version, minutes: int) -> None:
        """Let a version go on with what it finds: its schedule runs each minute, and all messages are handled."""
        for _ in range(minutes):
            self.offset += 60.0
            self._collect(version.run(Command("schedule", offset=self.offset)))
            self._of_all(lambda life: self._handle(version, life))

    def knock(self, version: Version) -> None:
        """Have a message delivered in every lane, for each session that the version does not understand."""
        for lane in Lane:
            for life in self.lives:
                if life.left and life.left.is_newer:
                    self._mail[life.sid].append((lane.value, TickMessage(life.sid).to_body()))
            self._of_all(lambda life: self._handle(version, life))

    def play(self, version: Version, steps: Callable[[Case], Iterable[Step]]) -> None:
        """Have visitors do what their cases say."""
        self._of_all(lambda life: self._play(version, life, steps(life.case)))

    def end(self, version: Version) -> None:
        """Have all that is left stopped, and what could not be removed removed by another launch."""
        self._of_all(lambda life: self._end(version, life))
        while self._is_leaving() and self.offset < LONGEST:
            self.reign(version, 1)
        self.look("ended")
        for life in self.lives:
            wrongs = violations(map(as_both_know, self.rig.history(life.sid)))
            life.wrong += [wrong for wrong in wrongs if not any(told in wrong for told in life.case.tells)]

    def _end(self, version: Version, life: Life) -> None:
        session = self.store.load(life.sid)
        if session.container is not None and not session.credentials_held:
            self._play(version, life, [Step("stop"), Step("launch")])
        self._play(version, life, [Step("stop", form={"keep": ""})])

    def _is_leaving(self) -> bool:
        return any(self.store.load(life.sid).phase is Phase.LEAVING for life in self.lives)

    def _of_all(self, act: Callable[[Life], object]) -> None:
        """Do it for each session, several at once; one with which something was wrong is left as it is."""

        def attempt(life: Life) -> None:
            try:
                if not life.wrong:
                    act(life)
            except AssertionError as error:
                life.wrong.append(str(error))

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(attempt, self.lives))

    # ── one session ──

    def _play(self, version: Version, life: Life, steps: Iterable[Step]) -> None:
        for step in steps:
            if step == EXPIRE:
                self._expire(version, life)
                continue
            self._ask(version, life, step)
            if step.until == UNTOUCHED:
                return
            killed = self._handle(version, life, step.until)
            assert killed is (step.until != REST), f"it did not come to {step}, but is {self._told(life)}"

    def _ask(self, version: Version, life: Life, step: Step) -> None:
        """What the visitor's browser sends."""
        fields: dict[str, Any] = {name: life.name if value == NAME else value for name, value in step.form.items()}
        path = f"/sessions/{life.sid}/{step.what}"
        if step.what == "launch":
            path = "/sessions"
            fields |= {"name": life.name} | ({} if "repo" in fields else {"image": step.image or IMAGE})
        if step.what == "launch" or step.bundle:
            fields["credentials"] = ("credentials.zip", life.bundle)
        if step.what in ("launch", "delete"):
            body, kind = encode_multipart_formdata(fields)
        else:
            body, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
        headers = {**JSON, "Content-Type": kind} | ({"Authorization": f"Bearer {life.token}"} if life.token else {})
        command = Command("ask", path=path, headers=headers, body=base64.b64encode(body).decode(), offset=self.offset)
        outcome = version.run(command)
        assert outcome.status in (200, 201, 202), f"{step} was answered {outcome.status} {outcome.body}"
        life.token = json.loads(outcome.body).get("owner_token", life.token)
        self._collect(outcome)

    def _handle(self, version: Version, life: Life, dies: str = "", later: float = 0.0) -> bool:
        """Handle a session's messages until there are none, or a function was killed: then its message is left."""
        for round_ in range(ROUNDS):
            if round_ >= ROUNDS // 2:  # it may wait for less than EARLY_SECONDS, for which a message is sent at once
                time.sleep(2 * EARLY_SECONDS / ROUNDS)
            with self._lock:
                mail = self._mail.pop(life.sid, [])
            if not mail:
                return False
            for at, (lane, body) in enumerate(mail):
                command = Command("tick", lane=lane, body=body, offset=self.offset + later, dies=dies)
                self._collect(outcome := version.run(command))
                if outcome.killed:
                    with self._lock:
                        self._mail[life.sid] += mail[at:]
                    return True
        raise AssertionError(f"it is sent from lane to lane: {self._told(life)}")

    def _expire(self, version: Version, life: Life) -> None:
        """Let a session's time be over, for itself alone."""
        later = self.store.load(life.sid).expires_at - (time.time() + self.offset)
        for _ in range(ROUNDS):
            if self.store.load(life.sid).state is State.STOPPED:
                return
            later += 60
            with self._lock:
                self._mail[life.sid] += [(lane.value, TickMessage(life.sid).to_body()) for lane in Lane]
            self._handle(version, life, later=later)
        raise AssertionError(f"it has expired, and is {self._told(life)}")

    def _collect(self, outcome: Outcome) -> None:
        """Take the messages that were sent, for whomever they are."""
        for lane, url in self.queues.items():
            if url not in outcome.sent:
                continue
            with self._lock:  # what was received is in the mail before anybody finds that empty
                while found := self.rig.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
                    for message in found:
                        sid = TickMessage.from_body(message["Body"]).sid
                        self._mail[sid].append((lane.value, message["Body"]))

    def _told(self, life: Life) -> str:
        session = self.store.load(life.sid)
        return f"{session.state}: {session.message}"

    # ── how they are ──

    def look(self, when: str) -> None:
        """See how all sessions are, as what is `left`, what is `then`, and so on."""
        stored = self._items()
        objects = [key.split("/")[1:] for key in self._objects()]
        containers = self.rig.behind.containers(all=True)
        hosts = [pk.removeprefix("route#") for pk, item in stored.items() if item.get("published") == {"BOOL": True}]

        def look_at(life: Life) -> None:
            item = stored[pk_of(life.sid)]
            session = session_of(item)
            own = [one["Id"] for one in containers if f"-{life.sid}-" in one["Names"][0]]
            inspected = [self.rig.behind.inspect_container(identity) for identity in own]
            seen = Seen(
                session,
                item,
                tuple((one["Id"], one["State"]["Status"], one["State"]["StartedAt"]) for one in inspected),
                self._has_volume(life.sid),
                tuple(host for host in hosts if host.startswith(life.sid)),
                tuple(int(generation) for sid, generation in objects if sid == life.sid),
                self._answers(session),
            )
            setattr(life, when, seen)

        self._of_all(look_at)

    def _items(self) -> dict[str, Item]:
        """The sessions and routes in the table."""
        pages = self.rig.dynamodb.get_paginator("scan").paginate(TableName=self.table)
        items = [item for page in pages for item in page["Items"]]
        return {item["pk"]["S"]: item for item in items if item["sk"]["S"] in ("session", "route")}

    def _objects(self) -> list[str]:
        listed = self.rig.s3.list_objects_v2(Bucket=self.rig.environ["HOMEPORT_BUCKET"])
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def _has_volume(self, sid: str) -> bool:
        try:
            self.rig.behind.inspect_volume(volume_name(sid))
        except NotFound:
            return False
        return True

    def _answers(self, session: Session) -> bool:
        if session.target is None:
            return False
        try:
            probe(session.target, session.host, self.trust, deadline=5)
        except EndpointError:
            return False
        return True


def as_both_know(entry: Entry) -> Entry:
    """An entry without the wishes that the version before does not know, and so loses with its next save."""
    if not isinstance(entry.fact, Saved):
        return entry
    session = entry.fact.session
    again = session.again if session.state is State.KEPT else ""
    known = replace(session, keeps=False, deletes=False, longest_until=0.0, again=again)
    return replace(entry, fact=Saved(known))


def upgrade(rehearsal: Rehearsal, before: Version, new: Version, cases: Iterable[Case]) -> list[Life]:
    """Sessions of the version before, and the new one from then on."""
    rehearsal.begin(before, cases)
    rehearsal.offset += PAST_A_LEASE
    rehearsal.reign(new, LOOKS)
    rehearsal.look("then")
    rehearsal.play(new, lambda case: case.afterwards)
    rehearsal.look("back")
    rehearsal.end(new)
    return rehearsal.lives


def rollback(rehearsal: Rehearsal, new: Version, before: Version, cases: Iterable[Case]) -> list[Life]:
    """Sessions of the new version, the version before for a while, and the new one again."""
    rehearsal.begin(new, cases)
    rehearsal.offset += PAST_A_LEASE
    rehearsal.reign(before, LOOKS)
    rehearsal.knock(before)
    rehearsal.look("then")
    rehearsal.play(before, lambda case: case.meanwhile)
    rehearsal.reign(new, 2)
    rehearsal.play(new, lambda case: case.afterwards)
    rehearsal.look("back")
    rehearsal.end(new)
    return rehearsal.lives


# ── the versions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def unpack(folder: Path) -> Path:
    """The version before, as it was shipped."""
    with tarfile.open(ARTEFACT) as tar:
        tar.extractall(folder, filter="data")
    return folder


@contextmanager
def running(cloud: Aws, folder: Path, name: str, code: Path) -> Iterator[Version]:
    """Run a version whose code is in a folder, for as long as the block lasts."""
    limits = {"HOMEPORT_FUNCTIONS": "400", "HOMEPORT_OWNER_LIMIT": "100", "HOMEPORT_NETWORK_LIMIT": "100"}
    environ = own_environ(os.environ) | dict(cloud.environ) | limits
    environ |= {"HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8", "HOMEPORT_BUILDER_IMAGE": BUILDER_IMAGE}
    environ |= {"PYTHONPATH": f"{code}{os.pathsep}{ROOT}"}
    pairs = [socket.socketpair() for _ in range(WORKERS)]
    theirs = [pair[1].fileno() for pair in pairs]
    command = [sys.executable, "-P", "-m", "tests.rehearsal.worker", *map(str, theirs)]
    log = folder / f"{name}.log"
    with log.open("ab") as output, ExitStack() as ours:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ, cwd=code, pass_fds=theirs)
        ours.callback(process.wait)
        workers = SimpleQueue[Worker]()
        states = frozenset[str]()
        for mine, other in pairs:
            other.close()
            ours.enter_context(mine)
            worker = Worker(mine, ours.enter_context(mine.makefile("r")), log)
            said = worker.read()
            assert Path(said["code"]).is_relative_to(code), f"{name} runs {said['code']}"
            states = frozenset(said["states"])
            workers.put(worker)
        yield Version(name, states, workers)
