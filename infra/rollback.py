"""What was deployed is kept, and deployed again: `make rollback STAGE=prod` lists it, `TO=<hash>` goes back to one.

In the stage's bucket:

    artefacts/<hash>.zip    the functions' code as Chalice built it, by the SHA-256 of its content
    artefacts/<hash>.json   version, Git commit, time, names of the environment

`make deploy` keeps the last five. They are encrypted by S3's own key and not by the stage's, whose policy lets nobody
but the launcher's functions decrypt: who deploys could not read them back. No function's role may read or write them.

Chalice wires everything to the functions without a version, so their code is all that is replaced. What is not: the
stack, the functions' settings and environment, and the items in the table (docs/adr/0017).
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from chalicelib.config import VERSION
from chalicelib.errors import BadConfiguration, HomeportError
from infra.findings import AGAIN
from infra.preflight import where
from infra.project import APP, POLICIES, function_name
from infra.request import check_stage
from infra.stack import stack_outputs

FOLDER: Final = "artefacts/"
KEPT: Final = 5
SHORTEST: Final = 8  # characters of a hash that name an artefact
NOT_ROLLED_BACK: Final = (
    "Not rolled back: the stack, the functions' settings and environment, the proxy, and what is in the table. "
    'What an older version makes of newer items: docs/operations.md, "Going back".'
)


@dataclass(frozen=True, slots=True)
class Artefact:
    """What was deployed: the hash of its zip, when (ISO 8601, UTC), the version, the Git commit ("": none is known).

    `environment` are the names of what the functions were told.
    """

    hash: str
    deployed_at: str
    version: str
    commit: str
    environment: tuple[str, ...]

    def __str__(self) -> str:
        commit = f", commit {self.commit[:12]}" if self.commit else ""
        return f"{self.hash[:16]}  {self.deployed_at}  version {self.version}{commit}"


def built_zip(project: Path) -> Path:
    """The zip that Chalice has built and deployed in a project; all functions have the same."""
    (built,) = (project / ".chalice" / "deployments").glob("*.zip")
    return built


def commit_of(folder: Path) -> str:
    """The Git commit of a checkout, with a `+` if it was changed; "" if it is none, or Git is not there."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + "+" * bool(changed)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def keep(s3: Any, bucket: str, built: Path, *, commit: str, environment: Mapping[str, str], now: float) -> Artefact:
    """Keep what was deployed, and forget all but the last five; `now` in epoch seconds. Raises botocore's errors."""
    code = built.read_bytes()
    when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    kept = Artefact(sha256(code).hexdigest(), when, VERSION, commit, tuple(sorted(environment)))
    _put(s3, bucket, f"{kept.hash}.zip", code)
    _put(s3, bucket, f"{kept.hash}.json", json.dumps(asdict(kept), indent=2).encode())
    for old in artefacts(s3, bucket)[KEPT:]:
        for name in (f"{old.hash}.json", f"{old.hash}.zip"):
            s3.delete_object(Bucket=bucket, Key=FOLDER + name)
    return kept


def _put(s3: Any, bucket: str, name: str, body: bytes) -> None:
    s3.put_object(Bucket=bucket, Key=FOLDER + name, Body=body, ServerSideEncryption="AES256")


