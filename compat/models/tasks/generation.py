"""Generation of audio from prompts: music and sounds.

Items are prompts, each with a seed and a length in seconds; no corpus is needed. All random numbers
are made by the host from the seed (:mod:`compat.models.parts.noise`). So every runtime gets the
same inputs, and its answer can be compared with the reference's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import Corpus
from compat.metrics import Metric
from compat.metrics.generation import (
    FINDINGS,
    equal_steps,
    findings,
    first_divergence,
    fitted,
    same_outputs,
)
from compat.models.items import Items
from compat.models.tasks.base import Task

PROMPT, SEED = "prompt", "seed"
"""Facts of an item; the prompt is also the item's input."""
AUDIO, TOKENS = "audio", "tokens"
"""Names of a prediction's arrays."""
PROMPTS = (
    "a drum and bass loop with a warm analogue synthesiser",
    "rain on a tin roof, and thunder far away",
    "a slow waltz for piano and strings",
    "footsteps on gravel, then a dog barks twice",
    "80s pop track with bassy drums and a bright melody",
    "a crowd applauds in a large hall",
    "solo flute, breathy, in an empty church",
    "a steam train leaves the station",
)
"""The prompts: half ask for music, half for sounds. A model made for either must still give
different answers to different prompts."""
HARD: Mapping[str, str] = {
    "empty": "",
    "very-long": "and then a violin, and then a trumpet, " * 120,
    "repeated": "drums drums drums drums drums drums drums drums drums drums drums drums",
    "foreign": "тихая музыка 雨の音 موسيقى 🎻🥁 déjà-vu",
}
UNSEEN = 1_000
"""First seed of the inputs that no model has seen."""
ANOTHER_DB = 5.0
"""Mel distance in dB. A sound counts as another one than the reference's if it is farther than this
and its SNR is below :data:`NEAR_DB`. Different seconds of the shipped music are 8.4 dB and more
apart; noise 40 dB below a sound that has pauses makes up to 3 dB."""
NEAR_DB = 10.0
"""Waveform SNR in dB, see :data:`ANOTHER_DB`."""
SAME_DB = 20.0
"""Least waveform SNR in dB of two answers that are the same except for rounding."""
COUNTS = {name: name.replace("_", " ") for name in FINDINGS}
"""Names of the findings in messages."""


