"""Why a credentials bundle, or the address of an endpoint, cannot be used: the visitor can fix it; status 400."""

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

    title = "Empty bundle"


class NotAnArchive(BadBundle):
    """The uploaded file is neither a zip nor a tar archive."""


class ArchiveUnsupported(BadBundle):
    """The archive is of a kind that is not read here: 7z, rar, bzip2, xz, zstd."""

    title = "Unsupported kind of archive"


class ArchiveDamaged(BadBundle):
    """The archive is cut short, or what it says about itself does not hold."""

    title = "Damaged archive"


class ArchivePrefixed(BadBundle):
    """There is data before the zip archive, as in a self-extracting program."""

    title = "Data before the archive"


class ArchiveZip64(BadBundle):
    """The archive uses the zip64 form, which is for files of many gigabytes."""

    title = "Zip64 archive"


class ArchiveEncrypted(BadBundle):
    """A file in the archive is protected with a password."""

    title = "Archive with a password"


class ArchiveMethod(BadBundle):
    """A file in the zip archive is packed with a method other than stored and deflate."""

    title = "Unsupported compression"


class ArchiveOverlap(BadBundle):
    """Two files in the archive share the same bytes."""

    title = "Overlapping files in the archive"


class TooManyFiles(BadBundle):
    """The archive has more than 64 entries."""


class FileTooLarge(BadBundle):
    """A file in the archive is larger than 16 KiB."""


class FileNotRegular(BadBundle):
    """The archive contains a link, a device or something else that is neither a file nor a folder."""

    title = "Not a regular file"


class FileSparse(BadBundle):
    """The archive contains a sparse file."""

    title = "Sparse file"


class FileNameForbidden(BadBundle):
    """A file's name in the archive is absolute, goes up with "..", or holds characters that names do not have."""

    title = "File name not allowed"


class FileDuplicated(BadBundle):
    """Two files in the archive have the same name, or names that differ only in case or in Unicode form."""

    title = "Duplicate file name"


class SeveralBundles(BadBundle):
    """The archive contains private keys in several folders."""


class KubernetesBundle(BadBundle):
    """The bundle is for a Kubernetes cluster and names no Docker endpoint."""


class EndpointsDisagree(BadBundle):
    """The bundle, or the bundle and the host field, name two different endpoints."""


class EndpointNotLiteral(BadBundle):
    """DOCKER_HOST is made of variables or commands, which are never evaluated."""

    title = "Endpoint address is not literal"


class ContextUnreadable(BadBundle):
    """The bundle's meta.json or config.json is not what Docker or docker-machine writes."""

    title = "Unreadable Docker context"


class PemDamaged(BadBundle):
    """A PEM file's BEGIN and END lines do not pair, or the text between them is not base64."""

    title = "Damaged PEM file"


class KeyMissing(BadBundle):
    """The bundle contains no private key for the client."""

    title = "No private key"


class KeyEncrypted(BadBundle):
    """The private key is protected with a passphrase."""

    title = "Private key with a passphrase"


class SshKey(BadBundle):
    """The private key is an SSH key in OpenSSH's own form, which TLS cannot use."""


class SeveralKeys(BadBundle):
    """The bundle contains several private keys that could be the client's."""


class KeyTooLarge(BadBundle):
    """The private key's PEM is larger than 4 KiB."""


class KeyUnreadable(BadBundle):
    """The private key cannot be parsed, or is not a working key."""

    title = "Unreadable private key"


class KeyType(BadBundle):
    """The key is neither RSA, ECDSA nor Ed25519."""

    title = "Unsupported kind of key"


class KeySize(BadBundle):
    """The RSA key has fewer than 2048 or more than 4096 bits."""

    title = "Unsupported key size"


class KeyCurve(BadBundle):
    """The key's elliptic curve is not P-256, P-384 or P-521, or is spelled out instead of named."""

    title = "Unsupported elliptic curve"


class KeyMismatch(BadBundle):
    """The private key does not belong to the certificate."""

    title = "Key and certificate do not match"


class CertificateMissing(BadBundle):
    """The bundle contains no client certificate."""

    title = "No client certificate"


