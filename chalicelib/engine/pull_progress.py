"""How far a pull is, how fast it goes and how long it will take, from the lines that the engine sends for each layer.

Rules

1. Within one pull nothing that is shown falls: an engine may begin a layer anew, and tells sizes late.
2. The rate is that of the last WINDOW seconds. Nothing for IDLE seconds is told as such, so that a pull that has
   stalled is told from one that is slow, and one that unpacks from both.
3. The time that is left is told when the sizes of all layers are known and the pull was as fast in the last half of the
   window as in the first, within a factor of STEADY. It follows from the last half's rate: a pull slows down as layers
   end. Unpacking counts as in the fraction.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.engine import errors
from chalicelib.engine.messages import pull_error

LAYERS: Final = 1000  # an image can have 127; entries beyond are not counted
LARGEST_LAYER: Final = 1 << 50  # bytes; anything above is a lie
WINDOW: Final = 15.0  # seconds
IDLE: Final = 30.0  # seconds; Docker tells of a layer at every 512 KiB: below 17 kB/s slow looks like stalled
STEADY: Final = 1.5
LONGEST_TOLD: Final = 100 * 3600.0  # seconds that may be left


@dataclass(frozen=True, slots=True)
class PullStatus:
    """How far a pull is: 0 to 1, or None while nobody knows, and three parts of a line for the visitor.

    `line` counts the layers, `loaded` the bytes that this pull has seen arrive, and `pace` tells how fast it goes.
    """

    fraction: float | None
    line: str
    loaded: str = ""
    pace: str = ""


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    loaded: int  # bytes
    work: float  # bytes, loading and unpacking, as the fraction counts them


@dataclass(slots=True)
class _Layer:
    size: int = 0  # bytes; 0 while unknown
    downloaded: int = 0
    extracted: int = 0
    loaded: bool = False
    done: bool = False
    here: bool = False  # it was on the endpoint before: nothing to fetch


_DOWNLOADING: Final = "Downloading"
_EXTRACTING: Final = "Extracting"
_LOADED: Final = frozenset({"Download complete", "Verifying Checksum", _EXTRACTING})
_DONE: Final = "Pull complete"
_HERE: Final = "Already exists"
_NEW: Final = "Pulling fs layer"
_WAITING: Final = frozenset({"Waiting", "Retrying"})
_DOWNLOAD_SHARE: Final = 0.75  # of a layer's time; extracting takes the rest


class PullProgress:
    """Sums the progress lines of one pull, in the order the engine sends them."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._furthest = 0.0
        self._loaded = self._done = 0
        self._samples = deque[_Sample]()
        self._moved_at = 0.0
        self._seen_changes = 0
        self.joined = False  # a layer is beyond "Pulling fs layer", which the engine says just before it joins
        self.changes = 0

    @property
    def begun(self) -> bool:
        """Whether the engine has named a layer."""
        return bool(self._layers)

    def feed(self, line: bytes) -> None:
        """Take one line of JSON; raises an EndpointError when the line reports one."""
        if not line.strip():
            return
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise errors.NotADockerEngine("The endpoint's report of the pull is not JSON. Launch again")
        error = entry.get("error")
        if error is not None:
            raise pull_error(error if isinstance(error, str) else "")
        name, said = entry.get("id"), entry.get("status")
        if isinstance(name, str) and isinstance(said, str):
            self._hear(name, said.split(" (")[0], entry.get("progressDetail"))

    def status(self, now: float) -> PullStatus:
        """Say how far the pull is at this time, in seconds; to be asked about once a second."""
        layers = [layer for layer in self._layers.values() if not layer.here]
        if not layers:  # nothing was said yet, or all was there already
            here = len(self._layers)
            self._done = max(self._done, here)
            return PullStatus(
                self._furthest or None, f"Pulling: {here} of {here} layers" if here else "Pulling the image"
            )
        known = [layer.size for layer in layers if layer.size]
        guess = sum(known) / len(known) if known else 1.0
        weights = [layer.size or guess for layer in layers]
        work = sum(w * _share(layer) for w, layer in zip(weights, layers, strict=True))
        self._furthest = min(max(self._furthest, work / sum(weights)), 1.0)
        self._done = max(self._done, sum(layer.done or layer.here for layer in self._layers.values()))
        self._loaded = max(self._loaded, sum(map(_loaded, layers)))
        self._sample(_Sample(now, self._loaded, self._furthest * sum(weights)))
        all_known, total = len(known) == len(layers), max(self._loaded, sum(known))
        more = "" if all_known else "more than "
        return PullStatus(
            self._furthest,
            f"Pulling: {self._done} of {len(self._layers)} layers",
            f", {_megabytes(self._loaded)} of {more}{_megabytes(total)} MB" if known else "",
            self._pace(layers, sum(weights) if all_known else None),
        )

    def _sample(self, sample: _Sample) -> None:
        if self.changes != self._seen_changes or not self._samples:
            if sample.at - self._moved_at >= IDLE:  # what went on before a stall says nothing of what follows it
                self._samples.clear()
            self._moved_at, self._seen_changes = sample.at, self.changes
        self._samples.append(sample)
        while sample.at - self._samples[0].at > WINDOW:
            self._samples.popleft()

    def _pace(self, layers: Sequence[_Layer], total: float | None) -> str:
        """How fast it goes, how long it will take, or for how long nothing has happened."""
        first, last = self._samples[0], self._samples[-1]
        loads = not all(layer.loaded or layer.done for layer in layers)
        idle = last.at - self._moved_at
        if idle >= IDLE:
            return (
                f"; nothing has arrived for {_span(idle)}" if loads else f"; unpacking, nothing new for {_span(idle)}"
            )
        seconds = last.at - first.at
        if seconds <= 0 or (loads and last.loaded == first.loaded):
            return "" if loads else ", unpacking"
        pace = f", {_rate((last.loaded - first.loaded) / seconds)}" if loads else ", unpacking"
        left = self._seconds_left(total) if idle < WINDOW / 3 else None
        return pace if left is None else f"{pace}, about {_span(left)} left"

    def _seconds_left(self, total: float | None) -> float | None:
        """The seconds that the rest takes; None as long as that is not known (rule 3)."""
        first, last = self._samples[0], self._samples[-1]
        if total is None or last.at - first.at < WINDOW * 2 / 3:
            return None
        middle = min(self._samples, key=lambda sample: abs(sample.at - (first.at + last.at) / 2))
        if middle in (first, last):
            return None
        before, after = ((two.work - one.work) / (two.at - one.at) for one, two in ((first, middle), (middle, last)))
        if before <= 0 or not 1 / STEADY <= after / before <= STEADY:
            return None
        left = (total - last.work) / after
        return left if left < LONGEST_TOLD else None

    def _hear(self, name: str, said: str, detail: object) -> None:
        known = said in (_NEW, _DOWNLOADING, _DONE, _HERE) or said in _LOADED or said in _WAITING
        if not known or len(name) > 100 or (name not in self._layers and len(self._layers) >= LAYERS):
            return
        layer = self._layers.setdefault(name, _Layer())
        before = (layer.size, layer.downloaded, layer.extracted, layer.loaded, layer.done)
        self.joined = self.joined or said != _NEW
        current, total = _detail(detail)
        if said == _DOWNLOADING:
            layer.size = max(total, current, layer.size)
            layer.downloaded = max(current, layer.downloaded)
        elif said == _EXTRACTING:
            layer.size = max(total, layer.size)
            layer.extracted = max(current, layer.extracted)
        layer.loaded = layer.loaded or said in _LOADED
        layer.done = layer.done or said == _DONE
        layer.here = layer.here or (said == _HERE and not (layer.downloaded or layer.loaded or layer.done))
        after = (layer.size, layer.downloaded, layer.extracted, layer.loaded, layer.done)
        self.changes += before != after


