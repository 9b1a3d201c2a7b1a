"""What every store of the proxy's side must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from chalicelib.aws.routes import Grant, Redeemed
from tests.builders import NOW

GRANT = Grant("ab" * 32, "sid-one", False, int(NOW * 1000), int(NOW) + 60)


class ProxyStoreContract(ABC):
    """`store` is a fixture of the inheriting class; its clock says NOW."""

    @abstractmethod
    def put_ticket(self, ticket: str, redeemed: Redeemed, *, expires_at: float = NOW + 60) -> None:
        """Have the hub make a ticket that can be redeemed before `expires_at`."""

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
        redeemed = Redeemed("sid-one", "/lab/tree/a.ipynb", int(NOW) + 60)
        self.put_ticket("t" * 43, redeemed)
        for other in ("other-one", "sid-two", "sid", ""):
            assert store.redeem_ticket("t" * 43, other) is None
        assert store.redeem_ticket("t" * 43, "sid-one") == redeemed
        assert store.redeem_ticket("t" * 43, "sid-one") is None

    def test_a_ticket_is_refused_from_the_second_it_expires(self, store: Any) -> None:
        redeemed = Redeemed("sid-one", "/lab", int(NOW) + 60)
        for late in (NOW, NOW - 1, NOW - 3600):
            self.put_ticket("t" * 43, redeemed, expires_at=late)
            assert store.redeem_ticket("t" * 43, "sid-one") is None
        self.put_ticket("t" * 43, redeemed, expires_at=NOW + 1)
        assert store.redeem_ticket("t" * 43, "sid-one") == redeemed
