"""Every error Homeport raises on purpose, in one tree that answers whose problem it is.

`status` is the HTTP status, `code` the stable name a program may rely on, `retryable` whether the same request can
succeed later. They sit on the class. The message is written for the visitor: it says what to do next, names the file
or field, and holds no key, token or file content.
"""

from __future__ import annotations

from typing import ClassVar


class HomeportError(Exception):
    """The root: ours unless a subclass says otherwise."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# ── the visitor's request ────────────────────────────────────────────────────────────────────────────────────────


class BadRequest(HomeportError):
    """The request is not one the hub understands."""

    status = 400
    code = "bad-request"


class BadForm(BadRequest):
    """The request's body is not the multipart form that a browser sends."""

    code = "bad-form"


class UnsupportedMediaType(BadRequest):
    """The request's content type is not the one this address takes."""

    status = 415
    code = "unsupported-media-type"


class MethodNotAllowed(BadRequest):
    """This address does not know the request's method."""

    status = 405
    code = "method-not-allowed"


class MissingField(BadRequest):
    """A form field that has to be there is missing or empty."""

    code = "missing-field"


class BadField(BadRequest):
    """A form field is doubled, unknown or has a value that cannot be used."""

    code = "bad-field"


class BadName(BadField):
    """The notebook's name is empty where one is needed, too long, or holds characters nobody can type."""

    code = "bad-name"


class BodyTooLarge(BadRequest):
    """The request's body is over the limit; nothing of it was read."""

    status = 413
    code = "body-too-large"


class NotAuthenticated(HomeportError):
    """The request carries no owner token, or one the hub does not know."""

    status = 401
    code = "not-authenticated"


class CrossSiteRequest(HomeportError):
    """Another web site made the visitor's browser send this request."""

    status = 403
    code = "cross-site-request"


class SessionNotFound(HomeportError):
    """There is no such session, or it belongs to somebody else; the two look the same on purpose."""

    status = 404
    code = "session-not-found"


class SessionNotReady(HomeportError):
    """The notebook cannot be entered (yet, or any more)."""

    status = 409
    code = "session-not-ready"
    retryable = True


class SessionLeaving(HomeportError):
    """The session of this name is being stopped; it can be launched again in a moment."""

    status = 409
    code = "session-leaving"
    retryable = True


# ── the credentials bundle (bundle.py) ───────────────────────────────────────────────────────────────────────────


class BadBundle(HomeportError):
    """The uploaded bundle cannot be used as it is."""

    status = 400
    code = "bad-bundle"


class BundleTooLarge(BadBundle):
    """The bundle is larger than 64 KiB; nothing of it was read."""

    status = 413
    code = "bundle-too-large"


class BundleEmpty(BadBundle):
    """The uploaded file, or the archive in it, holds nothing."""

    code = "bundle-empty"


class NotAnArchive(BadBundle):
    """The uploaded file is neither a zip nor a tar archive."""

    code = "not-an-archive"


class ArchiveUnsupported(BadBundle):
    """The archive is of a kind that is not read here: 7z, rar, bzip2, xz, zstd."""

    code = "archive-unsupported"


class ArchiveDamaged(BadBundle):
    """The archive is cut short, or what it says about itself does not hold."""

    code = "archive-damaged"


class ArchivePrefixed(BadBundle):
    """Something stands in front of the zip archive, as in a self-extracting program."""

    code = "archive-prefixed"


class ArchiveZip64(BadBundle):
    """The archive uses the zip64 form, which is for files of many gigabytes."""

    code = "archive-zip64"


class ArchiveEncrypted(BadBundle):
    """A file in the archive is protected with a password."""

    code = "archive-encrypted"


class ArchiveMethod(BadBundle):
    """A file in the zip archive is packed with a method other than stored and deflate."""

    code = "archive-method"


class ArchiveOverlap(BadBundle):
    """Two files in the archive share the same bytes."""

    code = "archive-overlap"


class TooManyFiles(BadBundle):
    """The archive has more than 64 entries."""

    code = "too-many-files"


class FileTooLarge(BadBundle):
    """A file in the archive is larger than 16 KiB."""

    code = "file-too-large"


class FileNotRegular(BadBundle):
    """The archive holds a link, a device or something else that is neither a file nor a folder."""

    code = "file-not-regular"


class FileSparse(BadBundle):
    """The archive holds a sparse file."""

    code = "file-sparse"


class FileNameForbidden(BadBundle):
    """A file's name in the archive is absolute, goes up with "..", or holds characters that names do not have."""

    code = "file-name-forbidden"