def of_the_rest(before: float | None, first: float | None, fraction: float | None) -> float | None:
    """The share of the image that is there: a pull that another one began knows only of what was left when it joined.

    `before` is the other's share, `first` this one's at first and `fraction` now.
    """
    if before is None or first is None or fraction is None or first >= 1.0:
        return before if fraction is None else max(fraction, before or 0.0)
    return before + (1.0 - before) * (fraction - first) / (1.0 - first)


def _share(layer: _Layer) -> float:
    if layer.done:
        return 1.0
    if layer.loaded:
        extracted = min(layer.extracted / layer.size, 1.0) if layer.size else 0.0
        return _DOWNLOAD_SHARE + (1 - _DOWNLOAD_SHARE) * extracted
    return _DOWNLOAD_SHARE * min(layer.downloaded / layer.size, 1.0) if layer.size else 0.0


def _loaded(layer: _Layer) -> int:
    return layer.size if layer.loaded or layer.done else layer.downloaded


def _detail(detail: object) -> tuple[int, int]:
    if not isinstance(detail, Mapping) or detail.get("units"):  # newer engines report seconds of extracting
        return 0, 0
    return _count(detail.get("current")), _count(detail.get("total"))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_LAYER else 0


def _megabytes(count: int) -> int:
    return round(count / 1e6)


def _rate(rate: float) -> str:
    """Bytes a second, with two digits that count."""
    if rate >= 1e7:
        return f"{rate / 1e6:.0f} MB/s"
    return f"{rate / 1e6:.1f} MB/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kB/s"


def _span(seconds: float) -> str:
    """Seconds as people say them, in steps of 5 seconds, of minutes or of hours."""
    if seconds < 90:
        return f"{max(5 * round(seconds / 5), 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"
