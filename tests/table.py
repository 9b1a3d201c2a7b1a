"""The table of infra/resources.yaml, as moto has it, without the rest of the stack."""

from __future__ import annotations

from typing import Any

from tests.policies import template

TABLE = "homeport-test"
_SCHEMA = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")


def create_table(dynamodb: Any) -> None:
    """Create the template's table, empty: CloudFormation and DynamoDB name its properties alike."""
    properties = template("resources.yaml")["Resources"]["Table"]["Properties"]
    dynamodb.create_table(TableName=TABLE, **{name: properties[name] for name in _SCHEMA})
