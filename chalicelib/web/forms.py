"""What a visitor may type and send: the multipart form of an upload, its fields' values, and the form to sign out.

Pure: bytes and strings in, values or a refusal out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from chalicelib.repository.address import (
    Asked,
    content_folder,
    parse_folder,
    parse_open,
    parse_ref,
    parse_repository,
    suggested_name,
)
from chalicelib.repository.source import Source
from chalicelib.repository.tag import is_built
from chalicelib.session.image import image_to_save, parse_image
from chalicelib.session.options import data_folder, ports, shown_size, size_of, variables
from chalicelib.session.values import ALL_IMAGES, Limits, Options, PullPolicy
from chalicelib.text import BLANK, one_line
from chalicelib.web.errors import BadField, BadForm, BadName, BodyTooLarge, MissingField

BODY_LIMIT: Final = 96 * 1024  # a bundle of at most 64 KiB, the other fields and their headers
SIGN_OUT_LIMIT: Final = 64  # bytes of a form of one button
SAVE_LIMIT: Final = 1024  # bytes of a form of one image's name
FIELDS: Final = frozenset(
    {
        "credentials",
        "name",
        "host",
        "what",
        "image",
        "repo",
        "ref",
        "folder",
        "content",
        "content_ref",
        "pull",
        "memory",
        "cpus",
        "gpus",
        "shm",
        "data",
        "env",
        "port",
        "open",
        "keep",
    }
)
LINK_FIELDS: Final = ("repo", "ref", "folder", "content", "content_ref", "image", "open", "name")
_UNCHOSEN: Final[Mapping[str, tuple[str, ...]]] = {"repository": ("image",), "image": ("repo", "ref", "folder")}
DELETION_FIELDS: Final = frozenset({"name", "credentials"})
NAME_LENGTH: Final = 63
SHOWN: Final = 40  # characters of an unknown field's name
SUGGESTED_NAME: Final = "my-notebook"
_Value = TypeVar("_Value")

_SIZES: Final = {  # the least and the most that makes sense
    "memory": (256 * 1024**2, 64 * 1024**4),  # JupyterLab and one kernel do not start in less
    "shm": (1024**2, 64 * 1024**4),
}

# Joiners spell words in several scripts and make emoji; every other format character only hides or reorders text. One
# beside another, or between nothing but ASCII, joins nothing and cannot be seen.
_JOINERS: Final = frozenset("\u200c\u200d")
_IDLE_JOINER: Final = re.compile("[\u200c\u200d]{2}|(?<![^\x00-\x7f])[\u200c\u200d](?![^\x00-\x7f])")
_UNTYPABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Emoji and ideographs may be younger than Python's table of characters; these blocks are set aside for nothing else.
_YOUNG: Final = re.compile("[\U0001f000-\U0001faff\U00020000-\U0002fffd\U00030000-\U0003fffd]")
_LONGEST_SPELLING: Final = 4 * NAME_LENGTH  # a character has at most four parts when it is spelled out (UAX #15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An upload, its fields checked; `image` and `host` are None where nothing was asked for.

    `repository` is built and launched instead of an image, and the files of `content` are put into the work folder.
    `open_path` is what to open: below the work directory in JupyterLab, or with a `/` before it whatever the notebook's
    server has there; empty for nothing in particular. `environment`
    has the values of the variables that `options` names. `keep`: the credentials are kept after it has stopped.
    """

    bundle: bytes = field(repr=False)
    name: str
    host: str | None
    image: str | None
    repository: Source | None = None
    content: Source | None = None
    limits: Limits
    options: Options = field(default_factory=Options)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    open_path: str
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an address fills the form with: as the fields of a Launch, empty where it says nothing."""

    repository: Source | None
    content: Source | None
    image: str
    open_path: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """That a notebook is to be deleted: its name, as it was typed for that, and the bundle if the hub needs it."""

    name: str
    bundle: bytes | None = field(default=None, repr=False)


def parse_launch(content_type: str, body: bytes) -> Launch:
    """Parse the form of `POST /sessions` and `POST /bundles`; raises BadForm, BadField, BodyTooLarge."""
    fields = _fields(content_type, body, FIELDS)
    if "credentials" not in fields:
        raise MissingField("The file is missing: choose your credentials bundle in the field “credentials”")
    bundle = fields.pop("credentials").raw
    if not bundle:
        raise MissingField("The file in the field “credentials” is empty: choose your credentials bundle")
    texts = _chosen({name: text for name, part in fields.items() if (text := _text(name, part))})
    environment = _read("env", variables, texts) or {}
    repository, content = _source("repo", "ref", texts), _source("content", "content_ref", texts)
    _check_together(texts, repository)
    return Launch(
        bundle=bundle,
        name=notebook_name(texts.get("name", "") or _suggested(repository, content)),
        host=texts.get("host"),
        image=_read("image", image_reference, texts),
        repository=repository.source if repository else None,
        content=content.source if content else None,
        limits=Limits(
            memory=_read("memory", memory_bytes, texts),
            cpus=_read("cpus", cpu_count, texts),
            gpus=_read("gpus", gpu_count, texts),
            shm=_read("shm", shm_bytes, texts),
        ),
        options=Options(
            data=_read("data", data_folder, texts),
            environment=tuple(environment),
            ports=_read("port", ports, texts),
            pull=_read("pull", pull_policy, texts) or PullPolicy.MISSING,
        ),
        environment=environment,
        open_path=_read("open", parse_open, texts) or _opened(repository, content),
        keep=_read("keep", yes, texts) or False,
    )


def parse_wanted(texts: Mapping[str, str]) -> Wanted:
    """Read what an address fills the form with, from those of LINK_FIELDS that it has; raises BadField.

    A notebook's name is shown as it is: it is looked at when it is launched.
    """
    name = texts.get("name", "")
    texts = {field: text for field in LINK_FIELDS if (text := texts.get(field, "").strip())}
    repository, content = _source("repo", "ref", texts), _source("content", "content_ref", texts)
    _check_together(texts, repository)
    return Wanted(
        repository=repository.source if repository else None,
        content=content.source if content else None,
        image=_read("image", image_reference, texts) or "",
        open_path=_read("open", parse_open, texts) or _opened(repository, content),
        name=name,
    )


def _chosen(texts: Mapping[str, str]) -> Mapping[str, str]:
    """The fields without those of what was not chosen, which a page does not show then; raises BadField."""
    what = texts.get("what", "")
    if not what:
        return texts
    if what not in _UNCHOSEN:
        raise BadField(f"The field “what” must be one of {', '.join(_UNCHOSEN)}, or be left out")
    if what == "repository" and "repo" not in texts:
        raise MissingField("The repository is missing: fill in its address, or choose an image")
    return {name: text for name, text in texts.items() if name not in _UNCHOSEN[what]}


def _source(field_name: str, ref_name: str, texts: Mapping[str, str]) -> Asked | None:
    """A repository of the form, with the version and the folder that other fields say; raises BadField."""
    asked = _read(field_name, parse_repository, texts)
    ref = _read(ref_name, parse_ref, texts)
    folder = _read("folder", parse_folder, texts) if field_name == "repo" else None
    if asked is None:
        if ref or folder:
            raise BadField(f"The field “{ref_name if ref else 'folder'}” needs a repository in “{field_name}”")
        return None
    source = asked.source
    if ref and not source.takes_ref:
        raise BadField(f"The field “{ref_name}” is for Git repositories; this one's address says its version")
    return replace(asked, source=replace(source, ref=ref or source.ref, folder=folder or source.folder))


def _check_together(texts: Mapping[str, str], repository: Asked | None) -> None:
    """Refuse fields that say two things, or nothing for this launch; raises BadField."""
    if repository and "image" in texts:
        raise BadField("Fill in an image or a repository, not both. Files for an image's work folder go into “content”")
    if repository and "pull" in texts and texts["pull"] != PullPolicy.MISSING:
        raise BadField("The field “pull” is for images; a repository is built when its version is not there")


def _suggested(repository: Asked | None, content: Asked | None) -> str:
    """What a notebook is called if its visitor does not say it: two repositories share no volume by chance."""
    asked = repository or content
    return suggested_name(asked.source) if asked else ""


def _opened(repository: Asked | None, content: Asked | None) -> str:
    """What the repository's own address says to open."""
    if content:
        return f"{content_folder(content.source)}/{content.open_path}".rstrip("/") if content.open_path else ""
    return repository.open_path if repository else ""


