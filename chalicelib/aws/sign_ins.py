"""Signing in and out: what everything that a browser is given descends from, and what ends it.

1. A sign-in is the moment at which a browser showed an owner's key, by launching with it. Each token, ticket and grant
   descends from one and is over a session's lifetime after it, whatever it is used for meanwhile: only showing the key
   again makes a new sign-in. A browser is named by the digest of its first token.
2. A sign-out is one item, for a browser or for an owner (everywhere). It ends what descends from a sign-in until then,
   also what a request that is under way makes of it a moment later. Those of one request are written together or not at
   all, so that it can be repeated, and none is written over a later one. Nothing is searched for, and nothing deleted:
   whoever reads a token, ticket or grant reads the sign-outs as well, and the proxy's agent learns them from the feed.
3. A browser's sign-out is final: it is another browser when it signs in again. An owner's is for what was before it.
4. Tickets and grants carry the time of the sign-in, so only the hub's clock counts, and not when the agent made what.
5. A sign-out is kept for longer than anything that it ends can last.
6. The version before made tokens without `browser` and `shown`: they are over with their `ttl`. Its agent would end if
   a sign-out had not the attributes of a grant; it takes it for one of no launch (routes.py, rule 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.aws.dynamodb import Item, Table

SIGN_OUT_TTL: Final = 9 * 86400.0  # seconds; no session, and so no sign-in, lasts longer than seven days (config.py)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A browser's showing of an owner's key; `shown_at` in milliseconds (epoch)."""

    browser: str
    owner: str
    shown_at: int


@dataclass(frozen=True, slots=True)
class SignOut:
    """The end of what a browser, or an owner, signed in to until `until` (milliseconds).

    `of` is the browser or the owner; `changed_at` is in milliseconds, `expires_at` in seconds (epoch).
    """

    of: str
    until: int
    changed_at: int
    expires_at: int

    def ends(self, sign_in: SignIn) -> bool:
        """Say whether the sign-in is over because of it."""
        return self.of in (sign_in.browser, sign_in.owner) and sign_in.shown_at <= self.until


def sign_outs(browser: str, owners: Iterable[str], now: float) -> Iterator[SignOut]:
    """Give the owners' sign-outs until `now` (epoch seconds), and the browser's for ever."""
    now_ms, expires_at = int(now * 1000), int(now + SIGN_OUT_TTL)
    for owner in owners:
        yield SignOut(owner, now_ms, now_ms, expires_at)
    yield SignOut(browser, expires_at * 1000, now_ms, expires_at)


def standing(table: Table, sign_ins: Collection[SignIn]) -> list[SignIn]:
    """Those of the sign-ins that no sign-out has ended, as of now; raises StoreUnavailable."""
    return not_ended(sign_ins, table.get_all(sign_out_places(sign_ins))) if sign_ins else []


def sign_out_places(sign_ins: Iterable[SignIn]) -> set[tuple[str, str]]:
    """Where the sign-outs are that may have ended any of the sign-ins."""
    return {(f"signed-out#{name}", "signed-out") for each in sign_ins for name in (each.browser, each.owner)}


def not_ended(sign_ins: Iterable[SignIn], items: Iterable[Item]) -> list[SignIn]:
    """Those of the sign-ins that none of the sign-outs ends."""
    found = [sign_out_of(item) for item in items]
    return [sign_in for sign_in in sign_ins if not any(sign_out.ends(sign_in) for sign_out in found)]


def sign_in_attributes(sign_in: SignIn) -> dict[str, Any]:
    """What a ticket's or a grant's item carries of the sign-in it descends from."""
    return {
        "browser": {"S": sign_in.browser},
        "owner": {"S": sign_in.owner},
        "shown_at": {"N": str(sign_in.shown_at)},
    }


def sign_in_of(item: Item) -> SignIn | None:
    """The sign-in that a ticket or a grant descends from; None for one of a version that knew none."""
    if "browser" not in item:
        return None
    return SignIn(item["browser"]["S"], item["owner"]["S"], int(item["shown_at"]["N"]))


def sign_out_of(item: Item) -> SignOut:
    """Read a sign-out's item."""
    return SignOut(
        of=item["pk"]["S"].removeprefix("signed-out#"),
        until=int(item["until"]["N"]),
        changed_at=int(item["changed_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
    )


def sign_out_item(sign_out: SignOut) -> dict[str, Any]:
    """Write a sign-out down."""
    return {
        "pk": {"S": f"signed-out#{sign_out.of}"},
        "sk": {"S": "signed-out"},
        "until": {"N": str(sign_out.until)},
        "expires_at": {"N": str(sign_out.expires_at)},
        "ttl": {"N": str(sign_out.expires_at)},
        "feed": {"S": "proxy"},
        "changed_at": {"N": str(sign_out.changed_at)},
        "sid": {"S": "-"},  # rule 6, and so the next two
        "generation": {"N": "0"},
        "revoked": {"BOOL": True},
    }
