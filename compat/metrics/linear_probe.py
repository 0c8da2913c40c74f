"""Linear probes: linear classifiers of tags, on the embeddings of a frozen model.

Source: Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016.
The classifier is ridge regression on targets of 1 and -1 in closed form, which needs no iteration
and gives the same numbers everywhere, apart from rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PENALTY = 0.01
"""Weight of the squared matrix beside the mean squared error, per feature of unit variance."""
LEAST = 1e-6
"""Share of the largest deviation below which a feature is constant and gets scale zero."""


@dataclass(frozen=True)
class Probe:
    """Decides tags from features: positive scores where a recording has a tag."""

    tags: tuple[str, ...]
    mean: Floats
    """(features,), means over the recordings that it was trained on."""
    scale: Floats
    """(features,), one over the deviations; zero for features that do not vary."""
    matrix: Floats
    """(features, tags)."""
    bias: Floats
    """(tags,)."""

    def scores(self, features: np.ndarray) -> Floats:
        """Map features (recordings, features) to scores (recordings, tags)."""
        normal = (np.asarray(features, np.float64) - self.mean) * self.scale
        scores: Floats = normal @ self.matrix + self.bias
        return scores


def train(features: np.ndarray, tags: Sequence[Collection[str]]) -> Probe:
    """Return a probe for those tags that some recordings have and some do not.

    Args:
        features: (recordings, features).
        tags: the tags of each recording.

    Raises:
        ValueError: there are no features, or not as many collections of tags as recordings.
    """
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or not rows.size or len(rows) != len(tags):
        raise ValueError(f"needs features and tags of each recording: {rows.shape}, {len(tags)}")
    counts = {tag: sum(tag in one for one in tags) for tag in {tag for one in tags for tag in one}}
    told = tuple(sorted(tag for tag, count in counts.items() if count < len(tags)))
    targets = np.array([[1.0 if tag in one else -1.0 for tag in told] for one in tags])
    targets = targets.reshape(len(tags), len(told))
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    constant = deviation <= LEAST * max(deviation.max(), np.finfo(np.float64).tiny)
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
    normal, bias = (rows - mean) * scale, targets.mean(axis=0)
    # The dual form has one unknown per recording; there are fewer of them than of features.
    penalty = PENALTY * rows.shape[1] * len(rows)
    dual = np.linalg.solve(normal @ normal.T + penalty * np.eye(len(rows)), targets - bias)
    return Probe(told, mean, scale, normal.T @ dual, bias)
