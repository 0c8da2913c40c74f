"""From the records of one configuration to its gates, its rating and what limits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from compat.contract.case import Evidence, Recipe
from compat.judge import rating
from compat.judge.rating import Caps, Gates, State
from compat.judge.results import CaseFacts, Limit, Observation
from compat.metrics import POOLED
from compat.metrics.timing import crowding
from compat.report import text
from compat.report.model import Configuration, Figures, Gate, Record

LOADS, PLACED = "support.loads", "support.placed"
TASK, NUMERICS = "accuracy.task", "accuracy.numerics"
LATENCY, THROUGHPUT = "latency.task", "latency.throughput"
MEMORY, STRESS = "memory.peak", "robustness.stress"

STRICT_SPEED_UP, RELAXED_SPEED_UP = 1.5, 1.0

_FAILURES = ("failed", "timeout", "crashed", "out-of-memory", "known-failure")
_STATES: tuple[State, ...] = ("failed", "unknown", "relaxed", "strict")
"""From worst to best: an unknown part cannot be outweighed by a known good one."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one gate came to, before it has a name."""

    state: State
    reason: str
    evidence: tuple[str, ...] = ()


def _judge(record: Record | None, what: str) -> _Finding:
    """Turn one record into the state of the gate that rests on it."""
    if record is None:
        return _Finding("unknown", f"{what} was not part of any run")
    one, seen = record.observation, (record.anchor,)
    if one is None or not record.measured or record.status in ("inconclusive", "unsupported"):
        return _Finding("unknown", _said(record.status, record.reason), seen)
    reason = _said(record.status, record.reason) if record.reason else _limits(one)
    if record.status == "timeout" and record.case.evidence == "emulator":
        # Evidence of support and accuracy, never of speed: it was too slow to give any.
        return _Finding("unknown", f"{reason} (of an emulator, not of the hardware)", seen)
    if one.level is not None:
        return _Finding(one.level, reason or record.status, seen)
    if record.status == "error":
        # An input, a disk or the suite itself may be to blame: where it was the case, a level
        # says so.
        return _Finding("unknown", reason or "error", seen)
    failed = record.status in _FAILURES
    return _Finding("failed" if failed else "strict", reason or record.status, seen)


def _said(status: str, reason: str) -> str:
    return f"{status}: {reason}" if reason and not reason.startswith(status) else reason or status


def _limits(one: Observation) -> str:
    """Say which thresholds were missed, or that all were met."""
    missed = [limit for limit in one.limits if limit.level != "strict"]
    if not missed:
        if len(one.limits) == 1:
            return f"threshold met: {_limit(one.limits[0], one)}"
        return f"all {len(one.limits)} thresholds met" if one.limits else ""
    return "; ".join(_limit(limit, one) for limit in missed)


def _limit(one: Limit, seen: Observation) -> str:
    found, strict, relaxed = text.limit(one, seen.values, seen.metrics)
    return f"{one.metric} {found} (strict {strict}, relaxed {relaxed})"


