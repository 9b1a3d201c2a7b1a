"""What a Docker Engine says in prose when something fails, and which of our errors it means.

An engine reports most failures as 404, 409 or 500 with a sentence. The sentences below are those of Moby 1.12 to 29,
with its own image store (distribution/errors.go) and with containerd's, of Podman 3 to 5 (containers/image), and of the
registries they repeat. All of them come from the endpoint: they are quoted short, as one printable line.

An image's name is part of most of them, so what is looked for has a blank or a sign that no name has, or comes after
what is more particular.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from chalicelib.engine import errors
from chalicelib.text import one_line

BAD_IMAGE: Final = (
    "The image's name is not one that Docker understands. Write it as name:tag, such as jupyter/minimal-notebook:latest"
)
QUOTE_LENGTH: Final = 160

_PORT: Final = re.compile(r":([0-9]{1,5})\b")
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


# What an engine says of an option of the launch that it cannot have.
_OPTIONS: Final[tuple[tuple[tuple[str, ...], Callable[[str, str], errors.EndpointError]], ...]] = (
    (
        ("could not select device driver", "nvidia-container", "known gpu vendor"),
        lambda text, said: errors.GpuUnavailable(
            "The endpoint cannot provide GPUs to containers. Install the NVIDIA Container Toolkit there, or launch "
            "without GPUs"
        ),
    ),
    (
        ("bind source path does not exist", "error while creating mount source path", "mounts denied", "statfs /"),
        lambda text, said: errors.DataFolderMissing(
            f"The data directory is not on the endpoint's host, or cannot be mounted{said}. Check its path there"
        ),
    ),
    (
        ("port is already allocated", "address already in use", "ports are allocated"),
        lambda text, said: _port_taken(text),
    ),
    (
        ("strconv.atoi: parsing",),
        lambda text, said: errors.PortRangeUnsupported(
            "The endpoint's engine does not take a range of ports, as Podman does not. Name one port, or none"
        ),
    ),
    (
        ("memory limit", "range of cpus", "nanocpus", "cpu cfs", "cpu quota"),
        lambda text, said: errors.LimitsRefused(
            f"The endpoint cannot provide the requested resources{said}. Ask for less"
        ),
    ),
)


def error_for(status: int, text: str, *, quote: bool) -> errors.EndpointError:
    """Say what an error answer to any request but a pull means.

    `quote` is False for what has not proven to be a Docker Engine: its words are looked at and never repeated.
    """
    words = text.lower()
    said = f": “{quoted(text)}”" if quote else ""
    if _NO_SPACE.search(words):
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
    for parts, refused in _OPTIONS:
        if any(part in words for part in parts):
            return refused(text, said)
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


def is_image_in_use(status: int, text: str) -> bool:
    """Say whether an error answer to an image's removal means that a container uses it; Podman may say so with 500."""
    return status == 409 or "image used by" in text or "in use by" in text


def start_error_for(status: int, text: str, *, quote: bool) -> errors.EndpointError:
    """Say what an error answer to the start of a container means."""
    if "executable file not found" in text.lower():
        named = _EXECUTABLE.search(text)
        return errors.ImageWithoutJupyter(without_program(named[1] if named else "jupyter"))
    if is_of_another_platform(text):
        return wrong_platform()
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


def is_of_another_platform(text: str) -> bool:
    """Say whether a program could not be run because it is made for another kind of processor."""
    return "exec format error" in text.lower()


def wrong_platform() -> errors.ImageWrongPlatform:
    """Say that the image is made for another kind of processor."""
    return errors.ImageWrongPlatform(
        "The image is not made for the endpoint's kind of processor. Choose another image or tag"
    )


# In this order: a registry's refusal may be told in the words of several rows.
_NO_SPACE: Final = re.compile("no space left on device|disk quota exceeded")
_LIMIT: Final = re.compile("toomanyrequests:|too many requests|rate limit|http 429")
_PLATFORM: Final = re.compile(
    "no matching manifest|does not match the specified platform|no child with platform|no match for platform|"
    "no image found in (?:manifest list|image index)"
)
_UNTRUSTED: Final = re.compile("x509: |tls: |server gave http response to https client")
_UNREACHABLE: Final = re.compile(
    "dial tcp|i/o timeout|tls handshake timeout|no such host|connection refused|connection reset|no route to host|"
    "network is unreachable|server misbehaving|context deadline exceeded|client.timeout exceeded|request canceled|"
    "unexpected eof|: eof$"
)
_NOT_FOUND: Final = re.compile(
    "pull access denied|repository does not exist|requested access to the resource is denied|manifest unknown|"
    "name unknown|(?<!file )not found|no such (?!file)"
)
_DENIED: Final = re.compile(
    "unauthorized|authentication required|no basic auth credentials|access denied|denied(?::|$)|: 403 forbidden"
)
_BAD_IMAGE: Final = re.compile("invalid reference format|invalid repository name|repository name must be")


def pull_error(text: str) -> errors.EndpointError:
    """Say what an error in a pull means; what nobody knows may go better next time."""
    words = text.lower().strip()
    if _NO_SPACE.search(words):
        return _no_space()
    if _LIMIT.search(words):
        return errors.RegistryLimit(
            "The registry's pull limit for the endpoint's address is reached. Wait, or pull the image there yourself "
            "after docker login, then launch again"
        )
    if _PLATFORM.search(words):
        return wrong_platform()
    if _UNTRUSTED.search(words):
        return errors.RegistryUntrusted(
            f"The endpoint does not trust the registry's certificate, or the registry has none: “{quoted(text)}”. "
            "Install the registry's CA on the endpoint, or check the image's name"
        )
    if _UNREACHABLE.search(words):
        return errors.RegistryUnreachable(
            f"The endpoint cannot reach the registry: “{quoted(text)}”. Check the image's name, and the endpoint's "
            "network, DNS and proxy. The hub will try again"
        )
    if _NOT_FOUND.search(words):
        return errors.ImageNotFound(
            "The registry has no such image, or keeps it private. Check the image's name; pull a private one on the "
            "endpoint yourself, then launch again"
        )
    if _DENIED.search(words):
        return errors.RegistryDenied(
            "The registry requires a login, and the hub has none. Pull the image on the endpoint yourself, then launch "
            "again"
        )
    if _BAD_IMAGE.search(words):
        return errors.BadImage(BAD_IMAGE)
    return errors.PullFailed(f"The pull failed: “{quoted(text)}”. The hub will try again")


def pull_error_for(status: int, text: str) -> errors.EndpointError:
    """Say what an error answer to a pull means: the registry's words, or an error of the endpoint itself."""
    error = pull_error(text)
    if not isinstance(error, errors.PullFailed):
        return error
    of_endpoint = error_for(status, text, quote=True)
    plain = isinstance(of_endpoint, errors.RequestRejected | errors.EndpointFailed | errors.ContainerMissing)
    return error if plain else of_endpoint


def _port_taken(text: str) -> errors.PortTaken:
    """Say which port is taken: engines name it after the address, and none when all of a range are."""
    ports = _PORT.findall(text)
    if not ports:
        return errors.PortTaken(
            "All ports of the endpoint that the notebook may have are taken. Free one there, or choose other ports. "
            "The hub will try again"
        )
    return errors.PortTaken(
        f"Port {ports[-1]} of the endpoint is taken. Free it there, or choose another port or a range. The hub will "
        "try again"
    )


def _no_space() -> errors.EndpointError:
    """Say that the endpoint's disk is full."""
    return errors.NoSpace(
        "The endpoint's disk is full. Free some space there, for example with docker system prune, then launch again"
    )
