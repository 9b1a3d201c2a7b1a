"""The embedded AWS: the deployment's own stack, exact under concurrency, on loopback alone."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from chalicelib.aws.sessions import SessionStore
from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.session.values import Failure, Summary, session_id
from local.aws import Aws, aws, own_environ
from tests.builders import a_session


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


def test_a_list_is_in_order_page_by_page_and_follows_every_write(cloud: Aws) -> None:
    now = time.time()
    store = SessionStore(cloud.client("dynamodb"), cloud.environ["HOMEPORT_TABLE"], lambda: now)
    owner, other = "0a" * 32, "0b" * 32
    sessions = [
        a_session(owner=of, sid=session_id(of, str(n)), name=str(n), created_at=now - n // 2)
        for of in (owner, other)
        for n in range(7)
    ]
    for session in sessions:
        store.save(session)
    whole = sorted((each.summary for each in sessions if each.owner == owner), key=lambda found: found.position)[::-1]
    for size in (1, 3, 7, 50):
        pages: list[Summary] = []
        before = None
        while page := store.of_owner(owner, size, before):
            pages, before = [*pages, *page], page[-1].position
        assert pages == whole
    assert store.of_owner("0c" * 32, 50) == []
    store.save(replace(sessions[0], version=2, failure=Failure("no-space", "…")))
    assert [found.failed for found in store.of_owner(owner, 50)].count(True) == 1
    assert {due.sid for due in store.due(now)} >= {session.sid for session in sessions}


def test_what_is_stored_comes_back_as_it_was(cloud: Aws) -> None:
    dynamodb, table = cloud.client("dynamodb"), cloud.environ["HOMEPORT_TABLE"]
    key = {"pk": {"S": "everything"}, "sk": {"S": "everything"}}
    nested = {"M": {"bytes": {"B": b"\0\xff"}, "list": {"L": [{"N": "1.50"}, {"NULL": True}, {"M": {}}]}}}
    item = {
        **key,
        "text": {"S": ""},
        "set": {"SS": ["a"]},
        "byte sets": {"BS": [b"\1"]},
        "nested": nested,
        "yes": {"BOOL": True},
    }
    dynamodb.put_item(TableName=table, Item=item)
    keys = {table: {"Keys": [key], "ConsistentRead": True}}
    values = {":pk": key["pk"]}
    assert dynamodb.get_item(TableName=table, Key=key)["Item"] == item
    assert dynamodb.batch_get_item(RequestItems=keys)["Responses"][table] == [item]
    found = dynamodb.query(TableName=table, KeyConditionExpression="pk = :pk", ExpressionAttributeValues=values)
    assert found["Items"] == [item]
    assert dynamodb.delete_item(TableName=table, Key=key, ReturnValues="ALL_OLD")["Attributes"] == item
    found = dynamodb.query(TableName=table, KeyConditionExpression="pk = :pk", ExpressionAttributeValues=values)
    assert found["Items"] == []


def test_a_connection_lasts_for_many_calls_unless_one_is_refused(cloud: Aws) -> None:
    address = urlsplit(cloud.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=20) as unsigned:
        unsigned.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nGET / HTT")
        answer = unsigned.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 403")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer.lower()
    dynamodb = cloud.client("dynamodb")
    headers = [dynamodb.list_tables()["ResponseMetadata"]["HTTPHeaders"] for _ in range(2)]
    assert all("connection" not in each for each in headers)


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
