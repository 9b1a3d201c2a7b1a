"""The badge that a README's author puts over a link that launches, and the text to paste for it.

The drawing is in the style of shields.io's flat badges: https://github.com/badges/shields (badge-maker). It refers to
nothing outside of it, and looks the same in every font: each text is drawn as wide as it is reckoned to be in Verdana.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote

ALT: Final = "Launch on Homeport"
LABEL_LENGTH: Final = 60  # characters of each text
_PADDING: Final = 10  # pixels beside both texts, as the next two
_SIZE: Final = 11
_HEIGHT: Final = 20
_MESSAGE_COLOR: Final = "#0b5c73"
_OTHER_WIDTH: Final = 1000  # thousandths of the font's size, as of Verdana's letters below
_WIDTHS: Final = {
    letter: width
    for letters, width in {
        "il": 274, "j": 344, " f": 352, ".,": 364, "t": 394, "I": 421, "r": 427, "-/:": 454, "J": 455,
        "cs": 521, "z": 525, "L": 557, "F": 575, "kvxy": 592, "e": 596, "a": 601, "P": 603, "o": 607, "Y": 615,
        "T": 616, "bdgpq": 623, "E": 632, "hnu": 633, "0123456789_": 636, "ASV": 684, "XZ": 685, "B": 686,
        "K": 693, "R": 695, "C": 698, "U": 732, "N": 748, "H": 751, "D": 771, "G": 775, "OQ": 787, "w": 818,
        "M": 843, "m": 973, "W": 989,
    }.items()
    for letter in letters
}  # fmt: skip

_BADGE: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" aria-label="{title}">\
<title>{title}</title>\
<linearGradient id="s" x2="0" y2="100%"><stop offset="0" stop-color="#bbb" stop-opacity=".1"/>\
<stop offset="1" stop-opacity=".1"/></linearGradient>\
<clipPath id="r"><rect width="{width}" height="{height}" rx="3" fill="#fff"/></clipPath>\
<g clip-path="url(#r)"><rect width="{split}" height="{height}" fill="#555"/>\
<rect x="{split}" width="{rest}" height="{height}" fill="{color}"/>\
<rect width="{width}" height="{height}" fill="url(#s)"/></g>\
<g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="{size}" \
text-rendering="geometricPrecision">{label}{message}</g></svg>
"""
_TEXT: Final = """\
<text aria-hidden="true" x="{x}" y="15" fill="#010101" fill-opacity=".3" textLength="{length}">{text}</text>\
<text x="{x}" y="14" textLength="{length}">{text}</text>"""


@dataclass(frozen=True, slots=True)
class Snippets:
    """A badge with a link, in three languages."""

    markdown: str
    html: str
    rst: str


def badge_svg(label: str = "launch", message: str = "homeport") -> str:
    """Draw a badge; raises ValueError for a text that is too long."""
    if max(len(label), len(message)) > LABEL_LENGTH:
        raise ValueError(f"a badge's texts have at most {LABEL_LENGTH} characters")
    split, rest = _width(label) + _PADDING, _width(message) + _PADDING
    return _BADGE.format(
        width=split + rest,
        split=split,
        rest=rest,
        height=_HEIGHT,
        size=_SIZE,
        color=_MESSAGE_COLOR,
        title=escape(f"{label}: {message}"),
        label=_text(label, split / 2),
        message=_text(message, split + rest / 2),
    )


def snippets(launch_url: str, badge_url: str) -> Snippets:
    """Write what an author pastes; raises ValueError for an address that is no web address."""
    launch, badge = _plain(launch_url), _plain(badge_url)
    return Snippets(
        markdown=f"[![{ALT}]({badge})]({launch})",
        html=f'<a href="{escape(launch)}"><img src="{escape(badge)}" alt="{ALT}"></a>',
        rst=f".. image:: {badge}\n   :target: {launch}\n   :alt: {ALT}\n",
    )


def _text(text: str, x: float) -> str:
    return _TEXT.format(x=x, length=_width(text), text=escape(text))


def _width(text: str) -> int:
    """Pixels of a text in Verdana, rounded up."""
    return -(-sum(_WIDTHS.get(letter, _OTHER_WIDTH) for letter in text) * _SIZE // 1000)


def _plain(address: str) -> str:
    """A web address in which nothing means something to Markdown, HTML or reStructuredText but `&`."""
    if not address.startswith(("https://", "http://")):
        raise ValueError("a link must begin with https:// or http://")
    encoded = quote(address, safe="%/:?#&=,;.@+~-_", errors="replace")
    return encoded.removesuffix("_") + "%5F" if encoded.endswith("_") else encoded  # a name of reStructuredText's
