"""Statistics of timed rounds, and signs that timings cannot be trusted.

Times are seconds of wall clock around a whole, synchronised task. A real-time factor (RTF) is
processing time divided by audio duration, lower is better; RTFx is its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from compat.contract.untrusted import number

CONFIDENCE = 0.95
PERCENTILE_CONFIDENCE = 0.99
PERCENTILES = (90, 95, 99)

CACHED_SPEEDUP = 2.0
"""Repeats must be this much faster than fresh inputs before caching is suspected."""
CACHED_P_VALUE = 0.01
UNSYNCHRONISED_SECONDS = 1e-3
"""A fetch below this is only a copy and a call, whatever its share of the total."""
UNSYNCHRONISED_SHARE = 0.5
CROWDED = 0.25
"""Number of the processors needed by the threads of a case that other processes may keep busy.
Another process that computes without pause gets at least half of one."""
LONG_ENOUGH = 1.0
"""Seconds of rounds below which processor clocks, with ticks of 10 ms, are too coarse."""


class Median(NamedTuple):
    """A median with its interval and the interval's true coverage."""

    value: float
    low: float
    high: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The result of a test for false timings: whether it is flagged, its number and a sentence."""

    flagged: bool
    value: float
    """The measured quantity: a speed-up for caching, a share of the time for fetching."""
    detail: str
    feignable: bool = False
    """Whether a single disturbed round can cause it."""


def summarise(
    seconds: Sequence[float], audio_s: float | Sequence[float] | None = None
) -> dict[str, Any]:
    """Summarise the times of rounds.

    Args:
        seconds: wall-clock seconds of every round.
        audio_s: duration in seconds of the audio of every round, or one duration per round; None
            if a real-time factor makes no sense for the task.

    Returns:
        ``count``, ``median_s``, ``interval_s`` (order-statistic interval of the median),
        ``interval_coverage`` (its exact coverage: at least 0.95 from six rounds on, less below,
        where the interval is minimum to maximum), ``minimum_s``, ``maximum_s``,
        ``relative_spread`` (interquartile range over the median); for each percentile that the
        sample can bound, ``p90_s`` and ``p90_upper_s`` (99 % upper confidence limit); with
        ``audio_s`` also ``rtf``, ``rtf_lower``, ``rtf_upper`` (median of the rounds' ratios and its
        interval) and ``rtfx``.

    Raises:
        ValueError: no rounds, a time that is not a positive number, or a duration that is not.
    """
    ordered = _ordered(seconds)
    centre = median_interval(ordered)
    result: dict[str, Any] = {
        "count": len(ordered),
        "median_s": centre.value,
        "interval_s": [centre.low, centre.high],
        "interval_coverage": centre.coverage,
        "minimum_s": ordered[0],
        "maximum_s": ordered[-1],
        "relative_spread": (_quantile(ordered, 0.75) - _quantile(ordered, 0.25)) / centre.value,
    }
    for percent in PERCENTILES:
        rank = upper_rank(len(ordered), percent / 100.0)
        if rank is not None:
            result[f"p{percent}_s"] = _quantile(ordered, percent / 100.0)
            result[f"p{percent}_upper_s"] = ordered[rank - 1]
    if audio_s is not None:
        durations = [audio_s] * len(ordered) if isinstance(audio_s, int | float) else audio_s
        if not all(math.isfinite(duration) and duration > 0 for duration in durations):
            raise ValueError(f"the audio must last longer than zero seconds, got {audio_s}")
        # Each round has its own factor, because a round on longer audio is not a slow one.
        factors = [taken / lasts for taken, lasts in zip(seconds, durations, strict=True)]
        factor = median_interval(factors)
        result["rtf"] = factor.value
        result["rtf_lower"] = factor.low
        result["rtf_upper"] = factor.high
        result["rtfx"] = 1.0 / factor.value
    return result


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Median:
    """Return the median with a distribution-free interval from order statistics.

    The interval between the k-th smallest and the k-th largest of n values covers the median with
    probability ``1 - 2 P(B <= k - 1)``, B binomial(n, 1/2) (David and Nagaraja, "Order Statistics",
    section 7.1). The largest k that reaches ``confidence`` is taken; below six values none does at
    95 %, and minimum to maximum is returned with the coverage that it has.
    """
    ordered = sorted(float(value) for value in values)
    if not ordered or not all(math.isfinite(value) for value in ordered):
        raise ValueError("a median needs at least one value, and finite ones")
    count = len(ordered)
    rank, tail = 1, 2.0**-count
    for k in range(1, count // 2):
        # In logarithms: 2**-n underflows beyond a thousand rounds.
        probability = math.exp(_log_binomial(count, k) - count * math.log(2.0))
        if 1.0 - 2.0 * (tail + probability) < confidence:
            break
        tail += probability
        rank = k + 1
    coverage = max(0.0, 1.0 - 2.0 * tail)
    return Median(median(ordered), ordered[rank - 1], ordered[count - rank], coverage)


def upper_rank(
    count: int, quantile: float, confidence: float = PERCENTILE_CONFIDENCE
) -> int | None:
    """Return the rank (1 is the smallest) of the order statistic that bounds a quantile from above.

    The r-th smallest of n values lies below the q-quantile with probability ``P(B >= r)``, B
    binomial(n, q). None if even the largest value lies below it with a probability above
    ``1 - confidence``: fewer than 44 values for p90, 90 for p95, 459 for p99.
    """
    if count < 1 or count * math.log(quantile) > math.log(1.0 - confidence):
        return None
    allowed, tail, rank = 1.0 - confidence, 0.0, count
    while rank > 0:
        tail += math.exp(
            _log_binomial(count, rank)
            + rank * math.log(quantile)
            + (count - rank) * math.log1p(-quantile)
        )
        if tail > allowed:
            return rank + 1
        rank -= 1
    return 1


def cached_result(repeats: Sequence[float], fresh: Sequence[float]) -> Suspicion:
    """Test whether repeats of one input are so much faster than fresh inputs that they are cached.

    The result is flagged if the median of the repeats is less than half that of the fresh inputs
    *and* the difference is beyond noise: one-sided Mann-Whitney p below 0.01, or, for samples too
    small to reach that, the slowest repeat still twice as fast as the fastest fresh input.

    Args:
        repeats: seconds of rounds on an input that was run before.
        fresh: seconds of rounds on inputs of the same length that were never run before.
    """
    ours, theirs = _ordered(repeats), _ordered(fresh)
    speedup = median(theirs) / median(ours)
    if speedup < CACHED_SPEEDUP:
        return Suspicion(
            False, speedup, f"repeats run {speedup:.2f} times as fast as fresh inputs: no cache"
        )
    if math.comb(len(ours) + len(theirs), len(ours)) * CACHED_P_VALUE > 1.0:
        from importlib import import_module

        test = import_module("scipy.stats").mannwhitneyu(ours, theirs, alternative="less")
        p_value = float(test.pvalue)
        flagged, evidence = p_value < CACHED_P_VALUE, f"Mann-Whitney p = {p_value:.2g}"
    else:
        flagged = ours[-1] * CACHED_SPEEDUP < theirs[0]
        evidence = f"{len(ours)} and {len(theirs)} rounds, too few for a rank test"
    conclusion = "a cached result" if flagged else "within the noise of these rounds"
    return Suspicion(
        flagged,
        speedup,
        f"repeats of one input run {speedup:.1f} times as fast as fresh inputs ({evidence}): "
        f"{conclusion}",
        feignable=min(len(ours), len(theirs)) == 1,
    )


def undisturbed(baseline_s: Sequence[float], tolerance: float) -> list[bool]:
    """Return, for each round, whether the machine was about as calm as in its calmest round.

    Args:
        baseline_s: seconds of the same fixed work beside every round, first to last.
        tolerance: relative excess over the fastest of them that still counts as calm (0.05: 5 %).
    """
    if not tolerance > 0:
        raise ValueError(f"the tolerance must be positive, got {tolerance}")
    limit = (1 + tolerance) * _ordered(baseline_s)[0]
    return [seconds <= limit for seconds in baseline_s]


def others_busy(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Return the number of processors that other processes kept busy between two readings.

    Args:
        before: a reading of :func:`compat.measure.occupancy.reading`.
        after: a later reading of the same processors.

    Returns:
        ``others_busy`` (processors, on average) and ``processors`` (their number). Empty if that is
        not known: there are no clocks, the span is shorter than a second, or a process of the
        worker ended meanwhile, whose time is lost.
    """
    if not before or not after or not set(before["processes"]) <= set(after["processes"]):
        return {}
    wall, used, own = (after[name] - before[name] for name in ("wall_s", "used_s", "own_s"))
    if wall < LONG_ENOUGH:
        return {}
    return {
        "others_busy": round(max(0.0, (used - own) / wall), 3),
        "processors": after["processors"],
    }


