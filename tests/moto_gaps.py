"""What moto leaves out: of infra/resources.yaml, made by the calls that CloudFormation would make, and of functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from moto.awslambda.models import lambda_backends
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.nat_gateways import NatGateway
from moto.ec2.models.route_tables import Route, RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.kms.models import kms_backends

from tests.policies import REGION, resource_policy, template


def write_key_policies(account: str) -> None:
    """Let moto read the keys' policies, which it keeps as CloudFormation has them and reads as text."""
    for key in kms_backends[account][REGION].keys.values():
        if not isinstance(key.policy, str):
            key.policy = json.dumps(key.policy)


def let_networks_be_deleted(patch: pytest.MonkeyPatch) -> None:
    """Let moto's stacks delete of a network what they leave there otherwise."""

    def route_table(self: RouteTable, account: str, region: str) -> None:
        for association in list(self.associations):
            self.ec2_backend.disassociate_route_table(association)
        self.ec2_backend.delete_route_table(self.id)

    def address(self: ElasticAddress, account: str, region: str) -> None:
        ec2_backends[account][region].release_address(allocation_id=self.allocation_id)

    def gateway(self: NatGateway, account: str, region: str) -> None:
        ec2_backends[account][region].delete_nat_gateway(self.id)

    def endpoint(self: VPCEndPoint, account: str, region: str) -> None:
        ec2_backends[account][region].vpc_end_points.pop(self.id)

    def with_its_table(self: object, account: str, region: str) -> None:
        pass

    patch.setattr(RouteTable, "delete", route_table, raising=False)
    patch.setattr(Route, "delete", with_its_table, raising=False)
    patch.setattr(ElasticAddress, "delete", address, raising=False)
    patch.setattr(NatGateway, "delete", gateway, raising=False)
    patch.setattr(VPCEndPoint, "delete", endpoint, raising=False)


def set_tracing(account: str, function: str, change: Mapping[str, Any]) -> None:
    """Change a function's tracing, which moto sets when it makes one, and never again."""
    if "TracingConfig" in change:
        lambda_backends[account][REGION].get_function(function).tracing_config = change["TracingConfig"]


def fill_gaps(client: Callable[[str], Any], outputs: Mapping[str, str]) -> None:
    """Make the bucket's policy, public access block and lifecycle, and the table's backup."""
    s3, name = client("s3"), outputs["Bucket"]
    properties = template("resources.yaml")["Resources"]["Bucket"]["Properties"]
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"])
    rules = [
        {
            "ID": rule["Id"],
            "Status": rule["Status"],
            "Filter": {"Prefix": rule.get("Prefix", "")},
            **(
                {"Expiration": {"Days": rule["ExpirationInDays"]}}
                if "ExpirationInDays" in rule
                else {"AbortIncompleteMultipartUpload": rule["AbortIncompleteMultipartUpload"]}
            ),
        }
        for rule in properties["LifecycleConfiguration"]["Rules"]
    ]
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    policy = resource_policy("BucketPolicy", "PolicyDocument", {**outputs, "BucketArn": f"arn:aws:s3:::{name}"})
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    client("dynamodb").update_continuous_backups(
        TableName=outputs["Table"], PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
