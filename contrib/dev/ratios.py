#!/usr/bin/env python3
"""Draw the tables of contrib/docs/performance.rst as contrib/docs/performance.svg.

Run it after changing a figure there; a test compares both.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.rst"
PICTURE = DOCS / "performance.svg"
ROW_PX = 20
LABELS_PX = 470
UNIT_PX = 170  # the width of a ratio of 1
WIDTH_PX = LABELS_PX + 2.4 * UNIT_PX + 100


@dataclass(frozen=True)
class Figure:
    """A row of a table.  `is_met` is about `target`, the least ratio if `is_least`, or the most."""

    what: str
    yardstick: str
    is_least: bool
    target: float
    ratio: float
    is_met: bool


def tables(page: str) -> Iterator[dict[str, str]]:
    """Yield each row of a page's simple tables as {heading: cell}."""
    table = r"^((?:=+ +)+=+)\n(.+)\n\1\n((?:.+\n)+?)\1$"
    for rule, headings, rows in re.findall(table, page, re.MULTILINE):
        columns = [slice(match.start(), match.end()) for match in re.finditer("=+", rule)]
        # The last column may be wider than its rule.
        columns[-1] = slice(columns[-1].start, None)
        names = [headings[column].strip() for column in columns]
        for row in rows.splitlines():
            yield dict(zip(names, (row[column].strip() for column in columns), strict=True))


def read(page: str) -> Iterator[Figure]:
    """Yield the rows of the tables that have targets."""
    for row in tables(page):
        if "target" in row:
            sign, target = row["target"].split()
            ratio, _, missed = row["ratio"].partition(" ")
            yield Figure(
                row["what"], row["yardstick"], sign == "≥", float(target), float(ratio), not missed
            )


def draw(figures: list[Figure]) -> str:
    """Return the figures as SVG: a bar for each ratio, a mark at its target."""
    height = ROW_PX * (len(figures) + 2)
    one = LABELS_PX + UNIT_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX:g} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<line x1="{one}" y1="{ROW_PX}" x2="{one}" y2="{height}" stroke="#999999"/>',
        f'<text x="{one}" y="14" text-anchor="middle" fill="#444444">1 = the yardstick</text>',
    ]
    for number, figure in enumerate(figures, start=1):
        top = ROW_PX * number + 4
        colour = "#2e7d32" if figure.is_met else "#c62828"
        target = LABELS_PX + figure.target * UNIT_PX
        label = html.escape(f"{figure.what} / {figure.yardstick}")
        sign = "≥" if figure.is_least else "≤"
        parts += [
            f'<text x="{LABELS_PX - 8}" y="{top + 11}" text-anchor="end" fill="#222222">{label}'
            "</text>",
            f'<rect x="{LABELS_PX}" y="{top}" width="{figure.ratio * UNIT_PX:g}" height="12" '
            f'fill="{colour}"/>',
            f'<rect x="{target - 1:g}" y="{top - 3}" width="2" height="18" fill="#000000"/>',
            f'<text x="{WIDTH_PX - 4:g}" y="{top + 11}" text-anchor="end" fill="#222222">'
            f"{figure.ratio:.2f} ({sign} {figure.target:g})</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(list(read(PAGE.read_text()))))
