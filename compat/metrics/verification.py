"""Speaker verification: equal error rate and minimum detection cost of trials.

A *trial* asks of two recordings whether one person speaks in both; its score is the cosine of
their embeddings. A *target* trial has one speaker, a *non-target* trial two. At a threshold, the
miss rate is the share of targets with a lower score, the false-alarm rate the share of non-targets
with one that is as high.

- **Equal error rate**: the rate at which the two meet, on the detection error curve drawn with
  straight lines between neighbouring operating points (equal scores are one point). The curve's
  convex hull is not used, because it is optimistic for a few hundred trials.
- **Minimum detection cost**: ``min over thresholds of P x miss + (1 - P) x false alarm``, divided
  by the cost of the better of "always no" and "always yes", ``min(P, 1 - P)``; either error costs
  one. P is the prior of a target: 0.01 (NIST 2016 Speaker Recognition Evaluation Plan, 3.1) and
  0.05 (NIST's audio from video since 2018, and the VoxCeleb challenges).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compat.metrics.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    no_worse_share,
    resample_indices,
)

Floats = NDArray[np.float64]

_WEIGHTS_AT_ONCE = 1 << 18
"""Most weights of one block of resamples (2 MiB), which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Two recordings by index, and whether one person speaks in both."""

    first: int
    second: int
    same: bool


def cosine(one: ArrayLike, other: ArrayLike) -> float:
    """Cosine of the angle between two vectors of shape ``(n,)``, -1 to 1.

    The cosine is 0 if one of them is zero, and NaN if a value is not finite.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    # Scaled by the largest value first: squares of large or tiny numbers leave the range.
    a, b = (v / max(float(np.abs(v).max(initial=0.0)), 1e-300) for v in (a, b))
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / length, -1.0, 1.0)) if length else 0.0


def equal_error_rate(scores: ArrayLike, same: ArrayLike) -> float:
    """Equal error rate, 0 to 1, of trials with ``scores`` (n,) and truth ``same`` (n,).

    Raises:
        ValueError: no targets or no non-targets, shapes that differ, or a score that is NaN.
    """
    curve = _Curve(scores, same)
    return float(curve.equal_error(curve.once)[0][0])


def equal_error_threshold(scores: ArrayLike, same: ArrayLike) -> float:
    """The threshold at which the miss rate reaches the false-alarm rate, midway between two scores.

    Arguments and errors as :func:`equal_error_rate`.
    """
    curve = _Curve(scores, same)
    point = int(curve.equal_error(curve.once)[1][0])
    return float(curve.levels[point - 1 : point + 1].mean())


