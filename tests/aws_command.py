"""The `aws` command as far as docs/deploy.md needs it: an operation of a service, its parameters, and --query.

Names and parameters are checked against botocore's own models, as the real command does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
import jmespath
from botocore import xform_name

from infra.stack import deploy_stack
from tests.policies import template


def main(arguments: list[str]) -> int:
    """Run the operation; returns the exit status."""
    service, operation, *rest = arguments
    options = _options(rest)
    query, output = options.pop("query", None), options.pop("output", "json")
    client = boto3.client(service)  # type: ignore[call-overload]  # the name is a variable
    if (service, operation) == ("cloudformation", "deploy"):
        answer: Any = _deploy(client, options)
    else:
        answer = _call(client, operation, options)
    answer = jmespath.search(query, answer) if query else answer
    lines = answer if output == "text" and isinstance(answer, list) else [json.dumps(answer, default=str)]
    sys.stdout.write("\t".join(map(str, lines)) + "\n")
    return 0


def _deploy(cloudformation: Any, options: dict[str, str]) -> dict[str, str]:
    """Deploy a stack. What moto's CloudFormation does not know, an API's domain, is made by API Gateway itself."""
    file = Path(options["template-file"])
    parameters = dict(pair.split("=", 1) for pair in options["parameter-overrides"].split())
    declared = template(file.name)["Parameters"]
    assert parameters.keys() <= declared.keys()
    if file.name != "domain.yaml":
        return deploy_stack(
            cloudformation, name=options["stack-name"], template=file.read_text(), parameters=parameters
        )
    api, domain, certificate = (parameters[name] for name in ("RestApiId", "HubDomain", "CertificateArn"))
    apigateway = boto3.client("apigateway")
    apigateway.create_domain_name(domainName=domain, regionalCertificateArn=certificate)
    apigateway.create_base_path_mapping(domainName=domain, restApiId=api, stage="api")
    return {}


def _options(words: list[str]) -> dict[str, str]:
    """--name value … as a mapping; a value may be several words."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            found[word.removeprefix("--")] = []
        else:
            found[list(found)[-1]].append(word)
    return {name: " ".join(values) for name, values in found.items()}


def _call(client: Any, operation: str, options: dict[str, str]) -> Any:
    model = client.meta.service_model
    (name,) = [one for one in model.operation_names if xform_name(one, "-") == operation]
    shape = model.operation_model(name).input_shape
    members = {xform_name(member, "-"): (member, kind.type_name) for member, kind in shape.members.items()}
    given: dict[str, Any] = {}
    for option, text in options.items():
        member, kind = members[option]
        value = Path(text.removeprefix("file://")).read_text() if text.startswith("file://") else text
        if kind == "list":
            given[member] = value.split()
        else:
            given[member] = float(value) if kind in ("double", "float", "integer", "long") else value
    return getattr(client, xform_name(name))(**given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
