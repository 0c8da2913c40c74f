"""Printing: nothing that comes from a file or a library steers a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

from compat.contract.untrusted import clean


def say(line: object) -> None:
    """Print a line that may hold names of files or words of results, control characters escaped."""
    print(clean(line))


def warn(line: object) -> None:
    """Print such a line on standard error."""
    print(clean(line), file=sys.stderr)


def width() -> int:
    """Return how many columns a terminal has, or 80 where none is told."""
    return max(40, shutil.get_terminal_size().columns)


def told(line: object, indent: str = "", hang: str = "  ") -> None:
    """Print a sentence in the width of the terminal; lines after the first hang further in."""
    print(
        textwrap.fill(
            " ".join(clean(line).split()),
            width(),
            initial_indent=indent,
            subsequent_indent=indent + hang,
            break_on_hyphens=False,
        )
    )


def tell(problems: Sequence[str]) -> None:
    """Say on standard error what could not be read."""
    for problem in problems:
        warn(f"compat: {problem}")
