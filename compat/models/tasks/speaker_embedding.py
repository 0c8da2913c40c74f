"""Speaker embedding: a vector per utterance, scored by the equal error rate of trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import TestSet
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.models.tasks.base import Task

SAME_COSINE = 0.95
"""Cosine to the reference's embedding below which a single answer counts as wrong.

Two utterances of one speaker of the shipped trials have 0.91 on average (Resemblyzer, float32): a
backend must move the same audio by clearly less than another sentence does.
"""
DIGITS = 6
"""Significant digits of a stored embedding: a float32 has seven."""


def prediction(embedding: np.ndarray) -> Prediction:
    """Return the prediction for an embedding (n,), as JSON values."""
    return {"embedding": [float(f"{value:.{DIGITS}g}") for value in embedding]}


def _along_targets(test_set: TestSet, limit: int) -> set[str] | None:
    kept: dict[str, None] = {}
    for one, other, same in test_set.trials:
        if same and len(kept | {one: None, other: None}) <= limit:
            kept |= {one: None, other: None}
    inside = {same for one, other, same in test_set.trials if one in kept and other in kept}
    return set(kept) if len(inside) == 2 else None


@dataclass(frozen=True)
class SpeakerEmbedding(Task):
    """Embeds whole utterances. A prediction is ``{"embedding": [float, …]}``."""

    quick_limit: int | None = 24
    """Largest number of recordings in a first look; None for all of them."""

    name: ClassVar[str] = "speaker-embedding"
    fact: ClassVar[str] = "trials"
    truths: ClassVar[tuple[str, ...]] = ("speaker", "trials")
    sets: ClassVar[tuple[str, ...]] = ("speakers",)
    unscored: ClassVar[int] = 24
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("eer", "share", "lower", primary=True),
        Metric("min_dcf_01", "number", "lower"),
        Metric("min_dcf_05", "number", "lower"),
        Metric("reference_eer", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        Metric("mean_cosine", "cosine", "higher"),
        Metric("worst_cosine", "cosine", "higher"),
        *(Metric(name, "count") for name in ("trials", "targets", "utterances")),
        Metric("worst_utterance", "number"),
    )

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        """Read the recordings that trials compare.

        For a first look, recordings are taken in the order of the target trials, so that pairs of
        one speaker stay together. All are read if the limit would leave no pair of two speakers.
        """
        limit = self.quick_limit if profile.first_look else None
        chosen = _along_targets(test_set, limit) if limit else None
        return [
            test_set.item(index, rate)
            for index in range(len(test_set.lines))
            if chosen is None or test_set.identifier(index) in chosen
        ]

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.verification import Trial, task_verification

        position = {item.id: index for index, item in enumerate(items)}
        trials = [
            Trial(position[item.id], position[other], bool(same))
            for item in items
            for other, same in item.facts.get("trials", ())
            if other in position
        ]
        return task_verification(
            trials,
            [prediction["embedding"] for prediction in predictions],
            [prediction["embedding"] for prediction in references],
            [str(item.facts.get("speaker", item.id)) for item in items],
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.verification import cosine

        near = cosine(prediction["embedding"], reference["embedding"])
        # Not ``near < SAME_COSINE``: NaN must be an error too.
        return {"errors": 0.0 if near >= SAME_COSINE else 1.0, "reference": 0.0}
