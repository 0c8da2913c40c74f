"""Show the matrix in a terminal; it is readable by words and symbols, without colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compat.report import text
from compat.report.model import Cell, Configuration, Record, Report

_STYLES = {
    "high": "bold green",
    "medium": "bold blue",
    "limited": "bold yellow",
    "none": "bold red",
    "unsupported": "bold red",
    "incomplete": "magenta",
    "emulated": "cyan",
    "converted": "cyan",
    "stale": "yellow",
    "not-measured": "dim",
}
PENDING = "…"
"""Symbol of a check that the current run has not measured yet."""
COLUMN = 16
"""Characters that a column of the matrix needs for its full words."""
NARROW = 10
"""Characters of a column where there is less room, with shorter words."""
_KINDS = {
    "accelerator": "device",
    "processor": "processor",
    "emulator": "emulator",
    "conversion": "conversion",
}
"""Maps each kind of evidence to a word that fits a narrow column."""
REASONS = 2
"""Most reasons that are printed of a configuration; its page and `compat show` have all."""
_SHORTER = {
    "Not measured": "",
    "Converted": "Convert.",
    "Incomplete": "Incompl.",
    "None (unsupported)": "Unsupp.",
}
"""Maps labels of ratings that a narrow column cannot hold to shorter ones."""


def print_matrix(report: Report, console: Console, pending: bool = False) -> None:
    """Print the matrix, the reasons that limit each cell, and the problems of results files.

    ``pending`` is true while a run goes on: then only the matrix and the number of checks to come
    are printed.
    """
    shown = unfinished(report, console.width) if pending else terminal(report, console.width)
    console.print(shown)


def terminal(report: Report, width: int) -> RenderableType:
    """Return the report as a rich renderable, for a terminal of ``width`` characters."""
    parts: list[RenderableType] = []
    if not report.rows:
        parts.append(Text("No results yet. Run pytest -m cpu to measure this machine."))
    measured = [hardware for hardware in report.hardware if _measured(report, hardware)]
    if measured and width >= COLUMN * (1 + len(measured)):
        parts += [_matrix(report, measured)]
    elif measured:
        parts += _narrow(report, measured, width)
    absent = [text.one_line(name) for name in report.hardware if name not in measured]
    if measured and absent:
        parts.append(Text(f"Not measured: {', '.join(absent)}", style="dim"))
    if measured and not any(one.kind == "accelerator" for one in report.configurations):
        parts.append(Text("No accelerator ran anything here."))
    parts.append(Text())
    for row in report.rows:
        parts += _row(report, row, width)
    for machine in report.machines:
        parts.append(Text(text.one_line(machine.name), style="dim"))
    for problem in report.problems:
        parts.append(Text(f"! {text.one_line(problem)}", style="yellow"))
    return Group(*parts)


def unfinished(report: Report, width: int) -> RenderableType:
    """Return the matrix of a run that is not finished, as a rich renderable.

    Checks that are still to come are *pending*, not unknown. Reasons are printed at the end of the
    run only.
    """
    columns = [
        hardware
        for hardware in report.hardware
        if _measured(report, hardware)
        or any(_is_pending(report.cell(row, hardware).best) for row in report.rows)
    ]
    shown: RenderableType
    if width >= COLUMN * (1 + len(columns)):
        shown = _matrix(report, columns, pending=True)
    else:
        shown = Table.grid(padding=(0, 2))
        for row in report.rows:
            shown.add_row(Text(text.one_line(row), style="bold"))
            for hardware in columns:
                label = _label(report.cell(row, hardware).best, pending=True)
                shown.add_row(Text(f"  {text.one_line(hardware)}"), label)
    records = [record for one in report.configurations for record in one.records]
    left = sum(_is_left(record) for record in records)
    said = f"{PENDING} {left} of {len(records)} checks are pending."
    return Group(shown, Text(said, style="dim"))


def _is_left(record: Record) -> bool:
    """Whether a check was planned and has not ended."""
    return record.status in ("not-run", "cut-off")


def _is_pending(one: Configuration | None) -> bool:
    """Whether checks that were planned may still decide the rating of a configuration."""
    if one is None or one.rating.kind not in ("incomplete", "not-measured", "stale"):
        return False
    return any(map(_is_left, one.records))


def _measured(report: Report, hardware: str) -> bool:
    """Whether any row was measured on some hardware; other columns are listed, not drawn."""
    cells = [report.cell(row, hardware) for row in report.rows]
    ratings = [cell.best.rating for cell in cells if cell.best]
    return any(text.appearance(rating) != "not-measured" for rating in ratings)


def _matrix(report: Report, columns: Sequence[str], pending: bool = False) -> Table:
    """Return the matrix as one table, rows by hardware.

    All cells are ``Text`` objects, so that rich interprets no markup in them.
    """
    table = Table(
        title=Text("Compatibility matrix", style="bold"), title_justify="left", show_lines=True
    )
    table.add_column(Text(""), style="bold")
    for name in columns:
        head = Text(text.one_line(name, 14))
        if not pending:
            head.append(f"\n{_evidence(report, name)}", style="not bold dim")
        table.add_column(head)
    for row in report.rows:
        cells = [_cell(report.cell(row, hardware), pending) for hardware in columns]
        table.add_row(Text(text.one_line(row)), *cells)
    return table


def _narrow(report: Report, columns: Sequence[str], width: int) -> list[RenderableType]:
    """Return the matrix without lines, in as many tables as its columns need."""
    words = [text.one_line(word, 16) for row in report.rows for word in row.split()]
    label = max(map(len, words), default=0)
    fitting = max(1, (width - label) // (NARROW + 1))
    parts: list[RenderableType] = [Text("Compatibility matrix", style="bold")]
    for start in range(0, len(columns), fitting):
        some = columns[start : start + fitting]
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column(Text(""), style="bold", width=label)
        for name in some:
            head = Text(text.one_line(name, NARROW))
            head.append(f"\n{_evidence(report, name)}", style="not bold dim")
            table.add_column(head, width=NARROW, overflow="fold")
        for row in report.rows:
            table.add_row(Text(text.one_line(row)), *(_small(report.cell(row, h)) for h in some))
        parts.append(table)
    return parts


def _evidence(report: Report, hardware: str) -> str:
    """Return the kind of evidence of a column in one word."""
    shown = (report.cell(row, hardware).best for row in report.rows)
    kinds = {one.kind for one in shown if one and one.kind != "nothing"}
    return _KINDS[kinds.pop()] if len(kinds) == 1 else "mixed"


def _small(cell: Cell) -> Text:
    """Return a cell of a narrow column: rating, recipe, real-time factor."""
    best = cell.best
    head, note = text.head_and_note(best.rating if best else None)
    word = _SHORTER.get(cell.label) or _SHORTER.get(head, head)
    if note == "failed":
        word = "Failed"  # Only labels of emulations and conversions have this note.
    style = _STYLES[text.appearance(best.rating if best else None)]
    shown = Text(f"{text.symbol(best.rating if best else None)} {word}".strip()[:NARROW], style)
    if best is not None and text.appearance(best.rating) != "not-measured":
        _add_details(shown, best, NARROW)
    shown.append("\n")
    return shown


def _add_details(shown: Text, best: Configuration, longest: int) -> None:
    shown.append(f"\n{text.one_line(best.recipe, longest)}", style="not bold dim")
    if best.figures.rtf is not None:
        shown.append(f"\nRTF {best.figures.rtf:.2g}", style="not bold dim")


def _cell(cell: Cell, pending: bool) -> Text:
    shown = _label(cell.best, pending)
    if cell.best is not None and text.appearance(cell.best.rating) != "not-measured":
        _add_details(shown, cell.best, 0)
    return shown


def _label(one: Configuration | None, pending: bool = False) -> Text:
    rating = one.rating if one else None
    if pending and rating and _is_pending(one):
        known = rating.kind == "incomplete"
        words = f"Pending: {rating.floor} to {rating.ceiling}" if known else "Pending"
        return Text(f"{PENDING} {words}", style="dim")
    words = rating.label if rating else "Not measured"
    return Text(f"{text.symbol(rating)} {words}", style=_STYLES[text.appearance(rating)])


def _row(report: Report, row: str, width: int) -> list[RenderableType]:
    """Return one row of the matrix as a list: the best configuration of each hardware, and why."""
    parts: list[RenderableType] = [Text(text.one_line(row), style="bold underline")]
    absent: list[str] = []
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for hardware in report.hardware:
        cell = report.cell(row, hardware)
        if cell.best is None:
            if _measured(report, hardware):  # Empty columns are named once, under the matrix.
                absent.append(text.one_line(hardware))
            continue
        detail = _label(cell.best)
        best = cell.best
        named = f"{best.variant}, {best.target} {best.recipe} ({best.machine_short})"
        detail.append(f"  {text.one_line(named)}", style="not bold default")
        for badge in text.badges(cell.best.rating):
            detail.append(f" [{badge}]", style="not bold italic")
        why = cell.best.why
        said = [text.one_line(reason, 2 * max(40, width - 16)) for reason in why[:REASONS]]
        if len(why) > REASONS:
            said.append(f"and {len(why) - REASONS} more reasons")
        reasons = [Padding(Text(reason, style="dim"), (0, 0, 0, 2)) for reason in said]
        table.add_row(Text(f"  {text.one_line(hardware)}"), Group(detail, *reasons))
    if table.row_count:
        parts.append(table)
    if absent:
        parts.append(Text(f"  {text.DASH} Not measured: {', '.join(absent)}", style="dim"))
    parts.append(Text())
    return parts
