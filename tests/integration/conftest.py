"""Fixtures of the integration tier."""

from tests.proxy_rig import door  # noqa: F401
from tests.repository_rig import behind, site  # noqa: F401
