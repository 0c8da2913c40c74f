"""Scores of tagging: rankings and decisions of several tags for each recording.

Average precision and the area under the ROC curve are those of scikit-learn
(``average_precision_score``, ``roc_auc_score``): equal scores are one threshold. A tag counts if
some recordings have it and some do not; means are over tags, as is usual (*macro*).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compat.metrics.bootstrap import CONFIDENCE, no_worse_share, resample_indices

Floats = NDArray[np.float64]


def average_precision(scores: ArrayLike, truth: ArrayLike) -> float:
    """Return the average precision of one tag: the mean precision at each recording that has it.

    Args:
        scores: (recordings,), larger where the tag is more likely.
        truth: (recordings,), whether they have it.

    Raises:
        ValueError: lengths differ, or no recording has the tag, or all have.
    """
    return float(_Ranking(*_one_tag(scores, truth)).average_precisions(_once(scores))[0, 0])


def roc_auc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Return the area under the ROC curve of one tag, 0 to 1.

    It is the share of pairs of a recording with the tag and one without in which the former has the
    higher score. A pair of equal scores counts half. Arguments and errors as
    :func:`average_precision`.
    """
    return float(_Ranking(*_one_tag(scores, truth)).areas(_once(scores))[0, 0])


def _one_tag(scores: ArrayLike, truth: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    values, known = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if values.ndim != 1 or values.shape != known.shape:
        raise ValueError(f"needs a score and a truth for each: {values.shape}, {known.shape}")
    if known.all() or not known.any():
        raise ValueError("needs a recording that has the tag, and one that does not")
    return values[:, None], known[:, None]


def _once(scores: ArrayLike) -> Floats:
    return np.ones((1, np.size(scores)))


class _Ranking:
    """Scores (recordings, tags) in order, for any number of weightings of the recordings."""

    def __init__(self, scores: Floats, truth: NDArray[np.bool_]) -> None:
        # NaN counts as the worst answer that a recording can get.
        worst = np.where(truth, -np.inf, np.inf)
        usable = np.where(np.isnan(scores), worst, scores)
        self._order = np.argsort(-usable, axis=0, kind="stable")
        ordered = np.take_along_axis(usable, self._order, 0)
        self._truth = np.take_along_axis(truth, self._order, 0)
        changes = ordered[1:] != ordered[:-1]
        self._starts = [np.flatnonzero(np.r_[True, column]) for column in changes.T]

    def average_precisions(self, weights: Floats) -> Floats:
        """Return average precisions (weightings, tags).

        They are NaN where a weighting leaves a tag only recordings with it, or only without.

        ``weights`` is (weightings, recordings): how often each recording counts.
        """
        return self._by_tag(weights, _average_precision)

    def areas(self, weights: Floats) -> Floats:
        """Return areas under ROC curves (weightings, tags), as :meth:`average_precisions`."""
        return self._by_tag(weights, _area)

    def _by_tag(self, weights: Floats, score: Any) -> Floats:
        found = np.empty((len(weights), len(self._starts)))
        for tag, starts in enumerate(self._starts):
            ordered = weights[:, self._order[:, tag]]
            with_tag = np.add.reduceat(ordered * self._truth[:, tag], starts, axis=1)
            without = np.add.reduceat(ordered * ~self._truth[:, tag], starts, axis=1)
            usable = (with_tag.sum(axis=1) > 0) & (without.sum(axis=1) > 0)
            found[:, tag] = np.nan
            found[usable, tag] = score(with_tag[usable], without[usable])
        return found


def _average_precision(with_tag: Floats, without: Floats) -> Floats:
    hits, taken = with_tag.cumsum(axis=1), (with_tag + without).cumsum(axis=1)
    precision = hits / np.where(taken > 0, taken, 1.0)
    mean: Floats = (with_tag * precision).sum(axis=1) / hits[:, -1]
    return mean


def _area(with_tag: Floats, without: Floats) -> Floats:
    below = without[:, ::-1].cumsum(axis=1)[:, ::-1] - without / 2
    share: Floats = (with_tag * below).sum(axis=1) / (with_tag.sum(axis=1) * without.sum(axis=1))
    return share


def task_tagging(
    truth: ArrayLike,
    scores: ArrayLike,
    reference_scores: ArrayLike,
    layers: Sequence[ArrayLike],
    reference_layers: Sequence[ArrayLike],
) -> dict[str, Any]:
    """Score the tags of one case, and the embeddings that they were derived from.

    Args:
        truth: (recordings, tags), whether each recording has each tag. Each tag has recordings with
            it and without it.
        scores: (recordings, tags), positive where the case decides for a tag.
        reference_scores: the same from the float reference, by the same probe.
        layers: for each recording the embeddings of all layers (layers, width).
        reference_layers: the same from the reference.

    Returns:
        ``mean_average_precision`` and ``roc_auc`` (means over tags), ``accuracy`` (share of
        decisions that are right), ``reference_mean_average_precision``, ``degradation`` (that minus
        ``mean_average_precision``), intervals of the first and the last (95 %, over recordings that
        are drawn for both at once; None for fewer than two), ``agreement`` (share of decisions that
        are the reference's), ``no_worse_share`` (share of recordings with no more wrong decisions
        than the reference's), ``clips``, ``tags``, ``layer_0_cosine`` and so on (the lowest cosine
        to the reference's embedding over recordings), ``mean_cosine`` and ``worst_cosine`` over
        recordings and layers, ``worst_layer`` (from 0, the input of the first layer) and
        ``worst_recording`` (its index), where the cosine is lowest.

        An embedding that is not finite has cosine -1. A score that is NaN counts as the worst
        answer that a recording can get.

    Raises:
        ValueError: shapes differ, or all recordings have a tag, or none has it.
    """
    known = np.asarray(truth, bool)
    ours, theirs = np.asarray(scores, np.float64), np.asarray(reference_scores, np.float64)
    if known.ndim != 2 or not known.size or not known.shape == ours.shape == theirs.shape:
        raise ValueError(f"needs scores of one shape: {known.shape}, {ours.shape}, {theirs.shape}")
    if not (known.any(axis=0) & ~known.all(axis=0)).all():
        raise ValueError("a tag needs a recording that has it, and one that does not")
    ranking, baseline = _Ranking(ours, known), _Ranking(theirs, known)
    once = np.ones((1, len(known)))
    precision = float(ranking.average_precisions(once).mean())
    reference_precision = float(baseline.average_precisions(once).mean())
    draws = _resampled(ranking, baseline, len(known))
    wrong = _wrong(ours, known)
    cosines = np.array([_cosines(a, b) for a, b in zip(layers, reference_layers, strict=True)])
    recording, layer = np.unravel_index(int(cosines.argmin()), cosines.shape)
    return {
        "mean_average_precision": precision,
        "mean_average_precision_interval": _interval(draws[0], precision),
        "roc_auc": float(ranking.areas(once).mean()),
        "accuracy": float(1.0 - wrong.mean()),
        "reference_mean_average_precision": reference_precision,
        "degradation": reference_precision - precision,
        "degradation_interval": _interval(draws[1] - draws[0], reference_precision - precision),
        "agreement": float(np.mean((ours > 0) == (theirs > 0))),
        "no_worse_share": no_worse_share(wrong.sum(axis=1), _wrong(theirs, known).sum(axis=1)),
        "clips": len(known),
        "tags": known.shape[1],
        **_named(cosines.min(axis=0)),
        "mean_cosine": float(cosines.mean()),
        "worst_cosine": float(cosines.min()),
        "worst_layer": int(layer),
        "worst_recording": int(recording),
    }


def _wrong(scores: Floats, truth: NDArray[np.bool_]) -> Floats:
    wrong: Floats = np.where(np.isnan(scores), 1.0, (scores > 0) != truth)
    return wrong


def _named(by_layer: Floats) -> dict[str, float]:
    return {f"layer_{number}_cosine": float(value) for number, value in enumerate(by_layer)}


def worst_cosine(one: ArrayLike, other: ArrayLike) -> float:
    """Return the lowest cosine, over layers, of two embeddings (layers, width) of a recording."""
    return float(_cosines(one, other).min())


def _cosines(one: ArrayLike, other: ArrayLike) -> Floats:
    ours, theirs = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if ours.shape != theirs.shape:
        return np.full(len(theirs), -1.0)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    products = (ours * theirs).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.clip(products / lengths, -1.0, 1.0)
    same = (ours == theirs).all(axis=1)
    found: Floats = np.where(same, 1.0, np.where(np.isfinite(cosines), cosines, -1.0))
    return found


def _resampled(ranking: _Ranking, baseline: _Ranking, count: int) -> Floats:
    """Return mean average precisions (2, resamples) of both on the same resamples of recordings."""
    if count < 2:
        return np.empty((2, 0))
    found = []
    for indices in resample_indices(count):
        weights = np.stack([np.bincount(row, minlength=count) for row in indices]).astype(float)
        with warnings.catch_warnings():
            # A resample in which no tag has both kinds of recordings is NaN, and left out later.
            warnings.simplefilter("ignore", RuntimeWarning)
            both = [np.nanmean(one.average_precisions(weights), 1) for one in (ranking, baseline)]
        found.append(np.stack(both))
    return np.concatenate(found, axis=1)


def _interval(values: Floats, estimate: float) -> list[float] | None:
    """Return percentiles of resampled values, widened where necessary to contain the estimate."""
    usable = values[~np.isnan(values)]
    if 2 * usable.size <= values.size or not usable.size:
        return None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(usable, [tail, 100.0 - tail])
    return [min(float(low), estimate), max(float(high), estimate)]
