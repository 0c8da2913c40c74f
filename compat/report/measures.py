"""Measures: the numbers of an observation that are compared, with direction, interval and noise.

Recommendations, comparisons and histories use them. Which numbers a check has follows from their
names, and for task metrics from their declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from compat.judge.results import MetricFacts, Observation
from compat.metrics import POOLED
from compat.report import text
from compat.report.findings import LATENCY, LOADS, MEMORY, NUMERICS, TASK, THROUGHPUT

SETTLED = ("passed", "failed", "known-failure", "unexpected-pass")
"""Statuses of observations whose measurement was completed."""

NOISE: Mapping[str, float] = {
    LATENCY: 0.5,
    THROUGHPUT: 0.7,
    LOADS: 2.0,
    MEMORY: 0.1,
}
"""Maps a check to the relative difference of two runs of one case that is noise (0.5 is 50 %).

Of successive runs on the shared machines of this repository's evidence, 8 % of real-time factors
(with intervals apart), no throughput, 5 % of cold starts and 1 % of memory peaks differ by more.
Noise alone causes fewer, since the code changed between those runs too.
"""
NOISE_DB = 3.0
"""Decibels by which the signal-to-noise ratios of two runs of one case may differ.

3 dB is a factor of 1.4 in the error.
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of one check of one case."""

    check: str
    name: str
    """Unique within the check: ``rtf``, ``people.wer``, ``peak_bytes``."""
    value: float
    better: Literal["lower", "higher"]
    noise: float
    """Difference that counts as noise: relative to the smaller value if ``relative``, else
    absolute."""
    relative: bool = True
    """Whether differences are factors, as for times and sizes; those of shares and decibels are
    not."""
    interval: tuple[float, float] | None = None
    metric: str = ""
    """The task metric whose unit a degradation has."""
    declared: Mapping[str, MetricFacts] | None = None

    @property
    def key(self) -> str:
        """The last part of the name, from which the unit follows."""
        return self.name.rpartition(".")[2]

    def shown(self, value: float | None = None) -> str:
        """Return the number, or ``value`` in its place, with the unit."""
        figure = self.value if value is None else value
        return text.quantity(self.key, figure, self.metric, self.declared or {})

    @property
    def with_interval(self) -> str:
        """The number with its interval, where it has one."""
        if self.interval is None or self.interval[0] == self.interval[1]:
            return self.shown()
        low, high = map(self.shown, self.interval)
        return f"{self.shown()} ({low} to {high})"


def measures(one: Observation) -> tuple[Measure, ...]:
    """Return the numbers of an observation that can be compared; none where it was not settled."""
    if one.status not in SETTLED:
        return ()
    found = {
        LATENCY: _latency,
        THROUGHPUT: _throughput,
        LOADS: _loading,
        MEMORY: _memory,
        TASK: _task,
        NUMERICS: _numerics,
    }.get(one.check)
    return tuple(found(one)) if found else ()


def time_of(one: Observation | None) -> Measure | None:
    """Return the time of a latency check: the real-time factor, else the median seconds.

    None for other checks, and where no time was settled.
    """
    return next(iter(measures(one)), None) if one is not None and one.check == LATENCY else None


def loss_of(one: Observation | None) -> Measure | None:
    """Return the degradation against the reference, over all test sets or of the last set.

    None for other checks, and where there is none.
    """
    if one is None or one.check != TASK:
        return None
    found = [m for m in measures(one) if m.key == "degradation"]
    return found[-1] if found else None


def _latency(one: Observation) -> Iterator[Measure]:
    values = one.values
    factor, middle = text.number(values.get("rtf")), text.number(values.get("median_s"))
    ends = text.interval([values.get("rtf_lower"), values.get("rtf_upper")])
    if factor is not None and factor > 0:
        yield Measure(one.check, "rtf", factor, "lower", NOISE[LATENCY], interval=_around(ends))
    elif middle is not None and middle > 0:
        ends = text.interval(values.get("interval_s"))
        name = "median_s"
        yield Measure(one.check, name, middle, "lower", NOISE[LATENCY], interval=_around(ends))


def _around(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return an interval; None where its ends are reversed, as a stranger's file may have them."""
    return ends if ends is not None and ends[0] <= ends[1] else None


def _throughput(one: Observation) -> Iterator[Measure]:
    batches = one.values.get("batches")
    rates = [
        rate
        for group in (batches.values() if isinstance(batches, Mapping) else ())
        if isinstance(group, Mapping)
        and (rate := text.number(group.get("items_per_s"))) is not None
        and rate > 0
    ]
    if rates:
        yield Measure(one.check, "items_per_s", max(rates), "higher", NOISE[THROUGHPUT])


def _loading(one: Observation) -> Iterator[Measure]:
    cold = one.values.get("cold")
    parts = [text.number(part) for part in cold.values()] if isinstance(cold, Mapping) else []
    known = [part for part in parts if part is not None]
    if known and len(known) == len(parts) and sum(known) > 0:
        yield Measure(one.check, "cold_start_s", sum(known), "lower", NOISE[LOADS])
    size = text.number(one.values.get("model_bytes"))
    if size is not None and size > 0:
        yield Measure(one.check, "model_bytes", size, "lower", 0.01)


def _memory(one: Observation) -> Iterator[Measure]:
    for name in ("peak_bytes", "device_peak_bytes"):
        size = text.number(one.values.get(name))
        if size is not None and size > 0:
            yield Measure(one.check, name, size, "lower", NOISE[MEMORY])


def _task(one: Observation) -> Iterator[Measure]:
    """Yield the metric and the degradation of each test set; the pooled degradation comes last."""
    groups = {k: v for k, v in one.values.items() if isinstance(v, Mapping)} or {"": one.values}
    metric = ""
    for name, scores in groups.items():
        prefix = f"{text.one_line(name, 40)}." if name else ""
        primary = text.primary_metric(scores, one.metrics)
        value = text.number(scores.get(primary)) if name != POOLED else None
        if value is not None and "degradation" not in primary:
            metric = primary
            ends = _around(text.interval(scores.get(f"{primary}_interval")))
            better = _better(primary, one.metrics)
            yield Measure(
                one.check, f"{prefix}{primary}", value, better, 0, False, ends, "", one.metrics
            )
        lost = text.number(scores.get("degradation"))
        if lost is not None:
            ends = _around(text.interval(scores.get("degradation_interval")))
            key = f"{prefix}degradation"
            yield Measure(one.check, key, lost, "lower", 0, False, ends, metric, one.metrics)


def _better(metric: str, declared: Mapping[str, MetricFacts]) -> Literal["lower", "higher"]:
    if metric in declared and declared[metric].better in ("lower", "higher"):
        return "higher" if declared[metric].better == "higher" else "lower"
    # Older files declare no metrics: higher is better for shares of right answers only.
    right = ("accuracy", "agreement", "recall", "precision", "f1", "top1", "top5", "sdr", "cosine")
    return "higher" if metric.endswith(right) else "lower"


def _numerics(one: Observation) -> Iterator[Measure]:
    found: list[tuple[float, Any]] = [
        (level, name)
        for name, output in one.values.items()
        if isinstance(output, Mapping) and (level := text.number(output.get("snr_db"))) is not None
    ]
    if found:
        level, _ = min(found, key=lambda pair: pair[0])
        yield Measure(one.check, "snr_db", level, "higher", NOISE_DB, False)
