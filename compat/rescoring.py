"""Judging stored observations again: scorers and thresholds change more often than measurements.

Task metrics are computed anew from the predictions that the results file keeps, whatever
thresholds apply; all other numbers stay what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from compat import catalog
from compat.corpus import Item
from compat.metrics import SCORER_VERSION
from compat.models.base import Model
from compat.results import CaseFacts, Level, Limit, Observation, Run, Status, Writer
from compat.thresholds import Thresholds
from compat.weights import CheckpointError, find_checkpoint

TASK = "accuracy.task"


def rescore(run: Run, thresholds: Thresholds, folder: Path) -> tuple[Path, int]:
    """Write a results file with the same measurements, scored and judged anew.

    Statuses that no threshold decides (crashed, unsupported, faults in outputs …) stay, and so do
    the scores of models that are not in the catalog, or whose checkpoint is not at hand.

    Returns:
        The file's path, and how many observations changed their level.
    """
    hashes = {**run.header.hashes, "thresholds": thresholds.digest}
    versions = {**run.header.versions, "scorer": str(SCORER_VERSION)}
    path = folder / f"{run.header.run}.{run.header.worker}.jsonl"
    path.unlink(missing_ok=True)
    writer = Writer(folder, msgspec.structs.replace(run.header, hashes=hashes, versions=versions))
    facts = {planned.case.id: planned.case for planned in run.planned}
    changed = 0
    for planned in run.planned:
        writer.write(planned)
    for one in run.observations:
        judged = one
        if one.case in facts and one.values and one.status in ("passed", "failed"):
            if one.check == TASK:
                scores = task_scores(one, facts[one.case])
                one = msgspec.structs.replace(one, values=scores)
            level, limits, reason = thresholds.judge(one.check, facts[one.case], one.values)
            # A failure with every old limit met came from a fault, which no threshold forgives.
            fault = one.status == "failed" and all(old.level != "failed" for old in one.limits)
            judged = one if fault else _judged(one, level or one.level or "strict", limits, reason)
        changed += judged.level != one.level
        writer.write(judged)
    writer.close()
    return path, changed


def task_scores(one: Observation, case: CaseFacts) -> dict[str, Any]:
    """Return the task metrics of stored predictions, or the stored ones where that cannot be."""
    score = _scorer(case)
    rows = [row for row in one.predictions if isinstance(row, dict) and "prediction" in row]
    if score is None or not rows:
        return one.values
    scores: dict[str, Any] = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        items = [Item.without_audio(row["item"], row["truth"], row["audio_s"]) for row in of_set]
        predictions = [row["prediction"] for row in of_set]
        references = [row.get("reference", row["prediction"]) for row in of_set]
        scores[name] = score(items, predictions, references)
    return scores


def _scorer(case: CaseFacts) -> Callable[..., dict[str, Any]] | None:
    known = catalog.load()
    try:
        family = next(family for family in known.families if family.name == case.family)
        variant = next(variant for variant in family.variants if variant.name == case.variant)
        trained = case.weights == "trained"
        checkpoint = variant.trained if trained else str(find_checkpoint(variant.checkpoint))
        model: Model = known.family_module(family.name).load(variant.name, case.weights, checkpoint)
    except (StopIteration, CheckpointError):
        return None
    return model.score


def _judged(one: Observation, level: Level, limits: tuple[Limit, ...], reason: str) -> Observation:
    status: Status = "failed" if level == "failed" else "passed"
    return msgspec.structs.replace(one, status=status, level=level, limits=limits, reason=reason)
