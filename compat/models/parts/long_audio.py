"""Long audio: cuts in pauses into windows that may overlap, and the joining of their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pauses:
    """Cuts audio where it is quietest near the end of a window; all lengths are in samples.

    Cuts lie in pauses, because a word that is cut is recognised wrongly on both sides, whatever the
    overlap.
    """

    window: int
    """The longest piece."""
    reach: int
    """How far before the end of a window a cut may lie."""
    overlap: int
    """Samples on either side of a cut that both pieces have."""
    frame: int
    """Samples of a frame whose level is measured."""
    frames: int = 1
    """Number of adjacent frames whose common level decides: the cut is in the middle of them."""
    grid: int = 1
    """Cuts are multiples of this: the samples that the network turns into one frame."""
    last: bool = True
    """Which of equally quiet pauses (as in silence) is taken: True for the last one, which gives
    the fewest pieces; False for the first one, farther from the end of the window."""

    def pieces(self, samples: np.ndarray) -> list[np.ndarray]:
        """Return the pieces (samples,), each at most a window long, as views.

        Every piece but the last reaches ``overlap`` samples beyond the cut at its end.
        """
        start = (self.window - self.reach) // self.grid * self.grid
        pieces = []
        while len(samples) > self.window:
            end = samples[start : self.window - self.overlap]
            levels = np.square(end[: len(end) // self.frame * self.frame])
            levels = levels.reshape(-1, self.frame).sum(axis=1)
            pauses = np.convolve(levels, np.ones(self.frames), "valid")
            quietest = np.flatnonzero(pauses == pauses.min())[-1 if self.last else 0]
            middle = self.frames * self.frame // 2 // self.grid * self.grid
            cut = start + int(quietest) * self.frame + middle
            pieces.append(samples[: cut + self.overlap])
            samples = samples[cut - self.overlap :]
        return [*pieces, samples]


def merge(left: list[int], right: list[int], most: int) -> list[int]:
    """Join the tokens of two overlapping windows where they agree best.

    All alignments of the end of ``left`` with the start of ``right`` are compared. The one with the
    largest share of equal tokens is taken, a longer one if several are equal. The join is in its
    middle, so that each side contributes the tokens away from its edge. Source: the long-form
    pipeline of Hugging Face's transformers, in its form without timestamps, with two conditions
    added. Without them a full stop and another common token, twenty tokens apart on either side,
    passed for an overlap, and the words between were lost.

    Args:
        left: tokens of a window.
        right: tokens of the next one.
        most: tokens that an overlap can hold; half of those in an alignment must be equal.
    """
    best, length = 0.0, 0
    for size in range(1, min(len(left), len(right), most) + 1):
        equal = sum(a == b for a, b in zip(left[-size:], right[:size], strict=True))
        score = equal / size + size / 10_000
        if equal >= min(2, size) and 2 * equal >= size and score > best:
            best, length = score, size
    half = length // 2
    return left[: len(left) - (length - half)] + right[half:] if length else left + right
