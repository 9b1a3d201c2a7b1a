"""Which addresses an endpoint may have: where a visitor's credentials may be sent.

1. A spelling is parsed by `parse_endpoint` alone; no library's reading of a URL is trusted. A host is an IP literal in
   its canonical spelling or a DNS name; anything that merely looks like a number (`0x7f.1`, `2130706433`) is refused.
2. A spelling proves nothing: a name resolves to what its owner likes. `AddressPolicy.check` therefore judges the
   *resolved* addresses, all of them, before every connection, and the caller connects to the address it returns.
3. `TABLE` says for every address there is whether it is public; the longest matching prefix decides. It is written out
   because `ipaddress.is_global` is wrong for NAT64, 6to4, IPv4-compatible, site-local and multicast addresses.
4. An IPv4 address inside an IPv6 address is refused with the form that carries it, except for the two forms that
   working networks use: the NAT64 well-known prefix and ISATAP interface ids. Their inner address is judged as well.
5. The operator's deny list wins over the allow list, the allow list over the table, and NEVER over the allow list:
   link-local and metadata addresses answer with the machine's own credentials.
6. Port 2375 is plain Docker without TLS and is always refused; the operator may deny other ports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from chalicelib.bundle import errors

DOCKER_TLS_PORT: Final = 2376  # IANA docker-s; the default of DOCKER_TLS_VERIFY
HTTPS_PORT: Final = 443
PLAIN_DOCKER_PORT: Final = 2375  # IANA docker; no TLS by convention
LONGEST_ENDPOINT: Final = 300  # a DNS name has at most 253 characters; bounds the work of the IDNA codec
LONGEST_NAME: Final = 253

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Docker endpoint's address: a lower-case ASCII name or canonical IP literal without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


# ── what is public ───────────────────────────────────────────────────────────────────────────────────────────────


class Reach(Enum):
    """Who may be reached there: everybody's public machines, what an operator allows, or nobody ever."""

    PUBLIC = "public"
    PRIVATE = "private"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: `name` completes "the address is …", `source` says who defined it."""

    network: Network
    reach: Reach
    name: str
    source: str


def _row(network: str, reach: Reach, name: str, source: str) -> Row:
    return Row(ip_network(network), reach, name, source)


# Rows follow the IANA registries "IPv4 / IPv6 Special-Purpose Address Space" (RFC 6890) and "IPv6 Global Unicast"; the
# rows of the clouds' own services are from the vendors' pages on instance metadata. The longest prefix decides.
TABLE: Final[tuple[Row, ...]] = (
    # IPv4: public unless a row says otherwise.
    _row("0.0.0.0/0", Reach.PUBLIC, "a public address", "RFC 791"),
    _row("0.0.0.0/8", Reach.NEVER, "“this network”, which means the hub itself", "RFC 791, RFC 1122 §3.2.1.3"),
    _row("10.0.0.0/8", Reach.PRIVATE, "in a private network", "RFC 1918"),
    _row("100.64.0.0/10", Reach.PRIVATE, "behind a provider's shared address", "RFC 6598"),
    _row("100.100.100.200/32", Reach.NEVER, "a cloud's metadata service", "Alibaba Cloud ECS metadata"),
    _row("127.0.0.0/8", Reach.PRIVATE, "a loopback address, which means the hub itself", "RFC 1122 §3.2.1.3"),
    _row("168.63.129.16/32", Reach.NEVER, "a cloud's platform service", "Azure WireServer"),
    _row("169.254.0.0/16", Reach.NEVER, "link-local (cloud metadata)", "RFC 3927; AWS, Azure, Google IMDS"),
    _row("172.16.0.0/12", Reach.PRIVATE, "in a private network", "RFC 1918"),
    _row("192.0.0.0/24", Reach.PRIVATE, "reserved for protocols", "RFC 6890, RFC 7335, RFC 7050, RFC 7723"),
    _row("192.0.0.192/32", Reach.NEVER, "a cloud's metadata service", "Oracle Cloud Classic metadata"),
    _row("192.0.2.0/24", Reach.PRIVATE, "reserved for documentation", "RFC 5737"),
    _row("192.31.196.0/24", Reach.PRIVATE, "a DNS sink", "RFC 7535 (AS112)"),
    _row("192.52.193.0/24", Reach.PRIVATE, "a multicast relay", "RFC 7450 (AMT)"),
    _row("192.88.99.0/24", Reach.NEVER, "a 6to4 relay", "RFC 7526"),
    _row("192.168.0.0/16", Reach.PRIVATE, "in a private network", "RFC 1918"),
    _row("192.175.48.0/24", Reach.PRIVATE, "a DNS sink", "RFC 7534 (AS112)"),
    _row("198.18.0.0/15", Reach.PRIVATE, "reserved for benchmarks", "RFC 2544"),
    _row("198.51.100.0/24", Reach.PRIVATE, "reserved for documentation", "RFC 5737"),
    _row("203.0.113.0/24", Reach.PRIVATE, "reserved for documentation", "RFC 5737"),
    _row("224.0.0.0/4", Reach.NEVER, "a multicast address", "RFC 5771"),
    _row("240.0.0.0/4", Reach.NEVER, "reserved (and broadcast)", "RFC 1112 §4, RFC 919"),
    # IPv6: forbidden unless it is global unicast.
    _row("::/0", Reach.PRIVATE, "not allocated for public use", "IANA IPv6 Address Space"),
    _row("::/96", Reach.NEVER, "an IPv4 address embedded in IPv6 (compatible)", "RFC 4291 §2.5.5.1, deprecated"),
    _row("::/128", Reach.NEVER, "the unspecified address, which means the hub itself", "RFC 4291 §2.5.2"),
    _row("::1/128", Reach.PRIVATE, "the loopback address, which means the hub itself", "RFC 4291 §2.5.3"),
    _row("::ffff:0:0/96", Reach.NEVER, "an IPv4 address embedded in IPv6 (mapped)", "RFC 4291 §2.5.5.2"),
    _row("::ffff:0:0:0/96", Reach.NEVER, "an IPv4 address embedded in IPv6 (translated)", "RFC 2765 §2.1"),
    _row("64:ff9b::/96", Reach.PUBLIC, "a public address behind NAT64", "RFC 6052 §2.1; inner address judged too"),
    _row("64:ff9b:1::/48", Reach.NEVER, "behind a local NAT64, its inner address unknown", "RFC 8215"),
    _row("100::/64", Reach.PRIVATE, "discard-only", "RFC 6666"),
    _row("100:0:0:1::/64", Reach.PRIVATE, "a dummy prefix", "RFC 9780"),
    _row("2000::/3", Reach.PUBLIC, "a public address", "RFC 4291 §2.4; IANA IPv6 Global Unicast"),
    _row("2001::/23", Reach.PRIVATE, "reserved for protocols", "RFC 2928 (with 2001:1::/32 … 2001:30::/28)"),
    _row("2001::/32", Reach.NEVER, "an IPv4 address embedded in IPv6 (Teredo)", "RFC 4380"),
    _row("2001:2::/48", Reach.PRIVATE, "reserved for benchmarks", "RFC 5180"),
    _row("2001:10::/28", Reach.PRIVATE, "an identifier and no address (ORCHID)", "RFC 4843, deprecated"),
    _row("2001:20::/28", Reach.PRIVATE, "an identifier and no address (ORCHIDv2)", "RFC 7343"),
    _row("2001:db8::/32", Reach.PRIVATE, "reserved for documentation", "RFC 3849"),
    _row("2002::/16", Reach.NEVER, "an IPv4 address embedded in IPv6 (6to4)", "RFC 3056, RFC 7526"),
    _row("2620:4f:8000::/48", Reach.PRIVATE, "a DNS sink", "RFC 7534 (AS112)"),
    _row("3ffe::/16", Reach.PRIVATE, "returned to IANA (6bone)", "RFC 3701"),
    _row("3fff::/20", Reach.PRIVATE, "reserved for documentation", "RFC 9637"),
    _row("5f00::/16", Reach.PRIVATE, "a segment identifier", "RFC 9602"),
    _row("fc00::/7", Reach.PRIVATE, "in a private network", "RFC 4193"),
    _row("fd00:42::42/128", Reach.NEVER, "a cloud's metadata service", "Scaleway metadata"),
    _row("fd00:a9fe:a9fe::1/128", Reach.NEVER, "a cloud's metadata service", "Akamai (Linode) metadata"),
    _row("fd00:ec2::/32", Reach.NEVER, "a cloud's metadata service", "AWS IMDS, time, DNS, EKS Pod Identity"),
    _row("fd20:ce::254/128", Reach.NEVER, "a cloud's metadata service", "Google Compute Engine metadata"),
    _row("fe80::/10", Reach.NEVER, "link-local", "RFC 4291 §2.5.6"),
    _row("fec0::/10", Reach.PRIVATE, "in a private network (site-local)", "RFC 3879"),
    _row("ff00::/8", Reach.NEVER, "a multicast address", "RFC 4291 §2.7"),
)

_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = 0x0000_5EFE  # RFC 5214 §6.1, upper half of the interface id; the u and g bits may be set


def row_of(address: Address) -> Row:
    """Look up the row that decides about an address: the one with the longest matching prefix."""
    return max((row for row in TABLE if address in row.network), key=lambda row: row.network.prefixlen)


def _readings(address: Address) -> Iterator[Address]:
    """Yield the address, and the IPv4 address inside it where the form that carries it can be public."""
    yield address
    if isinstance(address, IPv6Address):
        value = int(address)
        if address in _NAT64 or (value >> 32) & 0xFCFF_FFFF == _ISATAP:
            yield IPv4Address(value & 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Where this hub sends credentials: the table, and the operator's networks and ports (rules 5 and 6)."""

    allowed: tuple[Network, ...] = ()
    denied: tuple[Network, ...] = ()
    denied_ports: frozenset[int] = frozenset()

    def check_port(self, endpoint: Endpoint) -> None:
        """Refuse a port that is never TLS or that the operator denies; raises ForbiddenPort."""
        if endpoint.port == PLAIN_DOCKER_PORT:
            raise errors.ForbiddenPort(
                "Port 2375 is Docker without encryption. Let the endpoint listen with TLS, usually on port 2376"
            )
        if endpoint.port in self.denied_ports:
            raise errors.ForbiddenPort(
                f"This hub's operator does not allow endpoints on port {endpoint.port}. Use another port, such as 2376"
            )

    def check(self, addresses: Sequence[str]) -> str:
        """Check every address a name resolved to and return the first one, canonical; raises ForbiddenAddress."""
        if not addresses:
            raise errors.ForbiddenAddress(
                "The endpoint's name has no address. Check its spelling, or give its IP address"
            )
        checked = [_address(text) for text in addresses]
        for address in checked:  # every one, before the first is used
            for reading in _readings(address):
                self._judge(reading)
        return str(checked[0])

    def _judge(self, address: Address) -> None:
        row = row_of(address)
        if row.reach is Reach.NEVER:
            raise errors.ForbiddenAddress(
                f"The endpoint's address is {row.name} ({row.network}). No hub connects there. Give its public address"
            )
        if any(address in network for network in self.denied):
            raise errors.ForbiddenAddress(
                "The endpoint's address is in a network that this hub's operator denies. Use another endpoint"
            )
        if row.reach is Reach.PRIVATE and not any(address in network for network in self.allowed):
            raise errors.ForbiddenAddress(
                f"The endpoint's address is {row.name} ({row.network}), and this hub connects to public addresses. "
                "Give its public address, or ask the hub's operator to allow that network"
            )


