"""A rotation of the hub's CAs against moto's SSM: who trusts whom after each step, by real TLS handshakes."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.hub_certificates import load_trust, read_pair
from chalicelib.errors import BadConfiguration
from chalicelib.notebook.certificates import Leaf, issue_notebook, notebook_name
from chalicelib.notebook.pair import Pair
from infra.certificates import ensure_certificates
from infra.rotate import DEPLOYING, Rotation, main
from tests.iam_requests import Asked, operator_requests, refused
from tests.policies import operator_policy

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

PREFIX: Final = "/homeport/test"
LONGEST: Final = 14 * 86400.0
HOST: Final = "sid-label"


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SSMClient]:
    """SSM with the certificates of a stage."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        client = boto3.client("ssm")
        ensure_certificates(client, prefix=PREFIX, key_id="alias/homeport-test", now=time.time())
        yield client
        client.close()


def rotation(ssm: SSMClient, ca: str, now: float | None = None) -> Rotation:
    return Rotation(ssm, PREFIX, "alias/homeport-test", ca, LONGEST, time.time() if now is None else now)


@dataclass(frozen=True)
class Notebook:
    """What a notebook keeps from its launch."""

    leaf: Leaf
    client_ca: bytes


def launched(ssm: SSMClient) -> Notebook:
    trust = load_trust(ssm, PREFIX, signs=True)
    return Notebook(issue_notebook(trust.notebook_ca, HOST, now=time.time(), lifetime=3600), trust.client_ca)


def reaches(ssm: SSMClient, notebook: Notebook, folder: Path) -> bool:
    """Say whether launcher and proxy, as they would be deployed now, reach a notebook and are let in by it."""
    watching = load_trust(ssm, PREFIX, signs=False)
    proxy = read_pair(ssm, f"{PREFIX}/proxy-client", Leaf)
    found = {shakes_hands(notebook, watching.notebook_ca, client, folder) for client in (watching.probe, proxy)}
    assert len(found) == 1
    return found.pop()


def shakes_hands(notebook: Notebook, trusted: Pair, client: Leaf, folder: Path) -> bool:
    server, visitor = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context, own in ((server, notebook.leaf), (visitor, client)):
        (folder / "own.pem").write_bytes(own.certificate + own.key)
        context.load_cert_chain(folder / "own.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=notebook.client_ca.decode())
    visitor.load_verify_locations(cadata=trusted.certificate.decode())
    to_server, to_visitor = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        visitor.wrap_bio(to_visitor, to_server, server_hostname=notebook_name(HOST)),
        server.wrap_bio(to_server, to_visitor, server_side=True),
    ]
    try:
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        ends[1].write(b"x")  # under TLS 1.3 the server's refusal comes after the client's handshake
        return ends[0].read(1) == b"x"
    except ssl.SSLError:
        return False


@pytest.mark.parametrize("ca", ["notebook", "client"])
def test_a_rotation_cuts_no_notebook_off_and_ends_with_one_ca_that_is_new(
    ssm: SSMClient, ca: str, tmp_path: Path
) -> None:
    before = launched(ssm)
    running = [before]
    for step, waits in (("begin", False), ("switch", ca == "client"), ("end", ca == "notebook")):
        now = time.time() + LONGEST + DEPLOYING + 60 if waits else None
        if waits:
            with pytest.raises(BadConfiguration, match="would be cut off by STEP"):
                rotation(ssm, ca).take(step)
            running = running[-1:]  # those of before the last step have ended by then
        for _ in range(2):  # a step may be repeated
            rotation(ssm, ca, now).take(step)
            assert all(reaches(ssm, notebook, tmp_path) for notebook in running)
        running.append(launched(ssm))
        assert reaches(ssm, running[-1], tmp_path)
    assert not reaches(ssm, before, tmp_path)
    assert read_pair(ssm, f"{PREFIX}/client-ca", Pair, with_key=False).certificate.count(b"BEGIN CERTIFICATE") == 1
    names = {found["Name"] for found in ssm.describe_parameters()["Parameters"]}
    assert not any(name.endswith("-next") for name in names)
    assert ensure_certificates(ssm, prefix=PREFIX, key_id="alias/homeport-test", now=time.time()) == ()


@pytest.mark.parametrize("ca", ["notebook", "client"])
def test_a_rotation_may_be_forced_and_then_cuts_off_what_it_would_have_waited_for(
    ssm: SSMClient, ca: str, tmp_path: Path
) -> None:
    before, asked = launched(ssm), list[Asked]()

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        asked.extend(operator_requests("ssm", model.name, params))

    ssm.meta.events.register("before-parameter-build.ssm", note)
    for step in ("begin", "switch", "end"):
        rotation(ssm, ca).take(step, forced=True)
    ssm.meta.events.unregister("before-parameter-build.ssm", note)
    written = {"ssm:GetParameter", "ssm:PutParameter", "ssm:DeleteParameter"}
    assert {action for action, _, _ in asked} == written | {"kms:Decrypt", "kms:Encrypt"}
    assert list(refused(asked, operator_policy(), operator_policy("operations"))) == []
    assert not reaches(ssm, before, tmp_path)
    assert reaches(ssm, launched(ssm), tmp_path)


@pytest.mark.parametrize("ca", ["notebook", "client"])
def test_a_step_that_is_cut_off_at_any_write_is_completed_by_repeating_it(
    ssm: SSMClient, ca: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("begin", "switch", "end"):
        for allowed in range(3):
            left = iter(range(allowed))

            def refusing(params: object, left: Iterator[int] = left, **_: object) -> None:
                if next(left, None) is None:
                    raise KeyboardInterrupt

            for event in ("PutParameter", "DeleteParameter"):
                ssm.meta.events.register(f"before-call.ssm.{event}", refusing, unique_id=event)
            try:
                rotation(ssm, ca).take(step, forced=True)
            except KeyboardInterrupt:
                pass
            finally:
                for event in ("PutParameter", "DeleteParameter"):
                    ssm.meta.events.unregister(f"before-call.ssm.{event}", unique_id=event)
            assert reaches(ssm, launched(ssm), tmp_path)
        rotation(ssm, ca).take(step, forced=True)
        assert reaches(ssm, launched(ssm), tmp_path)


def test_steps_are_taken_in_their_order(ssm: SSMClient) -> None:
    with pytest.raises(BadConfiguration, match="run STEP=begin"):
        rotation(ssm, "client").take("switch")
    assert "nothing to end" in rotation(ssm, "client").take("end")
    rotation(ssm, "client").take("begin")
    with pytest.raises(BadConfiguration, match="run STEP=switch"):
        rotation(ssm, "client").take("end", forced=True)
    rotation(ssm, "client").take("switch", forced=True)
    with pytest.raises(BadConfiguration, match="run STEP=end"):
        rotation(ssm, "client").take("begin")


def test_the_command_says_what_to_do_next(ssm: SSMClient, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--stage", "test", "--ca", "client", "--step"]
    assert main([*command, "begin"], {}) == 0
    assert "then run STEP=switch, from 20" in capsys.readouterr().out
    assert main([*command, "switch"], {"HOMEPORT_LONGEST_HOURS": "1"}) == 1
    assert "Run it then; or run it now with FORCE=1" in capsys.readouterr().err
    assert main([*command, "switch", "--force"], {}) == 0
    assert main(["--stage", "other", "--ca", "client", "--step", "end"], {}) == 1
    assert "deploy first" in capsys.readouterr().err
