"""How the stage's API is found and made, and the account's setting for API Gateway's logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from chalicelib.errors import BadConfiguration
from infra.api import ANSWERS, ROLE_TRIES, ensure_api, ensure_logging, find_api, forget_logging, responses
from tests.policies import ACCOUNT, REGION

ROLE = f"arn:aws:iam::{ACCOUNT}:role/logs"


@pytest.fixture
def apigateway() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("apigateway", REGION, aws_access_key_id="test", aws_secret_access_key="test")


def made_by_chalice(apigateway: Any, function: str) -> str:
    """An API without a tag, one of whose methods calls the function, as the versions before made it."""
    api = apigateway.create_rest_api(name="homeport")["id"]
    (root,) = apigateway.get_resources(restApiId=api)["items"]
    at = {"restApiId": api, "resourceId": root["id"], "httpMethod": "GET"}
    apigateway.put_method(**at, authorizationType="NONE")
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
    uri = f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{arn}/invocations"
    apigateway.put_integration(**at, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)
    return str(api)


def test_a_stages_api_is_made_once_and_found_by_its_tag(apigateway: Any) -> None:
    assert find_api(apigateway, "prod") is None
    api = ensure_api(apigateway, "prod")
    assert ensure_api(apigateway, "prod") == find_api(apigateway, "prod") == api
    assert ensure_api(apigateway, "test") != api


def test_an_api_of_before_is_found_by_the_function_that_it_calls(apigateway: Any) -> None:
    apigateway.create_rest_api(name="somebody else's")
    other, ours = made_by_chalice(apigateway, "homeport-prod2"), made_by_chalice(apigateway, "homeport-prod")
    assert ensure_api(apigateway, "prod") == ours
    assert ensure_api(apigateway, "prod2") == other


def test_two_apis_of_a_stage_are_refused_by_name(apigateway: Any) -> None:
    both = {ensure_api(apigateway, "prod"), made_by_chalice(apigateway, "homeport-prod")}
    with pytest.raises(BadConfiguration) as refused:
        find_api(apigateway, "prod")
    assert all(api in refused.value.message for api in both)


def test_the_accounts_own_role_for_logs_is_left_alone(apigateway: Any) -> None:
    ensure_logging(apigateway, ROLE, lambda _: None)
    ensure_logging(apigateway, f"{ROLE}-2", lambda _: None)
    assert apigateway.get_account()["cloudwatchRoleArn"] == ROLE
    assert not forget_logging(apigateway, f"{ROLE}-2")
    assert forget_logging(apigateway, ROLE)
    assert not apigateway.get_account().get("cloudwatchRoleArn")


@pytest.mark.parametrize("refusals", [0, 2, ROLE_TRIES])
def test_a_role_that_iam_has_only_just_made_is_waited_for(refusals: int) -> None:
    apigateway = boto3.client("apigateway", REGION, aws_access_key_id="test", aws_secret_access_key="test")
    pauses: list[float] = []
    with Stubber(apigateway) as stubber:
        stubber.add_response("get_account", {})
        for _ in range(refusals):
            stubber.add_client_error("update_account", "BadRequestException", "The role ARN does not have permissions")
        if refusals < ROLE_TRIES:
            stubber.add_response("update_account", {})
            ensure_logging(apigateway, ROLE, pauses.append)
        else:
            with pytest.raises(ClientError):
                ensure_logging(apigateway, ROLE, pauses.append)
        stubber.assert_no_pending_responses()
    assert len(pauses) == min(refusals, ROLE_TRIES - 1)


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(("domain", "root"), [("hub.example.com", "https://hub.example.com/"), ("", "/api/")])
def test_an_answer_of_api_gateways_is_our_page_and_our_problem_document(kind: str, domain: str, root: str) -> None:
    answer, response = ANSWERS[kind], responses(domain)[kind]
    assert (answer.status is None) == kind.startswith("DEFAULT_")
    assert response.get("statusCode") == (str(answer.status) if answer.status else None)
    assert response["responseTemplates"].keys() == {"application/json", "text/html"}
    problem = json.loads(response["responseTemplates"]["application/json"])
    assert problem["type"] == f"urn:homeport:{problem['code']}"
    assert problem.get("status") == answer.status
    page = response["responseTemplates"]["text/html"]
    assert f"<h1>{problem['title']}</h1>" in page
    assert f"<p>{problem['detail']}</p>" in page
    assert problem["code"] in page
    assert f'<a class="button primary" href="{root}">' in page


@pytest.mark.parametrize("kind", ANSWERS)
def test_api_gateway_puts_nothing_of_its_own_into_its_answers(kind: str) -> None:
    """Its templates have variables of the request, such as $context.path, which would be put in as they are."""
    response = responses("")[kind]
    assert "$" not in "".join(response["responseTemplates"].values())
    headers = response["responseParameters"]
    assert "gatewayresponse.header.Content-Type" not in headers, "it would be that of both forms"
    assert all(value[0] == value[-1] == "'" for value in headers.values()), "else it is a variable's name"
