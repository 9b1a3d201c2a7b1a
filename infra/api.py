"""The hub's API in API Gateway, and what of it Chalice does not make.

1. The API is made, empty, before Chalice fills it: its id is part of the hub's address, which the functions are told.
   A tag says whose stage it is; an API without the tag is known by the function that its methods call.
2. What API Gateway answers itself (too many requests, 29 seconds, 10 MB, unsupported methods) gets the form of the
   hub's own errors: its page for browsers, its problem document for programs (docs/adr/0030). Unknown addresses come
   to the function (`/{proxy+}`).
3. The stage has a limit of requests, and a log of them without bodies, addresses, queries or paths.
4. The address at execute-api is closed once a domain of API Gateway leads to the API.

Every step may be repeated. https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from chalicelib.errors import BadConfiguration
from chalicelib.web.pages import ErrorPage
from infra.project import APP, function_name

TAG: Final = "homeport"
API_STAGE: Final = "api"  # api_gateway_stage of .chalice/config.json
ROLE_TRIES: Final = 10  # IAM takes some seconds to make a new role known
ROLE_PAUSE: Final = 3.0  # seconds

# What is logged of a request: which address it was for, as its pattern, and how it went.
ACCESS_LOG: Final = json.dumps(
    {
        "at": "$context.requestTimeEpoch",
        "request": "$context.requestId",
        "method": "$context.httpMethod",
        "address": "$context.resourcePath",
        "status": "$context.status",
        "ms": "$context.responseLatency",
        "function_ms": "$context.integrationLatency",
        "bytes": "$context.responseLength",
        "error": "$context.error.responseType",
    },
    separators=(",", ":"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of API Gateway's own, in the form of the hub's errors (docs/http.md).

    `status` is None where it stands for several: they keep their own.
    """

    status: int | None
    code: str
    title: str
    detail: str
    retry_after: int | None = None  # seconds

    @property
    def problem(self) -> str:
        """The problem document, for programs."""
        status = {} if self.status is None else {"status": self.status}
        problem = {"type": f"urn:homeport:{self.code}", "title": self.title, **status}
        return json.dumps({**problem, "code": self.code, "detail": self.detail})

    def page(self, root: str) -> str:
        """The page, for browsers; `root` leads to the hub's first page from any address.

        API Gateway puts values of its own where a template has a dollar sign: there is none in it.
        """
        return ErrorPage(root=root, status=self.status, title=self.title, code=self.code, message=self.detail).html()

    @property
    def headers(self) -> dict[str, str]:
        """Its headers; API Gateway wants fixed values in quotes. The content type is the chosen template's."""
        retry = {} if self.retry_after is None else {"Retry-After": f"'{self.retry_after}'"}
        return {**_HEADERS, **retry}

    def response(self, root: str) -> dict[str, Any]:
        """What API Gateway is told, but for the answer's kind; `root` as for the page."""
        return {
            **({} if self.status is None else {"statusCode": str(self.status)}),
            "responseParameters": {f"gatewayresponse.header.{name}": value for name, value in self.headers.items()},
            "responseTemplates": {"application/json": self.problem, "text/html": self.page(root)},
        }


_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "'no-store'",
    "X-Content-Type-Options": "'nosniff'",
    "X-Frame-Options": "'DENY'",
}
_NO_ADDRESS: Final = Answer(404, "no-such-address", "No such address", "This hub has nothing at this address")
_TOO_MANY: Final = Answer(429, "too-many-requests", "Too many requests", "Wait a moment, then try again", retry_after=5)
_REFUSED: Final = Answer(403, "request-refused", "Request refused", "This hub does not take this request")
ANSWERS: Final[Mapping[str, Answer]] = {
    # An address that no method is made for is to API Gateway one for which credentials are missing.
    "MISSING_AUTHENTICATION_TOKEN": _NO_ADDRESS,
    "RESOURCE_NOT_FOUND": _NO_ADDRESS,
    "INVALID_SIGNATURE": _REFUSED,
    "ACCESS_DENIED": _REFUSED,
    "WAF_FILTERED": _REFUSED,
    "THROTTLED": _TOO_MANY,
    "QUOTA_EXCEEDED": _TOO_MANY,
    "REQUEST_TOO_LARGE": Answer(
        413, "request-too-large", "Request too large", "A request has at most 10 MB: choose a smaller file"
    ),
    "UNSUPPORTED_MEDIA_TYPE": Answer(
        415, "unsupported-media-type", "Unsupported media type", "This address expects a different content type"
    ),
    "INTEGRATION_TIMEOUT": Answer(
        504, "too-slow", "No answer in time", "The hub took longer than 29 seconds. Try again", retry_after=5
    ),
    "INTEGRATION_FAILURE": Answer(
        504,
        "no-answer",
        "No answer",
        "The hub did not answer. Try again; tell its operator if it keeps happening",
        retry_after=5,
    ),
    "DEFAULT_4XX": Answer(None, "bad-request", "Bad request", "The request is not one the hub understands"),
    "DEFAULT_5XX": Answer(
        None,
        "hub-error",
        "Something went wrong",
        "Something is wrong with this hub. Try again, and tell its operator if it keeps happening",
    ),
}


