"""Any credentials bundle a visitor has → the endpoint and the credentials for it, or a refusal with a stable code.

1. What a file is, its content says: a zip or tar, a PEM block, an assignment to DOCKER_HOST, a Docker context.
2. Nothing is evaluated, and everything that names an endpoint must name the same one (sources.py).
3. Certificates, key and endpoint are kept; all else is dropped, and named in `Bundle.dropped`.
4. `parse` is the one boundary: whatever a parser below raises leaves it as BadBundle or BadEndpoint, without a cause
   that could carry the content.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.bundle import archive, errors
from chalicelib.bundle.credentials import Credentials
from chalicelib.bundle.files import shown
from chalicelib.bundle.identity import CA, IGNORED, Pems, find_identity, has_key, role
from chalicelib.bundle.sources import Contents, agreed_endpoint
from chalicelib.errors import HomeportError


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
        refusal: HomeportError = error
    except Exception:  # noqa: BLE001 - the boundary of rule 4: hostile input, four parsers; nothing goes on after it
        refusal = errors.BundleUnreadable("The bundle cannot be read. Get it again from where you got it")
    refusal.__cause__ = refusal.__context__ = None  # a UnicodeDecodeError, for one, holds all it decoded
    del body  # an error reporter may show the local variables of every frame an error passes
    raise refusal.with_traceback(None)


def _parse(body: bytes, *, host: str | None, now: float) -> Bundle:
    contents = Contents.of(archive.read(body))
    endpoint = agreed_endpoint(contents, host)
    if endpoint is None and contents.is_kubernetes:
        raise errors.KubernetesBundle(
            "This bundle is for a Kubernetes cluster and names no Docker endpoint. Upload the bundle of a Docker or "
            "Swarm cluster, or name the Docker endpoint in the host field"
        )
    identity, used = find_identity(Pems.of(contents.files), now)
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


def _warnings(contents: Contents) -> tuple[str, ...]:
    found = []
    if any(source.skips_verify for source in contents.sources):
        found.append("The context asks to skip TLS verification; Homeport verifies the endpoint anyway.")
    for file in contents.files:
        if role(file.name) in (CA, IGNORED) and file.name.casefold().startswith("ca") and has_key(file):
            found.append(
                f"The bundle contains your CA's private key ({shown(file.path)}). It was not kept. Anyone who has it "
                "can access your endpoint at any time, so do not upload it."
            )
    return tuple(found)
