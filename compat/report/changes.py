"""Changes since the last run: those of each machine's newest run, and the steps of histories."""

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
"""Kinds of change that a page lists one by one; of the other kinds it shows the number."""
MOST_COMPARED = 200_000
"""Observations up to which a report compares runs; beyond them histories take too long."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The changes that the newest run of a machine brought."""

    machine: str
    started: str
    """When the run began."""
    comparison: Comparison
    """All earlier runs of that machine, compared with the newest."""

    @property
    def told(self) -> tuple[Change, ...]:
        """The changes that a page lists, as :data:`TOLD` orders them."""
        return tuple(change for change in self.comparison.changes if change.kind in TOLD)


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of all machines."""

    newest: tuple[Newest, ...] = ()
    """Newest run of each machine, the latest first; machines with one run are left out."""
    events: tuple[Event, ...] = ()
    """Steps of numbers, and checks that began to fail or to pass, newest first."""
    left_out: int = 0
    """Number of observations where there are too many to compare; 0 where they were compared."""


def with_changes(report: Report, collection: Collection) -> Report:
    """Return a report with the changes in the collection that it was built from."""
    return replace(report, changes=changes(collection))


def changes(collection: Collection) -> Changes:
    """Return the changes in a collection; each machine is compared with itself only."""
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
    """Return the path of each case's page in the site, by machine and case id."""
    return {
        (one.machine, record.case.id): f"configurations/{one.anchor}.html"
        for one in report.configurations
        for record in one.records
    }
