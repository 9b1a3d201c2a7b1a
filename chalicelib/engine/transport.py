"""One TLS connection to an address that was checked, to an untrusted peer.

Rules

1. The connection goes to the checked IP address, with no look-up of its own; the certificate is verified for the
   original name. Trust is the given CA alone: no system store, no environment variable, no common name. A certificate
   that names nothing at all (no subjectAltName, as old engines have) is pinned by the CA alone, and this is noted.
2. A private key goes to OpenSSL through memory (memfd, else a pipe) and is never in a file that a disk could keep.
3. A Budget bounds the whole of a call, in seconds and in bytes as they come off the wire, so that neither a byte every
   second nor an endless answer holds the caller; each single recv and send is held to what is left of it.
4. Every failure is one EndpointError with its own code, raised where the socket fails.

Sources: Python's ssl and http.client, urllib3 2 (pool and connection), RFC 6125 (names), RFC 8446 §4.4.2.4 (a client
certificate that is refused shows after the handshake).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, InvalidChunkLength
from urllib3.util.ssl_match_hostname import CertificateError, match_hostname

from chalicelib.engine import errors

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

KEEPALIVE_SECONDS: Final = 60
CONNECT_SECONDS: Final = 5.0  # a SYN is sent three times in it; TLS takes three round trips
# An inspect of a container with thousands of layers and mounts has 200 kB. JSON that is made to takes thirty times its
# bytes of memory once it is parsed, and the processor for as long: half a second here.
ANSWER_BYTES: Final = 512 * 1024
X509_V_ERR_NOT_YET_VALID: Final = 9  # openssl/x509_vfy.h
X509_V_ERR_EXPIRED: Final = 10

HttpFailure: Final = (HTTPError, HTTPException, OSError, ValueError)  # requests' exceptions are OSErrors


class Budget:
    """What a call may still take: seconds on `clock`, and bytes off the wire."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._ends_at: float | None = clock() + seconds
        self._idle = seconds
        self._most = ANSWER_BYTES
        self._bytes: int | None = ANSWER_BYTES

    def seconds(self) -> float:
        """What is left, in seconds; raises TimeoutError when nothing is."""
        if self._ends_at is None:
            return self._idle
        left = self._ends_at - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def to_connect(self) -> Budget:
        """What of it connecting may take."""
        return Budget(self._clock, min(self.seconds(), CONNECT_SECONDS))

    def spend(self, count: int) -> None:
        """Count bytes; raises NotADockerEngine when an answer is too large."""
        if self._bytes is not None:
            self._bytes -= count
            if self._bytes < 0:
                raise errors.NotADockerEngine(
                    f"The endpoint's answer is larger than {self._most >> 10} KiB, which no Docker Engine needs. "
                    "Check that the address is your Docker endpoint's"
                )

    def begin_call(self) -> None:
        """Allow a whole answer's bytes again; the time goes on."""
        if self._bytes is not None:
            self._bytes = self._most

    @contextmanager
    def answers_of(self, most: int) -> Iterator[None]:
        """Allow answers of so many bytes in the block."""
        before, self._most = self._most, most
        try:
            yield
        finally:
            self._most = before

    def stream(self, idle: float) -> None:
        """From now on bound only the silence, to `idle` seconds: the answer is a stream that its reader bounds."""
        self._ends_at, self._idle, self._bytes = None, idle, None


