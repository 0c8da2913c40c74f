"""Write a report in a few lines of Markdown, for the summary page of a CI run."""

from __future__ import annotations

from compat.report import text
from compat.report.markdown import escape
from compat.report.model import Cell, Report
from compat.report.reasons import sentence

FAILED = 20
"""Most failed checks that are named; the others are counted."""
_FAILURES = ("failed", "crashed", "timeout", "out-of-memory", "error", "unexpected-pass")


def step_summary(report: Report) -> str:
    """Return the matrix without its empty columns, and the failed checks, as Markdown.

    The length grows with the rows of the matrix, not with the observations, because GitHub takes at
    most 1 MiB for each step.
    """
    columns = [
        name for name in report.hardware if any(_ran(report.cell(row, name)) for row in report.rows)
    ]
    lines = ["## Compatibility matrix", ""]
    if not columns:
        return "\n".join([*lines, "Nothing ran.", ""])
    lines.append(f"| | {' | '.join(escape(name, 40) for name in columns)} |")
    lines.append(f"| --- |{' --- |' * len(columns)}")
    for row in report.rows:
        cells = (_cell(report.cell(row, name)) for name in columns)
        lines.append(f"| **{escape(row, 80)}** | {' | '.join(cells)} |")
    failed = [
        record
        for one in report.configurations
        for record in one.records
        if record.status in _FAILURES
    ]
    if failed:
        lines += ["", f"### {len(failed):,} checks failed", ""]
        for record in failed[:FAILED]:
            reason = sentence(record.status, record.reason, record.observation)
            said = f"{record.case.id} {record.check}: {record.status}. {reason}"
            lines.append(f"- {escape(said, 300)}")
        if len(failed) > FAILED:
            lines.append(f"- and {len(failed) - FAILED:,} more")
    lines += [f"- {escape(problem, 300)}" for problem in report.problems[:FAILED]]
    return "\n".join([*lines, ""])


def _ran(cell: Cell) -> bool:
    return cell.best is not None and text.appearance(cell.best.rating) != "not-measured"


def _cell(cell: Cell) -> str:
    best = cell.best
    if best is None or not _ran(cell):
        return text.DASH
    parts = [f"{text.symbol(best.rating)} {escape(cell.label, 60)}"]
    parts.append(f"{escape(best.target, 40)} {escape(best.recipe, 40)}")
    if best.figures.rtf is not None:
        parts.append(f"RTF {best.figures.rtf:.2g}")
    return "<br>".join(parts)
