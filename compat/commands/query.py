"""``compat query``: questions about results, in SQL."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compat.commands.command import Command
from compat.commands.printing import say, tell, told, width
from compat.commands.sources import add_sources, known_sources, local, source
from compat.contract.untrusted import clean, one_line
from compat.judge import results
from compat.judge.problems import Problems
from compat.report import build
from compat.report.markdown import escape
from compat.report.querying import ask, database, export, is_export
from compat.report.relation_rows import rows
from compat.report.relations import RELATIONS

LIMIT = 100
"""Most rows of a table, unless ``--limit`` gives another number."""


def query(arguments: argparse.Namespace) -> int:
    """Answer a query; without one print the tables that can be asked."""
    words = list(arguments.sources)
    sql = arguments.sql
    if not sql and not arguments.export:
        _describe()
        return 0
    if sql and arguments.export:
        # In `compat query --export DIR RESULTS` the first word is a source, not a query.
        words.insert(0, source(sql))
        sql = ""
    problems = Problems()
    with local(words or [*known_sources()], problems) as folders:
        exports = [folder for folder in folders if is_export(folder)]
        collection = results.read_all(
            (folder for folder in folders if folder not in exports), predictions=False
        )
        report = build(collection)
        tell([*report.problems, *problems.lines()])
        connection = database(rows(collection, report), exports)
    with connection:
        if arguments.export:
            for path in export(connection, arguments.export):
                say(path)
            return 0
        names, kinds, found = ask(connection, sql)
    _print(arguments.format, names, kinds, found, arguments.limit)
    return 0


def _describe() -> None:
    """Print every table with its columns."""
    for name, relation in RELATIONS.items():
        told(f"{name}: {relation.about}")
        columns = (f"{column} {kind}" for column, kind in relation.columns.items())
        told(", ".join(columns), "  ", "")
    say("\n" + COMMAND.epilog)


def _print(
    form: str, names: list[str], kinds: list[str], found: list[tuple[Any, ...]], limit: int
) -> None:
    if form == "json":
        rows_ = [
            {
                name: json.loads(value) if kind == "JSON" and value is not None else value
                for name, kind, value in zip(names, kinds, row, strict=True)
            }
            for row in found
        ]
        print(json.dumps(rows_, indent=2, default=str))
    elif form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(clean, names))
        writer.writerows([_cell(value) for value in row] for row in found)
        print(out.getvalue(), end="")
    elif form == "markdown":
        say(f"| {' | '.join(map(escape, names))} |")
        say(f"|{' --- |' * len(names)}")
        for row in found[: limit or None]:
            say(f"| {' | '.join(escape(_cell(value), 400) for value in row)} |")
    else:
        _table(names, found[: limit or None])
    if form in ("table", "markdown") and limit and len(found) > limit:
        say(f"\n{len(found):,} rows, of which {limit:,} are shown (--limit 0 shows all)")


def _cell(value: object) -> str:
    """Return a value as text: empty for a missing one, six significant digits of a float."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return clean(", ".join(map(str, value)))
    return clean(value)


def _table(names: Sequence[str], found: Sequence[tuple[Any, ...]]) -> None:
    """Print rows as a table, or cell under cell if the table would be wider than the terminal."""
    cells = [[one_line(_cell(value), 400) for value in row] for row in found]
    heads = [one_line(name) for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width():
        for row in (heads, *cells):
            line = "  ".join(f"{cell:{size}}" for cell, size in zip(row, widths, strict=True))
            print(line.rstrip())
        return
    label = max(map(len, heads))
    for number, row in enumerate(cells, 1):
        say(f"row {number}")
        for head, cell in zip(heads, row, strict=True):
            told(f"{head}: {cell}", "  ", " " * min(label, 8))


def _count(words: str) -> int:
    if not words.isdecimal():
        raise argparse.ArgumentTypeError(f"{words} is no number from 0 on")
    return int(words)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", nargs="?", default="", metavar="SQL", help="without it: the tables")
    add_sources(parser)
    parser.add_argument("--format", choices=("table", "csv", "json", "markdown"), default="table")
    parser.add_argument("--limit", type=_count, default=LIMIT, metavar="N", help="0: every row")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the tables as Parquet, which is read again where the folder is named",
    )


COMMAND = Command(
    "answer any question of results in SQL, by DuckDB",
    query,
    "examples:\n"
    "  compat query \"select target, recipe, rating, rtf from cells where matrix_row = 'Whisper' "
    'and best"\n'
    '  compat query "select * from runs order by started desc" s3://bucket/results --limit 10\n'
    '  compat query "select case_id, check_name, reason from observations where counts and '
    "status = 'failed'\" reports/results --format csv\n"
    "  compat query --export tables reports/results",
    _arguments,
)
