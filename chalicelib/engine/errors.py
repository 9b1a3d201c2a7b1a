"""What a visitor's Docker endpoint, or the notebook on it, can do wrong: status 502 unless a class says otherwise."""

from __future__ import annotations

from chalicelib.errors import HomeportError


class EndpointError(HomeportError):
    """The visitor's Docker endpoint, or the notebook on it, did not do what was asked."""

    status = 502


class EndpointNameUnknown(EndpointError):
    """No address is known for the endpoint's name."""

    title = "Unknown endpoint name"


class EndpointUnreachable(EndpointError):
    """No network path leads to the endpoint's address, or its name could not be looked up just now."""

    retryable = True


class ConnectionRefused(EndpointError):
    """The endpoint's computer is there, and nothing listens on the port."""

    retryable = True


class EndpointTimeout(EndpointError):
    """The endpoint did not answer in time; a firewall that swallows packets looks the same."""

    title = "Endpoint did not answer in time"
    retryable = True


class EndpointHungUp(EndpointError):
    """The endpoint closed the connection in the middle of a request."""

    title = "Endpoint closed the connection"
    retryable = True


class EndpointTls(EndpointError):
    """The endpoint and the hub could not agree on TLS 1.2 or later."""

    title = "No common TLS version"


class EndpointNotTls(EndpointTls):
    """The endpoint's port speaks something, and it is not TLS."""

    title = "Endpoint does not speak TLS"


class EndpointWrongCertificate(EndpointTls):
    """The endpoint showed a certificate that the bundle's CA did not sign, or that cannot be trusted otherwise."""

    title = "Wrong endpoint certificate"


class EndpointWrongName(EndpointWrongCertificate):
    """The endpoint showed a certificate of the bundle's CA that is made for another name."""

    title = "Endpoint certificate is for another name"


class EndpointExpiredCertificate(EndpointWrongCertificate):
    """The endpoint showed a certificate that has expired or is not valid yet."""

    title = "Endpoint certificate expired"


class ClientCertificateRejected(EndpointTls):
    """The endpoint does not accept the bundle's client certificate."""


class EndpointForbidden(EndpointError):
    """The endpoint accepted the certificate and forbids what was asked (an authorization plugin, a proxy)."""

    title = "Forbidden by the endpoint"


class EndpointRedirected(EndpointError):
    """The endpoint answered with a redirect; the hub follows none, since it would carry requests elsewhere."""

    title = "Endpoint redirects elsewhere"


class NotADockerEngine(EndpointError):
    """The endpoint's answer is not what a Docker Engine says: too large, not JSON, or impossible values."""


class EndpointTooOld(EndpointError):
    """The endpoint's Docker Engine is older than what is asked of it."""

    title = "Docker Engine is too old"


class EndpointTooNew(EndpointError):
    """The endpoint's Docker Engine no longer speaks any version of the API that the hub speaks."""

    title = "Docker Engine is too new"


class EndpointNotLinux(EndpointError):
    """The endpoint's Docker Engine runs containers of another operating system."""

    title = "Not a Linux engine"


class RequestRejected(EndpointError):
    """The endpoint's Docker Engine rejected a request as one it cannot carry out."""

    title = "Rejected by the endpoint"


class EndpointFailed(EndpointError):
    """The endpoint's Docker Engine reported an error of its own."""

    title = "Error on the endpoint"
    retryable = True


class NoSpace(EndpointError):
    """The endpoint's disk is full."""

    title = "Endpoint's disk is full"


class BadImage(EndpointError):
    """The image's name is not one that Docker understands."""

    title = "Invalid image name"
    status = 400


class ImageNotFound(EndpointError):
    """The registry has no such image, or it is private."""


class ImageMissing(EndpointError):
    """The image is not on the endpoint, and the launch is not to pull it."""


class ImageWrongPlatform(EndpointError):
    """The image is not made for the endpoint's kind of processor."""

    title = "Image is for another platform"


class RegistryDenied(EndpointError):
    """The registry wants to know who is asking; the hub passes no registry credentials."""

    title = "Registry requires a login"


