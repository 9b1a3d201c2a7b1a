"""Which function a request to AWS comes from: its access key says so, as a role's own key does on AWS.

A key of the tests is followed by the name of the role that signs with it, as in `HOMEPORT0A1B_launch`; without one, it
is that of a test itself, which may do everything. Who reads that is tests/role_guard.py. This imports nothing of the
hub, so that processes of any version of it can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3
from botocore.credentials import Credentials

KEY = "AWS_ACCESS_KEY_ID"


def key_of(key: str, role: str) -> str:
    """The id of an access key that a role signs with; "" is no role."""
    plain = key.partition("_")[0]
    return f"{plain}_{role}" if role else plain


def environ_of(role: str, environ: Mapping[str, str]) -> dict[str, str]:
    """An environment whose processes sign as a role."""
    return {**environ, KEY: key_of(environ[KEY], role)}


def become(role: str, session: boto3.Session | None = None) -> None:
    """Have all clients of a session, or of this process's, sign as a role from now on."""
    credentials = _credentials_of(session or boto3._get_default_session())
    credentials.access_key = key_of(credentials.access_key, role)


@contextmanager
def acting_as(role: str, session: boto3.Session) -> Iterator[None]:
    """Have all clients of a session sign as a role for as long as the block lasts."""
    before = _credentials_of(session).access_key.partition("_")[2]
    become(role, session)
    try:
        yield
    finally:
        become(before, session)


def _credentials_of(session: boto3.Session) -> Credentials:
    """What all clients of a session sign with."""
    credentials = session.get_credentials()
    assert credentials
    return credentials
