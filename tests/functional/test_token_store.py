"""The store of tokens and tickets on DynamoDB, as moto has it."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.aws.routes import ProxyStore, Redeemed
from chalicelib.aws.tokens import TokenStore
from tests.builders import LIFETIME
from tests.contract.tokens import TokenStoreContract
from tests.table import TABLE


class TestTokenStore(TokenStoreContract):
    @pytest.fixture(autouse=True)
    def tokens(self, dynamodb: Any) -> TokenStore:
        self._proxy = ProxyStore(dynamodb, TABLE, lambda: self.now)
        return TokenStore(dynamodb, TABLE, lambda: self.now, lifetime=LIFETIME)

    def redeem(self, ticket: str, host: str) -> Redeemed | None:
        return self._proxy.redeem_ticket(ticket, host)
