"""Codecs: audio is encoded at a bitrate and decoded again, then compared with the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import Corpus, TestSet
from compat.metrics import NO_WORSE_SHARE, Metric
from compat.models.items import Items
from compat.models.tasks.base import Task

BITRATE = "bitrate"
"""Fact of an item: the bitrate at which it is to be decoded, in kilobits a second."""
NO_WORSE_DB = 0.1
"""Mel distance in dB. An answer counts as no worse if it is at most this much farther from its
input than the reference's answer: a tenth of what a trained ear tells apart."""
AUDIBLE_DB = 0.5
"""Mel distance in dB. The answer to a hard input counts as an error if it is more than this much
farther from its input than the reference's answer."""
SAME_CODES = 0.98
"""Least share of equal codes of two answers that are the same except for rounding. Rounding can tip
a code near a tie, and with it the codes of later codebooks, which encode its residual."""
SAME_DB = 20.0
"""Least waveform SNR in dB of two answers that are the same except for rounding."""


@dataclass(frozen=True)
class Codec(Task):
    """Encodes recordings and decodes them at each bitrate.

    A prediction is ``{"codes": int32 (windows, codebooks, frames), "audio": float32}``; the audio
    has the shape of the item's. There is a test set for each set of recordings and each bitrate,
    such as ``music-6kbps``. The sets with the timed bitrate come last.
    """

    bitrates: tuple[float, ...]
    """Kilobits a second, ascending."""
    main: float
    """Kilobits a second of timed inputs."""

    name: ClassVar[str] = "codec"
    sets: ClassVar[tuple[str, ...]] = ("music", "clean")
    unjudged: ClassVar[tuple[str, ...]] = ("music-train",)
    truths: ClassVar[tuple[str, ...]] = (BITRATE,)
    rescorable: ClassVar[bool] = False
    """Scores are computed from audio, which results do not keep."""
    brief_seconds: float = 5.0
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("mel_distance", "dB", "lower", primary=True),
        Metric("si_sdr", "dB", "higher"),
        Metric("reference_mel_distance", "dB"),
        Metric("reference_si_sdr", "dB"),
        Metric("degradation", "dB", "lower"),
        NO_WORSE_SHARE,
        Metric("code_agreement", "share", "higher"),
        Metric("first_code_agreement", "share", "higher"),
        Metric("waveform_snr", "dB", "higher"),
        Metric("worst_waveform_snr", "dB", "higher"),
        Metric("reference_distance", "dB", "lower"),
        Metric("recordings", "count"),
        Metric("worst_recording", "number"),
    )

    # Inputs ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        chosen = corpus.choose(self.preferred(profile))
        sets = {name: self.recordings(found, rate, profile) for name, found in chosen.items()}
        bitrates: tuple[float, ...] = (self.main,)
        if not profile.brief:
            others = [one for one in self.bitrates if one != self.main]
            bitrates = (*(others[:1] if profile.first_look else others), self.main)
        task = {
            f"{name}-{bitrate:g}kbps": [at_bitrate(item, bitrate) for item in found]
            for bitrate in bitrates
            for name, found in sets.items()
        }
        main = {name: found for name, found in task.items() if name.endswith(f"-{self.main:g}kbps")}
        return replace(Items.of(main), task=task)

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        return test_set.items(rate, profile.pick(2, 4, None))

    # Answers -----------------------------------------------------------------------------------

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.bootstrap import paired_interval
        from compat.metrics.waveform import mel_distance_db, si_sdr_db, snr_db

        rates = [item.rate for item in items]
        inputs = [item.audio for item in items]
        ours = [fitted(one["audio"], item) for one, item in zip(predictions, items, strict=True)]
        theirs = [fitted(one["audio"], item) for one, item in zip(references, items, strict=True)]
        heard = list(map(mel_distance_db, inputs, ours, rates))
        expected = list(map(mel_distance_db, inputs, theirs, rates))
        ratios = list(map(snr_db, theirs, ours))
        equal = [equal_codes(*pair) for pair in zip(predictions, references, strict=True)]
        interval = paired_interval(heard, expected, np.ones(len(items)))
        behind = np.subtract(heard, expected)
        return {
            "mel_distance": float(np.mean(heard)),
            "si_sdr": float(np.mean(list(map(si_sdr_db, inputs, ours)))),
            "reference_mel_distance": float(np.mean(expected)),
            "reference_si_sdr": float(np.mean(list(map(si_sdr_db, inputs, theirs)))),
            "degradation": float(behind.mean()),
            "degradation_interval": None if interval is None else list(interval),
            "no_worse_share": float((behind <= NO_WORSE_DB).mean()),
            "code_agreement": float(np.mean([shares.mean() for shares in equal])),
            "first_code_agreement": float(np.mean([shares[0] for shares in equal])),
            "waveform_snr": float(np.mean(ratios)),
            "worst_waveform_snr": min(ratios),
            "reference_distance": float(np.mean(list(map(mel_distance_db, theirs, ours, rates)))),
            "recordings": len(items),
            "worst_recording": int(np.argmin(ratios)),
        }

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.waveform import mel_distance_db

        ours, theirs = (
            mel_distance_db(item.audio, fitted(one["audio"], item), item.rate)
            for one in (prediction, reference)
        )
        return {"errors": float(ours > theirs + AUDIBLE_DB), "reference": 0.0}

    def same(self, one: Prediction, other: Prediction) -> bool:
        from compat.metrics.waveform import snr_db

        if one["audio"].shape != other["audio"].shape:
            return False
        near = snr_db(other["audio"], one["audio"]) >= SAME_DB
        return near and float(equal_codes(one, other).mean()) >= SAME_CODES

    def faults(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction] | None = None
    ) -> list[str]:
        """Return the usual faults, and audio that is silent, clipped or of another length."""
        from compat.metrics.waveform import is_clipped

        faults = super().faults(predictions, references)
        if references is None:
            return faults
        pairs = [
            (np.asarray(one["audio"]), np.asarray(other["audio"]))
            for one, other in zip(predictions, references, strict=True)
        ]
        counts = {
            "silent": sum(not one.any() and other.any() for one, other in pairs),
            "clipped": sum(is_clipped(one) and not is_clipped(other) for one, other in pairs),
            "truncated": sum(one.shape[-1] < other.shape[-1] for one, other in pairs),
        }
        faults += [
            f"{count} of {len(pairs)} outputs are {fault}"
            for fault, count in counts.items()
            if count
        ]
        return faults

    def stored(self, prediction: Prediction) -> dict[str, Any]:
        audio = prediction["audio"].astype(np.float64)
        level = float(np.sqrt(np.mean(np.square(audio))))
        return {**super().stored(prediction), "rms": level, "peak": float(np.abs(audio).max())}


def at_bitrate(item: Item, bitrate: float) -> Item:
    """Return a copy of a recording that is to be decoded at a bitrate in kilobits a second."""
    facts = {**item.facts, BITRATE: bitrate}
    return replace(item, id=f"{item.id}-{bitrate:g}kbps", facts=facts)


def fitted(audio: np.ndarray, item: Item) -> np.ndarray:
    """Return decoded audio with as many samples as its input; missing ones are silent."""
    samples = item.audio.shape[-1]
    missing = max(0, samples - audio.shape[-1])
    edges = [(0, 0)] * (audio.ndim - 1) + [(0, missing)]
    return np.pad(audio, edges)[..., :samples]


def equal_codes(prediction: Prediction, reference: Prediction) -> np.ndarray:
    """Return, for each codebook, the share of codes that equal the reference's.

    If the shapes differ, all shares are 0.
    """
    ours, theirs = np.asarray(prediction["codes"]), np.asarray(reference["codes"])
    if ours.shape != theirs.shape:
        return np.zeros(theirs.shape[1])
    shares: np.ndarray = (ours == theirs).mean(axis=(0, 2))
    return shares