class FileDuplicated(BadBundle):
    """Two files in the archive have the same name, or names that differ only in case or in Unicode form."""

    code = "file-duplicated"


class SeveralBundles(BadBundle):
    """The archive holds private keys in several folders."""

    code = "several-bundles"


class KubernetesBundle(BadBundle):
    """The bundle is for a Kubernetes cluster and names no Docker endpoint."""

    code = "kubernetes-bundle"


class EndpointsDisagree(BadBundle):
    """The bundle, or the bundle and the host field, name two different endpoints."""

    code = "endpoints-disagree"


class EndpointNotLiteral(BadBundle):
    """DOCKER_HOST is made of variables or commands, which are never evaluated."""

    code = "endpoint-not-literal"


class ContextUnreadable(BadBundle):
    """The bundle's meta.json or config.json is not what Docker or docker-machine writes."""

    code = "context-unreadable"


class PemDamaged(BadBundle):
    """A PEM file's BEGIN and END lines do not pair, or what stands between them is not base64."""

    code = "pem-damaged"


class KeyMissing(BadBundle):
    """The bundle holds no private key for the client."""

    code = "key-missing"


class KeyEncrypted(BadBundle):
    """The private key is protected with a passphrase."""

    code = "key-encrypted"


class KeyOfSsh(BadBundle):
    """The private key is an SSH key in OpenSSH's own form, which TLS cannot use."""

    code = "key-of-ssh"


class SeveralKeys(BadBundle):
    """The bundle holds several private keys that could be the client's."""

    code = "several-keys"


class KeyTooLarge(BadBundle):
    """The private key's PEM is larger than 4 KiB."""

    code = "key-too-large"


class KeyUnreadable(BadBundle):
    """The private key cannot be parsed, or is not a working key."""

    code = "key-unreadable"


class KeyType(BadBundle):
    """The key is neither RSA, ECDSA nor Ed25519."""

    code = "key-type"


class KeySize(BadBundle):
    """The RSA key has fewer than 2048 or more than 4096 bits."""

    code = "key-size"


class KeyCurve(BadBundle):
    """The key's elliptic curve is not P-256, P-384 or P-521, or is spelled out instead of named."""

    code = "key-curve"


class KeyMismatch(BadBundle):
    """The private key does not belong to the certificate."""

    code = "key-mismatch"


class CertificateMissing(BadBundle):
    """The bundle holds no client certificate."""

    code = "certificate-missing"


class CertificateUnreadable(BadBundle):
    """A certificate cannot be parsed."""

    code = "certificate-unreadable"


class SeveralCertificates(BadBundle):
    """The bundle holds several certificates that could be the client's."""

    code = "several-certificates"


class TooManyCertificates(BadBundle):
    """The bundle holds more than 16 certificates."""

    code = "too-many-certificates"


class CertificateOfAuthority(BadBundle):
    """The client certificate is an authority's own certificate."""

    code = "certificate-of-authority"


class CertificateNotForClients(BadBundle):
    """The certificate says what it is for, and clients are not in it."""

    code = "certificate-not-for-clients"


class CertificateExpired(BadBundle):
    """The client certificate has expired."""

    code = "certificate-expired"


class CertificateNotYetValid(BadBundle):
    """The client certificate is not valid yet."""

    code = "certificate-not-yet-valid"


class CertificateWeakSignature(BadBundle):
    """The certificate is signed with MD5, SHA-1 or an unknown algorithm."""

    code = "certificate-weak-signature"


class AuthorityMissing(BadBundle):
    """The bundle holds no certificate of an authority (ca.pem)."""

    code = "authority-missing"


class AuthorityMismatch(BadBundle):
    """The client certificate was not issued by the authority in the bundle."""

    code = "authority-mismatch"


class AuthorityExpired(BadBundle):
    """The authority's certificate has expired or is not valid yet."""

    code = "authority-expired"


class AuthorityIsNone(BadBundle):
    """The certificate in ca.pem is not an authority's."""

    code = "authority-is-none"


class BundleUnreadable(BadBundle):
    """The bundle could not be read for a reason that has no code of its own."""

    code = "bundle-unreadable"


# ── the endpoint's address (address.py) ──────────────────────────────────────────────────────────────────────────


class BadEndpoint(HomeportError):
    """The endpoint's address cannot be used."""

    status = 400
    code = "bad-endpoint"


class ForbiddenAddress(BadEndpoint):
    """The endpoint's address is not one this hub connects to."""

    code = "forbidden-address"


class ForbiddenPort(BadEndpoint):
    """The endpoint's port is plain Docker's, or one that the operator denies."""

    code = "forbidden-port"


