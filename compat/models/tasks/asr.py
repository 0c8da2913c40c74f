"""Speech recognition: a text per utterance, scored by its word error rate.

Sets in a language without spaces between words are scored by the character error rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import DEFAULT, Corpus, TestSet
from compat.inputs.people import PEOPLE
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.metrics.invention import inventions
from compat.models.items import Items
from compat.models.tasks.base import Task


@dataclass(frozen=True)
class Transcription(Task):
    """Transcribes utterances. A prediction has a ``text`` if the weights know words."""

    open_vocabulary: bool
    """Whether the model can write any word. If not, texts are not normalised: the words of a closed
    vocabulary have one spelling each, and the normaliser would join its number words."""
    brief_seconds: float = 1.0
    """Seconds of each set in a slow target's first look: so few that one utterance is taken."""

    name: ClassVar[str] = "asr"
    fact: ClassVar[str] = "text"
    counted: ClassVar[tuple[str, ...]] = ("tokens",)
    truths: ClassVar[tuple[str, ...]] = ("text", "lang")
    sets: ClassVar[tuple[str, ...]] = ("clean", "hard")
    pooled: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("wer", "share", "lower", primary=True),
        Metric("cer", "share", "lower"),
        Metric("capped_wer", "share", "lower"),
        Metric("reference_wer", "share"),
        Metric("reference_cer", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        *(
            Metric(name, "count")
            for name in (
                "substitutions",
                "insertions",
                "deletions",
                "words",
                "characters",
                "utterances",
            )
        ),
        Metric("worst_utterance", "number"),
    )

    def preferred(self, profile: Profile) -> tuple[str, ...]:
        # People's recordings hold any words, which a closed vocabulary does not know.
        return (*self.sets, PEOPLE) if self.open_vocabulary else self.sets

    def unscored_count(self, profile: Profile) -> int | None:
        return profile.pick(16, 60, None)

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        # The synthesised words of the shipped corpus are meant for closed vocabularies. A model
        # with an open vocabulary mishears half of them, and each costs a whole window of 30 s. So
        # it gets few: the width of the degradation's interval depends on people's speech. With 16,
        # 8 or 4 recordings of each synthetic set, the interval of PyTorch's int8 (whisper-tiny.en)
        # is -1.0 to 3.7, -1.1 to 3.7 or -0.8 to 3.0 points.
        if self.open_vocabulary and test_set.folder.is_relative_to(DEFAULT):
            return test_set.items(rate, None if profile.whole else 4)
        return super().recordings(test_set, rate, profile)

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        chosen = super().items(corpus, rate, profile)
        people = chosen.task.get(PEOPLE, ())
        # Limits of numerics were measured on people's speech (docs/accuracy.md).
        return chosen if profile.whole or not people else replace(chosen, numerics=people[::3])

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.languages import is_spaced
        from compat.metrics.wer import by_characters, task_wer

        spoken = [_language(item) for item in items]
        values = task_wer(
            self.comparable([item.text for item in items], spoken),
            self.comparable([prediction["text"] for prediction in predictions], spoken),
            self.comparable([prediction["text"] for prediction in references], spoken),
        )
        return values if any(map(is_spaced, spoken)) else by_characters(values)

    def comparable(self, texts: Sequence[str], spoken: Sequence[str]) -> list[str]:
        """Return texts in the form in which their words (or characters) are compared."""
        from compat.metrics.languages import normalizer, units

        return [
            units(normalizer(one)(text) if self.open_vocabulary else text, one)
            for text, one in zip(texts, spoken, strict=True)
        ]

    def compared(self, items: Sequence[Item], predictions: Sequence[Prediction]) -> tuple[Any, Any]:
        return [item.text for item in items], [str(one["text"]) for one in predictions]

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.languages import units
        from compat.metrics.wer import word_errors

        spoken = _language(item)
        # Capitals are ignored, because some checkpoints write nothing but capitals.
        ours, theirs = (
            word_errors(units(item.text.lower(), spoken), units(str(one["text"]).lower(), spoken))
            for one in (prediction, reference)
        )
        return {"errors": float(ours.errors), "reference": float(theirs.errors)}

    def inventions(self, item: Item, prediction: Prediction, reference: Prediction) -> list[str]:
        wordless = item.facts.get("text") == ""
        ours, theirs = str(prediction["text"]), str(reference["text"])
        return inventions(ours, theirs, item.seconds, wordless=wordless)


def _language(item: Item) -> str:
    return str(item.facts.get("lang") or "")
