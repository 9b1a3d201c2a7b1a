"""Fixtures of the integration tier."""

from tests.proxy_rig import door  # noqa: F401
