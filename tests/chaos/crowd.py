"""Many sessions at once on one engine, each message delivered several times, shuffled, to many workers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from chalicelib.aws.credentials import CredentialsStore
from chalicelib.aws.queues import TickMessage
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.machine import new_session
from chalicelib.session.values import Limits, State, launch_label
from tests.chaos.launcher import Command
from tests.chaos.rig import IMAGE, Launcher, Rig

DELIVERIES = (2, 3, 4, 5)


@dataclass
class Crowd:
    """Sessions of as many owners. `deliveries` are the messages under way, each as often as it will be delivered."""

    rig: Rig
    random: Random
    offset: float = 0.0
    sids: list[str] = field(default_factory=list)
    deliveries: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.store = self.rig.sessions(self.clock)

    def clock(self) -> float:
        return time.time() + self.offset

    def upload(self, number: int) -> None:
        """What the web function does, for an owner of its own."""
        environ, pki = self.rig.environ, self.rig.offered.pki
        session = new_session(
            owner=sha256(f"owner {number}".encode()).hexdigest(),
            name=f"notebook {number}",
            endpoint=self.rig.offered.url,
            image=IMAGE,
            limits=Limits(),
            now=self.clock(),
            lifetime=3600.0,
            request=f"request-{number}",
            label=launch_label(f"secret {number}"),
        )
        self.store.save(session)
        kms = self.rig.cloud.client("kms")
        store = CredentialsStore(self.rig.s3, kms, bucket=environ["HOMEPORT_BUCKET"], key=environ["HOMEPORT_KEY"])
        made = (pem.encode() for pem in (pki.ca, pki.certificate, pki.key))
        store.put(session.sid, 1, session.owner, Credentials(Endpoint("127.0.0.1", self.rig.offered.port), *made))
        self.sids.append(session.sid)
        self.deliver(session.sid, lane_of(session).value, TickMessage(session.sid).to_body())

    def deliver(self, sid: str, lane: str, body: str) -> None:
        with self.lock:
            self.deliveries += [(sid, lane, body)] * self.random.choice(DELIVERIES)
            self.random.shuffle(self.deliveries)

    def run(self, launchers: list[Launcher], goal: State) -> None:
        """Have all messages delivered, and the schedule wake who is due, until all sessions are there."""
        waiting = list(self.sids)
        while waiting:
            with ThreadPoolExecutor(len(launchers)) as pool:
                for working in [pool.submit(self._work, launcher) for launcher in launchers]:
                    working.result()
            waiting = [sid for sid in waiting if self.store.load(sid).state is not goal]
            if waiting:
                self._wake(waiting)

    def _work(self, launcher: Launcher) -> None:
        while True:
            with self.lock:
                if not self.deliveries:
                    return
                sid, lane, body = self.deliveries.pop()
            outcome = launcher.run(Command("tick", sid, lane=lane, body=body, offset=self.offset))
            assert not outcome.error, outcome.error
            for name in set(outcome.sent):
                self.rig.receive(Lane(name))
            self._collect(sid)

    def _collect(self, sid: str) -> None:
        for lane, body in self.rig.take(sid):
            self.deliver(sid, lane, body)

    def _wake(self, waiting: list[str]) -> None:
        sessions = [self.store.load(sid) for sid in waiting]
        assert all(session.failure is None for session in sessions), [session.message for session in sessions]
        first = min(max(session.next_attempt_at or 0.0, session.lease_expires_at) for session in sessions)
        self.offset += max(first - self.clock(), 0.0) + 0.1
        for due in self.store.due(self.clock()):
            if due.sid in waiting:
                self.deliver(due.sid, due.lane.value, TickMessage(due.sid).to_body())
