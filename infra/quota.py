"""How many functions the account may have at work at once, and what of that the stage takes.

A new account has 10; AWS raises it to 1,000 when asked. Each lane needs two at least: less, an event source of SQS does
not take. https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from chalicelib.config import FUNCTIONS, LEAST_FUNCTIONS, Config
from chalicelib.session.lanes import Lane
from infra.project import function_name

LEAST_UNRESERVED: Final = 100  # AWS's own rule
SHARE: Final = 80  # percent of the account's functions that the lanes take at most; the rest is for pages and others


@dataclass(frozen=True, slots=True)
class Quota:
    """The account's concurrent functions: in all, and those that no other function has reserved."""

    in_all: int
    free: int


def read_quota(lambda_: Any, stage: str) -> Quota | str:
    """Ask AWS, or give the reason why it does not say."""
    try:
        limits = lambda_.get_account_settings()["AccountLimit"]
        reserved = _reserved_already(lambda_, function_name(stage, Lane.LEAVE))
    except ClientError as error:
        return str(error)
    return Quota(int(limits["ConcurrentExecutions"]), int(limits["UnreservedConcurrentExecutions"]) + reserved)


def _reserved_already(lambda_: Any, function: str) -> int:
    """How many a run before this one reserved for the function, which may not exist yet."""
    try:
        return int(lambda_.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions", 0))
    except lambda_.exceptions.ResourceNotFoundException:
        return 0


def fit(options: Mapping[str, str], quota: Quota | None) -> dict[str, str]:
    """Give the functions' options, HOMEPORT_FUNCTIONS as low as the account needs it if the operator chose none."""
    if quota is None or options.get(FUNCTIONS.name):
        return dict(options)
    fitting = max(quota.free * SHARE // 100, LEAST_FUNCTIONS)
    return {**options, FUNCTIONS.name: str(fitting)} if fitting < FUNCTIONS.read({}) else dict(options)


def reserved_for_leaving(options: Mapping[str, str], quota: Quota | None) -> dict[str, int]:
    """How many functions are reserved for the lane that leaves: its own, or none if AWS would not give them.

    AWS wants at least 100 left unreserved. The lane has a queue of its own without.
    """
    wanted = Config.from_environ(options).functions_of(Lane.LEAVE)
    return {Lane.LEAVE.value: wanted} if quota is not None and quota.free >= wanted + LEAST_UNRESERVED else {}
