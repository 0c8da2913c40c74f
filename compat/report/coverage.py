"""Coverage of each target: which cases exist, which were measured, and which nobody ever ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from compat.judge.results import CaseFacts
from compat.report import reasons
from compat.report.model import Configuration, Coverage

MOST_REASONS = 3


@dataclass
class _Target:
    hardware: str
    evidence: str
    known: set[str] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)
    measured: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    remedies: Counter[str] = field(default_factory=Counter)


def coverage(
    configurations: Sequence[Configuration], known: Iterable[CaseFacts]
) -> tuple[Coverage, ...]:
    """Return the coverage of every target over all machines; targets without measurements first.

    ``known`` are the cases of the catalog, whether or not a run planned them.
    """
    targets: dict[str, _Target] = {}
    for case in known:
        of = targets.setdefault(case.target, _Target(case.hardware, case.evidence))
        of.known.add(case.id)
    said: dict[str, dict[tuple[str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in configurations:
        for record in one.records:
            case = record.case
            of = targets.setdefault(case.target, _Target(case.hardware, case.evidence))
            of.planned.add(case.id)
            if record.measured:
                of.measured.add(case.id)
            else:
                seen = record.observation
                remedy = seen.remedy if seen is not None else ""
                said[case.target][reasons.clause(record.reason), remedy].add(case.id)
    for name, found in said.items():
        for (reason, remedy), cases in found.items():
            left = len(cases - targets[name].measured)
            if left:
                targets[name].reasons[reason] += left
                if remedy:
                    targets[name].remedies[remedy] += left
    rows = [
        Coverage(
            name,
            of.hardware,
            of.evidence,
            len(of.known | of.planned),
            len(of.planned),
            len(of.measured),
            tuple(reason for reason, _ in of.reasons.most_common(MOST_REASONS)),
            tuple(remedy for remedy, _ in of.remedies.most_common(MOST_REASONS)),
            tuple(sorted((of.known | of.planned) - of.measured)),
        )
        for name, of in targets.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.measured > 0, row.hardware, row.target)))
