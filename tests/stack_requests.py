"""What CloudFormation asks IAM for, in the name of whoever creates, updates and deletes a stack of infra/.

Of each type of resource AWS publishes what its handlers call (`handlers` of its schema); cfn-lint brings the schemas.
They list what any resource of the type may need. What ours do not, since they lack a property, is in `ONLY_WITH`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

from tests.iam_requests import KEY, PLACE, Asked, make_service_role, pass_role, takes_no_resource
from tests.policies import ACCOUNT, REGION, STAGE

# Found without an import of cfn-lint, which takes seconds.
SCHEMAS: Final = Path(str(distribution("cfn-lint").locate_file("cfnlint/data/schemas")))
HANDLERS: Final = ("create", "read", "update", "delete")
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/homeport-{STAGE}-proxy-TaskRole-1A2B3C4D5E6F"
SCALING_ALARM: Final = (
    f"arn:aws:cloudwatch:{PLACE}:alarm:TargetTracking-service/homeport-{STAGE}/proxy-AlarmHigh-0a1b2c3d"
)

# The property that names a resource, "" if CloudFormation does; and its ARN. What AWS names is not here: its actions
# are asked for on "*", and so nothing but "*" is found to allow them.
ARNS: Final[Mapping[str, tuple[str, str]]] = {
    "AWS::CloudWatch::Alarm": ("AlarmName", f"arn:aws:cloudwatch:{PLACE}:alarm:{{}}"),
    "AWS::CloudWatch::Dashboard": ("DashboardName", f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{{}}"),
    "AWS::DynamoDB::Table": ("", f"arn:aws:dynamodb:{PLACE}:table/{{}}"),
    "AWS::ECR::Repository": ("RepositoryName", f"arn:aws:ecr:{PLACE}:repository/{{}}"),
    "AWS::ECS::Cluster": ("ClusterName", f"arn:aws:ecs:{PLACE}:cluster/{{}}"),
    "AWS::ECS::Service": ("ServiceName", f"arn:aws:ecs:{PLACE}:service/homeport-{STAGE}/{{}}"),
    "AWS::ECS::TaskDefinition": ("Family", f"arn:aws:ecs:{PLACE}:task-definition/{{}}:1"),
    "AWS::Events::Rule": ("Name", f"arn:aws:events:{PLACE}:rule/{{}}"),
    "AWS::IAM::Role": ("RoleName", f"arn:aws:iam::{ACCOUNT}:role/{{}}"),
    "AWS::IAM::RolePolicy": ("RoleName", f"arn:aws:iam::{ACCOUNT}:role/{{}}"),
    "AWS::IAM::User": ("", f"arn:aws:iam::{ACCOUNT}:user/{{}}"),
    "AWS::KMS::Alias": ("AliasName", f"arn:aws:kms:{PLACE}:{{}}"),
    "AWS::KMS::Key": ("", KEY),
    "AWS::Lambda::EventSourceMapping": ("", f"arn:aws:lambda:{PLACE}:event-source-mapping:0a1b2c3d"),
    "AWS::Lambda::Function": ("FunctionName", f"arn:aws:lambda:{PLACE}:function:{{}}"),
    "AWS::Lambda::Permission": ("FunctionName", f"arn:aws:lambda:{PLACE}:function:{{}}"),
    "AWS::Logs::LogGroup": ("LogGroupName", f"arn:aws:logs:{PLACE}:log-group:{{}}"),
    "AWS::Logs::MetricFilter": ("LogGroupName", f"arn:aws:logs:{PLACE}:log-group:{{}}"),
    "AWS::S3::Bucket": ("", "arn:aws:s3:::{}"),
    "AWS::S3::BucketPolicy": ("Bucket", "arn:aws:s3:::{}"),
    "AWS::SNS::Topic": ("TopicName", f"arn:aws:sns:{PLACE}:{{}}"),
    "AWS::SQS::Queue": ("QueueName", f"arn:aws:sqs:{PLACE}:{{}}"),
    "AWS::SQS::QueuePolicy": ("Queues", f"arn:aws:sqs:{PLACE}:{{}}"),
}
NAMED_BY_AWS: Final = ("", "arn:aws::::")

# What handlers ask for of another service than the type's own, where that service lets a policy name things.
OF_OTHERS: Final[Mapping[tuple[str, str], str]] = {
    ("AWS::ApplicationAutoScaling::ScalableTarget", "cloudwatch"): SCALING_ALARM,
    ("AWS::ApplicationAutoScaling::ScalingPolicy", "cloudwatch"): SCALING_ALARM,
    ("AWS::ApplicationAutoScaling::ScalingPolicy", "ecs"): f"arn:aws:ecs:{PLACE}:service/homeport-{STAGE}/proxy",
    ("AWS::ECS::TaskDefinition", "iam"): ROLE,
}

# What the schemas do not list.
BESIDES: Final[Mapping[str, tuple[str, ...]]] = {
    # "Caller does not have permissions to create a Service Linked Role", of an account's first domain:
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/using-service-linked-roles.html
    "AWS::ApiGateway::DomainName": ("iam:CreateServiceLinkedRole",),
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/auto-scaling-IAM.html
    "AWS::ApplicationAutoScaling::ScalingPolicy": (
        "cloudwatch:PutMetricAlarm",
        "cloudwatch:DeleteAlarms",
        "cloudwatch:DescribeAlarms",
        "ecs:DescribeServices",
        "ecs:UpdateService",
    ),
    # https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-service-linked-roles.html
    "AWS::ElasticLoadBalancingV2::LoadBalancer": ("iam:CreateServiceLinkedRole",),
}
# Whose role "iam:CreateServiceLinkedRole" is about.
SERVICE_ROLES: Final[Mapping[str, str]] = {
    "AWS::ApiGateway::DomainName": "ops.apigateway.amazonaws.com",
    "AWS::ApplicationAutoScaling::ScalableTarget": "ecs.application-autoscaling.amazonaws.com",
    "AWS::ECS::Cluster": "ecs.amazonaws.com",
    "AWS::ElasticLoadBalancingV2::LoadBalancer": "elasticloadbalancing.amazonaws.com",
}
# Whom a role is handed to, by the types' services.
PASSED_TO: Final = {"ECS": "ecs-tasks.amazonaws.com", "Lambda": "lambda.amazonaws.com"}

# Actions that are asked for only with a property ("A.B": with B anywhere in A; "A=x": with that value). Set it, and
# they are needed.
ONLY_WITH: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "AWS::ApiGateway::RestApi": {
        "Body.credentials": ("iam:PassRole",),
        "BodyS3Location": ("s3:GetObject",),
        "Policy": ("apigateway:UpdateRestApiPolicy",),
    },
    "AWS::ApplicationAutoScaling::ScalableTarget": {
        "RoleARN": ("iam:PassRole",),
        "ScheduledActions": (
            "application-autoscaling:PutScheduledAction",
            "application-autoscaling:DeleteScheduledAction",
        ),
        "ServiceNamespace=lambda": (
            "lambda:GetProvisionedConcurrencyConfig",
            "lambda:PutProvisionedConcurrencyConfig",
            "lambda:DeleteProvisionedConcurrencyConfig",
        ),
    },
    "AWS::ApplicationAutoScaling::ScalingPolicy": {
        "PredictiveScalingPolicyConfiguration": ("cloudwatch:GetMetricData",),
    },
    "AWS::CertificateManager::Certificate": {
        "CertificateAuthorityArn": ("acm-pca:IssueCertificate", "acm-pca:GetCertificate"),
        "CertificateExport": ("acm:UpdateCertificateOptions",),
        "CertificateTransparencyLoggingPreference": ("acm:UpdateCertificateOptions",),
    },
    "AWS::DynamoDB::Table": {
        "ContributorInsightsSpecification": ("dynamodb:UpdateContributorInsights", "iam:CreateServiceLinkedRole"),
        "ImportSourceSpecification": (
            "dynamodb:DescribeImport",
            "dynamodb:ImportTable",
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:DescribeLogGroups",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
            "logs:PutRetentionPolicy",
            "s3:GetObject",
            "s3:GetObjectMetadata",
            "s3:ListBucket",
        ),
        "KinesisStreamSpecification": (
            "dynamodb:EnableKinesisStreamingDestination",
            "dynamodb:DisableKinesisStreamingDestination",
            "dynamodb:UpdateKinesisStreamingDestination",
            "iam:CreateServiceLinkedRole",
            "kinesis:DescribeStream",
            "kinesis:PutRecords",
        ),
        "ResourcePolicy": ("dynamodb:PutResourcePolicy", "dynamodb:DeleteResourcePolicy"),
        # Without, the key is AWS's own, whose policy lets all in who may use the table.
        "SSESpecification.KMSMasterKeyId": (
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Encrypt",
            "kms:ListAliases",
            "kms:RevokeGrant",
        ),
    },
    "AWS::EC2::EIP": {"TransferAddress": ("ec2:AcceptAddressTransfer",)},
    "AWS::EC2::NatGateway": {
        "AvailabilityZoneAddresses": ("ec2:AssociateNatGatewayAddress", "ec2:DisassociateNatGatewayAddress"),
        "SecondaryAllocationIds": ("ec2:AssociateNatGatewayAddress", "ec2:DisassociateNatGatewayAddress"),
        "SecondaryPrivateIpAddressCount": (
            "ec2:AssignPrivateNatGatewayAddress",
            "ec2:UnassignPrivateNatGatewayAddress",
        ),
        "SecondaryPrivateIpAddresses": (
            "ec2:AssignPrivateNatGatewayAddress",
            "ec2:UnassignPrivateNatGatewayAddress",
        ),
    },
    "AWS::EC2::Subnet": {
        "Ipv6CidrBlock": ("ec2:AssociateSubnetCidrBlock", "ec2:DisassociateSubnetCidrBlock"),
        "Ipv6CidrBlocks": ("ec2:AssociateSubnetCidrBlock", "ec2:DisassociateSubnetCidrBlock"),
        "Ipv6IpamPoolId": ("ec2:AssociateSubnetCidrBlock", "ec2:DisassociateSubnetCidrBlock"),
    },
    "AWS::EC2::VPC": {
        "InstanceTenancy": ("ec2:ModifyVpcTenancy",),
        "VpcEncryptionControl": ("ec2:CreateVpcEncryptionControl",),
    },
    "AWS::EC2::VPCCidrBlock": {"Ipv4IpamPoolId": ("ec2:AllocateIpamPoolCidr",)},
    "AWS::EC2::VPCEndpoint": {
        "ServiceNetworkArn": (
            "vpc-lattice:CreateServiceNetworkVpcEndpointAssociation",
            "vpc-lattice:DescribeServiceNetworkVpcEndpointAssociation",
        ),
        "ServiceRegion": ("vpce:AllowMultiRegion",),
    },
    "AWS::EC2::VPCGatewayAttachment": {
        "VpnGatewayId": ("ec2:AttachVpnGateway", "ec2:DetachVpnGateway", "ec2:DescribeVpnGateways"),
    },
    "AWS::ECR::Repository": {
        "EncryptionConfiguration.KmsKey": ("kms:CreateGrant", "kms:DescribeKey", "kms:RetireGrant"),
        "RepositoryPolicyText": ("ecr:SetRepositoryPolicy", "ecr:DeleteRepositoryPolicy"),
    },
    "AWS::ECS::Cluster": {
        "CapacityProviders": ("ecs:PutClusterCapacityProviders",),
        "ClusterSettings": (
            "ecs:PutAccountSetting",
            "ecs:PutAccountSettingDefault",
            "ecs:UpdateCluster",
            "ecs:UpdateClusterSettings",
        ),
        "Configuration": ("ecs:UpdateCluster", "kms:DescribeKey"),
        "DefaultCapacityProviderStrategy": ("ecs:PutClusterCapacityProviders",),
        "ServiceConnectDefaults": ("ecs:UpdateCluster",),
    },
    "AWS::ElasticLoadBalancingV2::Listener": {
        "DefaultActions.AuthenticateCognitoConfig": ("cognito-idp:DescribeUserPoolClient",),
    },
    "AWS::ElasticLoadBalancingV2::LoadBalancer": {
        "IpAddressType": ("elasticloadbalancing:SetIpAddressType",),
        "Ipv4IpamPoolId": ("ec2:DescribeIpamPools", "elasticloadbalancing:ModifyIpPools"),
        "MinimumLoadBalancerCapacity": ("elasticloadbalancing:ModifyCapacityReservation",),
    },
    "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "Targets": ("elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"),
    },
    "AWS::Events::Rule": {"RoleArn": ("iam:PassRole",), "Targets.RoleArn": ("iam:PassRole",)},
    "AWS::IAM::Role": {
        "Description": ("iam:UpdateRole", "iam:UpdateRoleDescription"),
        "MaxSessionDuration": ("iam:UpdateRole",),
        "PermissionsBoundary": ("iam:PutRolePermissionsBoundary", "iam:DeleteRolePermissionsBoundary"),
    },
    "AWS::KMS::Key": {"Enabled": ("kms:EnableKey", "kms:DisableKey")},
    "AWS::Lambda::EventSourceMapping": {"KmsKeyArn": ("kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey")},
    "AWS::Lambda::Function": {
        "CapacityProviderConfig": ("lambda:PassCapacityProvider",),
        "CodeSigningConfigArn": (
            "lambda:GetCodeSigningConfig",
            "lambda:PutFunctionCodeSigningConfig",
            "lambda:DeleteFunctionCodeSigningConfig",
        ),
        "FileSystemConfigs": ("elasticfilesystem:DescribeMountTargets", "s3files:ListMountTargets"),
        "FunctionScalingConfig": ("lambda:PutFunctionScalingConfig",),
        "KmsKeyArn": ("kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"),
        "Layers": ("lambda:GetLayerVersion",),
        "PublishToLatestPublished": ("lambda:PublishVersion",),
        "RecursiveLoop": ("lambda:PutFunctionRecursionConfig",),
        "RuntimeManagementConfig": ("lambda:PutRuntimeManagementConfig", "lambda:AssociateRuntimeAlias"),
        "VpcConfig": ("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"),
    },
    "AWS::Logs::LogGroup": {
        "BearerTokenAuthenticationEnabled": ("logs:PutBearerTokenAuthentication",),
        "DataProtectionPolicy": (
            "firehose:TagDeliveryStream",
            "logs:PutDataProtectionPolicy",
            "logs:DeleteDataProtectionPolicy",
            "s3:REST.PUT.OBJECT",
        ),
        "DeletionProtectionEnabled": ("logs:PutLogGroupDeletionProtection",),
        "FieldIndexPolicies": ("logs:PutIndexPolicy", "logs:DeleteIndexPolicy"),
        "KmsKeyId": ("logs:AssociateKmsKey", "logs:DisassociateKmsKey"),
        "ResourcePolicyDocument": ("logs:DeleteResourcePolicy",),
    },
    "AWS::Route53::RecordSet": {"HostedZoneName": ("route53:ListHostedZones",)},
    "AWS::S3::Bucket": {
        "AbacStatus": ("s3:GetBucketAbac", "s3:PutBucketAbac"),
        "AccelerateConfiguration": ("s3:GetAccelerateConfiguration", "s3:PutAccelerateConfiguration"),
        "AccessControl": ("s3:GetBucketAcl", "s3:PutBucketAcl", "s3:PutObjectAcl"),
        "AnalyticsConfigurations": (
            "s3:GetAnalyticsConfiguration",
            "s3:PutAnalyticsConfiguration",
            "s3:DeleteBucketAnalyticsConfiguration",
        ),
        "CorsConfiguration": ("s3:GetBucketCORS", "s3:PutBucketCORS", "s3:DeleteBucketCors"),
        "IntelligentTieringConfigurations": (
            "s3:GetIntelligentTieringConfiguration",
            "s3:PutIntelligentTieringConfiguration",
        ),
        "InventoryConfigurations": ("s3:GetInventoryConfiguration", "s3:PutInventoryConfiguration"),
        "LoggingConfiguration": ("s3:GetBucketAcl", "s3:GetBucketLogging", "s3:PutBucketLogging"),
        "MetadataConfiguration": (
            "s3:GetBucketMetadataTableConfiguration",
            "s3:CreateBucketMetadataTableConfiguration",
            "s3:DeleteBucketMetadataTableConfiguration",
            "s3:UpdateBucketMetadataJournalTableConfiguration",
            "s3:UpdateBucketMetadataInventoryTableConfiguration",
            "s3:UpdateBucketMetadataAnnotationTableConfiguration",
            "s3tables:CreateNamespace",
            "s3tables:CreateTable",
            "s3tables:CreateTableBucket",
            "s3tables:GetTable",
            "s3tables:GetTableMetadataLocation",
            "s3tables:PutTableBucketPolicy",
            "s3tables:PutTableEncryption",
            "s3tables:PutTablePolicy",
            "s3tables:UpdateTableMetadataLocation",
        ),
        "MetricsConfigurations": (
            "s3:GetMetricsConfiguration",
            "s3:PutMetricsConfiguration",
            "s3:DeleteBucketMetricsConfiguration",
        ),
        "NotificationConfiguration": ("s3:GetBucketNotification", "s3:PutBucketNotification"),
        "ObjectLockConfiguration": (
            "s3:GetBucketObjectLockConfiguration",
            "s3:PutBucketObjectLockConfiguration",
            "s3:PutObjectLockConfiguration",
        ),
        "ReplicationConfiguration": (
            "iam:PassRole",
            "s3:GetReplicationConfiguration",
            "s3:PutReplicationConfiguration",
            "s3:PutBucketReplication",
            "s3:DeleteBucketReplication",
        ),
        "VersioningConfiguration": ("s3:PutBucketVersioning",),
        "WebsiteConfiguration": ("s3:GetBucketWebsite", "s3:PutBucketWebsite", "s3:DeleteBucketWebsite"),
    },
    "AWS::SNS::Topic": {
        "DataProtectionPolicy": ("sns:PutDataProtectionPolicy",),
        "DeliveryStatusLogging": ("iam:GetRole", "iam:PassRole"),
    },
}

# Listed, and asked for of no resource of ours for another reason.
NEVER: Final[Mapping[str, tuple[str, ...]]] = {
    # replicas in other regions, which are AWS::DynamoDB::GlobalTable's
    "AWS::DynamoDB::Table": (
        "dynamodb:AssociateTableReplica",
        "dynamodb:BatchWriteItem",
        "dynamodb:CreateTableReplica",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:UpdateItem",
    ),
    # the code, from a bucket that the operator names: docs/deploy.md
    "AWS::Lambda::Function": ("s3:GetObject", "s3:GetObjectVersion"),
    # an update that takes the retention away: all of ours have one
    "AWS::Logs::LogGroup": ("logs:DeleteRetentionPolicy",),
    # objects, which the handlers leave alone; and names that IAM does not know (it has Put… for taking away)
    "AWS::S3::Bucket": (
        "s3:DeleteBucketEncryption",
        "s3:DeleteBucketLifecycle",
        "s3:DeleteBucketTagging",
        "s3:DeleteObject",
    ),
}


@dataclass(frozen=True, slots=True)
class Stack:
    """The resources of a stack's template, and its name."""

    name: str
    resources: Mapping[str, Any]

    def requests(self, logical: str) -> Iterator[Asked]:
        """What IAM is asked for when a resource is created, read, updated and deleted."""
        resource = self.resources[logical]
        kind, properties = resource["Type"], resource["Properties"]
        for action in sorted(_listed(kind, properties) - _unused(kind, properties)):
            yield self._request(logical, action)

    def _request(self, logical: str, action: str) -> Asked:
        kind = self.resources[logical]["Type"]
        if action == "iam:CreateServiceLinkedRole":
            return make_service_role(SERVICE_ROLES[kind])
        if action == "iam:PassRole":
            return pass_role(ROLE, PASSED_TO[kind.split("::")[1]])
        if takes_no_resource(action):
            return action, "*", {}
        own, service = self._arn(logical), action.partition(":")[0]
        return action, OF_OTHERS.get((kind, service), own if service == own.split(":")[2] else "*"), {}

    def _arn(self, logical: str) -> str:
        naming, arn = ARNS.get(self.resources[logical]["Type"], NAMED_BY_AWS)
        return arn.format(self._name(logical, naming))

    def _name(self, logical: str, naming: str) -> str:
        """The name that the resource gets: its property's, or CloudFormation's."""
        given = self.resources[logical]["Properties"].get(naming)
        match given[0] if isinstance(given, list) else given:
            case {"Fn::Sub": str(text)}:
                return text.replace("${Stage}", STAGE)
            case {"Ref": other}:
                return self._name(other, ARNS[self.resources[other]["Type"]][0])
            case str(text):
                return text
            case None:
                made = f"{self.name}-{logical}-1A2B3C4D5E6F"
                return made.lower() if "::S3::" in self.resources[logical]["Type"] else made
        raise AssertionError(f"a name of another form: {given}")


