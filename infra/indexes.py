"""The table's indexes, changed one at a time: CloudFormation makes or removes one of them in an update.

    before the functions   what the template has more is made, one index after the other, each backfilled before the
                           next; what it has no more is kept, since the functions that run read it
    after the functions    what the template has no more is removed, one after the other, once no function's role may
                           read it

An index whose definition changed under its name would be gone while it is made anew: it is refused before anything is
changed. What is deployed is read from the stack's own template, as CloudFormation compares templates and not tables.
An update that makes or removes an index changes nothing else, and is waited for here: CloudFormation does not wait, and
leaves an index in the table when it undoes the update that made it.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-dynamodb-table.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import boto3
from chalice.package import YAMLTemplateSerializer

from chalicelib.errors import BadConfiguration
from infra.project import APP, POLICIES, role_name
from infra.roles import read_role
from infra.stack import deploy_stack, deployed_template, stack_outputs

TABLE: Final = "Table"  # the logical name in infra/resources.yaml
POLL: Final = 10.0  # seconds between looks at an index that is being made
PATIENCE: Final = 6 * 3600.0  # seconds: tables of hundreds of gigabytes are backfilled in hours
Template = Mapping[str, Any]
Indexes = Mapping[str, Mapping[str, Any]]  # by name


def load_template(text: str) -> Template:
    """Read a template, YAML or JSON."""
    return dict(json.loads(text) if text.startswith("{") else YAMLTemplateSerializer().load_template(text))


def indexes(template: Template) -> Indexes:
    """The table's indexes by name, as the template has them."""
    return {one["IndexName"]: one for one in _properties(template).get("GlobalSecondaryIndexes", [])}


def _properties(template: Template) -> Mapping[str, Any]:
    return dict(template["Resources"][TABLE]["Properties"])


def _types(template: Template) -> dict[str, str]:
    found = _properties(template)["AttributeDefinitions"]
    return {one["AttributeName"]: one["AttributeType"] for one in found}


def check_changes(deployed: Template, wanted: Template) -> None:
    """See that no index of a name has become another; raises BadConfiguration."""
    then, now = indexes(deployed), indexes(wanted)
    changed = [name for name in now if name in then and _definition(now[name]) != _definition(then[name])]
    if changed:
        raise BadConfiguration(
            f"Nothing was changed in AWS. The table's index {', '.join(changed)} is deployed with another definition, "
            "and DynamoDB cannot change one. Give the new one a name of its own in infra/resources.yaml"
        )
    types = _types(wanted)
    retyped = [name for name, kind in _types(deployed).items() if types.get(name, kind) != kind]
    if retyped:
        raise BadConfiguration(
            f"Nothing was changed in AWS. The table's key {', '.join(retyped)} is deployed with another type. Give the "
            "new one a name of its own in infra/resources.yaml"
        )


def _definition(index: Mapping[str, Any]) -> tuple[Any, str, list[str]]:
    projection = index["Projection"]
    return index["KeySchema"], projection["ProjectionType"], sorted(projection.get("NonKeyAttributes", []))


def with_indexes(base: Template, other: Template, names: Collection[str]) -> Template:
    """The template `base`, its table with the indexes of these names, which are in `base` or in `other`.

    The table's attributes are those that its keys and these indexes need, as DynamoDB asks for.
    """
    known = {**indexes(base), **{name: one for name, one in indexes(other).items() if name not in indexes(base)}}
    chosen = [one for name, one in known.items() if name in names]
    properties = {**_properties(base), "GlobalSecondaryIndexes": chosen}
    keys = {key["AttributeName"] for one in (properties, *chosen) for key in one["KeySchema"]}
    types = {**_types(base), **_types(other)}
    properties["AttributeDefinitions"] = [
        {"AttributeName": name, "AttributeType": kind} for name, kind in types.items() if name in keys
    ]
    table = {**base["Resources"][TABLE], "Properties": properties}
    return {**base, "Resources": {**base["Resources"], TABLE: table}}


