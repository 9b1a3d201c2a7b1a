"""Whether Lambda traces a stage's functions (HOMEPORT_TRACING): their mode, and what their roles need for it.

Chalice has a setting for this, `xray`. It traces the API's stage, too, whose segments have visitors' addresses and
whole URLs; and it never ends what it began. So that stays off, and the mode is set here (docs/adr/0028).

https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.config import TRACING
from infra.project import POLICIES, function_name


def mode(options: Mapping[str, str]) -> str:
    """Lambda's name for what is wanted; raises BadConfiguration."""
    return "Active" if TRACING.read(options) else "PassThrough"


def set_mode(lambda_: Any, stage: str, wanted: str) -> list[str]:
    """Have those of the stage's functions that exist traced as wanted; gives the names of those that were not.

    A function is traced only if its role may tell X-Ray: Lambda refuses it otherwise. So it begins after the roles were
    written, and ends before. Raises botocore's errors.
    """
    changed = []
    for name in (function_name(stage, function) for function in POLICIES):
        try:
            found = lambda_.get_function_configuration(FunctionName=name)
        except lambda_.exceptions.ResourceNotFoundException:
            continue
        if found.get("TracingConfig", {}).get("Mode", "PassThrough") != wanted:
            lambda_.update_function_configuration(FunctionName=name, TracingConfig={"Mode": wanted})
            lambda_.get_waiter("function_updated_v2").wait(FunctionName=name)
            changed.append(name)
    return changed