class CertificateUnreadable(BadBundle):
    """A certificate cannot be parsed."""

    title = "Unreadable certificate"


class SeveralCertificates(BadBundle):
    """The bundle contains several certificates that could be the client's."""


class TooManyCertificates(BadBundle):
    """The bundle contains more than 16 certificates."""


class ClientCertificateIsCa(BadBundle):
    """The client certificate is a CA certificate."""

    title = "Client certificate is a CA certificate"


class CertificateNotForClients(BadBundle):
    """The certificate says what it is for, and clients are not in it."""


class CertificateExpired(BadBundle):
    """The client certificate has expired."""


class CertificateNotYetValid(BadBundle):
    """The client certificate is not valid yet."""


class CertificateWeakSignature(BadBundle):
    """The certificate is signed with MD5, SHA-1 or an unknown algorithm."""

    title = "Weak certificate signature"


class CaMissing(BadBundle):
    """The bundle contains no CA certificate (ca.pem)."""

    title = "No CA certificate"


class CaMismatch(BadBundle):
    """The client certificate was not issued by the CA in the bundle."""

    title = "Certificate and CA do not match"


class CaExpired(BadBundle):
    """The CA certificate has expired or is not valid yet."""

    title = "CA certificate expired"


class NotACa(BadBundle):
    """The certificate in ca.pem is not a CA certificate."""

    title = "Not a CA certificate"


class BundleUnreadable(BadBundle):
    """The bundle could not be read for a reason that has no code of its own."""

    title = "Unreadable bundle"


class BadEndpoint(HomeportError):
    """The endpoint's address cannot be used."""

    status = 400


class ForbiddenAddress(BadEndpoint):
    """The endpoint's address is not one this hub connects to."""

    title = "Address not allowed"


class ForbiddenPort(BadEndpoint):
    """The endpoint's port is plain Docker's, or one that the operator denies."""

    title = "Port not allowed"


class EndpointMissing(BadEndpoint):
    """No endpoint is given, or its address names no host."""

    title = "No endpoint address"


class EndpointCharacters(BadEndpoint):
    """The endpoint's address contains a space or an invisible character."""

    title = "Invalid characters in the endpoint's address"


class EndpointSchemeHttp(BadEndpoint):
    """The endpoint's address is `http://`: Docker without encryption."""

    title = "Docker without encryption"


class EndpointSchemeUnix(BadEndpoint):
    """The endpoint's address is a Unix socket of the visitor's own computer."""

    title = "Unix socket as endpoint"


class EndpointSchemeNpipe(BadEndpoint):
    """The endpoint's address is a Windows named pipe of the visitor's own computer."""

    title = "Windows named pipe as endpoint"


class EndpointSchemeFd(BadEndpoint):
    """The endpoint's address is a socket handed over by systemd."""

    title = "Inherited socket as endpoint"


class EndpointSchemeSsh(BadEndpoint):
    """The endpoint is reached over SSH, which the hub does not speak."""

    title = "SSH endpoint"


class EndpointSchemeUnknown(BadEndpoint):
    """The endpoint's address has a scheme other than `tcp` and `https`."""

    title = "Unknown scheme in the endpoint's address"


class EndpointUserinfo(BadEndpoint):
    """The endpoint's address contains a user name or password."""

    title = "User name in the endpoint's address"


class EndpointPath(BadEndpoint):
    """The endpoint's address has a path, a query or a fragment."""

    title = "Path in the endpoint's address"


class EndpointPortInvalid(BadEndpoint):
    """The endpoint's port is not a number from 1 to 65535."""

    title = "Invalid endpoint port"


class EndpointHostInvalid(BadEndpoint):
    """The endpoint's host is neither a DNS name nor an IP address."""

    title = "Invalid endpoint host"


class EndpointNumericHost(BadEndpoint):
    """The endpoint's host is a number, but not an IPv4 address in its usual spelling."""

    title = "Numeric endpoint host"


class EndpointZone(BadEndpoint):
    """The endpoint's IPv6 address has a zone id."""

    title = "Zone id in the endpoint's address"
