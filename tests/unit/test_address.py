"""Where credentials may be sent. Nothing here can send a packet: a stand-in resolves names, and nothing connects."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.bundle import errors
from chalicelib.bundle.address import TABLE, AddressPolicy, Endpoint, Reach, Row, parse_endpoint, row_of

POLICY = AddressPolicy()

# ── a stand-in resolver ──────────────────────────────────────────────────────────────────────────────────────────


class Resolver:
    """A stand-in for getaddrinfo: knows a few names, and reads numbers as glibc does (`0x7f.1` is 127.0.0.1)."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host in self.names:
            return self.names[host]
        if ":" in host:
            return [host]
        if host.startswith("xn--"):
            return []  # a name in another script's digits is a name, and nobody has it
        return [socket.inet_ntoa(socket.inet_aton(host))]  # pure: no look-up


def connectable(spelling: str, resolver: Resolver, policy: AddressPolicy = POLICY) -> str:
    """Do what every effect does before it connects: parse, check the port, resolve, check the addresses."""
    endpoint = parse_endpoint(spelling)
    policy.check_port(endpoint)
    return policy.check(resolver(endpoint.host))


# ── at least 600 spellings of forbidden addresses ────────────────────────────────────────────────────────────────

FORBIDDEN_IPV4 = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.254",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.1.2.3",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.99.100",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
)
FORBIDDEN_IPV6 = (
    "::",
    "::1",
    "100::1",
    "100:0:0:1::1",
    "200::1",
    "1000::1",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fd00:ec2::23",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)

Spell = Callable[[IPv4Address], str]


def _part(form: str) -> Callable[[int], str]:
    return lambda number: format(number, form)


def _dotted(*forms: str) -> Spell:
    """Spell the address in parts, the last of which takes all remaining bytes, as inet_aton reads it."""

    def spell(address: IPv4Address) -> str:
        octets = list(address.packed)
        last = int.from_bytes(octets[len(forms) - 1 :], "big")
        parts = [*octets[: len(forms) - 1], last]
        return ".".join(_part(form)(part) for form, part in zip(forms, parts, strict=True))

    return spell


def _translated(digits: str, dot: str = ".") -> Spell:
    return lambda address: str(address).translate(str.maketrans("0123456789.", digits + dot))


def _embedded(prefix: str, shift: int = 0, mask: int = 0) -> Spell:
    base = int(IPv6Address(prefix))
    return lambda address: f"[{IPv6Address(base | ((int(address) ^ mask) << shift))}]"


SPELLINGS: dict[str, Spell] = {
    "plain": str,
    "trailing dot": lambda a: f"{a}.",
    "two trailing dots": lambda a: f"{a}..",
    "decimal": _dotted("d"),
    "hex": _dotted("#x"),
    "upper hex": lambda a: f"0X{int(a):X}",
    "long hex": lambda a: f"0x{int(a):012x}",
    "octal": lambda a: f"0{int(a):o}",
    "two parts": _dotted("d", "d"),
    "three parts": _dotted("d", "d", "d"),
    "hex parts": _dotted("#x", "#x", "#x", "#x"),
    "hex and short": _dotted("#x", "d"),
    "octal parts": _dotted("04o", "04o", "04o", "04o"),
    "padded octal": _dotted("08o", "08o", "08o", "08o"),
    "octal and hex": _dotted("04o", "#x", "d", "d"),
    "leading zeros": _dotted("03d", "03d", "03d", "03d"),
    "full-width digits": _translated("０１２３４５６７８９"),
    "full-width digits and dots": _translated("０１２３４５６７８９", "．"),
    "ideographic dots": _translated("0123456789", "。"),
    "half-width ideographic dots": _translated("0123456789", "｡"),
    "circled digits": _translated("⓪①②③④⑤⑥⑦⑧⑨"),
    "superscript digits": _translated("⁰¹²³⁴⁵⁶⁷⁸⁹"),
    "mathematical digits": _translated("𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗"),
    "arabic digits": _translated("٠١٢٣٤٥٦٧٨٩"),
    "percent-encoded": lambda a: "".join(f"%{ord(c):02x}" for c in str(a)),
    "brackets": lambda a: f"[{a}]",
    "mapped": _embedded("::ffff:0:0"),
    "mapped, dotted": lambda a: f"[::ffff:{a}]",
    "mapped, upper case": lambda a: f"[::FFFF:{a}]",
    "mapped, written out": lambda a: f"[0:0:0:0:0:ffff:{a}]",
    "mapped, with a zone": lambda a: f"[::ffff:{a}%1]",
    "compatible": _embedded("::"),
    "compatible, dotted": lambda a: f"[::{a}]",
    "translated (SIIT)": _embedded("::ffff:0:0:0"),
    "NAT64": _embedded("64:ff9b::"),
    "NAT64, dotted": lambda a: f"[64:ff9b::{a}]",
    "local NAT64, /96": _embedded("64:ff9b:1::"),
    "local NAT64, /48": _embedded("64:ff9b:1::", shift=40),
    "6to4": _embedded("2002::", shift=80),
    "Teredo, client": _embedded("2001:0:c0a8:101::", mask=0xFFFFFFFF),
    "Teredo, server": _embedded("2001::", shift=64),
    "ISATAP": _embedded("2600:1f18::5efe:0:0"),
    "ISATAP, universal": _embedded("2600:1f18::200:5efe:0:0"),
    "ISATAP, link-local": _embedded("fe80::5efe:0:0"),
    "a name": lambda a: "name-of-" + str(a).replace(".", "-") + ".example",
    "a name in capitals": lambda a: "NAME-OF-" + str(a).replace(".", "-") + ".EXAMPLE.",
    "a name with one public address": lambda a: "half-" + str(a).replace(".", "-") + ".example",
    "a name in IPv6 clothes": lambda a: "mapped-" + str(a).replace(".", "-") + ".example",
}
IPV6_SPELLINGS: dict[str, Callable[[IPv6Address], str]] = {
    "plain": lambda a: f"[{a}]",
    "upper case": lambda a: f"[{str(a).upper()}]",
    "written out": lambda a: f"[{a.exploded}]",
    "zone": lambda a: f"[{a}%eth0]",
    "encoded zone": lambda a: f"[{a}%25eth0]",
    "no brackets": str,
    "a name": lambda a: f"six-{int(a):x}.example",
    "a name with a zone": lambda a: f"zone-{int(a):x}.example",
}


def _names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for text in FORBIDDEN_IPV4:
        label = text.replace(".", "-")
        names[f"name-of-{label}.example"] = [text]
        names[f"half-{label}.example"] = ["8.8.8.8", "2600:1f18::1", text]
        names[f"mapped-{label}.example"] = [f"::ffff:{text}"]
    for text in FORBIDDEN_IPV6:
        number = int(IPv6Address(text))
        names[f"six-{number:x}.example"] = [text]
        names[f"zone-{number:x}.example"] = [f"{text}%2"]
    return names | {"localhost": ["127.0.0.1", "::1"], "metadata.google.internal": ["169.254.169.254"]}


HOSTS = {
    "well-known names": ("localhost", "LOCALHOST", "localhost.", "ｌｏｃａｌｈｏｓｔ", "Metadata.Google.Internal"),
    "short numbers": ("127.1", "0", "0x0", "00", "0x7f.1", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "0177.1"),
}


def _forbidden() -> dict[str, list[str]]:
    four = {f"IPv4, {kind}": [spell(IPv4Address(a)) for a in FORBIDDEN_IPV4] for kind, spell in SPELLINGS.items()}
    six = {f"IPv6, {kind}": [spell(IPv6Address(a)) for a in FORBIDDEN_IPV6] for kind, spell in IPV6_SPELLINGS.items()}
    found = {kind: [f"tcp://{host}:2376" for host in hosts] for kind, hosts in (four | six).items()}
    for kind, hosts in HOSTS.items():
        found[kind] = [form.format(host) for host in hosts for form in ("tcp://{}", "https://{}", "{}", "{}:443")]
    return found


FORBIDDEN = _forbidden()


def _accepted_spelling(spelling: str, resolver: Resolver) -> bool:
    try:
        connectable(spelling, resolver)
    except errors.BadEndpoint:
        return False
    return True


def test_there_are_at_least_600_forbidden_spellings() -> None:
    assert len({spelling for spellings in FORBIDDEN.values() for spelling in spellings}) >= 600


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_a_forbidden_address_is_refused_however_it_is_spelled(kind: str) -> None:
    resolver = Resolver(_names())
    assert [spelling for spelling in FORBIDDEN[kind] if _accepted_spelling(spelling, resolver)] == []


@pytest.mark.parametrize("kind", [kind for kind in FORBIDDEN if "a name" in kind])
def test_a_name_is_refused_for_what_it_resolves_to(kind: str) -> None:
    resolver = Resolver(_names())
    for spelling in FORBIDDEN[kind]:
        with pytest.raises(errors.ForbiddenAddress):
            connectable(spelling, resolver)
    assert len(resolver.asked) == len(FORBIDDEN[kind])
    assert all(resolver.names[host] for host in resolver.asked)


@pytest.mark.parametrize("form", ["decimal", "hex", "upper hex", "octal", "two parts", "three parts", "octal parts"])
def test_a_number_that_got_past_the_parser_would_still_be_refused_by_its_address(form: str) -> None:
    for text in FORBIDDEN_IPV4:
        addresses = Resolver({})(SPELLINGS[form](IPv4Address(text)))
        assert addresses == [text], "the stand-in reads numbers as glibc does"
        with pytest.raises(errors.ForbiddenAddress):
            POLICY.check(addresses)


@pytest.mark.parametrize("form", ["decimal", "hex", "octal", "two parts", "three parts", "hex parts", "octal parts"])
def test_an_odd_number_is_refused_before_anything_is_resolved(form: str) -> None:
    resolver = Resolver({})
    with pytest.raises(errors.EndpointNumericHost):
        connectable(f"tcp://{SPELLINGS[form](IPv4Address('8.8.4.4'))}", resolver)
    assert resolver.asked == []


# ── public addresses ─────────────────────────────────────────────────────────────────────────────────────────────

PUBLIC = (
    ("tcp://1.1.1.1:2376", "1.1.1.1"),
    ("tcp://8.8.8.8", "8.8.8.8"),
    ("8.8.4.4", "8.8.4.4"),
    ("9.255.255.255:2376", "9.255.255.255"),
    ("11.0.0.0:2376", "11.0.0.0"),
    ("100.63.255.255:2376", "100.63.255.255"),
    ("100.128.0.0:2376", "100.128.0.0"),
    ("126.255.255.255:2376", "126.255.255.255"),
    ("128.0.0.1:2376", "128.0.0.1"),
    ("172.15.255.255:2376", "172.15.255.255"),
    ("172.32.0.0:2376", "172.32.0.0"),
    ("192.0.1.1:2376", "192.0.1.1"),
    ("192.167.255.255:2376", "192.167.255.255"),
    ("198.17.255.255:2376", "198.17.255.255"),
    ("198.20.0.0:2376", "198.20.0.0"),
    ("223.255.255.255:2376", "223.255.255.255"),
    ("tcp://[2600:1f18::1]:2376", "2600:1f18::1"),
    ("https://[2A00:1450:4001:0830::200E]", "2a00:1450:4001:830::200e"),
    ("tcp://[2001:4860:4860::8888]:2376", "2001:4860:4860::8888"),
    ("tcp://[64:ff9b::8.8.8.8]:2376", "64:ff9b::808:808"),
    ("tcp://[2600:1f18::5efe:808:808]:2376", "2600:1f18::5efe:808:808"),
    ("tcp://docker.example:2376", "93.184.215.14"),
    ("https://Docker.Example.", "93.184.215.14"),
    ("bücher.example", "2a00::1"),
)
NAMES = {"docker.example": ["93.184.215.14", "2600:1f18::2"], "xn--bcher-kva.example": ["2a00::1"]}


@pytest.mark.parametrize(("spelling", "address"), PUBLIC)
def test_a_public_address_is_accepted(spelling: str, address: str) -> None:
    assert connectable(spelling, Resolver(NAMES)) == address


def test_at_least_20_public_addresses_are_tried() -> None:
    assert len(PUBLIC) >= 20


# ── spelling ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://docker.example:2376", "docker.example", 2376),
        ("TCP://Docker.Example", "docker.example", 2376),
        ("docker.example", "docker.example", 2376),
        ("docker.example:8443", "docker.example", 8443),
        ("https://docker.example", "docker.example", 443),
        ("https://docker.example:2376", "docker.example", 2376),
        ("https://docker.example/", "docker.example", 443),
        ("  tcp://docker.example:2376\r\n", "docker.example", 2376),
        ("tcp://198.51.100.7", "198.51.100.7", 2376),
        ("tcp://[2001:DB8:0:0::7]:2377", "2001:db8::7", 2377),
        ("my_host-1:2376", "my_host-1", 2376),
        ("docker.example.:1", "docker.example", 1),
        ("docker.example:65535", "docker.example", 65535),
        ("７.example", "7.example", 2376),
    ],
)
def test_an_endpoint_is_read_in_every_accepted_form(text: str, host: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(host, port)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "endpoint-missing"),
        (" \n", "endpoint-missing"),
        ("tcp://", "endpoint-missing"),
        ("tcp://:2376", "endpoint-missing"),
        (":2376", "endpoint-missing"),
        ("http://docker.example:2376", "endpoint-scheme-http"),
        ("HTTP://docker.example", "endpoint-scheme-http"),
        ("unix:///var/run/docker.sock", "endpoint-scheme-unix"),
        ("unix:/var/run/docker.sock", "endpoint-scheme-unix"),
        ("/var/run/docker.sock", "endpoint-scheme-unix"),
        ("npipe:////./pipe/docker_engine", "endpoint-scheme-npipe"),
        ("fd://", "endpoint-scheme-fd"),
        ("ssh://me@docker.example", "endpoint-scheme-ssh"),
        ("ftp://docker.example", "endpoint-scheme-unknown"),
        ("file:///etc/passwd", "endpoint-scheme-unknown"),
        ("tcp+tls://docker.example", "endpoint-scheme-unknown"),
        ("tcp://me@docker.example", "endpoint-userinfo"),
        ("tcp://me:secret@docker.example:2376", "endpoint-userinfo"),
        ("tcp://8.8.8.8:2376@127.0.0.1", "endpoint-userinfo"),
        ("tcp://8.8.8.8:2376#@127.0.0.1", "endpoint-userinfo"),
        ("tcp://docker.example:2376/v1.43", "endpoint-path"),
        ("tcp://docker.example//", "endpoint-path"),
        ("tcp://docker.example?x", "endpoint-path"),
        ("tcp://docker.example#x", "endpoint-path"),
        ("tcp://docker.example\\x", "endpoint-path"),
        ("tcp://tcp://docker.example", "endpoint-path"),
        ("tcp://docker.example:", "endpoint-port-invalid"),
        ("tcp://docker.example:0", "endpoint-port-invalid"),
        ("tcp://docker.example:02376", "endpoint-port-invalid"),
        ("tcp://docker.example:65536", "endpoint-port-invalid"),
        ("tcp://docker.example:+1", "endpoint-port-invalid"),
        ("tcp://docker.example:２３７６", "endpoint-port-invalid"),
        ("tcp://docker.example:docker", "endpoint-port-invalid"),
        ("tcp://docker .example", "endpoint-characters"),
        ("tcp://docker\u00a0.example", "endpoint-characters"),
        ("tcp://docker\x00.example", "endpoint-characters"),
        ("tcp://docker\u00ad.example", "endpoint-characters"),
        ("tcp://docker\u202e.example", "endpoint-characters"),
        ("tcp://docker\ud800.example", "endpoint-characters"),
        ("tcp://docker.example\r\nHost: x", "endpoint-characters"),
        ("tcp://-docker.example", "endpoint-host-invalid"),
        ("tcp://docker..example", "endpoint-host-invalid"),
        ("tcp://.", "endpoint-host-invalid"),
        ("tcp://docker,example", "endpoint-host-invalid"),
        ("tcp://$DOCKER_HOST", "endpoint-host-invalid"),
        ("tcp://℀.example", "endpoint-host-invalid"),
        ("tcp://" + "a" * 64 + ".example", "endpoint-host-invalid"),
        ("tcp://" + ".".join(["a" * 60] * 4 + ["b" * 20]), "endpoint-host-invalid"),
        ("tcp://" + "a" * 400, "endpoint-host-invalid"),
        ("tcp://2001:db8::1", "endpoint-host-invalid"),
        ("tcp://[2001:db8::1", "endpoint-host-invalid"),
        ("tcp://[2001:db8::1]2376", "endpoint-host-invalid"),
        ("tcp://[]:2376", "endpoint-host-invalid"),
        ("tcp://[docker.example]:2376", "endpoint-host-invalid"),
        ("tcp://[v1.fe80]", "endpoint-host-invalid"),
        ("tcp://1.2.3.256", "endpoint-numeric-host"),
        ("tcp://1.2.3.4.5", "endpoint-numeric-host"),
        ("tcp://docker.1", "endpoint-numeric-host"),
        ("tcp://0x", "endpoint-numeric-host"),
        ("tcp://[fe80::1%eth0]:2376", "endpoint-zone"),
    ],
)
def test_each_refusal_has_its_own_code(text: str, code: str) -> None:
    with pytest.raises(errors.BadEndpoint) as refusal:
        parse_endpoint(text)
    assert refusal.value.code == code
    assert refusal.value.status == 400


