"""Voice activity: where somebody speaks, scored by the detection error rate."""

from __future__ import annotations

import numpy as np

from compat.contract.item import Prediction


def decided(prediction: Prediction, threshold: float) -> np.ndarray:
    """Return, per frame, whether its probability of speech reaches the threshold."""
    decided: np.ndarray = np.asarray(prediction["probabilities"]) >= threshold
    return decided
