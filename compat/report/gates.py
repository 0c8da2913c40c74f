"""Judge one configuration: its gates, its rating, and the reasons that limit the rating."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from typing import cast

from compat.contract.case import Evidence, Recipe
from compat.judge import rating
from compat.judge.rating import Caps, Gates, State
from compat.judge.results import CaseFacts
from compat.report import reasons, text
from compat.report.evidence import kind
from compat.report.figures import figures
from compat.report.findings import (
    LATENCY,
    LOADS,
    MEMORY,
    NUMERICS,
    PLACED,
    STRESS,
    TASK,
    THROUGHPUT,
    Finding,
    judge,
    told,
    worst,
)
from compat.report.model import Configuration, Gate, Record
from compat.report.yardstick import Processor, crowded, seconds

STRICT_SPEED_UP, RELAXED_SPEED_UP = 1.5, 1.0


class Draft:
    """One configuration while it is being judged."""

    def __init__(
        self,
        family: str,
        target: str,
        recipe: str,
        machine: str,
        cases: Sequence[dict[str, Record]],
        has_stand_in: bool,
    ) -> None:
        self.family, self.target, self.recipe, self.machine = family, target, recipe, machine
        self.cases = tuple(case for case in cases if case)
        self.headline = self._best_case(lambda about: about.headline)
        self.stand_in = self._best_case(lambda about: about.stand_in)
        self.has_stand_in = has_stand_in or any(one.measured for one in self.stand_in.values())
        self.smaller = self._smaller()
        self.small = self._small()
        """The smallest variant that ran, where no published size ran."""
        self.subject = self.small or self.smaller or self.headline
        """The case on which every gate but *loads* is judged."""
        self.facts = _about(self.subject or self.stand_in or self.cases[0])
        self.accurate, self.weights = self._accurate()

    def _best_case(self, wanted: Callable[[CaseFacts], bool]) -> dict[str, Record]:
        """Return the checks of the best case that fits; empty where none does.

        Measured cases come first, then published weights, then generated ones.
        """
        order = {"pretrained": 0, "seeded": 1, "trained": 2}
        fitting = [case for case in self.cases if wanted(_about(case))]
        return min(
            fitting,
            key=lambda case: (
                not any(record.measured for record in case.values()),
                order.get(_about(case).weights, 3),
                _about(case).id,
            ),
            default={},
        )

    def case(self, variant: str, weights: str) -> dict[str, Record]:
        """Return the checks of a case; empty where it is not part of the configuration."""
        wanted = (variant, weights)
        fitting = (c for c in self.cases if (_about(c).variant, _about(c).weights) == wanted)
        return next(fitting, {})

    def _smaller(self) -> dict[str, Record]:
        """Return the smallest published variant that loads, where the headline variant does not.

        A headline variant that ran and gave nonsense keeps its own findings.
        """
        record = self.headline.get(LOADS)
        if record is None or (record.observation is not None and record.observation.values):
            return {}
        if record.status != "unsupported" and judge(record, "").state != "failed":
            return {}
        size = _about(self.headline).parameters
        loading = [
            case
            for case in self.cases
            if _about(case).published
            and _about(case).parameters < size
            and judge(case.get(LOADS), "").state in ("strict", "relaxed")
        ]
        return min(loading, key=lambda case: (_about(case).parameters, _about(case).id), default={})

    def _small(self) -> dict[str, Record]:
        """Return the smallest variant that ran; empty where a published or headline one ran."""
        ran = [case for case in self.cases if any(one.measured for one in case.values())]
        if any(_about(case).published or _about(case).headline for case in ran):
            return {}
        return min(ran, key=lambda case: (_about(case).parameters, _about(case).id), default={})

    def _accurate(self) -> tuple[Finding, rating.Weights]:
        """Judge accuracy, and say which weights the task metric came from."""
        numerics = ("numerics", judge(self.subject.get(NUMERICS), "the numerics check"))
        own = self.subject and _about(self.subject).weights
        if own == "seeded" and Recipe(self.recipe).quantised:
            return self._accurate_integers()
        if own == "pretrained" or (own == "trained" and not self.has_stand_in):
            task = judge(self.subject.get(TASK), "the task metric")
            return worst([("task", task), numerics]), cast(rating.Weights, own)
        if self.has_stand_in:
            task = judge(self.stand_in.get(TASK), "the task metric of the trained stand-in")
            parts = [("task, stand-in", task), numerics]
            if NUMERICS in self.stand_in:
                # The rule asks for less, but a stand-in whose own numerics failed is no evidence.
                own_numerics = judge(self.stand_in[NUMERICS], "")
                if own_numerics.state == "failed":
                    parts.append(("numerics, stand-in", own_numerics))
            return worst(parts), "trained"
        return worst([numerics]), "seeded"

    def _accurate_integers(self) -> tuple[Finding, rating.Weights]:
        """Judge the accuracy of an integer recipe with generated weights by the trained stand-in.

        The error of rounding to integers depends on the spread of the weights. Generated weights
        would refute recipes that are sound on published ones, so they do not count.
        """
        if not self.has_stand_in:
            reason = "generated weights do not decide the accuracy of an integer recipe"
            return Finding("unknown", reason), "seeded"
        task = judge(self.stand_in.get(TASK), "the task metric of the trained stand-in")
        numerics = judge(self.stand_in.get(NUMERICS), "the numerics of the trained stand-in")
        parts = [("task, stand-in", task), ("numerics, stand-in", numerics)]
        return worst(parts), "trained"

    def _loads(self) -> tuple[Finding, str]:
        """Judge loading; also return the reason where the runtime does not support the model."""
        record = (self.small or self.headline).get(LOADS)
        finding = judge(record, self.facts.variant if self.small else "the headline variant")
        if self.small and finding.state in ("strict", "relaxed"):
            reason = f"{self.facts.variant} loads; no published size ran, and it is judged instead"
            finding = Finding("relaxed", reason, finding.evidence)
        if self.smaller:
            small, large = self.facts.variant, _about(self.headline).variant
            reason = (
                f"{small} loads, {large} does not ({finding.reason}); "
                f"everything else is judged on {small}"
            )
            return Finding("relaxed", reason, (*finding.evidence, self.smaller[LOADS].anchor)), ""
        unable = record is not None and record.status == "unsupported"
        return finding, (record.reason or "unsupported") if record and unable else ""

    def _robust(self) -> Finding:
        name = self.facts.variant if self.smaller or self.small else "headline"
        parts = [(name, judge(self.subject.get(STRESS), "the stress list"))]
        if STRESS in self.stand_in and self.stand_in is not self.subject:
            second = judge(self.stand_in[STRESS], "")
            if second.state != "unknown":
                parts.append(("stand-in", second))
        return worst(parts)

    def _worthwhile(self, processor: Processor | None) -> tuple[Finding, float | None]:
        record = self.subject.get(LATENCY)
        seen = (record.anchor,) if record else ()
        mine = seconds(record)
        if mine is None:
            return Finding("unknown", "its own latency is not known", seen), None
        if processor is None:
            reason = (
                "no accurate CPU configuration was timed on this machine, left alone by other "
                "processes, with these weights"
            )
            return Finding("unknown", reason, seen), None
        speed_up = processor.lower_s / mine[1]
        if speed_up >= STRICT_SPEED_UP:
            state: State = "strict"
        else:
            state = "relaxed" if speed_up >= RELAXED_SPEED_UP else "failed"
        reason = reasons.slower(speed_up, processor.name, processor.lower_s, mine[1])
        others = crowded(record)
        if state == "failed" and others:
            state, reason = "unknown", f"{others}; {reason}"
        return Finding(state, reason, (*seen, processor.anchor)), speed_up

    def _of_published(self, name: str, finding: Finding) -> Finding:
        """Return what a finding of an unpublished small size shows for a published size.

        A larger size has the same operators, so a failure to load, to be accurate or to be robust
        holds for it too. A small size does not show a larger one's memory and time, nor whether a
        device is worth its overhead: those findings become unknown.
        """
        telling = finding.state == "failed" and name in ("loads", "accurate", "robust")
        if telling or finding.state in ("not-applicable", "unknown"):
            return finding
        return Finding("unknown", f"{self.facts.variant} alone ran", finding.evidence)

    def finish(
        self, processor: Processor | None, machine_short: str, machine_name: str
    ) -> Configuration:
        facts = self.facts
        on_device = facts.evidence == "device"
        loads, unsupported = self._loads()
        absent = Finding("not-applicable", "")
        findings = {
            "loads": loads,
            "placed": absent,
            "accurate": self.accurate,
            "robust": self._robust(),
            "real_time": absent,
            "worthwhile": absent,
        }
        speed_up = None
        if facts.on_host_cpu:
            findings["placed"] = replace(absent, reason="the target is the host CPU")
            findings["worthwhile"] = findings["placed"]
        elif facts.evidence == "conversion":
            findings["placed"] = replace(absent, reason="no device executes a conversion")
        else:
            findings["placed"] = judge(self.subject.get(PLACED), "placement")
        if not facts.timed:
            untimed = replace(absent, reason="the task has no time meaning")
            findings["real_time"] = findings["worthwhile"] = untimed
        elif not on_device:
            never = replace(absent, reason=f"{facts.evidence} evidence says nothing of speed")
            findings["real_time"] = findings["worthwhile"] = never
        else:
            findings["real_time"] = judge(self.subject.get(LATENCY), "the latency check")
            if not facts.on_host_cpu:
                findings["worthwhile"], speed_up = self._worthwhile(processor)
        if self.small and on_device:
            findings = {name: self._of_published(name, one) for name, one in findings.items()}
            speed_up = None
        judged = {name: finding.state for name, finding in findings.items()}
        deciding = [
            *self.headline.values(),
            *self.smaller.values(),
            *self.small.values(),
            *self.stand_in.values(),
        ]
        caps = Caps(
            weights=self.weights,
            quantised=Recipe(self.recipe).quantised,
            evidence=cast(
                Evidence, facts.evidence if facts.evidence in _EVIDENCE else "conversion"
            ),
            measured=any(record.measured for record in deciding),
            stale=any(record.status == "stale" for record in deciding),
            unsupported=unsupported,
            small=bool(self.small),
            own=tuple(sorted({word for r in deciding if r.measured for word in r.own})),
        )
        result = rating.rate(Gates(**judged), caps)
        gates = tuple(
            Gate(
                name,
                rating.GATES[name],
                finding.state,
                finding.reason,
                *ASKED[name][:2],
                finding.said,
                finding.evidence,
            )
            for name, finding in findings.items()
        )
        key = (self.family, self.target, self.recipe, self.machine)
        return Configuration(
            id="/".join(key),
            anchor=text.page_name(*key),
            row=facts.row,
            family=facts.family,
            task=facts.task,
            hardware=facts.hardware,
            runtime=facts.runtime,
            target=facts.target,
            recipe=facts.recipe,
            precision=facts.precision,
            evidence=facts.evidence,
            on_host_cpu=facts.on_host_cpu,
            machine=self.machine,
            machine_short=machine_short,
            variant=f"{facts.variant}@{facts.weights}",
            rating=result,
            gates=gates,
            why=_why(
                result,
                gates,
                deciding,
                headline_ran=bool(self.headline),
                small=facts.variant if self.small and on_device else "",
            ),
            # Figures of a small size would flatter the published one, which is larger and slower.
            figures=figures(
                self.headline if self.small and on_device else self.subject,
                self.stand_in,
                facts.weights != "seeded",
                speed_up,
            ),
            records=tuple(
                record
                for case in sorted(
                    self.cases,
                    key=lambda c: (
                        c is not self.headline,
                        c is not self.subject,
                        c is not self.stand_in,
                        _about(c).id,
                    ),
                )
                for record in sorted(case.values(), key=lambda r: _check_order(r.check))
            ),
            kind=kind(facts, result.kind != "not-measured"),
            machine_name=machine_name,
            measured=_days(self.cases, {anchor for gate in gates for anchor in gate.evidence}),
        )


_EVIDENCE = ("device", "emulator", "conversion")

ASKED = {
    "loads": (
        "compiles and runs every standard input",
        "the smallest published variant does, and is judged in its place",
        "always",
        LOADS,
    ),
    "placed": ("≥ 95 % on the target", "≥ 50 %", "not on the host CPU", PLACED),
    "accurate": (
        "degradation and numerics within strict thresholds",
        "within relaxed ones",
        "always",
        f"{TASK}, {NUMERICS}, the worse",
    ),
    "robust": (
        "every stress input as good as the reference, no crash, hang or NaN",
        "no crash",
        "always",
        f"{STRESS} of headline and stand-in, the worse",
    ),
    "real_time": (
        "upper bound of RTF ≤ 0.5, and the family's published target on its hardware",
        "≤ 1",
        "tasks with a time meaning, on real devices",
        LATENCY,
    ),
    "worthwhile": (
        "≥ 1.5 × the best accurate CPU configuration of that machine, lower bound",
        "≥ 1 ×",
        "not on the host CPU; tasks with a time meaning, on real devices",
        f"{LATENCY} of both",
    ),
}
"""Maps each gate to four texts: what strict asks, what relaxed asks, where it applies, its checks.

