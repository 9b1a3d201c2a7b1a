"""What a deployment asks of AWS, as it looks on the wire, and whether the policies for operators allow it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import botocore.session

from tests.deployment import Call
from tests.iam_requests import Asked, api_gateway_requests, operator_requests, refused
from tests.policies import Document, operator_policy

if TYPE_CHECKING:
    from botocore.model import OperationModel


def not_allowed(calls: Iterable[Call], *more: Document) -> set[str]:
    """What of the calls neither infra/operator-policy.json nor another policy allows: actions and their resources."""
    asked = (one for call in calls for one in requests_of_call(call))
    return {f"{action} on {resource}" for action, resource in refused(asked, operator_policy(), *more)}


def requests_of_call(call: Call) -> Iterator[Asked]:
    """What IAM is asked for a request."""
    method, is_address, path = call.name.partition(" ")
    if call.service == "apigateway":
        yield from api_gateway_requests(method, path, _json(call.body))
    elif is_address:
        operation, params = _addressed(call.service, method, path, call.query)
        if operation == "DeleteObjects":
            params["Keys"] = [f"/{key.decode()}" for key in re.findall(rb"<Key>(.*?)</Key>", call.body)]
        elif call.service != "s3":
            params |= _json(call.body)
        yield from operator_requests(call.service, operation, params)
    else:
        yield from operator_requests(call.service, call.name, _json(call.body) or _form(call.body))


def _json(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)) if body.startswith(b"{") else {}


def _form(body: bytes) -> dict[str, Any]:
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


@dataclass(frozen=True, slots=True)
class _Address:
    """How an operation looks on the wire: its method, its path as a pattern, and what its query must have."""

    operation: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]


@cache
def _addresses(service: str) -> list[_Address]:
    """Those of a service's operations, what asks for most first; not old ones, and not those told by a header."""
    model = botocore.session.get_session().get_service_model(service)
    found: list[_Address] = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, fixed = operation.http["requestUri"].partition("?")
        query = {one.partition("=")[0] for one in fixed.split("&") if one} | _required(operation, "querystring")
        if not operation.deprecated and not _required(operation, "header"):
            found.append(_Address(name, operation.http["method"], re.compile(_pattern(path)), frozenset(query)))
    return sorted(found, key=lambda one: -len(one.query))


def _addressed(service: str, method: str, path: str, query: str) -> tuple[str, dict[str, Any]]:
    """The operation that a request is, and the parameters in its path."""
    asked = parse_qs(query, keep_blank_values=True).keys()
    for one in _addresses(service):
        found = one.path.fullmatch(path.rstrip("/")) if one.method == method and one.query <= asked else None
        if found:
            return one.operation, found.groupdict()
    raise AssertionError(f"no operation of {service} is {method} {path}?{query}")


def _pattern(address: str) -> str:
    parts = re.split(r"\{(\w+)(\+?)}", address.rstrip("/"))
    text = re.escape(parts[0])
    for name, greedy, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if greedy else '[^/]+'}){re.escape(rest)}"
    return text


def _required(operation: OperationModel, location: str) -> set[str]:
    """What a request must have in a place, as it is called there."""
    shape = operation.input_shape
    members = {name: shape.members[name].serialization for name in shape.required_members} if shape else {}
    return {one.get("name", name) for name, one in members.items() if one.get("location") == location}
