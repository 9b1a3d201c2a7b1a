"""Writes what the documentation takes from the code: `make docs`, or `python -m docs.generate`.

Whole pages (docs/state-machine.md, docs/error-codes.md) and sections of other pages, each between a line
`<!-- generated: name -->` and a line `<!-- end -->`: the tables of variables and the graph of imports. A test
(tests/unit/test_docs.py) fails when any of it is not current.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from textwrap import fill
from typing import Any, Final

import chalicelib
import infra.api
import infra.request
import local.settings
import proxy.settings
from chalicelib.config import Config
from chalicelib.environment import Variable, variables
from chalicelib.errors import HomeportError
from chalicelib.session import events
from chalicelib.session.machine import (
    BUILD_SLACK,
    EFFECTS,
    HELPER_PAUSE,
    HELPER_PAUSE_LIMIT,
    HUB_OUTAGE_ALLOWANCE,
    PATIENCE,
    RESOLVE_SECONDS,
    TRANSITIONS,
    PullPatience,
    new_session,
    next_effect,
)
from chalicelib.session.narration import MESSAGES
from chalicelib.session.values import Limits, Session, State
from infra.proxy_step import ProxyOptions

ROOT: Final = Path(__file__).resolve().parent.parent
_WIDTH: Final = 110
_ANY: Final = (
    events.EffectFailed,
    events.PatienceExpired,
    events.StopRequested,
    events.AgainRequested,
    events.DeleteRequested,
    events.SessionExpired,
)
# The states whose effect depends on more than the state: when it is another one, and what the session is then.
_ANOTHER_EFFECT: Final[Mapping[State, tuple[str, Mapping[str, Any]]]] = {
    State.PULLING: ("once the pull is admitted", {"admitted": True}),
    State.PURGING: ("if they are to be kept", {"keeps": True}),
}


def pages(root: Path = ROOT) -> Mapping[str, str]:
    """The pages that are generated as a whole or in part, by their path below `root`."""
    return {
        "docs/state-machine.md": state_machine(),
        "docs/error-codes.md": error_codes(),
        "docs/architecture.md": _with_section(root / "docs/architecture.md", "imports", import_graph(root)),
        "docs/operations.md": _with_section(root / "docs/operations.md", "configuration", deployment_variables()),
        "docs/deploy-proxy.md": _with_section(root / "docs/deploy-proxy.md", "options", proxy_step_variables()),
        "docs/http.md": _with_section(root / "docs/http.md", "gateway", gateway_answers()),
        "README.md": _with_section(root / "README.md", "configuration", hub_variables()),
        "proxy/README.md": _with_section(root / "proxy/README.md", "configuration", proxy_variables()),
    }


def _with_section(page: Path, name: str, content: str) -> str:
    """The page with the section of that name replaced; its markers have to be there."""
    begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->\n"
    before, _found, rest = page.read_text().partition(begin)
    _old, ended, after = rest.partition(end)
    assert ended, f"{page} has no section {name!r}"
    return f"{before}{begin}{content}{end}{after}"


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# ── the state machine ────────────────────────────────────────────────────────────────────────────────────────────


def state_machine() -> str:
    """The states, their effects and patience, and the diagram, from `chalicelib.session.machine`."""
    pulls = PullPatience()
    return "\n".join(
        [
            "# The state machine of a session",
            "",
            "Generated from `chalicelib/session/` (machine, narration, values) by `make docs`; a test compares.",
            "",
            _paragraph(
                "A session has one effect at a time, which its state decides; each effect ends in one event; the "
                "event decides the next state. Any launching state, `ready`, `republishing`, `saving` and "
                "`forgetting` also leave to `withdrawing` when the visitor stops, restarts or deletes the notebook, "
                "when an effect fails for good, when the endpoint stays silent for longer than the state's patience, "
                "and when the session's lifetime is over; but what fails or takes too long in `saving` leads back to "
                "`ready`. An effect that may succeed later (`EffectDelayed`), or whose turn has not come (`Queued`), "
                "is repeated."
            ),
            _paragraph(
                "In `pulling` the image is looked for first. If it is not there, the launch needs a slot: without one "
                "it waits and looks again, with one (`PullAdmitted`) it pulls."
            ),
            _paragraph(
                "Credentials that their visitor wants kept, or that the next launch needs, are not deleted in "
                "`purging`: it leads to `kept`, from where a launch begins again (`LaunchedAgain`) with the number "
                "after, or which ends when the session would have expired. What is to be deleted with its volume comes "
                "to `removing`, wherever it is. A launch that finds its own notebook running on the endpoint, which "
                "the hub's table has lost, goes on with that one (`NotebookFound`)."
            ),
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> verifying",
            *(f"    {line}" for line in _transitions()),
            "    stopped --> [*]",
            "```",
            "",
            _table(("state", "effect", "patience", "what the visitor reads"), map(_state, State)),
            _paragraph(
                "Patience is counted from the first attempt that failed; any news from the endpoint ends it. While no "
                f"attempt has failed since the last news, {_duration(HUB_OUTAGE_ALLOWANCE)} are added, since the hub "
                "itself may have been down; what its own stores fail of counts for no attempt. A launch whose "
                "turn does not come in another state than `pulling` gets as "
                "much; one whose endpoint was silent before is asked once more before it is given up."
            ),
            _paragraph(
                "`pulling` has two limits of its own: a pull that gets no further for "
                f"{_duration(pulls.stalled)} is given up (`HOMEPORT_PULL_STALL_MINUTES`), and so is a launch that has "
                f"been in `pulling` for {_duration(pulls.longest)}, waiting for its turn included "
                "(`HOMEPORT_PULL_HOURS`)."
            ),
            _paragraph(
                "In `resolving`, `building` and `cloning` a helper is at work: a container on the visitor's endpoint "
                "([ADR 20](adr/0020-repositories.md)). The effect starts the helper or finds it, and ends within "
                "seconds, with `HelperStarted` or `HelperProgressed` while the helper goes on. It is looked at again "
                f"after {HELPER_PAUSE:.0f} to {HELPER_PAUSE_LIMIT:.0f} seconds: the longer it works, the later. "
                "Patience is for an endpoint that does not answer. The helper has a limit of its own: "
                f"{RESOLVE_SECONDS:.0f} seconds in `resolving`, {_duration(pulls.build)} in `building` and in "
                "`cloning` (`HOMEPORT_BUILD_MINUTES`). The helper that builds keeps it by itself; any is given up "
                f"{_duration(BUILD_SLACK)} after it. Two launches of one version have one helper in `building`, and "
                "wait for its image."
            ),
            "## How it is checked",
            "",
            _paragraph(
                "`tests/history.py` reads a history: each version of a session that was saved, each container that was "
                "created, started or removed, each route and all credentials that were written or taken away. It "
                "checks the rules at every point of it and not at its end alone: no version is left out, no transition "
                "is made up, no two containers of one session, no route without a container, nothing left when it is "
                "stopped. What it judges was done by the launcher, while it was killed, paused, told everything "
                "several times, or without one of AWS's services: in memory (`tests/unit/test_any_order.py`, "
                "`test_outages.py`), and on a real engine, whose own event log is part of the history "
                "(`make chaos SEEDS=1000`)."
            ),
        ]
    )


def _transitions() -> Iterator[str]:
    for state, row in TRANSITIONS.items():
        targets: dict[State, list[str]] = {}
        for event, target in row.items():
            if target is not state and not (event in _ANY and target is State.WITHDRAWING):
                targets.setdefault(target, []).append(event.__name__)
        for target, names in targets.items():
            yield f"{state} --> {target}: {', '.join(names)}"
        if state is not State.WITHDRAWING and State.WITHDRAWING in row.values():
            yield f"{state} --> withdrawing"


def _state(state: State) -> tuple[str, ...]:
    effect = f"`{type(EFFECTS[state]).__name__}`" if state in EFFECTS else "–"
    if state in _ANOTHER_EFFECT:
        when, changes = _ANOTHER_EFFECT[state]
        effect += f"; {when} `{type(next_effect(replace(_a_session(), state=state, **changes))).__name__}`"
    patience = f"{PATIENCE[state]:.0f} s" if state in PATIENCE else "–"
    return f"`{state}`", effect, patience, MESSAGES[state]


def _a_session() -> Session:
    """Any session: what the page says of it is decided by its state."""
    return new_session(
        owner="0" * 64,
        name="any",
        endpoint="any",
        image="any",
        limits=Limits(),
        now=0.0,
        lifetime=1.0,
        request="any",
        label="any",
    )


def _paragraph(text: str) -> str:
    """A paragraph in lines of the pages' width, and the empty line after it."""
    return f"{fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)}\n"


