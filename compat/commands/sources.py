"""Results that commands read, and the site that they write."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from compat.commands.printing import say
from compat.judge import results
from compat.judge.results import Collection, ResultsError
from compat.report import Report, write_site

LOCAL = Path("reports/local")
"""Folder of this machine's results, and of what is made of them."""
PUBLISHED = Path("reports")
"""Folder of results that are kept as evidence."""


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments ``sources``: any number of results files and folders."""
    parser.add_argument(
        "sources",
        nargs="*",
        type=Path,
        help=f"results files or folders (default: {LOCAL / 'results'})",
    )


def collect(sources: Sequence[Path]) -> Collection:
    """Read results; the caller tells what could not be read.

    Raises:
        ResultsError: a source does not exist.
    """
    folders = list(sources) or [LOCAL / "results"]
    for folder in folders:
        if not os.path.lexists(folder):
            raise ResultsError(
                f"no results in {folder}",
                "run `compat matrix` or `pytest` first, or name a folder.",
            )
    return results.read_all(folders)


def collect_known(sources: Sequence[Path]) -> Collection:
    """Read results; where none are named, those of this machine and those that are published.

    Raises:
        ResultsError: a source does not exist, or none is named and there are none.
    """
    known = [path for path in (LOCAL / "results", PUBLISHED / "results") if path.exists()]
    return collect(list(sources) or known)


def write_report(report: Report, folder: Path) -> None:
    """Write the site of a report, and print where it is."""
    index = write_site(report, folder)
    say(f"site: {os.path.relpath(index)}")
