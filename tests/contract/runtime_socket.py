"""What every HAProxy behind the runtime socket must do: inherited by the tests of the twin and of HAProxy itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.agent.runtime import Connection, RuntimeSocket
from proxy.agent.table import Delete, Map, Put, Replace

ROUTES = Map.ROUTES


class RuntimeSocketContract:
    """`runtime` is a fixture of the inheriting class: the RuntimeSocket of a HAProxy with empty maps."""

    @pytest.fixture
    def connection(self, runtime: RuntimeSocket) -> Iterator[Connection]:
        with runtime.connected() as connected:
            yield connected

    def test_the_process_is_named_and_stays_the_same(self, runtime: RuntimeSocket, connection: Connection) -> None:
        with runtime.connected() as other:
            assert other.process() == connection.process() != ""

    def test_an_entry_is_put_changed_put_again_and_deleted(self, connection: Connection) -> None:
        for value in ("first", "second", "second"):
            connection.execute([Put(ROUTES, "key", value)])
            assert connection.table(ROUTES) == {"key": value}
        connection.execute([Delete(ROUTES, "key"), Delete(ROUTES, "key")])
        assert connection.table(ROUTES) == {}

    def test_a_prepared_map_is_seen_when_it_is_committed(self, connection: Connection) -> None:
        connection.execute([Put(ROUTES, "old", "1")])
        version = connection.prepare(Replace(ROUTES, {f"key{number}": "2" for number in range(2000)}))
        assert connection.table(ROUTES) == {"old": "1"}
        connection.commit([version])
        assert connection.table(ROUTES) == {f"key{number}": "2" for number in range(2000)}

    def test_an_entry_put_while_a_map_is_prepared_is_seen_at_once(
        self, runtime: RuntimeSocket, connection: Connection
    ) -> None:
        connection.execute([Put(ROUTES, "kept", "old")])
        version = connection.prepare(Replace(ROUTES, {"key": "prepared", "kept": "prepared"}))
        with runtime.connected() as other:
            other.execute([Put(ROUTES, "key", "put"), Put(ROUTES, "kept", "put")])
            assert other.table(ROUTES) == {"key": "put", "kept": "put"}
            other.execute([Delete(ROUTES, "kept")])
            assert other.table(ROUTES) == {"key": "put"}
        connection.commit([version])
        connection.execute([Put(ROUTES, "key", "put"), Delete(ROUTES, "kept")])
        assert connection.table(ROUTES) == {"key": "put"}
