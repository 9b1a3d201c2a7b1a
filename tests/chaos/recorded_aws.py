"""The embedded AWS, which says on its standard output what becomes of sessions, routes and credentials, as it happens.

`python -m tests.chaos.recorded_aws DESCRIPTOR` serves as tests/role_guard.py does. Each change is a line of JSON: `at`
is when it was made, in nanoseconds, `by` whose request it was, `put` the DynamoDB item or `stored` or `deleted` the
object's key. `entries` reads such lines.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from chalicelib.aws.session_items import session_of
from local.aws import serve
from local.gate import AccessKey
from tests.history import Deleted, Entry, Fact, Published, Saved, Stored, Withdrawn
from tests.role_guard import GuardedApplication

BY: Final = "X-Homeport-By"  # the header in which a client says who it is


def record() -> None:
    """Have moto's stores say what they do. A change of DynamoDB's is made, and said, under its one lock."""
    from flask import request
    from moto.dynamodb.models import DynamoDBBackend
    from moto.s3.models import S3Backend

    def say(**what: Any) -> None:
        line = {"at": time.time_ns(), "by": request.headers.get(BY, ""), **what}
        os.write(sys.stdout.fileno(), (json.dumps(line) + "\n").encode())

    put_item, put_object, delete_object = DynamoDBBackend.put_item, S3Backend.put_object, S3Backend.delete_object

    def said_put_item(self: Any, table: str, item: Any, *rest: Any, **options: Any) -> Any:
        answer = put_item(self, table, item, *rest, **options)
        if item["sk"]["S"] in ("session", "route"):
            say(put=item)
        return answer

    def said_put_object(self: Any, bucket: str, key: str, *rest: Any, **options: Any) -> Any:
        answer = put_object(self, bucket, key, *rest, **options)
        say(stored=key)
        return answer

    def said_delete_object(self: Any, bucket: str, key: str, *rest: Any, **options: Any) -> Any:
        answer = delete_object(self, bucket, key, *rest, **options)
        say(deleted=key)
        return answer

    DynamoDBBackend.put_item = said_put_item  # type: ignore[method-assign,assignment]
    S3Backend.put_object = said_put_object  # type: ignore[method-assign,assignment]
    S3Backend.delete_object = said_delete_object  # type: ignore[method-assign,assignment]


def entries(lines: Iterable[str]) -> Iterator[tuple[int, Entry]]:
    """Read what was said: when it happened, and what."""
    for line in lines:
        if line.startswith('{"at"'):
            said = json.loads(line)
            yield said["at"], Entry(_fact(said), said["by"])


def _fact(said: Any) -> Fact:
    match said:
        case {"put": {"sk": {"S": "session"}} as item}:
            return Saved(session_of(item))
        case {"put": item}:
            host = item["pk"]["S"].removeprefix("route#")
            return Published(host) if item["published"]["BOOL"] else Withdrawn(host)
        case {"stored": key}:
            return Stored(*_launch_of(key))
        case {"deleted": key}:
            return Deleted(*_launch_of(key))
    raise ValueError("not a line of the embedded AWS")


def _launch_of(key: str) -> tuple[str, int]:
    _, sid, generation = key.split("/")
    return sid, int(generation)


if __name__ == "__main__":
    record()
    serve(socket.socket(fileno=int(sys.argv[1])), AccessKey.from_environ(os.environ), around=GuardedApplication)
