"""The root of every error Homeport raises on purpose. Each wing has its own family, beside the code that raises it.

An error says whose problem it is and what to do next. `status` (HTTP), `code` (a stable name that programs may rely
on), `title` (a few words for people) and `retryable` (the same request can succeed later) sit on the class. The code
follows from the class's name, so that there is one name to choose: `PullFailed` is `pull-failed`. So does the title,
"Pull failed", unless the class has better words for it. The message is written for the visitor: it names the file or
field and holds no key, token or file content.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

_PROPER: Final = {
    word.lower(): word
    for word in ("CA", "Docker", "Engine", "GPU", "HTTP", "Jupyter", "Kubernetes", "Linux", "PEM", "SSH", "TLS", "Unix")
}


class HomeportError(Exception):
    """The root: a defect or fault of the hub itself unless a subclass says otherwise."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something is wrong with this hub"
    retryable: ClassVar[bool] = False
    retry_after: int = 5  # seconds, if it is retryable

    def __init_subclass__(cls) -> None:
        words = re.findall("[A-Z][a-z0-9]*", cls.__name__)
        cls.code = "-".join(words).lower()
        if "title" in vars(cls):
            return
        shown = [_PROPER.get(word.lower(), word.lower()) for word in words]
        cls.title = " ".join([shown[0][:1].upper() + shown[0][1:], *shown[1:]])

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadConfiguration(HomeportError):
    """The hub's configuration is wrong; the message names the variable."""


class BadEnvelope(HomeportError):
    """A stored object is not what was sealed for this session: altered, swapped, or of an unknown version."""
