"""Speech translation: a text per utterance, in the language of the speech or in another.

Sets with translations are scored by chrF and BLEU. Sets with the spoken words are scored as speech
recognition is. A set that has both becomes two sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import Corpus, TestSet
from compat.inputs.layouts.checking import TARGET, TRANSLATION
from compat.metrics import Metric
from compat.metrics.languages import code
from compat.models.items import Items
from compat.models.tasks.asr import Transcription
from compat.models.tasks.base import Task

ENGLISH = "en"
TRANSCRIPTION = Transcription(open_vocabulary=True)


@dataclass(frozen=True)
class SpeechTranslation(Task):
    """Transcribes or translates utterances. A prediction has a ``text``.

    A translated set has the metrics of translations, a transcribed set those of
    :class:`~compat.models.tasks.asr.Transcription`.
    """

    name: ClassVar[str] = "speech-translation"
    counted: ClassVar[tuple[str, ...]] = ("tokens",)
    truths: ClassVar[tuple[str, ...]] = ("text", "lang", TRANSLATION, TARGET)
    sets: ClassVar[tuple[str, ...]] = TRANSCRIPTION.sets
    brief_seconds: float = 1.0
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("chrf", "share", "higher", primary=True),
        Metric("bleu", "share", "higher"),
        Metric("reference_chrf", "share"),
        Metric("reference_bleu", "share"),
        Metric("exact_share", "share", "higher"),
        *(replace(metric, primary=False) for metric in TRANSCRIPTION.metrics),
    )

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        spoken = corpus.choose(TRANSCRIPTION.preferred(profile), "text")
        translated = corpus.choose((), TRANSLATION)
        chosen = {
            f"{name}-translation": [
                _translated(item) for item in self.recordings(one, rate, profile)
            ]
            for name, one in translated.items()
        }
        chosen |= {
            name: [_transcribed(item) for item in self.recordings(one, rate, profile)]
            for name, one in spoken.items()
        }
        return Items.of(chosen) if chosen else super().items(corpus, rate, profile)

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        return TRANSCRIPTION.recordings(test_set, rate, profile)

    def unscored_count(self, profile: Profile) -> int | None:
        return profile.pick(4, 12, 60)

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.translation import task_translation

        if TRANSLATION not in items[0].facts:
            return TRANSCRIPTION.scores(items, predictions, references)
        return task_translation(
            [item.facts[TRANSLATION] for item in items],
            [str(one["text"]) for one in predictions],
            [str(one["text"]) for one in references],
            written_language(items[0]),
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        # A translation cannot be compared with the item's words, so it is compared with the
        # reference's answer.
        if TRANSLATION in item.facts or "text" not in prediction:
            return {"errors": float(not self.same(prediction, reference)), "reference": 0.0}
        return TRANSCRIPTION.errors(item, prediction, reference)

    def inventions(self, item: Item, prediction: Prediction, reference: Prediction) -> list[str]:
        return TRANSCRIPTION.inventions(item, prediction, reference)


def written_language(item: Item) -> str:
    """Return the code of the language in which an item is to be written: English if none is said.

    Raises:
        CorpusError: an English recording has a translation into a language that is not named.
    """
    target = str(item.facts.get(TARGET) or "")
    spoken = str(item.facts.get("lang") or "")
    if target or TRANSLATION not in item.facts:
        return target or spoken or ENGLISH
    if code(spoken) == ENGLISH:
        raise CorpusError(
            f"{item.id} is in English and has a translation, of which no {TARGET} says the "
            f'language: write "{TARGET}": "de" beside it.'
        )
    return ENGLISH


def _translated(item: Item) -> Item:
    language = code(written_language(item))
    facts = {**item.facts, TARGET: written_language(item)}
    return replace(item, id=f"{item.id}-to-{language}", facts=facts)


def _transcribed(item: Item) -> Item:
    facts = {name: fact for name, fact in item.facts.items() if name not in (TRANSLATION, TARGET)}
    return replace(item, facts=facts)