class Table:
    """The table of a stage's stack, and how its indexes are changed; `say` is told, `sleep` takes seconds."""

    def __init__(
        self, session: boto3.Session, stage: str, say: Callable[[str], None], sleep: Callable[[float], None]
    ) -> None:
        self._cloudformation = session.client("cloudformation")
        self._dynamodb: Any = session.client("dynamodb")
        self._iam = session.client("iam")
        self._stage = stage
        self._stack = f"{APP}-{stage}"
        self._say = say
        self._sleep = sleep

    def deploy(self, template: str, parameters: Mapping[str, str]) -> dict[str, str]:
        """Create or update the stack with all indexes that the template has and those that it has no more.

        Returns the stack's outputs. Raises BadConfiguration, before anything is changed, if an index has changed.
        """
        deployed, wanted = self._deployed(), load_template(template)
        if deployed is None:
            return self._update(template, parameters)
        check_changes(deployed, wanted)
        then, now = indexes(deployed), indexes(wanted)
        self._wait()
        self._refuse_strays(now.keys() - then.keys())
        present = set(then)
        for name in [one for one in now if one not in then]:
            present.add(name)
            self._change(with_indexes(deployed, wanted, present), f"The table's index {name} is being made")
        whole = template if present == now.keys() else json.dumps(with_indexes(wanted, deployed, present))
        return self._update(whole, parameters)

    def remove_unread(self, template: str) -> None:
        """Remove the indexes that the template has no more and no function may read; say which others are kept."""
        deployed, now = self._deployed(), indexes(load_template(template))
        gone = [] if deployed is None else [name for name in indexes(deployed) if name not in now]
        if deployed is None or not gone:
            return
        read = self._read_by_functions(gone)
        present = set(indexes(deployed))
        self._wait()
        for name in [one for one in gone if one not in read]:
            present.remove(name)
            self._change(with_indexes(deployed, deployed, present), f"The table's index {name} is being removed")
        if read:
            self._say(
                f"Kept, since the functions that are deployed may read it: the table's index {', '.join(read)}. Once "
                f"newer ones are deployed, `make api STAGE={self._stage}` or `make resources STAGE={self._stage}` "
                "removes it"
            )

    def _deployed(self) -> Template | None:
        text = deployed_template(self._cloudformation, self._stack)
        return None if text is None else load_template(text)

    def _change(self, template: Template, what: str) -> None:
        """Update the stack by one index, and wait until DynamoDB has done so, which CloudFormation does not."""
        self._say(what)
        self._update(json.dumps(template), {})
        self._wait()

    def _update(self, template: str, parameters: Mapping[str, str]) -> dict[str, str]:
        return deploy_stack(
            self._cloudformation,
            name=self._stack,
            template=template,
            parameters=parameters,
            capabilities=["CAPABILITY_IAM"],
            protected=True,
        )

    def _name(self) -> str:
        outputs = stack_outputs(self._cloudformation, self._stack)
        assert outputs is not None, "it has a template"
        return outputs["Table"]

    def _describe(self, name: str) -> Mapping[str, Any]:
        return dict(self._dynamodb.describe_table(TableName=name)["Table"])

    def _wait(self) -> None:
        """Wait until nothing of the table is being changed; raises BadConfiguration if that takes too long."""
        name, waited = self._name(), 0.0
        while busy := _busy(self._describe(name)):
            if waited >= PATIENCE:
                raise BadConfiguration(f"{', '.join(busy)}: still in progress. Run this again once it is done")
            if not waited:
                self._say(f"Waiting, which takes hours for a large table: {', '.join(busy)}")
            self._sleep(POLL)
            waited += POLL

    def _refuse_strays(self, missing: Collection[str]) -> None:
        """See that what is to be made is not there; raises BadConfiguration."""
        found = self._describe(self._name())
        for one in found.get("GlobalSecondaryIndexes", []):
            if one["IndexName"] in missing:
                delete = json.dumps([{"Delete": {"IndexName": one["IndexName"]}}])
                raise BadConfiguration(
                    f"Nothing was changed in AWS. The table has the index {one['IndexName']}, which its stack does not "
                    "know: an update was undone, or somebody made it by hand. Delete it, and run the same command "
                    f"again: aws dynamodb update-table --table-name {found['TableName']} "
                    f"--global-secondary-index-updates '{delete}'"
                )

    def _read_by_functions(self, names: Sequence[str]) -> Sequence[str]:
        """Which of the indexes a function's role may read: all, as far as is known, if a role is not there."""
        arn = self._describe(self._name())["TableArn"]
        roles = [read_role(self._iam, role_name(self._stage, function)) for function in POLICIES]
        known = [role for role in roles if role is not None]
        if len(known) < len(roles):
            return names
        return [name for name in names if any(role.names(f"{arn}/index/{name}") for role in known)]


def _busy(table: Mapping[str, Any]) -> list[str]:
    """What of a table DynamoDB is changing."""
    found = [f"the table's index {one['IndexName']} is {one['IndexStatus']}" for one in _building(table)]
    return found or ([] if table["TableStatus"] == "ACTIVE" else [f"the table is {table['TableStatus']}"])


def _building(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in table.get("GlobalSecondaryIndexes", []) if one["IndexStatus"] != "ACTIVE"]
