"""The proxy's image: built from proxy/Dockerfile by the `docker` command, and pushed to the stage's ECR repository.

1. The base image is looked up first and named by its digest, so what was built can be said, and built again.
2. An image's tag is the SHA-256 of all that goes into it: base, platform, Dockerfile, and each file that the Dockerfile
   copies. What the repository has under that tag is not built again. A newer base image, in which Debian's fixes
   are, is another tag.
3. The image is deployed by its digest.
4. The registry's password (for 12 hours) is handed to `docker push` in its environment, by a credential helper. It is
   written to no file, and the operator's own Docker configuration is left as it is.

`docker build` and `docker push` are all that is used: both work with BuildKit (buildx) and without.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from chalicelib.errors import BadConfiguration
from infra.findings import AGAIN

DOCKERFILE: Final = "proxy/Dockerfile"
INSTALL: Final = "Install Docker (https://docs.docker.com/engine/install/; Debian: apt-get install docker.io)"
_HELPER: Final = """#!/bin/sh
# A credential helper of Docker (docker-credential-helpers, "get"): the answer is in the environment.
printf %s "$REGISTRY_LOGIN"
"""
_SHOWN: Final = 12  # lines of what a failed command wrote


@dataclass(frozen=True, slots=True)
class Login:
    """Name and password for a registry, such as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`."""

    registry: str
    user: str
    password: str = field(repr=False)


class Docker:
    """The `docker` command, and the engine that it is configured for; `extra` are arguments of each build."""

    def __init__(self, environ: Mapping[str, str], extra: Sequence[str] = ()) -> None:
        self._environ = environ
        self._extra = extra

    def platform(self) -> str:
        """The engine's own platform, such as `linux/amd64`, for which it needs no emulation."""
        return self._run("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}").strip()

    def base(self, name: str, platform: str) -> str:
        """Pull a base image and name it by the digest its registry has for it; a digest is taken as it is."""
        if "@sha256:" in name:
            return name
        self._run("pull", "--quiet", "--platform", platform, name)
        found = json.loads(self._run("image", "inspect", "--format", "{{json .RepoDigests}}", name)) or []
        if not found:
            raise BadConfiguration(f"{name} has no digest: it came from no registry")
        own = [digest for digest in found if name.startswith(digest.partition("@")[0])]  # pulled from elsewhere, too
        return str((own or found)[0])

    def build(self, root: Path, tag: str, *, base: str, platform: str) -> None:
        """Build the proxy's image and call it `tag`."""
        options = ["--platform", platform, "--build-arg", f"BASE={base}", "-f", str(root / DOCKERFILE), "-t", tag]
        self._run("build", *self._extra, *options, str(root))

    def push(self, tag: str, login: Login) -> None:
        """Push an image to the registry that `login` is for."""
        with _configured(self._environ, login) as environ:
            self._run("push", tag, environ=environ)

    def _run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run the command and return what it wrote; raises BadConfiguration with the end of it if it failed."""
        used = self._environ if environ is None else environ
        program = shutil.which("docker", path=self._environ.get("PATH", os.defpath))
        if program is None:
            raise BadConfiguration(f"The proxy's image is built by the command docker, which is not here. {INSTALL}")
        done = subprocess.run([program, *arguments], env=dict(used), capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_SHOWN:])
            raise BadConfiguration(f"docker {arguments[0]} failed: {said}\n{_advice(said)}")
        return done.stdout


def _advice(said: str) -> str:
    if "Cannot connect to the Docker daemon" in said:
        return "Start Docker, or name its engine in DOCKER_HOST."
    if re.search("exec format error|no match for platform|does not match the specified platform", said):
        return (
            "This machine cannot run programs of that platform. Set HOMEPORT_PROXY_PLATFORM to its own, or install "
            "emulation (Debian: apt-get install qemu-user-static)."
        )
    return f"{AGAIN}."


@contextmanager
def _configured(environ: Mapping[str, str], login: Login) -> Iterator[dict[str, str]]:
    """The environment in which `docker` has a password for one registry, and the operator's contexts and plugins."""
    own = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/nonexistent")) / ".docker")
    with tempfile.TemporaryDirectory(prefix="homeport-docker-") as made:
        folder = Path(made)
        for entry in own.iterdir() if own.is_dir() else ():
            if entry.name != "config.json":
                (folder / entry.name).symlink_to(entry.absolute())
        file = own / "config.json"
        settings: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        settings.pop("auths", None)
        settings["credHelpers"] = {login.registry: "homeport"}
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "docker-credential-homeport").write_text(_HELPER)
        (folder / "docker-credential-homeport").chmod(0o700)
        answer = json.dumps({"ServerURL": login.registry, "Username": login.user, "Secret": login.password})
        path = f"{folder}{os.pathsep}{environ.get('PATH', os.defpath)}"
        yield {**environ, "DOCKER_CONFIG": made, "PATH": path, "REGISTRY_LOGIN": answer}


def digest_of_sources(root: Path, *, base: str, platform: str) -> str:
    """The SHA-256 of all that the proxy's image is made of, in hexadecimal."""
    told = hashlib.sha256(f"{base}\n{platform}\n".encode())
    for path in [Path(DOCKERFILE), *sources(root)]:
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        told.update(f"{path.as_posix()} {content}\n".encode())
    return told.hexdigest()


def sources(root: Path) -> list[Path]:
    """The files that the Dockerfile copies, below `root`, sorted; no bytecode."""
    lines = re.findall(r"^COPY (.*)$", (root / DOCKERFILE).read_text(), re.MULTILINE)
    named = [root / name for line in lines for name in line.split()[:-1]]
    files = [file for path in named for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sorted({file.relative_to(root) for file in files if file.suffix != ".pyc"})


def provide_image(docker: Docker, ecr: Any, root: Path, *, uri: str, base: str, platform: str) -> tuple[str, bool]:
    """Build and push the image unless the repository `uri` has it; name it by its digest, and say whether it was built.

    `ecr` is boto3's client. Raises BadConfiguration.
    """
    registry, _, repository = uri.partition("/")
    base = docker.base(base, platform)
    tag = digest_of_sources(root, base=base, platform=platform)
    if found := _digest(ecr, repository, tag):
        return f"{uri}@{found}", False
    docker.build(root, f"{uri}:{tag}", base=base, platform=platform)
    docker.push(f"{uri}:{tag}", _login(ecr, registry))
    if found := _digest(ecr, repository, tag):
        return f"{uri}@{found}", True
    raise BadConfiguration(f"The proxy's image was pushed, and {uri} does not have it")


def architecture(platform: str) -> str:
    """What ECS calls a platform; raises BadConfiguration for one that Fargate does not have."""
    known = {"linux/arm64": "ARM64", "linux/amd64": "X86_64"}
    if platform not in known:
        raise BadConfiguration(f"Fargate runs {' and '.join(known)}, not {platform}: set HOMEPORT_PROXY_PLATFORM")
    return known[platform]


def _digest(ecr: Any, repository: str, tag: str) -> str | None:
    """The digest of the image with that tag, if there is one."""
    try:
        images = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ImageNotFoundException":
            return None
        raise
    return str(images[0]["imageDigest"])


def _login(ecr: Any, registry: str) -> Login:
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = b64decode(token).decode().partition(":")
    return Login(registry, user, password)