class EndpointMissing(BadEndpoint):
    """No endpoint is given, or its address names no host."""

    code = "endpoint-missing"


class EndpointCharacters(BadEndpoint):
    """The endpoint's address holds a space or an invisible character."""

    code = "endpoint-characters"


class EndpointSchemeHttp(BadEndpoint):
    """The endpoint's address is `http://`: Docker without encryption."""

    code = "endpoint-scheme-http"


class EndpointSchemeUnix(BadEndpoint):
    """The endpoint's address is a Unix socket of the visitor's own computer."""

    code = "endpoint-scheme-unix"


class EndpointSchemeNpipe(BadEndpoint):
    """The endpoint's address is a Windows named pipe of the visitor's own computer."""

    code = "endpoint-scheme-npipe"


class EndpointSchemeFd(BadEndpoint):
    """The endpoint's address is a socket handed over by systemd."""

    code = "endpoint-scheme-fd"


class EndpointSchemeSsh(BadEndpoint):
    """The endpoint is reached over SSH, which the hub does not speak."""

    code = "endpoint-scheme-ssh"


class EndpointSchemeUnknown(BadEndpoint):
    """The endpoint's address has a scheme other than `tcp` and `https`."""

    code = "endpoint-scheme-unknown"


class EndpointUserinfo(BadEndpoint):
    """The endpoint's address holds a user name or password."""

    code = "endpoint-userinfo"


class EndpointPath(BadEndpoint):
    """The endpoint's address has a path, a query or a fragment."""

    code = "endpoint-path"


class EndpointPortInvalid(BadEndpoint):
    """The endpoint's port is not a number from 1 to 65535."""

    code = "endpoint-port"


class EndpointHostInvalid(BadEndpoint):
    """The endpoint's host is neither a DNS name nor an IP address."""

    code = "endpoint-host"


class EndpointNumericHost(BadEndpoint):
    """The endpoint's host is a number, but not an IPv4 address in its usual spelling."""

    code = "endpoint-numeric-host"


class EndpointZone(BadEndpoint):
    """The endpoint's IPv6 address has a zone id."""

    code = "endpoint-zone"


# ── the visitor's Docker endpoint (docker_endpoint.py) ───────────────────────────────────────────────────────────


class EndpointError(HomeportError):
    """The visitor's Docker endpoint, or the notebook on it, did not do what was asked."""

    status = 502
    code = "endpoint-error"


class EndpointNameUnknown(EndpointError):
    """No address is known for the endpoint's name."""

    code = "endpoint-name-unknown"


class EndpointUnreachable(EndpointError):
    """No network path leads to the endpoint's address, or its name could not be looked up just now."""

    code = "endpoint-unreachable"
    retryable = True


class EndpointRefused(EndpointError):
    """The endpoint's computer is there, and nothing listens on the port."""

    code = "endpoint-refused"
    retryable = True


class EndpointTimeout(EndpointError):
    """The endpoint did not answer in time; a firewall that swallows packets looks the same."""

    code = "endpoint-timeout"
    retryable = True


class EndpointHungUp(EndpointError):
    """The endpoint closed the connection in the middle of a request."""

    code = "endpoint-hung-up"
    retryable = True


class EndpointTls(EndpointError):
    """The endpoint and the hub found no common TLS (1.2 or later)."""

    code = "endpoint-tls"


class EndpointNotTls(EndpointTls):
    """The endpoint's port speaks something, and it is not TLS."""

    code = "endpoint-not-tls"


class EndpointWrongCertificate(EndpointTls):
    """The endpoint showed a certificate that the bundle's CA did not sign, or that cannot be trusted otherwise."""

    code = "endpoint-wrong-certificate"


class EndpointWrongName(EndpointWrongCertificate):
    """The endpoint showed a certificate of the bundle's CA that is made for another name."""

    code = "endpoint-wrong-name"


class EndpointExpiredCertificate(EndpointWrongCertificate):
    """The endpoint showed a certificate that has expired or is not valid yet."""

    code = "endpoint-expired-certificate"


class EndpointRefusedCertificate(EndpointTls):
    """The endpoint does not accept the bundle's client certificate."""

    code = "endpoint-refused-certificate"


class EndpointDenied(EndpointError):
    """The endpoint accepted the certificate and forbids what was asked (an authorization plugin, a proxy)."""

    code = "endpoint-denied"


class EndpointRedirected(EndpointError):
    """The endpoint answered with a redirect; the hub follows none, since it would carry requests elsewhere."""

    code = "endpoint-redirected"


