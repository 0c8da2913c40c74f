"""Merge results files, rate them, render them.

Importing this package loads no template engine, plotting library or terminal library: each is
imported by the function that needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compat.report.changes import with_changes
from compat.report.claims import ledger as with_claims
from compat.report.merge import build
from compat.report.model import Cell, Configuration, Report

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Cell",
    "Configuration",
    "Report",
    "build",
    "matrix_markdown",
    "print_matrix",
    "with_changes",
    "with_claims",
    "write_site",
]


def write_site(report: Report, folder: Path) -> Path:
    """Render the static site into ``folder`` and return its index page.

    Raises:
        CompatError: the folder exists and is no site, or cannot be written.
    """
    from compat.report.site import write_site as write

    return write(report, folder)


def matrix_markdown(report: Report) -> str:
    """Return the matrix as Markdown for a README."""
    from compat.report.markdown import matrix_markdown as render

    return render(report)


def print_matrix(report: Report, console: Console, pending: bool = False) -> None:
    """Print the matrix to a terminal; readable at 80 columns and without colour.

    ``pending`` is true while a run goes on. Then the matrix is printed without reasons, and checks
    that are still to come are shown as pending.
    """
    from compat.report.terminal import print_matrix as show

    show(report, console, pending)
