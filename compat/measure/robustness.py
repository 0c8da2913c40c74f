"""Robustness stages: hard inputs, batches, and another order of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from compat.contract.item import Item
from compat.measure.case_under_test import CaseUnderTest
from compat.metrics import numerics
from compat.models.tasks.base import is_recording


def stress(case: CaseUnderTest) -> dict[str, Any]:
    """Run the stress inputs, the batch check and the order check against the reference."""
    results = {item.id: _stressed(case, item) for item in case.inputs.items.stress}
    first = case.standard_items[:1]
    # The first input, run after all others, must give the same answer as it did at first.
    order = _differences(case, first)
    result = {"inputs": results, "order": order, "inventions": _inventions(case)}
    if case.batched:
        result["batch"] = in_batch(case)
    return result


def in_batch(case: CaseUnderTest) -> dict[str, Any]:
    """Compare the answers to inputs in a batch with those to the same inputs alone."""
    size = case.inputs.model.batches()[-1]
    return _differences(case, list(islice(cycle(case.standard_items), size)))


def searchable(case: CaseUnderTest) -> bool:
    """Return whether the search beyond the fixed list can make inputs: it draws audio only."""
    return all(map(is_recording, case.standard_items))


def found(case: CaseUnderTest, entry: dict[str, Any]) -> dict[str, Any]:
    """Run one input made on the spot; without a reference only crashes and faults can show."""
    speech = case.standard_items
    (item,) = case.task.hard([{"name": "found", **entry}], speech, case.inputs.model.sample_rate)
    predictions, _, seconds = case.predict([item])
    return {"faults": case.faults(predictions), "seconds": seconds}


def _stressed(case: CaseUnderTest, item: Item) -> dict[str, Any]:
    reference = case.reference.predictions[item.id]
    longest = max(case.inputs.items.stress, key=lambda one: one.seconds)
    result: dict[str, Any] = {"audio_s": item.seconds}
    faults: list[str] = []
    if case.weights != "seeded" or item is longest:
        (prediction,), _, result["seconds"] = case.predict([item])
        faults = case.faults([prediction])
    if case.weights != "seeded":
        faults += case.task.inventions(item, prediction, reference)
        return {**result, **case.task.errors(item, prediction, reference), "faults": faults}
    # Free-running tokens of generated weights prove nothing, so the traced outputs are compared.
    traced, expected = case.trace(item, reference), case.reference.trace(item.id)
    for name, array in traced.items():
        faults += numerics.blind_faults([array], [expected[name]])
    if not faults:
        result["snr_db"] = min(
            _snr_db(case, name, array, expected[name])
            for name, array in traced.items()
            if not numerics.is_codes([expected[name]])
        )
    return {**result, "faults": faults}


def _inventions(case: CaseUnderTest) -> dict[str, list[str]]:
    """Return, by item id, what answers of the standard pass invent beyond the reference's."""
    if case.weights == "seeded":
        return {}
    answers, expected = case.standard.predictions, case.reference.predictions
    found = {
        item.id: case.task.inventions(item, answers[item.id], expected[item.id])
        for item in case.standard_items
        if item.id in expected
    }
    return {name: phrases for name, phrases in found.items() if phrases}


def _snr_db(case: CaseUnderTest, name: str, array: np.ndarray, expected: np.ndarray) -> float:
    """Return the signal-to-noise ratio of one output of a hard input, in decibels.

    The signal is the variation over ordinary inputs and this one, because a hard input such as
    silence has hardly any variation of its own.
    """
    usual = [case.reference.trace(one.id)[name] for one in case.inputs.items.numerics]
    compared = numerics.compare([*usual, expected], None, [*usual, array])
    return float(compared["worst_snr_db"])


def _differences(case: CaseUnderTest, items: Sequence[Item]) -> dict[str, Any]:
    """Run standard inputs once more; name those whose answers differ from the standard pass."""
    _ = case.standard
    predictions, _, _ = case.predict(items)
    different = [
        item.id
        for item, prediction in zip(items, predictions, strict=True)
        if not case.is_standard(item, prediction)
    ]
    return {"items": len(items), "different": different}
