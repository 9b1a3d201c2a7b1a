"""The twins keep the contracts of what they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chalicelib.aws.queues import Enqueue, TickMessage
from chalicelib.aws.routes import Redeemed
from chalicelib.launcher.outside import Engine
from chalicelib.notebook.container import Specification, specification
from chalicelib.notebook.helpers import HelperSpecification
from chalicelib.session.lanes import Lane
from chalicelib.session.values import Session, Target
from tests.builders import a_session, some_credentials
from tests.contract.credentials import CredentialsContract
from tests.contract.engine import FILES, EngineContract, a_helper
from tests.contract.images import ImageStoreContract
from tests.contract.queue import QueueContract
from tests.contract.slots import SlotStoreContract
from tests.contract.stores import RouteStoreContract, SessionStoreContract
from tests.contract.tokens import TokenStoreContract
from tests.launcher_twins import (
    CredentialsTwin,
    EngineTwin,
    ImageStoreTwin,
    QueueTwin,
    RouteStoreTwin,
    SessionStoreTwin,
    SlotStoreTwin,
    TokenStoreTwin,
)


class TestSessionStoreTwin(SessionStoreContract):
    @pytest.fixture
    def store(self) -> SessionStoreTwin:
        return SessionStoreTwin()


class TestRouteStoreTwin(RouteStoreContract):
    @pytest.fixture(autouse=True)
    def routes(self) -> RouteStoreTwin:
        self._routes = RouteStoreTwin()
        return self._routes

    def published(self) -> Sequence[tuple[str, Target | None]]:
        return [(route.host, route.target) for route in self._routes.published()]


class TestCredentialsTwin(CredentialsContract):
    @pytest.fixture
    def credentials(self) -> CredentialsTwin:
        return CredentialsTwin()


class TestTokenStoreTwin(TokenStoreContract):
    @pytest.fixture(autouse=True)
    def tokens(self) -> TokenStoreTwin:
        self._tokens = TokenStoreTwin(lambda: self.now, find_session={a_session().sid: a_session()}.get)
        return self._tokens

    @pytest.fixture
    def stored(self) -> Session:
        return a_session()

    def redeem(self, ticket: str, host: str) -> Redeemed | None:
        return self._tokens.redeem_ticket(ticket, host)


class TestQueueTwin(QueueContract):
    @pytest.fixture
    def enqueue(self) -> Enqueue:
        self._queue = QueueTwin()
        return self._queue.enqueue

    def received(self, lane: Lane) -> Sequence[TickMessage]:
        return [message for message, sent_to, delay in self._queue.sent if sent_to is lane and delay == 0]


class TestSlotStoreTwin(SlotStoreContract):
    @pytest.fixture
    def slots(self) -> SlotStoreTwin:
        return SlotStoreTwin(lambda: self.now)


class TestImageStoreTwin(ImageStoreContract):
    @pytest.fixture
    def images(self) -> ImageStoreTwin:
        return ImageStoreTwin(lambda: self.now)


class TestEngineTwin(EngineContract):
    @pytest.fixture
    def opened(self, spec: Specification) -> EngineTwin:
        self._engine = EngineTwin(images={spec.image})
        return self._engine.connect(some_credentials(), address=EngineTwin.address, deadline=30.0, hub_name="hub")

    @pytest.fixture
    def spec(self) -> Specification:
        return specification(a_session(), hub_name="hub", image_workdir="/w", publish_address="", idle_lifetime=60.0)

    @pytest.fixture
    def keeps_limits(self) -> bool:
        return True

    @pytest.fixture
    def helper(self, spec: Specification) -> HelperSpecification:
        return a_helper(spec)

    @pytest.fixture
    def saved_as(self) -> str:
        return "localhost/homeport-saved:latest"

    @pytest.fixture
    def built_as(self) -> str:
        return f"localhost/homeport-built:{40 * 'c'}"

    @pytest.fixture
    def pullable(self) -> str:
        return "registry.example.org/notebook:latest"

    def let_it_end(self, opened: Engine, spec: Specification, exit_code: int, line: str) -> None:
        opened.create(spec)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        self._engine.containers[spec.name].end(exit_code, line)
