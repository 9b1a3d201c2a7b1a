"""What visitors see of a stage: names, certificates, the hub's answer, the proxy's, and the hub's clock.

Nothing here asks AWS. Each wait has an end: ten seconds for a connection, and for each read of an answer.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from typing import Final

from cryptography import x509

from infra.api import ANSWERS
from infra.findings import Finding
from proxy.pages import PAGES

TIMEOUT: Final = 10.0  # seconds
LEAST_DAYS: Final = 14  # that a certificate has left; ACM renews 45 days before the end
CLOCK_OFF: Final = 30.0  # seconds that two clocks may differ
CLOCK_WRONG: Final = 300.0  # from here on AWS refuses signed requests, and tickets have expired when they are made
RENEWAL: Final = "ACM renews its certificates by itself while their validation records are in DNS."
ANSWER_BYTES: Final = 65536
HTTPS: Final = 443
BROWSERS: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # what they accept of a page
NOT_YET_VALID: Final = 9  # X509_V_ERR_ of OpenSSL's x509_vfy.h
EXPIRED: Final = 10
OTHER_NAME: Final = 62

Resolve = Callable[[str], frozenset[str]]


def resolve(name: str) -> frozenset[str]:
    """The addresses of a name, as this machine's resolver has them; empty if there are none."""
    try:
        found = socket.getaddrinfo(name, HTTPS, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(str(address[0]) for *_, address in found)


def as_browsers(cas: str | None = None) -> ssl.SSLContext:
    """Whom browsers trust, or the CAs of `cas` (PEM) alone; a name is looked for where they look for it."""
    context = ssl.create_default_context(cadata=cas)
    context.hostname_checks_common_name = False
    return context


@dataclass(frozen=True, slots=True)
class Site:
    """A host that is visited by HTTPS. `at` is where it is connected to, its own name and port unless a test says."""

    name: str
    trusted: ssl.SSLContext = field(default_factory=as_browsers, repr=False)
    at: tuple[str, int] = ("", HTTPS)

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Connect and shake hands; raises OSError."""
        plain = socket.create_connection((self.at[0] or self.name, self.at[1]), TIMEOUT)
        try:
            return context.wrap_socket(plain, server_hostname=self.name)
        except BaseException:
            plain.close()
            raise


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, headers `Date` and `Content-Type` ("" if there is none), and its body's first 64 KiB."""

    status: int
    date: str
    content_type: str
    body: bytes


def ask(site: Site, path: str, *, method: str = "GET", accept: str = "*/*") -> Answer:
    """Ask for an address of a site; raises OSError or HTTPException."""
    connection = HTTPConnection(site.name, timeout=TIMEOUT)
    connection.sock = site.connect(site.trusted)
    try:
        connection.request(method, path, headers={"Accept": accept, "User-Agent": "homeport-doctor"})
        answer = connection.getresponse()
        date, content_type = answer.getheader("Date", ""), answer.getheader("Content-Type", "")
        return Answer(answer.status, date, content_type, answer.read(ANSWER_BYTES))
    finally:
        connection.close()


def a_notebook(domain: str) -> str:
    """Name a host below the notebooks' domain that no launch has."""
    return f"doctor-{secrets.token_hex(8)}.{domain}"


def addresses(name: str, target: str, resolve: Resolve, *, fixed: bool, mend: str) -> Finding:
    """Look whether a name leads where AWS says (`target`; "" if that is not known).

    `fixed`: the target's addresses do not change from one look-up to the next.
    """
    found = resolve(name)
    towards = f" by a CNAME record to {target}" if target else ""
    if not found:
        return Finding(False, f"{name} has no address in DNS", f"Make its record{towards}. {mend}")
    shown = ", ".join(sorted(found))
    expected = resolve(target) if target else frozenset()
    if not expected:
        return Finding(True, f"{name} has the address {shown}")
    if found & expected:
        return Finding(True, f"{name} leads to {target}")
    what = f"{name} has the address {shown}, which is none of {target}'s ({', '.join(sorted(expected))})"
    return Finding(False if fixed else None, what, f"Unless something of yours is between, make its record{towards}.")


def certificate(site: Site, *, now: float) -> Finding:
    """Look at the certificate that a site shows, by a handshake as browsers make it; `now` in epoch seconds.

    For a host below a wildcard nothing but a certificate for the wildcard is good.
    """
    try:
        with site.connect(site.trusted) as connected:
            shown = connected.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as error:
        return _refused(site, error)
    except OSError as error:
        what = f"{site.name} does not answer at port {site.at[1]}: {_reason(error)}"
        return Finding(False, what, "Is its DNS record right, and does a load balancer or a proxy run there?")
    days = (_ends(x509.load_der_x509_certificate(shown or b"")).timestamp() - now) / 86400
    if days < LEAST_DAYS:
        what = f"the certificate of {site.name} ends in {days:.0f} days"
        return Finding(None, what, RENEWAL)
    return Finding(True, f"the certificate of {site.name} is good for {days:.0f} days")


def _refused(site: Site, error: ssl.SSLCertVerificationError) -> Finding:
    """Why a browser takes no certificate of the site."""
    shown = _shown(site)
    if shown is None or error.verify_code not in (NOT_YET_VALID, EXPIRED, OTHER_NAME):
        what = f"browsers do not trust the certificate of {site.name}: {error.verify_message}"
        return Finding(False, what, "Use one of a public CA, such as ACM's, with its chain.")
    if error.verify_code == EXPIRED:
        what = f"the certificate of {site.name} expired on {_ends(shown):%Y-%m-%d}"
        return Finding(False, what, f"Renew it. {RENEWAL}")
    if error.verify_code == NOT_YET_VALID:
        what = f"the certificate of {site.name} is valid from {shown.not_valid_before_utc:%Y-%m-%d} on"
        return Finding(False, what, "Is this machine's clock right?")
    what = f"the certificate of {site.name} is for {', '.join(_names(shown)) or 'no host'}"
    above = site.name.partition(".")[2]
    return Finding(False, what, f"Use one for {site.name}, or for *.{above}; a wildcard stands for one label.")


def _shown(site: Site) -> x509.Certificate | None:
    """The certificate that a site shows to whoever trusts anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with site.connect(context) as connected:
            return x509.load_der_x509_certificate(connected.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None


def _ends(shown: x509.Certificate) -> datetime:
    return shown.not_valid_after_utc


def _names(shown: x509.Certificate) -> list[str]:
    try:
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def hub(site: Site, path: str, version: str, clock: Callable[[], float]) -> Iterator[Finding]:
    """Look at the hub's answer at `path`: that it is the hub's, of this version; and at its clock."""
    try:
        answer = ask(site, path)
    except (OSError, HTTPException) as error:
        what = f"the hub does not answer at https://{site.name}{path}: {_reason(error)}"
        yield Finding(False, what, "What is said of its DNS and certificate comes first; then the functions.")
        return
    yield _health(answer, f"https://{site.name}{path}", version)
    if answer.date:
        yield clocks(answer.date, clock())


def _health(answer: Answer, address: str, version: str) -> Finding:
    try:
        said = json.loads(answer.body)
        healthy, theirs = said["status"] == "ok", str(said["version"])
    except (ValueError, KeyError, TypeError):
        healthy, theirs = False, ""
    if answer.status != 200 or not healthy:
        what = f"{address} answers {answer.status}, and not as the hub does"
        mend = "Does the domain lead to the hub's API? Else see the log /aws/lambda/homeport-<stage>."
        return Finding(False, what, mend)
    if theirs != version:
        what = f"the hub runs version {theirs}, and this checkout is {version}"
        return Finding(None, what, "Deploy again, or check out what was deployed.")
    return Finding(True, f"the hub answers, and is of this version, {version}")


def own_answers(site: Site, path: str) -> Finding:
    """Look which form API Gateway's own answers have, by a method that it lets nobody use at `path`."""
    what = f"PUT https://{site.name}{path}, which API Gateway refuses itself,"
    try:
        document = ask(site, path, method="PUT", accept="application/json")
        page = ask(site, path, method="PUT", accept=BROWSERS)
    except (OSError, HTTPException) as error:
        return Finding(None, f"{what} is not answered: {_reason(error)}", "Does something between stop the method?")
    expected = ANSWERS["MISSING_AUTHENTICATION_TOKEN"]
    if document.status != expected.status or _code(document) != expected.code:
        mend = "`make api STAGE=…` sets those answers again; or something between gives its own."
        return Finding(False, f"{what} is answered {document.status}, and not in the form of the hub's errors", mend)
    if page.content_type.startswith("text/html") and expected.title.encode() in page.body:
        return Finding(True, "API Gateway's own answers are a page for browsers and a problem document for programs")
    what = f"browsers get API Gateway's own answers as {page.content_type or 'nothing'}, not as a page"
    return Finding(None, what, "Please report it: AWS does not say how it chooses the form (docs/adr/0030).")


def _code(answer: Answer) -> str:
    """The code of a problem document; "" if the answer is none."""
    try:
        return str(json.loads(answer.body)["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def clocks(date: str, now: float) -> Finding:
    """Compare the hub's clock, its `Date` header, with this machine's, `now` in epoch seconds."""
    try:
        off = abs(_moment(date) - now)
    except ValueError:
        return Finding(None, "the hub's answer has no readable date", "Something between changes its headers.")
    what = f"the hub's clock and this machine's differ by {off:.0f} seconds"
    if off <= CLOCK_OFF:
        return Finding(True, what)
    mend = "AWS keeps its own right: set this machine's by NTP."
    if off > CLOCK_WRONG:
        return Finding(False, f"{what}: AWS refuses requests that are signed so", mend)
    return Finding(None, what, mend)


def _moment(date: str) -> float:
    found = parsedate_to_datetime(date)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def proxy(site: Site) -> Finding:
    """Look whether a host that no launch has gets the proxy's own page."""
    try:
        answer = ask(site, "/")
    except (OSError, HTTPException) as error:
        what = f"no proxy answers for {site.name}: {_reason(error)}"
        return Finding(False, what, 'Is the proxy\'s stack there, and does it run? docs/deploy.md, "The proxy".')
    title = PAGES[404][1]
    if answer.status == 404 and title.encode() in answer.body:
        return Finding(True, "the proxy answers, and knows no notebook of a name that nobody has")
    if answer.status == 503:
        what = f"{site.name} answers 503: no proxy is ready"
        return Finding(False, what, "See its log, /homeport/<stage>/proxy, and the service's events in ECS.")
    what = f'{site.name} answers {answer.status}, and not with the proxy\'s page "{title}"'
    return Finding(False, what, "Something else serves the notebooks' domain: only the proxy may.")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:.0f} seconds"
    text = error.strerror if isinstance(error, OSError) else ""
    return text or str(error) or type(error).__name__
