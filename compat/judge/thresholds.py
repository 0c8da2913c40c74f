"""Limits as data: TOML files hold the limits of a check's numbers, for which cases, and why.

An entry names a check, a metric and two limits::

    [[threshold]]
    check = "accuracy.numerics"
    metric = "*.snr_db"                            # dotted path; a part may be a pattern
    at_least = { strict = 60.0, relaxed = 40.0 }   # or at_most
    precision = "fp32"                             # optional filters, each a name, a pattern or a
    family = ["whisper", "moonshine"]              # list of them
    reason = "..."                                 # required

A metric that comes with an interval beside it (``degradation`` and ``degradation_interval``) may be
judged by that: ``at_most = 0.01`` with ``by = "interval"`` is failed where the whole interval is
above the limit, strict where none of it is, and relaxed between, so that noise decides nothing.

``judged = false``, without limits, takes a number out of judgement where another entry would hold
it to something; the report shows it all the same.

For each number one entry decides: the one with the most filters, all of which match the case. Among
equals it is the one with more literal path parts, then the later one; later files come after
earlier ones. ``override = true`` puts an entry above all that lack it, however specific. A metric
that an entry demands and the check did not report fails, unless the entry says
``required = false``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from compat import catalog
from compat.contract.case import WEIGHTS, Evidence
from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES
from compat.contract.precision import precisions
from compat.judge.entries import Format
from compat.judge.results import CaseFacts, Level, Limit

TEXT_FILTERS: tuple[str, ...] = (
    "family",
    "task",
    "variant",
    "weights",
    "hardware",
    "runtime",
    "target",
    "recipe",
    "precision",
    "evidence",
)
FLAG_FILTERS: tuple[str, ...] = ("published", "on_host_cpu", "quantised")

_LEVELS: tuple[Level, ...] = ("strict", "relaxed", "failed")

Direction = Literal["at_least", "at_most"]
Pair = tuple[float, float]

FORMAT = Format(
    name="threshold",
    table="threshold",
    required=("check", "metric", "reason"),
    optional=(
        "at_least",
        "at_most",
        "by",
        "judged",
        "required",
        "override",
        *TEXT_FILTERS,
        *FLAG_FILTERS,
    ),
    if_absent="Check the path, or leave the option out to use the thresholds that come with "
    "compat.",
    if_broken="; the format is described at the top of the shipped fixtures/thresholds.toml.",
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """One entry of a thresholds file."""

    check: str
    metric: str
    direction: Direction
    strict: float
    relaxed: float
    reason: str
    filters: tuple[tuple[str, tuple[str, ...] | bool], ...]
    """Name of a field of :class:`CaseFacts` and the patterns (or the flag) that it must match."""
    required: bool
    override: bool
    origin: str
    """File and entry, for messages."""
    judged: bool = True
    """False if the number is only shown, not judged."""
    by_interval: bool = False
    """Whether the interval beside the number is judged; strict and relaxed are one limit then."""

    @property
    def path(self) -> tuple[str, ...]:
        """The parts of the metric's path."""
        return tuple(self.metric.split("."))

    @property
    def specificity(self) -> tuple[bool, int, int]:
        """Sort key of entries for one number: the highest decides, or the later of equal ones."""
        literal = sum(not _is_pattern(part) for part in self.path)
        return self.override, len(self.filters), literal

    def applies(self, facts: CaseFacts) -> bool:
        """Whether every filter matches the case."""
        return all(_matches(getattr(facts, name), wanted) for name, wanted in self.filters)

    def covers(self, path: tuple[str, ...]) -> bool:
        """Whether the metric's path matches the path of a number."""
        return len(path) == len(self.path) and all(
            fnmatchcase(part, pattern) for part, pattern in zip(path, self.path, strict=True)
        )

    def level(self, value: float | None, interval: Pair | None = None) -> Level:
        """Return how far a number, or its interval, meets the limits.

        A number that is absent, NaN or infinite fails.
        """
        if value is None or not math.isfinite(value):
            return "failed"
        sign = 1.0 if self.direction == "at_least" else -1.0
        if interval is not None:
            worst, best = sorted(sign * end for end in interval)
            if best < sign * self.relaxed:
                return "failed"
            return "strict" if worst >= sign * self.strict else "relaxed"
        if sign * value >= sign * self.strict:
            return "strict"
        return "relaxed" if sign * value >= sign * self.relaxed else "failed"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All entries, in the order in which they were read."""

    entries: tuple[Threshold, ...]
    digest: str
    """Hash of the files' contents (16 hex digits), for the provenance of a run."""

    @property
    def checks(self) -> frozenset[str]:
        """The checks that have at least one entry."""
        return frozenset(entry.check for entry in self.entries)

    def judge(
        self, check: str, facts: CaseFacts, values: Mapping[str, Any]
    ) -> tuple[Level | None, tuple[Limit, ...], str]:
        """Hold the numbers of one check against the entries that apply to the case.

        Args:
            check: name of the check, for instance ``accuracy.numerics``.
            facts: the case.
            values: results of the check, as in an observation's ``values``; nested dictionaries and
                lists are walked (list items by index: ``interval.1``).

        Returns:
            The worst level over all metrics; one :class:`Limit` per metric that was judged, worst
            first; and a reason that names every metric short of its strict limit, empty where
            there is none. The level is None where no entry applies: nothing was judged.
        """
        applying = [e for e in self.entries if e.check == check and e.applies(facts)]
        numbers = dict(_numbers(values))
        judged: list[tuple[Limit, str]] = []
        for path, value in numbers.items():
            chosen = _most_specific(e for e in applying if e.covers(path))
            if chosen is not None and chosen.judged:
                pair = _beside(numbers, path) if chosen.by_interval else None
                judged.append(_hold(chosen, ".".join(path), value, pair))
        for metric in dict.fromkeys(e.metric for e in applying):
            chosen = _most_specific(e for e in applying if e.metric == metric)
            if chosen and chosen.required and not any(chosen.covers(path) for path in numbers):
                judged.append(_hold(chosen, metric, None, None, missing=True))
        judged.sort(key=lambda item: (-_LEVELS.index(item[0].level), item[0].metric))
        limits = tuple(limit for limit, _ in judged)
        reason = "; ".join(sentence for _, sentence in judged if sentence)
        return (limits[0].level if limits else None), limits, reason


