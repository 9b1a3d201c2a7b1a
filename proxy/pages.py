"""The proxy's error pages: a title, what happened and what to do, and a link to the hub.

HAProxy serves them from files with whole HTTP responses, the agent renders the same ones. The hub's address is the
only thing put into them; they load nothing and must not be cached.

The page of 431 has a script that does what its sentence asks for: it deletes the cookies that the browser sent with the
request, and loads the address again. It is served at that address, so it can read their names, but not where they are
from: a notebook of another launch may have set them for any domain above (`Domain`), and for any folder of the path
(`Path`; RFC 6265 §5.1.4), so all of these are tried. The grant is out of a script's reach (HttpOnly). A
second time within ten seconds the page stays: something sets the cookies anew, or they cannot be deleted.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from types import MappingProxyType
from typing import Final

# fmt: off
PAGES: Final[Mapping[int, tuple[str, str, str]]] = MappingProxyType({
    400: ("Bad Request", "Bad request",
          "Your browser sent a header or a cookie twice. Delete this site’s cookies, then open the notebook again."),
    401: ("Unauthorized", "Open this notebook from the hub",
          "This browser is not signed in to this notebook, or its sign-in has expired. "
          "Go to the hub’s page and choose “Open”."),
    403: ("Forbidden", "This link is no longer valid",
          "It was for another notebook or launch, has been used or has expired, or the request came from another site. "
          "Go back to the hub’s page and choose “Open” again."),
    404: ("Not Found", "There is no notebook here",
          "It was stopped, or the address is incomplete. The hub’s page shows your notebooks."),
    405: ("Method Not Allowed", "Open this notebook from the hub",
          "This address only accepts requests from the hub’s page. Go there and choose “Open”."),
    408: ("Request Timeout", "Request timed out",
          "The request did not arrive in time. Try again."),
    413: ("Content Too Large", "Request too large",
          "A request to open a notebook is at most 8 KiB long. Go back to the hub’s page and choose “Open” again."),
    429: ("Too Many Requests", "One moment, please",
          "Too much was asked for at once, or is open: by your network, or of this notebook. Wait ten seconds, or "
          "close other tabs of the notebook, then try again."),
    431: ("Request Header Fields Too Large", "Too many cookies",
          "Your browser sent more cookies than this notebook accepts, or some that are not its own. Another notebook "
          "may have set them: close its tabs. Delete this site’s cookies, then open the notebook again from the hub’s "
          "page."),
    503: ("Service Unavailable", "The notebook does not answer",
          "It may be starting, stopping, or its computer may be unreachable. Try again in a moment, "
          "or look at the hub’s page."),
})
# fmt: on

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }
)

# `replace` of the whole address would only scroll, if that has a fragment; of the path alone it could lead to another
# site, if that begins with two slashes. A link decides how deep the path is, so 32 folders are looked at.
_COOKIES_SCRIPT: Final = """
const page = document.documentElement, key = "homeport-cookies-deleted", triedAgain = 10000;
const names = document.cookie.split("; ").map(cookie => cookie.includes("=") ? cookie.split("=", 1)[0] : "");
const folders = location.pathname.split("/").slice(1, 33).map((_, i, all) => "/" + all.slice(0, i + 1).join("/"));
const paths = new Set(["/", ...folders, ...folders.map(folder => folder + "/")]);
const labels = location.hostname.split(".");
const domains = ["", ...labels.map((_, i) => "; domain=" + labels.slice(i).join("."))];
const kinds = location.protocol === "https:" ? ["; secure", "; secure; partitioned"] : [""];
for (const name of new Set(names)) for (const path of paths) for (const domain of domains) for (const kind of kinds)
  document.cookie = name + "=x; max-age=0; path=" + path + domain + kind;
document.cookie;  // waits until the browser has deleted them
const before = Number(sessionStorage.getItem(key));
sessionStorage.setItem(key, Date.now());
if (Date.now() - before > triedAgain) {
  page.hidden = true;
  location.replace(location.origin + location.pathname + location.search);
}
"""

_HTML: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --paper: #f1f6f9; --ink: #10283c; --muted: #48606f; --sea: #1b6480; --line: #c8d7e1;
  --magenta: #b01570; --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #0a1620; --ink: #e4eef4; --muted: #a0b6c4; --sea: #7cc6e0; --line: #253c4b; --magenta: #ff86c3; }}
}}
html {{ background: var(--paper); color: var(--ink); font: 1.05rem/1.55 system-ui, sans-serif; }}
body {{ max-width: 34rem; margin: 0 auto; padding: 1.1rem 1.25rem 2rem; }}
header {{ display: flex; align-items: center; gap: .55rem; font: 600 1.3rem/1 var(--serif); }}
svg {{ width: 2rem; height: 2rem; fill: none; stroke: var(--sea); stroke-width: 3.2; stroke-linecap: round; }}
svg circle {{ fill: var(--magenta); stroke: none; }}
main {{ padding-top: 14vh; }}
h1 {{ font: 600 2rem/1.15 var(--serif); margin: 0 0 .9rem; }}
a {{ color: var(--sea); text-underline-offset: .18em; }}
small {{ display: block; margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted); }}
</style>
<header><svg viewBox="0 0 32 32" aria-hidden="true"><path d="M17.6 4.6a11.5 11.5 0 1 0 9.8 9.8"/>\
<circle cx="16" cy="16" r="4.2"/></svg>Homeport</header>
<main>
<h1>{title}</h1>
<p>{sentence}</p>
<p><a href="{hub}">Go to the hub</a></p>
<small>{status} {reason}</small>
</main>
{script}</html>
"""


def reason(status: int) -> str:
    """Return the reason phrase of the status line."""
    return PAGES[status][0]


def html(status: int, hub_url: str) -> bytes:
    """Render the page of `status`."""
    words, title, sentence = PAGES[status]
    page = _HTML.format(
        title=escape(title),
        sentence=escape(sentence),
        hub=escape(hub_url),
        status=status,
        reason=words,
        script=f"<script>{_COOKIES_SCRIPT}</script>\n" if status == 431 else "",
    )
    return page.encode()


def answer(status: int, hub_url: str) -> bytes:
    """Render a whole HTTP response, as HAProxy's `errorfile` wants it."""
    body = html(status, hub_url)
    fields = {**HEADERS, "Content-Length": str(len(body))}
    if status == 431:
        script = b64encode(sha256(_COOKIES_SCRIPT.encode()).digest()).decode()
        fields["Content-Security-Policy"] += f"; script-src 'sha256-{script}'"
    if status in (408, 429, 503):
        fields["Retry-After"] = "10" if status == 429 else "2"
    head = [f"HTTP/1.1 {status} {reason(status)}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
