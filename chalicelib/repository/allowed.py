"""Which repositories a hub's operator allows, by patterns that are written as Binder's links are.

    gh/jupyterlab/*                   all of one owner's on GitHub
    gh/jupyterlab/jupyterlab-demo     one repository, at every version
    gl/group/*                        a GitLab group's, its subgroups' too
    git/https://git.example.org/*     all of one Git server's
    zenodo/*                          every record of Zenodo's
    *                                 everything

1. `*` stands for any characters of its part, between two slashes; as the whole last part it stands for all parts there.
2. Upper and lower case are the same, and so are an address with `.git` behind it and without.
3. What is banned is banned, even if it is allowed too. Without a pattern of what is allowed all is that is not banned.
4. A Gist has only its id here (`gist/<id>`): its address names its user, but GitHub goes by the id alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from chalicelib.repository.source import Provider, Source
from chalicelib.text import is_visible

_EVERYTHING: Final = "*"
_BY_ADDRESS: Final = (Provider.GIT, Provider.CKAN)  # the others' hosts are known
_MOST_PARTS: Final = {Provider.GITHUB: 2, Provider.GIST: 1, Provider.HYDROSHARE: 1}


def is_pattern(text: str) -> bool:
    """Say whether a text can be a pattern."""
    if text == _EVERYTHING:
        return True
    provider, _, rest = text.partition("/")
    if provider.lower() not in list(Provider) or not is_visible(text) or " " in text:
        return False
    if provider.lower() in _BY_ADDRESS and rest != _EVERYTHING:
        if not rest.lower().startswith("https://"):
            return False
        rest = rest[len("https://") :]
    parts = rest.split("/")
    return all(parts) and len(parts) <= _MOST_PARTS.get(Provider(provider.lower()), len(parts))


def is_allowed(source: Source, allowed: Iterable[str], banned: Iterable[str]) -> bool:
    """Say whether the operator's patterns allow a repository."""
    patterns = tuple(allowed)
    if any(_matches(pattern, source) for pattern in banned):
        return False
    return not patterns or any(_matches(pattern, source) for pattern in patterns)


def _matches(pattern: str, source: Source) -> bool:
    if pattern == _EVERYTHING:
        return True
    *head, last = _plain(pattern).split("/")
    parts = _plain(_spec(source)).split("/")
    if last == _EVERYTHING:
        return len(parts) > len(head) and all(map(_matches_part, head, parts))
    return len(parts) == len(head) + 1 and all(map(_matches_part, (*head, last), parts))


def _spec(source: Source) -> str:
    """A repository as a Binder link names it, without version, and with nothing of a host that its provider says."""
    match source.provider:
        case Provider.GITHUB | Provider.GITLAB:
            return f"{source.provider}/{source.address.removeprefix('https://').partition('/')[2]}"
        case Provider.GIST | Provider.HYDROSHARE:
            return f"{source.provider}/{source.address.rpartition('/')[2]}"
        case _:
            return f"{source.provider}/{source.address}"


def _plain(text: str) -> str:
    return text.lower().replace("https://", "", 1).removesuffix(".git")


def _matches_part(pattern: str, part: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), part) is not None
