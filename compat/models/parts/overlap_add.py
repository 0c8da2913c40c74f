"""Long audio through a model of short segments: one segment after the other, overlaps joined.

Memory holds one segment and the answer at a time, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compat.models.parts.windows import triangular


@dataclass(frozen=True)
class OverlapAdd:
    """Segments of one length, every ``step`` samples from the start of the audio to its end.

    A sample of the answer is the mean of the answers of all segments over it, weighted by
    ``weights``. A segment that reaches beyond the end of the audio is moved to the left by half of
    what is missing: it sees more of the audio before it, then zeros. Only its samples from its
    regular start on are used, with the first of the weights.

    Source: ``apply_model`` of Demucs (Défossez, "Hybrid Spectrogram and Waveform Source
    Separation", 2021), without its random shifts.

    Raises:
        ValueError: the step is longer than a segment or not positive, or a weight is not positive.
    """

    length: int
    """Samples of a segment."""
    step: int
    """Samples from one segment to the next."""
    weights: NDArray[np.float64]
    """How much each sample of a segment counts, (length,)."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.length:
            raise ValueError(f"segments of {self.length} samples every {self.step} leave some out")
        if self.weights.shape != (self.length,) or self.weights.min() <= 0:
            raise ValueError(f"{self.length} positive weights are needed")

    @classmethod
    def triangular(cls, length: int, overlap: float) -> OverlapAdd:
        """Return segments with triangular weights that share ``overlap`` (0 to 1) with the next.

        If the overlap is half or less, one segment fades into the next along a straight line.
        """
        return cls(length, int((1 - overlap) * length), triangular(length))

    def starts(self, samples: int) -> range:
        """Return the first sample of each segment over audio of so many samples."""
        return range(0, samples, self.step)

    def segment(self, audio: np.ndarray, start: int) -> tuple[np.ndarray, slice]:
        """Return a segment (…, length) of audio (…, samples), and which part of it counts.

        The part begins with sample ``start`` of the audio.
        """
        samples = audio.shape[-1]
        count = min(self.length, samples - start)
        before = (self.length - count) // 2
        first = start - before
        heard = audio[..., max(0, first) : min(samples, first + self.length)]
        zeros = (max(0, -first), max(0, first + self.length - samples))
        padding = [(0, 0)] * (audio.ndim - 1) + [zeros]
        return np.pad(heard, padding), slice(before, before + count)

    def run(
        self, audio: np.ndarray, process: Callable[[np.ndarray], np.ndarray]
    ) -> NDArray[np.float32]:
        """Return the joined answers to all segments of audio (…, samples), with as many samples.

        Args:
            audio: at least one sample.
            process: maps a segment (…, length) to its answer, which may have other leading axes.

        Sums are float64: a model that answers with its input gives it back exactly.
        """
        samples = audio.shape[-1]
        answer: NDArray[np.float32] | None = None
        sums = np.zeros(0)
        covered = np.zeros(self.length)
        for start in self.starts(samples):
            segment, part = self.segment(audio, start)
            answered = process(segment)[..., part]
            count = answered.shape[-1]
            if answer is None:
                answer = np.empty((*answered.shape[:-1], samples), np.float32)
                sums = np.zeros((*answered.shape[:-1], self.length))
            sums[..., :count] += answered * self.weights[:count]
            covered[:count] += self.weights[:count]
            # Samples before the next segment are complete: no later segment covers them.
            done = min(self.step, samples - start)
            answer[..., start : start + done] = sums[..., :done] / covered[:done]
            for values in (sums, covered):
                values[..., : -self.step or None] = values[..., self.step :].copy()
                values[..., self.length - self.step :] = 0.0
        if answer is None:
            raise ValueError("there is no sample to answer to")
        return answer
