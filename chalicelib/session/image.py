"""An image's name: the reference grammar of the distribution project, and what an engine makes of a short name.

    reference = [ domain "/" ] path [ ":" tag ] [ "@" digest ]

What stands before the first slash is a domain if it has a dot or a colon, or is localhost; else the image is Docker
Hub's, docker.io, and one of a single component is in its library. (The grammar's newest version also takes a first part
with upper-case letters for a domain, which engines refuse; here it is refused for what it nearly always is, a mistake.)

Source: https://github.com/distribution/reference (regexp.go, reference.go, normalize.go) and go-digest's algorithms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT_DOMAIN: Final = "docker.io"
LONGEST: Final = 255  # characters of a path, and here of a domain too

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?", re.ASCII)
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", re.ASCII)
_IDENTITY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Image:
    """An image's name, complete: `tag` and `digest` are empty where none is named."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def version(self) -> str:
        """What an engine goes by: the digest if there is one, whatever the tag is; else the tag, which is "latest"."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.version}"


def parse_image(text: str) -> Image:
    """Take an image's name apart; raises ValueError, whose text completes "The image's name …"."""
    named, at, digest = text.partition("@")
    domain, path = _split(named)
    path, colon, tag = path.partition(":")
    if max(len(path), len(domain)) > LONGEST:
        raise ValueError(f"is too long: at most {LONGEST} characters are allowed")
    if path != path.lower() and _PATH.fullmatch(path.lower()):
        raise ValueError(f"must be in lower case: {_shown(path.lower())}")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise ValueError("must be an image's name such as quay.io/jupyter/scipy-notebook:latest")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError("must have after “@” a digest such as sha256: and 64 digits 0-9a-f")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError("must have after “:” a tag of at most 128 letters, digits, “_”, “.” and “-”")
    if _IDENTITY.fullmatch(text):
        raise ValueError("is an image's id; give its name, with the digest after “@” if it must be this one")
    return Image(domain, path, tag, digest)


def suggested_image(notebook: str, day: str) -> str:
    """Suggest what to call the image that a notebook is saved as on that day.

    Its domain is one that no engine pulls from: a stranger's image of the name can never take its place.
    """
    words = re.findall(r"[a-z0-9]+", notebook.lower())
    return f"localhost/{'-'.join(words) or 'notebook'}:{day}"


def image_to_save(text: str) -> str:
    """The name of an image that can be written; raises ValueError, whose text completes "The image's name …"."""
    if parse_image(text).digest:
        raise ValueError("must not have a digest after “@”, which only follows from the image that is written")
    return text


def is_image(text: str) -> bool:
    """Say whether a text is an image's name."""
    try:
        parse_image(text)
    except ValueError:
        return False
    return True


def is_pattern(text: str) -> bool:
    """Say whether a text can be a pattern: an image's name once each `*` stands for something, or a digest."""
    try:
        parse_image(text.replace("*", "x"))
    except ValueError:
        return _DIGEST.fullmatch(text) is not None
    return True


def is_allowed(image: Image, patterns: Iterable[str]) -> bool:
    """Say whether one of the patterns allows the image.

    A pattern is written as an image's name, with `*` for any characters of its part: domain, path, tag or digest.
    Without tag and digest it allows every version; with a tag only what the engine would choose by that tag, so nothing
    with a digest; a digest alone (`sha256:…`) allows what it names, under any name, and `*` alone everything.
    """
    return any(pattern in ("*", image.digest) or _allows(pattern, image) for pattern in patterns)


def _allows(pattern: str, image: Image) -> bool:
    """Compare part by part: what stands for a domain's characters must not reach into the path, nor a tag's beyond."""
    name, at, digest = pattern.partition("@")
    domain, path, tag = _parts(name)
    version = _matches(digest, image.digest) if at else not tag or (not image.digest and _matches(tag, image.version))
    return version and _matches(domain, image.domain) and _matches(path, image.path)


def _parts(name: str) -> tuple[str, str, str]:
    """Domain, path and tag of a name, or of a pattern for names: then a first part with a `*` is a domain."""
    first, slash, rest = name.partition("/")
    domain, path = (first, rest) if slash and "*" in first else _split(name)
    path, _, tag = path.partition(":")
    return domain, path, tag


def _split(named: str) -> tuple[str, str]:
    """Domain and the rest, completed as engines do."""
    first, slash, rest = named.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost"):
        first, rest = DEFAULT_DOMAIN, named
    if first == f"index.{DEFAULT_DOMAIN}":
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


def _shown(path: str) -> str:
    shown = path.removeprefix("library/")
    return shown if len(shown) <= 80 else "jupyter/scipy-notebook"
