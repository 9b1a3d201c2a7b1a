"""What writing costs: DynamoDB's write units, counted where a client makes its calls, by the indexes of the template.

moto takes writes of any size for nothing. This counts as the DynamoDB Developer Guide says (Capacity unit consumption;
Using global secondary indexes, Storage considerations): a put costs a unit per KiB of the larger of the item before and
after; an index whose key changes costs its own item twice, one where another projected attribute changes once, and one
where nothing does costs nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.policies import template

Item = Mapping[str, Mapping[str, Any]]


def size_of(item: Item) -> int:
    """The size of an item in bytes: names and values; a number takes half a byte a digit, and one."""
    return sum(len(name.encode()) + _size(*next(iter(value.items()))) for name, value in item.items())


def _size(kind: str, value: Any) -> int:
    match kind:
        case "N":
            return math.ceil(sum(map(str.isdigit, value)) / 2) + 1
        case "S":
            return len(value.encode())
        case "SS":
            return sum(len(one.encode()) for one in value)
        case "L":
            return 3 + sum(1 + _size(*next(iter(one.items()))) for one in value)
        case "M":
            return 3 + len(value) + size_of(value)
        case "BOOL" | "NULL":
            return 1
        case _:
            raise AssertionError(f"nobody stores {kind}")


@dataclass
class WriteUnits:
    """What was written: `spent` on the table ("") and on each index, `sizes` of the items by their sort keys."""

    spent: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    _items: dict[tuple[str, str], Item] = field(default_factory=dict)

    def put(self, item: Item) -> None:
        """Count one put."""
        key = item["pk"]["S"], item["sk"]["S"]
        before = self._items.get(key, {})
        self._items[key] = item
        self.sizes.setdefault(key[1].partition("#")[0], []).append(size_of(item))
        self.spent[""] += _units(max(size_of(before), size_of(item)))
        for name, (keys, projected) in _indexes().items():
            old, new = (_entry(one, keys, projected) for one in (before, item))
            moved = {key: old.get(key) for key in keys} != {key: new.get(key) for key in keys}
            if old != new:
                self.spent[name] += _units(size_of(new)) + (_units(size_of(old)) if moved else 0)


def _units(size: int) -> int:
    return math.ceil(size / 1024)


@cache
def _indexes() -> dict[str, tuple[list[str], set[str] | None]]:
    """Of each index the attributes of its key, and those that it holds (None: all)."""
    found = {}
    for index in template("resources.yaml")["Resources"]["Table"]["Properties"]["GlobalSecondaryIndexes"]:
        keys, projection = [key["AttributeName"] for key in index["KeySchema"]], index["Projection"]
        held = {"pk", "sk", *keys, *projection.get("NonKeyAttributes", ())}
        found[index["IndexName"]] = keys, None if projection["ProjectionType"] == "ALL" else held
    return found


def _entry(item: Item, keys: list[str], projected: set[str] | None) -> Item:
    """What an index holds of an item; nothing if the item has no such key."""
    if not all(key in item for key in keys):
        return {}
    return {name: value for name, value in item.items() if projected is None or name in projected}


@contextmanager
def write_units(dynamodb: Any) -> Iterator[WriteUnits]:
    """Count what a client puts for as long as the block lasts; what the table refuses is counted as if it had not."""
    units = WriteUnits()

    def handler(params: Mapping[str, Any], **_: Any) -> None:
        units.put(params["Item"])

    event = "provide-client-params.dynamodb.PutItem"
    dynamodb.meta.events.register(event, handler)
    try:
        yield units
    finally:
        dynamodb.meta.events.unregister(event, handler)
