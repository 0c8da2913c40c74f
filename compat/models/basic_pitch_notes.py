"""Notes from Basic Pitch's posteriorgrams.

Source: ``output_to_notes_polyphonic`` and ``model_frames_to_time`` of the package basic-pitch 0.4.0
with its defaults, of which this gives the same notes in the same order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 22_050
SAMPLES = 43_844
"""Samples of a window."""
FRAME = 256
"""Samples from one frame to the next."""
FRAMES = 172
"""Frames of a window."""
LOWEST = 21
"""MIDI number of the lowest key, A0."""

ONSET = 0.5
"""Least probability of an onset."""
HELD = 0.3
"""Probability of a note from which it is heard."""
SHORTEST = 11
"""Frames; a note has more."""
PATIENCE = 11
"""Frames in a row without the note after which it has ended."""

Note = tuple[int, int, int, float]
"""First frame, the frame after the last one, MIDI number, and mean probability."""


def notes(note: np.ndarray, onset: np.ndarray) -> list[Note]:
    """Return the notes that posteriorgrams hold, those with clear onsets first.

    The former are looked for from the end of the audio to its beginning, and each takes what is
    heard of it, and of its neighbours a semitone away, from what is left. Then notes without onset
    are looked for around the largest probabilities that are left.

    Args:
        note: probability that a key sounds, (frames, 88).
        onset: probability that a note begins, (frames, 88).
    """
    if len(note) < 3:
        return []
    left = note.copy()
    found = []
    for frame, key in _peaks(_with_rises(onset, note))[::-1]:
        stop, quiet = _end(left[:, key], frame)
        if (end := stop - quiet) - frame > SHORTEST:
            _take(left, frame, end, key)
            found.append((frame, end, key))
    # Probabilities that are left only ever become zero, so that one order holds to the end.
    for middle, key in _loudest(left):
        if not left[middle, key]:
            continue
        left[middle, key] = 0
        stop, quiet = _end(left[:, key], middle)
        begin, quiet_before = _end(left[::-1, key], len(left) - 1 - middle)
        first = len(left) - begin
        _take(left, middle + 1, stop, key)
        _take(left, first, middle, key)
        # The package ends these notes a frame earlier than those above.
        start, end = first + quiet_before, stop - 1 - quiet
        if end - start > SHORTEST:
            found.append((start, end, key))
    return [
        (start, end, LOWEST + key, float(note[start:end, key].mean())) for start, end, key in found
    ]


def _with_rises(onset: np.ndarray, note: np.ndarray) -> NDArray[np.float64]:
    """Return probabilities of onsets, raised where that of a note rises over one and two frames."""
    rises = np.zeros(note.shape)
    over_one, over_two = (
        note[2:].astype(np.float64) - note[2 - frames : -frames] for frames in (1, 2)
    )
    rises[2:] = np.minimum(over_one, over_two).clip(min=0)
    # Where nothing rises, the package divides by zero.
    if largest := rises.max():
        rises = np.max(onset) * rises / largest
    raised: NDArray[np.float64] = np.maximum(onset, rises)
    return raised


def _peaks(onset: np.ndarray) -> list[tuple[int, int]]:
    """Return frame and key of probabilities that exceed those before and after, in order."""
    inner = onset[1:-1]
    peak = (inner > onset[:-2]) & (inner > onset[2:]) & (inner >= ONSET)
    return [(int(frame) + 1, int(key)) for frame, key in np.argwhere(peak)]


def _loudest(note: np.ndarray) -> list[tuple[int, int]]:
    """Return frame and key of all probabilities above :data:`HELD`, the largest first."""
    places = np.argwhere(note > HELD)
    order = np.argsort(-note[tuple(places.T)], kind="stable")
    return [(int(frame), int(key)) for frame, key in places[order]]


def _end(heard: np.ndarray, start: int) -> tuple[int, int]:
    """Return where a key has been silent for :data:`PATIENCE` frames, and for how many it was.

    The search begins behind ``start`` and ends before the last frame of ``heard`` (frames,).
    """
    frame, quiet = start + 1, 0
    while frame < len(heard) - 1 and quiet < PATIENCE:
        quiet = quiet + 1 if heard[frame] < HELD else 0
        frame += 1
    return frame, quiet


def _take(left: np.ndarray, start: int, end: int, key: int) -> None:
    left[start:end, max(0, key - 1) : key + 2] = 0


def frame_times(frames: int) -> NDArray[np.float64]:
    """Return the time of each frame in seconds, (frames,).

    A window has half a frame more than its audio, for which the package corrects once in 172
    frames, although it joins 142 frames of each window. Its 1.8 ms were found by experiment.
    """
    number = np.arange(frames)
    surplus = FRAME / SAMPLE_RATE * (FRAMES - SAMPLES / FRAME) + 0.0018
    times: NDArray[np.float64] = number * FRAME / SAMPLE_RATE - surplus * (number // FRAMES)
    return times
