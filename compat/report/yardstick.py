"""Find the CPU configuration to compare an accelerator with: the fastest accurate one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compat.metrics.timing import crowding
from compat.report import text
from compat.report.findings import LATENCY, NUMERICS, judge
from compat.report.model import Record

if TYPE_CHECKING:
    from compat.report.gates import Draft


@dataclass(frozen=True, slots=True)
class Processor:
    """The CPU configuration that an accelerator is compared with."""

    name: str
    lower_s: float
    anchor: str


class Yardsticks:
    """The fastest CPU configuration of every model on every machine.

    The fastest one has the smallest lower bound of its time. So a speed-up over it is a lower bound
    over all CPU configurations of that model. Configurations whose accuracy failed, or whose timing
    other processes disturbed, are left out.
    """

    def __init__(self, drafts: Iterable[Draft]) -> None:
        self._found: dict[tuple[str, str, str, str], Processor] = {}
        by_family: dict[tuple[str, str], list[Draft]] = defaultdict(list)
        for draft in drafts:
            if draft.facts.on_host_cpu and draft.facts.evidence == "device":
                by_family[draft.machine, draft.family].append(draft)
        for (machine, family), alike in by_family.items():
            for draft in alike:
                self._add(machine, family, draft)

    def _add(self, machine: str, family: str, draft: Draft) -> None:
        if draft.accurate.state == "failed":
            return
        for case in draft.cases:
            about = next(iter(case.values())).case
            span = seconds(case.get(LATENCY))
            if span is None or crowded(case[LATENCY]):
                continue  # Undisturbed it would have been faster, by an unknown amount.
            if case is not draft.subject and judge(case.get(NUMERICS), "").state == "failed":
                continue
            key = (machine, family, about.variant, about.weights)
            if key not in self._found or span[0] < self._found[key].lower_s:
                name = f"{draft.facts.target} {draft.facts.recipe}"
                self._found[key] = Processor(name, span[0], case[LATENCY].anchor)

    def of(self, draft: Draft) -> Processor | None:
        """Return the CPU configuration of a draft's variant, weights and machine; None for none."""
        facts = draft.facts
        return self._found.get((draft.machine, draft.family, facts.variant, facts.weights))


def seconds(record: Record | None) -> tuple[float, float] | None:
    """Return the interval of the median task time in seconds; None where it was not settled."""
    if record is None or record.observation is None or not record.measured:
        return None
    if record.status not in ("passed", "failed", "known-failure", "unexpected-pass"):
        return None
    limits = record.observation.limits
    if record.status == "failed" and all(one.level != "failed" for one in limits):
        return None  # The timing itself was faulty; no limit failed for being slow.
    values = record.observation.values
    middle = text.number(values.get("median_s"))
    pair = text.interval(values.get("interval_s"))
    if pair is None and middle is not None:
        pair = (middle, middle)
    return pair if pair is not None and 0 < pair[0] <= pair[1] else None


def crowded(record: Record | None) -> str:
    """Say that other processes used the processors during a timing; empty if they did not."""
    one = record.observation if record is not None else None
    return crowding(one.values, one.threads) if one is not None else ""
