"""The events that Lambda hands a function: a browser's requests by API Gateway, a queue's messages, the schedule's.

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from urllib3.filepost import encode_multipart_formdata

from chalicelib.session.lanes import Lane
from chalicelib.web.routes import COOKIE
from tests.functional.hub_rig import Answer
from tests.lambda_rig import Function

ORIGIN: Final = "https://hub.example.org"


def sqs_event(lane: Lane, body: str) -> dict[str, Any]:
    """A message of a lane's queue, in a batch of one."""
    record = {
        "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:111122223333:homeport-test-{lane}",
        "awsRegion": "us-east-1",
    }
    return {"Records": [record]}


def scheduled_event() -> dict[str, Any]:
    """The schedule's."""
    return {
        "version": "0",
        "id": "cdc73f9d-aea9-11e3-9d5a-835b769c0d9c",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "111122223333",
        "time": "2026-11-30T00:00:00Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:111122223333:rule/homeport-test-redrive-event"],
        "detail": {},
    }


@dataclass(frozen=True)
class Browser:
    """Asks the web function as API Gateway hands on what a browser asks.

    `name_of` gives a header's name as the browser sends it; `crumbs`: it sends each cookie in a field of its own.
    """

    web: Function
    name_of: Callable[[str], str]
    crumbs: bool
    cookie: str = ""

    def ask(
        self,
        method: str,
        resource: str,
        *,
        parameters: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, Any] | None = None,
        multipart: Mapping[str, Any] | None = None,
        html: bool = False,
    ) -> Answer:
        path = re.sub(r"{(\w+)\+?}", lambda found: (parameters or {})[found[1]], resource)
        body, content_type = None, ""
        if multipart is not None:
            raw, content_type = encode_multipart_formdata(dict(multipart), boundary="----a-boundary")
            body = base64.b64encode(raw).decode()
        elif form is not None:
            body, content_type = urlencode(form), "application/x-www-form-urlencoded"
        fields = [
            ("Accept", "text/html,application/xhtml+xml" if html else "application/json"),
            ("Accept-Encoding", "gzip, deflate, br"),
            ("Origin", ORIGIN),
            ("Sec-Fetch-Site", "same-origin"),
            *([("Content-Type", content_type)] if content_type else []),
            *(("Cookie", field) for field in self._cookies()),
        ]
        headers: dict[str, list[str]] = {}
        for name, value in fields:
            headers.setdefault(self.name_of(name), []).append(value)
        for name, value in {  # API Gateway's own, in its own case
            "Host": "hub.example.org",
            "X-Amzn-Trace-Id": "Root=1-0-0",
            "X-Forwarded-For": "198.51.100.7",
            "X-Forwarded-Port": "443",
            "X-Forwarded-Proto": "https",
        }.items():
            headers[name] = [value]
        event = {
            "resource": resource,
            "path": path,
            "httpMethod": method,
            "headers": {name: values[-1] for name, values in headers.items()},
            "multiValueHeaders": headers,
            "queryStringParameters": dict(query) if query else None,
            "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} if query else None,
            "pathParameters": dict(parameters) if parameters else None,
            "stageVariables": None,
            "requestContext": {
                "resourceId": "abc123",
                "resourcePath": resource,
                "httpMethod": method,
                "path": f"/api{path}",
                "stage": "api",
                "protocol": "HTTP/1.1",
                "accountId": "111122223333",
                "apiId": "abcdefghij",
                "requestId": "0",
                "identity": {"sourceIp": "198.51.100.7", "userAgent": "a browser"},
            },
            "body": body,
            "isBase64Encoded": multipart is not None,
        }
        answer = self.web.invoke(event).json
        assert answer.keys() <= {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
        sent = {name.lower(): value for name, value in answer["headers"].items()}
        sent |= {name.lower(): values[-1] for name, values in answer.get("multiValueHeaders", {}).items()}
        return Answer(answer["statusCode"], sent, answer["body"].encode())

    def _cookies(self) -> Sequence[str]:
        cookies = ["theme=night", *([f"{COOKIE}={self.cookie}"] if self.cookie else []), "other=1"]
        return cookies if self.crumbs else ["; ".join(cookies)]

    def signed_in(self, launched: Answer) -> Browser:
        """The browser, once it has the cookie of an answer."""
        cookie = re.match(rf"{COOKIE}=([\w-]+);", launched.headers["set-cookie"])
        assert cookie
        return replace(self, cookie=cookie[1])
