"""Puts the parts together for a process: which client, clock and random source each of them is given.

Nothing is created at import; each AWS client is made when it is first needed and kept for the process. Nothing here
ever holds a visitor's credentials.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.config import Config
from chalicelib.credentials_store import CredentialsStore
from chalicelib.errors import StoreUnavailable
from chalicelib.hub import Hub
from chalicelib.session_store import RouteStore, SessionStore

if TYPE_CHECKING:
    from chalicelib.notebook import HubTrust


class Wiring:
    """One process's parts."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def hub(self) -> Hub:
        """What the web function serves."""
        return Hub(
            config=self.config,
            store=self._store,
            credentials=self._credentials,
            enqueue=self.enqueue,
            clock=time.time,
            secret=lambda: secrets.token_urlsafe(32),
        )

    def enqueue(self, sid: str, *, delay: float, takeover: str = "") -> None:
        """Put "advance session X" on the queue, to be received after `delay` seconds (rounded up).

        Raises StoreUnavailable.
        """
        body = json.dumps({"session": sid, "takeover": takeover})
        try:
            self._client("sqs").send_message(
                QueueUrl=self.config.tick_queue_url, MessageBody=body, DelaySeconds=math.ceil(delay)
            )
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable("The hub's queue did not answer; try again in a moment") from error

    def tick(self, message: str, time_left: Callable[[], float]) -> None:
        """Run the tick that a message asks for; `time_left` says how many seconds there are for it."""
        from chalicelib.launcher import Launcher  # docker is imported by the launcher alone: half the web's start
        from chalicelib.world import World

        wanted = json.loads(message)
        world = World(
            config=self.config,
            credentials=self._credentials,
            routes=RouteStore(self._client("dynamodb"), self.config.table, time.time),
            trust=lambda: self._trust,
            clock=time.time,
            sleep=time.sleep,
        )
        launcher = Launcher(
            store=self._store,
            world=world,
            enqueue=self.enqueue,
            clock=time.time,
            time_left=time_left,
            holder=secrets.token_hex(8),
        )
        launcher.tick(wanted["session"], takeover=wanted.get("takeover", ""))

    def redrive(self) -> Iterator[str]:
        """Enqueue every session whose time has come, and yield its id."""
        for sid in self._store.due(time.time()):
            self.enqueue(sid, delay=0.0)
            yield sid

    @cached_property
    def _store(self) -> SessionStore:
        return SessionStore(self._client("dynamodb"), self.config.table, time.time)

    @cached_property
    def _credentials(self) -> CredentialsStore:
        return CredentialsStore(self._client("s3"), self._client("kms"), bucket=self.config.bucket, key=self.config.key)

    @cached_property
    def _trust(self) -> HubTrust:
        from chalicelib.trust_store import load_trust

        return load_trust(self._client("ssm"), self.config.authority)

    @cache  # noqa: B019 - one Wiring lives as long as its process
    def _client(self, service: str) -> Any:
        import boto3
        from botocore.config import Config as ClientConfig

        limits = ClientConfig(connect_timeout=3, read_timeout=8, retries={"mode": "standard", "max_attempts": 3})
        return boto3.client(service, config=limits)  # type: ignore[call-overload]  # the name is a variable


@cache
def wiring() -> Wiring:
    """The process's parts, from its environment."""
    return Wiring(Config.from_environ())
