"""Look, before anything is touched, at what a deployment needs: `make preflight STAGE=prod`. `make deploy` begins so.

It asks AWS and changes nothing there. What is WRONG stops a deployment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.config import FUNCTIONS, Config
from chalicelib.errors import BadConfiguration, HomeportError
from chalicelib.session.lanes import Lane
from infra.domains import look_at_domains
from infra.findings import Finding
from infra.images import Docker
from infra.packages import PYTHON
from infra.proxy_step import ProxyOptions, check_proxy
from infra.quota import LEAST_UNRESERVED, Quota, fit, read_quota, reserved_for_leaving
from infra.request import Request, read_request

OPERATOR_POLICY: Final = Path(__file__).with_name("operator-policy.json")
PROXY_POLICY: Final = Path(__file__).with_name("operator-policy-proxy.json")
MORE_FUNCTIONS: Final = (
    "Ask AWS for more; it costs nothing and takes a day or two: aws service-quotas request-service-quota-increase "
    "--service-code lambda --quota-code L-B99A9384 --desired-value 1000"
)
ACTIONS_AT_ONCE: Final = 100  # of SimulatePrincipalPolicy


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found, the functions' options as they fit the account, and what is reserved of its functions."""

    findings: tuple[Finding, ...]
    options: Mapping[str, str]
    reserved: Mapping[str, int]

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """What stops a deployment."""
        return tuple(finding for finding in self.findings if finding.good is False)


def preflight(request: Request, session: boto3.Session, proxy: Callable[[], str] | None = None) -> Preflight:
    """Look at all of it; raises BadConfiguration without credentials or a region, and botocore's errors.

    `proxy` is called for the platform that the proxy will run on, and raises BadConfiguration for what cannot work;
    None: no proxy is deployed.
    """
    place = where(session)
    quota = read_quota(session.client("lambda"), request.stage)
    known = quota if isinstance(quota, Quota) else None
    options = fit(request.options, known)
    findings = (
        place,
        _python(),
        *_functions(quota, request, options),
        *_permissions(session, request, with_proxy=proxy is not None),
        *look_at_domains(request),
        *_certificates(session.client("acm"), request, with_proxy=proxy is not None),
        *([] if proxy is None else [_proxy(proxy)]),
    )
    return Preflight(findings, options, reserved_for_leaving(options, known))


def where(session: boto3.Session) -> Finding:
    """Say the account and region, which also proves that there are credentials; raises BadConfiguration."""
    if not session.region_name:
        raise BadConfiguration("No AWS region. Set AWS_DEFAULT_REGION, or a region in the profile named by AWS_PROFILE")
    if session.get_credentials() is None:
        raise BadConfiguration("No AWS credentials. Run `aws configure`, or set AWS_PROFILE or AWS_ACCESS_KEY_ID")
    known = session.get_available_regions("lambda", session.get_partition_for_region(session.region_name))
    if session.region_name not in known:
        raise BadConfiguration(
            f"AWS Lambda has no region {session.region_name}, as far as this version of boto3 knows. Is "
            "AWS_DEFAULT_REGION misspelled?"
        )
    account = session.client("sts").get_caller_identity()["Account"]
    return Finding(True, f"account {account}, region {session.region_name}")


def _python() -> Finding:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Finding(True, f"the functions are built for Python {PYTHON} on Amazon Linux 2023; this is Python {here}")


