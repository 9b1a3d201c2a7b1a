"""What a Docker Engine says in prose, and what it means: its errors, and the progress of a pull.

An engine reports most failures as 404, 409 or 500 with a sentence. The sentences below are those of Moby 1.12 to 29 and
of the registries it repeats. All of them come from the endpoint: they are quoted short, as one printable line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib import errors

BAD_IMAGE: Final = (
    "The image's name is not one that Docker understands. Write it as name:tag, such as jupyter/minimal-notebook:latest"
)
QUOTE_LENGTH: Final = 160
LAYERS: Final = 1000  # an image can have 127; entries beyond are not counted
LARGEST_LAYER: Final = 1 << 50  # bytes; anything above is a lie


def quoted(text: object) -> str:
    """Quote the endpoint: one printable line of at most QUOTE_LENGTH characters."""
    line = text[: 4 * QUOTE_LENGTH] if isinstance(text, str) else ""
    line = " ".join("".join(c if c.isprintable() else " " for c in line).split())
    return line if len(line) <= QUOTE_LENGTH else line[: QUOTE_LENGTH - 1] + "…"


def message_of(body: bytes) -> str:
    """Read the sentence out of an error answer: `{"message": …}`, or the body itself."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body[: 4 * QUOTE_LENGTH].decode("utf-8", "replace")
    message = value.get("message") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def refusal(status: int, text: str) -> errors.EndpointError:
    """Say what an error answer to any request but a pull means."""
    words = text.lower()
    if "no space left on device" in words:
        return no_space()
    if status in (401, 403):
        return errors.EndpointDenied(
            f"The endpoint forbids this: “{quoted(text)}”. Ask who runs it for more rights, or use another endpoint"
        )
    if "client version" in words and "too old" in words:
        return errors.EndpointTooNew(
            f"The endpoint's Docker Engine is newer than this hub knows: “{quoted(text)}”. Tell the hub's operator"
        )
    if "no such image" in words:
        return errors.ImageNotFound("The image is not on the endpoint any more. Launch again to pull it")
    if any(part in words for part in ("could not select device driver", "nvidia-container", "known gpu vendor")):
        return errors.GpuUnavailable(
            "The endpoint cannot give a GPU to a container. Install the NVIDIA Container Toolkit there, or launch "
            "without GPUs"
        )
    if any(part in words for part in ("memory limit", "range of cpus", "nanocpus", "cpu cfs", "cpu quota")):
        return errors.LimitsRefused(f"The endpoint cannot give what was asked for: “{quoted(text)}”. Ask for less")
    if status >= 500:
        return errors.EndpointFailed(f"The endpoint's Docker Engine reports an error: “{quoted(text)}”")
    if status == 404:
        return errors.ContainerMissing(
            "The session's container is not on the endpoint any more. Launch again; your files are kept in its volume"
        )
    return errors.EndpointDeclined(f"The endpoint's Docker Engine declined a request ({status}): “{quoted(text)}”")


def start_refusal(status: int, text: str) -> errors.EndpointError:
    """Say what an error answer to the start of a container means."""
    if "executable file not found" in text.lower():
        return errors.ImageWithoutJupyter(
            "The image has no program called jupyter. Choose one that has JupyterLab, such as "
            "quay.io/jupyter/minimal-notebook"
        )
    error = refusal(status, text)
    if isinstance(error, errors.EndpointFailed | errors.EndpointDeclined):
        return errors.StartFailed(f"The endpoint could not start the container: “{quoted(text)}”")
    return error


_PULL_FAILURES: Final[tuple[tuple[tuple[str, ...], type[errors.EndpointError], str], ...]] = (
    (
        ("toomanyrequests", "too many requests", "rate limit"),
        errors.RegistryLimit,
        "The registry allows no more pulls from the endpoint's address for now. Wait, or pull the image there yourself "
        "after docker login, then launch again",
    ),
    (
        ("no matching manifest", "does not match the specified platform", "no child with platform"),
        errors.ImageWrongPlatform,
        "The image is not made for the endpoint's kind of processor. Choose another image or tag",
    ),
    (
        ("pull access denied", "repository does not exist", "manifest unknown", "not found", "name unknown", "no such"),
        errors.ImageNotFound,
        "The registry has no such image, or keeps it private. Check the image's name; a private one pull on the "
        "endpoint yourself, then launch again",
    ),
    (
        ("unauthorized", "authentication required", "no basic auth credentials", "access denied", "denied:"),
        errors.RegistryDenied,
        "The registry wants a login, and the hub has none. Pull the image on the endpoint yourself, then launch again",
    ),
    (
        ("invalid reference format", "invalid repository name", "repository name must be"),
        errors.BadImage,
        BAD_IMAGE,
    ),
)
_NETWORK: Final = ("dial tcp", "timeout", "no such host", "connection", "eof", "lookup ", "x509", "tls:")


def pull_failure(text: str) -> errors.EndpointError:
    """Say what an error in a pull means; what nobody knows may go better next time."""
    words = text.lower()
    if "no space left on device" in words:
        return no_space()
    if not any(part in words for part in _NETWORK):
        for parts, error, message in _PULL_FAILURES:
            if any(part in words for part in parts):
                return error(message)
    return errors.PullFailed(f"The pull failed: “{quoted(text)}”. It is tried again")


def no_space() -> errors.EndpointError:
    """Say that the endpoint's disk is full."""
    return errors.NoSpace(
        "The endpoint's disk is full. Make room there, for example with docker system prune, then launch again"
    )


# ── the progress of a pull ───────────────────────────────────────────────────────────────────────────────────────


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
            raise errors.EndpointMisbehaved("The endpoint's report of the pull is not JSON. Launch again")
        error = entry.get("error")
        if error is not None:
            raise pull_failure(error if isinstance(error, str) else "")
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
