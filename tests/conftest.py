"""For every tier: the environment is nobody's, and where nothing may be skipped, a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.real_parts import (  # noqa: F401 - fixtures for every tier
    endpoint,
    engine,
    notebook_image,
    report,
    running_stack,
    stack,
    state,
)

# Modules that hold assertions, under names pytest does not look for.
pytest.register_assert_rewrite("tests.contract", "tests.world", "tests.chaos")

# A busy machine is no reason to fail: no deadline, no complaint of slowness. Fuzzers set their own, larger numbers.
settings.register_profile("homeport", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("homeport")

REAL_PARTS = ("tests/browser/", "tests/integration/", "tests/functional/test_local_endpoint.py")
# Of them; they take long and need an engine alone, so that the other process starts one for them.
ON_THEIR_OWN = tuple(
    f"tests/integration/test_{name}.py"
    for name in ("chaos", "helper_builds", "no_container_left", "pull_of_several_invocations", "upgrade_and_rollback")
)
OURS = ("HOMEPORT_NO_SKIPS", "HOMEPORT_EXAMPLES")  # what a test may be told
FOREIGN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")


def pytest_configure() -> None:
    """No test may ever reach the AWS account of whoever runs it, nor see their HOMEPORT_… variables."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or (name.startswith("HOMEPORT_") and name not in OURS):
            del os.environ[name]


class ByParts(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist is not typed
    """What needs the real parts goes to one of pytest-xdist's processes, which starts them once; the rest by module."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "real parts" if module.startswith(REAL_PARTS) and module not in ON_THEIR_OWN else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByParts:
    """Say which process has which tests."""
    return ByParts(config, log)


def _nothing_is_skipped() -> bool:
    return os.environ.get("CI") == "true" or os.environ.get("HOMEPORT_NO_SKIPS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test's skip into its failure where nothing may be skipped."""
    made = yield
    if made.skipped and _nothing_is_skipped() and not hasattr(made, "wasxfail"):
        made.outcome = "failed"
        made.longrepr = f"skipped, where nothing may be skipped (CI=true or HOMEPORT_NO_SKIPS=1): {made.longrepr}"
    return made


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module's skip into a failure where nothing may be skipped."""
    made = yield
    if made.skipped and _nothing_is_skipped():
        made.outcome = "failed"
        made.longrepr = f"skipped, where nothing may be skipped (CI=true or HOMEPORT_NO_SKIPS=1): {made.longrepr}"
    return made
