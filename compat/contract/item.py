"""Items: the inputs of a model, and what it says of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TRUTHS = ("segments", "uem", "speaker", "trials")
"""Facts of an item that predictions are scored against, beside its text."""


LEAST_SCORED = 0.05
"""Seconds below which a scored part is none: no frame of a model need lie within it."""


@dataclass(frozen=True)
class Item:
    """One input: mono audio and what is known of it."""

    id: str
    samples: np.ndarray = field(compare=False, repr=False)
    """float32 (samples,), between -1 and 1."""
    rate: int = 16_000
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def truth(self) -> dict[str, Any]:
        """What predictions of this item are scored against, as JSON."""
        known = {key: self.facts[key] for key in TRUTHS if key in self.facts}
        return {"text": self.text, **known} if self.text else known

    @property
    def scored(self) -> list[Span]:
        """The parts that count: the recording's UEM, or all of it.

        Empty where the UEM leaves nothing of it.
        """
        parts = self.facts.get("uem")
        return [(0.0, self.seconds)] if parts is None else [(start, end) for start, end in parts]

    @property
    def is_scored(self) -> bool:
        """Whether a part that counts is heard: one of at least :data:`LEAST_SCORED` seconds."""
        heard = (min(end, self.seconds) - start for start, end in self.scored)
        return self.facts.get("uem") is None or any(part >= LEAST_SCORED for part in heard)

    @classmethod
    def without_audio(cls, identifier: str, truth: Mapping[str, Any], seconds: float) -> Item:
        """Return an item that can be scored but not heard."""
        rate = 16_000
        silence = np.broadcast_to(np.float32(0), (round(seconds * rate),))
        return cls(identifier, silence, rate, truth.get("text", ""), truth)


Span = tuple[float, float]
"""Start and end in seconds."""


Prediction = dict[str, Any]
"""What a model says of one item, as JSON: ``tokens``, ``text``, ``embedding`` …"""
