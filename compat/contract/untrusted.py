"""Untrusted values made safe: text to show, and numbers to compute with.

Results files, file names, and messages of runtimes come from anywhere. An escape sequence must not
reach a terminal, and a number that is finite but huge must not overflow the arithmetic of a report.
"""

from __future__ import annotations

import math
import unicodedata

LARGEST = 1e100
"""Numbers beyond this are shown as they were written, and never computed with.

No measurement comes near: the square of float32's largest number is 1e77. Products and sums of
such numbers stay far below what a float64 holds.
"""


def clean(value: object) -> str:
    """Return text without control and direction-changing characters.

    Direction-changing ones, such as a right-to-left override, could turn a name around on a page.
    """
    text = str(value)
    # Printable characters are in none of the categories below.
    if text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co")
        else "\ufffd"
        for character in text
    )


def one_line(value: object, longest: int = 0) -> str:
    """Return cleaned text on one line, cut at ``longest`` characters where that is positive."""
    text = " ".join(clean(value).split())
    return text[: longest - 1] + "…" if 0 < longest < len(text) else text


def number(value: object) -> float | None:
    """Return a number that can be computed with, or None for anything else.

    Such a number is finite, and its magnitude is at most :data:`LARGEST`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) and abs(result) <= LARGEST else None


def interval(value: object) -> tuple[float, float] | None:
    """Return a pair of numbers that can be computed with, or None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)
