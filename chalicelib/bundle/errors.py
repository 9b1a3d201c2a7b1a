"""Why a credentials bundle, or the address of an endpoint, cannot be used: the visitor's to mend, status 400."""

from __future__ import annotations

from chalicelib.errors import HomeportError


class BadBundle(HomeportError):
    """The uploaded bundle cannot be used as it is."""

    status = 400


class BundleTooLarge(BadBundle):
    """The bundle is larger than 64 KiB; nothing of it was read."""

    status = 413


class BundleEmpty(BadBundle):
    """The uploaded file, or the archive in it, holds nothing."""


class NotAnArchive(BadBundle):
    """The uploaded file is neither a zip nor a tar archive."""


class ArchiveUnsupported(BadBundle):
    """The archive is of a kind that is not read here: 7z, rar, bzip2, xz, zstd."""


class ArchiveDamaged(BadBundle):
    """The archive is cut short, or what it says about itself does not hold."""


class ArchivePrefixed(BadBundle):
    """There is data before the zip archive, as in a self-extracting program."""


class ArchiveZip64(BadBundle):
    """The archive uses the zip64 form, which is for files of many gigabytes."""


class ArchiveEncrypted(BadBundle):
    """A file in the archive is protected with a password."""


class ArchiveMethod(BadBundle):
    """A file in the zip archive is packed with a method other than stored and deflate."""


class ArchiveOverlap(BadBundle):
    """Two files in the archive share the same bytes."""


class TooManyFiles(BadBundle):
    """The archive has more than 64 entries."""


class FileTooLarge(BadBundle):
    """A file in the archive is larger than 16 KiB."""


class FileNotRegular(BadBundle):
    """The archive holds a link, a device or something else that is neither a file nor a folder."""


class FileSparse(BadBundle):
    """The archive holds a sparse file."""


class FileNameForbidden(BadBundle):
    """A file's name in the archive is absolute, goes up with "..", or holds characters that names do not have."""


class FileDuplicated(BadBundle):
    """Two files in the archive have the same name, or names that differ only in case or in Unicode form."""


class SeveralBundles(BadBundle):
    """The archive holds private keys in several folders."""


class KubernetesBundle(BadBundle):
    """The bundle is for a Kubernetes cluster and names no Docker endpoint."""


class EndpointsDisagree(BadBundle):
    """The bundle, or the bundle and the host field, name two different endpoints."""


class EndpointNotLiteral(BadBundle):
    """DOCKER_HOST is made of variables or commands, which are never evaluated."""


class ContextUnreadable(BadBundle):
    """The bundle's meta.json or config.json is not what Docker or docker-machine writes."""


class PemDamaged(BadBundle):
    """A PEM file's BEGIN and END lines do not pair, or the text between them is not base64."""


class KeyMissing(BadBundle):
    """The bundle holds no private key for the client."""


class KeyEncrypted(BadBundle):
    """The private key is protected with a passphrase."""


class SshKey(BadBundle):
    """The private key is an SSH key in OpenSSH's own form, which TLS cannot use."""


class SeveralKeys(BadBundle):
    """The bundle holds several private keys that could be the client's."""


class KeyTooLarge(BadBundle):
    """The private key's PEM is larger than 4 KiB."""


class KeyUnreadable(BadBundle):
    """The private key cannot be parsed, or is not a working key."""


class KeyType(BadBundle):
    """The key is neither RSA, ECDSA nor Ed25519."""


class KeySize(BadBundle):
    """The RSA key has fewer than 2048 or more than 4096 bits."""


class KeyCurve(BadBundle):
    """The key's elliptic curve is not P-256, P-384 or P-521, or is spelled out instead of named."""


class KeyMismatch(BadBundle):
    """The private key does not belong to the certificate."""


class CertificateMissing(BadBundle):
    """The bundle holds no client certificate."""


class CertificateUnreadable(BadBundle):
    """A certificate cannot be parsed."""


class SeveralCertificates(BadBundle):
    """The bundle holds several certificates that could be the client's."""


class TooManyCertificates(BadBundle):
    """The bundle holds more than 16 certificates."""


class ClientCertificateIsCa(BadBundle):
    """The client certificate is a CA certificate."""


class CertificateNotForClients(BadBundle):
    """The certificate says what it is for, and clients are not in it."""


class CertificateExpired(BadBundle):
    """The client certificate has expired."""


class CertificateNotYetValid(BadBundle):
    """The client certificate is not valid yet."""


class CertificateWeakSignature(BadBundle):
    """The certificate is signed with MD5, SHA-1 or an unknown algorithm."""


class CaMissing(BadBundle):
    """The bundle holds no CA certificate (ca.pem)."""


class CaMismatch(BadBundle):
    """The client certificate was not issued by the CA in the bundle."""


class CaExpired(BadBundle):
    """The CA certificate has expired or is not valid yet."""


class NotACa(BadBundle):
    """The certificate in ca.pem is not a CA certificate."""


class BundleUnreadable(BadBundle):
    """The bundle could not be read for a reason that has no code of its own."""


class BadEndpoint(HomeportError):
    """The endpoint's address cannot be used."""

    status = 400


class ForbiddenAddress(BadEndpoint):
    """The endpoint's address is not one this hub connects to."""


class ForbiddenPort(BadEndpoint):
    """The endpoint's port is plain Docker's, or one that the operator denies."""


class EndpointMissing(BadEndpoint):
    """No endpoint is given, or its address names no host."""


class EndpointCharacters(BadEndpoint):
    """The endpoint's address holds a space or an invisible character."""


class EndpointSchemeHttp(BadEndpoint):
    """The endpoint's address is `http://`: Docker without encryption."""


class EndpointSchemeUnix(BadEndpoint):
    """The endpoint's address is a Unix socket of the visitor's own computer."""


class EndpointSchemeNpipe(BadEndpoint):
    """The endpoint's address is a Windows named pipe of the visitor's own computer."""


class EndpointSchemeFd(BadEndpoint):
    """The endpoint's address is a socket handed over by systemd."""


class EndpointSchemeSsh(BadEndpoint):
    """The endpoint is reached over SSH, which the hub does not speak."""


class EndpointSchemeUnknown(BadEndpoint):
    """The endpoint's address has a scheme other than `tcp` and `https`."""


class EndpointUserinfo(BadEndpoint):
    """The endpoint's address holds a user name or password."""


class EndpointPath(BadEndpoint):
    """The endpoint's address has a path, a query or a fragment."""


class EndpointPortInvalid(BadEndpoint):
    """The endpoint's port is not a number from 1 to 65535."""


class EndpointHostInvalid(BadEndpoint):
    """The endpoint's host is neither a DNS name nor an IP address."""


class EndpointNumericHost(BadEndpoint):
    """The endpoint's host is a number, but not an IPv4 address in its usual spelling."""


class EndpointZone(BadEndpoint):
    """The endpoint's IPv6 address has a zone id."""
