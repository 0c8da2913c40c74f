"""What changed since the last run: the newest run of each machine, and the steps of histories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compat.contract.errors import CompatError
from compat.judge.results import Collection, Run
from compat.report.compare import KINDS, Change, Comparison, compare
from compat.report.feed import MOST, Event, events
from compat.report.history import histories
from compat.report.sides import BEFORE, NEWEST, of_names

if TYPE_CHECKING:
    from compat.report.model import Report

TOLD = tuple(kind for kind in KINDS if kind not in ("missing", "incomparable", "same"))
"""Kinds of change that a page lists; it counts the others."""
MOST_COMPARED = 200_000
"""Observations up to which a report says what changed: a history costs more the longer it is."""


@dataclass(frozen=True, slots=True)
class Newest:
    """What the newest run of a machine changed."""

    machine: str
    started: str
    """When the run began."""
    comparison: Comparison
    """Everything before it on that machine, and the run."""

    @property
    def told(self) -> tuple[Change, ...]:
        """The changes that a page lists, as :data:`TOLD` orders them."""
        return tuple(change for change in self.comparison.changes if change.kind in TOLD)


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed, of all machines."""

    newest: tuple[Newest, ...] = ()
    """The machine that ran last comes first; machines with one run have nothing to compare."""
    events: tuple[Event, ...] = ()
    """Steps of numbers, and checks that began to fail or to pass, newest first."""
    left_out: int = 0
    """Observations, where there are too many to compare; 0 where they were compared."""


def with_changes(report: Report, collection: Collection) -> Report:
    """Return the report with what changed in the collection that it was made of."""
    return replace(report, changes=changes(collection))


def changes(collection: Collection) -> Changes:
    """Return what changed in a collection: nothing is compared across machines."""
    count = sum(len(run.observations) for run in collection.runs)
    if count > MOST_COMPARED:
        return Changes(left_out=count)
    by_machine: dict[str, list[Run]] = defaultdict(list)
    for run in collection.runs:
        by_machine[run.header.machine].append(run)
    newest = [one for name, runs in by_machine.items() if (one := _newest(name, runs))]
    newest.sort(key=lambda one: (one.started, one.machine), reverse=True)
    return Changes(tuple(newest), events(histories(collection.runs))[:MOST])


def _newest(machine: str, runs: list[Run]) -> Newest | None:
    try:
        sides = of_names(runs, BEFORE, NEWEST)
    except CompatError:  # One run alone, or none that is sound.
        return None
    last = max((run.header.started for run in runs if run.observations), default="")
    return Newest(machine, last, compare(sides))


def places(report: Report) -> Mapping[tuple[str, str], str]:
    """Return the page of each machine's case, by machine and case id."""
    return {
        (one.machine, record.case.id): f"configurations/{one.anchor}.html"
        for one in report.configurations
        for record in one.records
    }
