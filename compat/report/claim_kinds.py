"""Evaluate checks of claims: a function for each kind finds its number on every machine.

Timings of two cases are compared on one machine only: within one run where a run has both, and
round by round where the inputs are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from compat.contract.untrusted import number
from compat.judge.claims import Check, Found, Verdict, together
from compat.judge.rating import Rating
from compat.judge.results import Observation
from compat.metrics.timing import median_interval
from compat.report import text
from compat.report.claim_evidence import (
    LATENCY,
    THROUGHPUT,
    Evidence,
    Timing,
    identity,
    is_settled,
    rank,
    read,
    seen,
    span,
)
from compat.report.claim_words import shown
from compat.report.model import Cell

BETWEEN_RUNS = 1.5
"""Factor that widens the interval of a ratio at both ends where its two timings are of two runs.

Of 83 pairs of runs in which a published machine repeated a case on equal inputs, 77 agreed within
it, and the extremes were 0.54 and 1.54.
"""
_BROKEN = ("failed", "unsupported", "crashed", "out-of-memory", "known-failure")
_GRADES = ("None", "Limited", "Medium", "High")


def _rating(check: Check, evidence: Evidence) -> Iterator[Found]:
    claimed = check.claimed.word
    try:
        cell = evidence.report.cell(check["row"], check["hardware"])
    except KeyError:
        said = f"no family of the row {check['row']} has run"
        yield Found("needs", "Not measured", reason=said)
        return
    best = cell.best
    if best is None or best.rating.kind in ("not-measured", "stale"):
        why = best.why[0] if best is not None and best.why else "no run planned a case here"
        yield Found("needs", cell.label, reason=text.one_line(why, 200))
        return
    ids = tuple(identity(r) for r in best.records if r.observation is not None)
    anchors = tuple(anchor for gate in best.gates for anchor in gate.evidence)
    date = max((r.observation.time[:10] for r in best.records if r.observation), default="")
    verdict, reason = _rated(claimed, best.rating, cell)
    yield Found(verdict, best.rating.label, best.machine, date, ids, anchors, reason=reason)


def _rated(claimed: str, rating: Rating, cell: Cell) -> tuple[Verdict, str]:
    """Compare a rating with a claimed word; return the verdict and a sentence on the difference."""
    best = cell.best
    assert best is not None
    low, high = (_GRADES.index(one) for one in (rating.floor, rating.ceiling))
    wanted = _GRADES.index(claimed)
    why = best.why[0] if best.why else ""
    if best.evidence != "device":
        said = f"{best.target} gives {best.evidence} evidence, which says nothing of speed"
        right = _right_answers(cell) if claimed == "None" else ""
        if right:
            return "refuted", f"{right} gives right answers; {said}"
        return "needs", said
    stand_in = ", judged on a stand-in" if "stand-in" in rating.badges else ""
    if low == high == wanted:
        return "confirmed", why or f"{best.name} meets every gate that applies{stand_in}"
    if low > wanted:
        return "refuted", (
            f"better than claimed: {best.name} has {rating.label}{stand_in}"
            + (f", held back by: {why}" if why else ", as every gate that applies is strict")
        )
    if high < wanted:
        return "refuted", f"worse than claimed: {why or best.name}"
    return "inconclusive", why


def _right_answers(cell: Cell) -> str:
    """Return the id of a case with right answers; one such case refutes the claim *None*.

    Empty where the cell has none.
    """
    for record in (record for one in cell.configurations for record in one.records):
        one = record.observation
        judged = one is not None and one.level in ("strict", "relaxed")
        if record.check.startswith("accuracy.") and judged and record.status == "passed":
            return record.case.id
    return ""


def _best_rated(check: Check, evidence: Evidence) -> Iterator[Found]:
    ours = check["hardware"]
    compared, better, ids, machine = 0, [], [], ""
    for row in evidence.report.rows:
        cells = [evidence.report.cell(row, hardware) for hardware in evidence.report.hardware]
        rated = [c for c in cells if c.best is not None and c.best.rating.kind == "rated"]
        mine = next((cell for cell in rated if cell.hardware == ours), None)
        if mine is None or mine.best is None or len(rated) < 2:
            continue
        compared += 1
        machine = mine.best.machine
        ids += [identity(r) for c in rated if c.best for r in c.best.records if r.observation]
        grade = _GRADES.index(mine.best.rating.floor)
        better += [
            f"{cell.hardware} in {row}"
            for cell in rated
            if cell.best and _GRADES.index(cell.best.rating.floor) > grade
        ]
    if compared:
        said = f"better: {', '.join(better)}" if better else f"none better in {compared} rows"
        yield Found("refuted" if better else "confirmed", said, machine, evidence=tuple(ids))


def _speed_up(check: Check, evidence: Evidence) -> Iterator[Found]:
    for machine in evidence.machines:
        pair = _pair(
            evidence.timings(machine, check["slow"]), evidence.timings(machine, check["fast"])
        )
        if pair is None:
            continue
        slow, fast = pair
        value, low, high, how = _ratio(slow.one, fast.one)
        if slow.run != fast.run:
            low, high = low / BETWEEN_RUNS, high * BETWEEN_RUNS
            how += f", of two runs (widened by {BETWEEN_RUNS:g})"
        names = f"{slow.facts.id} over {fast.facts.id}"
        yield Found(
            check.claimed.judge(low, high),
            shown(value, (low, high), "ratio"),
            machine,
            max(slow.started, fast.started)[:10],
            tuple(f"{machine}/{one.run}/{one.facts.id}/{LATENCY}" for one in (slow, fast)),
            tuple(one.anchor for one in (slow, fast) if one.anchor),
            reason=f"{names}, {how}",
        )


def _pair(slow: Sequence[Timing], fast: Sequence[Timing]) -> tuple[Timing, Timing] | None:
    """Return the two timings to compare; None where there are no two.

    Pairs of one model come first, then those of one run, of whole profiles, and the newest.
    """

    def order(pair: tuple[Timing, Timing]) -> tuple[Any, ...]:
        a, b = pair
        started = sorted((a.started, b.started))
        # Dates are ISO 8601, so that text compares as time does: the newest comes last.
        newest = tuple(-ord(letter) for letter in "".join(reversed(started)))
        alike = (a.facts.variant, a.facts.weights) == (b.facts.variant, b.facts.weights)
        ranks = (rank(a.facts), rank(b.facts))
        return (not alike, ranks, a.run != b.run, a.quick + b.quick, newest)

    pairs = ((a, b) for a in slow for b in fast if a.facts.id != b.facts.id)
    return min(pairs, key=order, default=None)


def _ratio(slow: Observation, fast: Observation) -> tuple[float, float, float, str]:
    """Return slow seconds over fast seconds, both ends, and how they were compared."""
    rounds = []
    for one in (slow, fast):
        # Older files do not hold the lengths of their inputs, so that rounds cannot be paired.
        lengths = one.samples.get("audio_seconds", [])
        rounds.append(list(zip(lengths, one.samples["seconds"], strict=False)))
    both = list(zip(*rounds, strict=False))
    if len(both) >= 4 and all(a[0] == b[0] for a, b in both):
        centre = median_interval([a[1] / b[1] for a, b in both])
        how = f"{len(both)} rounds on equal inputs"
        if centre.coverage < 0.95:
            how += f" ({text.percent(centre.coverage)} coverage)"
        return centre.value, centre.low, centre.high, how
    (low_a, high_a), (low_b, high_b) = (span(one.values) for one in (slow, fast))
    value = slow.values["median_s"] / fast.values["median_s"]
    return value, low_a / high_b, high_a / low_b, "ends of the intervals of both medians"


def _number(check: Check, evidence: Evidence) -> Iterator[Found]:
    unit = check.arguments.get("unit", "number")
    for machine in evidence.machines:
        for record in evidence.of(machine, check["test"], check["case"]):
            got = read(record, check["path"])
            if got is None:
                continue
            value, low, high, doubt = got
            verdict = "inconclusive" if doubt else check.claimed.judge(low, high)
            said = "; ".join(filter(None, (record.case.id, doubt)))
            yield seen(verdict, shown(value, (low, high), unit), [record], said)
            break


def _quotient(check: Check, evidence: Evidence) -> Iterator[Found]:
    for machine in evidence.machines:
        ours_all, theirs_all = (
            [
                (record, got)
                for record in evidence.of(machine, check["test"], pattern)
                if (got := read(record, check["path"])) is not None and got[1] > 0
            ]
            for pattern in (check["case"], check["over"])
        )
        # A quotient across sizes or weights would not be the one that is claimed.
        pair = next(
            (
                (one, other)
                for one in ours_all
                for other in theirs_all
                if (one[0].case.variant, one[0].case.weights)
                == (other[0].case.variant, other[0].case.weights)
            ),
            None,
        )
        if pair is None:
            continue
        (ours, (a, low_a, high_a, _)), (theirs, (b, low_b, high_b, _)) = pair
        low, high = low_a / high_b, high_a / low_b
        said = f"{ours.case.id} over {theirs.case.id}"
        verdict = check.claimed.judge(low, high)
        yield seen(verdict, shown(a / b, (low, high), "ratio"), [ours, theirs], said)


def _stage_share(check: Check, evidence: Evidence) -> Iterator[Found]:
    for machine in evidence.machines:
        shares, records = [], []
        for pattern in check["cases"]:
            for record in evidence.of(machine, LATENCY, pattern):
                one = record.observation
                assert one is not None
                stages = one.values.get("stages")
                part = number(stages.get(check["stage"])) if isinstance(stages, dict) else None
                whole = number(one.values.get("median_s"))
                if part is not None and whole and is_settled(one):
                    shares.append(part / whole)
                    records.append(record)
                    break
        if shares:
            ends = (min(shares), max(shares))
            said = ", ".join(
                f"{record.case.variant} {text.percent(share)}"
                for record, share in zip(records, shares, strict=True)
            )
            measured = shown(median(shares), ends, "share")
            yield seen(check.claimed.judge(*ends), measured, records, said)


def _best_batch(check: Check, evidence: Evidence) -> Iterator[Found]:
    for machine in evidence.machines:
        for record in evidence.of(machine, THROUGHPUT, check["case"]):
            one = record.observation
            assert one is not None
            batches = one.values.get("batches")
            speeds = {
                int(size): speed
                for size, found in (batches.items() if isinstance(batches, dict) else ())
                if str(size).isdigit()
                and isinstance(found, dict)
                and (speed := number(found.get("items_per_s"))) is not None
            }
            if len(speeds) < 3:
                continue
            best = max(speeds, key=lambda size: speeds[size])
            said = ", ".join(f"{size}: {speed:.3g}/s" for size, speed in sorted(speeds.items()))
            wanted = check.claimed.at_most or 0
            verdict = check.claimed.judge(best, best)
            if best == max(speeds) < wanted:
                verdict, said = "inconclusive", f"{said}; larger batches were not tried"
            yield seen(verdict, f"batch {best}", [record], f"{record.case.id}: {said}")
            break


def _passed(check: Check, evidence: Evidence) -> Iterator[Found]:
    for machine in evidence.machines:
        records = evidence.of(machine, check["test"], check["case"])
        good = [record for record in records if record.status in ("passed", "unexpected-pass")]
        bad = [record for record in records if record.status in _BROKEN]
        if bad:
            said = f"{bad[0].case.id}: {bad[0].status}"
            yield seen("refuted", f"{len(bad)} of {len(good) + len(bad)} failed", bad, said)
        elif good:
            count = f"{len(good)} passed"
            yield seen("confirmed", count, good, ", ".join(r.case.id for r in good[:3]))


def _experiment(check: Check, evidence: Evidence) -> Iterator[Found]:
    newest = evidence.answers.newest(check["name"], check["measure"])
    for machine, (stored, finding) in newest.items():
        value = finding.value
        low, high = finding.interval or (value, value)
        doubt = finding.doubt or (stored.busy if finding.timed else "")
        verdict = "inconclusive" if doubt else check.claimed.judge(low, high)
        yield Found(
            verdict,
            shown(value, finding.interval, finding.unit),
            machine,
            stored.header.started[:10],
            (f"{machine}/{stored.header.run}/{stored.experiment}/{finding.measure}",),
            reason="; ".join(filter(None, (doubt, finding.detail))),
        )


def _arithmetic(check: Check, _: Evidence) -> Iterator[Found]:
    of, over = check["of"], check.arguments.get("over", [])
    if check["compute"] == "same":
        values = [float(list(of) == list(over))]
        expression = f"{of} = {over}"
        measured = "yes" if values[0] else "no"
    else:
        quotient = check["compute"] == "quotients"
        values = [a / b if quotient else a * b for a, b in zip(of, over, strict=True)]
        sign = "÷" if quotient else "×"
        unit = check.arguments.get("unit", "ratio")
        expression = "; ".join(
            f"{a:g} {sign} {b:g} = {value:.4g}"
            for a, b, value in zip(of, over, values, strict=True)
        )
        measured = ", ".join(shown(value, None, unit) for value in values)
    verdicts = [check.claimed.judge(value, value) for value in values]
    yield Found(together(verdicts), measured, expression=expression, reason=expression)


EVALUATED: dict[str, Callable[[Check, Evidence], Iterator[Found]]] = {
    "rating": _rating,
    "best-rated": _best_rated,
    "speed-up": _speed_up,
    "number": _number,
    "quotient": _quotient,
    "stage-share": _stage_share,
    "best-batch": _best_batch,
    "passed": _passed,
    "experiment": _experiment,
    "arithmetic": _arithmetic,
}
"""A function for each kind of :data:`compat.judge.claims.KINDS`."""
