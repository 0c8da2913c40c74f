"""Long recordings made of real utterances, with pauses and noise, and with their words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compat.contract.item import Item

PAUSES = (0.3, 2.0)
"""Seconds between two utterances, the shortest and the longest."""
NOISE_DB = 30.0
"""Level of the noise below that of speech, in dB."""


@dataclass(frozen=True)
class Said:
    """An utterance in a long recording."""

    text: str
    start: float
    end: float
    """Start and end of the utterance, in seconds from the beginning of the recording."""


@dataclass(frozen=True)
class LongRecording:
    """A recording with its utterances."""

    audio: NDArray[np.float32]
    """(samples,)."""
    rate: int
    said: tuple[Said, ...]

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.rate

    def item(self) -> Item:
        return Item.from_audio("long", self.audio, self.rate, {"text": self.text})

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.said)


def joined(utterances: Sequence[Item], seconds: float, seed: int = 0) -> LongRecording:
    """Return a recording of at least so many seconds.

    Utterances follow one another in a seeded order, with pauses between them and noise below them.
    None is repeated before all have been used.
    """
    chance = random.Random(seed)  # noqa: S311 (nothing is kept secret)
    rate = utterances[0].rate
    parts: list[np.ndarray] = []
    said: list[Said] = []
    at = 0
    while at < seconds * rate:
        for item in chance.sample(list(utterances), len(utterances)):
            pause = round(chance.uniform(*PAUSES) * rate)
            start = at + pause
            at = start + len(item.audio)
            parts += [np.zeros(pause, np.float32), item.audio]
            said.append(Said(item.text, start / rate, at / rate))
            if at >= seconds * rate:
                break
    audio = np.concatenate([*parts, np.zeros(rate, np.float32)])
    speech = np.sqrt(np.mean(np.square(np.concatenate([one.audio for one in utterances]))))
    noise = np.random.default_rng(seed).standard_normal(len(audio), np.float32)
    audio = audio + noise * np.float32(speech * 10 ** (-NOISE_DB / 20))
    return LongRecording(np.clip(audio, -1, 1).astype(np.float32), rate, tuple(said))