def default_path() -> Path:
    """The thresholds that this project ships."""
    return FIXTURES / "thresholds.toml"


def load(paths: Iterable[Path]) -> Thresholds:
    """Read thresholds files in order, later ones taking precedence over equals before them.

    Raises:
        CompatError: a file cannot be read, is not TOML, or has an entry that is not valid.
    """
    entries: list[Threshold] = []
    digest = hashlib.sha256()
    for path in paths:
        text = FORMAT.read(path)
        digest.update(text.encode())
        entries += [_entry(origin, row) for origin, row in FORMAT.entries(path, text)]
    return Thresholds(tuple(entries), digest.hexdigest()[:16])


def _entry(origin: str, row: Mapping[str, Any]) -> Threshold:
    for key in ("required", "override", "judged"):
        if not isinstance(row.get(key, True), bool):
            raise CompatError(f"{origin}: {key} must be true or false.")
    if not all(row["metric"].split(".")):
        raise CompatError(
            f"{origin}: metric {row['metric']!r} has an empty part; write a dotted path such as "
            '"encoder.snr_db".'
        )
    if row.get("by", "interval") != "interval":
        raise CompatError(f'{origin}: by can be "interval" alone; leave it out for the number.')
    direction, strict, relaxed = _limits(origin, row)
    return Threshold(
        check=row["check"],
        metric=row["metric"],
        direction=direction,
        strict=strict,
        relaxed=relaxed,
        reason=row["reason"].strip(),
        filters=tuple(_filters(origin, row)),
        required=row.get("required", True) and row.get("judged", True),
        override=row.get("override", False),
        origin=origin,
        judged=row.get("judged", True),
        by_interval="by" in row,
    )


def _limits(origin: str, row: Mapping[str, Any]) -> tuple[Direction, float, float]:
    given = [key for key in ("at_least", "at_most") if key in row]
    if row.get("judged") is False:
        if given or "by" in row:
            raise CompatError(f"{origin}: judged = false has no limits; take one of them away.")
        return "at_least", 0.0, 0.0
    if len(given) != 1:
        raise CompatError(
            f"{origin}: give exactly one of at_least and at_most, as "
            "{ strict = 60.0, relaxed = 40.0 }."
        )
    direction: Direction = "at_least" if given[0] == "at_least" else "at_most"
    table = row[direction]
    if "by" in row:
        if isinstance(table, dict):
            raise CompatError(
                f"{origin}: an interval is held against one limit: {direction} = 0.01."
            )
        table = {"strict": table, "relaxed": table}
    if not isinstance(table, dict) or set(table) != {"strict", "relaxed"}:
        raise CompatError(
            f"{origin}: {direction} needs strict and relaxed, as "
            f"{direction} = {{ strict = 60.0, relaxed = 40.0 }}."
        )
    for name, value in table.items():
        # bool is an int to Python and not to a person; infinities do not survive JSON.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise CompatError(f"{origin}: {direction}.{name} must be a finite number.")
    strict, relaxed = float(table["strict"]), float(table["relaxed"])
    if (strict < relaxed) if direction == "at_least" else (strict > relaxed):
        raise CompatError(
            f"{origin}: the strict limit {strict:g} is easier than the relaxed one {relaxed:g}. "
            f"Swap them, or use {'at_most' if direction == 'at_least' else 'at_least'}."
        )
    return direction, strict, relaxed