def _address(text: str) -> Address:
    """Read a resolver's answer; raises ForbiddenAddress for a zone id or anything that is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        raise errors.ForbiddenAddress("The endpoint's name resolved to something that is no IP address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise errors.ForbiddenAddress(
            "The endpoint's address has a zone id (“%…”), so it names no public machine. Give a public address"
        )
    return address


# ── how an endpoint is spelled ───────────────────────────────────────────────────────────────────────────────────

_REFUSED_SCHEMES: Final[dict[str, tuple[type[errors.BadEndpoint], str]]] = {
    "http": (
        errors.EndpointSchemeHttp,
        "The endpoint's address starts with http://, which is Docker without encryption. "
        "Set Docker up with TLS and give tcp://name:2376",
    ),
    "unix": (
        errors.EndpointSchemeUnix,
        "The endpoint's address is a Unix socket, which exists only on your own computer. "
        "Let Docker listen with TLS and give tcp://name:2376",
    ),
    "npipe": (
        errors.EndpointSchemeNpipe,
        "The endpoint's address is a Windows named pipe, which exists only on your own computer. "
        "Let Docker listen with TLS and give tcp://name:2376",
    ),
    "fd": (
        errors.EndpointSchemeFd,
        "The endpoint's address is fd://, a socket that systemd hands to Docker; nobody can connect to it. "
        "Let Docker listen with TLS and give tcp://name:2376",
    ),
    "ssh": (
        errors.EndpointSchemeSsh,
        "The endpoint's address starts with ssh://, and this hub speaks to Docker over TLS only. "
        "Let Docker listen with TLS and give tcp://name:2376",
    ),
}

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SOCKET_PATH: Final = re.compile(r"(unix|npipe):?/", re.IGNORECASE)
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def parse_endpoint(text: str) -> Endpoint:
    """Read `tcp://host[:port]`, `https://host[:port]` or `host[:port]`; raises a subclass of BadEndpoint.

    The port defaults to 2376, and to 443 after `https://`. An IPv6 address stands in brackets.
    """
    text = text.strip(" \t\r\n")
    if not text:
        raise errors.EndpointMissing("The endpoint's address is empty. Give it as tcp://name:2376")
    if len(text) > LONGEST_ENDPOINT:
        raise errors.EndpointHostInvalid(f"The endpoint's address is longer than {LONGEST_ENDPOINT} characters")
    if not text.isprintable() or any(c.isspace() for c in text):
        raise errors.EndpointCharacters(
            "The endpoint's address contains a space or an invisible character. Type it again as tcp://name:2376"
        )
    scheme, rest = _split_scheme(text)
    host, port = _split_port(_host_and_port(rest))
    if not host:
        raise errors.EndpointMissing("The endpoint's address has no host name. Give it as tcp://name:2376")
    host = _ipv6(host[1:-1]) if host.startswith("[") else _name(host)
    if port is None:
        port = str(HTTPS_PORT if scheme == "https" else DOCKER_TLS_PORT)
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise errors.EndpointPortInvalid("The endpoint's port must be a number from 1 to 65535, usually 2376")
    return Endpoint(host, int(port))


def _split_scheme(text: str) -> tuple[str, str]:
    match = _SCHEME.match(text)
    if match is None:
        socket = _SOCKET_PATH.match(text)
        if text.startswith("/") or socket is not None:
            error, message = _REFUSED_SCHEMES["unix" if socket is None else socket[1].lower()]
            raise error(message)
        return "tcp", text
    scheme = match[1].lower()
    if scheme in _REFUSED_SCHEMES:
        error, message = _REFUSED_SCHEMES[scheme]
        raise error(message)
    if scheme not in ("tcp", "https"):
        raise errors.EndpointSchemeUnknown(
            "The endpoint's address starts with a scheme this hub does not know. Give it as tcp://name:2376"
        )
    return scheme, text[match.end() :]


def _host_and_port(rest: str) -> str:
    """Cut a URL down to host and port; a bare trailing slash is forgiven, all else after the port is refused."""
    rest = rest.removesuffix("/")
    if "@" in rest:
        raise errors.EndpointUserinfo(
            "The endpoint's address contains a user name or password (“…@”). Give only tcp://name:2376; "
            "the certificate in the bundle says who you are"
        )
    if any(c in rest for c in "/\\?#"):
        raise errors.EndpointPath(
            "The endpoint's address has something after the port (a path, “?” or “#”). Give only tcp://name:2376"
        )
    return rest


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, tail = text.partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise errors.EndpointHostInvalid("The endpoint's IPv6 address must stand in brackets: tcp://[address]:2376")
        return host + bracket, tail[1:] if tail else None
    if text.count(":") > 1:
        raise errors.EndpointHostInvalid("The endpoint's IPv6 address must stand in brackets: tcp://[address]:2376")
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise errors.EndpointZone(
            "The endpoint's IPv6 address has a zone id (“%…”), which means something on your own computer only. "
            "Give a public address"
        )
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise errors.EndpointHostInvalid("The text in brackets must be an IPv6 address: tcp://[address]:2376") from None


def _name(text: str) -> str:
    """Read a DNS name or a canonical IPv4 address.

    IDNA folds full-width digits and dots into ASCII, so that what follows judges what a resolver would be given.
    """
    try:
        name = text.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]) is not None:  # the WHATWG URL Standard's "ends in a number"
        return _ipv4(name)
    if len(name) > LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise errors.EndpointHostInvalid(
            "The endpoint's name is not a valid host name. Check its spelling, or give its IP address"
        )
    return name


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise errors.EndpointNumericHost(
            "The endpoint's IPv4 address must be four decimal numbers with dots, such as tcp://198.51.100.7:2376; "
            "hexadecimal, octal and shortened forms are not accepted"
        ) from None
