"""Turn a record into the state of a gate, with the reason in full and in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compat.judge.rating import State
from compat.judge.results import Limit, Observation
from compat.report import reasons, text

if TYPE_CHECKING:
    from compat.report.model import Record

LOADS, PLACED = "support.loads", "support.placed"
TASK, NUMERICS = "accuracy.task", "accuracy.numerics"
LATENCY, THROUGHPUT = "latency.task", "latency.throughput"
MEMORY, STRESS = "memory.peak", "robustness.stress"

FAILURES = ("failed", "timeout", "crashed", "out-of-memory", "known-failure")
_STATES: tuple[State, ...] = ("failed", "unknown", "relaxed", "strict")
"""States from worst to best. ``unknown`` ranks low, since a good part cannot make up for it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one gate and the reason for it, without the gate's name."""

    state: State
    reason: str
    evidence: tuple[str, ...] = ()
    brief: str = ""
    """The reason in one sentence; empty where ``reason`` is one sentence already."""

    @property
    def said(self) -> str:
        return self.brief or self.reason


def judge(record: Record | None, what: str) -> Finding:
    """Return the finding of one record; ``what`` names its check where there is no record."""
    if record is None:
        return Finding("unknown", f"{what} was not part of any run")
    one, seen = record.observation, (record.anchor,)
    brief = reasons.sentence(record.status, record.reason, one)
    if one is None or not record.measured or record.status in ("inconclusive", "unsupported"):
        return Finding("unknown", told(record.status, record.reason), seen, brief)
    reason = told(record.status, record.reason) if record.reason else _limits(one)
    if record.status == "timeout" and record.case.evidence == "emulator":
        # An emulator is slow, so its timeout says nothing about the hardware.
        where = "(of an emulator, not of the hardware)"
        return Finding("unknown", f"{reason} {where}", seen, f"{brief} {where}")
    if one.level is not None:
        brief = brief if one.level != "strict" else ""
        return Finding(one.level, reason or record.status, seen, brief)
    if record.status == "error":
        # Without a level the cause may be an input, a disk or the suite itself, not the case.
        return Finding("unknown", reason or "error", seen, brief)
    failed = record.status in FAILURES
    state: State = "failed" if failed else "strict"
    return Finding(state, reason or record.status, seen, brief if failed else "")


def told(status: str, reason: str) -> str:
    """Return ``status: reason``, or the reason alone where it begins with the status."""
    return f"{status}: {reason}" if reason and not reason.startswith(status) else reason or status


def _limits(one: Observation) -> str:
    """Name the thresholds that were missed, or say that all were met."""
    missed = [limit for limit in one.limits if limit.level != "strict"]
    if not missed:
        if len(one.limits) == 1:
            return f"threshold met: {_limit(one.limits[0], one)}"
        return f"all {len(one.limits)} thresholds met" if one.limits else ""
    return "; ".join(_limit(limit, one) for limit in missed)


def _limit(one: Limit, seen: Observation) -> str:
    found, strict, relaxed = text.limit(one, seen.values, seen.metrics)
    return f"{one.metric} {found} (strict {strict}, relaxed {relaxed})"


def worst(parts: Sequence[tuple[str, Finding]]) -> Finding:
    """Combine named findings: the worst state counts, and the reason names the parts with it."""
    state = min((part.state for _, part in parts), key=_STATES.index)
    deciding = [(name, part) for name, part in parts if part.state == state]
    reason = "; ".join(f"{name}: {part.reason}" for name, part in deciding)
    brief = "; ".join(dict.fromkeys(part.said for _, part in deciding))
    return Finding(state, reason, tuple(a for _, part in parts for a in part.evidence), brief)
