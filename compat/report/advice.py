"""Recommend a configuration: the fastest that keeps the limits, and why each other one lost.

Times are compared only within one machine and one set of weights, because times of two machines, or
of a published checkpoint and of generated weights, answer different questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compat.contract.errors import CompatError
from compat.report import text
from compat.report.candidates import (
    Candidate,
    Limits,
    candidates,
    matching,
    on_hardware,
    points,
    ran,
    unusable,
)
from compat.report.measures import Measure
from compat.report.model import Configuration, Report

ALIKE = 0.05
"""Relative difference (0.05 is 5 %) up to which two times with overlapping intervals are equal."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommendation for one model on one machine."""

    machine: str
    subject: str
    best: Candidate | None
    usable: tuple[Candidate, ...]
    """All candidates that keep the limits, fastest first."""
    front: tuple[Candidate, ...]
    """The usable candidates on the Pareto front of time, loss and memory."""
    lost: tuple[tuple[Candidate, str], ...]
    """Every other candidate that was measured, with one sentence on why it lost."""
    notes: tuple[str, ...] = ()
    """Sentences on what the evidence does not show, or shows only in part."""
    elsewhere: tuple[tuple[str, str, int], ...] = ()
    """Other machines and models with a usable answer: machine, subject, number of candidates."""


def advise(report: Report, wanted: str, limits: Limits, here: str = "") -> Advice:
    """Return the best configuration of a row, family or variant within limits.

    ``wanted`` names the row, family or variant; ``here`` is the id of the machine that is preferred
    where ``limits`` name none.

    Raises:
        CompatError: the report has no such model, or no such machine.
    """
    fitting = [one for one in matching(report, wanted) if on_hardware(one, limits)]
    if limits.machine and not any(m.id.startswith(limits.machine) for m in report.machines):
        known = ", ".join(machine.id for machine in report.machines)
        raise CompatError(f"no results of machine {limits.machine}.", f"There are {known}.")
    fitting = [one for one in fitting if one.machine.startswith(limits.machine)]
    groups: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for one in fitting:
        for candidate in candidates(one, wanted):
            groups[one.machine, candidate.subject].append(candidate)
    usable = {key: _usable(group, limits) for key, group in groups.items()}
    timed = {key: [one for one in group if one.time] for key, group in groups.items()}

    def worth(key: tuple[str, str]) -> tuple[object, ...]:
        machine, subject = key
        published = subject.endswith("@pretrained")
        return machine == here, published, len(usable[key]), len(timed[key]), machine, subject

    if not groups:
        return Advice("", wanted, None, (), (), (), _nothing(report, wanted, limits))
    chosen = max(groups, key=lambda key: (bool(usable[key]), bool(timed[key]), *worth(key)))
    machine, subject = chosen
    good = sorted(usable[chosen], key=lambda one: (one.seconds, one.name))
    best = _best(good, limits)
    lost = [
        (one, _why(one, best, limits))
        for one in sorted(groups[chosen], key=lambda one: (one.seconds, one.name))
        if one is not best and ran(one)
    ]
    others = sorted((*key, len(found)) for key, found in usable.items() if found and key != chosen)
    return Advice(
        machine,
        subject,
        best,
        tuple(good),
        front(good),
        tuple(lost),
        tuple(_notes(fitting, best, limits)),
        tuple(others),
    )


def front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the Pareto front: candidates that no other one beats.

    A candidate beats another if it is at least as good in time, loss and memory, and better in one.
    """

    def beaten(one: Candidate) -> bool:
        mine = one.coordinates
        return any(
            other.coordinates != mine
            and all(theirs <= own for theirs, own in zip(other.coordinates, mine, strict=True))
            for other in candidates
        )

    return tuple(one for one in candidates if not beaten(one))


def _usable(group: Iterable[Candidate], limits: Limits) -> list[Candidate]:
    return [one for one in group if not unusable(one, limits)]


def _tier(one: Candidate, limits: Limits) -> tuple[bool, bool, bool]:
    """Return a sort key that goes before speed, the best tier first.

    Candidates that fail the stress list come last; before them, candidates that may lose accuracy.
    """
    robust, accurate = one.states.get("robust"), one.states.get("accurate")
    # A limit of loss takes the place of the accuracy gate: the person chose what is accurate.
    return robust == "failed", limits.loss is None and accurate != "strict", robust != "strict"


def _best(usable: Sequence[Candidate], limits: Limits) -> Candidate | None:
    """Return the fastest candidate of the best tier; among equally fast ones, the most accurate."""
    if not usable:
        return None
    tier = min(_tier(one, limits) for one in usable)
    same = [one for one in usable if _tier(one, limits) == tier]
    fastest = min(same, key=lambda one: one.seconds)
    alike = [one for one in same if _alike(one, fastest)]
    return min(alike, key=lambda one: (*one.coordinates[1:], one.seconds, one.name))


def _alike(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates are equally fast, given the intervals of their times."""
    low, high = sorted((one.seconds, other.seconds))
    return high <= low * (1 + ALIKE) and _overlap(one.time, other.time)