def _worst(parts: Sequence[tuple[str, _Finding]]) -> _Finding:
    """Combine findings: the worst state counts, and the reason names whose it is."""
    state = min((part.state for _, part in parts), key=_STATES.index)
    deciding = [(name, part) for name, part in parts if part.state == state]
    reason = "; ".join(f"{name}: {part.reason}" for name, part in deciding)
    return _Finding(state, reason, tuple(a for _, part in parts for a in part.evidence))


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
        self.subject = self.smaller or self.headline
        """The case that everything but loading is judged on."""
        self.facts = _about(self.subject or self.stand_in or self.cases[0])
        self.accurate, self.weights = self._accurate()

    def _best_case(self, wanted: Callable[[CaseFacts], bool]) -> dict[str, Record]:
        """Return the checks of the wanted case: one that was measured, weights by preference."""
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
        """Return the smallest published variant that loads, where the headline does not.

        A headline that ran and gave nonsense has findings of its own, which nothing replaces.
        """
        record = self.headline.get(LOADS)
        if record is None or (record.observation is not None and record.observation.values):
            return {}
        if record.status != "unsupported" and _judge(record, "").state != "failed":
            return {}
        size = _about(self.headline).parameters
        loading = [
            case
            for case in self.cases
            if _about(case).published
            and _about(case).parameters < size
            and _judge(case.get(LOADS), "").state in ("strict", "relaxed")
        ]
        return min(loading, key=lambda case: (_about(case).parameters, _about(case).id), default={})

    def _accurate(self) -> tuple[_Finding, rating.Weights]:
        """Judge accuracy, and say which weights the task metric came from."""
        numerics = ("numerics", _judge(self.subject.get(NUMERICS), "the numerics check"))
        own = self.subject and _about(self.subject).weights
        if own == "seeded" and Recipe(self.recipe).quantised:
            return self._accurate_integers()
        if own == "pretrained" or (own == "trained" and not self.has_stand_in):
            task = _judge(self.subject.get(TASK), "the task metric")
            return _worst([("task", task), numerics]), cast(rating.Weights, own)
        if self.has_stand_in:
            task = _judge(self.stand_in.get(TASK), "the task metric of the trained stand-in")
            parts = [("task, stand-in", task), numerics]
            if NUMERICS in self.stand_in:
                # Beyond the rule's minimum: a stand-in whose own numerics failed is no evidence.
                own_numerics = _judge(self.stand_in[NUMERICS], "")
                if own_numerics.state == "failed":
                    parts.append(("numerics, stand-in", own_numerics))
            return _worst(parts), "trained"
        return _worst([numerics]), "seeded"

    def _accurate_integers(self) -> tuple[_Finding, rating.Weights]:
        """Judge an integer recipe of generated weights by the trained stand-in alone.

        How far rounding to integers errs depends on the spread of the weights themselves, so that
        generated ones refute recipes that are sound on published ones.
        """
        if not self.has_stand_in:
            reason = "generated weights do not decide the accuracy of an integer recipe"
            return _Finding("unknown", reason), "seeded"
        task = _judge(self.stand_in.get(TASK), "the task metric of the trained stand-in")
        numerics = _judge(self.stand_in.get(NUMERICS), "the numerics of the trained stand-in")
        parts = [("task, stand-in", task), ("numerics, stand-in", numerics)]
        return _worst(parts), "trained"

    def _loads(self) -> tuple[_Finding, str]:
        """Judge loading; also return the runtime's reason where it proved to be unable."""
        record = self.headline.get(LOADS)
        finding = _judge(record, "the headline variant")
        if self.smaller:
            small, large = self.facts.variant, _about(self.headline).variant
            reason = (
                f"{small} loads, {large} does not ({finding.reason}); "
                f"everything else is judged on {small}"
            )
            return _Finding("relaxed", reason, (*finding.evidence, self.smaller[LOADS].anchor)), ""
        unable = record is not None and record.status == "unsupported"
        return finding, (record.reason or "unsupported") if record and unable else ""

    def _robust(self) -> _Finding:
        name = self.facts.variant if self.smaller else "headline"
        parts = [(name, _judge(self.subject.get(STRESS), "the stress list"))]
        if STRESS in self.stand_in and self.stand_in is not self.subject:
            second = _judge(self.stand_in[STRESS], "")
            if second.state != "unknown":
                parts.append(("stand-in", second))
        return _worst(parts)

    def _worthwhile(self, processor: Processor | None) -> tuple[_Finding, float | None]:
        record = self.subject.get(LATENCY)
        seen = (record.anchor,) if record else ()
        mine = _seconds(record)
        if mine is None:
            return _Finding("unknown", "its own latency is not known", seen), None
        if processor is None:
            reason = (
                "no accurate CPU configuration was timed on this machine, left alone by other "
                "processes, with these weights"
            )
            return _Finding("unknown", reason, seen), None
        speed_up = processor.lower_s / mine[1]
        if speed_up >= STRICT_SPEED_UP:
            state: State = "strict"
        else:
            state = "relaxed" if speed_up >= RELAXED_SPEED_UP else "failed"
        reason = (
            f"at least {text.ratio(speed_up)} the speed of {processor.name} "
            f"({text.duration(processor.lower_s)} ÷ {text.duration(mine[1])})"
        )
        crowded = _crowding(record)
        if state == "failed" and crowded:
            state, reason = "unknown", f"{crowded}; {reason}"
        return _Finding(state, reason, (*seen, processor.anchor)), speed_up

    def finish(self, processor: Processor | None, machine_short: str) -> Configuration:
        facts = self.facts
        on_device = facts.evidence == "device"
        loads, unsupported = self._loads()
        absent = _Finding("not-applicable", "")
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
            findings["placed"] = _judge(self.subject.get(PLACED), "placement")
        if not facts.timed:
            untimed = replace(absent, reason="the task has no time meaning")
            findings["real_time"] = findings["worthwhile"] = untimed
        elif not on_device:
            never = replace(absent, reason=f"{facts.evidence} evidence says nothing of speed")
            findings["real_time"] = findings["worthwhile"] = never
        else:
            findings["real_time"] = _judge(self.subject.get(LATENCY), "the latency check")
            if not facts.on_host_cpu:
                findings["worthwhile"], speed_up = self._worthwhile(processor)
        judged = {name: finding.state for name, finding in findings.items()}
        deciding = [
            *self.headline.values(),
            *self.smaller.values(),
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
            own=tuple(sorted({word for r in deciding if r.measured for word in r.own})),
        )
        result = rating.rate(Gates(**judged), caps)
        gates = tuple(
            Gate(
                name,
                rating.GATES[name],
                finding.state,
                finding.reason,
                *_THRESHOLDS[name],
                evidence=finding.evidence,
            )
            for name, finding in findings.items()
        )
        key = (self.family, self.target, self.recipe, self.machine)
        return Configuration(
            id="/".join(key),
            anchor=text.slug(*key),
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
            why=_why(result, gates, deciding, headline_ran=bool(self.headline)),
            figures=self._figures(speed_up),
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
        )

    def _figures(self, speed_up: float | None) -> Figures:
        def values(check: str, case: dict[str, Record]) -> dict[str, object]:
            record = case.get(check)
            usable = record is not None and record.observation is not None and record.measured
            return record.observation.values if usable else {}  # type: ignore[union-attr]

        timing = values(LATENCY, self.subject)
        timed = self.subject.get(LATENCY)
        seen = timed.observation if timed is not None and timed.measured else None
        memory = values(MEMORY, self.subject)
        loaded = values(LOADS, self.subject)
        # Generated weights have no task metric, whatever a file says.
        known = self.facts.weights != "seeded"
        scored = self.subject if known and values(TASK, self.subject) else self.stand_in
        name, scores = _scores(values(TASK, scored))
        record = scored.get(TASK)
        declared = record.observation.metrics if record and record.observation else {}
        metric = text.primary_metric(scores, declared)
        snr = [
            figure
            for output in values(NUMERICS, self.subject).values()
            if isinstance(output, dict)
            and (figure := text.number(output.get("snr_db"))) is not None
        ]
        observations = [r.observation for r in self.subject.values() if r.observation]
        executed = loaded.get("executed")
        if isinstance(executed, dict):
            # One precision for all graphs is said once.
            said = {text.one_line(precision) for precision in executed.values()}
            per_graph = ", ".join(f"{g}: {text.one_line(p)}" for g, p in executed.items())
            executed = said.pop() if len(said) == 1 else per_graph
        return Figures(
            median_s=text.number(timing.get("median_s")),
            interval_s=text.interval(timing.get("interval_s")),
            interval_coverage=text.number(timing.get("interval_coverage")),
            rtf=text.number(timing.get("rtf")),
            rtf_upper=text.number(timing.get("rtf_upper")),
            rtfx=text.number(timing.get("rtfx")),
            speed_up=speed_up,
            peak_bytes=text.number(memory.get("peak_bytes")),
            device_peak_bytes=text.number(memory.get("device_peak_bytes")),
            model_bytes=text.number(loaded.get("model_bytes"))
            or text.number(memory.get("model_bytes")),
            share=text.number(values(PLACED, self.subject).get("share")),
            metric_case=_about(scored).id.partition("/")[0] if metric else "",
            metric=metric,
            declared=declared,
            metric_set=name,
            metric_value=text.number(scores.get(metric)),
            metric_interval=text.interval(scores.get(f"{metric}_interval")),
            degradation=text.number(scores.get("degradation")),
            degradation_interval=text.interval(scores.get("degradation_interval")),
            snr_db=min(snr, default=None),
            seconds=tuple(
                value
                for value in (seen.samples.get("seconds", []) if seen else ())
                if text.number(value) is not None
            ),
            latency_status=timed.status if timed is not None else "",
            executed=next((o.executed for o in observations if o.executed), str(executed or "")),
            threads=seen.threads if seen else max((o.threads for o in observations), default=0),
            batch=seen.batch if seen else 0,
        )


