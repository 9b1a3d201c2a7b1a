"""Owner tokens, entry tickets and sign-outs in DynamoDB: what the web function hands out, by digests, and takes back.

sign_ins.py has the rules. A token's item has `shown`: when each owner's key was last shown (milliseconds). `owners` and
`ttl`, the time at which the last of them ends, are all that the version before stored and reads.

A token's item is written once and never changed, so a process remembers those it has read. Whether a sign-out has ended
what a token stands for, and whether its time is over, is asked each time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from chalicelib.aws.dynamodb import Clock, Item, Table, digest_of
from chalicelib.aws.session_items import pk_of, session_of
from chalicelib.aws.sign_ins import (
    SignIn,
    not_ended,
    sign_in_attributes,
    sign_out_item,
    sign_out_places,
    sign_outs,
    standing,
)
from chalicelib.session.values import Session

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KNOWN_TOKENS: Final = 1000  # that a process remembers, 300 bytes each


class TokenStore:
    """The owner tokens and entry tickets of one hub. A sign-in lasts for `lifetime` seconds."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock, *, lifetime: float) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock
        self._lifetime = lifetime
        self._known: dict[str, tuple[SignIn, ...]] = {}  # by digest: what was read of a token never changes

    def put_token(self, token: str, sign_ins: Collection[SignIn]) -> None:
        """Remember what a browser's token stands for: one sign-in or more, all of that browser."""
        attributes = {
            "browser": {"S": next(iter(sign_ins)).browser},
            "owners": {"SS": sorted(sign_in.owner for sign_in in sign_ins)},
            "shown": {"M": {sign_in.owner: {"N": str(sign_in.shown_at)} for sign_in in sign_ins}},
        }
        self._put(f"token#{digest_of(token)}", "token", attributes, max(map(self._end, sign_ins)))

    def sign_ins_of(self, token: str) -> dict[str, SignIn]:
        """Return the sign-ins a token stands for, by owner; none when it is unknown, its time over, or signed out."""
        return _by_owner(standing(self._table, self._lasting(token)))

    def visit(self, token: str, sid: str) -> tuple[dict[str, SignIn], Session | None]:
        """Return the sign-ins a token stands for, and the session of that id if there are any: one reading of both."""
        lasting = self._lasting(token)
        if not lasting:
            return {}, None
        items = self._table.get_all([*sign_out_places(lasting), (pk_of(sid), "session")])
        sessions = [session_of(item) for item in items if item["sk"]["S"] == "session"]
        sign_outs_of_them = (item for item in items if item["sk"]["S"] != "session")
        return _by_owner(not_ended(lasting, sign_outs_of_them)), next(iter(sessions), None)

    def browser_of(self, token: str) -> str | None:
        """Return the browser a token was made for, also if it stands for nobody any more; None when it is unknown."""
        item = self._table.get(f"token#{digest_of(token)}", "token")
        return None if item is None else _browser(item)

    def put_ticket(self, ticket: str, session: Session, sign_in: SignIn, *, path: str, expires_at: float) -> None:
        """Remember a one-time entry to the session's present launch; ProxyStore.redeem_ticket takes it.

        The grant that it becomes ends with the session, or with the sign-in if that is earlier. `sid` and `generation`
        are for a proxy of the version before (routes.py, rule 4).
        """
        entry = {
            "host": {"S": session.host},
            "sid": {"S": session.sid},
            "generation": {"N": str(session.generation)},
            "path": {"S": path},
            "session_expires_at": {"N": str(int(min(session.expires_at, self._end(sign_in))))},
            **sign_in_attributes(sign_in),
        }
        self._put(f"ticket#{digest_of(ticket)}", "ticket", entry, expires_at)

    def sign_out(self, browser: str, owners: Iterable[str] = ()) -> None:
        """End all sign-ins of a browser, and those that these owners have had anywhere until now."""
        ends = sign_outs(browser, owners, self._clock())
        self._table.put_all([sign_out_item(sign_out) for sign_out in ends], latest="until")

    def _lasting(self, token: str) -> list[SignIn]:
        """The sign-ins of a token whose time is not over; a sign-out may have ended them."""
        digest = digest_of(token)
        known = self._known.get(digest)
        if known is None:
            item = self._table.get(f"token#{digest}", "token")
            if item is None:
                return []
            if len(self._known) >= KNOWN_TOKENS:
                self._known.clear()
            known = self._known[digest] = tuple(self._signed_in(item))
        now = self._clock()
        return [sign_in for sign_in in known if self._end(sign_in) > now]

    def _end(self, sign_in: SignIn) -> float:
        return sign_in.shown_at / 1000 + self._lifetime

    def _signed_in(self, item: Item) -> Iterable[SignIn]:
        browser = _browser(item)
        shown: Mapping[str, Any] = item["shown"]["M"] if "shown" in item else {}
        of_version_before = {"N": str(int((int(item["ttl"]["N"]) - self._lifetime) * 1000))}
        for owner in item["owners"]["SS"]:
            yield SignIn(browser, owner, int(shown.get(owner, of_version_before)["N"]))

    def _put(self, pk: str, sk: str, attributes: Mapping[str, Any], expires_at: float) -> None:
        self._table.put({"pk": {"S": pk}, "sk": {"S": sk}, "ttl": {"N": str(int(expires_at))}, **attributes})


def _by_owner(sign_ins: Iterable[SignIn]) -> dict[str, SignIn]:
    return {sign_in.owner: sign_in for sign_in in sign_ins}


def _browser(item: Item) -> str:
    """The browser of a token's item; the version before did not name it, and each of its tokens was one."""
    return str(item["browser"]["S"]) if "browser" in item else str(item["pk"]["S"]).removeprefix("token#")