def _duration(seconds: float) -> str:
    """A default as it is spoken of: whole hours from two hours on, else minutes."""
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"


# ── error codes ──────────────────────────────────────────────────────────────────────────────────────────────────

# The families, by the module that holds them: heading, and who raises it when.
FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "web.errors": ("Requests", "The web function, about the request itself or the moment it comes at."),
    "bundle.errors": (
        "Bundles and endpoints' addresses",
        "The web function while it reads an upload; a forbidden address also the launcher, which checks what the "
        "endpoint's name resolves to before each connection.",
    ),
    "engine.errors": ("The visitor's endpoint", "The launcher, when the Docker engine or the notebook fails it."),
    "launcher.helped": ("Repositories", "The launcher, when what resolves, builds or clones on the endpoint fails."),
    "launcher.errors": ("Launching", "The launcher, about a session that cannot go on."),
    "aws.errors": (
        "The hub's own stores",
        "The web function and the launcher, when AWS or what is stored there fails.",
    ),
    "session.errors": ("The state machine", "Nobody, unless Homeport has a defect."),
    "errors": ("The hub itself", "Any part, about the hub's own configuration and state."),
}


def error_codes() -> str:
    """Every stable code, grouped by the wing that raises it."""
    found: dict[str, list[type[HomeportError]]] = {family: [] for family in FAMILIES}
    for error in all_errors():
        found[error.__module__.removeprefix("chalicelib.")].append(error)
    return "\n".join(
        [
            "# Error codes",
            "",
            "Generated from the error classes of `chalicelib` by `make docs`; a test fails when it is not current.",
            "",
            "Errors are `application/problem+json` (RFC 9457): `code` is stable, `title` is for people, and `detail`",
            "is a sentence for the visitor that says what to do next. *Later* means that the same request can succeed",
            "without being changed. A session's `error` has the same codes, and five that no request is answered with:",
            "`session-unreadable` (the hub cannot read what it stored of the session), `<state>-timed-out` (nothing",
            "was heard for longer than the state's patience, not even a problem), `pull-stalled` and `pull-too-long`",
            "(the limits on a pull), and `kept-waiting` (its turn among others of its owner or network did not come).",
            "",
            *(_family(family, errors) for family, errors in found.items()),
        ]
    )


