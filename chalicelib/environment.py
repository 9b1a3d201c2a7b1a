"""Configuration variables as values: each is declared once, with its name, default, meaning and check.

1. A settings class is a frozen dataclass whose fields are declared with `setting(Variable(…))`; `from_environ` fills
   it from any mapping. This module reads no environment itself: config.py hands os.environ in.
2. Whoever else has to know a variable (the deployment, the tables in the documentation) asks `variables` for it.
3. A wrong value raises BadConfiguration, which names the variable and the rule; a secret's value is never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from chalicelib.errors import BadConfiguration
from chalicelib.text import one_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Value = TypeVar("_Value")
_Settings = TypeVar("_Settings", bound="DataclassInstance")
Network = IPv4Network | IPv6Network

_VARIABLE: Final = "variable"  # the key in a field's metadata
_SHOWN: Final = 80  # characters of a wrong value


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Value]):
    """What a variable's text may be: `must_be` completes "… must be"; `parse` raises ValueError for anything else."""

    must_be: str
    parse: Callable[[str], _Value]


@dataclass(frozen=True, slots=True)
class Variable(Generic[_Value]):
    """One variable of the environment.

    `meaning` is Markdown. `default` is what an unset or blank variable stands for. `note` describes that default where
    its text does not. `output` names the stack's output that a deployment sets the variable from: it is no option then.
    `secret`: its value is shown nowhere.
    """

    name: str
    kind: Kind[_Value]
    meaning: str
    default: str = ""
    note: str = ""
    output: str = ""
    secret: bool = False

    def read(self, environ: Mapping[str, str]) -> _Value:
        """Read the variable, or its default; raises BadConfiguration."""
        text = environ.get(self.name, "").strip() or self.default
        try:
            return self.kind.parse(text)
        except ValueError:
            shown = "" if self.secret else f", not {one_line(text, _SHOWN)!r}"
            raise BadConfiguration(f"{self.name} must be {self.kind.must_be}{shown}") from None


def setting(variable: Variable[_Value]) -> _Value:
    """Declare a dataclass's field that is read from `variable`."""
    return field(default_factory=partial(variable.read, {}), metadata={_VARIABLE: variable}, repr=not variable.secret)


def from_environ(settings: type[_Settings], environ: Mapping[str, str]) -> _Settings:
    """Fill a settings class from the environment; raises BadConfiguration."""
    found = {known.name: known.metadata[_VARIABLE].read(environ) for known in fields(settings)}
    return settings(**found)


def variables(settings: type[DataclassInstance]) -> tuple[Variable[Any], ...]:
    """Give the variables a settings class is read from, in the order of their declaration."""
    return tuple(known.metadata[_VARIABLE] for known in fields(settings))


def number(text: str, *, most: float = float("inf"), unit: float = 1.0) -> float:
    """Read a number above 0 and at most `most`, and give it times `unit`; raises ValueError."""
    value = float(text)
    if not 0 < value <= most or value == float("inf"):
        raise ValueError
    return value * unit


def whole_number(text: str, *, least: int = 1, most: int = 10**9) -> int:
    """Read a whole number from `least` to `most`; raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise ValueError
    return int(text)


def optional(parse: Callable[[str], _Value], text: str) -> _Value | None:
    """Read what may be left out: None for the empty text; raises ValueError as `parse` does."""
    return parse(text) if text else None


def words(is_one: Callable[[str], object], text: str) -> tuple[str, ...]:
    """Read a list with commas or blanks; raises ValueError for a word that is none of those."""
    found = _words(text)
    if not all(map(is_one, found)):
        raise ValueError
    return found


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(word) for word in _words(text))


def _ports(text: str) -> frozenset[int]:
    return frozenset(PORT.parse(word) for word in _words(text))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _url(text: str) -> str:
    scheme, separator, host = text.partition("://")
    if scheme not in ("http", "https") or not separator or not host.strip("/"):
        raise ValueError
    return text


def _origin(text: str) -> str:
    origin = _url(text).rstrip("/")
    if "/" in origin.partition("://")[2]:
        raise ValueError
    return origin


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError
    return text == "on"


TEXT: Final = Kind("text", str)
SWITCH: Final = Kind("on or off", _switch)
POSITIVE: Final = Kind("a number above 0", number)
COUNT: Final = Kind("a whole number above 0", whole_number)
PORT: Final = Kind("a port number", partial(whole_number, most=65535))
PORTS: Final = Kind("a list of ports such as 22,25", _ports)
NETWORKS: Final = Kind("a list of networks such as 10.1.0.0/16", _networks)
ORIGIN: Final = Kind("an origin such as https://hub.example.com", _origin)
URL: Final = Kind("an address that begins with https:// or http://", _url)
