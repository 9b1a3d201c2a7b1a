"""The hub's own certificates as the launcher reads them: a parameter that is spoilt is refused, and nobody sees it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace

import boto3
import pytest
from moto import mock_aws
from mypy_boto3_ssm import SSMClient

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.hub_certificates import load_trust
from chalicelib.errors import BadConfiguration
from tests.launcher_twins import a_trust
from tests.secrets_seen import Canary, shown_with_locals

PREFIX = "/homeport/test"


@pytest.fixture
def ssm() -> Iterator[SSMClient]:
    """SSM with the parameters of the launcher."""
    trust = a_trust()
    pairs = {
        "notebook-ca": trust.notebook_ca.to_json(),
        "notebook-ca-certificate": json.dumps({"certificate": trust.notebook_ca.certificate.decode()}),
        "client-ca": json.dumps({"certificate": trust.client_ca.decode()}),
        "launcher-client": trust.probe.to_json(),
    }
    with mock_aws():
        client = boto3.client("ssm", "eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
        for name, value in pairs.items():
            put(client, name, value)
        yield client
        client.close()


def put(ssm: SSMClient, name: str, value: str) -> None:
    ssm.put_parameter(Name=f"{PREFIX}/{name}", Value=value, Type="SecureString", Overwrite=True)


def test_the_parameters_are_read_and_a_key_by_whom_signs_with_it_alone(ssm: SSMClient) -> None:
    assert load_trust(ssm, PREFIX, signs=True) == a_trust()
    watching = load_trust(ssm, PREFIX, signs=False)
    assert watching == replace(a_trust(), notebook_ca=replace(a_trust().notebook_ca, key=b""))


def test_a_hub_without_certificates_is_told_as_unavailable(ssm: SSMClient) -> None:
    with pytest.raises(StoreUnavailable, match="/elsewhere/notebook-ca"):
        load_trust(ssm, "/elsewhere", signs=True)


def cut_in_the_key(text: str) -> str:
    return text[: -len("-----END PRIVATE KEY-----") - 40]


def without_certificate(text: str) -> str:
    return json.dumps({"key": json.loads(text)["key"]})


def with_another_type(text: str) -> str:
    return json.dumps({**json.loads(text), "certificate": 1})


def twice(text: str) -> str:
    return text + text


def in_a_list(text: str) -> str:
    return f"[{text}]"


def the_key_alone(text: str) -> str:
    return str(json.loads(text)["key"])


@pytest.mark.parametrize("name", ["notebook-ca", "launcher-client"])
@pytest.mark.parametrize(
    "spoil", [cut_in_the_key, without_certificate, with_another_type, twice, in_a_list, the_key_alone]
)
def test_no_key_is_in_the_refusal_of_a_spoilt_parameter(ssm: SSMClient, name: str, spoil: Callable[[str], str]) -> None:
    trust = a_trust()
    pair = {"notebook-ca": trust.notebook_ca, "launcher-client": trust.probe}[name]
    canary = Canary.of(pair.key)
    spoilt = spoil(pair.to_json())
    assert canary.seen_in(spoilt), "there is no key in it that could be shown"
    put(ssm, name, spoilt)
    with pytest.raises(BadConfiguration, match=f"{PREFIX}/{name} must be JSON") as caught:
        load_trust(ssm, PREFIX, signs=True)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception(error))
    reported = shown_with_locals(error)
    assert "in load_trust" in reported
    assert "in from_json" in reported
    assert not canary.seen_in(str(error), repr(error), repr(error.args), repr(vars(error)), told, reported)
