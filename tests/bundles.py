"""Writers of the credential bundles that real tools make, byte layout and OS clutter included.

Each takes a Pki (or makes one) and gives the bytes a visitor would upload. `zip_of` and `tar_of` pack any files.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.certificates import Ca, Leaf, key_pem, new_key

Files = Mapping[str, bytes | str]  # a name that ends in "/" is a folder

README = "# mycluster\n\nTo connect: `source docker.env`\n\n    export DOCKER_HOST=tcp://192.0.2.99:2376\n"

CARINA_ENV = """__CARINA_ENV_SOURCE="$_"
if [ -n "$BASH_SOURCE" ]; then
  __CARINA_ENV_SOURCE="${{BASH_SOURCE[0]}}"
fi
DIR="$(cd "$(dirname "${{__CARINA_ENV_SOURCE:-$0}}")" > /dev/null && \\pwd)"
unset __CARINA_ENV_SOURCE 2> /dev/null

export DOCKER_HOST={endpoint}
export DOCKER_TLS_VERIFY=1
export DOCKER_CERT_PATH=$DIR
export DOCKER_VERSION=1.11.2
"""
CARINA_PS1 = """$env:DOCKER_HOST="{endpoint}"
$env:DOCKER_TLS_VERIFY=1
$env:DOCKER_CERT_PATH=$PSScriptRoot
$env:DOCKER_VERSION="1.11.2"
"""
CARINA_CMD = """set DOCKER_HOST={endpoint}
set DOCKER_TLS_VERIFY=1
set DOCKER_CERT_PATH=%~dp0
set DOCKER_VERSION=1.11.2
"""
CARINA_FISH = """set -x DOCKER_HOST {endpoint};
set -x DOCKER_TLS_VERIFY 1;
set -x DOCKER_CERT_PATH (dirname (status -f));
"""
UCP_ENV_SH = """export COMPOSE_TLS_VERSION=TLSv1_2
export DOCKER_CERT_PATH=$PWD
export DOCKER_HOST={endpoint}
export DOCKER_TLS_VERIFY=1
export KUBECONFIG=$PWD/kube.yml

if kubectl >/dev/null 2>&1; then
    unset KUBECONFIG
    kubectl config set-cluster ucp_ucp.example.com:6443_admin --server https://ucp.example.com:6443
fi
# Run this command from within this directory to configure your shell:
# eval "$(<env.sh)"
"""
UCP_ENV_PS1 = """$Env:COMPOSE_TLS_VERSION = "TLSv1_2"
$Env:DOCKER_CERT_PATH = $(Split-Path $script:MyInvocation.MyCommand.Path)
$Env:DOCKER_HOST = "{endpoint}"
$Env:DOCKER_TLS_VERIFY = "1"
"""
UCP_ENV_CMD = """@echo off
set COMPOSE_TLS_VERSION=TLSv1_2
set DOCKER_CERT_PATH=%~dp0
set DOCKER_HOST={endpoint}
set DOCKER_TLS_VERIFY=1
"""
KUBE_YML = """apiVersion: v1
clusters:
- cluster:
    server: https://ucp.example.com:6443
kind: Config
"""


@dataclass(frozen=True, slots=True)
class Pki:
    """A CA, the client certificate it issued, and the server's."""

    ca: Ca
    client: Leaf
    server: Leaf

    @classmethod
    def new(cls, *, cn: str = "visitor", key: str = "p256") -> Pki:
        """Make a CA and issue both certificates."""
        ca = Ca.new("Cluster CA", key=key)
        return cls(
            ca,
            ca.issue(cn, client=True, key=key),
            ca.issue("cluster", server=True, client=True, sans=("203.0.113.7",), key=key),
        )

    @property
    def files(self) -> dict[str, bytes | str]:
        """The three files that every bundle has."""
        return {"ca.pem": self.ca.certificate, "cert.pem": self.client.certificate, "key.pem": self.client.key}