def test_each_refused_scheme_has_its_own_sentence() -> None:
    sentences = set()
    for scheme in ("http", "unix", "npipe", "fd", "ssh", "gopher"):
        with pytest.raises(errors.BadEndpoint) as refusal:
            parse_endpoint(f"{scheme}://docker.example")
        sentences.add(refusal.value.message)
    assert len(sentences) == 6


def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(errors.EndpointUserinfo) as refusal:
        parse_endpoint("tcp://me:hunter2@docker.example")
    assert "hunter2" not in repr(refusal.value)


@given(st.text(max_size=320) | st.from_regex(r"(tcp://|https://)?[\[0-9a-fx:.%\]０。①Ａ-]{1,30}(:[0-9]{1,6})?"))
def test_any_text_is_an_endpoint_in_canonical_form_or_refused(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except errors.BadEndpoint:
        return
    assert endpoint.host.isascii()
    assert endpoint.host == endpoint.host.lower()
    assert 0 < endpoint.port < 65536
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.ip_addresses(v=6), st.integers(1, 65535))
def test_an_endpoint_survives_its_own_spelling(address: IPv6Address, port: int) -> None:
    endpoint = Endpoint(str(address), port)
    assert parse_endpoint(str(endpoint)) == endpoint


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.reach is not Reach.PUBLIC], ids=lambda row: str(row.network)
)
def test_every_forbidden_row_holds_from_its_first_to_its_last_address(row: Row) -> None:
    for address in (row.network[0], row.network[-1]):
        with pytest.raises(errors.ForbiddenAddress):
            POLICY.check([str(address)])


