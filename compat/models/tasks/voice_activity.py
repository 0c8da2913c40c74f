"""Voice activity: where somebody speaks, scored by the detection error rate."""

from __future__ import annotations

import numpy as np

from compat.contract.item import Prediction
from compat.models.silero import THRESHOLD


def _decided(prediction: Prediction) -> np.ndarray:
    decided: np.ndarray = np.asarray(prediction["probabilities"]) >= THRESHOLD
    return decided