def carina(
    pki: Pki, endpoint: str = "tcp://203.0.113.7:2376", *, cluster: str = "mycluster", folder_entry: bool = True
) -> bytes:
    """Carina, 2015 to mid 2016: everything in a folder named like the cluster, the CA's key included."""
    files = {
        **pki.files,
        "ca-key.pem": pki.ca.key,
        "docker.env": CARINA_ENV.format(endpoint=endpoint),
        "docker.ps1": CARINA_PS1.format(endpoint=endpoint),
        "docker.cmd": CARINA_CMD.format(endpoint=endpoint).replace("\n", "\r\n"),
        "docker.fish": CARINA_FISH.format(endpoint=endpoint),
        "README.md": README,
    }
    return go_zip(under(cluster, files, entry=folder_entry))


def carina_late(pki: Pki, endpoint: str = "tcp://203.0.113.7:2376", *, cluster: str = "mycluster") -> bytes:
    """Carina, late 2016: user.pem and user-key.pem, and no key of the CA."""
    files: Files = {
        "ca.pem": pki.ca.certificate,
        "user.pem": pki.client.certificate,
        "user-key.pem": pki.client.key,
        "docker.env": CARINA_ENV.format(endpoint=endpoint),
        "README.md": README,
    }
    return go_zip(under(cluster, files))


def carina_kubernetes(pki: Pki) -> bytes:
    """Carina's Kubernetes variant, which names no Docker endpoint."""
    files = {**pki.files, "kubectl.env": "export KUBECONFIG=$DIR/kubectl.config\n", "kubectl.config": KUBE_YML}
    return go_zip(under("kube", files))


def ucp(pki: Pki, endpoint: str = "tcp://ucp.example.com:443", *, context_endpoint: str | None = None) -> bytes:
    """A client bundle of Docker UCP 3 or Mirantis MKE: flat, with a context and its tls folders."""
    files: dict[str, bytes | str] = {
        **pki.files,
        "cert.pub": public_pem(pki.client),
        "env.sh": UCP_ENV_SH.format(endpoint=endpoint),
        "env.cmd": UCP_ENV_CMD.format(endpoint=endpoint),
        "env.ps1": UCP_ENV_PS1.format(endpoint=endpoint),
        "kube.yml": KUBE_YML,
        "meta.json": context_meta(context_endpoint or endpoint, name="ucp_ucp.example.com:443_admin"),
    }
    for kind in ("docker", "kubernetes"):
        files |= {f"tls/{kind}/{name}": data for name, data in pki.files.items()}
    return go_zip(files)


def ucp_old(pki: Pki, endpoint: str = "tcp://ucp.example.com:443") -> bytes:
    """A client bundle of Docker UCP 1 and 2: without context and Kubernetes."""
    files = {
        **pki.files,
        "cert.pub": public_pem(pki.client),
        "env.sh": UCP_ENV_SH.format(endpoint=endpoint),
        "env.cmd": UCP_ENV_CMD.format(endpoint=endpoint),
        "env.ps1": UCP_ENV_PS1.format(endpoint=endpoint),
    }
    return go_zip(files)


def context_meta(endpoint: str, *, name: str = "home", skip_verify: bool = False) -> str:
    """Write a Docker context's meta.json, without spaces as Go does."""
    docker = {"Host": endpoint, "SkipTLSVerify": skip_verify}
    return json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": docker}}, separators=(",", ":"))


def context_files(pki: Pki, endpoint: str, *, skip_verify: bool = False) -> dict[str, bytes | str]:
    """The entries of a context's export."""
    return {
        "meta.json": context_meta(endpoint, skip_verify=skip_verify),
        "tls/": b"",
        "tls/docker/": b"",
        **{f"tls/docker/{name}": data for name, data in pki.files.items()},
    }


