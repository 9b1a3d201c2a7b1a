"""The stored form of a session, a DynamoDB item in a format that has a number, and of its log's earlier lines.

    pk, sk            session#<sid>, session
    format            the number below; an item without one is of format 0
    version           counts the saves; every save is conditional on it
    owner, generation, created_at, expires_at
    label             of the launch's origin; not there if the launch has none
    hub               of the launch's container, as its label says; not there if the launch has none
    session           the other fields of Session, as JSON
    listed            what a list shows of it, as JSON; all that the index of lists holds besides its keys
    redrive, redrive_at   while the session has something to do: its lane (`shard_of`), and from when on nobody is at
                      work on it, in steps: most saves then leave the index as it is, where each change costs as much as
                      the save. The schedule, which runs every minute, puts it off when it has sent the session to its
                      lane
    ring              while it is ready: where it is found when it is looked at (looks.py)
    ttl               once it is stopped

When somebody asked for a look at it last is an item beside it, with `asked_at` and `ttl`, and `asked` for a sort key.

An earlier line of the log is an item beside it, at its place (docs/adr/0011):

    pk, sk            session#<sid>, line#<place modulo LOG_LINES, two digits>
    generation        of the launch it belongs to; a later launch takes its place
    line              the line, as JSON
    ttl               before that of the stopped session

Rules

1. The attributes above `session` are in every format from 1 on, with this meaning. With them alone a session can be
   left alone, stopped and purged, whatever else is in the item.
2. A field that is not known is passed over, and one that is missing has a default: a release may add a field, and the
   one before it still reads the item. What does more than that gets a new number: an item that the version before
   would misread (`_needed_format`) has it. All others keep the old one, so that a rollback leaves them alone.
3. An item of a later format was written by a later version of Homeport, which was rolled back. It is read as far as it
   can be, and marked `newer`: machine.py leaves it alone until it expires or is stopped (docs/adr/0007: a
   rollback must not end notebooks).
4. An item of a known format that cannot be read is broken. Nobody could ever go on with it, so it is read as a session
   on its way out: its route is withdrawn, its container removed and its credentials purged, for which its id,
   generation, label and hub are enough. (A route whose label is lost ends at `expires_at`, as every route does.)
5. tests/frozen holds items of every format that ever was. They must always be readable.
6. The version before kept the whole log in `session`, and wrote no `listed`. It reads the newest line as the whole log.
   What it stored is read all the same: its log is whole, and what a list shows of it is in `session`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any, Final, TypeVar

from chalicelib.aws.dynamodb import Item
from chalicelib.repository.source import Provider, Source
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.looks import ring_of
from chalicelib.session.narration import LOG_LINES, NEWER, UNREADABLE
from chalicelib.session.values import (
    LARGEST_GENERATION,
    DataFolder,
    Failure,
    Limits,
    Line,
    Options,
    Phase,
    Ports,
    PullPolicy,
    Session,
    State,
    Summary,
    Target,
    container_name,
)

FORMAT: Final = 1  # what items are written in,
NEWEST_FORMAT: Final = 3  # but for those that need a later one (rule 2)
REDRIVE_STEP: Final = 20  # seconds
STOPPED_TTL: Final = 90 * 86400.0  # a stopped session is remembered for so long, in seconds,
DELETED_TTL: Final = 86400.0  # and one whose volume is removed, too

LINES: Final = "line#"  # what the sort keys of all lines begin with
_PREFIX: Final = "session#"
_YEAR_10000: Final = 253402300800.0  # no date can be shown from then on
# Rule 1; these are not in the JSON.
_ATTRIBUTES: Final = ("owner", "generation", "label", "hub", "version", "created_at", "expires_at")
# Since format 1 was frozen; written when they say something (rule 2), as are `options` and the limits' `shm`.
_ADDED: Final = (
    "source",
    "repository",
    "content",
    "builder",
    "helper",
    "helps",
    "versions",
    "keeps",
    "again",
    "deletes",
    "sealed_in",
    "saving",
    "commits",
    "tidying",
    "longest_until",
    "creations",
    "unsettled_until",
    "queued",
    "pull_waits",
    "admitted",
    "steady",
    "progressed_at",
)

# Format 0 had everything in the JSON, and these names for five fields.
_NAMES_IN_FORMAT_0: Final[Mapping[str, str]] = MappingProxyType(
    {
        "holder": "written_by",
        "held_until": "lease_expires_at",
        "heard_at": "last_news_at",
        "trouble": "last_problem",
        "due_at": "next_attempt_at",
    }
)

_UNREADABLE_FIELD: Final = (AttributeError, KeyError, OverflowError, TypeError, ValueError)

_Value = TypeVar("_Value", Source, Target, Failure, Limits, DataFolder, Ports, Options, Line, Summary)


def item_of(session: Session, now: float) -> dict[str, Any]:
    """Write a session down; `now` in epoch seconds, from which a stopped session's time to live is counted."""
    values = asdict(session)
    for name in ("sid", "newer", *_ATTRIBUTES):
        del values[name]
    for name in _ADDED:
        if not values[name]:
            del values[name]
    if session.options == Options():
        del values["options"]
    if session.limits.shm is None:
        del values["limits"]["shm"]
    item: dict[str, Any] = {
        "pk": {"S": pk_of(session.sid)},
        "sk": {"S": "session"},
        "format": {"N": str(_needed_format(session))},
        "version": {"N": str(session.version)},
        **({"owner": {"S": session.owner}} if session.owner else {}),  # an index's key cannot be empty (rule 4)
        "generation": {"N": str(session.generation)},
        **({"label": {"S": session.label}} if session.label else {}),
        **({"hub": {"S": session.hub}} if session.hub else {}),
        "created_at": {"N": repr(session.created_at)},
        "expires_at": {"N": repr(session.expires_at)},
        "listed": {"S": _json(_listed(session.summary))},
        "session": {"S": _json(values)},
    }
    if session.next_attempt_at is None:
        item["ttl"] = {"N": str(int(now + (DELETED_TTL if session.summary.deleted else STOPPED_TTL)))}
    else:
        item["redrive"] = {"S": shard_of(lane_of(session))}
        due = max(session.next_attempt_at, session.lease_expires_at)
        item["redrive_at"] = {"N": str(math.ceil(due / REDRIVE_STEP) * REDRIVE_STEP)}
    if session.state is State.READY:
        item["ring"] = {"S": ring_of(session)}
    return item


