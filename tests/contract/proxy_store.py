"""What every store of the proxy's side must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from chalicelib.aws.routes import Grant, Redeemed
from chalicelib.aws.sign_ins import SignIn, SignOut
from tests.builders import NOW, OWNER, SIGN_IN

GRANT = Grant("ab" * 32, "sid-one", False, int(NOW * 1000), int(NOW) + 60, SIGN_IN)


class ProxyStoreContract(ABC):
    """`store` is a fixture of the inheriting class; its clock says NOW."""

    @abstractmethod
    def put_ticket(self, ticket: str, redeemed: Redeemed, *, expires_at: float = NOW + 60) -> None:
        """Have the hub make a ticket that can be redeemed before `expires_at`."""

    @abstractmethod
    def sign_out(self, browser: str, *owners: str) -> None:
        """Have the hub sign a browser out, and these owners everywhere."""

    def test_a_grant_that_was_put_is_found_and_fed(self, store: Any) -> None:
        store.put_grant(replace(GRANT, changed_at=0))
        assert store.grant(GRANT.digest) == GRANT
        assert list(store.changes(0)) == [GRANT]
        assert list(store.changes(GRANT.changed_at)) == [GRANT]
        assert list(store.changes(GRANT.changed_at + 1)) == []

    def test_what_is_not_there_is_none(self, store: Any) -> None:
        assert store.grant("cd" * 32) is None
        assert store.route("nobody") is None
        assert store.redeem_ticket("t" * 43, "nobody") is None

    def test_a_ticket_is_taken_once_and_for_its_own_launch_only(self, store: Any) -> None:
        redeemed = Redeemed("sid-one", "/lab/tree/a.ipynb", int(NOW) + 60, SIGN_IN)
        self.put_ticket("t" * 43, redeemed)
        for other in ("other-one", "sid-two", "sid", ""):
            assert store.redeem_ticket("t" * 43, other) is None
        assert store.redeem_ticket("t" * 43, "sid-one") == redeemed
        assert store.redeem_ticket("t" * 43, "sid-one") is None

    def test_a_ticket_is_refused_from_the_second_it_expires(self, store: Any) -> None:
        redeemed = Redeemed("sid-one", "/lab", int(NOW) + 60, SIGN_IN)
        for late in (NOW, NOW - 1, NOW - 3600):
            self.put_ticket("t" * 43, redeemed, expires_at=late)
            assert store.redeem_ticket("t" * 43, "sid-one") is None
        self.put_ticket("t" * 43, redeemed, expires_at=NOW + 1)
        assert store.redeem_ticket("t" * 43, "sid-one") == redeemed

    def test_sign_outs_are_fed_and_end_the_grants_and_tickets_that_they_are_about(self, store: Any) -> None:
        mine, other, elsewhere = (
            replace(GRANT, digest=digest * 32, sign_in=sign_in)
            for digest, sign_in in (
                ("a1", SIGN_IN),
                ("a2", SignIn("b1" * 32, "cd" * 32, SIGN_IN.shown_at)),
                ("a3", replace(SIGN_IN, browser="b1" * 32)),
            )
        )
        later = replace(elsewhere, digest="a4" * 32, sign_in=replace(elsewhere.sign_in, shown_at=SIGN_IN.shown_at + 1))
        for grant in (mine, other, elsewhere, later):
            store.put_grant(grant)
        self.sign_out(SIGN_IN.browser)
        assert store.grant(mine.digest) == replace(mine, revoked=True)
        assert [store.grant(grant.digest) for grant in (other, elsewhere, later)] == [other, elsewhere, later]
        self.sign_out("b2" * 32, OWNER)
        assert store.grant(elsewhere.digest) == replace(elsewhere, revoked=True)
        assert [store.grant(grant.digest) for grant in (other, later)] == [other, later]
        fed = {item.of: item for item in store.changes(0) if isinstance(item, SignOut)}
        assert fed.keys() == {SIGN_IN.browser, "b2" * 32, OWNER}
        assert all(item.changed_at == int(NOW * 1000) for item in fed.values())
        for grant in (mine, other, elsewhere, later):
            ended = any(sign_out.ends(grant.sign_in) for sign_out in fed.values())
            self.put_ticket("t" * 43, Redeemed("sid-one", "/lab", int(NOW) + 60, grant.sign_in))
            assert (store.redeem_ticket("t" * 43, "sid-one") is None) == ended
            assert (grant in (mine, elsewhere)) == ended
