"""Share equal parts among the lines of results files, so that memory holds each of them once.

A million observations repeat a few hundred names and reasons. And much of what an observation says
was said by the one before it of its case and check: counts, notes, and how stress inputs went.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import msgspec


class Shared:
    """The parts of the lines that were read so far."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}
        """Names, reasons and other values that many lines repeat, each by itself."""
        self._last: dict[Hashable, dict[str, Any]] = {}

    def like(self, place: Hashable, tree: dict[str, Any]) -> dict[str, Any]:
        """Return a tree equal to this one that has all it can from the last one of its place.

        The given tree may be changed. Only the last one is looked at, so that what never repeats
        is not remembered.
        """
        last = self._last.get(place)
        self._last[place] = shared = tree if last is None else _like(tree, last)
        return shared


def _like(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return ``other`` where both are written alike, else ``tree`` with the parts that are."""
    if tree == other and _written_alike(tree, other):
        return other
    for name, part in tree.items():
        theirs = other.get(name)
        if part is theirs:
            continue
        if type(part) is dict and type(theirs) is dict:
            tree[name] = _like(part, theirs)
        elif part == theirs and _written_alike(part, theirs):
            tree[name] = theirs
    return tree


def _written_alike(one: Any, other: Any) -> bool:
    """Whether two equal values are: equality takes 1, 1.0 and true for one another."""
    return type(one) is str or msgspec.json.encode(one) == msgspec.json.encode(other)