class EndpointMisbehaved(EndpointError):
    """The endpoint's answer is not what a Docker Engine says: too large, not JSON, or impossible values."""

    code = "endpoint-misbehaved"


class EndpointTooOld(EndpointError):
    """The endpoint's Docker Engine is older than what is asked of it."""

    code = "endpoint-too-old"


class EndpointTooNew(EndpointError):
    """The endpoint's Docker Engine no longer speaks any version of the API that the hub speaks."""

    code = "endpoint-too-new"


class EndpointNotLinux(EndpointError):
    """The endpoint's Docker Engine runs containers of another operating system."""

    code = "endpoint-not-linux"


class EndpointDeclined(EndpointError):
    """The endpoint's Docker Engine declined a request as one it cannot carry out."""

    code = "endpoint-declined"


class EndpointFailed(EndpointError):
    """The endpoint's Docker Engine reported an error of its own."""

    code = "endpoint-failed"
    retryable = True


class NoSpace(EndpointError):
    """The endpoint's disk is full."""

    code = "no-space"


class BadImage(EndpointError):
    """The image's name is not one that Docker understands."""

    status = 400
    code = "bad-image"


class ImageNotFound(EndpointError):
    """The registry has no such image, or it is private."""

    code = "image-not-found"


class ImageWrongPlatform(EndpointError):
    """The image is not made for the endpoint's kind of processor."""

    code = "image-wrong-platform"


class RegistryDenied(EndpointError):
    """The registry wants to know who is asking; the hub passes no registry credentials."""

    code = "registry-denied"


class RegistryLimit(EndpointError):
    """The registry allows the endpoint's address no more pulls for now."""

    code = "registry-limit"


class PullFailed(EndpointError):
    """The pull ended without the image; the finished layers may be kept, and the pull be tried again."""

    code = "pull-failed"
    retryable = True


class LimitsRefused(EndpointError):
    """The endpoint cannot give the memory or the CPUs that were asked for."""

    code = "limits-refused"


class GpuUnavailable(EndpointError):
    """The endpoint cannot give a GPU to a container."""

    code = "gpu-unavailable"


class ContainerConflict(EndpointError):
    """A container of this session's name exists on the endpoint and is not this hub's."""

    status = 409
    code = "container-conflict"


class ContainerMissing(EndpointError):
    """The session's container is not on the endpoint (any more)."""

    code = "container-missing"


class ImageWithoutJupyter(EndpointError):
    """The image has no `jupyter` program to run."""

    code = "image-without-jupyter"


class StartFailed(EndpointError):
    """The endpoint created the container and could not start it."""

    code = "start-failed"


class NotebookExited(EndpointError):
    """The notebook's container ended before it was ready."""

    code = "notebook-exited"


class NotebookSilent(EndpointError):
    """The notebook does not answer (yet) through its published port."""

    code = "notebook-silent"
    retryable = True


class NotebookWrongCertificate(EndpointError):
    """Something else than this session's notebook answers at its published port."""

    code = "notebook-wrong-certificate"


# ── stored credentials (envelope.py, credentials_store.py) ───────────────────────────────────────────────────────


class BadEnvelope(HomeportError):
    """A stored object is not an envelope sealed for this session: altered, swapped, or of an unknown version."""

    code = "bad-envelope"


class CredentialsMissing(HomeportError):
    """No credentials are stored for this session: the upload did not complete, or they were purged."""

    status = 409
    code = "credentials-missing"
    retryable = True  # they may be on their way: the session's item is written before them


class StoreRefused(HomeportError):
    """AWS refused what the hub asked of its credentials store; its permissions or its key need the operator."""

    code = "store-refused"
    retryable = True  # the operator can put it right, and no notebook is to be taken away meanwhile


class CredentialsForgotten(HomeportError):
    """The visitor had the credentials deleted, and this can only be done with them."""

    status = 409
    code = "credentials-forgotten"


# ── stored sessions (session_store.py, machine.py) ───────────────────────────────────────────────────────────────


class StaleSession(HomeportError):
    """Somebody else saved the session first; load it again and decide anew."""

    status = 409
    code = "stale-session"
    retryable = True


class StoreUnavailable(HomeportError):
    """DynamoDB, S3, KMS or SQS did not answer; the same request can succeed later."""

    status = 503
    code = "store-unavailable"
    retryable = True


class IllegalTransition(HomeportError):
    """An event the state has no transition for. Always a defect of Homeport."""

    code = "illegal-transition"


class BadConfiguration(HomeportError):
    """The hub's configuration is wrong; the message names the variable."""

    code = "bad-configuration"
