"""``compat report``: the matrix and the site of results."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say, tell
from compat.commands.sources import (
    LOCAL,
    add_sources,
    collect,
    rated,
    write_report,
    write_step_summary,
)
from compat.judge.problems import ResultsError
from compat.report import matrix_markdown, print_matrix


def report(arguments: argparse.Namespace) -> int:
    """Render results as a matrix and a site; without results an earlier site stays as it is."""
    from rich.console import Console

    shown = rated(arguments.sources or [LOCAL / "results"], collect(arguments.sources))
    if not shown.rows:
        tell(shown.problems)
        where = ", ".join(map(str, arguments.sources or [LOCAL / "results"]))
        raise ResultsError(
            f"no results in {where} can be reported, so no site is written. "
            + (
                "Mend what is named above, or measure again with `compat matrix` or `pytest`."
                if shown.problems
                else "Run `compat matrix` or `pytest` first, or name another folder."
            )
        )
    print_matrix(shown, Console())
    write_step_summary(shown)
    if arguments.junit:
        from compat.report.junit import junit

        arguments.junit.write_text(junit(shown), encoding="utf-8")
    if not arguments.no_site:
        write_report(shown, arguments.output)
        matrix_file = arguments.output / "MATRIX.md"
        matrix_file.write_text(matrix_markdown(shown), encoding="utf-8")
        say(f"matrix: {os.path.relpath(matrix_file)}")
    if arguments.junit:
        say(f"junit: {os.path.relpath(arguments.junit)}")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument("--output", type=Path, default=LOCAL / "site", metavar="DIR")
    parser.add_argument("--no-site", action="store_true", help="print the matrix only")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit's XML")


COMMAND = Command(
    "make the matrix and the site of results",
    report,
    "examples:\n  compat report reports/results --output site\n"
    "  compat report artifacts --no-site --junit junit.xml",
    _arguments,
)