The limits of the checks decide; these texts only describe them."""

_ORDER = (LOADS, PLACED, TASK, NUMERICS, LATENCY, THROUGHPUT, MEMORY, STRESS)


def _check_order(check: str) -> tuple[int, str]:
    return (_ORDER.index(check) if check in _ORDER else len(_ORDER), check)


def _about(case: dict[str, Record]) -> CaseFacts:
    return next(iter(case.values())).case


def _days(cases: Iterable[dict[str, Record]], anchors: Container[str]) -> tuple[str, str]:
    """Return the days of the oldest and the newest observation among the records with anchors.

    Days look like ``2026-11-28``; both are empty where there is no observation.
    """
    times = [
        record.observation.time[:10]
        for case in cases
        for record in case.values()
        if record.anchor in anchors and record.observation is not None and record.measured
    ]
    days = sorted(day for day in times if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", day))
    return (days[0], days[-1]) if days else ("", "")


def _why(
    result: rating.Rating,
    gates: Sequence[Gate],
    records: Sequence[Record],
    headline_ran: bool,
    small: str,
) -> tuple[str, ...]:
    """Return sentences on what limits a rating, or on why there is none."""
    if result.unsupported:
        return (f"unsupported: {reasons.clause(result.unsupported)}",)
    if result.kind == "not-measured":
        skips = sorted({told(r.status, r.reason) for r in records if r.status == "skipped"})
        other = sorted({r.reason for r in records if r.status in ("not-run", "cut-off")})
        remedies = sorted(
            {
                r.observation.remedy
                for r in records
                if r.observation is not None and r.observation.remedy
            }
        )
        return tuple(dict.fromkeys((*skips, *other, *(f"remedy: {one}" for one in remedies)))) or (
            "nothing that decides a gate was planned",
        )
    if result.kind == "stale":
        return tuple(sorted({r.reason for r in records if r.status == "stale"}))
    lines = []
    fatal = [g for g in gates if g.state == "failed" and g.key in ("loads", "accurate")]
    for gate in fatal or [g for g in gates if g.state in ("failed", "relaxed")]:
        lines.append(f"{gate.name} {gate.state}: {gate.said}")
    if result.cap and not fatal:
        lines.append(f"at most Medium: {result.cap}")
    unknown = [] if fatal else [gate for gate in gates if gate.state == "unknown"]
    if unknown and small:
        names = ", ".join(gate.name for gate in unknown)
        lines.append(f"{small} alone ran, a size that nobody published, so unknown: {names}")
    elif unknown and not headline_ran:
        # All unknown gates have this one cause, so one line names them all.
        names = ", ".join(gate.name for gate in unknown)
        lines.append(f"the headline variant was not part of any run, so unknown: {names}")
    else:
        lines += [f"{gate.name} unknown: {gate.said}" for gate in unknown]
    return tuple(lines)