class RegistryLimit(EndpointError):
    """The registry allows the endpoint's address no more pulls for now."""

    title = "Registry rate limit"


class RegistryUnreachable(EndpointError):
    """The endpoint gets no connection to the registry, or loses it."""

    retryable = True


class RegistryUntrusted(EndpointError):
    """The endpoint does not trust the registry's certificate, or the registry does not speak TLS."""

    title = "Registry's certificate is not trusted"


class PullFailed(EndpointError):
    """The pull ended without the image; the finished layers may be kept, and the pull be tried again."""

    retryable = True


class LimitsRefused(EndpointError):
    """The endpoint cannot give the memory or the CPUs that were asked for."""

    title = "Limits not available"


class LimitsUnsupported(EndpointError):
    """The endpoint's kernel lets its Docker Engine limit neither memory nor CPUs, or not the one that was asked for."""

    title = "Limits not supported"


class GpuUnavailable(EndpointError):
    """The endpoint cannot provide GPUs to containers."""

    title = "GPU not available"


class DataFolderMissing(EndpointError):
    """The data directory that was asked for is not on the endpoint's host, or cannot be mounted."""

    title = "Data directory is missing"


class PortTaken(EndpointError):
    """The port of the endpoint's host that was asked for is taken, or all of the range are."""

    title = "Port is taken"
    retryable = True


class PortRangeUnsupported(EndpointError):
    """The endpoint's engine publishes a port at one that is named, or at any, and not at one of a range."""

    title = "Port ranges not supported"


class ContainerConflict(EndpointError):
    """A container of this session's name exists on the endpoint and is not this hub's."""

    title = "Container name is taken"
    status = 409


class VolumeConflict(EndpointError):
    """A volume of this session's name exists on the endpoint and was not made for it."""

    title = "Volume name is taken"
    status = 409


class VolumeInUse(EndpointError):
    """The session's volume cannot be removed while a container uses it."""

    title = "Volume is in use"
    status = 409


class ImageNameTaken(EndpointError):
    """The endpoint has an image of the name that a notebook is to be saved as, and its owner has not saved that."""

    title = "Image name is taken"
    status = 409


class ContainerNotSavable(EndpointError):
    """The container was made by an earlier version of Homeport, whose server needs its key at every connection."""

    title = "Cannot be saved as an image"
    status = 409


class SaveUnderWay(EndpointError):
    """The container stands still, because it is being written to an image or because somebody paused it."""

    title = "Image is being written"
    retryable = True


class ImageNotWritten(EndpointError):
    """The endpoint was asked to write a notebook's container to an image, and did not do it."""

    title = "Image was not written"


class ImageInUse(EndpointError):
    """A container on the endpoint uses the image, so it is not removed."""

    status = 409
    title = "Image is in use"


class ContainerMissing(EndpointError):
    """The session's container is not on the endpoint (any more)."""

    title = "Container is missing"


class ImageWithoutJupyter(EndpointError):
    """The image has no `jupyter` program to run."""

    title = "Image without Jupyter"


class StartFailed(EndpointError):
    """The endpoint created the container and could not start it."""

    title = "Container did not start"


class NodeForbidden(EndpointError):
    """The endpoint is a cluster, and runs the notebook on a node at an address that this hub does not connect to."""

    title = "Forbidden node address"


class ContainerRemoved(EndpointError):
    """The session's container was removed on the endpoint, by somebody else than the hub."""


class NotebookExited(EndpointError):
    """The notebook's container ended before it was ready."""

    title = "Notebook ended"


class NotebookSilent(EndpointError):
    """The notebook does not answer (yet) through its published port."""

    title = "Notebook does not answer"
    retryable = True


class NotebookUnreachable(NotebookSilent):
    """The hub cannot connect to the notebook's published port: a firewall is in between, or nothing listens yet."""

    title = "Notebook's port cannot be reached"


class NotebookWrongCertificate(EndpointError):
    """Something else than this session's notebook answers at its published port."""

    title = "Wrong notebook certificate"


class NotebookNotTls(NotebookWrongCertificate):
    """What answers at the notebook's published port does not speak TLS: the image runs a server of its own."""

    title = "Notebook does not speak TLS"
