"""Scores of source separation: the distances of each stem of a song from the truth, in dB.

A song's stems are (stems, channels, samples), float.

- **SDR** is the signal-to-noise ratio of a whole stem (:func:`compat.metrics.waveform.snr_db`), the
  definition of the Music Demixing Challenge 2021. A silent answer has 0 dB, so that an answer below
  that is worse than none.
- **SI-SDR improvement** is the scale-invariant SDR less that of the mixture itself.
- **Fidelity** is the SDR against the reference execution's stem instead of the truth. The power of
  a stem counts as at least :data:`AUDIBLE` of the song's, since a silent stem would have no ratio.

Stems that are silent in the truth have no ratio, and are left out of every mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.metrics.bootstrap import ratio_interval
from compat.metrics.waveform import decibels, power, si_sdr_db, snr_db

AUDIBLE = 1e-3
"""Share of a song's power below which a stem is as good as silent: 30 dB below the song."""
NO_WORSE_DB = 0.1
"""Decibels that a stem may lose and still count as no worse, because nobody hears them."""
CLEARLY = 0.9
"""Factor on the error of the stems in their own order. They count as exchanged only if another
order has an error below that."""


@dataclass(frozen=True)
class Stem:
    """Scores of one stem of one song, in dB."""

    name: str
    sdr: float
    si_sdr: float
    mixture_sdr: float
    mixture_si_sdr: float
    reference_sdr: float


def stems_of(
    names: Sequence[str],
    truth: np.ndarray,
    estimate: np.ndarray,
    reference: np.ndarray,
    mixture: np.ndarray,
) -> list[Stem]:
    """Score the audible stems of a song; a stem that is silent in the truth is left out.

    Args:
        names: names of the stems.
        truth: the stems that were mixed, (stems, channels, samples).
        estimate: the answer of the case under test, of the same shape.
        reference: the answer of the reference execution, of the same shape.
        mixture: the song, (channels, samples).

    Raises:
        ValueError: shapes differ.
    """
    if not len(names) == len(truth) == len(estimate) == len(reference):
        raise ValueError(f"needs {len(names)} stems of each: {truth.shape}, {estimate.shape}")
    return [
        Stem(
            name,
            snr_db(stem, estimate[index]),
            si_sdr_db(stem, estimate[index]),
            snr_db(stem, mixture),
            si_sdr_db(stem, mixture),
            snr_db(stem, reference[index]),
        )
        for index, (name, stem) in enumerate(zip(names, truth, strict=True))
        if stem.any()
    ]


def task_separation(
    songs: Sequence[Sequence[Stem]], fidelities: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Score a test set.

    Args:
        songs: scores of the stems of each song.
        fidelities: fidelity of each stem in dB, song by song.

    Returns:
        ``sdr``, ``si_sdr``, ``si_sdr_improvement``, ``mixture_sdr`` and ``reference_sdr`` (means
        over the stems of a song, then over songs), ``sdr_interval``, each stem's ``sdr_…``
        and ``si_sdr_…``, ``degradation`` (dB that a song loses to the reference's SDR) with its
        interval (95 %, bootstrap over songs; None for one song), ``no_worse_share`` of stems,
        ``fidelity`` and ``worst_fidelity``, ``recordings`` and ``worst_recording`` (index of the
        song that loses most).

    Raises:
        ValueError: every stem of every song is silent.
    """
    heard = [(index, song) for index, song in enumerate(songs) if song]
    if not heard:
        raise ValueError("every stem of every song is silent")
    columns = {
        "sdr": [[stem.sdr for stem in song] for _, song in heard],
        "si_sdr": [[stem.si_sdr for stem in song] for _, song in heard],
        "si_sdr_improvement": [[s.si_sdr - s.mixture_si_sdr for s in song] for _, song in heard],
        "mixture_sdr": [[stem.mixture_sdr for stem in song] for _, song in heard],
        "reference_sdr": [[stem.reference_sdr for stem in song] for _, song in heard],
    }
    by_song = {name: [float(np.mean(song)) for song in found] for name, found in columns.items()}
    lost = np.subtract(by_song["reference_sdr"], by_song["sdr"])
    stems = [stem for _, song in heard for stem in song]
    values: dict[str, Any] = {name: float(np.mean(found)) for name, found in by_song.items()}
    for name in dict.fromkeys(stem.name for stem in stems):
        own = [stem for stem in stems if stem.name == name]
        values[f"sdr_{name}"] = float(np.mean([stem.sdr for stem in own]))
        values[f"si_sdr_{name}"] = float(np.mean([stem.si_sdr for stem in own]))
    all_fidelities = [value for song in fidelities for value in song]
    return {
        **values,
        "sdr_interval": _interval(by_song["sdr"]),
        "degradation": float(lost.mean()),
        "degradation_interval": _interval(lost.tolist()),
        "no_worse_share": float(
            np.mean([stem.sdr >= stem.reference_sdr - NO_WORSE_DB for stem in stems])
        ),
        "fidelity": float(np.mean(all_fidelities)),
        "worst_fidelity": min(all_fidelities),
        "recordings": len(songs),
        "worst_recording": heard[int(lost.argmax())][0],
    }


def fidelity_db(reference: np.ndarray, estimate: np.ndarray) -> list[float]:
    """Return the fidelity of each stem: its SDR against the reference's stem, in dB.

    Raises:
        ValueError: shapes differ.
    """
    if reference.shape != estimate.shape:
        raise ValueError(f"stems of the shapes {reference.shape} and {estimate.shape}")
    least = AUDIBLE * sum(map(power, reference))
    return [
        decibels(max(power(theirs), least), power(theirs.astype(np.float64) - ours))
        for theirs, ours in zip(reference, estimate, strict=True)
    ]


def exchanged(reference: np.ndarray, estimate: np.ndarray) -> list[int]:
    """Return, for each part of the reference, the index of the nearest part of the estimate.

    Parts are along the first axis (stems, or channels). They are taken to be in order unless
    another order is clearly nearer: its squared error is below :data:`CLEARLY` of theirs.
    """
    from scipy.optimize import linear_sum_assignment

    theirs, ours = (one.reshape(len(one), -1).astype(np.float64) for one in (reference, estimate))
    order = list(range(len(theirs)))
    if not np.isfinite(ours).all():
        return order
    powers = np.square(theirs).sum(axis=1)[:, None] + np.square(ours).sum(axis=1)
    errors: NDArray[np.float64] = powers - 2.0 * theirs @ ours.T
    _, nearest = linear_sum_assignment(errors)
    clearly = errors[order, nearest].sum() < CLEARLY * np.trace(errors)
    return [int(index) for index in nearest] if clearly else order


def _interval(values: Sequence[float]) -> list[float] | None:
    found = ratio_interval(values, [1.0] * len(values))
    return None if found is None else list(found)
