"""What a helper says in its log, believed as far as it can be: it runs on a stranger's machine.

Ordinary lines are the log. A line that begins with MARK holds a JSON object with an `answer` (chalicelib/helper.py):
how far it is, or, as its last one, how it ended. Whatever is not as it should be is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MARK: Final = "homeport "
ANSWER_LENGTH: Final = 2500  # characters; a helper's own limit is below
LOG_LENGTH: Final = 200_000  # characters
DETAIL_LENGTH: Final = 160  # of what is quoted of a failure
MOST_STEPS: Final = 10_000

_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:/+-]{0,199}", re.ASCII)
_CODE: Final = re.compile(r"[a-z]{2,20}(?:-[a-z]{1,20}){0,4}", re.ASCII)
_NUMBER: Final = re.compile(r"#[0-9]+ (?:[0-9]+\.[0-9]+ )?", re.ASCII)  # BuildKit's, of a step and when it was said
# What the classic builder says between what a person wants to read.
_NOISE: Final = re.compile(r"|-+> (?:Running in )?[0-9a-f]{12}|Removing intermediate container [0-9a-f]{12}", re.ASCII)
_ENDS: Final = frozenset({"resolved", "built", "cloned", "failed"})
CLONED: Final[Mapping[str, str]] = {
    "new": "The files are in your work folder",
    "updated": "The files in your work folder were brought up to date; you had changed none of them",
    "current": "The files in your work folder are up to date",
    "kept": "Your work folder has these files already, and you have changed some: all are left as they are",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a helper's log says by now: its last answer that ends it, how far it is (0 to 1), and its last line."""

    end: Mapping[str, Any] | None = None
    fraction: float | None = None
    line: str = ""

    @property
    def failure(self) -> tuple[str, str]:
        """Code and detail of a failure; both empty if it told none."""
        end = self.end or {}
        code, detail = end.get("code"), end.get("detail")
        if end.get("answer") != "failed" or not isinstance(code, str) or not _CODE.fullmatch(code):
            return "", ""
        return code, detail if isinstance(detail, str) else ""

    def versions(self, count: int) -> tuple[str, ...] | None:
        """The versions of so many sources; None if it does not say them."""
        found = (self.end or {}).get("versions")
        if not isinstance(found, list) or len(found) != count:
            return None
        good = all(isinstance(version, str) and _VERSION.fullmatch(version) for version in found)
        return tuple(found) if good else None

    def addresses(self, count: int) -> tuple[str, ...]:
        """The addresses at which so many sources are by now; none if it does not say them."""
        found = (self.end or {}).get("addresses")
        if not isinstance(found, list) or len(found) != count or not all(isinstance(one, str) for one in found):
            return ()
        return tuple(found)

    @property
    def free_disk(self) -> int | None:
        """Bytes that are free where the engine keeps its data; None if it does not say it."""
        free = (self.end or {}).get("disk")
        return free if type(free) is int and 0 <= free < 1 << 60 else None

    @property
    def cloned(self) -> str:
        """What became of the content's files, as a sentence; empty if it does not say it."""
        state = (self.end or {}).get("state")
        return CLONED.get(state, "") if isinstance(state, str) else ""


def report_of(log: str) -> Report:
    """Read a helper's log, or the end of it: its last LOG_LENGTH characters say all there is."""
    if len(log) > LOG_LENGTH:
        log = log[-LOG_LENGTH:].partition("\n")[2]  # what is left of a cut line is no line
    end: Mapping[str, Any] | None = None
    fraction: float | None = None
    line = ""
    for text in log.split("\n"):  # no other character ends a line: what a repository prints must not begin one
        answer = _answer(text)
        if answer is None:
            said = _NUMBER.sub("", text.strip())
            line = line if _NOISE.fullmatch(said) else said
        elif answer.get("answer") == "step":
            fraction = _fraction(answer) if _fraction(answer) is not None else fraction
        elif answer.get("answer") in _ENDS:
            end = answer
    return Report(end, fraction, line)


def _answer(text: str) -> Mapping[str, Any] | None:
    if not text.startswith(MARK) or len(text) > ANSWER_LENGTH:
        return None
    try:
        found = json.loads(text.removeprefix(MARK))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("answer"), str) else None


def _fraction(answer: Mapping[str, Any]) -> float | None:
    done, of = answer.get("done"), answer.get("of")
    if type(done) is not int or type(of) is not int or not 0 <= done <= of <= MOST_STEPS or of == 0:
        return None
    return done / of
