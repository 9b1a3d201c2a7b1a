"""What a visitor may ask of a container: how it is written, and what the hub's operator allows of it.

Sizes are bytes. What reads a text raises ValueError, whose text completes “The field …” and never repeats a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from chalicelib.session.values import DataFolder, Limits, Ports
from chalicelib.text import is_visible

VARIABLES: Final = 64  # that a visitor may set
NAMES_BYTES: Final = 2 * 1024  # of their names, which stand in the session's item
VARIABLES_BYTES: Final = 6 * 1024  # in UTF-8, names and values: the envelope has room for twice as much in JSON
PATH_LENGTH: Final = 500  # bytes
LOWEST_PORT: Final = 1024  # those below are the system's, and the hub believes none of them (engine/answers.py)
HIGHEST_PORT: Final = 65535

_SIZE: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*([kmgt]?)(i?b)?", re.ASCII | re.IGNORECASE)
_UNITS: Final = ("", "k", "m", "g", "t")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)  # POSIX.1-2017, 8.1, with lower case as usual
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:\s*[-–]\s*([0-9]{1,5}))?", re.ASCII)

# How JupyterLab is found and started, and what it believes: a variable of these can take the hub's configuration away,
# and mutual TLS with it (JUPYTER_NO_CONFIG), let the start fail without a word (PATH, PYTHONHOME), or have what lies in
# the volume run by being there (HOME, XDG_DATA_HOME, BASH_ENV; docs/adr/0013).
_RESERVED: Final = re.compile(
    r"(?:JUPYTER|IPYTHON|PYTHON|LD_|OPENSSL_|HOMEPORT_|XDG_|GLIBC_).*|PATH|HOME|ENV|BASH_ENV|BASHOPTS|SHELLOPTS|"
    r"GCONV_PATH|_ARGCOMPLETE",
    re.ASCII,
)

# Who can read or change these has the machine: its devices, its kernel, its services' sockets, its configuration.
_SYSTEM_FOLDERS: Final = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
    "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/run", "/var/snap",
    "/var/spool",
)  # fmt: skip

_NONE: Final = Limits()
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the operator allows: `most` of each limit, and a `default` for who asks for none. None: no limit.

    `images` are patterns (image.is_allowed); without any, every image is allowed.
    """

    most: Limits = _NONE
    default: Limits = _NONE
    data: bool = True
    images: tuple[str, ...] = ()

    def settled(self, asked: Limits) -> Limits:
        """The limits of a launch that asks for these: the default where it asks for none, and never above the most."""
        return Limits(
            memory=_least(asked.memory or self.default.memory, self.most.memory),
            cpus=_least(asked.cpus or self.default.cpus, self.most.cpus),
            gpus=asked.gpus,
            shm=_least(asked.shm or self.default.shm, self.most.shm),
        )

    def asked(self, settled: Limits) -> Limits:
        """A launch's limits without the memory and the CPUs that its visitor did not choose, and so cannot lower."""
        unasked = self.settled(_NONE)
        return replace(
            settled,
            memory=None if settled.memory == unasked.memory else settled.memory,
            cpus=None if settled.cpus == unasked.cpus else settled.cpus,
        )

    def exceeded(self, asked: Limits) -> list[str]:
        """Say what is allowed of each limit that is asked for above it: “4 GiB of memory” for one."""
        above = {
            name: most
            for name in ("memory", "cpus", "shm")
            if (most := getattr(self.most, name)) and (getattr(asked, name) or 0) > most
        }
        return shown_limits(Limits(**above))


def shown_limits(limits: Limits) -> list[str]:
    """The limits that are set, as people say them: “4 GiB of memory”, “1.5 CPUs”, “all GPUs”."""
    memory, cpus, gpus, shm = limits.memory, limits.cpus, limits.gpus, limits.shm
    said = (
        memory and f"{shown_size(memory)} of memory",
        cpus and f"{cpus:g} CPU{'' if cpus == 1 else 's'}",
        gpus and ("all GPUs" if gpus < 0 else f"{gpus} GPU{'' if gpus == 1 else 's'}"),
        shm and f"{shown_size(shm)} of shared memory",
    )
    return [text for text in said if text]


def size_of(text: str) -> int:
    """Bytes of texts such as `2g`, `1.5 GiB` and `800m`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("must be a size such as 2g")
    return int(float(match[1]) * 1024 ** _UNITS.index(match[2].lower()))


def shown_size(size: int) -> str:
    """A size as people say it: `1.5 GiB`."""
    power = min(max(size.bit_length() - 1, 0) // 10, 4)
    return f"{size / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def data_folder(text: str) -> DataFolder:
    """A folder of the endpoint's host, `/path`, `/path:ro` or `/path:rw`; read-only unless it says otherwise."""
    path, colon, mode = text.rpartition(":")
    if not colon or mode not in ("ro", "rw"):
        path, mode = text, "ro"
    path = path.rstrip("/") or path[:1]
    parts = path.split("/")
    if (
        not path
        or len(path.encode(errors="replace")) > PATH_LENGTH
        or parts[0]
        or {"", ".", ".."} & set(parts[1:] if path != "/" else ())
    ):
        raise ValueError("must be an absolute path on the endpoint's host, such as /srv/data or /srv/data:rw")
    if any(f"{path}/".startswith(f"{system}/") or f"{system}/".startswith(f"{path.rstrip('/')}/")
           for system in _SYSTEM_FOLDERS):  # fmt: skip
        raise ValueError(
            "must not be the endpoint's system itself, since whatever runs in a notebook would have the whole machine. "
            "Name the folder that holds the data"
        )
    return DataFolder(path, writable=mode == "rw")


def ports(text: str) -> Ports:
    """A port of the endpoint's host, or a range of them such as `40000-40099`."""
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not LOWEST_PORT <= first <= last <= HIGHEST_PORT:
        raise ValueError(
            f"must be a port or a range of ports from {LOWEST_PORT} to {HIGHEST_PORT}, such as 40000-40099"
        )
    return Ports(first, last)


def variables(text: str) -> dict[str, str]:
    """The variables of lines `NAME=value`; empty lines count for nothing, and a value is all that is after the `=`."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name, equals, value = line.rstrip("\r").partition("=")
        if not line.strip():
            continue
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"must have in line {number} NAME=value, with a name of letters, digits and “_”")
        if _RESERVED.fullmatch(name):
            raise ValueError(
                f"must not set {name}: it decides how JupyterLab is found, configured or started. Set it in the "
                "notebook, or use an image that has it"
            )
        if name in found:
            raise ValueError(f"must not set {name} twice")
        if not is_visible(value.replace("\t", " ")):
            raise ValueError(f"must have no control or invisible characters in the value of {name}")
        found[name] = value
    if sum(map(len, found)) > NAMES_BYTES:
        raise ValueError(f"must have names of at most {NAMES_BYTES // 1024} KiB together")
    if len(found) > VARIABLES or sum(len(f"{name}{value}".encode()) for name, value in found.items()) > VARIABLES_BYTES:
        raise ValueError(f"must have at most {VARIABLES} variables, and {VARIABLES_BYTES // 1024} KiB together")
    return found


def _least(one: _Number | None, other: _Number | None) -> _Number | None:
    return min((number for number in (one, other) if number is not None), default=None)
