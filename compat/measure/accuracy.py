"""Accuracy stages: scores of the task, and numerics of the graphs' outputs."""

from __future__ import annotations

from typing import Any

from compat.measure.case_under_test import CaseUnderTest
from compat.metrics import numerics as metrics
from compat.models.tasks.base import OUTSIDE_UEM, ScoredSet


def task(case: CaseUnderTest) -> dict[str, Any]:
    """Score each test set against the truth and against the reference."""
    predicted = case.standard.predictions
    expected = case.reference.predictions
    examples = case.inputs.items.examples
    task = case.task.learnt(examples, [expected[item.id] for item in examples])
    sets: dict[str, ScoredSet] = {}
    faults: list[str] = []
    rows: list[dict[str, Any]] = []
    outside: list[str] = []
    for name, items in case.inputs.items.task.items():
        predictions = [predicted[item.id] for item in items]
        references = [expected[item.id] for item in items]
        sets[name] = items, predictions, references
        outside += [item.id for item in items if not item.is_scored]
        faults += [f"{name}: {fault}" for fault in case.faults(predictions, references)]
        rows += [task.row(name, *one) for one in zip(items, predictions, references, strict=True)]
    return {
        "values": task.score_sets(sets),
        "metrics": {metric.name: metric.facts for metric in task.metrics},
        "faults": faults,
        "predictions": rows,
        OUTSIDE_UEM: outside,
    }


def numerics(case: CaseUnderTest) -> dict[str, Any]:
    """Compare traced outputs with the reference's and with the oracle's."""
    items = case.inputs.items.numerics
    oracle = case.inputs.fetch_oracle(
        case.recipe.name, case.target.runtime, case.reference_scheme, case.options.threads
    )
    guides = case.reference.predictions
    traced = [case.trace(item, guides[item.id]) for item in items]
    expected = [case.reference.trace(item.id) for item in items]
    honest = [oracle.trace(item.id) for item in items]
    values: dict[str, Any] = {}
    faults = _truncations(case)
    for name in traced[0]:
        reference = [arrays[name] for arrays in expected]
        device = [arrays[name] for arrays in traced]
        blind = metrics.blind_faults(device, reference)
        faults += [f"{name}: {fault}" for fault in blind]
        if any("shape" in fault or "missing" in fault for fault in blind):
            continue
        if metrics.is_codes(reference):
            values[name] = metrics.agreement(reference, device)
        else:
            compared = metrics.compare(
                reference, [arrays[name] for arrays in honest], device, case.epsilon
            )
            if len(reference) > 1:
                compared["contrast_db"] = metrics.contrast_db(reference)
            values[name] = compared
    values = {**_written(case), **values}
    return {
        "values": {**values, "reference": case.reference_scheme, "inputs": len(items)},
        "faults": faults,
    }


def _written(case: CaseUnderTest) -> dict[str, Any]:
    """Compare freely generated outputs, such as tokens, with those of the reference.

    Traces are forced to follow the reference, so that they do not show what a user gets.
    """
    predictions, references = case.standard.predictions, case.reference.predictions
    items = [item.id for item in case.inputs.items.numerics if item.id in predictions]
    written = {}
    for name in case.task.counted:
        theirs = [list(references[item].get(name, ())) for item in items]
        ours = [list(predictions[item].get(name, ())) for item in items]
        if any(theirs):
            written[name] = metrics.written_agreement(theirs, ours)
    return written


def _truncations(case: CaseUnderTest) -> list[str]:
    """Return a fault if an answer of generated weights is shorter than the reference's.

    A decoder with such weights never ends by itself, so that a shorter answer was truncated.
    """
    if case.weights != "seeded":
        return []
    predictions, references = case.standard.predictions, case.reference.predictions
    for name in case.task.counted:
        for item in case.inputs.items.numerics:
            if item.id in predictions and name in references[item.id]:
                ours = len(predictions[item.id].get(name, ()))
                theirs = len(references[item.id][name])
                if ours < theirs:
                    return [f"truncated: {ours} of {theirs} {name}"]
    return []
