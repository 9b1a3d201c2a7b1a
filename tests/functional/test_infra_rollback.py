"""`make rollback` against moto's server: what is kept, and that every function goes back to it."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest
from moto.awslambda.models import lambda_backends

from chalicelib.config import VERSION
from chalicelib.errors import BadConfiguration
from infra.project import POLICIES, function_name
from infra.rollback import KEPT, Artefact, artefacts, choose, commit_of, keep
from tests.deployment import Rig, rig
from tests.operator_calls import not_allowed
from tests.policies import OUTPUTS, REGION, allows, function_policy, template

FUNCTIONS = [function_name("test", function) for function in POLICIES]

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A stage that was deployed, changed, and deployed again."""
    with rig(tmp_path_factory.mktemp("rollback")) as started:
        for number in ("1", "2"):
            (started.project / "chalicelib" / "number.py").write_text(f"NUMBER = {number}\n")
            done = started.deploy()
            assert done.returncode == 0, done.stdout + done.stderr
            started.said += done.stdout
        yield started


def code(hub: Rig, function: str) -> bytes:
    account = hub.client("sts").get_caller_identity()["Account"]
    return bytes(lambda_backends[account][REGION].get_function(function).code_bytes)


def numbers(hub: Rig) -> set[str]:
    """What the functions' code says of itself."""
    found = set()
    for function in FUNCTIONS:
        with ZipFile(io.BytesIO(code(hub, function))) as archive:
            found.add(archive.read("chalicelib/number.py").decode().split()[-1])
    return found


def kept(hub: Rig) -> list[Artefact]:
    return artefacts(hub.client("s3"), hub.outputs()["Bucket"])


def test_what_was_deployed_is_kept_under_the_hash_of_its_content(hub: Rig) -> None:
    newest, oldest = kept(hub)
    assert newest.hash == sha256(code(hub, "homeport-test")).hexdigest()
    assert newest.deployed_at > oldest.deployed_at
    assert newest.version == VERSION
    assert set(newest.environment) == set(hub.variables("homeport-test"))
    assert all(f"Kept for `make rollback`: {one.hash[:16]}" in hub.said for one in (newest, oldest))
    s3, bucket = hub.client("s3"), hub.outputs()["Bucket"]
    for name in (f"artefacts/{newest.hash}.zip", f"artefacts/{newest.hash}.json"):
        assert s3.head_object(Bucket=bucket, Key=name)["ServerSideEncryption"] == "AES256"
    text = s3.get_object(Bucket=bucket, Key=f"artefacts/{newest.hash}.json")["Body"].read().decode()
    assert not [value for value in hub.variables("homeport-test").values() if len(value) > 8 and value in text]


def test_all_functions_go_back_and_forth_again_also_after_a_failure(hub: Rig) -> None:
    newest, oldest = kept(hub)
    listed = hub.make("rollback")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[:2] == [f"{newest}  (deployed)", str(oldest)]
    assert numbers(hub) == {"2"}
    hub.gateway.calls.clear()
    hub.gateway.refused = "PUT /2015-03-31/functions/homeport-test-leave/code"
    failed = hub.make("rollback", "--to", oldest.hash)
    hub.gateway.refused = ""
    assert failed.returncode == 1
    assert "Run the same command again" in failed.stderr
    assert numbers(hub) == {"1", "2"}
    assert "  (homeport-test" in hub.make("rollback").stdout
    done = hub.make("rollback", "--to", oldest.hash[:8])
    assert done.returncode == 0, done.stderr
    assert numbers(hub) == {"1"}
    assert done.stdout.count(f"has the code of {oldest.hash[:16]}") + done.stdout.count("has it already") == 6
    assert done.stdout.count("has it already") == failed.stdout.count("has the code of") > 0
    assert "Not rolled back: the stack" in done.stdout
    assert not_allowed(hub.gateway.calls) == set()
    again = hub.make("rollback", "--to", oldest.hash)
    assert (again.returncode, again.stdout.count("has it already")) == (0, 6)
    assert hub.make("rollback", "--to", newest.hash).returncode == 0
    assert numbers(hub) == {"2"}