def _functions(quota: Quota | str, request: Request, options: Mapping[str, str]) -> Iterator[Finding]:
    """What the account's concurrent functions allow."""
    if not isinstance(quota, Quota):
        what = f"the account's quota of concurrent functions cannot be read ({quota}): none are reserved"
        yield Finding(None, what, "The lanes get HOMEPORT_FUNCTIONS; set it to 80 percent of the quota at most.")
        return
    config = Config.from_environ(options)
    if config.functions > quota.free:
        what = f"HOMEPORT_FUNCTIONS is {config.functions}, and the account has {quota.free} that are not reserved"
        yield Finding(None, f"{what}: pages fail while launches use them up", MORE_FUNCTIONS)
    elif quota.free < LEAST_UNRESERVED:
        each = ", ".join(f"{lane} {config.functions_of(lane)}" for lane in Lane)
        new = " (a new account's quota)" if quota.in_all <= 10 else ""
        what = (
            f"the account may have {quota.in_all} functions at work at once{new}, {quota.free} of them not reserved: "
            f"the lanes share {config.functions} ({each}), and the pages have what is left. That is enough to try the "
            f"hub out: {config.pull_quota.in_all} pull at once, and a workshop would wait"
        )
        yield Finding(None, what, f"{MORE_FUNCTIONS}; then deploy again")
    else:
        yield Finding(True, f"{config.functions} of the account's {quota.in_all} concurrent functions are the lanes'")
    if not reserved_for_leaving(options, quota) and quota.free >= LEAST_UNRESERVED:
        wanted = config.functions_of(Lane.LEAVE) + LEAST_UNRESERVED
        what = (
            f"no functions are reserved for deleting credentials: the account has {quota.free} that are not reserved, "
            f"and {wanted} are needed for that. Under full load they are deleted late"
        )
        yield Finding(None, what, f"{MORE_FUNCTIONS}; or lower {FUNCTIONS.name}")


def _permissions(session: boto3.Session, request: Request, *, with_proxy: bool) -> Iterator[Finding]:
    """Whether who deploys may do all of it, if IAM says."""
    caller = session.client("sts").get_caller_identity()["Arn"]
    if caller.endswith(":root"):
        mend = "Make a user or a role with infra/operator-policy.json, and deploy as that."
        yield Finding(None, "these are the credentials of the account's root user, who may do everything", mend)
        return
    try:
        wanted = _wanted_statements(session, request, with_proxy=with_proxy)
        results = list(
            _simulated(session.client("iam"), principal_of(caller), session.region_name or "", request.stage, wanted)
        )
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        what = f"whether {caller} may do all that a deployment does is unknown: IAM does not say ({code})"
        yield Finding(None, what, "infra/operator-policy.json has what it needs; with it, this can be asked, too.")
        return
    mend = (
        "infra/operator-policy.json has what a deployment needs, -proxy.json what proxy and network do: docs/deploy.md."
    )
    refused = sorted(action for action, allowed in results if allowed is False)
    unknown = sorted(action for action, allowed in results if allowed is None)
    if refused:
        yield Finding(False, f"{caller} may not: {', '.join(refused)}", mend)
    if unknown:
        what = (
            f"conditions of a policy decide whether {caller} may: {', '.join(unknown)}; IAM's simulation does not know"
        )
        yield Finding(None, what, mend)
    if not refused and not unknown:
        yield Finding(True, f"{caller} may do what a deployment does ({len(results)} actions)")


def operator_actions() -> tuple[str, ...]:
    """The actions of infra/operator-policy.json."""
    return tuple(action for statement in _statements(OPERATOR_POLICY) for action in statement["Action"])


def principal_of(arn: str) -> str:
    """The user or role whose policies are asked about; of an assumed role, the role."""
    parts = arn.split(":", 5)
    kind, _, name = parts[5].partition("/")
    if kind != "assumed-role":
        return arn
    return f"{':'.join(parts[:2])}:iam::{parts[4]}:role/{name.partition('/')[0]}"


def _wanted_statements(session: boto3.Session, request: Request, *, with_proxy: bool) -> list[dict[str, Any]]:
    """What of the operator's policies this deployment needs."""
    wanted, of_proxy = _statements(OPERATOR_POLICY), _statements(PROXY_POLICY)
    if with_proxy:
        return wanted + of_proxy
    if request.network.subnets or request.network.addresses(session.client("cloudformation"), request.stage):
        return wanted + [one for one in of_proxy if one["Sid"] == "Network"]
    return wanted


