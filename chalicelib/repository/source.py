"""A repository, as a launch names it and as a builder on the visitor's endpoint is given it.

The hub only parses. Which commit a branch is, and which record a DOI, is found out on the endpoint: a repository may
be anywhere, and its address is the visitor's machine's to reach, never the hub's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Provider(StrEnum):
    """Where a repository is, by the names that Binder's links have for them."""

    GITHUB = "gh"
    GITLAB = "gl"
    GIST = "gist"
    GIT = "git"
    ZENODO = "zenodo"
    FIGSHARE = "figshare"
    HYDROSHARE = "hydroshare"
    DATAVERSE = "dataverse"
    CKAN = "ckan"


@dataclass(frozen=True, slots=True)
class Source:
    """A repository, a version of it, and the folder in it that says how its image is built.

    `address` is canonical: an https address, or a DOI (`10.5281/zenodo.3242074`) for Zenodo, Figshare and Dataverse.
    `ref` is a branch, a tag or a commit of Git, empty for the default branch; empty for all others, whose address says
    the version. `folder` is relative, empty for the repository itself.
    """

    provider: Provider
    address: str
    ref: str = ""
    folder: str = ""

    @property
    def takes_ref(self) -> bool:
        """Whether it has branches, tags and commits."""
        return self.provider in (Provider.GITHUB, Provider.GITLAB, Provider.GIST, Provider.GIT)