@dataclass(frozen=True, slots=True)
class Processor:
    """The CPU configuration that an accelerator is compared with."""

    name: str
    lower_s: float
    anchor: str


def processor_seconds(draft: Draft, drafts: Sequence[Draft]) -> Processor | None:
    """Return the fastest CPU configuration of the same variant, weights and machine.

    Fastest is the one with the smallest lower bound, so that the speed-up is a lower bound over
    every CPU configuration whose accuracy did not fail and that other processes left alone.
    """
    best: Processor | None = None
    mine = draft.facts
    for other in drafts:
        facts = other.facts
        if not facts.on_host_cpu or facts.evidence != "device":
            continue
        if (other.machine, other.family) != (draft.machine, draft.family):
            continue
        case = other.case(mine.variant, mine.weights)
        span = _seconds(case.get(LATENCY))
        if span is None or other.accurate.state == "failed":
            continue
        if _crowding(case[LATENCY]):
            continue  # Alone it would have been faster, by nobody knows how much.
        if case is not other.subject and _judge(case.get(NUMERICS), "").state == "failed":
            continue
        if best is None or span[0] < best.lower_s:
            best = Processor(f"{facts.target} {facts.recipe}", span[0], case[LATENCY].anchor)
    return best


def _seconds(record: Record | None) -> tuple[float, float] | None:
    """Return the interval of the median task time in seconds, where it was settled."""
    if record is None or record.observation is None or not record.measured:
        return None
    if record.status not in ("passed", "failed", "known-failure", "unexpected-pass"):
        return None
    limits = record.observation.limits
    if record.status == "failed" and all(one.level != "failed" for one in limits):
        return None  # It failed for a fault in the timing itself, not for being slow.
    values = record.observation.values
    middle = text.number(values.get("median_s"))
    pair = text.interval(values.get("interval_s"))
    if pair is None and middle is not None:
        pair = (middle, middle)
    return pair if pair is not None and 0 < pair[0] <= pair[1] else None


