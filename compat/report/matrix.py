"""The matrix as it is shown: its columns grouped by evidence, and the texts of every cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from compat.report import evidence, shown, text
from compat.report.evidence import KINDS, Kind
from compat.report.model import Cell, Configuration, Report


@dataclass(frozen=True, slots=True)
class Matrix:
    """The columns of a matrix in groups of evidence, the strongest first."""

    groups: tuple[tuple[Kind, tuple[str, ...]], ...]
    """Kinds of evidence, each with its columns; a column in which nothing ran is in ``empty``."""
    empty: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for _, names in self.groups for name in names)


def matrix(report: Report) -> Matrix:
    """Group the columns of a report by the strongest evidence in each."""
    kinds: dict[str, list[Kind]] = {name: [] for name in report.hardware}
    for one in report.configurations:
        kinds[one.hardware].append(one.kind)
    of = {name: evidence.strongest(found) for name, found in kinds.items()}
    groups = [
        (kind, tuple(name for name in report.hardware if of[name] == kind))
        for kind in KINDS
        if kind != "nothing"
    ]
    empty = tuple(name for name in report.hardware if of[name] == "nothing")
    return Matrix(tuple(group for group in groups if group[1]), empty)


def summary(report: Report) -> list[tuple[Kind, str]]:
    """Return a line for each kind of evidence that names its columns."""
    of = dict(matrix(report).groups)
    lines: list[tuple[Kind, str]] = []
    for kind, (heading, _, meaning) in KINDS.items():
        if kind == "nothing":
            continue
        names = ", ".join(text.one_line(name, 30) for name in of.get(kind, ()))
        if kind == "accelerator" and not names:
            lines.append((kind, "No accelerator was ever timed in this evidence."))
        elif names:
            lines.append((kind, f"{heading}: {names}. {meaning}"))
    return lines


def face(one: Configuration | None, made: str) -> dict[str, Any]:
    """Return the texts that a cell shows of a configuration, by field.

    ``made`` is the day of the report, from which the age of measurements is counted.
    """
    if one is None or one.kind == "nothing":
        look = text.appearance(one.rating) if one is not None else "not-measured"
        head = text.RATINGS[look][1]
        empty = dict.fromkeys(("note", "detail", "speed", "metric", "memory", "when"), "")
        return {"look": look, "symbol": text.RATINGS[look][0], "head": head, **empty, "tags": []}
    head, note = text.head_and_note(one.rating)
    tags = [text.clean(badge) for badge in text.badges(one.rating)]
    if shown.is_old(one, made):
        tags.append(f"older than {shown.STALE_DAYS} days")
    return {
        "look": text.appearance(one.rating),
        "symbol": text.symbol(one.rating),
        "head": text.clean(head),
        "note": text.clean(note),
        "detail": shown.place(one),
        "speed": text.clean(shown.speed(one)),
        "metric": shown.metric(one),
        "memory": shown.memory(one),
        "when": shown.day(one.measured[1]),
        "tags": tags,
    }


FIELDS: tuple[str, ...] = (
    *("machine", "task", "precision", "look", "head", "note", "detail", "speed", "metric"),
    *("memory", "when", "tags", "words"),
)
"""Fields of a configuration for the script of the index page, in this order."""


def index_data(report: Report) -> dict[str, Any]:
    """Return the data that the filters of the index page choose from.

    Every cell has its best configuration for each machine, task, precision and target.

    Each text stands once in ``texts``; configurations hold indices into it.
    """
    places: dict[str, int] = {}

    def place(value: str) -> int:
        return places.setdefault(value, len(places))

    cells: dict[str, list[list[int]]] = {}
    for cell in report.cells:
        chosen = [list(map(place, _entry(one, report.made))) for one in _best_of_each(cell)]
        if chosen:
            cells[cell.slug] = chosen
    return {"fields": FIELDS, "texts": list(places), "cells": cells}


def _entry(one: Configuration, made: str) -> Iterable[str]:
    said = face(one, made)
    words = f"{one.variant} {one.target} {one.recipe} {one.machine_name} {one.family}"
    yield from (text.clean(one.machine), text.clean(one.task), text.clean(one.precision))
    yield from (said[name] for name in FIELDS[3:-2])
    yield "|".join(said["tags"])
    yield text.one_line(words).lower()


def _best_of_each(cell: Cell) -> Iterable[Configuration]:
    """Yield a cell's best configuration for each machine, task, precision and target."""
    seen: set[tuple[str, ...]] = set()
    for one in cell.configurations:
        key = (one.machine, one.task, one.precision, one.target)
        if one.kind != "nothing" and key not in seen:
            seen.add(key)
            yield one
