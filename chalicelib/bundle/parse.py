"""Any credentials bundle a visitor has → the endpoint and the credentials for it, or a refusal with a stable code.

1. What a file is, its content says: a zip or tar, a PEM block, an assignment to DOCKER_HOST, a Docker context. Names
   only decide between several files of one kind (cert.pem and server.pem), and only the names in ROLES do.
2. Nothing is evaluated. `$DIR` in a value of DOCKER_HOST is a refusal, everywhere else it is not looked at.
3. Everything that names an endpoint must name the same one, the form's host field included.
4. Certificates, key and endpoint are kept; all else is dropped, and named in `Bundle.dropped`.
5. `parse` is the one boundary: whatever a parser below raises leaves it as BadBundle or BadEndpoint, without a cause
   that could carry the content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from chalicelib import archive, errors
from chalicelib import client_certificate as tls
from chalicelib.address import Endpoint, parse_endpoint
from chalicelib.archive import File, shown

CARINA: Final = "Carina cluster"
UCP: Final = "Docker UCP or MKE client bundle"
CONTEXT: Final = "docker context export"
MACHINE: Final = "docker-machine folder"
ENVIRONMENT: Final = "certificates with an environment file"
CERTIFICATES: Final = "certificates"

_STORED_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens a Docker endpoint: PEM of the authority, of the client certificate (leaf first) and of its key."""

    endpoint: Endpoint
    ca: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode for sealing."""
        document = {
            "version": _STORED_VERSION,
            "endpoint": str(self.endpoint),
            "ca": self.ca.decode("ascii"),
            "certificate": self.certificate.decode("ascii"),
            "key": self.key.decode("ascii"),
        }
        return json.dumps(document).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Credentials:
        """Decode what `to_bytes` gave; raises BadEnvelope for anything else, with none of it in a traceback."""
        try:
            return cls._decoded(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, errors.BadEndpoint):
            del data
        raise errors.BadEnvelope("The stored credentials are not in a form this version reads. Upload the bundle again")

    @classmethod
    def _decoded(cls, document: Any) -> Self:
        if document["version"] != _STORED_VERSION:
            raise ValueError
        ca, certificate, key = (document[name].encode("ascii") for name in ("ca", "certificate", "key"))
        return cls(parse_endpoint(document["endpoint"]), ca, certificate, key)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A parsed bundle, and what the visitor is shown of it.

    `owner` is the hex SHA-256 of the client key's SubjectPublicKeyInfo, `fingerprint` that of the certificate; times
    are epoch seconds; `dropped` are the paths of files that were not used; `warnings` are sentences.
    """

    credentials: Credentials
    format: str
    owner: str
    subject: str
    fingerprint: str
    not_before: float
    not_after: float
    dropped: tuple[str, ...]
    warnings: tuple[str, ...]


def parse(body: bytes, *, host: str | None, now: float) -> Bundle:
    """Parse an uploaded bundle. `host` is the form's field, `now` is in epoch seconds.

    Raises subclasses of BadBundle and BadEndpoint, and nothing else.
    """
    try:
        return _parse(body, host=host, now=now)
    except (errors.BadBundle, errors.BadEndpoint) as error:
        refusal: errors.HomeportError = error
    except Exception:  # noqa: BLE001 - the boundary of rule 5: hostile input, four parsers; nothing goes on after it
        refusal = errors.BundleUnreadable("The bundle cannot be read. Take it from where you got it again")
    refusal.__cause__ = refusal.__context__ = None  # a UnicodeDecodeError, for one, holds all it decoded
    del body  # an error reporter may show the local variables of every frame an error passes
    raise refusal.with_traceback(None)