def crowding(values: Mapping[str, Any], threads: int) -> str:
    """Return a clause that other processes took processors that a case needed; empty if not.

    Args:
        values: values of an observation. The result is empty for older ones, which lack those of
            :func:`others_busy`.
        threads: threads of the case, and so the number of processors that it needs.
    """
    others, processors = number(values.get("others_busy")), number(values.get("processors"))
    needed = number(threads)
    if others is None or processors is None or needed is None:
        return ""
    if others <= processors - needed + CROWDED:
        return ""
    return f"other processes kept {others:.1f} of {processors:g} processors busy"


def unsynchronised(run_s: Sequence[float], fetch_s: Sequence[float]) -> Suspicion:
    """Test whether a run returned before its work was done.

    After a run that waits for the device, fetching a tiny output is nearly free. If the fetch takes
    most of the time, the run only queued the work, and times without a fetch are wrong. The result
    is flagged if, even at the lower end of the interval over rounds, fetching takes more than half
    of run plus fetch and more than 1 ms.

    Args:
        run_s: seconds of every synchronised run.
        fetch_s: seconds to fetch a tiny output right after each; may contain zeros.
    """
    if len(run_s) != len(fetch_s) or not run_s:
        raise ValueError("needs one fetch time per run, and at least one")
    if not all(math.isfinite(value) and value >= 0 for value in (*run_s, *fetch_s)):
        raise ValueError("times must be finite and not negative")
    shares = [
        fetch / (run + fetch) if run + fetch else 0.0
        for run, fetch in zip(run_s, fetch_s, strict=True)
    ]
    share, fetch = median_interval(shares), median_interval(fetch_s)
    flagged = share.low > UNSYNCHRONISED_SHARE and fetch.low > UNSYNCHRONISED_SECONDS
    detail = f"fetching takes {1e3 * fetch.value:.3g} ms, {share.value:.0%} of run and fetch"
    if flagged:
        detail += ": the run returned before the work was done"
    return Suspicion(flagged, share.value, detail)


def _ordered(seconds: Sequence[float]) -> list[float]:
    ordered = sorted(float(value) for value in seconds)
    if not ordered:
        raise ValueError("there are no rounds to summarise")
    if not all(math.isfinite(value) and value > 0 for value in ordered):
        raise ValueError("every time must be a positive, finite number of seconds")
    return ordered


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    """Return a quantile by linear interpolation between order statistics (NumPy's default)."""
    position = quantile * (len(ordered) - 1)
    lower = math.floor(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower])


def _log_binomial(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
