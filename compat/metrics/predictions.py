"""Comparison of predictions: equality apart from rounding, and faults that no mean may hide.

A prediction is a mapping of JSON values and NumPy arrays. Arrays are compared as lists of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def same_prediction(one: Any, other: Any) -> bool:
    """Return whether two predictions are equal apart from rounding.

    Lists of numbers (embeddings, probabilities) are compared as vectors: they may differ by 1 % of
    their length, which another order of summation never reaches and another input always exceeds.
    Words, tokens and speakers must be equal.
    """
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        floats = one.dtype.kind == "f" or other.dtype.kind == "f"
        if one.shape != other.shape:
            return False
        return _close(one, other) if floats else bool((one == other).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
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
    finite = np.isfinite(one)
    if not (finite == np.isfinite(other)).all():
        return False
    ours, theirs = one[finite], other[finite]
    return bool(np.linalg.norm(ours - theirs) <= 0.01 * np.linalg.norm(theirs) + 1e-6)


def prediction_faults(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]] | None
) -> list[str]:
    """Return faults that no mean may hide: values that are not finite, constant or empty answers.

    ``references`` are the reference's predictions for the same inputs; without them only values are
    checked.
    """
    faults = []
    for name, finite in (("NaN", np.isnan), ("infinite", np.isinf)):
        count = sum(
            any(finite(numbers).any() for numbers in _numbers(prediction))
            for prediction in predictions
        )
        if count:
            faults.append(f"{count} of {len(predictions)} outputs hold {name} values")
    if references is None or len(predictions) < 2:
        return faults
    constant = all(same_prediction(one, predictions[0]) for one in predictions[1:])
    if constant and not all(same_prediction(one, references[0]) for one in references[1:]):
        faults.append(f"the same output for all {len(predictions)} inputs")
    empty = sum(
        not _says_anything(prediction) and _says_anything(reference)
        for prediction, reference in zip(predictions, references, strict=True)
    )
    if empty:
        faults.append(f"{empty} of {len(predictions)} outputs are empty")
    return faults


def _says_anything(prediction: Mapping[str, Any]) -> bool:
    return any(
        bool(value.any()) if isinstance(value, np.ndarray) else bool(value)
        for value in prediction.values()
    )


def _numbers(value: Any) -> Iterator[np.ndarray]:
    """Yield every floating-point value of a prediction, array by array."""
    if isinstance(value, float):
        yield np.array([value])
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list):
        floats = [item for item in value if isinstance(item, float)]
        if floats:
            yield np.array(floats)
        for item in value:
            if not isinstance(item, float):
                yield from _numbers(item)
