"""The matrix as Markdown, for a README and for review in a diff."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compat.report import text
from compat.report.model import Cell, Configuration, Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@:])")


def escape(value: object, longest: int = 0) -> str:
    """Return text that Markdown shows as it stands, on one line, inside a table or not."""
    shown = text.one_line(value, longest)
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A colon is special only in a link scheme, but a bare address would become a link.
    return _SPECIAL.sub(lambda m: m[1] if m[1] in ":+()#!" else "\\" + m[1], shown).replace(
        "://", ":&#8203;//"
    )


def matrix_markdown(report: Report) -> str:
    """Return the matrix, its legend, what limits each cell, and every configuration."""
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
        "its best configuration on any machine; what limits it is said below.",
        "",
        *_table(
            ["", *(escape(name) for name in report.hardware)],
            (
                [f"**{escape(row)}**", *(_cell(report.cell(row, h)) for h in report.hardware)]
                for row in report.rows
            ),
        ),
        "",
        *_legend(report),
        "",
        "## Why",
        "",
    ]
    for cell in report.cells:
        parts += _why(cell)
    parts += ["", "## Configurations", "", *_configurations(report), ""]
    parts += ["## Machines", "", *_machines(report), ""]
    parts += _problems(report.problems)
    return "\n".join(parts).rstrip() + "\n"


def _cell(cell: Cell) -> str:
    best = cell.best
    key = text.appearance(best.rating if best else None)
    shown = f"{text.RATINGS[key][0]} {escape(cell.label)}"
    if best is None or key == "not-measured":
        return shown
    badges = text.badges(best.rating)
    extra = f"<br>*{escape(', '.join(badges))}*" if badges else ""
    return f"{shown}<br>{escape(text.detail(best))}{extra}"


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


def _why(cell: Cell) -> list[str]:
    if cell.best is None:
        return []
    name = f"{escape(cell.row)} on {escape(cell.hardware)}"
    lines = [f"- **{name}**: {escape(cell.sentence)}"]
    lines += [f"  - {escape(reason, 400)}" for reason in cell.best.why]
    others = [f"{one.name}: {one.rating.label}" for one in cell.configurations[1:]]
    if others:
        lines.append(f"  - others: {escape('; '.join(others))}")
    return lines


def _configurations(report: Report) -> list[str]:
    head = [
        "row",
        "configuration",
        "machine",
        "evidence",
        "rating",
        *(gate.name for gate in report.configurations[0].gates),
        "task metric",
        "its degradation",
        "SNR",
        "latency (median)",
        "RTF ≤",
        "peak memory",
        "model",
        "executed",
        "threads",
        "batch",
    ]
    return _table(head, (_configuration(one) for one in report.configurations))


def _configuration(one: Configuration) -> list[str]:
    f = one.figures
    return [
        escape(one.row),
        f"{escape(one.variant)}, {escape(one.target)} {escape(one.recipe)}",
        escape(one.machine_short),
        escape(one.evidence),
        f"{text.symbol(one.rating)} {escape(one.rating.label)}"
        + "".join(f" *{escape(badge)}*" for badge in text.badges(one.rating)),
        *(f"{text.STATE_SYMBOLS[gate.state]} {gate.state}" for gate in one.gates),
        escape(text.task_metric(one)),
        escape(text.quantity("degradation", f.degradation, f.metric, f.declared)),
        escape(text.quantity("snr_db", f.snr_db)),
        escape(text.latency(f)),
        escape(text.quantity("rtf", f.rtf_upper)),
        escape(text.quantity("bytes", f.peak_bytes)),
        escape(text.quantity("bytes", f.model_bytes)),
        escape(f.executed) or text.DASH,
        str(f.threads) if f.threads else text.DASH,
        str(f.batch) if f.batch else text.DASH,
    ]


def _machines(report: Report) -> list[str]:
    return [
        f"- **{escape(one.short)}**: "
        + escape("; ".join(f"{k} {text.quantity(k, v)}" for k, v in one.facts.items()), 600)
        + f" ({len(one.runs)} runs)"
        for one in report.machines
    ]


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