def _parse(body: bytes, *, host: str | None, now: float) -> Bundle:
    contents = Contents.of(archive.read(body))
    endpoint = _agreed_endpoint(contents, host)
    if endpoint is None and contents.is_kubernetes:
        raise errors.KubernetesBundle(
            "This bundle is for a Kubernetes cluster and names no Docker endpoint. Upload the bundle of a Docker or "
            "Swarm cluster, or name the Docker endpoint in the host field"
        )
    identity, used = _identity(Pems.of(contents.files), now)
    if endpoint is None:
        raise errors.EndpointMissing(
            "The bundle does not name the endpoint's address. Type it into the host field, for example "
            "tcp://docker.example.org:2376"
        )
    used |= {source.path for source in contents.sources}
    return Bundle(
        credentials=Credentials(endpoint, identity.ca, identity.certificate, identity.key),
        format=contents.format,
        owner=identity.owner,
        subject=identity.subject,
        fingerprint=identity.fingerprint,
        not_before=identity.not_before,
        not_after=identity.not_after,
        dropped=tuple(sorted(file.path for file in contents.files if file.path not in used)),
        warnings=_warnings(contents),
    )


# ── which endpoint ───────────────────────────────────────────────────────────────────────────────────────────────


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


def _agreed_endpoint(contents: Contents, host: str | None) -> Endpoint | None:
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
            f"In the bundle, {shown(source.path)} computes DOCKER_HOST instead of naming it, and nothing in a bundle "
            "is ever run. Write the address itself there, or take that line out and use the host field"
        )
    return parse_endpoint(source.address)


def _sources(file: File) -> tuple[Source, ...]:
    text = tls.text_of(file.data)
    if _is_json(text):
        return _json_sources(file, text)
    if tls.is_pem(text) or _is_prose(file):
        return ()
    return tuple(Source(file.path, ENVIRONMENT, value) for value in env_values(text))


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _is_prose(file: File) -> bool:
    """Tell whether a file is for people: what it says about DOCKER_HOST or keys are examples."""
    name = file.name.casefold()
    return name.startswith("readme") or name.endswith((".md", ".html"))


# One statement that assigns DOCKER_HOST, in the shells of BUNDLES: sh, fish, csh, cmd, PowerShell and Emacs Lisp.
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
    if not isinstance(document, dict):
        return ()
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
    text = tls.text_of(file.data)
    return re.search(r"^kind: Config\s*$", text, re.MULTILINE) is not None and "apiVersion:" in text


# ── which certificates and key ───────────────────────────────────────────────────────────────────────────────────

CA, CERTIFICATE, KEY, NOBODY = "ca", "certificate", "key", "nobody"

# What a file's name, without extension, says about its PEM blocks. NOBODY's files belong to the server, to the
# authority or to SSH and are never used.
ROLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ca", "ca-cert", "cacert"), CA),
    **dict.fromkeys(("cert", "user", "client", "client-cert", "user-cert"), CERTIFICATE),
    **dict.fromkeys(("key", "user-key", "client-key"), KEY),
    **dict.fromkeys(("ca-key", "server", "server-cert", "server-key", "id-rsa", "id-ecdsa", "id-ed25519"), NOBODY),
}
_EXTENSION: Final = re.compile(r"\.(pem|crt|cer|cert|key|txt)$")


def role(name: str) -> str | None:
    """Tell what a file's name says about it; None when it says nothing."""
    stem = name.casefold().replace("_", "-")
    while _EXTENSION.search(stem):
        stem = _EXTENSION.sub("", stem)
    return ROLES.get(stem)