def find_api(apigateway: Any, stage: str) -> str | None:
    """The id of the stage's API; raises BadConfiguration when there are two."""
    found = []
    for page in apigateway.get_paginator("get_rest_apis").paginate():
        for api in page["items"]:
            tag = api.get("tags", {}).get(TAG)
            if api["name"] == APP and (tag == stage or (tag is None and _calls(apigateway, api["id"], stage))):
                found.append(str(api["id"]))
    if len(found) > 1:
        raise BadConfiguration(
            f"There are {len(found)} APIs of the stage {stage}: {', '.join(found)}. Delete the one that no domain and "
            "no proxy names (`aws apigateway delete-rest-api --rest-api-id …`), then run this again"
        )
    return found[0] if found else None


def _calls(apigateway: Any, api: str, stage: str) -> bool:
    """Whether a method of the API calls the stage's web function."""
    function = f":function:{function_name(stage, 'api_handler')}/"
    pages = apigateway.get_paginator("get_resources").paginate(restApiId=api, embed=["methods"])
    return any(
        function in method.get("methodIntegration", {}).get("uri", "")
        for page in pages
        for resource in page["items"]
        for method in resource.get("resourceMethods", {}).values()
    )


def ensure_api(apigateway: Any, stage: str) -> str:
    """Find the stage's API, or make it: empty, for Chalice to fill; returns its id."""
    found = find_api(apigateway, stage)
    if found is not None:
        return found
    made = apigateway.create_rest_api(name=APP, endpointConfiguration={"types": ["REGIONAL"]}, tags={TAG: stage})
    return str(made["id"])


def ensure_logging(apigateway: Any, role: str, sleep: Callable[[float], None]) -> None:
    """Let API Gateway write logs, with the role, unless the account has one for that already.

    It is one setting for all APIs of the account in the region.
    """
    if apigateway.get_account().get("cloudwatchRoleArn"):
        return
    for attempt in range(ROLE_TRIES):
        try:
            apigateway.update_account(patchOperations=[_replace("/cloudwatchRoleArn", role)])
            break
        except ClientError as error:
            is_new = error.response["Error"]["Code"] == "BadRequestException"
            if not is_new or attempt == ROLE_TRIES - 1:
                raise
            sleep(ROLE_PAUSE)


def forget_logging(apigateway: Any, role: str) -> bool:
    """Take the role out of the account's settings, if it is the one there; other APIs log no more then."""
    if apigateway.get_account().get("cloudwatchRoleArn") != role:
        return False
    apigateway.update_account(patchOperations=[_replace("/cloudwatchRoleArn", "")])
    return True


def finish_api(apigateway: Any, api: str, *, log_group: str, rate: int, domain: str) -> bool:
    """Give the API that Chalice has filled the rest; returns whether its address at execute-api is closed.

    `log_group` is the ARN of the access log's; `rate` the requests a second of the stage, of which twice as many may
    come at once; `domain` the hub's own, "" for none.
    """
    for kind, response in responses(domain).items():
        apigateway.put_gateway_response(restApiId=api, responseType=kind, **response)
    closed = bool(domain) and leads_to(apigateway, domain, api)
    if bool(apigateway.get_rest_api(restApiId=api).get("disableExecuteApiEndpoint")) != closed:
        change = _replace("/disableExecuteApiEndpoint", str(closed))
        apigateway.update_rest_api(restApiId=api, patchOperations=[change])
    apigateway.create_deployment(restApiId=api, stageName=API_STAGE)
    settings = {
        "/*/*/throttling/rateLimit": str(rate),
        "/*/*/throttling/burstLimit": str(2 * rate),
        "/accessLogSettings/destinationArn": log_group,
        "/accessLogSettings/format": ACCESS_LOG,
    }
    changes = [_replace(path, value) for path, value in settings.items()]
    apigateway.update_stage(restApiId=api, stageName=API_STAGE, patchOperations=changes)
    return closed


def leads_to(apigateway: Any, domain: str, api: str) -> bool:
    """Whether API Gateway has the domain, and it leads to the API."""
    try:
        mappings = apigateway.get_base_path_mappings(domainName=domain).get("items", [])
    except apigateway.exceptions.NotFoundException:
        return False
    return any(mapping["restApiId"] == api for mapping in mappings)


def _replace(path: str, value: str) -> dict[str, str]:
    return {"op": "replace", "path": path, "value": value}


def responses(domain: str) -> dict[str, dict[str, Any]]:
    """What API Gateway is told of each of its own answers; `domain` is the hub's own, "" for none."""
    root = f"https://{domain}/" if domain else f"/{API_STAGE}/"
    return {kind: answer.response(root) for kind, answer in ANSWERS.items()}


def extensions(domain: str) -> dict[str, Any]:
    """The same answers as an OpenAPI document has them, for the template of `make package`."""
    return {"x-amazon-apigateway-gateway-responses": responses(domain)}
