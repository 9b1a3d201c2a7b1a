"""Which endpoint a bundle names: environment files, Docker contexts and docker-machine's configuration.

Nothing is evaluated: `$DIR` in a value of DOCKER_HOST is a refusal, everywhere else it is not looked at. Everything
that names an endpoint must name the same one, the form's host field included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.bundle import errors
from chalicelib.bundle.address import Endpoint, parse_endpoint
from chalicelib.bundle.files import File, shown
from chalicelib.bundle.pem import is_pem, text_of

CARINA: Final = "Carina cluster"
UCP: Final = "Docker UCP or MKE client bundle"
CONTEXT: Final = "docker context export"
MACHINE: Final = "docker-machine folder"
ENVIRONMENT: Final = "certificates with an environment file"
CERTIFICATES: Final = "certificates"


@dataclass(frozen=True, slots=True)
class Source:
    """A file that names an endpoint, the format that such a file speaks for, and the address as it stands there."""

    path: str
    format: str
    address: str
    skips_verify: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a bundle, below its top folder, and what names an endpoint among them."""

    files: tuple[File, ...]
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, files: tuple[File, ...]) -> Contents:
        """Look through all files for endpoints."""
        files = _below_top(files)
        return cls(files, tuple(source for file in files for source in _sources(file)))

    @property
    def is_kubernetes(self) -> bool:
        """Whether there is a Kubernetes configuration."""
        return any(_is_kubernetes(file) for file in self.files)

    @property
    def format(self) -> str:
        """Which tool wrote the bundle, as far as one can tell."""
        formats = {source.format for source in self.sources}
        names = {file.path for file in self.files}
        if MACHINE in formats:
            return MACHINE
        if "env.sh" in names and (CONTEXT in formats or names & {"cert.pub", "kube.yml"}):
            return UCP
        if CONTEXT in formats:
            return CONTEXT
        if ENVIRONMENT in formats:
            return CARINA if "docker.env" in names else ENVIRONMENT
        return CERTIFICATES


def _below_top(files: tuple[File, ...]) -> tuple[File, ...]:
    """Take away the folders that all files share."""
    while all("/" in file.path for file in files) and len({file.path.partition("/")[0] for file in files}) == 1:
        files = tuple(File(file.path.partition("/")[2], file.data) for file in files)
    return files


def agreed_endpoint(contents: Contents, host: str | None) -> Endpoint | None:
    """Give the one endpoint that bundle and host field name; raises EndpointsDisagree or what parse_endpoint does."""
    found = [(shown(source.path), _endpoint(source)) for source in contents.sources]
    if host is not None and host.strip():
        found.append(("the host field", parse_endpoint(host)))
    for name, endpoint in found[1:]:
        if endpoint != found[0][1]:
            raise errors.EndpointsDisagree(
                f"Two endpoints are named: {found[0][0]} says {found[0][1]}, and {name} says {endpoint}. "
                "Keep the right one: correct the file, or leave the host field empty"
            )
    return found[0][1] if found else None


def _endpoint(source: Source) -> Endpoint:
    if re.search(r"[$`]|%[A-Za-z_]+%", source.address):
        raise errors.EndpointNotLiteral(
            f"In the bundle, {shown(source.path)} sets DOCKER_HOST with a variable or a command, and nothing in a "
            "bundle is ever run. Write the address itself there, or remove that line and use the host field"
        )
    return parse_endpoint(source.address)


def _sources(file: File) -> tuple[Source, ...]:
    text = text_of(file.data)
    if is_json(text):
        return _json_sources(file, text)
    if is_pem(text) or is_prose(file):
        return ()
    return tuple(Source(file.path, ENVIRONMENT, value) for value in env_values(text))


def is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def is_prose(file: File) -> bool:
    """Tell whether a file is for people: what it says about DOCKER_HOST or keys are examples."""
    name = file.name.casefold()
    return name.startswith("readme") or name.endswith((".md", ".html"))


# One statement that assigns DOCKER_HOST, in the shells of docs/bundles.md: sh, fish, csh, cmd, PowerShell and Emacs
# Lisp.
_ASSIGNMENT: Final = re.compile(
    r"""\s*@?\(?
    (?: (?: (?i:export|set|setx|setenv|declare|typeset) \s+ (?:-[a-zA-Z]+\s+)* (?:[A-Za-z_][A-Za-z0-9_]*=\S*\s+)* )?
      | \$\{?(?i:env):
    )
    ["']? DOCKER_HOST ["'}]? \s* (?:=|\s) \s* (?P<value>.*)""",
    re.VERBOSE,
)
_QUOTED: Final = re.compile(r"""(["'])(.*?)\1""")


def env_values(text: str) -> tuple[str, ...]:
    """Give the values that a script assigns to DOCKER_HOST, unquoted and unevaluated; empty ones are left out."""
    statements = (part for line in text.splitlines() for part in re.split(r";|&&", line) if "DOCKER_HOST" in part)
    matches = (_ASSIGNMENT.match(statement) for statement in statements)
    values = (_value(match["value"]) for match in matches if match)
    return tuple(dict.fromkeys(value for value in values if value))


def _value(text: str) -> str:
    quoted = _QUOTED.match(text)
    if quoted:
        return quoted[2].strip()
    words = text.split()
    return words[0].strip("\"')") if words and not words[0].startswith("#") else ""


def _json_sources(file: File, text: str) -> tuple[Source, ...]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        if file.name in ("meta.json", "config.json"):
            raise _context_unreadable(file.path) from None
        return ()
    assert isinstance(document, dict), "what begins with { and is JSON is an object"
    if isinstance(document.get("Endpoints"), dict):
        return _context_source(file.path, document["Endpoints"])
    if isinstance(document.get("Driver"), dict):
        return _machine_source(file.path, document["Driver"])
    return ()


def _context_source(path: str, endpoints: Mapping[str, Any]) -> tuple[Source, ...]:
    """Read a Docker context (docs.docker.com, "docker context export"); other endpoints than Docker's are dropped."""
    docker = endpoints.get("docker", {})
    address = docker.get("Host", "") if isinstance(docker, dict) else None
    if not isinstance(address, str):
        raise _context_unreadable(path)
    return (Source(path, CONTEXT, address, docker.get("SkipTLSVerify") is True),) if address else ()


def _machine_source(path: str, driver: Mapping[str, Any]) -> tuple[Source, ...]:
    """Read docker-machine's config.json: the driver's IP address, or the URL of the driver "none"."""
    address, url = driver.get("IPAddress", ""), driver.get("URL", "")
    if not isinstance(address, str) or not isinstance(url, str):
        raise _context_unreadable(path)
    if address:
        url = f"tcp://[{address}]:2376" if ":" in address else f"tcp://{address}:2376"
    return (Source(path, MACHINE, url),) if url else ()


def _context_unreadable(path: str) -> errors.ContextUnreadable:
    return errors.ContextUnreadable(
        f"In the bundle, {shown(path)} is not what Docker writes. Export the context again, or leave this file out and "
        "type the endpoint's address into the host field"
    )


def _is_kubernetes(file: File) -> bool:
    if file.name.casefold() in ("kubectl.config", "kubectl.env", "kube.yml", "kubeconfig"):
        return True
    text = text_of(file.data)
    return re.search(r"^kind: Config\s*$", text, re.MULTILINE) is not None and "apiVersion:" in text
