"""Write the matrix as Markdown, for a README and for review in a diff."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compat.report import evidence, shown, text
from compat.report.matrix import matrix, summary
from compat.report.model import Cell, Report

MOST_OF_A_REASON = 400
"""Most characters of the line of reasons that each cell has."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@:])")


def escape(value: object, longest: int = 0) -> str:
    """Escape text so that Markdown shows it as it stands, on one line, also inside a table."""
    shown = text.one_line(value, longest)
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Only `://` needs a break, or a bare address would become a link; other colons stay.
    return _SPECIAL.sub(lambda m: m[1] if m[1] in ":+()#!" else "\\" + m[1], shown).replace(
        "://", ":&#8203;//"
    )


def matrix_markdown(report: Report, published: bool = False) -> str:
    """Return the matrix, its legend, and one line of reasons for every cell that ran.

    ``published`` is true for the file beside the published results; it links results and documents.
    """
    parts = ["# Compatibility matrix", ""]
    if not report.rows:
        parts += [
            "No results yet. Run `pytest -m cpu` to measure this machine, then `compat report`.",
            "",
            *_problems(report.problems),
        ]
        return "\n".join(parts)
    parts += [
        f"Rating rule {report.rule_version}; newest run {escape(report.newest)}. Each cell shows "
        "its best configuration on any machine: its rating, what ran, how many times faster than "
        "the audio lasts (RTFx), and the day of the measurement.",
        "",
        *([_LINKS, ""] if published else []),
        *(f"- {escape(line)}" for _, line in summary(report)),
        "",
        *table(report),
        "",
        *_legend(report),
        "",
        "## Why",
        "",
        *(_why(cell) for cell in report.cells if cell.best and cell.best.kind != "nothing"),
        "",
        "## Machines",
        "",
        *_machines(report, published),
        "",
        *_problems(report.problems),
    ]
    return "\n".join(parts).rstrip() + "\n"


_LINKS = (
    "[How a rating comes about](../docs/rating.md), [how a case is measured](../docs/methods.md), "
    "[what the words mean](../docs/glossary.md), [the site of these results](../docs/site.md)."
)


def table(report: Report, linked: bool = False) -> list[str]:
    """Return the matrix as the lines of a table, and a line that names the empty columns.

    With ``linked`` each cell links its page, for a table that lies in the site's folder.
    """
    shown_columns = matrix(report)
    head = [
        f"{escape(name)}<br>*{evidence.KINDS[kind][1]}*"
        for kind, names in shown_columns.groups
        for name in names
    ]
    lines = _table(
        ["", *head],
        (
            [
                f"**{escape(row)}**",
                *(_cell(report.cell(row, column), linked) for column in shown_columns.columns),
            ]
            for row in report.rows
        ),
    )
    if shown_columns.empty:
        lines += ["", f"Nothing ran on {escape(', '.join(shown_columns.empty))}."]
    return lines


def _cell(cell: Cell, linked: bool) -> str:
    best = cell.best
    key = text.appearance(best.rating if best else None)
    said = f"{text.RATINGS[key][0]} {escape(cell.label)}"
    if linked:
        said = f"[{said}](cells/{cell.slug}.html)"
    if best is None or best.kind == "nothing":
        return said
    numbers = [shown.place(best), shown.speed(best), shown.day(best.measured[1])]
    badges = ", ".join(text.badges(best.rating))
    extra = f"<br>*{escape(badges)}*" if badges else ""
    return "<br>".join((said, *(escape(part) for part in numbers if part))) + extra


def _legend(report: Report) -> list[str]:
    shown = {text.appearance(cell.best.rating if cell.best else None) for cell in report.cells}
    lines = [
        f"- {symbol} **{name}**: {meaning}"
        for key, (symbol, name, meaning) in text.RATINGS.items()
        if key in shown
    ]
    used = {badge for one in report.configurations for badge in one.rating.badges}
    lines += [f"- *{badge}*: {meaning}" for badge, meaning in text.BADGES.items() if badge in used]
    return lines


def _why(cell: Cell) -> str:
    """Return one line about a cell: its rating, what limits it, and its numbers."""
    best = cell.best
    assert best is not None
    numbers = (shown.speed(best), shown.metric(best), shown.memory(best))
    reason = shown.limits(best) or "every gate that applies is strict"
    said = [f"{cell.label}, {shown.place(best)} {shown.ran_on(best)}", reason]
    said += [", ".join(part for part in numbers if part)]
    name = f"{escape(cell.row)} on {escape(cell.hardware)}"
    return f"- **{name}**: {escape('; '.join(part for part in said if part), MOST_OF_A_REASON)}"


def _machines(report: Report, published: bool) -> list[str]:
    lines = []
    for one in report.machines:
        count = f"{len(one.runs)} run{'s' if len(one.runs) > 1 else ''}"
        if published:
            count = f"[{count}](results/{text.page_name(one.id)})"
        newest = escape(shown.day(one.runs[0].started) or one.runs[0].started, 60)
        lines.append(f"- **{escape(one.name)}**: {count}, the newest {newest}")
    return lines


def _problems(problems: Sequence[str]) -> list[str]:
    if not problems:
        return []
    return ["## Problems", "", *(f"- {escape(problem, 600)}" for problem in problems), ""]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join(' --- ' for _ in head)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