def _needed_format(session: Session) -> int:
    """The first format whose versions know what the session is.

    Those of format 1 would end a notebook, or find no credentials where they look for them; those of format 2 know no
    repositories and no images of theirs, and would leave a helper behind.
    """
    if session.builder or session.state is State.TIDYING:
        return 3
    return 2 if session.state in (State.KEPT, State.REPUBLISHING, State.SAVING) or session.sealed_in > 0 else FORMAT


def _listed(summary: Summary) -> dict[str, Any]:
    """What is written of a list's line; `deleted` when it is so (rule 2)."""
    listed = {name: getattr(summary, name) for name in _LISTED}
    return listed if summary.deleted else {name: value for name, value in listed.items() if name != "deleted"}


def session_of(item: Item) -> Session:
    """Read a session, whatever the item holds besides `pk` and `version` (rules 2 to 4)."""
    stored_format = _format_of(item)
    values = _values_of(item, stored_format)
    if stored_format is None:
        return _broken(item, values)
    if stored_format > NEWEST_FORMAT:
        return _newer(item, values)
    try:
        session = Session(**{name: _READ[name](value) for name, value in (_defaults(item) | values).items()})
        if (session.next_attempt_at is None) is not (session.state is State.STOPPED):
            raise ValueError("a session is due unless it is stopped")
    except _UNREADABLE_FIELD:
        return _broken(item, values)
    return session


def summary_of(item: Item) -> Summary | None:
    """Read what a list shows of a session, from the index of lists; None when the item does not say it (rule 6)."""
    try:
        listed = json.loads(item["listed"]["S"])
        return _SUMMARY(listed | {"sid": sid_of(item), "created_at": json.loads(item["created_at"]["N"])})
    except (*_UNREADABLE_FIELD, RecursionError):
        return None