def parse_deletion(content_type: str, body: bytes) -> Deletion:
    """Parse the form of `POST /sessions/{id}/delete`; raises BadForm, BadField, BodyTooLarge."""
    fields = _fields(content_type, body, DELETION_FIELDS)
    bundle = fields.pop("credentials").raw if "credentials" in fields else None
    texts = {name: text for name, part in fields.items() if (text := _text(name, part))}
    return Deletion(name=_composed(texts.get("name", "")), bundle=bundle or None)


def parse_choice(content_type: str, body: bytes, name: str) -> bool | None:
    """What a form, or a JSON object, of one field says: True for “yes”, False for an empty one, None without it.

    A page's box has an empty field before it, for when it is not ticked. Raises BadForm, BadField.
    """
    pairs = _pairs(content_type, body, SIGN_OUT_LIMIT)
    no, asked_for = (name, ""), (name, "yes")
    if len(body) > SIGN_OUT_LIMIT or pairs not in ([], [no], [asked_for], [no, asked_for]):
        raise BadField(f"The only field here is “{name}”: empty, or “yes”")
    return pairs[-1] == asked_for if pairs else None


def parse_save(content_type: str, body: bytes) -> str:
    """The image that a form, or a JSON object, asks a notebook to be saved as; raises BadForm, BadField."""
    pairs = _pairs(content_type, body, SAVE_LIMIT)
    match pairs:
        case [("image", str(text))] if len(body) <= SAVE_LIMIT and text.strip():
            pass
        case _:
            raise BadField("The only field here is “image”: what the image is to be called")
    try:
        return image_to_save(text.strip())
    except ValueError as error:
        raise BadField(f"The field “image” {error}") from None


