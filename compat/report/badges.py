"""One small SVG for each cell of the matrix, to be shown in another project's README."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from compat.report import text
from compat.report.model import Cell

if TYPE_CHECKING:
    from markupsafe import Markup

COLOURS = {
    "high": "#1a7f37",
    "medium": "#0a5cc2",
    "limited": "#8a5a00",
    "none": "#b42318",
    "unsupported": "#6e2c2c",
    "incomplete": "#6e40b5",
    "emulated": "#0b6e75",
    "converted": "#0b6e75",
    "stale": "#6b5d3a",
    "not-measured": "#5b6470",
}
"""Backgrounds on which white text has a contrast of at least 4.5 to 1."""

_CHARACTER_WIDTH = 6.7
"""Pixels of an average character of the 11-pixel font."""


def inline(cell: Cell) -> Markup:
    """Return the badge as markup for an HTML page, which needs no XML namespace."""
    from markupsafe import Markup

    svg = badge(cell).replace(' xmlns="http://www.w3.org/2000/svg"', "")
    return Markup(svg)  # noqa: S704 (its texts are escaped)


def badge(cell: Cell) -> str:
    """Return the SVG of one cell: its name, the symbol and the rating in words."""
    rating = cell.best.rating if cell.best else None
    name = text.one_line(f"{cell.row} · {cell.hardware}", 60)
    words = f"{text.symbol(rating)} {cell.label}"
    if shown := text.badges(rating):
        words += f" ({', '.join(shown)})"
    left, right = (int(len(one) * _CHARACTER_WIDTH) + 14 for one in (name, words))
    title = escape(f"{name}: {words}", quote=True)
    colour = COLOURS[text.appearance(rating)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" '
        f'role="img" aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="4"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#30363d"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" text-anchor="middle" '
        'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2}" y="14" textLength="{left - 14}">{escape(name)}</text>'
        f'<text x="{left + right / 2}" y="14" textLength="{right - 14}">{escape(words)}</text>'
        "</g></svg>\n"
    )
