"""Collect the headline numbers of a configuration from the records of its checks."""

from __future__ import annotations

from collections.abc import Mapping

from compat.metrics import POOLED
from compat.report import text
from compat.report.findings import LATENCY, LOADS, MEMORY, NUMERICS, PLACED, TASK
from compat.report.model import Figures, Record

Case = Mapping[str, Record]
"""Maps each check of one case to its record."""


def figures(subject: Case, stand_in: Case, known: bool, speed_up: float | None) -> Figures:
    """Return the headline numbers of a configuration.

    ``subject`` is the case that is judged. ``known`` is true if its weights are not generated, so
    that they can do their task: then the task metric is the subject's own, where it was measured.
    Otherwise it is ``stand_in``'s.
    """

    def values(check: str, case: Case) -> dict[str, object]:
        record = case.get(check)
        usable = record is not None and record.observation is not None and record.measured
        return record.observation.values if usable else {}  # type: ignore[union-attr]

    timing = values(LATENCY, subject)
    timed = subject.get(LATENCY)
    seen = timed.observation if timed is not None and timed.measured else None
    memory = values(MEMORY, subject)
    loaded = values(LOADS, subject)
    scored = subject if known and values(TASK, subject) else stand_in
    name, scores = scores_of(values(TASK, scored))
    record = scored.get(TASK)
    declared = record.observation.metrics if record and record.observation else {}
    metric = text.primary_metric(scores, declared)
    snr = [
        figure
        for output in values(NUMERICS, subject).values()
        if isinstance(output, dict) and (figure := text.number(output.get("snr_db"))) is not None
    ]
    observations = [r.observation for r in subject.values() if r.observation]
    executed = loaded.get("executed")
    if isinstance(executed, dict):
        # Name the precision once if all graphs share it.
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
        share=text.number(values(PLACED, subject).get("share")),
        metric_case=next(iter(scored.values())).case.id.partition("/")[0] if metric else "",
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
        cold_s=_cold(loaded.get("cold") or timing.get("cold")),
        first_token_s=text.number(timing.get("first_token_s")),
        latency_status=timed.status if timed is not None else "",
        executed=next((o.executed for o in observations if o.executed), str(executed or "")),
        threads=seen.threads if seen else max((o.threads for o in observations), default=0),
        batch=seen.batch if seen else 0,
    )


def _cold(parts: object) -> float | None:
    """Return the seconds of a cold start: the sum of import, load and first run."""
    if not isinstance(parts, Mapping):
        return None
    known = [figure for part in parts.values() if (figure := text.number(part)) is not None]
    return sum(known) if known else None


def scores_of(values: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """Return the name of the test set that a cell shows, and its scores.

    It is the last one, because tasks list their sets from the easiest to the most telling.
    """
    for name in reversed([name for name in values if name != POOLED]):
        inside = values[name]
        if isinstance(inside, dict):
            return name, inside
    return "", values
