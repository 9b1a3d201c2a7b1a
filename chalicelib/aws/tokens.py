"""Owner tokens, entry tickets and sign-outs in DynamoDB: what the web function hands out, by digests, and takes back.

sign_ins.py has the rules. A token's item has `shown`: when each owner's key was last shown (milliseconds). `owners` and
`ttl`, the time at which the last of them ends, are all that the version before stored and reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chalicelib.aws.dynamodb import Clock, Item, Table, digest_of
from chalicelib.aws.sign_ins import SignIn, sign_in_attributes, sign_out_item, sign_outs, standing
from chalicelib.session.values import Session

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class TokenStore:
    """The owner tokens and entry tickets of one hub. A sign-in lasts for `lifetime` seconds."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock, *, lifetime: float) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock
        self._lifetime = lifetime

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
        item = self._table.get(f"token#{digest_of(token)}", "token")
        now = self._clock()
        if item is None or int(item["ttl"]["N"]) <= now:
            return {}
        lasting = [sign_in for sign_in in self._signed_in(item) if self._end(sign_in) > now]
        return {sign_in.owner: sign_in for sign_in in standing(self._table, lasting)}

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


def _browser(item: Item) -> str:
    """The browser of a token's item; the version before did not name it, and each of its tokens was one."""
    return str(item["browser"]["S"]) if "browser" in item else str(item["pk"]["S"]).removeprefix("token#")