def line_item_of(session: Session, line: Line, now: float) -> dict[str, Any]:
    """Write down a line of the session's log that is not its newest any more; `now` in epoch seconds."""
    return {
        "pk": {"S": pk_of(session.sid)},
        "sk": {"S": f"{LINES}{line.place % LOG_LINES:02}"},
        "generation": {"N": str(session.generation)},
        "line": {"S": _json(asdict(line))},
        "ttl": {"N": str(int(now + STOPPED_TTL))},
    }


def line_of(item: Item, generation: int) -> Line | None:
    """Read a line of that launch's log; None for one of another launch, and for one that cannot be read."""
    try:
        return _LINE(json.loads(item["line"]["S"])) if item["generation"]["N"] == str(generation) else None
    except (*_UNREADABLE_FIELD, RecursionError):
        return None


def pk_of(sid: str) -> str:
    """The partition key of a session and its lines."""
    return f"{_PREFIX}{sid}"


def shard_of(lane: Lane) -> str:
    """Where the schedule finds a lane's sessions: versions without lanes know "due" alone, and must find ready ones."""
    return "due" if lane is Lane.WATCH else lane.value


def sid_of(item: Item) -> str:
    """The id of an item's session."""
    return str(item["pk"]["S"]).removeprefix(_PREFIX)


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _format_of(item: Item) -> int | None:
    """The number of the item's format; None when it cannot be read."""
    number = item.get("format", {"N": "0"}).get("N", "")
    return int(number) if number.isascii() and number.isdigit() else None


