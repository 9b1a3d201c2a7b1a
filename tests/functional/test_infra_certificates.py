"""The hub's own certificates: made once, as whole sets, under the hub's key, and nothing secret comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from moto import mock_aws
from mypy_boto3_ssm import SSMClient

from chalicelib.errors import BadConfiguration
from infra.certificates import CLIENT_SET, NAMES, ensure_certificates

NOW = 1_800_000_000.0
PREFIX = "/homeport/test"


@pytest.fixture
def ssm() -> Iterator[SSMClient]:
    with mock_aws():
        yield boto3.client("ssm", "eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")


@pytest.fixture
def key_id(ssm: SSMClient) -> str:
    kms = boto3.client("kms", "eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
    return kms.create_key()["KeyMetadata"]["KeyId"]


def values(ssm: SSMClient) -> dict[str, dict[str, str]]:
    answer = ssm.get_parameters(Names=[f"{PREFIX}/{name}" for name in NAMES], WithDecryption=True)
    return {found["Name"].rpartition("/")[2]: json.loads(found["Value"]) for found in answer["Parameters"]}


def certificate(pair: dict[str, str]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair["certificate"].encode())


def test_every_parameter_is_encrypted_with_the_hubs_key(ssm: SSMClient, key_id: str) -> None:
    ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)
    described = ssm.describe_parameters()["Parameters"]
    assert {found["Name"] for found in described} == {f"{PREFIX}/{name}" for name in NAMES}
    assert {(found["Type"], found["KeyId"]) for found in described} == {("SecureString", key_id)}


def test_the_two_clients_are_signed_by_the_client_ca_and_by_no_other(ssm: SSMClient, key_id: str) -> None:
    ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)
    made = values(ssm)
    for name in ("launcher-client", "proxy-client"):
        certificate(made[name]).verify_directly_issued_by(certificate(made["client-ca"]))
        with pytest.raises(ValueError, match="Issuer"):
            certificate(made[name]).verify_directly_issued_by(certificate(made["notebook-ca"]))


def test_the_client_cas_key_is_kept_nowhere(ssm: SSMClient, key_id: str) -> None:
    ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)
    made = values(ssm)
    assert set(made["client-ca"]) == {"certificate"}
    assert set(made["notebook-ca-certificate"]) == {"certificate"}
    assert made["notebook-ca-certificate"]["certificate"] == made["notebook-ca"]["certificate"]
    client_ca = certificate(made["client-ca"]).public_key()
    for pair in made.values():
        if "key" in pair:
            assert load_pem_private_key(pair["key"].encode(), None).public_key() != client_ca


def test_a_second_run_makes_nothing_and_changes_nothing(ssm: SSMClient, key_id: str) -> None:
    assert set(ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)) == set(NAMES)
    before = values(ssm)
    assert ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW + 1) == ()
    assert values(ssm) == before


def test_a_deleted_set_is_made_again_and_the_other_stays(ssm: SSMClient, key_id: str) -> None:
    ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)
    before = values(ssm)
    ssm.delete_parameters(Names=[f"{PREFIX}/{name}" for name in CLIENT_SET])
    assert set(ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)) == set(CLIENT_SET)
    after = values(ssm)
    assert after["notebook-ca"] == before["notebook-ca"]
    assert after["client-ca"] != before["client-ca"]


def test_half_a_set_is_refused_and_says_what_to_delete(ssm: SSMClient, key_id: str) -> None:
    ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)
    ssm.delete_parameter(Name=f"{PREFIX}/proxy-client")
    with pytest.raises(BadConfiguration, match="proxy-client") as refusal:
        ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW)
    assert f"{PREFIX}/launcher-client" in refusal.value.message
    assert "PRIVATE KEY" not in refusal.value.message


def test_what_comes_back_is_names_only(ssm: SSMClient, key_id: str) -> None:
    assert "-----" not in "".join(ensure_certificates(ssm, prefix=PREFIX, key_id=key_id, now=NOW))