def _simulated(
    iam: Any, principal: str, region: str, stage: str, statements: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, bool | None]]:
    """The actions of an operator's policies, and whether the principal's own allow them on the stage's own things.

    None: a condition decides that asks for what the simulation does not know, such as the region of a request.
    """
    for statement in statements:
        resources = [_own(pattern, principal, region, stage) for pattern in _listed(statement["Resource"])]
        told = _context(statement)
        for start in range(0, len(statement["Action"]), ACTIONS_AT_ONCE):
            actions = statement["Action"][start : start + ACTIONS_AT_ONCE]
            answer = iam.simulate_principal_policy(
                PolicySourceArn=principal, ActionNames=actions, ResourceArns=resources, ContextEntries=told
            )
            for result in answer["EvaluationResults"]:
                each = [one["EvalResourceDecision"] for one in result.get("ResourceSpecificResults", [])]
                allowed = {result["EvalDecision"], *each} == {"allowed"}
                yield result["EvalActionName"], allowed or (None if result.get("MissingContextValues") else False)


def _context(statement: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a statement's own condition asks for: the first of the values that it allows."""
    equal = statement.get("Condition", {}).get("StringEquals", {})
    return [
        {"ContextKeyName": key, "ContextKeyValues": _listed(values)[:1], "ContextKeyType": "string"}
        for key, values in equal.items()
    ]


def _own(pattern: str, principal: str, region: str, stage: str) -> str:
    """An ARN of the stage that a pattern of the policy stands for; "*" stays."""
    if pattern == "*":
        return pattern
    _, _, service, _, account, name = pattern.split(":", 5)
    whose = principal.split(":")
    account = whose[4] if account else ""
    return ":".join(
        ["arn", whose[1], service, region if pattern.split(":")[3] else "", account, name.replace("*", stage)]
    )


def _statements(policy: Path) -> list[dict[str, Any]]:
    return list(json.loads(policy.read_text())["Statement"])


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _certificates(acm: Any, request: Request, *, with_proxy: bool) -> Iterator[Finding]:
    """Whether ACM has a certificate for each domain that needs one of the operator's."""
    wanted = {}
    if not with_proxy:  # else there is one, or one is requested
        wanted[f"*.{request.notebook_domain}"] = "a proxy on Fargate needs, unless HOMEPORT_PROXY_ZONE is set"
    if request.hub_domain:
        wanted[request.hub_domain] = "the hub will need before visitors come"
    try:
        pages = acm.get_paginator("list_certificates").paginate(CertificateStatuses=["ISSUED"])
        covered = [name for page in pages for found in page["CertificateSummaryList"] for name in _names(found)]
    except ClientError as error:
        yield Finding(
            None, f"ACM's certificates cannot be listed ({error.response['Error']['Code']})", "Look yourself."
        )
        return
    for name, whose in wanted.items():
        if any(covers(pattern, name) for pattern in covered):
            yield Finding(True, f"ACM has a certificate for {name}")
        else:
            what = f"ACM has no certificate for {name} in this region, which {whose}"
            mend = f"aws acm request-certificate --domain-name '{name}' --validation-method DNS"
            yield Finding(None, what, mend)


def _names(summary: Mapping[str, Any]) -> list[str]:
    return [summary["DomainName"], *summary.get("SubjectAlternativeNameSummaries", [])]


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name is, or stands for, a host or a wildcard; a wildcard is one label."""
    if pattern == name:
        return True
    return pattern.startswith("*.") and not name.startswith("*.") and pattern[1:] == name[name.find(".") :]


def _proxy(platform: Callable[[], str]) -> Finding:
    try:
        return Finding(True, f"the proxy can be deployed, for {platform()}")
    except BadConfiguration as error:
        return Finding(False, error.message, "docs/deploy-proxy.md has the options.")


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Print what was found; the exit status is 1 if something is wrong, 2 if nothing could be looked at."""
    parser = argparse.ArgumentParser(prog="python -m infra.preflight", description="Look before a deployment.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    try:
        request = read_request(parser.parse_args(arguments).stage, environ)
        proxy, docker = ProxyOptions.from_environ(environ), Docker(dict(environ))
        found = preflight(
            request, boto3.Session(), partial(check_proxy, request, proxy, docker) if proxy.where else None
        )
    except HomeportError as error:
        print(f"Not looked at. {error.message}", file=sys.stderr)
        return 2
    except (BotoCoreError, ClientError) as error:
        print(f"Not looked at. AWS said: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, found.findings)))
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
