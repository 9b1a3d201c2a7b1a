"""One DynamoDB table, and what its stores share: conditional writes, queries, and one error for all of its failures.

    pk                   sk          what                                    written by            store
    session#<sid>        session     a session (session_items.py)            web, launcher         sessions.py
    session#<sid>        asked       when somebody asked for a look at it    web                   sessions.py
    session#<sid>        line#…      an earlier line of its log              web, launcher         sessions.py
    owner#<owner>        image#…     an image that a notebook was saved as   launcher              images.py
    owner#<owner>        built#…     an image of a repository                launcher              images.py
    slots#<pool>         slots       who pulls, whose endpoint is silent     launcher              slots.py
    token#<sha256>       token       whose owner token this is               web                   tokens.py
    signed-out#<digest>  signed-out  a browser or an owner has signed out    web                   sign_ins.py
    ticket#<sha256>      ticket      a one-time entry to one launch          web; the agent takes  tokens.py, routes.py
    route#<host>         route       where the notebook is, or was           launcher              routes.py
    grant#<sha256>       grant       a browser's lasting entry               agent                 routes.py

Indexes: `listing` has an owner's sessions, `redrive` the sessions that are due, `ring` the ready ones by the minute of
their looks, `feed` what changed for the proxy.
Only SHA-256 digests of tokens, tickets and cookies are stored, never the values. `ttl` lets DynamoDB delete an item
some time after it is over; whoever reads it checks the time too. Every failure, also a refusal, is StoreUnavailable;
nothing of botocore leaves this module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.errors import StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = Mapping[str, Mapping[str, Any]]
Clock = Callable[[], float]

_NO_ANSWER: Final = "The hub's table did not answer; try again in a moment"


def digest_of(secret: str) -> str:
    """The SHA-256 of a token, ticket or cookie value in hex: all that is ever stored of it."""
    return sha256(secret.encode()).hexdigest()


class Table:
    """The table `name`. Values are in DynamoDB's own notation: {"S": text}, {"N": number as text}."""

    def __init__(self, dynamodb: DynamoDBClient, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name

    def get(self, pk: str, sk: str, *, consistent: bool = True) -> Item | None:
        """Read one item; None when there is none. Not `consistent`: at half the price, and maybe a moment behind."""
        with _translated():
            key = {"pk": {"S": pk}, "sk": {"S": sk}}
            return self._dynamodb.get_item(TableName=self._name, Key=key, ConsistentRead=consistent).get("Item")

    def get_all(self, places: Iterable[tuple[str, str]]) -> list[Item]:
        """Read the items at 1 to 100 places, pk and sk, consistently; gives those that there are, in any order."""
        keys = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in places]
        with _translated():
            answer = self._dynamodb.batch_get_item(RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}})
        if answer["UnprocessedKeys"]:
            raise StoreUnavailable(_NO_ANSWER)
        return list(answer["Responses"][self._name])

    def put(self, item: Item, *, condition: str = "", values: Mapping[str, Any] | None = None) -> bool:
        """Write one item whole; False when it does not meet the condition, and nothing was written.

        Raises StoreUnavailable; whether the write was done is then unknown, and a repetition is harmless.
        """
        options: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
        if values:
            options["ExpressionAttributeValues"] = values
        with _translated():
            try:
                self._dynamodb.put_item(TableName=self._name, Item=item, **options)
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def change(
        self, pk: str, sk: str, name: str, value: Mapping[str, Any], *, condition: str, values: Mapping[str, Any]
    ) -> bool:
        """Change one attribute of an item that is there; False when it does not meet the condition.

        In the condition `#name` stands for the attribute. Raises StoreUnavailable.
        """
        return self.update(
            pk,
            sk,
            "SET #name = :value",
            condition=f"attribute_exists(pk) AND ({condition})",
            names={"#name": name},
            values={":value": value, **values},
        )

    def update(
        self,
        pk: str,
        sk: str,
        expression: str,
        *,
        condition: str,
        names: Mapping[str, str],
        values: Mapping[str, Any],
    ) -> bool:
        """Change an item by an expression, or make it; False when it does not meet the condition.

        Raises StoreUnavailable; whether it was changed is then unknown.
        """
        with _translated():
            try:
                self._dynamodb.update_item(
                    TableName=self._name,
                    Key={"pk": {"S": pk}, "sk": {"S": sk}},
                    UpdateExpression=expression,
                    ConditionExpression=condition,
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def put_all(self, items: Collection[Item], *, latest: str) -> None:
        """Write all these items or none, but for those whose place an item has that is later by its attribute `latest`.

        Raises StoreUnavailable; whether the write was done is then unknown, and a repetition is harmless.
        """
        rest = list(items)
        while rest:
            puts = [
                {
                    "TableName": self._name,
                    "Item": item,
                    "ConditionExpression": "attribute_not_exists(pk) OR #latest <= :latest",
                    "ExpressionAttributeNames": {"#latest": latest},
                    "ExpressionAttributeValues": {":latest": item[latest]},
                }
                for item in rest
            ]
            with _translated():
                try:
                    self._dynamodb.transact_write_items(TransactItems=[{"Put": put} for put in puts])  # type: ignore[typeddict-item]
                    return
                except self._dynamodb.exceptions.TransactionCanceledException as error:
                    reasons = [reason["Code"] for reason in error.response["CancellationReasons"]]
            if "ConditionalCheckFailed" not in reasons:
                raise StoreUnavailable(_NO_ANSWER)
            rest = [item for item, reason in zip(rest, reasons, strict=True) if reason != "ConditionalCheckFailed"]

    def take(self, pk: str, sk: str, *, condition: str, values: Mapping[str, Any]) -> Item | None:
        """Delete one item and return it; None when it is not there or does not meet the condition.

        In the condition `#ttl` stands for the attribute of that name, which is a reserved word.
        """
        with _translated():
            try:
                answer = self._dynamodb.delete_item(
                    TableName=self._name,
                    Key={"pk": {"S": pk}, "sk": {"S": sk}},
                    ConditionExpression=condition,
                    ExpressionAttributeNames={"#ttl": "ttl"},
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_OLD",
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return None
        return answer["Attributes"]

    def delete(self, pk: str, sk: str) -> None:
        """Delete one item, if it is there. Raises StoreUnavailable."""
        with _translated():
            self._dynamodb.delete_item(TableName=self._name, Key={"pk": {"S": pk}, "sk": {"S": sk}})

    def query(
        self,
        index: str | None,
        condition: str,
        values: Mapping[str, Any],
        *,
        names: Mapping[str, str] | None = None,
        newest_first: bool = False,
        page_size: int | None = None,
    ) -> Iterator[Item]:
        """Yield an index's items, or the table's (None), a page when it is needed. Raises StoreUnavailable, also then.

        An index is a moment behind; the table is read consistently.
        """
        options: dict[str, Any] = {"IndexName": index} if index else {"ConsistentRead": True}
        if names:
            options["ExpressionAttributeNames"] = names
        with _translated():
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._name,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ScanIndexForward=not newest_first,
                PaginationConfig={"PageSize": page_size} if page_size else {},
                **options,
            )
            for page in pages:
                yield from page["Items"]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable(_NO_ANSWER) from error