def parse_removal(content_type: str, body: bytes) -> str:
    """The image that a form, or a JSON object, asks to be removed, or ALL_IMAGES; raises BadForm, BadField."""
    match _pairs(content_type, body, SAVE_LIMIT):
        case [("image", str(text))] if len(body) <= SAVE_LIMIT and (text == ALL_IMAGES or is_built(text)):
            return text
        case _:
            raise BadField("The only field here is “image”: one that was built here, by its name, or “all”")


def _pairs(content_type: str, body: bytes, limit: int) -> Any:
    """The names and values of a button's form, or of a JSON object, from the first `limit` bytes; raises BadForm."""
    as_json = content_type.partition(";")[0].strip().lower() == "application/json"
    try:
        text = body[: limit + 1].decode()
        return json.loads(text or "{}", object_pairs_hook=list) if as_json else parse_qsl(text, keep_blank_values=True)
    except (ValueError, RecursionError):
        raise BadForm("The form is malformed; send it again") from None


def notebook_name(text: str) -> str:
    """The name as typed, in Unicode's composed form; an empty one becomes the suggested one. Raises BadName."""
    name = _composed(text)
    if not name:
        return SUGGESTED_NAME
    if len(name) > NAME_LENGTH:
        raise BadName(f"The notebook's name has {len(name)} characters; at most {NAME_LENGTH} are allowed")
    if not all(_typable(c) for c in name) or _IDLE_JOINER.search(name):
        raise BadName("The notebook's name contains a control or invisible character; retype it, in any script")
    if any(c.isspace() and c != " " for c in name):
        raise BadName("The notebook's name contains a space of an unusual kind; use the ordinary one")
    if not any(_YOUNG.match(c) or unicodedata.category(c)[0] in "LNPS" for c in name):
        raise BadName("The notebook's name has no visible characters; type at least one letter, digit or sign")
    return name


