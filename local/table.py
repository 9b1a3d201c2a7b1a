"""moto's DynamoDB made exact under concurrency, and fast enough for the pages of many sessions.

1. It loses writes under concurrency: one lock around its calls makes it exact.
2. It looks at every member that an attribute's value could have, ten of them, which is most of the time of a call. The
   values that it has at that point are what is to be sent, unless there are bytes among them.
3. A query looks at all items of the table and sorts them, twice, and takes each that it found apart and together again
   for every attribute that is in its index. Here the items of one partition, of the table or of an index, are found
   once and kept in their order until the next write.
4. It finds out with every call which services and which operations there are.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from typing import Any, Final

from moto.core import responses
from moto.core.serialize import BaseJSONSerializer
from moto.core.utils import method_names_from_class
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import SecondaryIndex, Table
from moto.dynamodb.responses import DynamoHandler
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

READS: Final = frozenset({"GetItem", "BatchGetItem", "Query", "DescribeTable"})


def improve_dynamodb() -> None:
    """Do so, in this process and for good."""
    partitions = Partitions()
    lock, call = threading.RLock(), DynamoHandler.call_action

    def one_at_a_time(handler: Any) -> Any:
        with lock:
            try:
                return call(handler)
            finally:
                if handler.get_endpoint_name(handler.headers) not in READS:
                    partitions.forget()

    def of_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and not has_bytes(value):
            serialized[serializer.get_serialized_name(shape, key)] = value
        else:
            serialize(serializer, serialized, value, shape, key)

    serialize = BaseJSONSerializer._serialize_type_structure
    _replace(BaseJSONSerializer, "_serialize_type_structure", of_structure)
    _replace(DynamoHandler, "call_action", one_at_a_time)
    _replace(responses, "method_names_from_class", cache(method_names_from_class))
    _replace(
        DomainDispatcherApplication, "get_backend_for_host", cache(DomainDispatcherApplication.get_backend_for_host)
    )
    _replace(SecondaryIndex, "project", projected)
    partitions.install()


def _replace(owner: object, name: str, function: Callable[..., Any]) -> None:
    assert callable(getattr(owner, name)), "moto has changed"
    setattr(owner, name, function)


def projected(index: SecondaryIndex, item: Item) -> Item:
    """The item with the attributes alone that the index has."""
    if index.projection.get("ProjectionType") == "ALL":
        return item
    kept = {*index.table_key_attrs, *index.schema_key_attrs, *index.projection.get("NonKeyAttributes", ())}
    found = copy.copy(item)
    found.attrs = {name: value for name, value in item.attrs.items() if name in kept}  # type: ignore[assignment]
    return found


def has_bytes(value: Any) -> bool:
    """Say whether there are bytes anywhere in a value, which have to be put into letters."""
    if isinstance(value, dict):
        return any(map(has_bytes, value.values()))
    if isinstance(value, list):
        return any(map(has_bytes, value))
    return isinstance(value, bytes)


class Partitions:
    """The partitions that were asked for since the last write, each in its order."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], list[Item]] = {}
        self._asked: list[Item] | None = None  # what the query under way is to find; one is, at most

    def forget(self) -> None:
        """Do so: a table has changed."""
        self._kept.clear()

    def install(self) -> None:
        """Have moto's queries find what is here."""
        query, all_items, sort = Table.query, Table.all_items, Table.sorted_items

        def of_partition(table: Table, *arguments: Any, **options: Any) -> Any:
            asked = signature(query).bind(table, *arguments, **options).arguments
            self._asked = self._asked_for(asked, sort)
            try:
                return query(table, *arguments, **options)
            finally:
                self._asked = None

        def found(table: Table) -> list[Item]:
            return all_items(table) if self._asked is None else self._asked

        def in_order(table: Table, hash_keys: Any, range_keys: Any, items: list[Item]) -> list[Item]:
            return sort(table, hash_keys, range_keys, items) if self._asked is None else items

        _replace(Table, "query", of_partition)
        _replace(Table, "all_items", found)
        _replace(Table, "sorted_items", in_order)

    def _asked_for(self, asked: Mapping[str, Any], sort: Callable[..., list[Item]]) -> list[Item]:
        """The items of the query's partition, or no more of them than its first page needs."""
        table, index, hash_key = asked["self"], asked.get("index_name"), asked["hash_key"]
        place = (table.name, index or "", str(hash_key.value))
        if place not in self._kept:
            self._kept[place] = _of_index(table, index, hash_key, sort) if index else _of_table(table, hash_key)
        items, limit = self._kept[place], asked["limit"]
        if not limit or asked["range_comparison"] or asked["exclusive_start_key"] or asked.get("filter_kwargs"):
            return items
        return items[: limit + 1] if asked["scan_index_forward"] else items[-limit - 1 :]


def _of_table(table: Table, hash_key: DynamoType) -> list[Item]:
    return sorted(table.items.get(hash_key, {}).values(), key=lambda item: item.range_key)


def _of_index(table: Table, name: str, hash_key: DynamoType, sort: Callable[..., list[Item]]) -> list[Item]:
    schema = table.get_index(name).schema
    keys = [key["AttributeName"] for key in schema]
    of_hash = [key["AttributeName"] for key in schema if key["KeyType"] == "HASH"]
    of_range = [key["AttributeName"] for key in schema if key["KeyType"] == "RANGE"]
    items = [
        item for items in table.items.values() for item in items.values() if item.attrs.get(of_hash[0]) is not None
    ]
    found = [item for item in items if item.attrs[of_hash[0]] == hash_key and all(map(item.attrs.get, keys))]
    return sort(table, [*of_hash, table.hash_key_attr], [*of_range, table.range_key_attr], found)
