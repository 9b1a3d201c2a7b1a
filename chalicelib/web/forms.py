"""What a visitor may type and send: the multipart form of an upload, its fields' values, and the form to sign out.

Pure: bytes and strings in, values or a refusal out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from chalicelib.session.values import Limits
from chalicelib.text import BLANK, one_line
from chalicelib.web.errors import BadField, BadForm, BadName, BodyTooLarge, MissingField

BODY_LIMIT: Final = 96 * 1024  # a bundle of at most 64 KiB, the other fields and their headers
SIGN_OUT_LIMIT: Final = 64  # bytes of a form to sign out
FIELDS: Final = frozenset({"credentials", "name", "host", "image", "memory", "cpus", "gpus", "open"})
NAME_LENGTH: Final = 63
SHOWN: Final = 40  # characters of an unknown field's name
SUGGESTED_NAME: Final = "my-notebook"

# The grammar of image references (the distribution project's reference.go), and its limit of 255 characters.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REGISTRY = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_REFERENCE = re.compile(
    rf"(?:{_REGISTRY}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)
_MEMORY = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*([kmgt]?)(i?b)?", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_LEAST_MEMORY: Final = 256 * 1024**2  # JupyterLab and one kernel do not start in less

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

    `open_path` is what to open in JupyterLab, below the work directory; empty for nothing in particular.
    """

    bundle: bytes = field(repr=False)
    name: str
    host: str | None
    image: str | None
    limits: Limits
    open_path: str


def parse_launch(content_type: str, body: bytes) -> Launch:
    """Parse the form of `POST /sessions` and `POST /bundles`; raises BadForm, BadField, BodyTooLarge."""
    fields = _fields(content_type, body)
    unknown = sorted(set(fields) - FIELDS)
    if unknown:
        raise BadField(f"Unknown field “{one_line(unknown[0], SHOWN)}”. The fields are: {', '.join(sorted(FIELDS))}")
    if "credentials" not in fields:
        raise MissingField("The file is missing: choose your credentials bundle in the field “credentials”")
    bundle = fields.pop("credentials").raw
    if not bundle:
        raise MissingField("The file in the field “credentials” is empty: choose your credentials bundle")
    texts = {name: _text(name, part) for name, part in fields.items()}
    return Launch(
        bundle=bundle,
        name=notebook_name(texts.get("name", "")),
        host=texts.get("host") or None,
        image=image_reference(texts["image"]) if texts.get("image") else None,
        limits=Limits(
            memory=memory_bytes(texts["memory"]) if texts.get("memory") else None,
            cpus=cpu_count(texts["cpus"]) if texts.get("cpus") else None,
            gpus=gpu_count(texts["gpus"]) if texts.get("gpus") else None,
        ),
        open_path=work_path(texts.get("open", "")),
    )


def parse_sign_out(content_type: str, body: bytes) -> bool:
    """Whether a form, or a JSON object, of `POST /sign-out` asks to sign out everywhere; raises BadForm, BadField."""
    as_json = content_type.partition(";")[0].strip().lower() == "application/json"
    try:
        text = body[: SIGN_OUT_LIMIT + 1].decode()
        pairs = json.loads(text or "{}", object_pairs_hook=list) if as_json else parse_qsl(text, keep_blank_values=True)
    except ValueError:
        raise BadForm("The form to sign out is malformed; send it again") from None
    if len(body) > SIGN_OUT_LIMIT or pairs not in ([], [("everywhere", "")], [("everywhere", "yes")]):
        raise BadField("To sign out, send the field “everywhere” alone: empty, or “yes”")
    return bool(pairs == [("everywhere", "yes")])


def notebook_name(text: str) -> str:
    """The name as typed, in Unicode's composed form; an empty one becomes the suggested one. Raises BadName."""
    typed = text.strip(" ")
    # Composing costs the square of the length in the worst case: what can only be too long is not composed.
    name = unicodedata.normalize("NFC", typed) if len(typed) <= _LONGEST_SPELLING else typed
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


def image_reference(text: str) -> str:
    """An image reference such as `quay.io/jupyter/scipy-notebook:2026-11-02`; raises BadField."""
    if len(text) > 255 or not _REFERENCE.fullmatch(text):
        raise BadField("The field “image” must be an image's name such as jupyter/scipy-notebook:latest")
    return text


def memory_bytes(text: str) -> int:
    """Bytes of memory from texts such as `2g`, `1.5 GiB` and `800m`; raises BadField."""
    match = _MEMORY.fullmatch(text)
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not _LEAST_MEMORY <= size <= 64 * 1024**4:
        raise BadField("The field “memory” must be a size of at least 256m, such as 2g")
    return size


def cpu_count(text: str) -> float:
    """A number of CPUs, hundredths allowed; raises BadField."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,2})?", text, re.ASCII) or float(text) == 0:
        raise BadField("The field “cpus” must be a number above 0, such as 2 or 0.5")
    return float(text)


def gpu_count(text: str) -> int:
    """A number of GPUs, or -1 for `all`; raises BadField."""
    if text.lower() == "all":
        return -1
    if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        raise BadField("The field “gpus” must be a whole number, or “all”")
    return int(text)


def work_path(text: str) -> str:
    """A file or folder below the work directory, to be opened on entering; raises BadField."""
    if len(text) > 200 or text.startswith("/") or "\\" in text or ".." in text.split("/"):
        raise BadField("The field “open” must be a path below the work directory, such as lessons/first.ipynb")
    return text


def _typable(c: str) -> bool:
    known = unicodedata.category(c) not in _UNTYPABLE or c in _JOINERS
    return c not in BLANK and (known or _YOUNG.match(c) is not None)


def _fields(content_type: str, body: bytes) -> dict[str, MultipartPart]:
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
            part_limit=16,
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
    return fields


def _text(name: str, part: MultipartPart) -> str:
    try:
        text: str = part.raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadField(f"The field “{name}” is not UTF-8 text") from None
    if name != "name" and not text.isprintable():
        raise BadField(f"The field “{name}” contains control or invisible characters")
    return text if name == "name" else text.strip()
