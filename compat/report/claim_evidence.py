"""The evidence for claims: records, timings and answers, found by patterns of case ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from compat.contract.untrusted import interval, number
from compat.judge.checks import VERSIONS
from compat.judge.claims import Found, Verdict
from compat.judge.experiments import Answers
from compat.judge.results import CaseFacts, Observation, Run
from compat.metrics.timing import crowding
from compat.report.audit import audit, other_machine
from compat.report.model import Record, Report

FEWEST_ITEMS = 4
"""Fewest items of a test set from which a degradation may decide a claim."""
COUNTS = ("utterances", "conversations", "recordings", "trials")
"""Names under which task metrics report the number of items that they scored."""
LATENCY, THROUGHPUT = "latency.task", "latency.throughput"

_WEIGHTS = {"pretrained": 0, "seeded": 1, "trained": 2}
_SETTLED = ("passed", "failed", "known-failure", "unexpected-pass")


@dataclass(frozen=True, slots=True)
class Timing:
    """One settled latency of one case, with its run and date."""

    facts: CaseFacts
    one: Observation
    run: str
    quick: bool
    started: str
    anchor: str = ""


class Evidence:
    """The records, timings and answers that claims are checked against."""

    def __init__(self, report: Report, runs: Iterable[Run] = (), answers: Answers | None = None):
        self.report = report
        self.answers = answers or Answers()
        records = {
            (r.machine, r.case.id, r.check): r
            for one in report.configurations
            for r in one.records
            if r.measured and r.observation is not None and not r.own
        }
        self.records = [records[key] for key in sorted(records)]
        self.machines = sorted({record.machine for record in self.records})
        self._facts = {record.case.id: record.case for record in self.records}
        self._anchors = {
            (record.machine, record.run, record.case.id): record.anchor
            for record in self.records
            if record.check == LATENCY
        }
        self._timings: dict[str, list[Timing]] = {}
        for run in audit(runs).runs:
            for timing in self._settled(run):
                self._timings.setdefault(run.header.machine, []).append(timing)

    def _settled(self, run: Run) -> Iterator[Timing]:
        header = run.header
        if other_machine(header):
            return
        for one in run.observations:
            facts = self._facts.get(one.case)
            current = one.check == LATENCY and one.check_version == VERSIONS[LATENCY]
            if not current or facts is None or header.own:
                continue
            if facts.evidence != "device" or not is_settled(one) or crowded(one):
                continue
            key = f"{header.run}.{header.worker}"
            anchor = self._anchors.get((header.machine, key, one.case), "")
            quick = header.profile == "quick"
            yield Timing(facts, one, key, quick, header.started, anchor)

    def timings(self, machine: str, pattern: str) -> list[Timing]:
        found = self._timings.get(machine, [])
        return [one for one in found if matches(one.facts, pattern)]

    def of(self, machine: str, test: str, pattern: str) -> list[Record]:
        """Return the records of a check on one machine whose cases match, the best first."""
        found = [
            record
            for record in self.records
            if (record.machine, record.check) == (machine, test) and matches(record.case, pattern)
        ]
        return sorted(found, key=lambda record: rank(record.case))


# Observations --------------------------------------------------------------------------------


def matches(facts: CaseFacts, pattern: str) -> bool:
    """Return whether a case's id matches a pattern of a claim."""
    return fnmatchcase(facts.id, pattern)


def rank(facts: CaseFacts) -> tuple[int, str]:
    """Return a sort key: published weights first, then generated ones, then the order of ids."""
    return (_WEIGHTS.get(facts.weights, 3), facts.id)


def identity(record: Record) -> str:
    """Return the unique name of one observation, such as ``machine/run/case/check``."""
    return f"{record.machine}/{record.run}/{record.case.id}/{record.check}"


def seen(verdict: Verdict, measured: str, records: Sequence[Record], reason: str) -> Found:
    """Return a verdict with its number, and with the machine and newest day of its records."""
    dates = [r.observation.time[:10] for r in records if r.observation is not None]
    return Found(
        verdict,
        measured,
        records[0].machine,
        max(dates, default=""),
        tuple(identity(record) for record in records),
        tuple(record.anchor for record in records),
        reason=reason,
    )


def is_settled(one: Observation) -> bool:
    """Whether a timing counts: it ended with an interval, and at most a limit failed."""
    if one.status not in _SETTLED or interval(one.values.get("interval_s")) is None:
        return False
    fault = one.status == "failed" and all(limit.level != "failed" for limit in one.limits)
    low, high = span(one.values)
    seconds = [number(value) for value in one.samples.get("seconds", ())]
    sound = bool(seconds) and all(value is not None and value > 0 for value in seconds)
    return not fault and sound and 0 < low <= high and (number(one.values.get("median_s")) or 0) > 0


def span(values: Any) -> tuple[float, float]:
    """Return the interval of a timing in seconds; zeros where there is none."""
    found = interval(values.get("interval_s"))
    return found if found is not None else (0.0, 0.0)


def crowded(one: Observation) -> str:
    """Say which processors other programs used during a timing; empty where that did not matter."""
    return crowding(one.values, one.threads)


def read(record: Record, path: str) -> tuple[float, float, float, str] | None:
    """Return a number of a record: value, lower end, upper end, and a doubt.

    ``path`` leads to it through the observation's values, such as ``people.degradation``. The doubt
    says why the number decides nothing; it is empty where it does. Returns None where the record
    has no such number, or is a timing without a real device.
    """
    one = record.observation
    assert one is not None
    group: Any = one.values
    *way, key = path.split(".")
    for name in way:
        group = group.get(name) if isinstance(group, dict) else None
    if not isinstance(group, dict) or (value := number(group.get(key))) is None:
        return None
    ends = interval(group.get(f"{key}_interval"))
    if key == "median_s":
        ends = interval(group.get("interval_s"))
    elif key in ("rtf", "rtfx"):
        ends = interval((group.get("rtf_lower"), group.get("rtf_upper")))
        if ends and key == "rtfx" and ends[0] > 0:
            ends = (1 / ends[1], 1 / ends[0])
    doubt = ""
    if record.check == LATENCY:
        if record.case.evidence != "device":
            return None
        doubt = "" if is_settled(one) else f"the timing is {record.status}"
        doubt = doubt or crowded(one)
    elif key == "degradation":
        count = next((n for name in COUNTS if (n := number(group.get(name))) is not None), None)
        few = count is not None and count < FEWEST_ITEMS
        doubt = "few items" if few else "" if ends else "measured without an interval"
    low, high = ends or (value, value)
    return value, low, high, doubt
