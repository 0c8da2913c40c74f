"""Items, which are the inputs of a model, and predictions, which are its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

AUDIO = "audio"
"""Name of the input that holds an item's audio."""

Prediction = Mapping[str, Any]
"""A model's answer to one item: JSON values (``tokens``, ``text``) and NumPy arrays (``audio``).

Arrays stay in the worker and in the reference's file. :meth:`compat.models.tasks.base.Task.stored`
returns the part of a prediction that a results file keeps.
"""

Span = tuple[float, float]
"""Start and end in seconds."""
LEAST_SCORED = 0.05
"""Seconds. A shorter part is not scored, as it may lie between two frames of a model."""


@dataclass(frozen=True)
class Item:
    """One input of a model, and the facts that are known of it."""

    id: str
    inputs: Mapping[str, np.ndarray | str] = field(compare=False, repr=False)
    """Arrays and texts by name: ``audio``, ``prompt``, ``noise`` …"""
    seconds: float
    """Length of the input audio in seconds, or the most seconds to be generated."""
    rate: int = 16_000
    """Sampling rate of the audio in hertz."""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """JSON values by name, such as ``text``. A task names those that it scores against."""

    @classmethod
    def from_audio(
        cls,
        identifier: str,
        audio: np.ndarray,
        rate: int = 16_000,
        facts: Mapping[str, Any] | None = None,
    ) -> Item:
        """Return an item whose one input is audio, float32 (samples,) or (channels, samples)."""
        return cls(identifier, {AUDIO: audio}, audio.shape[-1] / rate, rate, facts or {})

    @property
    def audio(self) -> np.ndarray:
        """The audio, float32 (samples,) or (channels, samples), between -1 and 1.

        Raises:
            KeyError: the item has no audio.
        """
        audio = self.inputs[AUDIO]
        assert isinstance(audio, np.ndarray)
        return audio

    def with_audio(self, audio: np.ndarray, identifier: str = "") -> Item:
        """Return a copy with other audio, and another id if one is given."""
        return Item(
            identifier or self.id,
            {**self.inputs, AUDIO: audio},
            audio.shape[-1] / self.rate,
            self.rate,
            self.facts,
        )

    @property
    def text(self) -> str:
        """The true transcript; empty if none is known."""
        return str(self.facts.get("text") or "")

    @property
    def scored(self) -> list[Span]:
        """The parts of the recording that are scored, in seconds: its UEM, or all of it.

        The UEM (un-partitioned evaluation map) names the parts of a recording that count. The list
        is empty if it leaves nothing.
        """
        parts = self.facts.get("uem")
        return [(0.0, self.seconds)] if parts is None else [(start, end) for start, end in parts]

    @property
    def is_scored(self) -> bool:
        """Whether any scored part is at least :data:`LEAST_SCORED` seconds long."""
        heard = (min(end, self.seconds) - start for start, end in self.scored)
        return self.facts.get("uem") is None or any(part >= LEAST_SCORED for part in heard)
