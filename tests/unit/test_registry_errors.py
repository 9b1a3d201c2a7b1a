"""What engines say of a pull that failed, word for word, and which error it is.

The forms are those of moby/moby (distribution/errors.go, pull_v2.go; a registry's own texts are distribution's,
registry/api), of containerd/containerd (core/remotes/docker) where Docker uses its image store, and of containers/image
(docker/) in Podman; as users report them.
"""

from __future__ import annotations

import pytest

from chalicelib.engine import errors
from chalicelib.engine.messages import error_for, pull_error, pull_error_for, start_error_for

NAME = "registry.example.org/team/image"
NOT_FOUND, DENIED, LIMIT = errors.ImageNotFound, errors.RegistryDenied, errors.RegistryLimit
UNREACHABLE, UNTRUSTED, PLATFORM = errors.RegistryUnreachable, errors.RegistryUntrusted, errors.ImageWrongPlatform

SAID: dict[str, type[errors.EndpointError]] = {
    # Docker, its own image store
    f"pull access denied for {NAME}, repository does not exist or may require 'docker login': denied: requested access "
    "to the resource is denied": NOT_FOUND,
    f"manifest for {NAME}:tag not found: manifest unknown: manifest unknown": NOT_FOUND,
    f"repository {NAME} not found: name unknown: repository name not known to registry": NOT_FOUND,
    "unauthorized: access to the requested resource is not authorized": DENIED,
    f'Head "https://{NAME}/manifests/latest": no basic auth credentials': DENIED,
    f"Head https://{NAME}/manifests/latest: unauthorized: authentication required": DENIED,
    "denied": DENIED,
    f'error pulling image configuration: download failed after attempts=1: Get "https://{NAME}": denied: no': DENIED,
    "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating": LIMIT,
    "toomanyrequests: Rate exceeded": LIMIT,
    'error parsing HTTP 429 response body: invalid character \'T\' looking for beginning of value: "Too Many Requests"':
        LIMIT,
    "no matching manifest for linux/arm64/v8 in the manifest list entries": PLATFORM,
    "no matching manifest for unknown in the manifest list entries": PLATFORM,
    f"image with reference {NAME} was found but does not match the specified platform: wanted linux/arm64, actual: "
    "linux/amd64": PLATFORM,
    "failed to register layer: Error processing tar file(exit status 1): write /usr/lib/x.so: no space left on device":
        errors.NoSpace,
    "write /var/lib/docker/tmp/GetImageBlob123: no space left on device": errors.NoSpace,
    "mkdir /var/lib/docker/overlay2/abc: disk quota exceeded": errors.NoSpace,
    f'Get "https://{NAME}": dial tcp: lookup registry.example.org on 127.0.0.53:53: no such host': UNREACHABLE,
    f'Get "https://{NAME}": dial tcp 203.0.113.7:443: connect: connection refused': UNREACHABLE,
    f'Get "https://{NAME}": net/http: TLS handshake timeout': UNREACHABLE,
    f'Get "https://{NAME}": net/http: request canceled while waiting for connection (Client.Timeout exceeded while '
    "awaiting headers)": UNREACHABLE,
    f'Get "https://{NAME}": context deadline exceeded': UNREACHABLE,
    f'Get "https://{NAME}": EOF': UNREACHABLE,
    "read tcp 10.0.0.2:51234->203.0.113.7:443: read: connection reset by peer": UNREACHABLE,
    f'Get "https://{NAME}": x509: certificate signed by unknown authority': UNTRUSTED,
    f'Get "https://{NAME}": tls: failed to verify certificate: x509: certificate has expired or is not yet valid':
        UNTRUSTED,
    f'Get "https://{NAME}": http: server gave HTTP response to HTTPS client': UNTRUSTED,
    "received unexpected HTTP status: 503 Service Unavailable": errors.PullFailed,
    "filesystem layer verification failed for digest sha256:00": errors.PullFailed,
    "open /var/lib/docker/tmp/GetImageBlob123: no such file or directory": errors.PullFailed,
    'failed to register layer: exec: "unpigz": executable file not found in $PATH': errors.PullFailed,
    "invalid reference format: repository name (library/X) must be lowercase": errors.BadImage,
    # Docker with containerd's image store
    f"failed to resolve reference \"{NAME}:latest\": {NAME}:latest: not found": NOT_FOUND,
    f'failed to resolve reference "{NAME}:latest": pull access denied, repository does not exist or may require '
    "authorization: server message: insufficient_scope: authorization failed": NOT_FOUND,
    f'failed to resolve reference "{NAME}:latest": failed to authorize: failed to fetch anonymous token: unexpected '
    "status from GET request to https://auth.example.org/token: 401 Unauthorized": DENIED,
    f'failed to resolve reference "x": unexpected status from HEAD request to https://{NAME}: 403 Forbidden': DENIED,
    f'failed to copy: httpReadSeeker: failed open: unexpected status code https://{NAME}/blobs/sha256:00: 429 Too Many '
    "Requests - Server message: toomanyrequests: You have reached your pull rate limit": LIMIT,
    "no matching manifest for linux/arm64/v8 in the manifest list entries: no match for platform in manifest: not "
    "found": PLATFORM,
    f'failed to resolve reference "{NAME}:latest": failed to do request: Head "https://{NAME}": dial tcp: lookup '
    "registry.example.org: i/o timeout": UNREACHABLE,
    "failed to extract layer sha256:00: write /var/lib/containerd/x: no space left on device: unknown": errors.NoSpace,
    # Podman
    f"initializing source docker://{NAME}:latest: reading manifest latest in {NAME}: manifest unknown": NOT_FOUND,
    f"initializing source docker://{NAME}:latest: reading manifest latest in {NAME}: errors:\ndenied: requested access "
    "to the resource is denied\nunauthorized: authentication required\n": NOT_FOUND,
    f"initializing source docker://{NAME}:latest: reading manifest latest in {NAME}: unauthorized: access to the "
    "requested resource is not authorized": DENIED,
    f"initializing source docker://{NAME}:latest: reading manifest latest in {NAME}: toomanyrequests: You have reached "
    "your pull rate limit.": LIMIT,
    f"choosing an image from manifest list docker://{NAME}: no image found in manifest list for architecture arm64, "
    'variant "", OS linux': PLATFORM,
    f'initializing source docker://{NAME}: pinging container registry registry.example.org: Get "https://{NAME}": dial '
    "tcp: lookup registry.example.org: no such host": UNREACHABLE,
    f'initializing source docker://{NAME}: pinging container registry registry.example.org: Get "https://{NAME}": tls: '
    "failed to verify certificate: x509: certificate signed by unknown authority": UNTRUSTED,
    "writing blob: storing blob to file \"/var/tmp/storage1/1\": write /var/tmp/storage1/1: no space left on device":
        errors.NoSpace,
}  # fmt: skip


