"""Long audio: cut into windows that overlap, in pauses, and what was heard in them joined again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pauses:
    """Cuts where it is quietest near the end of a window; all lengths in samples.

    A word that is cut is heard wrongly on both sides, whatever the overlap: better a pause.
    """

    window: int
    """The longest piece."""
    reach: int
    """How far before the end of a window a cut may lie."""
    overlap: int
    """What a piece shares with the next, on either side of the cut."""
    frame: int
    """What the level is measured in."""
    frames: int = 1
    """Frames that are quietest together: the cut is in their middle."""
    grid: int = 1
    """Cuts are multiples of this, where a network makes a frame of so many samples."""
    last: bool = True
    """Whether the last of equal pauses counts, as in silence, for the fewest pieces; or the first,
    farther from the end of the window."""

    def pieces(self, samples: np.ndarray) -> list[np.ndarray]:
        """Return pieces (samples,) that fit the window, as views.

        All but the last piece are ``overlap`` longer than their cut.
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

    Of all alignments of the end of ``left`` with the start of ``right`` the one with the largest
    share of equal tokens is taken, longer ones preferred; the join is in its middle, so that each
    side contributes what it saw away from its edge. Source: the long-form pipeline of Hugging
    Face's transformers, in its form without timestamps, but for two conditions. Without them a full
    stop and another common token, twenty tokens apart on either side, passed for an overlap, and
    the words between were lost.

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
