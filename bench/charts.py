"""Bar charts as SVG, legible on light and on dark pages, without a library."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 760
LEFT, RIGHT, TOP, STEP = 250, 90, 34, 28  # pixels: the names' column, the figures', the title's line, a bar's line
STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; } .tick { fill: #59636e; font-size: 11px; text-anchor: middle; }
.name { text-anchor: end; } .grid { stroke: #d1d9e0; } .spread { stroke: #1f2328; }
.bar { fill: #8c959f; } .ours { fill: #1f6feb; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .tick { fill: #9198a1; } .grid { stroke: #3d444d; } .spread { stroke: #f0f6fc; }
.bar { fill: #6e7681; } .ours { fill: #4493f8; } }
"""


def ticks(most: float) -> list[float]:
    """Give at most six round figures from 0 on, the last of them at least `most`, which is above 0."""
    size = 10.0 ** math.floor(math.log10(most / 5))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor * 5 >= most)
    return [step * number for number in range(math.ceil(most / step) + 1)]


def bars(title: str, unit: str, rows: Mapping[str, Sequence[float]]) -> str:
    """Draw each row's median as a bar, and its least and greatest value as a line; Homeport's own stand out."""
    marks = ticks(max(max(values) for values in rows.values()))
    scale = (WIDTH - LEFT - RIGHT) / marks[-1]
    bottom = TOP + STEP * len(rows) + 4
    drawn = [f'<text class="title" x="4" y="20">{escape(title)} ({escape(unit)})</text>']
    for mark in marks:
        x = LEFT + scale * mark
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{bottom}"/>')
        drawn.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}">{mark:,g}</text>')
    for number, (name, values) in enumerate(rows.items()):
        y, median = TOP + STEP * number, statistics.median(values)
        least, most = LEFT + scale * min(values), LEFT + scale * max(values)
        ours = " ours" if name.startswith("Homeport") else ""
        drawn += [
            f'<text class="name" x="{LEFT - 8}" y="{y + 15}">{escape(name)}</text>',
            f'<rect class="bar{ours}" x="{LEFT}" y="{y + 2}" width="{scale * median:.1f}" height="{STEP - 10}"/>',
            f'<line class="spread" x1="{least:.1f}" x2="{most:.1f}" y1="{y + 11}" y2="{y + 11}"/>',
            f'<text x="{most + 8:.1f}" y="{y + 15}">{figure(median)}</text>',
        ]
    size = f'width="{WIDTH}" height="{bottom + 24}" viewBox="0 0 {WIDTH} {bottom + 24}"'
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def figure(value: float) -> str:
    """Write a figure with three digits, or as a whole number."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"
