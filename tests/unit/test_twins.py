"""The twins keep the contracts of the stores they stand for."""

from __future__ import annotations

import pytest

from chalicelib.session.values import Target
from tests.contract.stores import RouteStoreContract, SessionStoreContract
from tests.launcher_twins import RouteStoreTwin, SessionStoreTwin


class TestSessionStoreTwin(SessionStoreContract):
    @pytest.fixture
    def store(self) -> SessionStoreTwin:
        return SessionStoreTwin()


class TestRouteStoreTwin(RouteStoreContract):
    @pytest.fixture(autouse=True)
    def routes(self) -> RouteStoreTwin:
        self._routes = RouteStoreTwin()
        return self._routes

    def published(self) -> list[tuple[str, int, Target]]:
        return [(route.sid, route.generation, route.target) for route in self._routes.published()]