def test_an_environment_that_is_not_that_of_then_is_said(hub: Rig) -> None:
    newest, _ = kept(hub)
    variables = dict(hub.variables("homeport-test"))
    changed = {name: value for name, value in variables.items() if name != "HOMEPORT_IMAGE"}
    lambda_ = hub.client("lambda")
    for told in ({**changed, "HOMEPORT_IDLE_MINUTES": "30"}, variables):
        lambda_.update_function_configuration(FunctionName="homeport-test", Environment={"Variables": told})
        done = hub.make("rollback", "--to", newest.hash)
        differs = "no more: HOMEPORT_IMAGE; only now: HOMEPORT_IDLE_MINUTES" in done.stdout
        assert differs is (told is not variables)


def test_a_zip_that_somebody_replaced_reaches_no_function(hub: Rig) -> None:
    _, oldest = kept(hub)
    s3, bucket, key = hub.client("s3"), hub.outputs()["Bucket"], f"artefacts/{oldest.hash}.zip"
    deployed = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=b"hostile")
    refused = hub.make("rollback", "--to", oldest.hash)
    s3.put_object(Bucket=bucket, Key=key, Body=deployed)
    assert refused.returncode == 1
    assert "somebody replaced it" in refused.stderr
    assert numbers(hub) == {"2"}


def test_a_stage_that_is_not_there_has_nothing_to_go_back_to(hub: Rig) -> None:
    refused = hub.make("rollback", stage="prod")
    assert refused.returncode == 1
    assert "There is no stage prod" in refused.stderr


def test_the_last_five_are_kept_and_nothing_else_is_deleted(hub: Rig, tmp_path: Path) -> None:
    s3, built = hub.client("s3"), tmp_path / "built.zip"
    s3.create_bucket(Bucket="many", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="many", Key="credentials/x", Body=b"sealed")
    for at, number in enumerate((0, 1, 2, 3, 4, 5, 6, 2)):
        built.write_bytes(f"zip {number}".encode())
        keep(s3, "many", built, commit="", environment={"B": "1", "A": "2"}, now=1_800_000_000.0 + at)
    found = artefacts(s3, "many")
    assert [one.hash for one in found] == [sha256(f"zip {number}".encode()).hexdigest() for number in (2, 6, 5, 4, 3)]
    assert len(found) == KEPT
    assert found[0].environment == ("A", "B")
    names = {one["Key"] for one in s3.list_objects_v2(Bucket="many")["Contents"]}
    assert names == {"credentials/x"} | {f"artefacts/{one.hash}.{kind}" for one in found for kind in ("zip", "json")}


@pytest.mark.parametrize(
    ("to", "says"),
    [("abc", "first 8 characters"), ("../../..", "first 8"), ("0" * 8, "Nothing is"), ("a" * 8, "Several are")],
)
def test_what_is_gone_back_to_is_one_that_is_kept(to: str, says: str) -> None:
    several = [Artefact("a" * 10 + end * 54, "2026-11-30T00:00:00+00:00", "1", "", ()) for end in "bc"]
    with pytest.raises(BadConfiguration, match=says):
        choose(several, to)
    assert choose(several, "a" * 10 + "b") == several[0]


def test_the_commit_is_said_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "--quiet"], ["add", "file"], ["commit", "--quiet", "--message", "One"]):
        subprocess.run([*git, *command], check=True)
    commit = commit_of(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == commit + "+"


@pytest.mark.parametrize("policy", sorted(POLICIES.values()))
@pytest.mark.parametrize("action", ["GetObject", "PutObject", "DeleteObject"])
def test_no_function_may_touch_what_is_kept(policy: str, action: str) -> None:
    """Who writes an artefact decides what runs after the next rollback."""
    assert not allows(function_policy(policy), f"s3:{action}", f"{OUTPUTS['BucketArn']}/artefacts/{'0' * 64}.zip")


def test_no_rule_of_the_bucket_lets_them_expire() -> None:
    properties = template("resources.yaml")["Resources"]["Bucket"]["Properties"]
    expiring = [rule for rule in properties["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule]
    assert [rule["Prefix"] for rule in expiring] == ["credentials/"]