def minimum_detection_cost(scores: ArrayLike, same: ArrayLike, prior: float) -> float:
    """Normalised minimum detection cost, 0 to 1, for a prior of targets between 0 and 1.

    Raises:
        ValueError: as :func:`equal_error_rate`, or the prior is not between 0 and 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"the prior of a target must lie between 0 and 1, got {prior}")
    curve = _Curve(scores, same)
    miss, alarm = curve.rates(curve.once)
    return float((prior * miss + (1 - prior) * alarm).min() / min(prior, 1 - prior))


def task_verification(
    trials: Sequence[Trial],
    embeddings: Sequence[ArrayLike],
    reference_embeddings: Sequence[ArrayLike],
    speakers: Sequence[str],
) -> dict[str, Any]:
    """Score the embeddings of one case against the truth and against the reference execution.

    Args:
        trials: pairs of recordings.
        embeddings: one vector (n,) per recording, from the case under test.
        reference_embeddings: the same from the float reference; the hardware is judged by the
            difference to these.
        speakers: name of the speaker of each recording; a name of the recording's own if the
            speaker is not known. Intervals are a bootstrap over speakers, since trials that share a
            speaker are not independent draws. A resample counts a trial as often as its speakers
            were drawn (both numbers multiplied).

    Returns:
        ``eer``, ``eer_interval`` (95 %), ``min_dcf_01``, ``min_dcf_05``, ``trials``, ``targets``,
        ``utterances``, ``reference_eer``, ``degradation`` (``eer`` minus ``reference_eer``),
        ``degradation_interval`` (95 %, on the same resamples), ``no_worse_share`` (share of trials
        decided no worse than by the reference, both at the reference's own threshold of equal
        error, because a deployed threshold does not move), ``mean_cosine``, ``worst_cosine`` and
        ``worst_utterance`` (index) of the embeddings to the reference's. Rates are fractions.
        Intervals are None for fewer than two speakers.

        An embedding that is not finite has cosine -1 to the reference's, and its trials count as
        decided wrongly at every threshold.

    Raises:
        ValueError: no targets or no non-targets, or not one embedding and speaker per recording.
    """
    if not len(embeddings) == len(reference_embeddings) == len(speakers):
        raise ValueError(
            f"needs one embedding of either execution and one speaker per recording: got "
            f"{len(embeddings)}, {len(reference_embeddings)} and {len(speakers)}"
        )
    same = np.array([trial.same for trial in trials], bool)
    ours, theirs = _scores(trials, embeddings), _scores(trials, reference_embeddings)
    curve, baseline = _Curve(ours, same), _Curve(theirs, same)
    eer, reference_eer = equal_error_rate(ours, same), equal_error_rate(theirs, same)
    resampled = [
        np.stack([curve.equal_error(weights)[0], baseline.equal_error(weights)[0]])
        for weights in _weights(trials, speakers)
    ]
    found, expected = np.concatenate([np.empty((2, 0)), *resampled], axis=1)
    threshold = equal_error_threshold(theirs, same)
    near = [
        -1.0 if np.isnan(value) else value
        for value in map(cosine, embeddings, reference_embeddings)
    ]
    eer_interval = _interval(found, eer)
    degradation_interval = _interval(found - expected, eer - reference_eer)
    return {
        "eer": eer,
        "eer_interval": None if eer_interval is None else list(eer_interval),
        "min_dcf_01": minimum_detection_cost(ours, same, 0.01),
        "min_dcf_05": minimum_detection_cost(ours, same, 0.05),
        "trials": len(trials),
        "targets": int(same.sum()),
        "utterances": len(embeddings),
        "reference_eer": reference_eer,
        "degradation": eer - reference_eer,
        "degradation_interval": (
            None if degradation_interval is None else list(degradation_interval)
        ),
        "no_worse_share": no_worse_share(
            ((ours >= threshold) != same).astype(float),
            ((theirs >= threshold) != same).astype(float),
        ),
        "mean_cosine": float(np.mean(near)),
        "worst_cosine": min(near),
        "worst_utterance": int(np.argmin(near)),
    }


def _scores(trials: Sequence[Trial], embeddings: Sequence[ArrayLike]) -> Floats:
    """Cosines of trials (n,); a cosine of NaN becomes the worst score that the trial can get."""
    scores = np.array([cosine(embeddings[t.first], embeddings[t.second]) for t in trials])
    worst = np.array([-np.inf if trial.same else np.inf for trial in trials])
    return np.where(np.isnan(scores), worst, scores)


class _Curve:
    """Operating points of a set of trials, for any number of weightings of the trials at once."""

    def __init__(self, scores: ArrayLike, same: ArrayLike) -> None:
        values, truth = np.asarray(scores, np.float64), np.asarray(same, bool)
        if values.ndim != 1 or values.shape != truth.shape:
            raise ValueError(
                f"needs one score and one truth per trial: {values.shape}, {truth.shape}"
            )
        if truth.all() or not truth.any():
            raise ValueError("needs at least one target and one non-target trial")
        if np.isnan(values).any():
            raise ValueError("a score is not a number")
        self.once: Floats = np.ones((1, values.size))
        """The weighting that counts every trial once."""
        self._order = np.argsort(values, kind="stable")
        self._same = truth[self._order]
        ordered = values[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.levels: Floats = ordered[self._starts]
        """The distinct scores, ascending."""

    def rates(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return miss and false-alarm rates (weightings, points), thresholds ascending.

        ``weights`` is (weightings, trials): how often each trial counts. The first point accepts
        every trial and the last one none. NaN where a weighting has no targets or no non-targets.
        """
        ordered = weights[:, self._order]
        miss = _cumulated(np.add.reduceat(ordered * self._same, self._starts, axis=1))
        refused = _cumulated(np.add.reduceat(ordered * ~self._same, self._starts, axis=1))
        return miss, 1.0 - refused

    def equal_error(self, weights: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Return equal error rates (weightings,), and the points where miss first reaches alarm."""
        miss, alarm = self.rates(weights)
        difference = miss - alarm
        # The first point has difference -1, so that there is always one before.
        point = (difference >= 0).argmax(axis=1)
        rows = np.arange(len(miss))
        before, after = difference[rows, point - 1], difference[rows, point]
        share = -before / (after - before)
        rate = miss[rows, point - 1] + share * (miss[rows, point] - miss[rows, point - 1])
        return rate, point


def _cumulated(groups: Floats) -> Floats:
    """Return the shares (weightings, groups + 1) of weights that lie below each threshold."""
    sums = np.concatenate([np.zeros((len(groups), 1)), groups.cumsum(axis=1)], axis=1)
    total = sums[:, -1:]
    shares: Floats = sums / np.where(total > 0, total, np.nan)
    return shares


def _weights(trials: Sequence[Trial], speakers: Sequence[str]) -> Iterator[Floats]:
    """Yield blocks (resamples, trials) of counts of each trial when speakers are drawn again."""
    named = sorted({speakers[index] for trial in trials for index in (trial.first, trial.second)})
    if len(named) < 2:
        return
    position = {name: index for index, name in enumerate(named)}
    first = np.array([position[speakers[trial.first]] for trial in trials])
    second = np.array([position[speakers[trial.second]] for trial in trials])
    block = max(1, _WEIGHTS_AT_ONCE // len(trials))
    for indices in resample_indices(len(named), RESAMPLES, SEED):
        counts = np.stack([np.bincount(row, minlength=len(named)) for row in indices])
        for start in range(0, len(counts), block):
            drawn = counts[start : start + block].astype(np.float64)
            yield drawn[:, first] * np.where(first == second, 1.0, drawn[:, second])


def _interval(values: Floats, estimate: float) -> Interval | None:
    """Percentiles of resampled values, widened where necessary to contain the estimate."""
    usable = values[~np.isnan(values)]
    if 2 * usable.size <= values.size:
        return None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(usable, [tail, 100.0 - tail])
    return Interval(min(float(low), estimate), max(float(high), estimate))
