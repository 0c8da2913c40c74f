"""Predictions: compared, stored, and searched for faults that no average may hide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compat.contract.item import Item, Prediction


def scored_row(
    name: str, item: Item, prediction: Prediction, reference: Prediction
) -> dict[str, Any]:
    """Return all that a score is computed from, so that it can be computed again."""
    row = {
        "set": name,
        "item": item.id,
        "audio_s": item.seconds,
        "truth": item.truth,
        "prediction": prediction,
    }
    return row if reference == prediction else {**row, "reference": reference}


def same_prediction(one: Any, other: Any) -> bool:
    """Return whether two predictions are equal but for rounding.

    Lists of numbers (embeddings, probabilities) are compared as vectors: they may differ by 1 % of
    their length, which another order of summation never reaches and another input always exceeds.
    Words, tokens and speakers must be equal.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        keys = (one.keys() | other.keys()) - {"level"}
        return all(same_prediction(one.get(key), other.get(key)) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return False
        numbers = all(isinstance(value, int | float) for value in (*one, *other))
        if numbers and any(isinstance(value, float) for value in (*one, *other)):
            return _close(np.asarray(one, float), np.asarray(other, float))
        return all(map(same_prediction, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return _close(np.array([one]), np.array([other]))
    return bool(one == other)


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if not (np.isfinite(one) == np.isfinite(other)).all():
        return False
    difference = np.nan_to_num(one - other)
    return bool(np.linalg.norm(difference) <= 0.01 * np.linalg.norm(np.nan_to_num(other)) + 1e-6)


def prediction_faults(
    predictions: Sequence[Prediction], references: Sequence[Prediction] | None
) -> list[str]:
    """Faults that no average may hide: numbers that are none, one answer for every input."""
    faults = []
    for name, finite in (("NaN", math.isnan), ("infinite", math.isinf)):
        count = sum(any(map(finite, _numbers(prediction))) for prediction in predictions)
        if count:
            faults.append(f"{count} of {len(predictions)} outputs hold {name} values")
    if references is None or len(predictions) < 2:
        return faults
    constant = all(same_prediction(one, predictions[0]) for one in predictions[1:])
    if constant and not all(same_prediction(one, references[0]) for one in references[1:]):
        faults.append(f"the same output for all {len(predictions)} inputs")
    empty = sum(
        not any(prediction.values()) and any(reference.values())
        for prediction, reference in zip(predictions, references, strict=True)
    )
    if empty:
        faults.append(f"{empty} of {len(predictions)} outputs are empty")
    return faults


def _numbers(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return []
