"""The store of tokens and tickets on DynamoDB, as moto has it."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.aws.routes import ProxyStore, Redeemed
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.tokens import TokenStore
from chalicelib.session.values import Session
from tests.builders import LIFETIME, a_session
from tests.contract.tokens import TokenStoreContract
from tests.table import TABLE


class TestTokenStore(TokenStoreContract):
    @pytest.fixture(autouse=True)
    def tokens(self, dynamodb: Any) -> TokenStore:
        self._proxy = ProxyStore(dynamodb, TABLE, lambda: self.now)
        return TokenStore(dynamodb, TABLE, lambda: self.now, lifetime=LIFETIME)

    @pytest.fixture
    def stored(self, dynamodb: Any) -> Session:
        SessionStore(dynamodb, TABLE, lambda: self.now).save(a_session())
        return a_session()

    def redeem(self, ticket: str, host: str) -> Redeemed | None:
        return self._proxy.redeem_ticket(ticket, host)