def _overlap(one: Measure | None, other: Measure | None) -> bool:
    if one is None or other is None:
        return False
    mine, theirs = (m.interval or (m.value, m.value) for m in (one, other))
    return mine[0] <= theirs[1] and theirs[0] <= mine[1]


def _why(one: Candidate, best: Candidate | None, limits: Limits) -> str:
    """Say in one sentence why a candidate is not the answer."""
    reason = unusable(one, limits)
    if reason or best is None:
        return reason
    factor = one.seconds / best.seconds
    if _alike(one, best):
        pace = "as fast"
    elif factor < 1:
        pace = f"{text.ratio(1 / factor)} as fast"
    else:
        pace = f"takes {text.ratio(factor)} the time"
        if _overlap(one.time, best.time):
            pace += ", within the noise of both"
    if _tier(one, limits) != _tier(best, limits):
        return f"{pace}, but {_worse_tier(one, limits)}"
    _, loss, memory = one.coordinates
    _, least, smallest = best.coordinates
    gains = []
    if loss < least and one.loss:
        gains.append(f"loses less ({one.loss.shown()})")
    if memory < smallest and one.memory is not None:
        gains.append(f"needs less memory ({text.data_size(one.memory)})")
    return f"{pace}, but {' and '.join(gains)}" if gains else f"{pace}, and gains nothing"


def _worse_tier(one: Candidate, limits: Limits) -> str:
    states = one.states
    if states.get("robust") == "failed":
        return "fails on hard inputs (robust failed)"
    if limits.loss is None and states.get("accurate") != "strict":
        lost = f": {one.loss.with_interval}" if one.loss else ""
        return f"meets the relaxed limits of accuracy only{lost}"
    return f"robust is {states.get('robust')}"


def _notes(
    fitting: Sequence[Configuration], best: Candidate | None, limits: Limits
) -> Iterable[str]:
    """Yield sentences on what the evidence does not show, or shows only in part."""
    ran = [one for one in fitting if one.rating.kind not in ("not-measured", "stale")]
    evidence = Counter(one.evidence for one in ran)
    if best is None:
        if not ran:
            yield "Nothing of it ran: absent hardware, or no run that went so far."
        elif not evidence["device"]:
            kinds = " and ".join(f"{count} of {kind}s" for kind, count in sorted(evidence.items()))
            yield (
                f"The evidence cannot answer: it is {kinds}, which show support and accuracy, "
                "never speed."
            )
        elif all(one.figures.median_s is None for one in ran if one.evidence == "device"):
            yield "The evidence cannot answer: none of it was ever timed."
        else:
            yield "No configuration keeps what was asked for."
        return
    if best.loss_of and best.loss_of != best.subject:
        yield (
            f"What is lost was measured on the stand-in {best.loss_of}: what the published weights "
            "lose is not known."
        )
    elif best.loss is None:
        yield "What it loses against the reference is not known."
    if best.subject.endswith("@seeded"):
        yield f"Times are those of generated weights ({best.subject}), of the published size."
    if limits.loss is not None and best.loss is not None and best.loss.interval:
        upper = best.loss.interval[1]
        if upper > points(limits.loss, best.loss):
            yield f"Its loss may be up to {best.loss.shown(upper)}: the recordings are too few."
    never = len(fitting) - len(ran)
    if never:
        yield f"{never} configurations were planned there and never ran."


def _nothing(report: Report, wanted: str, limits: Limits) -> tuple[str, ...]:
    where = ", ".join(limits.hardware) or "any hardware"
    there = sorted({one.target for one in matching(report, wanted)})
    shown = ", ".join(map(text.one_line, there[:12])) + (" …" if len(there) > 12 else "")
    on = f" on machine {limits.machine}" if limits.machine else ""
    return (f"No run planned it for {text.one_line(where)}{on}. Its targets are {shown}.",)
