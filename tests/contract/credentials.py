"""What every store of credentials must do: inherited by the tests of the twin and of S3 with KMS."""

from __future__ import annotations

from typing import Protocol

import pytest

from chalicelib.aws.errors import CredentialsMissing
from chalicelib.errors import BadEnvelope
from chalicelib.launcher.outside import CredentialsAccess
from chalicelib.web.hub import CredentialsSink
from tests.builders import OWNER, some_credentials

SID, OTHER_SID = "0123456789abcdefghij", "vutsrqponmlkjihgfedc"
OTHER_OWNER = "cd" * 32


class Credentials(CredentialsSink, CredentialsAccess, Protocol):
    """All that anybody needs of a store of credentials: the hub puts, the launcher gets and purges."""


class CredentialsContract:
    """`credentials` is a fixture of the inheriting class: an empty store."""

    def test_what_was_put_is_given_back_to_its_owner(self, credentials: Credentials) -> None:
        mine, other = some_credentials(), some_credentials(key=b"another key\n")
        credentials.put(SID, 1, OWNER, mine)
        credentials.put(OTHER_SID, 1, OTHER_OWNER, other)
        assert credentials.get(SID, 1, OWNER) == mine
        assert credentials.get(OTHER_SID, 1, OTHER_OWNER) == other

    def test_a_second_put_of_one_launch_replaces_the_first(self, credentials: Credentials) -> None:
        credentials.put(SID, 1, OWNER, some_credentials(key=b"an old key\n"))
        credentials.put(SID, 1, OWNER, some_credentials())
        assert credentials.get(SID, 1, OWNER) == some_credentials()

    def test_what_was_never_put_is_missing(self, credentials: Credentials) -> None:
        credentials.put(SID, 2, OWNER, some_credentials())
        for sid, generation in ((SID, 1), (SID, 3), (OTHER_SID, 2)):
            with pytest.raises(CredentialsMissing):
                credentials.get(sid, generation, OWNER)

    def test_another_owner_cannot_open_them(self, credentials: Credentials) -> None:
        credentials.put(SID, 1, OWNER, some_credentials())
        with pytest.raises(BadEnvelope):
            credentials.get(SID, 1, OTHER_OWNER)
        assert credentials.get(SID, 1, OWNER) == some_credentials()

    def test_a_purge_takes_this_launch_and_those_before_and_no_other(self, credentials: Credentials) -> None:
        for generation in (1, 2, 3, 10):
            credentials.put(SID, generation, OWNER, some_credentials())
        credentials.put(OTHER_SID, 1, OWNER, some_credentials())
        credentials.purge(SID, 2)
        for generation in (1, 2):
            with pytest.raises(CredentialsMissing):
                credentials.get(SID, generation, OWNER)
        for sid, generation in ((SID, 3), (SID, 10), (OTHER_SID, 1)):
            assert credentials.get(sid, generation, OWNER) == some_credentials()

    def test_purging_twice_or_nothing_at_all_is_no_error(self, credentials: Credentials) -> None:
        credentials.purge(SID, 1)
        credentials.put(SID, 1, OWNER, some_credentials())
        credentials.purge(SID, 1)
        credentials.purge(SID, 1)
        with pytest.raises(CredentialsMissing):
            credentials.get(SID, 1, OWNER)