def _filters(origin: str, row: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...] | bool]]:
    for name in TEXT_FILTERS:
        if name not in row:
            continue
        wanted = [row[name]] if isinstance(row[name], str) else row[name]
        if (
            not isinstance(wanted, list)
            or not wanted
            or not all(isinstance(item, str) and item for item in wanted)
        ):
            raise CompatError(f"{origin}: {name} must be a text or a list of texts.")
        for pattern in wanted:
            known = _vocabulary(name)
            if known and not any(fnmatchcase(word, pattern) for word in known):
                raise CompatError(
                    f"{origin}: {name} = {pattern!r} matches nothing. Known are {', '.join(known)}."
                )
        yield name, tuple(wanted)
    for name in FLAG_FILTERS:
        if name in row:
            if not isinstance(row[name], bool):
                raise CompatError(f"{origin}: {name} must be true or false.")
            yield name, row[name]


def _vocabulary(name: str) -> tuple[str, ...]:
    """Return the words that a filter can match; empty where results may hold any."""
    match name:
        case "hardware":  # It may be a person's own, declared by a catalog file.
            return catalog.load().hardware
        case "precision":
            return precisions()
        case "weights":
            return WEIGHTS
        case "evidence":
            return get_args(Evidence)
    return ()


def _matches(actual: Any, wanted: tuple[str, ...] | bool) -> bool:
    if isinstance(wanted, bool):
        return bool(actual) is wanted
    return any(fnmatchcase(actual, pattern) for pattern in wanted)


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _most_specific(entries: Iterable[Threshold]) -> Threshold | None:
    chosen: Threshold | None = None
    for entry in entries:
        if chosen is None or entry.specificity >= chosen.specificity:
            chosen = entry
    return chosen


def _numbers(
    values: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], float | None]]:
    """Yield every leaf with its path; the value is None for a leaf that is not a number."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _numbers(value, (*path, str(key)))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _numbers(value, (*path, str(index)))
    else:
        try:
            yield path, None if isinstance(values, str) else float(values)
        except (TypeError, ValueError, OverflowError):
            yield path, None


def _beside(numbers: Mapping[tuple[str, ...], float | None], path: tuple[str, ...]) -> Pair | None:
    """Return the interval that stands beside a number; None where there is none."""
    name = f"{path[-1]}_interval"
    low, high = (numbers.get((*path[:-1], name, end)) for end in ("0", "1"))
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return low, high


def _hold(
    entry: Threshold,
    metric: str,
    value: float | None,
    interval: Pair | None,
    *,
    missing: bool = False,
) -> tuple[Limit, str]:
    """Judge one number; return the limit and, where it falls short of strict, a sentence."""
    finite = value if value is not None and math.isfinite(value) else None
    level = entry.level(value, interval)
    limit = Limit(
        metric=metric,
        value=finite,
        strict=entry.strict,
        relaxed=entry.relaxed,
        direction=entry.direction,
        level=level,
        reason=entry.reason,
        interval=interval,
    )
    word = "at least" if entry.direction == "at_least" else "at most"
    if missing:
        return limit, f"{metric} was not reported ({word} {entry.relaxed:g} is needed)"
    if finite is None:
        shown = "no number" if value is None else f"{value:g}"
        return limit, f"{metric} is {shown}, not a finite number"
    if interval is not None and level != "strict":
        share = "all" if level == "failed" else "part"
        beyond = "above" if entry.direction == "at_most" else "below"
        low, high = interval
        return limit, (
            f"{metric} {finite:.4g}, {share} of its interval {low:.4g} to {high:.4g} {beyond} "
            f"{entry.strict:g} ({entry.reason})"
        )
    if level == "failed":
        return limit, f"{metric} {finite:.4g}, needs {word} {entry.relaxed:g} ({entry.reason})"
    if level == "relaxed":
        return limit, f"{metric} {finite:.4g}, strict needs {word} {entry.strict:g}"
    return limit, ""
