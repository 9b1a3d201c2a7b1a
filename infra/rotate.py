"""Replace one of the hub's two CAs without cutting a notebook off: `make rotate STAGE=prod CA=notebook STEP=begin`.

    CA=notebook   signs one certificate for each launch; proxy and launcher verify notebooks with it
    CA=client     signs what proxy and launcher present; notebooks verify them with it

A rotation has three steps, and between them the hub trusts two CAs at once:

    begin    a new CA is made, and trusted beside the old one
    switch   the new one is used
    end      the old one is trusted no more

A notebook keeps what it was launched with. So the new client CA is used only when every notebook that does not trust it
has ended, and the old notebook CA is trusted until every notebook that it signed has. When that is follows from when
SSM says the step before was done, from the longest life of a session, and from a day in which that step has to be
deployed. Before that a step is refused, unless it is forced: then those notebooks are cut off, and have to be launched
again.

Each step may be repeated, and one that was cut off is completed by repeating it. What is made by `begin` waits in
`<prefix>/<CA>-ca-next`, which no function may read. Of what is trusted the newest comes last. No key is read but that
one's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chalicelib.config import Config
from chalicelib.errors import BadConfiguration, HomeportError
from infra.certificates import certificates_of
from infra.project import APP

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

LIFETIMES: Final = ("HOMEPORT_SESSION_HOURS", "HOMEPORT_LONGEST_HOURS")
DEPLOYING: Final = (
    86400.0  # seconds after a step within which it has to be deployed: functions keep what they have read
)
STEPS: Final = ("begin", "switch", "end")


@dataclass(frozen=True, slots=True)
class Kind:
    """A CA: the parameter that says it is trusted, those that are used with it, and the step that notebooks hold up."""

    trusts: str
    used: tuple[str, ...]
    waits_before: str


KINDS: Final[Mapping[str, Kind]] = {
    "notebook": Kind("notebook-ca-certificate", ("notebook-ca",), waits_before="end"),
    "client": Kind("client-ca", ("launcher-client", "proxy-client"), waits_before="switch"),
}


@dataclass(frozen=True, slots=True)
class Rotation:
    """One CA's rotation in one stage. `longest` is how long a notebook may run, in seconds; `now` since the epoch."""

    ssm: SSMClient
    prefix: str
    key_id: str
    name: str
    longest: float
    now: float

    @property
    def _kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def _next(self) -> str:
        return f"{self.name}-ca-next"

    def take(self, step: str, *, forced: bool = False) -> str:
        """Take a step; says what is to be done now. Raises BadConfiguration."""
        trusted, following = self._trusted(), self._read(self._next)
        match step:
            case "begin":
                return self._begin(trusted, following)
            case "switch":
                return self._switch(trusted, following, forced)
            case _:
                return self._end(trusted, following, forced)

    def _begin(self, trusted: list[str], following: str) -> str:
        if not following:
            if len(trusted) > 1:
                raise BadConfiguration(f"The rotation before is not over: run STEP=end for CA={self.name} first")
            following = json.dumps(certificates_of(self.name, self.now))
            self._write(self._next, following)
        new = json.loads(following)["ca"]
        if new not in trusted:
            self._write(self._kind.trusts, _certificates([*trusted, new]))
        return (
            "Both CAs are trusted once this is deployed. Deploy the functions and replace the proxy's tasks today; "
            f"then run STEP=switch{self._when('switch', self.now)}"
        )

    def _switch(self, trusted: list[str], following: str, forced: bool) -> str:
        if not following:
            if len(trusted) == 1:
                raise BadConfiguration(f"There is no new CA: run STEP=begin for CA={self.name} first")
            return f"It is switched already. Run STEP=end{self._when('end', self._changed_at(self._kind.used[0]))}"
        made = json.loads(following)
        if made["ca"] not in trusted:
            raise BadConfiguration(f"The new CA is not trusted yet: run STEP=begin for CA={self.name} again")
        self._await("switch", self._changed_at(self._kind.trusts), forced)
        for name in self._kind.used:
            self._write(name, made[name])
        self.ssm.delete_parameter(Name=f"{self.prefix}/{self._next}")
        return (
            "The new CA is used once this is deployed. Deploy the functions and replace the proxy's tasks today, "
            f"then run STEP=end{self._when('end', self.now)}"
        )

    def _end(self, trusted: list[str], following: str, forced: bool) -> str:
        if following:
            raise BadConfiguration(f"The new CA is not used yet: run STEP=switch for CA={self.name} first")
        if len(trusted) == 1:
            return "One CA is trusted. There is nothing to end"
        self._await("end", self._changed_at(self._kind.used[0]), forced)
        self._write(self._kind.trusts, _certificates(trusted[-1:]))
        return (
            "The old CA is trusted no more once this is deployed. Deploy the functions, and replace the proxy's tasks"
        )

    def _await(self, step: str, since: float, forced: bool) -> None:
        """See that no notebook is cut off by a step; raises BadConfiguration."""
        until = since + self.longest + DEPLOYING
        if self._kind.waits_before == step and self.now < until and not forced:
            raise BadConfiguration(
                f"Notebooks of before the last step, which was at {_moment(since)}, may run until {_moment(until)}, "
                f"and would be cut off by STEP={step}. Run it then; or run it now with FORCE=1, and have them launched "
                "again"
            )

    def _when(self, step: str, since: float) -> str:
        return f", from {_moment(since + self.longest + DEPLOYING)} on" if self._kind.waits_before == step else ""

    def _trusted(self) -> list[str]:
        text = self._read(self._kind.trusts)
        if not text:
            raise BadConfiguration(f"The hub's parameter {self.prefix}/{self._kind.trusts} is missing: deploy first")
        certificates = x509.load_pem_x509_certificates(json.loads(text)["certificate"].encode())
        return [_pem(certificate) for certificate in certificates]

    def _read(self, name: str) -> str:
        """A parameter's value, "" if it is not there."""
        try:
            found = self.ssm.get_parameter(Name=f"{self.prefix}/{name}", WithDecryption=True)
        except self.ssm.exceptions.ParameterNotFound:
            return ""
        return str(found["Parameter"]["Value"])

    def _changed_at(self, name: str) -> float:
        found = self.ssm.get_parameter(Name=f"{self.prefix}/{name}", WithDecryption=False)
        return found["Parameter"]["LastModifiedDate"].timestamp()

    def _write(self, name: str, value: str) -> None:
        path = f"{self.prefix}/{name}"
        self.ssm.put_parameter(Name=path, Value=value, Type="SecureString", KeyId=self.key_id, Overwrite=True)


def _certificates(certificates: list[str]) -> str:
    return json.dumps({"certificate": "".join(certificates)})


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.rotate", description="Replace one of the hub's CAs.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    parser.add_argument("--ca", required=True, choices=sorted(KINDS))
    parser.add_argument("--step", required=True, choices=STEPS)
    parser.add_argument("--force", action="store_true", help="cut off the notebooks that the step would wait for")
    asked = parser.parse_args(arguments)
    try:
        longest = Config.from_environ({name: environ[name] for name in LIFETIMES if name in environ}).longest_lifetime
        prefix, key = f"/{APP}/{asked.stage}", f"alias/{APP}-{asked.stage}"
        rotation = Rotation(boto3.Session().client("ssm"), prefix, key, asked.ca, longest, time.time())
        print(rotation.take(asked.step, forced=asked.force))
    except HomeportError as error:
        print(f"Not done. {error.message}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"Not done. AWS said: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
