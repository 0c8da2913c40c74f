"""Scores of zero-shot classification and retrieval: the sentences nearest to a sound, and back.

An item is a recording, with its cosines to every class and to every caption.

- **Zero-shot accuracy**: share of the recordings whose nearest class is their own.
- **Recall at k**, audio to text: share of the recordings that have a right caption among their k
  nearest captions. Text to audio: share of the captions that have a right recording among their k
  nearest recordings. A recording may have several captions, and a caption several recordings: any
  right one counts, as in the evaluation of AudioCaps and Clotho (Oncescu et al., "Audio Retrieval
  with Natural Language Queries", Interspeech 2021).
- **Rank correlation**: Spearman's, between the order of all candidates by a case and by the
  reference; the mean over recordings.

A wrong candidate that is as near as the right one counts as nearer, and NaN as farthest, so that an
answer which does not tell its candidates apart finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compat.metrics.bootstrap import no_worse_share, paired_interval, ratio_interval
from compat.metrics.verification import cosine

Floats = NDArray[np.float64]
CANDIDATES = ("labels", "captions")
"""Keys of a prediction that hold its cosines to the candidates."""


def best_rank(cosines: ArrayLike, right: Sequence[int]) -> int:
    """Rank of the best of the right candidates, 1 for the nearest.

    Args:
        cosines: (candidates,).
        right: positions of at least one right candidate.
    """
    values = np.nan_to_num(np.asarray(cosines, np.float64), nan=-np.inf)
    others = np.delete(values, list(right))
    return 1 + int((others >= values[list(right)].max()).sum())


def recall(ranks: Sequence[int], k: int) -> float:
    """Share (0 to 1) of ranks that are at most ``k``."""
    return float(np.mean(np.asarray(ranks) <= k))


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's rank correlation of two lists of cosines, -1 to 1; equal values share ranks.

    The result is 1 for lists of one value, and 0 if all values of a list are equal or one is not
    finite.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"needs as many cosines of either: {a.shape}, {b.shape}")
    if a.size < 2:
        return 1.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    ranks = [_ranks(values) for values in (a, b)]
    deviations = [values - values.mean() for values in ranks]
    lengths = [float(np.linalg.norm(values)) for values in deviations]
    return float(deviations[0] @ deviations[1] / (lengths[0] * lengths[1])) if all(lengths) else 0.0


def _ranks(values: Floats) -> Floats:
    """Ranks (n,) from 0; equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    means: Floats = (ends - (counts + 1) / 2)[inverse]
    return means


def task_retrieval(
    labels: Sequence[int | None],
    captions: Sequence[Sequence[int]],
    predictions: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Score the answers of one case against the truth and against the reference execution.

    Args:
        labels: position of each recording's class among all classes; None where none is known.
        captions: positions of each recording's captions among all captions; empty for none.
        predictions: for each recording its ``embedding`` (n,), and its cosines to all ``labels``
            and to all ``captions``, if there are any.
        references: the same from the float reference; the hardware is judged by the difference.

    Returns:
        ``items``, ``labels`` and ``captions`` (counts); ``mean_cosine``, ``worst_cosine`` and
        ``worst_item`` (index) of the embeddings to the reference's; and ``rank_correlation``. If
        classes are known, ``zero_shot_accuracy`` with its 95 % interval,
        ``reference_zero_shot_accuracy`` and ``same_label`` (share of recordings given the same
        class as by the reference). If captions are known, ``audio_to_text_r1``, ``_r5``,
        ``text_to_audio_r1`` and ``_r5``. ``degradation``, its interval and ``no_worse_share``
        compare the classes with the reference's or, without classes, the nearest captions. Rates
        are fractions; intervals are None for one recording.

    Raises:
        ValueError: there are no recordings, or the four lengths differ.
    """
    if not 0 < len(labels) == len(captions) == len(predictions) == len(references):
        raise ValueError("needs a class, captions and an answer of either execution per recording")
    near = [
        cosine(ours["embedding"], theirs["embedding"])
        for ours, theirs in zip(predictions, references, strict=True)
    ]
    near = [-1.0 if np.isnan(value) else value for value in near]
    shared = [name for name in CANDIDATES if name in references[0]]
    values: dict[str, Any] = {
        "items": len(predictions),
        "labels": len(references[0].get("labels", ())),
        "captions": len(references[0].get("captions", ())),
        "rank_correlation": float(
            np.mean(
                [
                    rank_correlation(ours[name], theirs[name])
                    for ours, theirs in zip(predictions, references, strict=True)
                    for name in shared
                ]
            )
        ),
        "mean_cosine": float(np.mean(near)),
        "worst_cosine": min(near),
        "worst_item": int(np.argmin(near)),
    }
    wrong: Floats | None = None
    if any(captions):
        wrong, theirs = (_captions_missed(captions, one) for one in (predictions, references))
        values |= _retrieval(captions, predictions)
    known = [index for index, label in enumerate(labels) if label is not None]
    if known:
        wrong, theirs = (_labels_missed(labels, known, one) for one in (predictions, references))
        values |= {
            "zero_shot_accuracy": 1.0 - float(wrong.mean()),
            "zero_shot_accuracy_interval": _share_interval(wrong),
            "reference_zero_shot_accuracy": 1.0 - float(theirs.mean()),
            "same_label": float(
                np.mean(
                    [
                        _nearest(predictions[i]["labels"]) == _nearest(references[i]["labels"])
                        for i in known
                    ]
                )
            ),
        }
    if wrong is not None:
        interval = paired_interval(wrong, theirs, np.ones_like(wrong))
        values |= {
            "degradation": float((wrong - theirs).mean()),
            "degradation_interval": None if interval is None else list(interval),
            "no_worse_share": no_worse_share(wrong, theirs),
        }
    return values


def _nearest(cosines: ArrayLike) -> int:
    return int(np.nan_to_num(np.asarray(cosines, np.float64), nan=-np.inf).argmax())


def _labels_missed(
    labels: Sequence[int | None], known: Sequence[int], answers: Sequence[Mapping[str, Any]]
) -> Floats:
    """1 for each recording of known class whose nearest class is another one, else 0."""
    return np.array(
        [
            float(best_rank(answers[index]["labels"], [label]) > 1)
            for index in known
            if (label := labels[index]) is not None
        ]
    )


def _captions_missed(
    captions: Sequence[Sequence[int]], answers: Sequence[Mapping[str, Any]]
) -> Floats:
    """1 for each recording with captions whose nearest caption is another one, else 0."""
    pairs = zip(captions, answers, strict=True)
    return np.array([float(best_rank(one["captions"], own) > 1) for own, one in pairs if own])


def _retrieval(
    captions: Sequence[Sequence[int]], answers: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    matrix = np.array([answer["captions"] for answer in answers], np.float64)
    found = [best_rank(row, own) for row, own in zip(matrix, captions, strict=True) if own]
    sounds = [
        [index for index, own in enumerate(captions) if caption in own]
        for caption in range(matrix.shape[1])
    ]
    back = [
        best_rank(column, right) for column, right in zip(matrix.T, sounds, strict=True) if right
    ]
    directions = {"audio_to_text": found, "text_to_audio": back}
    return {f"{name}_r{k}": recall(ranks, k) for name, ranks in directions.items() for k in (1, 5)}


def _share_interval(wrong: Floats) -> list[float] | None:
    """Interval of the share that is right."""
    interval = ratio_interval(wrong, np.ones_like(wrong))
    return None if interval is None else [1.0 - interval.high, 1.0 - interval.low]
