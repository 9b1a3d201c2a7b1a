"""A Docker endpoint over mutual TLS in front of an engine's socket, and the credentials bundle for it.

1. The engine's configuration stays as it is: HAProxy takes TLS on a loopback address, demands a client certificate of a
   throwaway CA, and passes the bytes on to the unix socket.
2. CA and certificates stay the same from run to run, in `pki.json` of the folder (mode 0600), and so does the
   port unless it is taken: the same visitor, the same bundle. They are made again when less than a week is left.
3. The bundle is a zip in the layout that Carina gave its users in late 2015, less the CA's key: that is thrown
   away as soon as it has signed.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from local import private, processes
from local.processes import LOOPBACK

LIFETIME: Final = datetime.timedelta(days=90)
RENEWAL: Final = datetime.timedelta(days=7)
CLUSTER: Final = "local"

_CONFIGURATION: Final = """\
global
    maxconn 512
defaults
    mode tcp
    maxconn 500
    timeout connect 5s
    # A pull, a log or an attached stream may be silent for long.
    timeout client 1h
    timeout server 1h
frontend docker
    bind {address}:{port} ssl crt {server} ca-file {ca} verify required ssl-min-ver TLSv1.2
    default_backend engine
backend engine
    server engine unix@{socket}
"""

_DOCKER_ENV: Final = """\
__CARINA_ENV_SOURCE="$_"
if [ -n "$BASH_SOURCE" ]; then
  __CARINA_ENV_SOURCE="${{BASH_SOURCE[0]}}"
fi
DIR="$(cd "$(dirname "${{__CARINA_ENV_SOURCE:-$0}}")" > /dev/null && \\pwd)"
unset __CARINA_ENV_SOURCE 2> /dev/null

export DOCKER_HOST={url}
export DOCKER_TLS_VERIFY=1
export DOCKER_CERT_PATH=$DIR
"""
_DOCKER_PS1: Final = '$env:DOCKER_HOST="{url}"\n$env:DOCKER_TLS_VERIFY=1\n$env:DOCKER_CERT_PATH=$PSScriptRoot\n'
_DOCKER_CMD: Final = "set DOCKER_HOST={url}\nset DOCKER_TLS_VERIFY=1\nset DOCKER_CERT_PATH=%~dp0\n"
_README: Final = """\
# Credentials of the local Docker endpoint

Upload the zip to the hub that made it. It also works by itself: `source docker.env && docker info`.
"""


@dataclass(frozen=True, slots=True)
class Pki:
    """The endpoint's throwaway CA, its server certificate and the visitor's client certificate, all PEM."""

    port: int
    not_after: float
    ca: str
    server: str = field(repr=False)  # certificate and key in one, as HAProxy wants it
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A Docker endpoint that answers at `url` to the holder of the client certificate."""

    port: int
    pki: Pki = field(repr=False)
    address: str = LOOPBACK

    @property
    def url(self) -> str:
        return f"tcp://{self.address}:{self.port}"


@contextmanager
def endpoint(
    folder: Path, engine_socket: Path, *, preferred_port: int = 0, address: str = LOOPBACK
) -> Iterator[LocalEndpoint]:
    """Offer the engine over mutual TLS for as long as the block lasts; raises StackError.

    `address` is one of this machine's own (127.0.0.0/8), the same in each run with this folder.
    """
    private.make_folder(folder)
    pki = _load_pki(folder, preferred_port, address)
    server, ca, configuration = folder / "server.pem", folder / "ca.pem", folder / "haproxy.cfg"
    private.write_file(server, pki.server.encode())
    private.write_file(ca, pki.ca.encode())
    text = _CONFIGURATION.format(address=address, port=pki.port, server=server, ca=ca, socket=engine_socket)
    private.write_file(configuration, text.encode())
    with processes.running("endpoint", ["haproxy", "-db", "-f", configuration], folder=folder) as child:
        processes.wait_for_port(pki.port, child=child, host=address)
        yield LocalEndpoint(pki.port, pki, address)


def write_bundle(path: Path, offered: LocalEndpoint) -> Path:
    """Write the credentials bundle of the endpoint to `path` (mode 0600) in the Carina layout of late 2015."""
    pki = offered.pki
    members = {
        "ca.pem": pki.ca,
        "cert.pem": pki.certificate,
        "key.pem": pki.key,
        "docker.env": _DOCKER_ENV.format(url=offered.url),
        "docker.ps1": _DOCKER_PS1.format(url=offered.url),
        "docker.cmd": _DOCKER_CMD.format(url=offered.url),
        "README.md": _README,
    }
    private.write_file(path, b"")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir(CLUSTER)
        for name, text in members.items():
            archive.writestr(f"{CLUSTER}/{name}", text)
    return path


# ── the throwaway PKI ────────────────────────────────────────────────────────────────────────────────────────────


def _load_pki(folder: Path, preferred_port: int, address: str) -> Pki:
    """Give the folder's PKI, on a port that is free now; makes one when there is none or it ends soon."""
    path = folder / "pki.json"
    now = datetime.datetime.now(datetime.UTC)
    if path.exists():
        kept = Pki(**json.loads(path.read_text()))
        if kept.not_after > (now + RENEWAL).timestamp():
            return replace(kept, port=processes.free_port(kept.port))
    made = _new_pki(address, processes.free_port(preferred_port), now)
    private.write_file(path, json.dumps(asdict(made)).encode())
    return made


def _new_pki(address: str, port: int, now: datetime.datetime) -> Pki:
    ca_key, server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    issuer = _name("Homeport local endpoint")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    ca = _builder(issuer, issuer, ca_key, now).add_extension(constraints, critical=True)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("localhost")])
    server = _builder(_name(address), issuer, server_key, now, ExtendedKeyUsageOID.SERVER_AUTH)
    client = _builder(_name("visitor"), issuer, client_key, now, ExtendedKeyUsageOID.CLIENT_AUTH)
    return Pki(
        port=port,
        not_after=(now + LIFETIME).timestamp(),
        ca=_signed(ca, ca_key),
        server=_signed(server.add_extension(addresses, critical=False), ca_key) + _key_pem(server_key),
        certificate=_signed(client, ca_key),
        key=_key_pem(client_key),
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    usage: x509.ObjectIdentifier | None = None,
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )
    return builder if usage is None else builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
