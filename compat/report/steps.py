"""Find steps in a history: moves of a number to another level that noise does not explain.

Segments are found by ruptures (Truong, Oudre and Vayatis, "Selective review of offline change point
detection methods", Signal Processing 167, 2020): the exact least-squares division into two or three
segments. Times and sizes are divided in logarithms. A division is accepted if its F ratio, the
variance explained per step over the variance left per run, exceeds a critical value. Only 0.25 % of
histories without a step reach that value if their noise has heavy tails (Student's t with 3 degrees
of freedom). Each segment is then divided in the same way. So at most 0.5 % of steady histories with
such noise show a step by chance. ``tests/benchmarks/false_alarms.py`` measures this rate and the
critical values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal

from compat.contract.errors import CompatError
from compat.report import text
from compat.report.compare import difference
from compat.report.history import History, Point
from compat.report.measures import Measure

LEAST = 2
"""Fewest runs on each side of a step; a single run is an outlier, not a level."""
SHORTEST = 5
"""Fewest runs of a history in which steps are looked for."""
LONGEST = 100
"""Most runs of a history in which steps are looked for; the newest are taken."""

CRITICAL: dict[int, dict[int, float]] = {
    1: {
        5: 123.4,
        6: 70.8,
        7: 51.9,
        8: 45.5,
        10: 33.8,
        12: 30.1,
        15: 26.9,
        20: 24.6,
        30: 25.8,
        40: 28.5,
        50: 30.3,
        100: 35.5,
    },
    2: {
        6: 66.3,
        7: 55.7,
        8: 48.4,
        10: 35.3,
        12: 28.5,
        15: 25.4,
        20: 23.8,
        30: 25.4,
        40: 26.5,
        50: 29.2,
        100: 46.3,
    },
}
"""Critical value of the F ratio by number of steps, then by number of runs."""

SMALLEST_RELATIVE, SMALLEST_DB, SMALLEST_SHARE = 0.05, 1.0, 0.002
"""Smallest steps that are reported: 5 % of a time or size, 1 dB, 0.2 points of a rate."""


@dataclass(frozen=True, slots=True)
class Step:
    """One move of a number to another level."""

    history: History
    kind: Literal["worse", "better"]
    before: Point
    """The last measurement of the old level."""
    after: Point
    """The first measurement of the new level."""
    old: Measure
    new: Measure
    """The mean of the new level; ``old`` is that of the old one. Both are geometric means for times
    and sizes."""
    runs: tuple[int, int]
    """Number of measurements of the old and of the new level."""

    @property
    def sentence(self) -> str:
        """The step in words."""
        return (
            f"{self.history.name} {self.old.shown()} → {self.new.shown()} "
            f"({difference(self.old, self.new)}, mean of {self.runs[0]} and of {self.runs[1]} runs)"
        )


def steps(history: History) -> tuple[Step, ...]:
    """Return the steps of a history, oldest first; none where it is too short to tell."""
    points = [point for point in history.points if point.measure][-LONGEST:]
    if len(points) < SHORTEST:
        return ()
    first = points[0].measure
    assert first is not None
    signal = [_scaled(point.measure) for point in points if point.measure]
    ends = [0, *places(signal, _smallest(first)), len(points)]
    found = []
    for start, place, end in zip(ends, ends[1:], ends[2:], strict=False):
        old, new = _level(points[start:place]), _level(points[place:end])
        gained = (new.value < old.value) == (new.better == "lower")
        found.append(
            Step(
                history,
                "better" if gained else "worse",
                points[place - 1],
                points[place],
                old,
                new,
                (place - start, end - place),
            )
        )
    return tuple(found)


def places(signal: Sequence[float], smallest: float) -> list[int]:
    """Return the indices at which a new level begins, in order.

    Args:
        signal: one number for each run, oldest first.
        smallest: smallest difference of two levels; closer ones count as one level.
    """
    best: list[int] = []
    excess = 1.0
    for number in (1, 2):
        critical = critical_value(number, len(signal))
        if critical is None or len(signal) < LEAST * (number + 1):
            continue
        ends = _divided(signal, number)
        share = _explained(signal, ends, smallest) / critical
        if share > excess:
            best, excess = ends, share
    levels = [fmean(signal[a:b]) for a, b in _parts(best, len(signal))]
    if not best or all(abs(b - a) < smallest for a, b in pairwise(levels)):
        return []
    found = set(best)
    for start, end in _parts(best, len(signal)):
        found |= {start + place for place in places(signal[start:end], smallest)}
    return sorted(found)


def critical_value(number: int, runs: int) -> float | None:
    """Return the critical value for a number of steps in a number of runs; None for too few."""
    table = CRITICAL[number]
    if runs < min(table):
        return None
    # Between two lengths of the table the larger value, which reports fewer false steps.
    below = max(size for size in table if size <= runs)
    above = min((size for size in table if size >= runs), default=below)
    return max(table[below], table[above])


def _divided(signal: Sequence[float], number: int) -> list[int]:
    """Return the indices of the steps in the best division into ``number + 1`` segments."""
    ruptures = _ruptures()
    import numpy as np

    values = np.asarray(signal, dtype=np.float64)
    search = ruptures.Dynp(model="l2", min_size=LEAST, jump=1).fit(values)
    return [int(end) for end in search.predict(n_bkps=number)[:-1]]


def _ruptures() -> Any:
    try:
        import ruptures
    except ImportError as error:
        raise CompatError(
            "steps in histories are found by the package ruptures, which is absent.",
            "Install compat again, or `pip install ruptures`.",
        ) from error
    return ruptures


def _explained(signal: Sequence[float], ends: Sequence[int], smallest: float) -> float:
    """Return the F ratio of a division: variance explained per step over that left per run."""
    mean = fmean(signal)
    whole = math.fsum((value - mean) ** 2 for value in signal)
    left = 0.0
    for start, end in _parts(ends, len(signal)):
        level = fmean(signal[start:end])
        left += math.fsum((value - level) ** 2 for value in signal[start:end])
    # Numbers that repeat exactly are given a noise of a tenth of the smallest step.
    floor = (smallest / 10) ** 2
    return ((whole - left) / len(ends)) / max(left / (len(signal) - 1 - len(ends)), floor, 1e-300)


def _parts(ends: Sequence[int], runs: int) -> list[tuple[int, int]]:
    return list(zip((0, *ends), (*ends, runs), strict=True))


def _scaled(measure: Measure) -> float:
    return math.log(measure.value) if measure.relative else measure.value


def _smallest(measure: Measure) -> float:
    if measure.relative:
        return math.log1p(SMALLEST_RELATIVE)
    share = text.is_share(measure.metric or measure.key, measure.declared or {})
    return SMALLEST_SHARE if share else SMALLEST_DB


def _level(points: Sequence[Point]) -> Measure:
    """Return the mean of measurements as a measure without an interval."""
    found = [point.measure for point in points if point.measure]
    if found[0].relative:
        value = math.exp(fmean(math.log(one.value) for one in found))
    else:
        value = fmean(one.value for one in found)
    return replace(found[0], value=value, interval=None)
