"""The compatibility matrix of the published results as an SVG, for README."""

from __future__ import annotations

from html import escape

from compat.report import evidence, shown, text
from compat.report.badges import COLOURS
from compat.report.matrix import matrix
from compat.report.model import Cell, Report

LEFT, WIDTH, HEIGHT, HEAD = 180, 200, 62, 58
"""Sizes in pixels: width of the column with the rows' names, width of the other columns, height of
a row, height of the heading."""
_FONT = "Verdana,DejaVu Sans,sans-serif"


def picture(report: Report) -> str:
    """Return the matrix as SVG text: a coloured field per cell, with rating, place and speed."""
    found = matrix(report)
    kinds = {name: kind for kind, names in found.groups for name in names}
    width = LEFT + WIDTH * len(kinds)
    height = HEAD + HEIGHT * len(report.rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="{_FONT}" font-size="12">',
        f"<title>{escape(_title(report))}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for column, (name, kind) in enumerate(kinds.items()):
        middle = LEFT + column * WIDTH + WIDTH / 2
        parts += [
            _text(middle, 24, name, "middle", "#1f2328", bold=True),
            _text(middle, 43, evidence.KINDS[kind][1], "middle", "#57606a"),
        ]
    for number, row in enumerate(report.rows):
        top = HEAD + number * HEIGHT
        parts.append(_text(12, top + HEIGHT / 2 + 4, row, "start", "#1f2328", bold=True))
        for column, name in enumerate(kinds):
            parts.append(_cell(report.cell(row, name), LEFT + column * WIDTH, top))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _title(report: Report) -> str:
    said = [
        f"{cell.row} on {cell.hardware}: {cell.label}"
        for cell in report.cells
        if cell.best and cell.best.kind != "nothing"
    ]
    return "Compatibility matrix. " + "; ".join(said)


def _cell(cell: Cell, left: float, top: float) -> str:
    best = cell.best
    rating = best.rating if best else None
    colour = COLOURS[text.appearance(rating)]
    lines = [f"{text.symbol(rating)} {cell.label}"]
    if best is not None and best.kind != "nothing":
        lines += [shown.place(best), shown.speed(best) or shown.day(best.measured[1])]
    middle = left + WIDTH / 2
    first = top + HEIGHT / 2 + 4 - 8 * (len(lines) - 1)
    return "".join(
        [
            f'<rect x="{left + 2}" y="{top + 2}" width="{WIDTH - 4}" height="{HEIGHT - 4}" rx="5" '
            f'fill="{colour}"/>',
            *(
                _text(middle, first + 16 * number, line, "middle", "#fff", bold=number == 0)
                for number, line in enumerate(lines)
            ),
        ]
    )


def _text(x: float, y: float, words: str, anchor: str, fill: str, bold: bool = False) -> str:
    """Return a line of text as SVG. Text that is too long for a cell is made narrower."""
    narrow = f' textLength="{WIDTH - 14}" lengthAdjust="spacingAndGlyphs"' * (len(words) > 27)
    weight = ' font-weight="bold"' * bold
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{fill}" text-anchor="{anchor}"{weight}{narrow}>'
        f"{escape(words)}</text>"
    )
