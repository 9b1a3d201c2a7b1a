"""What every store of tokens and tickets must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from chalicelib.aws.routes import Redeemed
from chalicelib.web.hub import Tokens
from tests.builders import LIFETIME, NOW, OWNER, a_session


class TokenStoreContract(ABC):
    """`tokens` is a fixture of the inheriting class; the store's clock says `now`."""

    now = NOW

    @abstractmethod
    def redeem(self, ticket: str, host: str) -> Redeemed | None:
        """Take a ticket as the proxy does."""

    def test_a_token_stands_for_its_owners_until_its_time_is_over(self, tokens: Tokens) -> None:
        owners = frozenset({OWNER, "cd" * 32})
        tokens.put_token("token-1", owners, expires_at=NOW + 100)
        assert tokens.owners_of("token-1") == owners
        assert tokens.owners_of("token-2") == frozenset()
        self.now = NOW + 100
        assert tokens.owners_of("token-1") == frozenset()

    def test_a_ticket_is_good_once_for_its_launch(self, tokens: Tokens) -> None:
        session = a_session()
        later = replace(session, label="zzzzzzzzzz")
        tokens.put_ticket("ticket-1", session, path="/lab", expires_at=NOW + 60)
        for other in ("another-session", session.sid, later.host):
            assert self.redeem("ticket-1", other) is None
        assert self.redeem("ticket-1", session.host) == Redeemed(session.host, "/lab", int(NOW + LIFETIME))
        assert self.redeem("ticket-1", session.host) is None

    def test_a_ticket_is_good_for_its_time_only(self, tokens: Tokens) -> None:
        tokens.put_ticket("ticket-1", a_session(), path="/lab", expires_at=NOW + 60)
        self.now = NOW + 60
        assert self.redeem("ticket-1", a_session().host) is None