def test_every_row_says_its_source_and_stands_once() -> None:
    assert all(row.source and row.name for row in TABLE)
    assert len({row.network for row in TABLE}) == len(TABLE)


@given(st.ip_addresses())
def test_nothing_the_standard_library_knows_as_special_is_accepted(address: IPv4Address | IPv6Address) -> None:
    """`is_global` is wrong in one direction only (it is too generous), so it bounds the table from outside."""
    if row_of(address).reach is Reach.PUBLIC and address not in ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast


@given(st.integers(0, 2**32 - 1))
def test_nat64_is_judged_by_the_address_inside(number: int) -> None:
    inner = IPv4Address(number)
    outer = str(ip_address(int(IPv6Address("64:ff9b::")) + number))
    assert _accepted(POLICY, outer) == _accepted(POLICY, str(inner))


def _accepted(policy: AddressPolicy, *addresses: str) -> bool:
    try:
        policy.check(addresses)
    except errors.ForbiddenAddress:
        return False
    return True


# ── the operator's networks and ports ────────────────────────────────────────────────────────────────────────────

EVERYTHING = AddressPolicy(allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")))
NEVER_ALLOWED = (
    "0.0.0.0",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::168.63.129.16",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:a9fe:a9fe::1",
    "2002:a9fe:a9fe::1",
    "2600::5efe:a9fe:a9fe",
    "fd00::200:5efe:a9fe:a9fe",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "ff02::1",
)


@pytest.mark.parametrize("address", NEVER_ALLOWED)
def test_link_local_and_metadata_can_never_be_allowed(address: str) -> None:
    with pytest.raises(errors.ForbiddenAddress):
        EVERYTHING.check([address])
    exactly = AddressPolicy(allowed=(ip_network(address),))
    with pytest.raises(errors.ForbiddenAddress):
        exactly.check([address])


@pytest.mark.parametrize("address", ["127.0.0.1", "10.2.3.4", "192.168.99.100", "::1", "fd12::1", "64:ff9b::10.2.3.4"])
def test_an_operator_may_allow_private_networks(address: str) -> None:
    assert EVERYTHING.check([address]) == str(ip_address(address))


def test_allowing_one_network_allows_no_other() -> None:
    policy = AddressPolicy(allowed=(ip_network("10.1.0.0/16"),))
    assert policy.check(["10.1.2.3"]) == "10.1.2.3"
    assert policy.check(["8.8.8.8"]) == "8.8.8.8", "public addresses stay public"
    for address in ("10.2.0.1", "192.168.0.1", "::ffff:10.1.2.3", "2002:a01:203::1"):
        assert not _accepted(policy, address)


def test_denied_wins_over_allowed_and_over_public() -> None:
    policy = AddressPolicy(
        allowed=(ip_network("10.0.0.0/8"),),
        denied=(ip_network("10.1.2.3/32"), ip_network("8.8.8.0/24"), ip_network("2600:1f18::/32")),
    )
    assert _accepted(policy, "10.1.2.4", "8.8.4.4")
    for address in ("10.1.2.3", "8.8.8.8", "64:ff9b::8.8.8.8", "2600::5efe:808:808", "2600:1f18::1"):
        assert not _accepted(policy, address)


def test_one_forbidden_answer_among_public_ones_refuses_the_name() -> None:
    assert _accepted(POLICY, "8.8.8.8", "8.8.4.4")
    assert not _accepted(POLICY, "8.8.8.8", "10.0.0.1")
    assert not _accepted(POLICY, "10.0.0.1", "8.8.8.8")


def test_a_name_without_addresses_is_refused() -> None:
    assert not _accepted(POLICY)


def test_an_answer_with_a_zone_is_refused_even_when_the_address_is_public() -> None:
    assert _accepted(POLICY, "2600:1f18::1")
    assert not _accepted(POLICY, "2600:1f18::1%2")


def test_the_refusal_names_the_network_and_not_the_address() -> None:
    """What a name resolves to inside the hub's network is nobody else's business."""
    with pytest.raises(errors.ForbiddenAddress) as refusal:
        POLICY.check(["10.20.30.40"])
    assert "10.0.0.0/8" in refusal.value.message
    assert "10.20.30.40" not in refusal.value.message


def test_an_answer_that_is_no_address_is_refused() -> None:
    assert not _accepted(POLICY, "8.8.8.8", "docker.example")


def test_plain_dockers_port_is_always_refused() -> None:
    with pytest.raises(errors.ForbiddenPort, match="2375"):
        POLICY.check_port(Endpoint("docker.example", 2375))
    POLICY.check_port(Endpoint("docker.example", 2376))


def test_the_operators_ports_are_refused() -> None:
    policy = AddressPolicy(denied_ports=frozenset({22, 8443}))
    for port in (22, 2375, 8443):
        with pytest.raises(errors.ForbiddenPort):
            policy.check_port(Endpoint("docker.example", port))
    policy.check_port(Endpoint("docker.example", 443))
