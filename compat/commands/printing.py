"""Printing: nothing that comes from a file or a library steers a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from compat.contract.untrusted import clean


def say(line: object) -> None:
    """Print a line that may hold names of files or words of results, control characters escaped."""
    print(clean(line))


def warn(line: object) -> None:
    """Print such a line on standard error."""
    print(clean(line), file=sys.stderr)


def tell(problems: Sequence[str]) -> None:
    """Say on standard error what could not be read."""
    for problem in problems:
        warn(f"compat: {problem}")
