"""How far a pull is, summed from the progress lines that the engine sends for each layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.engine import errors
from chalicelib.engine.messages import pull_error

LAYERS: Final = 1000  # an image can have 127; entries beyond are not counted
LARGEST_LAYER: Final = 1 << 50  # bytes; anything above is a lie


@dataclass(frozen=True, slots=True)
class PullStatus:
    """How far a pull is: 0 to 1, or None while nobody knows, and a line for the visitor."""

    fraction: float | None
    line: str


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

    def status(self) -> PullStatus:
        """Say how far the pull is; the fraction never falls."""
        layers = [layer for layer in self._layers.values() if not layer.here]
        known = [layer.size for layer in layers if layer.size]
        if not layers:
            return PullStatus(None, "Pulling the image")
        guess = sum(known) / len(known) if known else 1.0
        weights = [layer.size or guess for layer in layers]
        share = sum(w * _share(layer) for w, layer in zip(weights, layers, strict=True)) / sum(weights)
        self._furthest = min(max(self._furthest, share), 1.0)
        done = sum(layer.done or layer.here for layer in self._layers.values())
        line = f"Pulling: {done} of {len(self._layers)} layers"
        if known:
            loaded = sum(layer.size if layer.loaded or layer.done else layer.downloaded for layer in layers)
            line += f", {_megabytes(loaded)} of {_megabytes(sum(known))} MB"
        return PullStatus(self._furthest, line)

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
            layer.downloaded = current
        elif said == _EXTRACTING:
            layer.size = max(total, layer.size)
            layer.extracted = current
        layer.loaded = layer.loaded or said in _LOADED
        layer.done = layer.done or said == _DONE
        layer.here = layer.here or said == _HERE
        after = (layer.size, layer.downloaded, layer.extracted, layer.loaded, layer.done)
        self.changes += before != after


def _share(layer: _Layer) -> float:
    if layer.done:
        return 1.0
    if layer.loaded:
        extracted = min(layer.extracted / layer.size, 1.0) if layer.size else 0.0
        return _DOWNLOAD_SHARE + (1 - _DOWNLOAD_SHARE) * extracted
    return _DOWNLOAD_SHARE * min(layer.downloaded / layer.size, 1.0) if layer.size else 0.0


def _detail(detail: object) -> tuple[int, int]:
    if not isinstance(detail, Mapping) or detail.get("units"):  # newer engines report seconds of extracting
        return 0, 0
    return _count(detail.get("current")), _count(detail.get("total"))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_LAYER else 0


def _megabytes(count: int) -> int:
    return round(count / 1e6)