def docker_context(pki: Pki, endpoint: str = "tcp://192.0.2.7:2376", *, skip_verify: bool = False) -> bytes:
    """`docker context export`: a tar whose last file is not padded and that has no end, as the docker CLI leaves it."""
    files = context_files(pki, endpoint, skip_verify=skip_verify)
    packed = tar_of(files, names_as_in_go=True)
    last = list(files.values())[-1]
    return packed.rstrip(b"\0") if isinstance(last, bytes) and last.endswith(b"\n") else packed


def docker_context_zip(pki: Pki, endpoint: str = "tcp://192.0.2.7:2376") -> bytes:
    """The zip form, which `docker context import` takes too."""
    return zip_of(context_files(pki, endpoint))


def docker_machine(pki: Pki, address: str = "192.168.99.100", *, name: str = "default") -> bytes:
    """The zipped folder ~/.docker/machine/machines/<name>, with the server's key and the SSH key in it."""
    config = {
        "ConfigVersion": 3,
        "Driver": {"IPAddress": address, "MachineName": name, "SSHUser": "docker", "SSHPort": 22, "Memory": 1024},
        "DriverName": "virtualbox",
        "HostOptions": {"EngineOptions": {"TlsVerify": True}, "AuthOptions": {"CertDir": "/home/me/.docker/machine"}},
        "Name": name,
    }
    files = {
        **pki.files,
        "config.json": json.dumps(config, indent=4),
        "server.pem": pki.server.certificate,
        "server-key.pem": pki.server.key,
        "id_rsa": key_pem(new_key("rsa1024"), form="traditional"),
        "id_rsa.pub": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC docker\n",
    }
    return zip_of(under(name, files))


def certificate_folder(pki: Pki) -> bytes:
    """A plain folder of certificates that names no endpoint."""
    return zip_of(pki.files)


# ── packing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def under(folder: str, files: Files, *, entry: bool = True) -> dict[str, bytes | str]:
    """Put files into a top folder, with or without an entry for the folder itself."""
    top: dict[str, bytes | str] = {f"{folder}/": b""} if entry else {}
    return top | {f"{folder}/{name}": data for name, data in files.items()}


def bytes_of(data: bytes | str) -> bytes:
    """A file's content as it is packed."""
    return data.encode() if isinstance(data, str) else data


def zip_of(files: Files, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack a zip as Python and Info-ZIP do: sizes in the local headers."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return stream.getvalue()


def go_zip(files: Files) -> bytes:
    """Pack a zip as Go and macOS do: zeros in the local headers, sizes in a descriptor after the data."""
    stream = _Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return stream.getvalue()


def macos_zip(folder: str, files: Files) -> bytes:
    """Pack a zip as macOS's Finder does: resource forks beside, and .DS_Store."""
    inner = under(folder, {**files, ".DS_Store": b"\0\0\0\1Bud1" + bytes(6140)})
    forks = {f"__MACOSX/{folder}/._{name}": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(160) for name in files}
    return go_zip({**inner, "__MACOSX/": b"", f"__MACOSX/._{folder}": b"\0\5\x16\7" + bytes(100), **forks})


def tar_of(
    files: Files,
    *,
    form: int = tarfile.USTAR_FORMAT,
    mode: Literal["w", "w:gz", "w:bz2", "w:xz"] = "w",
    names_as_in_go: bool = False,
    dotted: bool = False,
) -> bytes:
    """Pack a tar; `mode` "w:gz" compresses; `dotted` begins names with "./" as `tar cf x.tar .` does."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as packed:
        for name, data in files.items():
            encoded = bytes_of(data)
            member = tarfile.TarInfo(("./" if dotted else "") + (name.rstrip("/") if names_as_in_go else name))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = 0 if name.endswith("/") else len(encoded)
            packed.addfile(member, io.BytesIO(encoded))
    return stream.getvalue()


class _Unseekable(io.BytesIO):
    """A stream that cannot go back, so that zipfile writes data descriptors."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def public_pem(leaf: Leaf) -> bytes:
    """The public key of a leaf, as UCP's cert.pub holds it."""
    key = x509.load_pem_x509_certificate(leaf.certificate).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
