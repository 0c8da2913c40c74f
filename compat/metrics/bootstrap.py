"""Bootstrap intervals over utterances, for ratio metrics such as word error rate.

Utterances are the unit that is resampled, because errors cluster within an utterance and words are
not independent draws (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP 2004). Two systems are compared on the *same* resamples, so that
utterances which are hard for both cancel out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
CONFIDENCE = 0.95
SEED = 20_040_517

_DRAWS_AT_ONCE = 1 << 21
"""Most indices of one block of resamples (about 16 MiB), which bounds its memory."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Lower and upper end of an interval, in the unit of the metric."""

    low: float
    high: float


def resample_indices(
    utterances: int, resamples: int = RESAMPLES, seed: int = SEED
) -> Iterator[NDArray[np.int64]]:
    """Yield blocks ``[resamples, utterances]`` of utterance indices drawn with replacement.

    The draws depend only on the three arguments, so that scores can be recomputed exactly.
    """
    if utterances < 1 or resamples < 1:
        raise ValueError("a bootstrap needs at least one utterance and one resample")
    generator = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _DRAWS_AT_ONCE // utterances)
    for start in range(0, resamples, block):
        yield generator.integers(
            0, utterances, size=(min(block, resamples - start), utterances), dtype=np.int64
        )


def ratio_interval(
    numerators: Sequence[float] | Floats,
    denominators: Sequence[float] | Floats,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Interval | None:
    """Interval of ``sum(numerators) / sum(denominators)``, by the percentile bootstrap.

    Args:
        numerators: one value per utterance, for instance its word errors.
        denominators: one value per utterance, for instance its reference words; all ones for a
            plain mean.
        resamples: number of bootstrap resamples.
        confidence: share of the resamples that the interval spans.
        seed: seed of the draws.

    Returns:
        The interval, widened where necessary to contain the point estimate (percentiles of a very
        skewed resampling distribution can miss it); None for fewer than two utterances, from
        which nothing can be said about the spread. Utterances that are all free of errors give
        ``(0, 0)``: the bootstrap cannot see errors that the sample does not contain.

    Raises:
        ValueError: the lengths differ, a value is not finite or a denominator is negative.
    """
    top, bottom = _columns(numerators, denominators)
    return _interval(top, bottom, resamples, confidence, seed)


def paired_interval(
    candidate: Sequence[float] | Floats,
    reference: Sequence[float] | Floats,
    denominators: Sequence[float] | Floats,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Interval | None:
    """Interval of ``(sum(candidate) - sum(reference)) / sum(denominators)`` on the same resamples.

    Both systems are scored on the same utterances, and every resample draws the same utterances
    for both. Positive means that the candidate makes more errors. Arguments, None and errors as in
    :func:`ratio_interval`.
    """
    top, bottom = _columns(candidate, denominators)
    other, _ = _columns(reference, denominators)
    return _interval(top - other, bottom, resamples, confidence, seed)


def no_worse_share(
    candidate: Sequence[float] | Floats, reference: Sequence[float] | Floats
) -> float:
    """Share (0 to 1) of utterances on which the candidate errs no more than the reference."""
    ours, theirs = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if ours.shape != theirs.shape or ours.size == 0:
        raise ValueError("needs one value per utterance for both systems, and one utterance")
    return float(np.mean(ours <= theirs))


def ratio(numerator: float, denominator: float) -> float:
    """``numerator / denominator``, or the numerator itself where the denominator is zero.

    A test set without reference words (silence only) still has a finite rate that grows with every
    inserted word, instead of an infinity that no results file can carry.
    """
    return numerator / denominator if denominator else float(numerator)


def _columns(
    numerators: Sequence[float] | Floats, denominators: Sequence[float] | Floats
) -> tuple[Floats, Floats]:
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.ndim != 1 or top.shape != bottom.shape:
        raise ValueError(
            f"needs one value per utterance in both sequences, got {top.shape} and {bottom.shape}"
        )
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()) or (bottom < 0).any():
        raise ValueError("values must be finite and denominators not negative")
    return top, bottom


def _interval(
    top: Floats, bottom: Floats, resamples: int, confidence: float, seed: int
) -> Interval | None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if top.size < 2:
        return None
    ratios = np.concatenate(
        [
            _ratios(top[indices].sum(axis=1), bottom[indices].sum(axis=1))
            for indices in resample_indices(top.size, resamples, seed)
        ]
    )
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(ratios, [tail, 100.0 - tail])
    estimate = ratio(float(top.sum()), float(bottom.sum()))
    return Interval(min(float(low), estimate), max(float(high), estimate))


def _ratios(top: Floats, bottom: Floats) -> Floats:
    result: Floats = top / np.where(bottom == 0, 1.0, bottom)
    return result
