"""What a version of Homeport is told to do (worker.py), and how that ended. Of no version itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Command:
    """What to do: "ask" with a POST, a "tick" of a `lane`, or the "schedule".

    Time is the machine's, and `offset` seconds. The process `dies` when a session is saved in a state: "before" or
    "after", and the state, with a "+" once its pull has got somewhere.
    """

    do: str
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""  # of a request in base64, of a message as it is
    lane: str = ""
    offset: float = 0.0
    dies: str = ""


@dataclass(slots=True)
class Outcome:
    """How it ended: the answer's `status` and `body`, or whether it was `killed` as it should be, or an `error`.

    `sent` are the addresses of queues to which messages were sent, or may have been.
    """

    status: int = 0
    body: str = ""
    killed: bool = False
    error: str = ""
    sent: list[str] = field(default_factory=list)