@cache
def schema(kind: str) -> Mapping[str, Any]:
    """AWS's own description of a type."""
    return dict(json.loads((SCHEMAS / "resources" / f"{_files()[kind]}.json").read_text()))


@cache
def _files() -> Mapping[str, str]:
    return dict(json.loads((SCHEMAS / "providers" / f"{REGION}.json").read_text()))


def _listed(kind: str, properties: Mapping[str, Any]) -> set[str]:
    described = schema(kind)
    tagging = described.get("tagging", {})
    tagged = "Tags" in properties or tagging.get("cloudFormationSystemTags")
    handlers = [described["handlers"].get(name, {}).get("permissions", ()) for name in HANDLERS]
    return {action for one in handlers for action in one} | {
        *BESIDES.get(kind, ()),
        *(tagging.get("permissions", ()) if tagged else ()),
    }


def _unused(kind: str, properties: Mapping[str, Any]) -> set[str]:
    """What is listed for properties that the resource does not have."""
    by_property = ONLY_WITH.get(kind, {})
    used = {action for path, actions in by_property.items() if _has(properties, path) for action in actions}
    return {action for actions in by_property.values() for action in actions} - used | {*NEVER.get(kind, ())}


def _has(properties: Mapping[str, Any], path: str) -> bool:
    path, equals, value = path.partition("=")
    name, nested, inner = path.partition(".")
    if equals:
        return bool(properties.get(name) == value)
    return name in properties and (not nested or _somewhere(properties[name], inner))


def _somewhere(value: Any, name: str) -> bool:
    if isinstance(value, dict):
        return name in value or any(_somewhere(one, name) for one in value.values())
    return isinstance(value, list) and any(_somewhere(one, name) for one in value)
