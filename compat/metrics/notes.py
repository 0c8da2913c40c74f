"""Scores of transcribed music: notes with the right pitch at the right time.

A note is found if its onset is within 50 ms and its pitch within 50 cents of a true note's. In the
stricter count its offset too is within 50 ms, or a fifth of the true note's length if that is more.
Each note counts once, in the pairing that finds most. With F found, T true and A all answered
notes, precision is F / A, recall F / T, and F1 = 2 F / (T + A).

F1 of a set is the mean over its recordings, as the field reports it. Source: ``transcription`` of
mir_eval (Raffel et al., "mir_eval: A Transparent Implementation of Common MIR Metrics", 2014),
which has MIREX's tolerances. The scores are the same, and the package is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compat.metrics.bootstrap import no_worse_share, paired_interval, ratio_interval

Note = Sequence[float]
"""Onset and offset in seconds, and MIDI number, 69 for 440 Hz; further entries are ignored."""

NO_WORSE = 0.02
"""F1 by which a recording may be below the reference's and still be no worse: a note in fifty."""
SECONDS, CENTS = 0.05, 50.0
"""Tolerances of onsets and offsets, and of pitches."""
OF_LENGTH = 0.2
"""Tolerance of offsets as a share of the true note's length, where that is more."""
DECIMALS = 4
"""Decimals to which differences of times are rounded, as mir_eval does."""


def note_scores(truth: Sequence[Note], found: Sequence[Note]) -> dict[str, float]:
    """Return ``precision``, ``recall``, ``f1`` and ``offset_f1`` of a recording's notes.

    All are 1 where there is nothing to find and nothing was answered, and 0 where only one of both
    is empty.

    Raises:
        ValueError: a time or pitch is not finite, or a note ends before it begins.
    """
    true, answered = _checked(truth), _checked(found)
    if not truth or not found:
        return dict.fromkeys(
            ("precision", "recall", "f1", "offset_f1"), float(not (truth or found))
        )
    onset, offset, pitch = np.abs(true[:, :, None] - answered[:, None])
    near = (onset.round(DECIMALS) <= SECONDS) & (pitch <= CENTS / 100)
    margin = np.maximum(OF_LENGTH * (true[1] - true[0]), SECONDS)[:, None]
    both = near & (offset.round(DECIMALS) <= margin)
    count = _most_pairs(near)
    notes = len(truth) + len(found)
    return {
        "precision": count / len(found),
        "recall": count / len(truth),
        "f1": 2 * count / notes,
        "offset_f1": 2 * _most_pairs(both) / notes,
    }


def _checked(notes: Sequence[Note]) -> np.ndarray:
    """Return onsets, offsets and pitches, (3, notes)."""
    for onset, offset, pitch, *_ in notes:
        if not (math.isfinite(pitch) and 0 <= onset <= offset < math.inf):
            raise ValueError(f"no note: {onset} to {offset} seconds, pitch {pitch}")
    return np.array([note[:3] for note in notes], np.float64).reshape(-1, 3).T


def _most_pairs(fitting: np.ndarray) -> int:
    """Return the most pairs in which each true and each answered note occurs at most once."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    return int((maximum_bipartite_matching(csr_matrix(fitting)) >= 0).sum())


def task_notes(
    truths: Sequence[Sequence[Note]],
    found: Sequence[Sequence[Note]],
    reference_found: Sequence[Sequence[Note]],
) -> dict[str, Any]:
    """Score the notes of one case against the truth and against the reference execution.

    Args:
        truths: true notes, one list per recording.
        found: notes by the case.
        reference_found: notes in the same recordings by the float reference.

    Returns:
        ``note_f1``, ``note_f1_interval`` (95 %, over recordings), ``note_precision``,
        ``note_recall``, ``note_offset_f1`` and its interval, ``reference_note_f1``, ``degradation``
        (``reference_note_f1`` minus ``note_f1``), ``degradation_interval`` (95 %, paired),
        ``agreement`` (F1 with offsets against the reference's notes as truth), ``no_worse_share``
        (recordings whose F1 is within :data:`NO_WORSE` of the reference's), ``notes``,
        ``recordings`` and ``worst_recording`` (index of the one with the largest loss). Shares, not
        percentages. Intervals are None for fewer than two recordings.

    Raises:
        ValueError: there are no recordings, the lengths differ, or a note is malformed.
    """
    if not truths or not len(truths) == len(found) == len(reference_found):
        raise ValueError("needs notes of either per recording, and at least one recording")
    ours = [note_scores(*row) for row in zip(truths, found, strict=True)]
    theirs = [note_scores(*row) for row in zip(truths, reference_found, strict=True)]
    agreed = [note_scores(*row)["offset_f1"] for row in zip(reference_found, found, strict=True)]
    f1, reference_f1 = ([row["f1"] for row in rows] for rows in (ours, theirs))
    losses = np.subtract(reference_f1, f1)
    ones = np.ones(len(truths))
    return {
        "note_f1": _mean(ours, "f1"),
        "note_f1_interval": _listed(ratio_interval(f1, ones)),
        "note_precision": _mean(ours, "precision"),
        "note_recall": _mean(ours, "recall"),
        "note_offset_f1": _mean(ours, "offset_f1"),
        "note_offset_f1_interval": _listed(
            ratio_interval([row["offset_f1"] for row in ours], ones)
        ),
        "reference_note_f1": _mean(theirs, "f1"),
        "degradation": float(losses.mean()),
        "degradation_interval": _listed(paired_interval(reference_f1, f1, ones)),
        "agreement": float(np.mean(agreed)),
        "no_worse_share": no_worse_share(losses, np.full(len(losses), NO_WORSE)),
        "notes": sum(map(len, truths)),
        "recordings": len(truths),
        "worst_recording": int(losses.argmax()),
    }


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