def _crowding(record: Record | None) -> str:
    """Say that other processes took the processors from a timing; empty if they did not."""
    one = record.observation if record is not None else None
    return crowding(one.values, one.threads) if one is not None else ""


_EVIDENCE = ("device", "emulator", "conversion")

_THRESHOLDS = {
    "loads": (
        "compiles and runs every standard input",
        "the smallest published variant does, and is judged in its place",
    ),
    "placed": ("≥ 95 % on the target", "≥ 50 %"),
    "accurate": ("degradation and numerics within strict thresholds", "within relaxed ones"),
    "robust": ("every stress input as good as the reference, no crash, hang or NaN", "no crash"),
    "real_time": ("upper bound of RTF ≤ 0.5, or the family's target", "≤ 1"),
    "worthwhile": ("≥ 1.5 × the best accurate CPU configuration, lower bound", "≥ 1 ×"),
}
"""Gate to what strict and relaxed ask, in words; the checks' own limits give the numbers."""

_ORDER = (LOADS, PLACED, TASK, NUMERICS, LATENCY, THROUGHPUT, MEMORY, STRESS)


def _check_order(check: str) -> tuple[int, str]:
    return (_ORDER.index(check) if check in _ORDER else len(_ORDER), check)


def _about(case: dict[str, Record]) -> CaseFacts:
    return next(iter(case.values())).case


def _scores(values: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """Return the test set that a cell shows, and its scores.

    Tasks name their sets from the easiest to the most telling: the last is shown.
    """
    for name in reversed([name for name in values if name != POOLED]):
        inside = values[name]
        if isinstance(inside, dict):
            return name, inside
    return "", values


def _why(
    result: rating.Rating,
    gates: Sequence[Gate],
    records: Sequence[Record],
    headline_ran: bool,
) -> tuple[str, ...]:
    """Say what limits a rating, or keeps one from being given."""
    if result.unsupported:
        return (f"unsupported: {result.unsupported}",)
    if result.kind == "not-measured":
        skips = sorted({_said(r.status, r.reason) for r in records if r.status == "skipped"})
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
        lines.append(f"{gate.name} {gate.state}: {gate.reason}")
    if result.cap and not fatal:
        lines.append(f"at most Medium: {result.cap}")
    unknown = [] if fatal else [gate for gate in gates if gate.state == "unknown"]
    if unknown and not headline_ran:
        # One cause for all of them, and one line.
        names = ", ".join(gate.name for gate in unknown)
        lines.append(f"the headline variant was not part of any run, so unknown: {names}")
    else:
        lines += [f"{gate.name} unknown: {gate.reason}" for gate in unknown]
    return tuple(lines)