@dataclass(frozen=True)
class AudioGeneration(Task):
    """Makes audio from prompts. A prediction is ``{"audio": float32}``.

    Audio is (samples,), or (channels, samples) for a model of several channels, at the rate of the
    item. Answers are scored against the reference's from the same noise.
    """

    lengths: tuple[float, float, float] = (1.0, 1.0, 10.0)
    """Seconds of sound that are asked for in a first look, in a usual run and in a whole one."""
    brief_seconds: float = 1.0

    name: ClassVar[str] = "audio-generation"
    truths: ClassVar[tuple[str, ...]] = (PROMPT, SEED)
    rescorable: ClassVar[bool] = False
    """Scores are computed from audio, which results do not keep."""
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("mel_distance", "dB", "lower", primary=True),
        Metric("worst_mel_distance", "dB", "lower"),
        Metric("waveform_snr", "dB", "higher"),
        Metric("worst_waveform_snr", "dB", "higher"),
        *(Metric(name, "count", "lower") for name in (*FINDINGS, "same_output")),
        Metric("recordings", "count"),
        Metric("worst_recording", "number"),
    )

    # Inputs ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        count = profile.pick(2, 4, len(PROMPTS))
        return Items.of({"prompts": self.prompts(rate, profile, count)})

    def unscored_items(self, rate: int, profile: Profile) -> Items:
        """Return two prompts for generated weights, whose sounds are not scored.

        Two suffice to see whether a model gives different answers to different prompts.
        """
        prompts = self.prompts(rate, profile, profile.pick(2, 2, len(PROMPTS)))
        return Items.of({"prompts": prompts}, scored=False)

    def prompts(self, rate: int, profile: Profile, count: int) -> list[Item]:
        """Return the first ``count`` prompts, which ask for the profile's seconds of sound."""
        seconds = profile.pick(*self.lengths)
        return [
            asked(f"prompt-{number}", prompt, number, seconds, rate)
            for number, prompt in enumerate(PROMPTS[:count])
        ]

    def fresh(self, item: Item, number: int) -> Item:
        """Return the same prompt with a seed that no model has seen."""
        seed = UNSEEN + number
        return asked("fresh", str(item.facts[PROMPT]), seed, item.seconds, item.rate)

    def hard(
        self, entries: Sequence[Mapping[str, Any]], easy: Sequence[Item], rate: int
    ) -> list[Item]:
        """Return prompts that are hard to read: empty, long, repeated, in other scripts."""
        first = easy[0]
        return [
            asked(f"hard-{name}", prompt, int(first.facts[SEED]), first.seconds, rate)
            for name, prompt in HARD.items()
        ]

    # Answers -----------------------------------------------------------------------------------

    def seconds(self, item: Item, prediction: Prediction) -> float:
        """Return the seconds that were generated, at least one sample."""
        return float(max(1, np.shape(prediction[AUDIO])[-1]) / item.rate)

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.bootstrap import ratio_interval
        from compat.metrics.waveform import mel_distance_db, snr_db

        theirs = [one[AUDIO] for one in references]
        given = [one[AUDIO] for one in predictions]
        ours = list(map(fitted, given, theirs))
        distances = list(map(mel_distance_db, theirs, ours, [item.rate for item in items]))
        ratios = list(map(snr_db, theirs, ours))
        interval = ratio_interval(distances, [1.0] * len(items))
        found = [name for pair in zip(given, theirs, strict=True) for name in findings(*pair)]
        return {
            "mel_distance": float(np.mean(distances)),
            "mel_distance_interval": None if interval is None else list(interval),
            "worst_mel_distance": max(distances),
            "waveform_snr": float(np.mean(ratios)),
            "worst_waveform_snr": min(ratios),
            **{name: found.count(name) for name in FINDINGS},
            "same_output": same_outputs(given, theirs),
            "recordings": len(items),
            "worst_recording": int(np.argmax(distances)),
        }

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        """Return one error if a sound differs from the reference's, or has a finding."""
        from compat.metrics.waveform import mel_distance_db, snr_db

        ours, theirs = prediction[AUDIO], reference[AUDIO]
        audio = fitted(ours, theirs)
        far = mel_distance_db(theirs, audio, item.rate) > ANOTHER_DB
        another = far and snr_db(theirs, audio) < NEAR_DB
        return {"errors": float(another or bool(findings(ours, theirs))), "reference": 0.0}

    def same(self, one: Prediction, other: Prediction) -> bool:
        from compat.metrics.waveform import snr_db

        ours, theirs = np.asarray(one[AUDIO]), np.asarray(other[AUDIO])
        return ours.shape == theirs.shape and snr_db(theirs, ours) >= SAME_DB

    def faults(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction] | None = None
    ) -> list[str]:
        """Return the usual faults, and findings that the reference's answers lack."""
        faults = super().faults(predictions, references)
        if references is None:
            return faults
        ours = [np.asarray(one[AUDIO]) for one in predictions]
        theirs = [np.asarray(one[AUDIO]) for one in references]
        found = [name for pair in zip(ours, theirs, strict=True) for name in findings(*pair)]
        faults += [
            f"{found.count(name)} of {len(ours)} outputs: {said}"
            for name, said in COUNTS.items()
            if name in found
        ]
        if same := same_outputs(ours, theirs):
            faults.append(f"{same} of {len(ours)} outputs are another prompt's too")
        return faults

    def stored(self, prediction: Prediction) -> dict[str, Any]:
        audio = np.asarray(prediction[AUDIO], np.float64)
        level = float(np.sqrt(np.mean(np.square(audio))))
        return {**super().stored(prediction), "rms": level, "peak": float(np.abs(audio).max())}


@dataclass(frozen=True)
class CodeGeneration(AudioGeneration):
    """Generation of audio by a decoder that writes codes, which a codec turns into audio.

    A prediction also has ``tokens``, int32 (steps, codebooks), which are compared with the
    reference's. One token that rounding tips changes all tokens after it.
    """

    counted: ClassVar[tuple[str, ...]] = (TOKENS,)
    metrics: ClassVar[tuple[Metric, ...]] = (
        *AudioGeneration.metrics,
        Metric("token_agreement", "share", "higher"),
        Metric("first_divergence", "share", "higher"),
        Metric("earliest_divergence", "number"),
        Metric("equal_answers", "share", "higher"),
    )

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        """Return the scores of audio, and those of tokens.

        ``first_divergence`` is the share of an answer's steps before the first step that differs
        from the reference's; ``earliest_divergence`` is the number of these steps in the worst
        answer.
        """
        equal = [
            equal_steps(one[TOKENS], other[TOKENS])
            for one, other in zip(predictions, references, strict=True)
        ]
        steps = list(map(first_divergence, equal))
        return {
            **super().scores(items, predictions, references),
            "token_agreement": float(np.mean([one.mean() if one.size else 1.0 for one in equal])),
            "first_divergence": float(
                np.mean([step / max(1, len(one)) for step, one in zip(steps, equal, strict=True)])
            ),
            "earliest_divergence": min(steps),
            "equal_answers": float(np.mean([one.all() for one in equal])),
        }

    def same(self, one: Prediction, other: Prediction) -> bool:
        return np.array_equal(one[TOKENS], other[TOKENS]) and super().same(one, other)


def asked(identifier: str, prompt: str, seed: int, seconds: float, rate: int) -> Item:
    """Return the item that asks for so many seconds of a prompt's sound, with a seed for noise."""
    facts = {PROMPT: prompt, SEED: seed}
    return Item(identifier, {PROMPT: prompt}, seconds, rate, facts)


def seed_of(item: Item) -> int:
    """Return the seed of an item's noise."""
    return int(item.facts[SEED])
