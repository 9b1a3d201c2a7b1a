"""Links that launch: Binder's, as they stand in README files, and the hub's own, which says the same in a query.

A Binder link may name two repositories, one for the environment and one for the files, by having nbgitpuller fetch the
latter: `/v2/gh/owner/environment/main?urlpath=git-pull?repo=…&branch=…&urlpath=lab/tree/name/first.ipynb`. Here the
second one is the launch's content. Its values are percent-encoded twice, or as often as the author did it.

Sources: BinderHub's repoproviders.py, nbgitpuller's handlers.py and link.js.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import quote, unquote, urlencode

from chalicelib.repository.address import (
    ADDRESS_LENGTH,
    at_version,
    content_folder,
    first_of_each,
    opened,
    opened_url,
    parse_open,
    parse_repository,
    parse_spec,
    restored,
    written,
)
from chalicelib.repository.source import Source

_PULL: Final = "git-pull"
_PULL_LENGTH: Final = 2 * ADDRESS_LENGTH  # characters of all that nbgitpuller is given
_MOST_DECODINGS: Final = 3
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Link:
    """What a link asks for: a repository or an image to run, a repository of files, what to open; empty if not said."""

    source: Source | None = None
    image: str = ""
    content: Source | None = None
    open_path: str = ""


def parse_link(path: str, query: Mapping[str, str]) -> Link:
    """Read a Binder link, from `/v2/` on; raises ValueError, whose text completes "The link …".

    The path may have been decoded once; the query's values are decoded.
    """
    provider, _, spec = path.removeprefix("/v2/").partition("/")
    source = parse_spec(provider, spec)
    pull = _pull(query.get("urlpath", ""))
    if pull is None:
        return Link(source, open_path=opened(query))
    content = _field("repo", parse_repository, pull.get("repo", "")).source
    content = at_version(content, pull.get("branch", ""))
    return Link(source, content=content, open_path=_pulled_path(pull, content))


def launch_query(link: Link) -> str:
    """Write a link as the query of the hub's first page."""
    source, content = link.source, link.content
    fields = {
        "repo": written(source) if source else "",
        "ref": source.ref if source else "",
        "folder": source.folder if source else "",
        "image": link.image,
        "content": written(content) if content else "",
        "content_ref": content.ref if content else "",
        "open": link.open_path,
    }
    return urlencode({name: text for name, text in fields.items() if text}, safe="/:", quote_via=quote)


def _field(name: str, read: Callable[[str], _Value], text: str) -> _Value:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"has a “{name}” that {error}") from None


def _pull(url_path: str) -> Mapping[str, str] | None:
    """What nbgitpuller is asked for by a path of the notebook's server; None if it is another path."""
    if len(url_path) > _PULL_LENGTH:
        raise ValueError(f"is too long: at most {_PULL_LENGTH:,} characters are allowed in “urlpath”")
    path = url_path.lstrip("/")
    for _ in range(_MOST_DECODINGS):
        if "?" not in path:
            path = unquote(path)
    name, _, query = path.partition("?")
    if name.rstrip("/") != _PULL:
        return None
    # Links are copied out of HTML with their “&amp;”.
    return {name.removeprefix("amp;"): value for name, value in first_of_each(query).items()}


def _pulled_path(pull: Mapping[str, str], content: Source) -> str:
    """What to open of the files, which are in the content's folder here and not where nbgitpuller has them."""
    folder = content_folder(content)
    target = pull.get("targetpath") or pull.get("targetPath") or _last(pull["repo"])
    url_path = restored(pull.get("urlpath") or pull.get("urlPath") or "")
    within = pull.get("subpath") or pull.get("subPath") or ""
    parts = (opened_url(url_path) if url_path else f"{target}/{within}").split("/")
    for at, part in enumerate(parts):
        if part.lower() == target.lower():
            parts[at] = folder
            break
    return _field("urlpath", parse_open, "/".join(parts))


def _last(address: str) -> str:
    return restored(address).rstrip("/").rpartition("/")[2].removesuffix(".git")
