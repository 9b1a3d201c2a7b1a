"""What a deployment asks of AWS, as it looks on the wire, and whether infra/operator-policy.json allows it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from infra.preflight import operator_actions

_LAMBDA = {  # a call of Lambda's, any function being "x" → its action
    "GET /2016-08-19/account-settings": "GetAccountSettings",
    "GET /2019-09-30/functions/x/concurrency": "GetFunctionConcurrency",
    "PUT /2017-10-31/functions/x/concurrency": "PutFunctionConcurrency",
    "DELETE /2017-10-31/functions/x/concurrency": "DeleteFunctionConcurrency",
    "GET /2015-03-31/functions/x": "GetFunction",
    "DELETE /2015-03-31/functions/x": "DeleteFunction",
    "POST /2015-03-31/functions": "CreateFunction",
    "PUT /2015-03-31/functions/x/code": "UpdateFunctionCode",
    "PUT /2015-03-31/functions/x/configuration": "UpdateFunctionConfiguration",
    "GET /2015-03-31/functions/x/configuration": "GetFunctionConfiguration",
    "GET /2015-03-31/functions/x/policy": "GetPolicy",
    "POST /2015-03-31/functions/x/policy": "AddPermission",
    "GET /2017-03-31/tags/x": "ListTags",
    "POST /2017-03-31/tags/x": "TagResource",
    "GET /2015-03-31/event-source-mappings": "ListEventSourceMappings",
    "GET /2015-03-31/event-source-mappings/x": "GetEventSourceMapping",
    "POST /2015-03-31/event-source-mappings": "CreateEventSourceMapping",
    "PUT /2015-03-31/event-source-mappings/x": "UpdateEventSourceMapping",
    "DELETE /2015-03-31/event-source-mappings/x": "DeleteEventSourceMapping",
}
_BUCKETS = {  # what a GET of a bucket may ask for; the query, which says for what, is not part of a call
    "s3:GetBucketPublicAccessBlock",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetBucketPolicy",
    "s3:GetBucketVersioning",
}
_OBJECTS = {"GET": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
_ALLOWED_TO_ALL = {"GetCallerIdentity"}
_MAY_BE_REFUSED = {"DescribeNetworkInterfaces"}  # to those who put no function into a network


def not_allowed(calls: Iterable[str]) -> set[str]:
    """Those of the calls, in the form of tests.deployment's, that the operator's policy does not allow."""
    actions = set(operator_actions())
    names = {action.partition(":")[2] for action in actions} | _ALLOWED_TO_ALL | _MAY_BE_REFUSED
    return {call for call in calls if not _is_allowed(call, actions, names)}


def _is_allowed(call: str, actions: set[str], names: set[str]) -> bool:
    method, is_address, path = call.partition(" ")
    if not is_address:
        return call in names
    if re.match("/(restapis|account|domainnames)", path):
        return f"apigateway:{method}" in actions
    if re.match("/homeport-[^/]+/artefacts/", path):
        return _OBJECTS[method] in actions
    if path.startswith("/homeport-"):  # a bucket: it is looked at, its objects are listed and deleted
        return {"GET": "s3:ListBucket", "POST": "s3:DeleteObject"}[method] in actions and actions >= _BUCKETS
    address = re.sub(r"/(functions|event-source-mappings|tags)/[^/]+", r"/\1/x", path)
    return f"lambda:{_LAMBDA[f'{method} {address}']}" in actions
