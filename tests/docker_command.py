"""The `docker` command as far as a deployment of the proxy needs it: an engine whose images go to moto's ECR.

It asks the server before it builds, so that a gateway may refuse that, too.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PLATFORM = "linux/arm64"
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    try:
        match arguments[0]:
            case "version":
                sys.stdout.write(PLATFORM)
            case "build":
                _post("/docker/build", {})
            case "push":
                _push(arguments[-1])
            case other:
                raise AssertionError(f"nobody asks for docker {other}")
    except HTTPError as refused:
        sys.stderr.write(json.loads(refused.read())["message"])
        return 1
    return 0


def _push(image: str) -> None:
    """Put the image where its name says, with its tag for its only layer."""
    repository, _, tag = image.partition("/")[2].partition(":")
    manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "layers": [{"digest": f"sha256:{tag}", "size": 1}]}
    put = {"repositoryName": repository, "imageManifest": json.dumps(manifest), "imageTag": tag}
    _post("/", put, "AmazonEC2ContainerRegistry_V20150921.PutImage")


def _post(path: str, body: Any, target: str = "") -> None:
    headers = {"Content-Type": "application/x-amz-json-1.1"}
    if target:  # moto finds the service in the signature's scope
        scope = f"test/20260101/{os.environ['AWS_DEFAULT_REGION']}/ecr/aws4_request"
        headers |= {"X-Amz-Target": target, "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, Signature=0"}
    url = os.environ["AWS_ENDPOINT_URL"] + path
    urlopen(Request(url, json.dumps(body).encode(), headers, method="POST")).close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
