"""Printing of text from files and libraries, cleaned so that it cannot steer a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

from compat.contract.untrusted import clean


def say(line: object) -> None:
    """Print a line with its control characters replaced: it may quote file names or results."""
    print(clean(line))


def warn(line: object) -> None:
    """Print a line on standard error, with its control characters replaced."""
    print(clean(line), file=sys.stderr)


def width() -> int:
    """Return the number of columns of the terminal, at least 40; 80 if it is not known."""
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
    """Print problems, such as files that could not be read, on standard error."""
    for problem in problems:
        warn(f"compat: {problem}")
