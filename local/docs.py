"""Writes the pages of docs/ that are derived from the code: `python -m local.docs` (a test keeps them current)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from chalicelib import errors
from chalicelib.session import events
from chalicelib.session.machine import EFFECTS, PATIENCE, TRANSITIONS
from chalicelib.session.narration import MESSAGES
from chalicelib.session.values import PHASES, Phase, State

DOCS: Final = Path(__file__).parent.parent / "docs"
_ANY: Final = (events.EffectFailed, events.PatienceExpired, events.StopRequested, events.SessionExpired)


def pages() -> Mapping[str, str]:
    """The generated pages by file name."""
    return {"state-machine.md": state_machine(), "error-codes.md": error_codes()}


def state_machine() -> str:
    """The states, their effects and patience, and the diagram, from `chalicelib.machine`."""
    return "\n".join(
        [
            "# The state machine of a session",
            "",
            "Generated from `chalicelib/machine.py` by `make docs`; a test fails when it is not current.",
            "",
            "One state has one effect; each effect ends in one event; the event decides the next state. Any launching",
            "state, and `ready`, also leaves to `withdrawing` when the visitor stops the notebook, when an effect",
            "fails for good, when the endpoint stays silent for longer than the state's patience, and when the",
            "session's lifetime is over. An effect that may succeed later (`EffectDelayed`) is repeated.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> verifying",
            *(f"    {line}" for line in _arrows()),
            "    stopped --> [*]",
            "```",
            "",
            "| state | effect | patience | what the visitor reads |",
            "| --- | --- | --- | --- |",
            *(_row(state) for state in State),
            "",
        ]
    )


def _arrows() -> Iterator[str]:
    for state, row in TRANSITIONS.items():
        targets: dict[State, list[str]] = {}
        for event, target in row.items():
            if target is not state and not (event in _ANY and target is State.WITHDRAWING):
                targets.setdefault(target, []).append(event.__name__)
        for target, names in targets.items():
            yield f"{state} --> {target}: {', '.join(names)}"
        if state not in PHASES[Phase.LEAVING] and state is not State.STOPPED:
            yield f"{state} --> withdrawing"


def _row(state: State) -> str:
    effect = type(EFFECTS[state]).__name__ if state in EFFECTS else "–"
    patience = f"{PATIENCE[state]:.0f} s" if state in PATIENCE else "–"
    return f"| `{state}` | `{effect}` | {patience} | {MESSAGES[state]} |"


def error_codes() -> str:
    """Every stable code, from the tree in `chalicelib.errors`."""
    rows = {error.code: error for error in _tree(errors.HomeportError)}
    return "\n".join(
        [
            "# Error codes",
            "",
            "Generated from `chalicelib/errors.py` by `make docs`; a test fails when it is not current.",
            "",
            "Errors are `application/problem+json` (RFC 9457): `code` is stable, `detail` is a sentence for the",
            "visitor that says what to do next. A session's `error` has the same codes. *Later* means that the same",
            "request can succeed without being changed.",
            "",
            "| code | status | later | meaning |",
            "| --- | --- | --- | --- |",
            *(
                f"| `{code}` | {error.status} | {'yes' if error.retryable else 'no'} | {_meaning(error)} |"
                for code, error in sorted(rows.items())
            ),
            "",
        ]
    )


def _tree(error: type[errors.HomeportError]) -> Iterator[type[errors.HomeportError]]:
    yield error
    for child in error.__subclasses__():
        yield from _tree(child)


def _meaning(error: type[errors.HomeportError]) -> str:
    return " ".join((error.__doc__ or "").split("\n\n")[0].split())


def main() -> None:
    """Write every generated page."""
    for name, text in pages().items():
        (DOCS / name).write_text(text)
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
