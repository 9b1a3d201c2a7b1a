"""What a Docker Engine says in prose when something fails, and which of our errors it means.

An engine reports most failures as 404, 409 or 500 with a sentence. The sentences below are those of Moby 1.12 to 29 and
of the registries it repeats. All of them come from the endpoint: they are quoted short, as one printable line.
"""

from __future__ import annotations

import json
import re
from typing import Final

from chalicelib.engine import errors
from chalicelib.text import one_line

BAD_IMAGE: Final = (
    "The image's name is not one that Docker understands. Write it as name:tag, such as jupyter/minimal-notebook:latest"
)
QUOTE_LENGTH: Final = 160

_EXECUTABLE: Final = re.compile(r'exec: \\?"([A-Za-z0-9._/-]{1,40})\\?"', re.ASCII)  # runc's words and crun's


def quoted(text: object, limit: int = QUOTE_LENGTH) -> str:
    """Quote the endpoint: one printable line of at most `limit` characters; nothing for what is no text."""
    return one_line(text, limit) if isinstance(text, str) else ""


def message_of(body: bytes) -> str:
    """Read the sentence out of an error answer: `{"message": …}`, or the body itself."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body[: 4 * QUOTE_LENGTH].decode("utf-8", "replace")
    message = value.get("message") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def error_for(status: int, text: str, *, quote: bool) -> errors.EndpointError:
    """Say what an error answer to any request but a pull means.

    `quote` is False for what has not proven to be a Docker Engine: its words are looked at and never repeated.
    """
    words = text.lower()
    said = f": “{quoted(text)}”" if quote else ""
    if "no space left on device" in words:
        return _no_space()
    if status in (401, 403):
        return errors.EndpointForbidden(
            f"The endpoint forbids this{said}. Ask who runs it for more rights, or use another endpoint"
        )
    if "client version" in words and "too old" in words:
        return errors.EndpointTooNew(
            f"The endpoint's Docker Engine is newer than this hub knows{said}. Tell the hub's operator"
        )
    if "no such image" in words:
        return errors.ImageNotFound("The image is not on the endpoint any more. Launch again to pull it")
    if any(part in words for part in ("could not select device driver", "nvidia-container", "known gpu vendor")):
        return errors.GpuUnavailable(
            "The endpoint cannot provide GPUs to containers. Install the NVIDIA Container Toolkit there, or launch "
            "without GPUs"
        )
    if any(part in words for part in ("memory limit", "range of cpus", "nanocpus", "cpu cfs", "cpu quota")):
        return errors.LimitsRefused(f"The endpoint cannot provide the requested resources{said}. Ask for less")
    if status >= 500:
        return errors.EndpointFailed(f"The endpoint's Docker Engine reports an error ({status}){said}")
    if status == 404:
        return errors.ContainerMissing(
            "The session's container is not on the endpoint any more. Launch again; your files are kept in its volume"
        )
    return errors.RequestRejected(f"The endpoint's Docker Engine rejected a request ({status}){said}")


def is_name_taken(status: int, text: str) -> bool:
    """Say whether an error answer to a creation means that its name is taken, which Podman 4 answers with 500."""
    return status == 409 or ("container name" in text and "is already in use" in text)


def start_error_for(status: int, text: str, *, quote: bool) -> errors.EndpointError:
    """Say what an error answer to the start of a container means."""
    if "executable file not found" in text.lower():
        named = _EXECUTABLE.search(text)
        return errors.ImageWithoutJupyter(without_program(named[1] if named else "jupyter"))
    error = error_for(status, text, quote=quote)
    if isinstance(error, errors.EndpointFailed | errors.RequestRejected):
        said = f": “{quoted(text)}”" if quote else ""
        return errors.StartFailed(f"The endpoint could not start the container{said}")
    return error


def without_program(program: str) -> str:
    """Say what to do about an image that lacks what a notebook is started with."""
    return (
        f"The image has no program called {program}. Choose one that has JupyterLab, such as "
        "quay.io/jupyter/minimal-notebook"
    )


def is_jupyter_missing(line: str) -> bool:
    """Say whether the line of a log is a shell's or Jupyter's own about a `jupyter` or JupyterLab that is missing."""
    return "jupyter" in line and "not found" in line


_PULL_FAILURES: Final[tuple[tuple[tuple[str, ...], type[errors.EndpointError], str], ...]] = (
    (
        ("toomanyrequests", "too many requests", "rate limit"),
        errors.RegistryLimit,
        "The registry's pull limit for the endpoint's address is reached. Wait, or pull the image there yourself "
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
        "The registry has no such image, or keeps it private. Check the image's name; pull a private one on the "
        "endpoint yourself, then launch again",
    ),
    (
        ("unauthorized", "authentication required", "no basic auth credentials", "access denied", "denied:"),
        errors.RegistryDenied,
        "The registry requires a login, and the hub has none. Pull the image on the endpoint yourself, then launch "
        "again",
    ),
    (
        ("invalid reference format", "invalid repository name", "repository name must be"),
        errors.BadImage,
        BAD_IMAGE,
    ),
)
_NETWORK: Final = ("dial tcp", "timeout", "no such host", "connection", "eof", "lookup ", "x509", "tls:")


def pull_error(text: str) -> errors.EndpointError:
    """Say what an error in a pull means; what nobody knows may go better next time."""
    words = text.lower()
    if "no space left on device" in words:
        return _no_space()
    if not any(part in words for part in _NETWORK):
        for parts, error, message in _PULL_FAILURES:
            if any(part in words for part in parts):
                return error(message)
    return errors.PullFailed(f"The pull failed: “{quoted(text)}”. The hub will try again")


def _no_space() -> errors.EndpointError:
    """Say that the endpoint's disk is full."""
    return errors.NoSpace(
        "The endpoint's disk is full. Free some space there, for example with docker system prune, then launch again"
    )
