"""Compare two sides: what is better, worse, newly passing or failing, missing or incomparable.

A number has changed if it moved by more than the noise between two runs of one case. If it has an
interval, the intervals must lie apart as well. Every other difference is no change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compat.judge.results import Header, Observation, scorer_of
from compat.report import text
from compat.report.choosing import Chosen, own_inputs
from compat.report.findings import LATENCY, LOADS, MEMORY, NUMERICS, TASK, THROUGHPUT
from compat.report.measures import Measure, measures
from compat.report.reasons import sentence
from compat.report.sides import Dimension, Key, Side, Sides

Kind = Literal[
    "newly failing",
    "worse",
    "newly passing",
    "better",
    "missing",
    "new",
    "incomparable",
    "same",
]
KINDS: dict[Kind, str] = {
    "newly failing": "passed before, and fails now",
    "worse": "moved the wrong way, beyond the noise",
    "newly passing": "failed before, and passes now",
    "better": "moved the right way, beyond the noise",
    "missing": "measured before, and not now",
    "new": "measured now, and not before",
    "incomparable": "measured on both sides under other conditions",
    "same": "no difference beyond the noise",
}
"""Every kind of change in the order in which it matters, with its meaning."""
REGRESSIONS: tuple[Kind, ...] = ("newly failing", "worse")

_PASSING = ("passed", "unexpected-pass")
_UNDECIDED = ("skipped", "inconclusive")
_TIMED = (LATENCY, THROUGHPUT, LOADS, MEMORY)
_SET = (TASK, NUMERICS)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one check of one case, or of one of its numbers."""

    kind: Kind
    machine: str
    """Empty where both sides are one machine, and where machines are compared."""
    case: str
    """Id of the case, with ``*`` for the part in which the sides differ."""
    check: str
    measure: str
    """Name of the number; empty where the check as a whole is meant."""
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The changes between two sides."""

    before: str
    after: str
    dimension: Dimension
    changes: tuple[Change, ...]
    """All changes but those of the kind ``same``, in the order of :data:`KINDS`."""
    same: int
    problems: tuple[str, ...] = ()

    @property
    def counts(self) -> Counter[Kind]:
        """Number of changes of each kind."""
        counted: Counter[Kind] = Counter(change.kind for change in self.changes)
        counted["same"] = self.same
        return counted

    @property
    def regressed(self) -> bool:
        """Whether anything is worse, or newly failing."""
        return any(change.kind in REGRESSIONS for change in self.changes)


def compare(sides: Sides, threshold: float | None = None) -> Comparison:
    """Return the changes between two sides.

    ``threshold`` is the relative difference above which times and sizes have changed (0.1 is 10 %).
    By default it is the noise on shared machines, :data:`compat.report.measures.NOISE`. Intervals
    must lie apart in any case.
    """
    found: list[Change] = []
    for key in sorted({*sides.before.found, *sides.after.found}):
        found += _changes(key, sides, threshold)
    order = list(KINDS)
    changed = _merged([change for change in found if change.kind != "same"])
    changed.sort(key=lambda c: (order.index(c.kind), c.check, c.case, c.machine, c.measure))
    return Comparison(
        sides.before.name,
        sides.after.name,
        sides.dimension,
        tuple(changed),
        sum(change.kind == "same" for change in found),
        sides.problems,
    )


def _changes(key: Key, sides: Sides, threshold: float | None) -> Iterator[Change]:
    before, after = sides.before.found.get(key), sides.after.found.get(key)

    def change(kind: Kind, reason: str, *shown: str, measure: str = "") -> Change:
        was, now = shown or (_status(before), _status(after))
        return Change(kind, machine, case, key[-1], measure, was, now, text.one_line(reason, 240))

    machine = key[0] if len({*sides.before.machines, *sides.after.machines}) > 1 else ""
    case = "/".join(part or "*" for part in key[1:4])
    ran = [one is not None and one.observation.status != "skipped" for one in (before, after)]
    if not any(ran):
        return
    if not all(ran):
        absent = (before, after)[ran.index(False)]
        side = (sides.before, sides.after)[ran.index(False)]
        yield change("missing" if ran[0] else "new", _absence(absent, key, side))
        return
    assert before and after
    unlike = _unlike(before, after, sides.dimension)
    if unlike:
        yield change("incomparable", unlike)
        return
    old, new = before.observation, after.observation
    if "inconclusive" in (old.status, new.status):
        noisy = old if old.status == "inconclusive" else new
        yield change("incomparable", f"too noisy to settle: {noisy.reason}")
        return
    passed = [one.status in _PASSING for one in (old, new)]
    numbers = list(_numbers(before, after, sides.dimension, threshold))
    moved = [entry for entry in numbers if entry[0] != "same"]
    if passed[0] != passed[1]:
        kind: Kind = "newly passing" if passed[1] else "newly failing"
        yield change(kind, _said(new if passed[0] else old))
    elif {old.level, new.level} == {"strict", "relaxed"}:
        kind = "better" if new.level == "strict" else "worse"
        said = "meets the strict limits" if new.level == "strict" else "meets the relaxed ones only"
        yield change(kind, f"{said}: {_said(new if new.level == 'relaxed' else old)}")
    elif not moved:
        yield change("same", "")
    for kind, measure, was, now, reason in moved:
        yield change(kind, reason, was, now, measure=measure)


def _merged(changes: Sequence[Change]) -> list[Change]:
    """Merge equal changes of several checks of one case, as where the case does not load."""
    alike: dict[Change, list[str]] = {}
    for one in changes:
        alike.setdefault(replace(one, check="") if not one.measure else one, []).append(one.check)
    return [replace(one, check=", ".join(checks)) for one, checks in alike.items()]


def _said(one: Observation) -> str:
    return sentence(one.status, one.reason, one)


def _status(one: Chosen | None) -> str:
    if one is None:
        return text.DASH
    level = one.observation.level
    return f"{one.observation.status}{f' ({level})' if level else ''}"


def _absence(one: Chosen | None, key: Key, side: Side) -> str:
    """Say why a side has no measurement."""
    if one is not None:
        return f"skipped in {side.name}: {one.observation.reason}"
    return f"{'planned and never ended' if key in side.planned else 'not planned'} in {side.name}"


def _unlike(before: Chosen, after: Chosen, dimension: Dimension) -> str:
    """Say why two observations cannot be compared; empty where they can."""
    old, new = before.observation, after.observation
    heads = before.run.header, after.run.header
    if old.check_version != new.check_version:
        return f"version {old.check_version} of the check, and version {new.check_version}"
    own = [own_inputs(h, one.case) for h, one in zip(heads, (old, new), strict=True)]
    if own[0] != own[1]:
        return " and ".join(", ".join(words) or "what is shipped" for words in own)
    if old.check == TASK:
        scorers = [scorer_of(h, one) for h, one in zip(heads, (old, new), strict=True)]
        if scorers[0] != scorers[1]:
            return f"scorer {scorers[0]}, and scorer {scorers[1]}: compat rescore makes them one"
    if old.check in _SET and dimension != "variant":
        corpora = [h.hashes.get("corpus", "") for h in heads]
        if corpora[0] != corpora[1]:
            return "two versions of the corpus"
        if heads[0].profile != heads[1].profile:
            return f"other numbers of inputs: {heads[0].profile}, and {heads[1].profile}"
    return ""


def _conditions(heads: tuple[Header, Header], old: Observation, new: Observation, dim: str) -> str:
    """Say why times and sizes of two observations cannot be compared; empty where they can."""
    if old.check not in _TIMED:
        return ""
    if heads[0].machine != heads[1].machine and dim != "machine":
        return "measured on two machines"
    if old.threads != new.threads:
        return f"{old.threads} threads, and {new.threads}"
    return ""


_Number = tuple[Kind, str, str, str, str]


def _numbers(
    before: Chosen, after: Chosen, dimension: Dimension, threshold: float | None
) -> Iterator[_Number]:
    """Yield the change of each number that both observations have."""
    old, new = before.observation, after.observation
    theirs = {one.name: one for one in measures(old)}
    pairs = [(theirs[one.name], one) for one in measures(new) if one.name in theirs]
    unlike = _conditions((before.run.header, after.run.header), old, new, dimension)
    for was, now in pairs:
        kind: Kind = "incomparable" if unlike else verdict(was, now, threshold)
        reason = unlike or difference(was, now)
        yield kind, now.name, was.with_interval, now.with_interval, reason


def verdict(was: Measure, now: Measure, threshold: float | None = None) -> Kind:
    """Return whether a number is better, worse or the same, noise taken into account."""
    noise = threshold if threshold is not None and now.relative else now.noise
    moved = abs(now.value - was.value)
    if now.relative:
        moved /= min(abs(was.value), abs(now.value))
    if moved <= noise or not _apart(was, now):
        return "same"
    return "better" if (now.value < was.value) == (now.better == "lower") else "worse"


def _apart(was: Measure, now: Measure) -> bool:
    """Whether two intervals lie apart; true for numbers that never have one, as peaks of memory."""
    if was.interval is None or now.interval is None:
        # A task metric or a time without an interval was measured too few times for one.
        return was.check not in (TASK, LATENCY)
    return was.interval[1] < now.interval[0] or now.interval[1] < was.interval[0]


def difference(was: Measure, now: Measure) -> str:
    """Return by how much a number moved, in words."""
    if now.relative:
        factor = now.value / was.value
        word = {"s": "as long", "rtf": "as long"}.get(now.key.rpartition("_")[2], "as much")
        return f"{text.ratio(factor)} {word}"
    if text.is_share(now.metric or now.key, now.declared or {}):
        return text.points(now.value - was.value)
    moved = now.shown(now.value - was.value)
    return moved if moved.startswith(("-", "−")) else f"+{moved}"