def _family(family: str, errors: list[type[HomeportError]]) -> str:
    heading, raised_by = FAMILIES[family]
    file = f"`chalicelib/{family.replace('.', '/')}.py`"
    rows = map(_error, sorted(errors, key=lambda error: error.code))
    return f"## {heading}\n\n{raised_by} Defined in {file}.\n\n" + _table(
        ("code", "title", "status", "later", "meaning"), rows
    )


def _error(error: type[HomeportError]) -> tuple[str, ...]:
    meaning = " ".join((error.__doc__ or "").split("\n\n")[0].split())
    return f"`{error.code}`", error.title, str(error.status), "yes" if error.retryable else "no", meaning


def all_errors() -> list[type[HomeportError]]:
    """Every error class of chalicelib, whichever of its modules holds it."""
    for module in walk_packages(chalicelib.__path__, "chalicelib."):
        import_module(module.name)
    return [error for error in _tree(HomeportError) if error.__module__.startswith("chalicelib.")]


def _tree(error: type[HomeportError]) -> Iterator[type[HomeportError]]:
    yield error
    for child in error.__subclasses__():
        yield from _tree(child)


# ── variables ────────────────────────────────────────────────────────────────────────────────────────────────────

_COLUMNS: Final = ("variable", "default", "meaning")