def artefacts(s3: Any, bucket: str) -> list[Artefact]:
    """What is kept, the latest first."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=FOLDER)
    keys = [one["Key"] for page in pages for one in page.get("Contents", []) if one["Key"].endswith(".json")]
    found = [_read(s3, bucket, key) for key in keys]
    return sorted(found, key=lambda one: one.deployed_at, reverse=True)


def _read(s3: Any, bucket: str, key: str) -> Artefact:
    said = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    return Artefact(**{**said, "environment": tuple(said["environment"])})


def choose(kept: list[Artefact], to: str) -> Artefact:
    """The artefact whose hash begins with `to`; raises BadConfiguration if it is none, or several."""
    if len(to) < SHORTEST or not re.fullmatch("[0-9a-f]+", to):
        raise BadConfiguration(f"TO is the first {SHORTEST} characters or more of a hash that `make rollback` lists")
    found = [one for one in kept if one.hash.startswith(to)]
    if len(found) != 1:
        raise BadConfiguration(f"{'Several are' if found else 'Nothing is'} kept that begins with {to}")
    return found[0]


def verify(s3: Any, bucket: str, chosen: Artefact) -> None:
    """See that a zip is what its name says, before a function has it; raises BadConfiguration."""
    key = f"{FOLDER}{chosen.hash}.zip"
    if sha256(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest() != chosen.hash:
        raise BadConfiguration(f"{key} in the bucket {bucket} is not what was deployed: somebody replaced it")


def roll_back(lambda_: Any, stage: str, bucket: str, to: Artefact) -> Iterator[str]:
    """Give all functions the code of an artefact, and say so one by one; a function that has it is passed over.

    Raises BadConfiguration when a function does not get the code that the hash says, and botocore's errors.
    """
    wanted = code_hash(to)
    for function in POLICIES:
        name = function_name(stage, function)
        if lambda_.get_function_configuration(FunctionName=name)["CodeSha256"] == wanted:
            yield f"{name} has it already"
            continue
        lambda_.update_function_code(FunctionName=name, S3Bucket=bucket, S3Key=f"{FOLDER}{to.hash}.zip")
        lambda_.get_waiter("function_updated_v2").wait(FunctionName=name)
        if lambda_.get_function_configuration(FunctionName=name)["CodeSha256"] != wanted:
            raise BadConfiguration(f"{name} has other code than {to.hash}: somebody replaced it in the bucket")
        yield f"{name} has the code of {to.hash[:16]}"


def code_hash(artefact: Artefact) -> str:
    """The hash as Lambda tells it of a function's code."""
    return base64.b64encode(bytes.fromhex(artefact.hash)).decode()


def differences(lambda_: Any, stage: str, to: Artefact) -> str:
    """What the functions are told now and were not then, or the other way round, by name; "" if nothing."""
    name = function_name(stage, next(iter(POLICIES)))
    told = lambda_.get_function_configuration(FunctionName=name).get("Environment", {}).get("Variables", {})
    now, then = set(told), set(to.environment)
    parts = [("no more", then - now), ("only now", now - then)]
    return "; ".join(f"{how}: {', '.join(sorted(names))}" for how, names in parts if names)


def listing(lambda_: Any, stage: str, kept: list[Artefact]) -> Iterator[str]:
    """What is kept, one a line, and which of it the functions have."""
    current: dict[str, list[str]] = {}
    for function in POLICIES:
        name = function_name(stage, function)
        try:
            current.setdefault(lambda_.get_function_configuration(FunctionName=name)["CodeSha256"], []).append(name)
        except lambda_.exceptions.ResourceNotFoundException:
            continue
    for one in kept:
        having = current.pop(code_hash(one), [])
        mark = "" if not having else "  (deployed)" if len(having) == len(POLICIES) else f"  ({', '.join(having)})"
        yield f"{one}{mark}"
    if current:
        yield f"Not kept is the code of {', '.join(name for names in current.values() for name in names)}"


def rollback(session: boto3.Session, stage: str, to: str) -> Iterator[str]:
    """List what is kept, or, with the beginning of a hash, go back to it; yields what to say.

    Raises HomeportError and botocore's errors.
    """
    where(session)
    outputs = stack_outputs(session.client("cloudformation"), f"{APP}-{stage}")
    if outputs is None:
        raise BadConfiguration(f"There is no stage {stage} in this account and region")
    lambda_ = session.client("lambda")
    kept = artefacts(session.client("s3"), outputs["Bucket"])
    if not to:
        yield from listing(lambda_, stage, kept)
        yield f"Go back: make rollback STAGE={stage} TO=<hash>" if kept else "Nothing is kept: `make deploy` does that"
        return
    chosen = choose(kept, to)
    verify(session.client("s3"), outputs["Bucket"], chosen)
    yield from roll_back(lambda_, stage, outputs["Bucket"], chosen)
    if differs := differences(lambda_, stage, chosen):
        yield f"The functions' environment is not that of then; {differs}"
    yield NOT_ROLLED_BACK


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.rollback", description="Deploy again what was deployed.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    parser.add_argument("--to", default="", metavar="HASH", help="go back to it; without, what is kept is listed")
    asked = parser.parse_args(arguments)
    try:
        for line in rollback(boto3.Session(), check_stage(asked.stage), asked.to):
            print(line, flush=True)
    except HomeportError as error:
        print(f"Not rolled back. {error.message}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError, WaiterError) as error:
        print(f"Not rolled back. AWS said: {error}\n{AGAIN}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