@dataclass(frozen=True, slots=True)
class Pems:
    """The PEM blocks of the one folder that holds the client's key, each with its file's role."""

    blocks: tuple[tuple[str | None, tls.Block], ...]

    @classmethod
    def of(cls, files: Sequence[File]) -> Pems:
        """Find the folder and read its PEM files; raises KeyMissing, SeveralBundles, PemDamaged."""
        pems = [file for file in files if role(file.name) != NOBODY and _is_pem(file) and _base(file) is not None]
        bases = sorted({_base(file) or "" for file in pems if role(file.name) != CA and _has_key(file)})
        if not bases:
            raise _key_missing()
        if len(bases) > 1:
            raise errors.SeveralBundles(
                f"The archive holds private keys in several folders ({shown(bases[0] or '.')} and {shown(bases[1])}). "
                "Pack only the folder of the endpoint you want to use"
            )
        chosen = [file for file in pems if _base(file) == bases[0]]
        return cls(tuple((role(file.name), block) for file in chosen for block in tls.blocks(file)))

    def find(self, *roles: str | None, private: bool) -> list[tls.Block]:
        """Give the private keys, or all else, from the files of the first role that has any; each content once."""
        for wanted in roles:
            found = [block for said, block in self.blocks if said == wanted and tls.is_relevant(block, private)]
            if found:
                return list({block.der: block for block in found}.values())
        return []

    def has(self, *roles: str) -> bool:
        """Tell whether files with these roles have certificates in them."""
        return bool(self.find(*roles, private=False))

    def paths(self, ders: set[bytes]) -> set[str]:
        """Give the paths of all files with one of these contents."""
        return {block.path for _, block in self.blocks if block.der in ders}


def _key_missing() -> errors.KeyMissing:
    return errors.KeyMissing(
        "The bundle holds no private key for you. Put the key of your client certificate in as key.pem, in PEM form"
    )


def _is_pem(file: File) -> bool:
    text = tls.text_of(file.data)
    return tls.is_pem(text) and not _is_prose(file) and not _is_json(text)


def _has_key(file: File) -> bool:
    return "PRIVATE KEY-----" in tls.text_of(file.data)


def _base(file: File) -> str | None:
    """Give the folder a file belongs to: Docker's own sub-folder counts as its parent, Kubernetes' as none."""
    folder = f"/{file.folder}"
    if folder.endswith("/tls/kubernetes"):
        return None
    return folder.removesuffix("/tls/docker").strip("/")


def _identity(pems: Pems, now: float) -> tuple[tls.Identity, set[str]]:
    """Find and check certificate, key and authority; give also the paths of the files they are in."""
    keys = pems.find(KEY, CERTIFICATE, None, private=True)
    if not keys:
        raise _key_missing()
    if len(keys) > 1:
        raise errors.SeveralKeys(
            f"The bundle holds several private keys that could be yours (in {shown(keys[0].path)} and "
            f"{shown(keys[1].path)}). Keep the one that belongs to cert.pem"
        )
    key = tls.load_key(keys[0])
    own = tls.load_certificates(pems.find(CERTIFICATE, KEY, None, private=False))
    if not own:
        raise errors.CertificateMissing(
            "Beside the key, the bundle holds no client certificate. Put it in as cert.pem, in PEM form "
            "(it begins with “BEGIN CERTIFICATE”)"
        )
    if not pems.has(CERTIFICATE, KEY):
        own = tls.matching(own, key) or own
    leaf, others = tls.pick(own, key)
    authorities = tls.load_certificates(pems.find(CA, None, private=False))
    if not pems.has(CA):
        authorities = tuple(found for found in authorities if found != leaf and found.could_sign)
    if not authorities:
        raise errors.AuthorityMissing(
            "Beside the key, the bundle holds no certificate of the authority your endpoint's certificates are from. "
            "Put it in as ca.pem, in PEM form"
        )
    identity = tls.check(leaf, key, authorities=authorities, intermediates=others, now=now)
    return identity, pems.paths({keys[0].der, *(certificate.der for certificate in (*own, *authorities))})


def _warnings(contents: Contents) -> tuple[str, ...]:
    found = []
    if any(source.skips_verify for source in contents.sources):
        found.append("The context asks to skip TLS verification; Homeport verifies the endpoint all the same.")
    for file in contents.files:
        if role(file.name) in (CA, NOBODY) and file.name.casefold().startswith("ca") and _has_key(file):
            found.append(
                f"The bundle holds your authority's private key ({shown(file.path)}). It was not kept. Whoever has it "
                "can open your endpoint for ever: leave it out of what you upload."
            )
    return tuple(found)
