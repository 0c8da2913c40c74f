"""What models that turn speech into a speaker embedding have in common: inputs and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compat.contract.item import Item, Prediction
from compat.inputs.corpus import Corpus, TestSet
from compat.models.base import Model
from compat.models.items import Items

SAME_COSINE = 0.95
"""Cosine to the reference's embedding below which a single answer counts as wrong.

Two utterances of one speaker of the shipped trials have 0.91 on average (Resemblyzer, float32): a
backend must move the same audio by clearly less than another sentence does.
"""
DIGITS = 6
"""Significant digits of a stored embedding: a float32 has seven."""


def prediction(embedding: np.ndarray) -> Prediction:
    """Return an embedding (n,) as JSON."""
    return {"embedding": [float(f"{value:.{DIGITS}g}") for value in embedding]}


def trial_items(corpus: Corpus, rate: int, limit: int | None = None) -> dict[str, list[Item]]:
    """Read the recordings of trials, by test set; empty where the corpus has no trials.

    Up to ``limit`` recordings of a set are taken along its target trials, so that speakers stay
    together; all of them where too few would leave no pair of two speakers.
    """
    found = {}
    for name, test_set in corpus.choose(("speakers",), "trials").items():
        kept = _along_targets(test_set, limit) if limit else None
        found[name] = [
            test_set.item(index, rate)
            for index in range(len(test_set.lines))
            if kept is None or test_set.identifier(index) in kept
        ]
    return found


def _along_targets(test_set: TestSet, limit: int) -> set[str] | None:
    kept: dict[str, None] = {}
    for one, other, same in test_set.trials:
        if same and len(kept | {one: None, other: None}) <= limit:
            kept |= {one: None, other: None}
    inside = {same for one, other, same in test_set.trials if one in kept and other in kept}
    return set(kept) if len(inside) == 2 else None


class SpeakerModel(Model):
    """Embeds whole utterances; a prediction is ``{"embedding": [float, …]}``."""

    quick_limit: int | None = None
    """Recordings of the quick profile; None for all of them."""

    def scored_items(self, corpus: Corpus, profile: str) -> Items:
        """Return the inputs of weights that know speakers."""
        limit = self.quick_limit if profile == "quick" else None
        task = trial_items(corpus, self.sample_rate, limit)
        if task:
            return Items.of(task)
        # An own corpus without trials: no error rate, all else as usual.
        return Items.of({"speech": corpus.speech.items(self.sample_rate, 24)}, False)

    def score(
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
        # Written so that NaN is an error too.
        return {"errors": 0.0 if near >= SAME_COSINE else 1.0, "reference": 0.0}
