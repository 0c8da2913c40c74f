"""Codebooks that are written with a delay of one step each.

At step ``p`` codebook ``c`` gets the code of frame ``p - c``, or padding if there is no such frame.
Source: Copet et al., "Simple and Controllable Music Generation", 2023.
"""

from __future__ import annotations

import numpy as np


def open_steps(frames: int, codebooks: int) -> np.ndarray:
    """Return which codebooks write a code at each step, int32 (frames + codebooks - 1, codebooks).

    Codebooks with 0 write padding: they are before their first frame or after their last one.
    """
    frame = np.arange(frames + codebooks - 1)[:, None] - np.arange(codebooks)
    return ((frame >= 0) & (frame < frames)).astype(np.int32)


def delayed(tokens: np.ndarray, padding: int) -> np.ndarray:
    """Return the inputs of the steps for given frames, int32 (frames + codebooks, codebooks).

    The first step gets only padding, each further step the codes that the one before wrote.
    """
    frames, codebooks = tokens.shape
    steps = np.full((frames + codebooks, codebooks), padding, np.int32)
    for book in range(codebooks):
        steps[1 + book : 1 + book + frames, book] = tokens[:, book]
    return steps


def undelayed(steps: np.ndarray) -> np.ndarray:
    """Return the frames (frames, codebooks) of the codes that steps wrote (steps, codebooks)."""
    frames = len(steps) - steps.shape[1] + 1
    books = [steps[book : book + frames, book] for book in range(steps.shape[1])]
    return np.stack(books, axis=1).astype(np.int32)