def _values_of(item: Item, stored_format: int | None) -> dict[str, Any]:
    """All known fields of the item, unchecked, by their present names."""
    try:
        values = json.loads(item["session"]["S"])
    except (KeyError, TypeError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        values = {"state": None}  # reads as broken
    if stored_format == 0:
        values = {_NAMES_IN_FORMAT_0.get(name, name): value for name, value in values.items()}
    for name in _ATTRIBUTES:
        if name in item:
            kind, value = next(iter(item[name].items()))
            values[name] = json.loads(value) if kind == "N" else value
    return {name: value for name, value in values.items() if name in _READ} | {"sid": sid_of(item)}


def _defaults(item: Item) -> dict[str, Any]:
    """What a field is when the item has none of that name, where Session itself gives no default."""
    try:
        created_at = _moment(json.loads(item["created_at"]["N"]))
    except _UNREADABLE_FIELD:
        created_at = 0.0
    due_at = created_at if "redrive" in item else None
    times = {"entered_at": created_at, "last_news_at": created_at, "next_attempt_at": due_at, "expires_at": created_at}
    return {"name": "", "endpoint": "", "image": "", "created_at": created_at, **times}


def _newer(item: Item, values: Mapping[str, Any]) -> Session:
    """Rule 3: every field that can be read, and defaults for the rest."""
    read = _defaults(item) | {"state": State.READY, "owner": "", "generation": _generation_of(item, values)}
    for name, value in values.items():
        try:
            read[name] = _READ[name](value)
        except _UNREADABLE_FIELD:
            continue
    if "redrive" not in item:
        read |= {"state": State.STOPPED, "next_attempt_at": None}
    else:
        stays = State.READY if read["state"] is State.STOPPED else read["state"]
        read |= {"state": stays, "next_attempt_at": read["next_attempt_at"] or 0.0}
    return Session(**read | {"message": NEWER, "newer": True})


def _broken(item: Item, values: Mapping[str, Any]) -> Session:
    """Rule 4."""
    sid, generation = sid_of(item), _generation_of(item, values)
    owner, name, label, hub = (values.get(field) for field in ("owner", "name", "label", "hub"))
    defaults = _defaults(item)
    return Session(
        sid=sid,
        owner=owner if isinstance(owner, str) else "",
        name=name if isinstance(name, str) else "",
        generation=generation,
        label=label if isinstance(label, str) else "",
        hub=hub if isinstance(hub, str) else "",
        version=int(item["version"]["N"]),
        state=State.WITHDRAWING if "redrive" in item else State.STOPPED,
        endpoint="",
        image="",
        container=container_name(sid, generation),
        message=UNREADABLE.message,
        failure=UNREADABLE,
        created_at=defaults["created_at"],
        entered_at=defaults["created_at"],
        last_news_at=defaults["created_at"],
        next_attempt_at=defaults["next_attempt_at"],
        expires_at=defaults["expires_at"],
    )


def _generation_of(item: Item, values: Mapping[str, Any]) -> int:
    """The generation, from wherever it can be read.

    What the text says is not believed above the version, since each launch but one that was found on its endpoint is a
    save; and purging one generation purges those before it.
    """
    version, text = int(item["version"]["N"]), item.get("session", {}).get("S", "")
    written = re.findall(rf'"generation":\s*([0-9]{{1,9}})|"homeport-{sid_of(item)}-([0-9]{{1,9}})"', text)
    attribute = item.get("generation", {}).get("N", "")
    if attribute.isascii() and attribute.isdigit() and 0 < int(attribute) <= LARGEST_GENERATION:
        return int(attribute)
    candidates = [values.get("generation"), *(int(number or suffix) for number, suffix in written)]
    return next((known for known in candidates if type(known) is int and 0 < known <= version), version)


# ── reading one field: the value, or one of _UNREADABLE_FIELD ────────────────────────────────────────────────────────


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _address(value: object) -> str:
    text = _text(value)
    ip_address(text)  # or ValueError
    return text


def _network(value: object) -> str:
    text = _text(value)
    return str(ip_network(text)) if text else ""


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(map(_text, value))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _moment(value: object) -> float:
    moment = _number(value)
    if not 0 <= moment < _YEAR_10000:
        raise ValueError
    return moment


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _parts(kind: type[_Value], **read: Callable[[Any], Any]) -> Callable[[Any], _Value]:
    """Read a nested value from the parts it has; unknown ones are passed over."""
    return lambda value: kind(**{name: read[name](part) for name, part in value.items() if name in read})


def _lines(value: object) -> tuple[Line, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(map(_LINE, value))


_SOURCE: Final = _parts(Source, provider=Provider, address=_text, ref=_text, folder=_text)
_FAILURE: Final = _parts(Failure, code=_text, message=_text)
_LINE: Final = _parts(Line, number=_count, at=_moment, text=_text, progress=_flag, place=_count)
_LISTED: Final = MappingProxyType({"name": _text, "endpoint": _text, "phase": Phase, "failed": _flag, "deleted": _flag})
_SUMMARY: Final = _parts(Summary, sid=_text, created_at=_moment, **_LISTED)

_READ: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "sid": _text,
        "owner": _text,
        "name": _text,
        "generation": _count,
        "label": _text,
        "hub": _text,
        "version": _count,
        "state": State,
        "endpoint": _text,
        "image": _text,
        "limits": _parts(
            Limits,
            memory=_optional(_count),
            cpus=_optional(_number),
            gpus=_optional(_whole),
            shm=_optional(_count),
        ),
        "options": _parts(
            Options,
            data=_optional(_parts(DataFolder, path=_text, writable=_flag)),
            environment=_texts,
            ports=_optional(_parts(Ports, first=_count, last=_count)),
            pull=PullPolicy,
        ),
        "open_path": _text,
        "source": _network,
        "repository": _optional(_SOURCE),
        "content": _optional(_SOURCE),
        "builder": _text,
        "helper": _text,
        "helps": _flag,
        "versions": _texts,
        "keeps": _flag,
        "again": _text,
        "deletes": _flag,
        "sealed_in": _count,
        "saving": _text,
        "commits": _count,
        "tidying": _text,
        "longest_until": _moment,
        "address": _optional(_address),
        "container": _optional(_text),
        "creations": _count,
        "unsettled_until": _moment,
        "target": _optional(_parts(Target, address=_address, port=_count)),
        "credentials_held": _flag,
        "written_by": _text,
        "lease_expires_at": _moment,
        "queued": _flag,
        "pull_waits": _flag,
        "admitted": _flag,
        "steady": _flag,
        "fraction": _optional(_number),
        "progressed_at": _moment,
        "message": _text,
        "failure": _optional(_FAILURE),
        "last_problem": _optional(_FAILURE),
        "attempts": _count,
        "log": _lines,
        "created_at": _moment,
        "entered_at": _moment,
        "last_news_at": _moment,
        "next_attempt_at": _optional(_moment),
        "expires_at": _moment,
    }
)