@pytest.mark.parametrize("text", SAID)
def test_what_an_engine_says_of_a_pull_is_one_sentence_that_says_what_to_do(text: str) -> None:
    error = pull_error(text)
    assert type(error) is SAID[text]
    assert error.message.isprintable()
    assert len(error.message) < 400


@pytest.mark.parametrize("name", ["eof", "timeout", "connection", "tls", "denied", "lookup", "no-such", "unauthorized"])
def test_an_images_name_is_not_taken_for_a_reason(name: str) -> None:
    for text in (
        f"manifest for team/{name}:{name} not found: manifest unknown: manifest unknown",
        f"repository {name}/{name} not found: name unknown: repository name not known to registry",
    ):
        assert type(pull_error(text)) is errors.ImageNotFound
    assert type(pull_error(f"no matching manifest for linux/arm64 in {name}")) is errors.ImageWrongPlatform


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (404, "boom", errors.PullFailed),
        (500, "boom", errors.PullFailed),
        (403, "authorization denied by plugin casbin", errors.EndpointForbidden),
        (403, "<html><body><h1>403 Forbidden</h1></body></html>", errors.EndpointForbidden),
        (401, "unauthorized: authentication required", errors.RegistryDenied),
        (400, "client version 1.24 is too old", errors.EndpointTooNew),
    ],
)
def test_an_error_of_the_endpoint_itself_is_not_the_registrys(
    status: int, text: str, error: type[errors.EndpointError]
) -> None:
    assert type(pull_error_for(status, text)) is error


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ('invalid mount config for type "bind": bind source path does not exist: /srv/x',
         errors.DataFolderMissing, "/srv/x"),
        ("Mounts denied: \nThe path /srv/x is not shared from the host", errors.DataFolderMissing, "/srv/x"),
        ("statfs /srv/x: no such file or directory", errors.DataFolderMissing, "/srv/x"),
        ("driver failed programming external connectivity on endpoint homeport-0123456789abcdefghij-1 (" + "ab" * 32 +
         "): Bind for 0.0.0.0:40000 failed: port is already allocated", errors.PortTaken, "Port 40000 "),
        ("driver failed programming external connectivity on endpoint x: Error starting userland proxy: listen tcp4 "
         "0.0.0.0:40000: bind: address already in use", errors.PortTaken, "Port 40000 "),
        ("rootlessport listen tcp [::]:40000: bind: address already in use", errors.PortTaken, "Port 40000 "),
        ("Bind for 0.0.0.0:0 failed: all ports are allocated", errors.PortTaken, "Port 0 "),
        ("all ports are allocated", errors.PortTaken, "All ports "),
        ("cannot listen on the TCP port: listen tcp4 127.0.0.1:40100: bind: address already in use",
         errors.PortTaken, "Port 40100 "),
        ('make cli opts(): strconv.Atoi: parsing "40110-40115": invalid syntax',
         errors.PortRangeUnsupported, "Name one port"),
        ("exec /usr/bin/tini: exec format error", errors.ImageWrongPlatform, "kind of processor"),
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', errors.GpuUnavailable, "without GPUs"),
    ],
)  # fmt: skip
def test_what_an_engine_says_of_an_option_is_one_sentence_that_says_what_to_do(
    text: str, error: type[errors.EndpointError], told: str
) -> None:
    said = start_error_for(500, text, quote=True)
    assert type(said) is error
    assert told in said.message
    assert said.message.isprintable()
    if error is not errors.ImageWrongPlatform:
        assert error_for(500, text, quote=True).message == said.message
