"""Zero-shot classification of sounds, and retrieval of sounds by captions and captions by sounds.

A model embeds recordings and sentences in one space. A class is the sentence ``This is a sound of
{label}.`` (the prompt of the CLAP papers); a recording's class is that of the nearest sentence.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import Corpus, TestSet
from compat.inputs.layouts.checking import CAPTION, LABEL
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.models.items import Items
from compat.models.tasks.base import Task

SOUNDS = "sounds"
"""The shipped set with labels and captions."""
LABELS, CAPTIONS = "labels", "captions"
"""Facts that this task adds: all classes and all captions that a recording is compared with."""
RIGHT_LABEL, RIGHT_CAPTIONS = "right_label", "right_captions"
"""Facts that this task adds: the positions of the right class and the right captions in these."""
SAME_COSINE = 0.99
"""Cosine to the reference's embedding below which the answer to a hard input counts as wrong."""
DIGITS = 6
"""Significant digits of stored numbers: a float32 has seven."""


def prompt(label: str) -> str:
    """Return the sentence that stands for a class: ``dog_bark`` is *a sound of dog bark*."""
    return f"This is a sound of {label.replace('_', ' ')}."


SENTENCES = tuple(
    prompt(sound)
    for sound in (
        *("a dog barking", "rain", "piano music", "a person speaking", "silence", "wind"),
        *("a car engine", "footsteps", "applause", "a bell ringing", "birds singing", "a siren"),
        *("a door closing", "waves", "a crowd", "a phone ringing", "a drum", "typing"),
        *("a cat meowing", "thunder", "a train", "laughter", "a guitar", "running water"),
    )
)
"""Sentences for recordings without class and caption, and for all recordings if weights are
generated."""
SENTENCES_EACH = 2
"""Number of these sentences that a recording is compared with; its id decides which."""


def sentences_of(item: Item) -> list[str]:
    """Return the sentences that a recording is compared with: one for each class, then captions.

    A recording without either gets two of :data:`SENTENCES`.
    """
    labels = [prompt(label) for label in item.facts.get(LABELS, ())]
    first = zlib.crc32(item.id.encode())
    any_two = [SENTENCES[(first + step) % len(SENTENCES)] for step in range(SENTENCES_EACH)]
    return [*labels, *item.facts.get(CAPTIONS, ())] or any_two


def own_sentence(item: Item) -> str:
    """Return a sentence about a recording: its caption, else its class's, else any sentence."""
    if captions := _captions(item.facts):
        return captions[0]
    return prompt(item.facts[LABEL]) if LABEL in item.facts else sentences_of(item)[0]


def answer(item: Item, embedding: np.ndarray, known: Mapping[str, np.ndarray]) -> Prediction:
    """Return a prediction: the embedding (n,), and its cosines to the item's sentences.

    Args:
        item: the recording.
        embedding: its unit vector (n,).
        known: unit vectors (n,) of all sentences of :func:`sentences_of`.
    """
    cosines = [float(embedding @ known[sentence]) for sentence in sentences_of(item)]
    labels = len(item.facts.get(LABELS, ()))
    numbers = {
        "embedding": embedding.tolist(),
        LABELS: cosines[:labels],
        CAPTIONS: cosines[labels:],
    }
    return {name: [_rounded(one) for one in values] for name, values in numbers.items() if values}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _captions(facts: Mapping[str, Any]) -> list[str]:
    said = facts.get(CAPTION) or []
    return [said] if isinstance(said, str) else list(said)


@dataclass(frozen=True)
class ZeroShotClassification(Task):
    """Compares recordings with sentences. Predictions are those of :func:`answer`."""

    window: float
    """Largest number of seconds of a recording that the model hears."""

    name: ClassVar[str] = "zero-shot-audio-classification"
    truths: ClassVar[tuple[str, ...]] = (LABEL, CAPTION, RIGHT_LABEL, RIGHT_CAPTIONS)
    sets: ClassVar[tuple[str, ...]] = (SOUNDS,)
    unjudged: ClassVar[tuple[str, ...]] = ("music-train",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("zero_shot_accuracy", "share", "higher", primary=True),
        Metric("reference_zero_shot_accuracy", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        *(
            Metric(name, "share", "higher")
            for name in (
                *("audio_to_text_r1", "audio_to_text_r5"),
                *("text_to_audio_r1", "text_to_audio_r5"),
                "same_label",
            )
        ),
        Metric("rank_correlation", "number", "higher"),
        Metric("mean_cosine", "cosine", "higher"),
        Metric("worst_cosine", "cosine", "higher"),
        *(Metric(name, "count") for name in ("items", "labels", "captions")),
        Metric("worst_item", "number"),
    )

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        known = {**corpus.choose(self.sets, LABEL), **corpus.choose(self.sets, CAPTION)}
        if not known:
            return super().items(corpus, rate, profile)
        return Items.of({n: self.recordings(s, rate, profile) for n, s in known.items()})

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        """Read recordings, and add to each the classes and captions that it is compared with.

        These are all classes of the set, and the captions of all recordings that are read. In a
        slow target's first look they are the classes and captions of its few recordings alone.
        """
        limit = 4 if profile.brief else profile.pick(12, 60, None)
        items = test_set.items(rate, limit)
        lines = [item.facts for item in items] if profile.brief else test_set.lines
        labels = sorted({str(line[LABEL]) for line in lines if LABEL in line})
        captions = list(dict.fromkeys(one for item in items for one in _captions(item.facts)))
        return [replace(item, facts=_compared(item.facts, labels, captions)) for item in items]

    def seconds(self, item: Item, prediction: Prediction) -> float:
        return min(item.seconds, self.window)

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.retrieval import task_retrieval

        return task_retrieval(
            [item.facts.get(RIGHT_LABEL) for item in items],
            [item.facts.get(RIGHT_CAPTIONS, ()) for item in items],
            predictions,
            references,
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.verification import cosine

        near = cosine(prediction["embedding"], reference["embedding"])
        # Not ``near < SAME_COSINE``: NaN must be an error too.
        return {"errors": 0.0 if near >= SAME_COSINE else 1.0, "reference": 0.0}


def _compared(
    facts: Mapping[str, Any], labels: Sequence[str], captions: Sequence[str]
) -> dict[str, Any]:
    """Return a recording's facts with all classes and captions, and which of these are right."""
    own = _captions(facts)
    right = {RIGHT_LABEL: labels.index(str(facts[LABEL]))} if LABEL in facts else {}
    return {
        **facts,
        **({LABELS: list(labels)} if labels else {}),
        **({CAPTIONS: list(captions)} if captions else {}),
        **right,
        **({RIGHT_CAPTIONS: [captions.index(one) for one in own]} if own else {}),
    }
