"""The saved images in DynamoDB, as moto has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chalicelib.aws.images import ImageStore
from tests.builders import OWNER
from tests.contract.images import IMAGE, ImageStoreContract
from tests.table import TABLE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


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
