"""What models that turn speech into text have in common: inputs and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compat.contract.item import Item, Prediction
from compat.inputs.corpus import Corpus
from compat.models.base import Model
from compat.models.items import Items


class TranscriptionModel(Model):
    """Transcribes utterances; a prediction has a ``text`` where the weights know words."""

    brief_seconds = 1.0  # One utterance of a set.
    open_vocabulary: bool
    """Whether it writes any word: a closed vocabulary has one spelling, and the normaliser would
    join its number words."""

    def scored_items(self, corpus: Corpus, profile: str) -> Items:
        """Return the inputs of weights that know words."""
        limit = {"quick": 16, "core": 60, "full": None}[profile]
        sets = corpus.choose(("clean", "hard"), "text")
        task = {name: found.items(self.sample_rate, limit) for name, found in sets.items()}
        if task:
            return Items.of(task)
        # An own corpus without words: no word error rate, all else as usual.
        return Items.of({"speech": corpus.speech.items(self.sample_rate, limit)}, False)

    def score(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.wer import EnglishNormalizer, task_wer

        return task_wer(
            [item.text for item in items],
            [prediction["text"] for prediction in predictions],
            [prediction["text"] for prediction in references],
            normalize=EnglishNormalizer() if self.open_vocabulary else None,
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.wer import word_errors

        # Without regard to capitals: some checkpoints write nothing else.
        found, expected = (
            word_errors(item.text.lower(), one["text"].lower()) for one in (prediction, reference)
        )
        return {"errors": float(found.errors), "reference": float(expected.errors)}
