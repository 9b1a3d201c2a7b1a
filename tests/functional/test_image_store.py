"""The saved images in DynamoDB, as moto has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.images import ImageStore
from tests.builders import OWNER
from tests.contract.images import IMAGE, ImageStoreContract
from tests.table import TABLE, create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def dynamodb() -> Iterator[DynamoDBClient]:
    with mock_aws():
        client = boto3.client("dynamodb", "eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
        create_table(client)
        yield client
        client.close()


class TestImageStore(ImageStoreContract):
    @pytest.fixture
    def images(self, dynamodb: DynamoDBClient) -> ImageStore:
        self._dynamodb = dynamodb
        return ImageStore(dynamodb, TABLE, lambda: self.now)

    def test_an_item_that_cannot_be_read_is_passed_over(self, images: ImageStore) -> None:
        images.put(IMAGE)
        for number, changes in enumerate(({"size": {"S": "7"}}, {"saved_at": {"N": "1"}, "notebook": {"N": "2"}}, {})):
            item = {"pk": {"S": f"owner#{OWNER}"}, "sk": {"S": f"image#{number}#a"}, **changes}
            self._dynamodb.put_item(TableName=TABLE, Item=item)
            self._dynamodb.put_item(TableName=TABLE, Item={**item, "sk": {"S": f"built#{number}#a"}})
        assert images.of_owner(OWNER) == [IMAGE]
        assert images.built_of(OWNER) == []
