"""The embedded AWS: the deployment's own stack, exact under concurrency, on loopback alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane, queue_of
from local.aws import Aws, aws, own_environ


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws(tmp_path_factory.mktemp("aws")) as started:
        yield started


def test_the_stack_has_what_the_hub_is_told(cloud: Aws) -> None:
    environ = cloud.environ
    cloud.client("dynamodb").describe_table(TableName=environ["HOMEPORT_TABLE"])
    cloud.client("s3").head_bucket(Bucket=environ["HOMEPORT_BUCKET"])
    cloud.client("kms").generate_data_key(KeyId=environ["HOMEPORT_KEY"], KeySpec="AES_256")
    for lane in Lane:
        queue = cloud.client("sqs").get_queue_url(QueueName=queue_of(environ["HOMEPORT_QUEUES"], lane))["QueueUrl"]
        assert queue == queue_of(environ["HOMEPORT_QUEUE_URLS"], lane)
        assert queue.startswith(cloud.url)


def test_the_hubs_own_certificates_are_there_and_the_client_cas_key_is_nowhere(cloud: Aws) -> None:
    assert b"PRIVATE KEY" in cloud.secret_pair("proxy-client").key
    assert b"BEGIN CERTIFICATE" in cloud.secret_pair("client-ca", with_key=False).certificate
    with pytest.raises(BadConfiguration, match="client-ca"):
        cloud.secret_pair("client-ca")


def test_concurrent_conditional_writes_lose_nothing(cloud: Aws) -> None:
    table, writers, rounds = cloud.environ["HOMEPORT_TABLE"], 8, 10
    key = {"pk": {"S": "counter"}, "sk": {"S": "counter"}}
    clients = [cloud.client("dynamodb") for _ in range(writers)]

    def add(client: object) -> None:
        for _ in range(rounds):
            update = {"TableName": table, "Key": key, "UpdateExpression": "ADD n :one"}
            value = {"ExpressionAttributeValues": {":one": {"N": "1"}}}
            client.transact_write_items(TransactItems=[{"Update": {**update, **value}}])  # type: ignore[attr-defined]

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(add, clients))
    item = clients[0].get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
    assert item["n"]["N"] == str(writers * rounds)


def test_a_delayed_message_comes_when_its_delay_is_over_and_not_before(cloud: Aws) -> None:
    sqs = cloud.client("sqs")
    queue = sqs.create_queue(QueueName="delayed")["QueueUrl"]
    sent = time.monotonic()
    sqs.send_message(QueueUrl=queue, MessageBody="later", DelaySeconds=1)
    received = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20)
    assert [message["Body"] for message in received["Messages"]] == ["later"]
    assert time.monotonic() - sent >= 1


def test_nobodys_account_and_no_proxy_is_handed_on() -> None:
    mine = {"PATH": "/bin", "AWS_PROFILE": "production", "HTTPS_PROXY": "http://proxy", "SSL_CERT_FILE": "/ca.pem"}
    assert own_environ(mine) == {"PATH": "/bin", "SSL_CERT_FILE": "/ca.pem"}