@dataclass(slots=True)
class Channel:
    """One peer: the checked address to connect to, the name to verify, the trust, and what may be spent on it."""

    address: str
    port: int
    name: str
    context: ssl.SSLContext = field(repr=False)
    budget: Budget = field(repr=False)
    _socket: _Socket | None = field(default=None, repr=False)
    reached: bool = False  # set on connecting: something accepted the connection
    nameless: bool = False  # set on connecting: the certificate contains no name, only the CA was checked

    @property
    def host(self) -> str:
        """The Host header, brackets around IPv6."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    def open_pool(self) -> HTTPSConnectionPool:
        """Make a pool whose connections are this channel's; nothing is connected yet."""
        return _Pool(self)

    def connect(self) -> _Socket:
        """Connect and verify; raises an EndpointError."""
        family = socket.AF_INET6 if ip_address(self.address).version == 6 else socket.AF_INET
        raw = socket.socket(family, socket.SOCK_STREAM)
        try:
            with self.failures():
                # Head and body of a request are two sends; Nagle's algorithm would hold the second one back.
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # A pull may be silent for ten minutes; NAT gateways forget a silent connection after 350 seconds.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
                budget = self.budget.to_connect()
                raw.settimeout(budget.seconds())
                raw.connect((self.address, self.port))
                self.reached = True
                raw.settimeout(budget.seconds())
                # The name goes into SNI alone: the context checks the chain, and `_check_name` the name, since only
                # here a certificate without any name can be told from one with a wrong name.
                wrapped = self.context.wrap_socket(raw, server_hostname=self.name)
        except BaseException:
            raw.close()
            raise
        assert isinstance(wrapped, _Socket), "new_context sets the socket class"
        try:
            self._check_name(wrapped.getpeercert() or {})
        except BaseException:
            wrapped.close()
            raise
        wrapped.channel = self  # from now on every recv and send is held to the budget; the handshake was, above
        self._socket = wrapped
        return wrapped

    def hang_up(self) -> None:
        """Close the connection from another thread: whoever reads from it wakes up with its end."""
        if self._socket is not None:
            self._socket.hang_up()

    def _check_name(self, certificate: Any) -> None:
        self.nameless = "subjectAltName" not in certificate
        if self.nameless:
            return
        try:
            match_hostname(certificate, self.name, hostname_checks_common_name=False)
        except CertificateError as error:
            raise errors.EndpointWrongName(
                f"The certificate that {self.host} showed is for another name. Give the endpoint's address as it "
                "appears in that certificate, or make a new certificate with this name as subjectAltName"
            ) from error

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn whatever sockets, TLS and HTTP raise into an EndpointError."""
        try:
            yield
        except HttpFailure as error:
            raise self._meaning(error) from error

    def _meaning(self, error: BaseException) -> errors.EndpointError:
        match error:
            case TimeoutError():
                return errors.EndpointTimeout(
                    f"{self.host} did not answer in time. Check that the computer is up and that its firewall lets the "
                    f"hub reach port {self.port}"
                )
            case ssl.SSLCertVerificationError():
                return self._distrust(error)
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return self._hung_up()
            case ssl.SSLError():
                return self._no_tls(error)
            case ConnectionRefusedError():
                return errors.ConnectionRefused(
                    f"Nothing listens at {self.host} (connection refused). Check that Docker is running there and "
                    f"listens with TLS on port {self.port}"
                )
            case ConnectionError():
                return self._hung_up()
            case _:
                return self._http(error)

    def _http(self, error: BaseException) -> errors.EndpointError:
        causes = tuple(_causes(error))
        if any(isinstance(cause, InvalidChunkLength) for cause in causes):
            return self._gibberish()
        if any(isinstance(cause, RemoteDisconnected | IncompleteRead) for cause in causes):
            return self._hung_up()
        if isinstance(error, OSError) and error.errno is not None:
            return errors.EndpointUnreachable(
                f"No route to {self.host} ({os.strerror(error.errno)}). Check the endpoint's address, and that the "
                "computer is connected to the Internet"
            )
        return self._gibberish()

    def _gibberish(self) -> errors.EndpointError:
        return errors.NotADockerEngine(
            f"{self.host} does not answer like a Docker Engine. Check that address and port are your Docker endpoint's"
        )

    def _hung_up(self) -> errors.EndpointError:
        return errors.EndpointHungUp(
            f"{self.host} closed the connection before it had answered. If this goes on, look at the log of the Docker "
            "Engine, or of the proxy in front of it"
        )

    def _distrust(self, error: ssl.SSLCertVerificationError) -> errors.EndpointError:
        if error.verify_code in (X509_V_ERR_NOT_YET_VALID, X509_V_ERR_EXPIRED):
            return errors.EndpointExpiredCertificate(
                f"The certificate that {self.host} showed has expired or is not valid yet. Renew the Docker Engine's "
                "server certificate, and check the computer's clock"
            )
        return errors.EndpointWrongCertificate(
            f"The certificate that {self.host} showed is not signed by the CA in your bundle ({error.verify_message}). "
            "Upload the bundle that belongs to this endpoint, or check the address"
        )

    def _no_tls(self, error: ssl.SSLError) -> errors.EndpointError:
        reason = error.reason or ""
        if "ALERT" in reason and any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")):
            why = " because it has expired" if "EXPIRED" in reason else ""
            return errors.ClientCertificateRejected(
                f"{self.host} does not accept the certificate in your bundle{why}. Upload the bundle that this Docker "
                "endpoint made for you, or create a new one"
            )
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            return errors.EndpointNotTls(
                f"{self.host} does not speak TLS. Give the port on which Docker listens with TLS, usually 2376, and "
                "never offer Docker without TLS: anyone who can reach it controls the computer"
            )
        return errors.EndpointTls(
            f"{self.host} and the hub could not agree on TLS ({reason.lower().replace('_', ' ') or 'unknown reason'}). "
            "The hub needs TLS 1.2 or later; update the Docker Engine, or the proxy in front of it"
        )


# ── trust ────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_context(*, ca: bytes, certificate: bytes, key: bytes) -> ssl.SSLContext:
    """Make the TLS context of a client: trust `ca` (PEM) alone and show `certificate` with `key` (PEM).

    The name is checked by Channel, which has the certificate in hand. Raises EndpointTls.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # any certificate in ca.pem is an anchor, as for docker(1)
    context.sslsocket_class = _Socket
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
        _load_pair(context, certificate.rstrip() + b"\n", key.rstrip() + b"\n")
    except (ssl.SSLError, ValueError):  # without its chain: nothing may tell of the key
        raise errors.EndpointTls(
            "The certificate and key in the bundle cannot be used for TLS. Have a new bundle made for this endpoint"
        ) from None
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Hand OpenSSL both, which takes them from paths only, through descriptors of this process.

    An empty password makes an encrypted key fail; without it OpenSSL would ask on the terminal.
    """
    with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
        context.load_cert_chain(certificate_path, key_path, password="")


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Offer `content` under a path that exists in memory only: a memfd, or a pipe where the kernel has none.

    OpenSSL opens each path once and reads it to the end, so a pipe will do; 64 KiB fit into one.
    """
    descriptor = memory_file(content) if hasattr(os, "memfd_create") else memory_pipe(content)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def memory_file(content: bytes) -> int:
    """Put `content` into an anonymous file in memory and give its descriptor."""
    descriptor = os.memfd_create("homeport", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return descriptor


def memory_pipe(content: bytes) -> int:
    """Put `content` into a pipe and give the reading end; raises BlockingIOError when it does not fit."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(writer, False)
        if os.write(writer, content) < len(content):
            raise BlockingIOError("the content does not fit into a pipe")
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return reader


# ── sockets ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Socket(ssl.SSLSocket):
    """A TLS socket that is held to its channel's budget and raises EndpointErrors."""

    channel: Channel | None = None

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        if self.channel is None:
            return super().recv_into(buffer, nbytes, flags)
        # A socket's timeout is per recv: a peer that sends a byte now and then would reset it for ever. So each recv
        # gets what is left for the whole call.
        with self.channel.failures():
            self.settimeout(self.channel.budget.seconds())
            count = super().recv_into(buffer, nbytes, flags)
        self.channel.budget.spend(count)
        return count

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        if self.channel is not None:
            with self.channel.failures():
                self.settimeout(self.channel.budget.seconds())
        try:
            return super().send(data, flags)
        except TimeoutError as error:
            assert self.channel is not None
            raise self.channel._meaning(error) from error
        except ssl.SSLEOFError as error:  # the peer has hung up, and may have said why: urllib3 goes on to read that
            raise BrokenPipeError from error

    def hang_up(self) -> None:
        """Close both directions, leaving the TLS state to the thread that reads."""
        with suppress(OSError):  # the peer was faster, or the socket is closed already
            socket.socket.shutdown(self, socket.SHUT_RDWR)


class _Answer(HTTPResponse):
    """An answer whose headers can be read; urllib3 would go on without the others, and log the peer's words."""

    def begin(self) -> None:
        super().begin()
        if self.msg.defects:
            raise HTTPException("these are no headers")


class _Connection(HTTPSConnection):
    response_class = _Answer

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.address, channel.port)
        self._channel = channel

    def connect(self) -> None:
        self.sock = self._channel.connect()
        self.is_verified = True


class _Pool(HTTPSConnectionPool):
    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.address, channel.port, maxsize=1)
        self._channel = channel

    def _new_conn(self) -> _Connection:
        return _Connection(self._channel)


def _causes(error: BaseException, depth: int = 8) -> Iterator[BaseException]:
    """Yield the error and whatever it wraps, as cause, context or argument."""
    yield error
    if depth:  # urllib3 and requests wrap several times, and an error may contain itself
        for inner in (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args):
            if isinstance(inner, BaseException):
                yield from _causes(inner, depth - 1)
