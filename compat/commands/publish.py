"""``compat publish``: own results copied to the folder of evidence."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say, warn
from compat.commands.sources import LOCAL, PUBLISHED, add_sources
from compat.contract.errors import CompatError
from compat.contract.places import ROOT
from compat.report.publish import publish as put

TABLES = ROOT / "docs" / "build" / "tables.py"
"""Script that writes the tables of the documents; a wheel has neither documents nor this file."""

REJECTED = 20
"""Number of rejected files that are named one by one; the others are counted."""


def publish(arguments: argparse.Namespace) -> int:
    """Copy own results to the folder of evidence."""
    sources = list(arguments.sources) or [LOCAL / "results"]
    if any(not isinstance(one, Path) for one in sources):
        raise CompatError("only results on this disk are published.", "Copy them here first.")
    outcome = put(sources, arguments.output, arguments.own, arguments.dry_run)
    would = "would be " if arguments.dry_run else ""
    for path in outcome.packed:
        say(f"{would}compressed {os.path.relpath(path)}")
    for path in outcome.published:
        done = f"{would}published" if path in outcome.added else "unchanged"
        say(f"{done} {os.path.relpath(path)}")
    for path in outcome.superseded:
        if path in outcome.archived:
            place = os.path.relpath(outcome.archived[path])
            say(f"{would}superseded {os.path.relpath(path)}: {would}kept in {place}")
        else:
            say(f"left out {path.name}: none of its observations counts beside what is published")
    for reason in outcome.rejected[:REJECTED]:
        warn(f"rejected {reason}")
    if len(outcome.rejected) > REJECTED:
        warn(f"and {len(outcome.rejected) - REJECTED:,} more rejected")
    for change in outcome.cells:
        say(f"cell {change}")
    say(
        "dry run: nothing was changed"
        if arguments.dry_run
        else f"matrix: {os.path.relpath(outcome.matrix)}"
    )
    if not arguments.dry_run and TABLES.is_file() and _is_of_checkout(arguments.output):
        _write_tables()
    return 3 if outcome.rejected else 0


def _is_of_checkout(reports: Path) -> bool:
    """Return whether this checkout's documents are made from a folder of reports."""
    return reports.resolve() == ROOT / "reports"


def _write_tables() -> None:
    """Write the tables of the documents again; the script prints which documents it wrote."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(TABLES)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    if done.returncode:
        warn("the documents' tables are not written: run `python docs/build/tables.py`")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument("--output", type=Path, default=PUBLISHED, metavar="DIR")
    parser.add_argument(
        "--own", action="store_true", help="also results on an own corpus, checkpoint or thresholds"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and change nothing"
    )


COMMAND = Command(
    "put own results under reports/, to be committed",
    publish,
    "example:\n  compat publish reports/local/results --dry-run",
    _arguments,
)
