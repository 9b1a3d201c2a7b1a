"""What every HAProxy behind the runtime socket must do: inherited by the tests of the twin and of HAProxy itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from proxy.agent.runtime import Connection, RuntimeSocket
from proxy.agent.table import Delete, Map, Put, Replace
from tests.proxy_rig import eventually

ROUTES = Map.ROUTES


class RuntimeSocketContract:
    """Two fixtures are the inheriting class's: `runtime`, the RuntimeSocket of a HAProxy with empty maps, and
    `open_stream`, which opens a websocket to a notebook of this host in it and gives the target, "ip|port".
    """

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

    def test_streams_have_their_target_and_numbers_that_grow(
        self, connection: Connection, open_stream: Callable[[str], str]
    ) -> None:
        assert (connection.streams(), connection.hosts_with_streams()) == ([], set())
        first = open_stream("one")
        between = connection.next_stream()
        second = open_stream("two")
        by_target = {stream.target: stream.number for stream in connection.streams()}
        assert by_target.keys() == {first, second}
        assert by_target[first] < between <= by_target[second] < connection.next_stream()
        assert connection.hosts_with_streams() == {"one", "two"}

    def test_one_stream_is_shut(self, connection: Connection, open_stream: Callable[[str], str]) -> None:
        first, second = open_stream("one"), open_stream("two")
        streams = {stream.target: stream for stream in connection.streams()}
        connection.shut(streams[first])
        eventually(lambda: connection.hosts_with_streams() == {"two"}, "the first stream's end")
        connection.shut(streams[first])
        assert [stream.target for stream in connection.streams()] == [second]
