"""What moto leaves out: of infra/resources.yaml, made by the calls that CloudFormation would make, and of functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from moto.apigateway.models import DomainName, apigateway_backends
from moto.awslambda.models import lambda_backends
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, cloudformation_backends
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult
from moto.dynamodb.models.table import GlobalSecondaryIndex, Table
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.nat_gateways import NatGateway
from moto.ec2.models.route_tables import Route, RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.ecr.models import Repository, ecr_backends
from moto.elbv2.models import ELBv2Backend
from moto.kms.models import kms_backends

from infra.indexes import TABLE
from tests.policies import REGION, resource_policy, template


def write_key_policies(account: str) -> None:
    """Let moto read the keys' policies, which it keeps as CloudFormation has them and reads as text."""
    for key in kms_backends[account][REGION].keys.values():
        if not isinstance(key.policy, str):
            key.policy = json.dumps(key.policy)


def remember_defaults(account: str) -> None:
    """Let moto's stacks know parameters that have their default, which an update may refer to as any other."""
    for stack in cloudformation_backends[account][REGION].stacks.values():
        stack.parameters = stack.resource_map.input_parameters = {**stack.stack_parameters, **stack.parameters}


class VpcCidrBlock(CloudFormationModel):
    """More addresses of a VPC, which moto has, but not in stacks: those know each model that is imported."""

    def __init__(self, association: str) -> None:
        self.association = association

    @property
    def physical_resource_id(self) -> str:
        """The association's id."""
        return self.association

    @staticmethod
    def cloudformation_type() -> str:
        """What the template calls it."""
        return "AWS::EC2::VPCCidrBlock"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> VpcCidrBlock:
        """Make it."""
        given, ec2 = cloudformation_json["Properties"], ec2_backends[account_id][region_name]
        return cls(ec2.associate_vpc_cidr_block(given["VpcId"], given["CidrBlock"], False)["association_id"])

    def delete(self, account: str, region: str) -> None:
        """Leave it to its VPC."""


class StackDomain(CloudFormationModel):
    """An API's domain in a stack, which moto has elsewhere alone."""

    def __init__(self, domain: DomainName) -> None:
        self.domain = domain

    @property
    def physical_resource_id(self) -> str:
        """What `Ref` gives."""
        return self.domain.domain_name

    @staticmethod
    def cloudformation_type() -> str:
        """What the template calls it."""
        return "AWS::ApiGateway::DomainName"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Whether `GetAtt` gives it."""
        return attr in ("RegionalDomainName", "RegionalHostedZoneId")

    def get_cfn_attribute(self, attribute_name: str) -> str:
        """What `GetAtt` gives."""
        if attribute_name == "RegionalDomainName":
            return self.domain.regional_domain_name
        return self.domain.regional_hosted_zone_id

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> StackDomain:
        """Make it."""
        given = cloudformation_json["Properties"]
        backend = apigateway_backends[account_id][region_name]
        backend.domain_names[given["DomainName"]] = domain = DomainName(
            domain_name=given["DomainName"],
            region_name=region_name,
            regional_certificate_arn=given["RegionalCertificateArn"],
            endpoint_configuration={"types": given["EndpointConfiguration"]["Types"]},
            security_policy=given["SecurityPolicy"],
        )
        return cls(domain)

    def delete(self, account: str, region: str) -> None:
        """Delete it."""
        apigateway_backends[account][region].delete_domain_name(self.domain.domain_name)


class StackMapping(CloudFormationModel):
    """Where an API's domain leads, in a stack."""

    def __init__(self, domain: str, path: str) -> None:
        self.domain, self.path = domain, path

    @property
    def physical_resource_id(self) -> str:
        """What `Ref` gives."""
        return f"{self.domain}|{self.path}"

    @staticmethod
    def cloudformation_type() -> str:
        """What the template calls it."""
        return "AWS::ApiGateway::BasePathMapping"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> StackMapping:
        """Make it."""
        given = cloudformation_json["Properties"]
        made = apigateway_backends[account_id][region_name].create_base_path_mapping(
            given["DomainName"], given["RestApiId"], "", given["Stage"]
        )
        return cls(made.domain_name, made.base_path)

    def delete(self, account: str, region: str) -> None:
        """Delete it."""
        apigateway_backends[account][region].delete_base_path_mapping(self.domain, self.path)


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


def let_load_balancers_be_of_networks(patch: pytest.MonkeyPatch) -> None:
    """Let moto's stacks make the proxy's load balancer, which they take for one of applications otherwise."""
    made_by_moto: Callable[..., Any] = ELBv2Backend.create_load_balancer

    def made_for_networks(*given: Any, **named: Any) -> Any:
        return made_by_moto(*given, **named, loadbalancer_type="network")

    patch.setattr(ELBv2Backend, "create_load_balancer", made_for_networks)


def let_repositories_be_emptied(patch: pytest.MonkeyPatch) -> None:
    """Let moto's stacks delete the proxy's images with their repository if its template says so."""
    empty = template("registry.yaml")["Resources"]["Repository"]["Properties"]["EmptyOnDelete"]

    def with_its_images(self: Repository, account: str, region: str) -> None:
        ecr_backends[account][region].delete_repository(self.name, force=empty)

    patch.setattr(Repository, "delete", with_its_images)


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


def let_stacks_change_indexes() -> None:
    """Let moto's CloudFormation change a table's indexes as AWS's does: one in an update, with their attributes."""
    Table.update_from_cloudformation_json = classmethod(_update_table)  # type: ignore[method-assign,assignment]


def _update_table(
    _cls: type[Table],
    original_resource: Table,
    new_resource_name: str,
    cloudformation_json: dict[str, Any],
    account_id: str,
    region_name: str,
) -> Table:
    properties = cloudformation_json["Properties"]
    indexes = [
        GlobalSecondaryIndex.create(index, original_resource.table_key_attrs)
        for index in properties["GlobalSecondaryIndexes"]
    ]
    then, now = {one.name for one in original_resource.global_indexes}, {one.name for one in indexes}
    if len(then ^ now) > 1:
        raise ValidationError(TABLE, "Cannot perform more than one GSI creation or deletion in a single update")
    keyed = (properties, *properties["GlobalSecondaryIndexes"])
    keys = {key["AttributeName"] for one in keyed for key in one["KeySchema"]}
    if {one["AttributeName"] for one in properties["AttributeDefinitions"]} != keys:
        raise ValidationError(TABLE, "Number of attributes in KeySchema does not exactly match AttributeDefinitions")
    original_resource.global_indexes = indexes
    original_resource.attr = properties["AttributeDefinitions"]
    return original_resource


_delete_stack = CloudFormationBackend.delete_stack


def let_stacks_be_protected() -> None:
    """Let moto's CloudFormation protect a stack from deletion, which it only notes when it makes one."""
    CloudFormationResponse.update_termination_protection = _update_protection  # type: ignore[attr-defined]
    CloudFormationBackend.delete_stack = _delete_unprotected  # type: ignore[method-assign]


def _update_protection(self: CloudFormationResponse) -> ActionResult:
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = self._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


def _delete_unprotected(self: CloudFormationBackend, name_or_stack_id: str) -> None:
    for stack in self.stacks.values():
        if name_or_stack_id in (stack.name, stack.stack_id) and stack.enable_termination_protection:
            said = f"Stack [{stack.stack_id}] cannot be deleted while TerminationProtection is enabled"
            raise ValidationError(message=said)
    _delete_stack(self, name_or_stack_id)
