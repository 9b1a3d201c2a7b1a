"""One tick's visit to a visitor's endpoint: its credentials, its one connection, its deadline, and its turn.

The credentials, and the connection that was made with them, are kept no longer than the tick lasts; there is no cache
that two sessions could share. Each use resolves and checks the endpoint's address again: the connection is used again
if that is its address, and if nothing failed on it (docs/adr/0019).

An engine or a notebook that is slow holds a function until the effect's deadline. So whatever held one for long is
noted (session/admission.py), and while an owner or a network has many notes, its sessions are asked a few at a time:
the others wait for their turn, and are told for what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from chalicelib.aws.errors import CredentialsMissing, StoreUnavailable
from chalicelib.aws.slots import TURNS, Pool
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.errors import EndpointTimeout
from chalicelib.launcher.errors import NotItsTurn
from chalicelib.launcher.outside import Connect, CredentialsAccess, Engine, Resolve, Slots
from chalicelib.session.admission import Crowd, Quota, Slot, crowd_before, slot_of
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.values import Session

SLOW_SECONDS: Final = 3.0  # what holds a tick for longer, all its effects together, is noted;
HUNG_SECONDS: Final = 0.9  # so is an effect that fails after longer than this
NOTED_SECONDS: Final = 60.0  # above EFFECT_SECONDS, so that who is asked all the time is noted all the time
TURN_SECONDS: Final = 60.0  # what a tick that was killed keeps its turn for; one at work takes it anew
MASKED_LENGTH: Final = 6  # characters; a shorter value is no secret, and would tear holes into sentences


class Visit:
    """The endpoint of one session as one tick sees it."""

    def __init__(
        self,
        *,
        config: Config,
        credentials: CredentialsAccess,
        slots: Slots,
        clock: Callable[[], float],
        connect: Connect,
        resolve: Resolve,
    ) -> None:
        self.ends_by = 0.0  # when the effect has to be done
        self._config = config
        self._credentials = credentials
        self._slots = slots
        self._clock = clock
        self._connect = connect
        self._resolve = resolve
        self._opened: Credentials | None = None
        self._connected: tuple[str, str, Engine] | None = None  # its address, whose containers, and the endpoint
        self._held = 0.0  # seconds that the endpoint or the notebook has held the function for and are not judged yet,
        self._held_in_all = 0.0  # and those in the whole tick
        self._asks = False  # whether the present time is theirs
        self._counted_at = 0.0
        self._may_ask = False
        self._taken = set[Pool]()

    def begin(self, ends_by: float) -> None:
        """Begin an effect, which has to be done by then."""
        self.ends_by = ends_by
        self._held = 0.0

    def forget(self) -> None:
        """Forget the credentials, and the connection that was made with them."""
        self._opened = None
        self._disconnect()

    # ── the endpoint ──

    @contextmanager
    def endpoint(self, session: Session) -> Iterator[Engine]:
        """Give the endpoint, until the effect has to be done; raises NotItsTurn, and what opening it raises."""
        self.await_turn(session)
        if self._opened is None:
            self._opened = self._credentials_of(session)
        with self.asking():
            address = self._resolve(self._opened.endpoint, self._config.address_policy)
            deadline = self.ends_by - self._clock()
            if deadline <= 0:  # a call that begins now could end after the lease, beside another tick's
                raise EndpointTimeout("The hub's own stores or its name server took too long. The hub will try again")
            try:
                yield self._engine(self._opened, address, deadline, self.hub_of(session))
            except BaseException:  # what is still to come of a broken answer is not the next one
                self._disconnect()
                raise

    def _credentials_of(self, session: Session) -> Credentials:
        """Open the session's credentials, which are for its endpoint, if that can be read.

        Others are there if an upload for another launch of it was cut off before that was written down.
        """
        credentials = self._credentials.get(session.sid, session.credentials_of, session.owner)
        if session.endpoint and str(credentials.endpoint) != session.endpoint:
            raise CredentialsMissing("The credentials that are stored are for another endpoint. Upload them again")
        return credentials

    def _engine(self, credentials: Credentials, address: str, deadline: float, hub_name: str) -> Engine:
        """The endpoint at that address, for `deadline` seconds; still connected if the effect before was there."""
        if self._connected is not None and self._connected[:2] == (address, hub_name):
            self._connected[2].renew(deadline)
        else:
            self._disconnect()
            engine = self._connect(credentials, address=address, deadline=deadline, hub_name=hub_name)
            self._connected = (address, hub_name, engine)
        return self._connected[2]

    def _disconnect(self) -> None:
        if self._connected is not None:
            connected, self._connected = self._connected[2], None
            connected.close()

    def hub_of(self, session: Session) -> str:
        """Whose the session's container is: as recorded, so that neither a new CA nor another name changes it."""
        return session.hub or self._config.hub_name

    @property
    def variables(self) -> Mapping[str, str]:
        """The values of the visitor's variables that were opened with the credentials."""
        return self._opened.environment if self._opened else MappingProxyType({})

    def masked(self, text: str) -> str:
        """The text without the values of the visitor's variables: engines and programs quote what they do not like."""
        for value in sorted(self.variables.values(), key=len, reverse=True):
            if len(value) >= MASKED_LENGTH:
                text = text.replace(value, "…")
        return text

    # ── turns ──

    def await_turn(self, session: Session) -> None:
        """Raise NotItsTurn while the owner or a network is slow, and enough of theirs are asked."""
        lane = lane_of(session)
        if self._may_ask or lane is Lane.PULL:  # a pull has its slot already
            return
        now = self._clock()
        slot = slot_of(session, now + TURN_SECONDS)
        if lane is Lane.LEAVE:  # a neighbour behind the same address is no reason to keep a secret
            slot = replace(slot, source="")
        slow = self._slots.held(Pool.SLOW, consistent=False)  # a note comes seconds after what it is about anyway
        if crowd_before(slow, session.sid, slot, self._config.slow_quota(lane), now):
            crowd = self.take(TURNS[lane], session, slot, self._config.turn_quota(lane))
            if crowd:
                raise NotItsTurn(
                    f"{crowd.count} other notebooks {crowd.what} wait for a Docker endpoint or a notebook that is slow "
                    "to answer; this one is tried after them"
                )
        self._may_ask = True

    @contextmanager
    def asking(self, asks: bool = True) -> Iterator[None]:
        """Count the time of the block as held by the endpoint or the notebook, or as the hub's own."""
        before = self._asks
        self._count_time(asks)
        try:
            yield
        finally:
            self._count_time(before)

    def _count_time(self, asks: bool) -> None:
        """Count the time up to now as it was to be, and what follows as `asks` says."""
        now = self._clock()
        if self._asks:
            self._held += now - self._counted_at
        self._asks, self._counted_at = asks, now

    def note_if_slow(self, session: Session, *, failed: bool) -> None:
        """Write down that the endpoint or the notebook has held the function for long, however it ended."""
        self._count_time(self._asks)
        self._held_in_all += self._held
        is_slow = self._held_in_all > SLOW_SECONDS or (failed and self._held > HUNG_SECONDS)
        self._held = 0.0
        if is_slow:
            self._may_ask = False
            with suppress(StoreUnavailable):
                self._slots.put(Pool.SLOW, session.sid, slot_of(session, self._clock() + NOTED_SECONDS))

    # ── slots ──

    def take(self, pool: Pool, session: Session, slot: Slot, quota: Quota) -> Crowd | None:
        """Take a slot until the tick ends, or say who has them all."""
        crowd = self._slots.take(pool, session.sid, slot, quota)
        if not crowd:
            self._taken.add(pool)
        return crowd

    def has(self, pool: Pool) -> bool:
        """Say whether the tick has a slot of the pool."""
        return pool in self._taken

    @property
    def has_any(self) -> bool:
        """Whether the tick has a slot at all: then others wait for it."""
        return bool(self._taken)

    def give_back(self, pool: Pool, session: Session) -> None:
        """Give a slot back; what fails ends by itself."""
        self._taken.discard(pool)
        with suppress(StoreUnavailable):
            self._slots.give_back(pool, session.sid)

    def end(self, session: Session) -> None:
        """Give back what the tick has taken, but for the slot of a pull that goes on."""
        for pool in self._taken - ({Pool.PULL} if lane_of(session) is Lane.PULL else set()):
            self.give_back(pool, session)


def own_container(session: Session) -> str:
    """Name the session's container, in a state in which it has one."""
    if session.container is None:
        raise IllegalTransition("a session without a container cannot be in this state")
    return session.container