def hub_variables() -> str:
    """What may be chosen for a hub, wherever it runs, and for `make run`."""
    chosen = [known for known in variables(Config) if not known.output]
    return _table(_COLUMNS, map(_variable, (*chosen, *variables(local.settings.Settings))))


def proxy_variables() -> str:
    """What the proxy reads."""
    return _table(_COLUMNS, map(_variable, variables(proxy.settings.Settings)))


def proxy_step_variables() -> str:
    """What the proxy's part of a deployment reads."""
    return _table(_COLUMNS, map(_variable, variables(ProxyOptions)))


def deployment_variables() -> str:
    """What the functions read, as a deployment sets it."""
    read = sorted(variables(Config), key=lambda known: bool(known.output))
    chosen = sum(not known.output for known in read)
    return _table(_COLUMNS, map(_deployed, (*read[:chosen], *infra.request.OF_DEPLOYMENT, *read[chosen:])))


def gateway_answers() -> str:
    """What API Gateway answers before the hub is asked; each once, however many kinds it has of it."""
    answers = dict.fromkeys(infra.api.ANSWERS.values())
    return _table(
        ("code", "status", "when"),
        ((f"`{one.code}`", str(one.status or "its own"), f"{one.title}: {one.detail}") for one in answers),
    )


def _variable(variable: Variable[Any]) -> tuple[str, ...]:
    default = variable.note or (f"`{variable.default}`" if variable.default else "–")
    return f"`{variable.name}`", default, variable.meaning


def _deployed(variable: Variable[Any]) -> tuple[str, ...]:
    name, default, meaning = _variable(variable)
    default = "set by the deployment" if variable.output else infra.request.DEFAULTS.get(variable.name, default)
    return name, default, meaning


# ── imports ──────────────────────────────────────────────────────────────────────────────────────────────────────

BASE: Final = ("environment", "errors", "text")  # values that every wing may use: one node
ALONE: Final = ("app", "proxy")
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "edge": ("wiring", "web", "launcher", "aws", "engine", "config"),
    "pure": ("notebook", "metrics", "tracing", "session", "bundle", "repository", "base"),
}


def import_graph(root: Path = ROOT) -> str:
    """The imports between the wings as a Mermaid flowchart, from the code as it is."""
    lines = ["```mermaid", "flowchart TD", *(f"    {_node(wing)}" for wing in ALONE)]
    for group, wings in GROUPS.items():
        lines += [f"    subgraph {group}", *(f"        {_node(wing)}" for wing in wings), "    end"]
    lines += [f"    {source} --> {target}" for source, target in sorted(wing_imports(root))]
    return "\n".join([*lines, "```", ""])


def _node(wing: str) -> str:
    return {"base": f"base[{', '.join(BASE)}]", "app": "app[app.py]"}.get(wing, wing)


def wing_imports(root: Path = ROOT) -> set[tuple[str, str]]:
    """Which wing imports which other one, as pairs; app.py and proxy/ are the wings outside chalicelib."""
    files = [root / "app.py", *(root / "chalicelib").rglob("*.py"), *(root / "proxy").rglob("*.py")]
    found = {
        (_wing(".".join(file.relative_to(root).with_suffix("").parts)), _wing(module))
        for file in files
        for module in imported(file)
        if module.startswith("chalicelib.")
    }
    return {(source, target) for source, target in found if source != target}


def imported(file: Path) -> Iterator[str]:
    """The modules (and their members) that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)


def _wing(module: str) -> str:
    top, *rest = module.split(".")
    if top != "chalicelib":
        return top
    return "base" if rest[0] in BASE else rest[0]


def main() -> None:
    """Write every generated page."""
    for name, text in pages().items():
        (ROOT / name).write_text(text)
        print(name)


if __name__ == "__main__":
    main()