def _composed(text: str) -> str:
    """A name in Unicode's composed form, without spaces around it."""
    typed = text.strip(" ")
    # Composing costs the square of the length in the worst case: what can only be too long is not composed.
    return unicodedata.normalize("NFC", typed) if len(typed) <= _LONGEST_SPELLING else typed


def yes(text: str) -> bool:
    """Whether a box is ticked; raises ValueError."""
    if text != "yes":
        raise ValueError("must be “yes”, or be left out")
    return True


def image_reference(text: str) -> str:
    """An image's name such as `quay.io/jupyter/scipy-notebook:2026-11-02`, as it was typed; raises ValueError."""
    parse_image(text)
    return text


def memory_bytes(text: str) -> int:
    """Bytes of memory from texts such as `2g`, `1.5 GiB` and `800m`; raises ValueError."""
    return _size_of("memory", text)


def shm_bytes(text: str) -> int:
    """Bytes of shared memory; raises ValueError."""
    return _size_of("shm", text)


def cpu_count(text: str) -> float:
    """A number of CPUs, hundredths allowed; raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,2})?", text, re.ASCII) or float(text) == 0:
        raise ValueError("must be a number above 0, such as 2 or 0.5")
    return float(text)


def gpu_count(text: str) -> int:
    """A number of GPUs, or -1 for `all`; raises ValueError."""
    if text.lower() == "all":
        return -1
    if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        raise ValueError("must be a whole number, or “all”")
    return int(text)


def pull_policy(text: str) -> PullPolicy:
    """When the image is to be pulled; raises ValueError."""
    if text not in list(PullPolicy):
        raise ValueError(f"must be one of {', '.join(PullPolicy)}")
    return PullPolicy(text)


def _size_of(name: str, text: str) -> int:
    size, (least, most) = size_of(text), _SIZES[name]
    if not least <= size <= most:
        raise ValueError(f"must be a size from {shown_size(least)} to {shown_size(most)}, such as 2g")
    return size


def _read(name: str, read: Callable[[str], _Value], texts: Mapping[str, str]) -> _Value | None:
    """Read a field, if it was filled in; raises BadField, which completes the reader's sentence."""
    if name not in texts:
        return None
    try:
        return read(texts[name])
    except ValueError as error:
        raise BadField(f"The field “{name}” {error}") from None


def _typable(c: str) -> bool:
    known = unicodedata.category(c) not in _UNTYPABLE or c in _JOINERS
    return c not in BLANK and (known or _YOUNG.match(c) is not None)


def _fields(content_type: str, body: bytes, known: frozenset[str]) -> dict[str, MultipartPart]:
    if len(body) > BODY_LIMIT:
        raise BodyTooLarge("The upload is larger than 96 KiB. A bundle of credentials is at most 64 KiB")
    kind, options = parse_options_header(content_type)
    if kind.lower() != "multipart/form-data" or not options.get("boundary"):
        raise BadForm("The request must be multipart/form-data with a boundary, as a browser's form sends it")
    fields: dict[str, MultipartPart] = {}
    try:
        parser = MultipartParser(
            BytesIO(body),
            options["boundary"],
            content_length=len(body),
            strict=True,
            part_limit=24,
            spool_limit=BODY_LIMIT,
            memory_limit=BODY_LIMIT,
            disk_limit=0,
        )
        for part in parser:
            if part.name in fields:
                raise BadField(f"The field “{one_line(part.name, SHOWN)}” appears twice; send it once")
            fields[part.name] = part
    except (MultipartError, UnicodeError, ValueError) as error:
        raise BadForm("The form is cut off or malformed; send it again") from error
    if unknown := sorted(set(fields) - known):
        raise BadField(f"Unknown field “{one_line(unknown[0], SHOWN)}”. The fields are: {', '.join(sorted(known))}")
    return fields


def _text(name: str, part: MultipartPart) -> str:
    try:
        text: str = part.raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadField(f"The field “{name}” is not UTF-8 text") from None
    if name == "env":  # lines, whose values are looked at one by one; what is no text at their ends is part of them
        return text if text.strip() else ""
    if name != "name" and not text.isprintable():
        raise BadField(f"The field “{name}” contains control or invisible characters")
    return text if name == "name" else text.strip()
