"""Repetitions of experiments: whether their verdicts agree, and which verdicts are close.

A verdict is close if the measured interval ends near a claimed bound: another run might cross it.
An interval that already holds a bound decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from compat.judge.claims import Check, Claim, Claimed, Verdict
from compat.judge.experiments import Answers, Finding, Stored


@dataclass(frozen=True, slots=True)
class Repeated:
    """One check of a claim, judged by each repetition of an experiment."""

    claim: str
    measure: str
    verdicts: tuple[Verdict, ...]

    @property
    def agrees(self) -> bool:
        return len(set(self.verdicts)) == 1


@dataclass(frozen=True, slots=True)
class Close:
    """A verdict of an experiment, and how far its interval is from another verdict."""

    claim: str
    experiment: str
    measure: str
    verdict: Verdict
    margin: float
    """See :func:`margin`."""


def judged(check: Check, finding: Finding, busy: str = "") -> Verdict:
    """Return the verdict of one finding; ``busy`` says what disturbed a clock, empty if nothing."""
    if finding.doubt or (finding.timed and busy):
        return "inconclusive"
    return check.claimed.judge(*_interval(finding))


def margin(claimed: Claimed, low: float, high: float) -> float:
    """Return the least distance from an interval to an end of the claimed range.

    The distance is a share of that end; for an end at 0 it is in the unit of the finding. It is 0
    where the end lies inside the interval.
    """
    ends = [end for end in (claimed.at_least, claimed.at_most) if end is not None]
    distances = [max(low - end, end - high, 0.0) / (abs(end) if end else 1.0) for end in ends]
    return min(distances, default=float("inf"))


def repeated(name: str, answers: Sequence[Stored], ledger: Iterable[Claim]) -> list[Repeated]:
    """Return every check that an experiment decides, with the verdict of each answer.

    The verdict of an answer that lacks the measure is ``needs``.
    """
    found = []
    for claim, check in _checks(ledger):
        if check["name"] != name:
            continue
        verdicts: list[Verdict] = []
        for one in answers:
            finding = one.finding(check["measure"])
            verdicts.append("needs" if finding is None else judged(check, finding, one.busy))
        found.append(Repeated(claim.id, check["measure"], tuple(verdicts)))
    return found


def closest(answers: Answers, ledger: Iterable[Claim], count: int) -> list[Close]:
    """Return the ``count`` verdicts nearest to another verdict, at most one for each experiment.

    Exact findings, such as counts, are left out, because a repetition gives the same number.
    """
    nearest: dict[str, Close] = {}
    for claim, check in _checks(ledger):
        for stored, finding in answers.newest(check["name"], check["measure"]).values():
            if finding.interval is None:
                continue
            one = Close(
                claim.id,
                check["name"],
                check["measure"],
                judged(check, finding, stored.busy),
                margin(check.claimed, *finding.interval),
            )
            before = nearest.get(one.experiment)
            if before is None or one.margin < before.margin:
                nearest[one.experiment] = one
    return sorted(nearest.values(), key=lambda one: one.margin)[:count]


def _checks(ledger: Iterable[Claim]) -> Iterator[tuple[Claim, Check]]:
    for claim in ledger:
        for check in claim.checks:
            if check.kind == "experiment":
                yield claim, check


def _interval(finding: Finding) -> tuple[float, float]:
    return finding.interval or (finding.value, finding.value)
