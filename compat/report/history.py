"""Histories: every measurement of a case, oldest first, not only the one that counts.

A history holds only measurements that can be compared. They share machine, case, check, number,
version of the check, threads, batch and profile; where outputs are judged, also the corpus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from compat.judge.results import Header, Observation, Run
from compat.report import text
from compat.report.audit import audit, instant
from compat.report.choosing import Chosen, Key, choose, own_inputs, run_key
from compat.report.findings import NUMERICS, TASK
from compat.report.measures import Measure, measures

_PASSING = ("passed", "unexpected-pass")


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a history."""

    time: datetime
    run: str
    """``run.worker``, as pages name it."""
    profile: str
    commit: str
    versions: Mapping[str, str]
    status: str
    level: str
    reason: str
    measure: Measure | None
    """None where the number was not settled; then the status says why."""
    counts: bool
    """Whether reports show this measurement, the one that counts."""

    @property
    def passed(self) -> bool:
        return self.status in _PASSING


@dataclass(frozen=True, slots=True)
class History:
    """Measurements of one number that can be compared, oldest first."""

    machine: str
    case: str
    check: str
    name: str
    """Name of the number, such as ``rtf``; empty where the check has none."""
    points: tuple[Point, ...]

    @property
    def values(self) -> tuple[Measure, ...]:
        """The settled numbers, oldest first."""
        return tuple(point.measure for point in self.points if point.measure)

    @property
    def label(self) -> str:
        """Case, check and number of the history, for headings."""
        return text.one_line(f"{self.case} {self.check} {self.name}".rstrip())


@dataclass(frozen=True, slots=True)
class Turn:
    """The two measurements between which a check began to fail or to pass."""

    history: History
    before: Point
    after: Point

    @property
    def kind(self) -> str:
        return "newly passing" if self.after.passed else "newly failing"


_Like = tuple[str, str, str, str, object]


def histories(runs: Iterable[Run], case: str = "") -> tuple[History, ...]:
    """Return the histories of all cases, or of one, by machine, case, check and number.

    ``runs`` need no audit; faulty lines are left out here.
    """
    sound = audit(runs).runs
    if case:
        sound = tuple(run for run in sound if any(one.case == case for one in run.observations))
    chosen = choose(sound)
    found: dict[_Like, list[Point]] = defaultdict(list)
    for run in sound:
        header = run.header
        for one in run.observations:
            if one.status == "skipped" or (case and one.case != case):
                continue
            like = _conditions(header, one)
            numbers = _followed(one) or (None,)
            for number in numbers:
                name = number.name if number else ""
                found[header.machine, one.case, one.check, name, like].append(
                    _point(run, one, number, chosen)
                )
    _place_unsettled(found)
    return tuple(
        History(*key[:4], tuple(sorted(points, key=lambda point: (point.time, point.run))))
        for key, points in sorted(found.items(), key=lambda pair: repr(pair[0]))
    )


def _followed(one: Observation) -> Sequence[Measure | None]:
    """Return the numbers of an observation that a history follows.

    For a task these are the metric of the last test set, which is the most telling, and the last
    degradation, which is that of all sets where it was measured.
    """
    found = measures(one)
    if one.check != TASK:
        return found
    metrics = [number for number in found if number.key != "degradation"]
    losses = [number for number in found if number.key == "degradation"]
    return (*metrics[-1:], *losses[-1:])


def _conditions(header: Header, one: Observation) -> object:
    """Return the conditions that two observations must share for their numbers to be compared."""
    corpus = header.hashes.get("corpus", "") if one.check in (TASK, NUMERICS) else ""
    return (
        one.check_version,
        one.threads,
        one.batch,
        header.profile,
        own_inputs(header, one.case),
        corpus,
        one.scorer if one.check == TASK else None,
    )


def _point(
    run: Run, one: Observation, number: Measure | None, chosen: Mapping[Key, Chosen]
) -> Point:
    header = run.header
    moment = instant(one.time or header.started)
    assert moment is not None  # The audit leaves out observations without a date.
    counting = chosen.get((header.machine, one.case, one.check))
    return Point(
        moment,
        run_key(run),
        header.profile,
        header.commit,
        header.versions,
        one.status,
        one.level or "",
        one.reason,
        number,
        counting is not None and counting.observation is one,
    )


def _place_unsettled(found: dict[_Like, list[Point]]) -> None:
    """Add measurements without a number to every history of the same case and conditions.

    A check that failed before it gave a number would have a history of its own otherwise.
    """
    alike: dict[tuple[object, ...], list[_Like]] = defaultdict(list)
    for key in found:
        alike[(*key[:3], key[4])].append(key)
    for keys in alike.values():
        named = [key for key in keys if key[3]]
        for unnamed in [key for key in keys if named and not key[3]]:
            for key in named:
                found[key] += found[unnamed]
            del found[unnamed]


def turns(history: History) -> tuple[Turn, ...]:
    """Return where a check began to fail or to pass.

    Inconclusive measurements are passed over: noise is no turn.
    """
    settled = [point for point in history.points if point.status != "inconclusive"]
    return tuple(
        Turn(history, before, after)
        for before, after in pairwise(settled)
        if before.passed != after.passed
    )


def changed_versions(before: Point, after: Point) -> tuple[str, ...]:
    """Say which packages and which commit differ between two measurements."""
    names = sorted({*before.versions, *after.versions})
    said = [
        f"{name} {before.versions.get(name, 'absent')} → {after.versions.get(name, 'absent')}"
        for name in names
        if before.versions.get(name) != after.versions.get(name)
    ]
    if before.commit != after.commit:
        said.append(f"commit {before.commit[:12] or 'unknown'} → {after.commit[:12] or 'unknown'}")
    return tuple(text.one_line(one, 100) for one in said)
