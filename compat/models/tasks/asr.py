"""Speech recognition: a text per utterance, scored by the word error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.metrics.invention import inventions
from compat.models.tasks.base import Task


@dataclass(frozen=True)
class Transcription(Task):
    """Transcribes utterances. A prediction has a ``text`` where the weights know words."""

    open_vocabulary: bool
    """Whether the model writes any word. The words of a closed vocabulary have one spelling, and
    the normaliser would join its number words."""
    brief_seconds: float = 1.0
    """One utterance of a set."""

    name: ClassVar[str] = "asr"
    fact: ClassVar[str] = "text"
    truths: ClassVar[tuple[str, ...]] = ("text",)
    sets: ClassVar[tuple[str, ...]] = ("clean", "hard")
    pooled: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("wer", "share", "lower", primary=True),
        Metric("cer", "share", "lower"),
        Metric("capped_wer", "share", "lower"),
        Metric("reference_wer", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        *(
            Metric(name, "count")
            for name in ("substitutions", "insertions", "deletions", "words", "utterances")
        ),
        Metric("worst_utterance", "number"),
    )

    def unscored_count(self, profile: Profile) -> int | None:
        return profile.pick(16, 60, None)

    def scores(
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

    def compared(self, items: Sequence[Item], predictions: Sequence[Prediction]) -> tuple[Any, Any]:
        return [item.text for item in items], [str(one["text"]) for one in predictions]

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.wer import word_errors

        # Without regard to capitals: some checkpoints write nothing else.
        ours, theirs = (
            word_errors(item.text.lower(), str(one["text"]).lower())
            for one in (prediction, reference)
        )
        return {"errors": float(ours.errors), "reference": float(theirs.errors)}

    def inventions(self, item: Item, prediction: Prediction, reference: Prediction) -> list[str]:
        wordless = item.facts.get("text") == ""
        ours, theirs = str(prediction["text"]), str(reference["text"])
        return inventions(ours, theirs, item.seconds, wordless=wordless)
