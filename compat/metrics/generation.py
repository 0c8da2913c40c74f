"""Scores of generated audio: audible failures, and how long tokens follow the reference's.

No truth says which sound a prompt must give, so that the sound of the reference execution, from the
same noise, is the measure. Some failures do not show in the numbers: they are finite and of the
right shape, but a listener would call the sound broken. A *finding* is one of :data:`FINDINGS` that
an answer has and the reference's answer has not.

Audio is (samples,) or (channels, samples), float, between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from compat.metrics.waveform import is_clipped, power, snr_db

FINDINGS = (
    "not_finite",
    "truncated",
    "missing_channels",
    "silent",
    "constant",
    "clipped",
    "repeating",
    "band_limited",
)
"""Failures of one answer, in the order in which they are looked for."""
SILENT = 1e-4
"""Root mean square below which audio is silent: 80 dB below full scale."""
DEAD = 1e-3
"""Root mean square of a silent channel, relative to the loudest channel: 60 dB below it."""
SHORTEST_PERIOD = 1024
"""Samples of the shortest loop that is looked for: 21 to 64 ms. Tones have shorter periods."""
LOOP_DB = 20.0
"""Signal-to-noise ratio, in dB, between audio and its own past from which on it is a loop."""
LOST_DB = 30.0
"""Decibels by which the upper half of a band-limited spectrum is weaker than the reference's."""
HEARD_DB = -60.0
"""Level in dB, relative to the whole spectrum, from which on a reference has an upper half."""
SAME_DB = 40.0
"""Signal-to-noise ratio, in dB, from which on two sounds count as the same."""

Floats = NDArray[np.float64]


# Failures of one answer --------------------------------------------------------------------------


def findings(audio: np.ndarray, reference: np.ndarray) -> list[str]:
    """Return which of :data:`FINDINGS` an answer has and the reference's answer has not.

    An answer that is not finite, is silent or constant, or lacks a channel altogether has no other
    finding but ``truncated``.
    """
    if not np.isfinite(audio).all():
        return ["not_finite"] if np.isfinite(reference).all() else []
    ours, theirs = np.atleast_2d(audio), np.atleast_2d(reference)
    found = ["truncated"] if ours.shape[-1] < theirs.shape[-1] else []
    if len(ours) < len(theirs):
        return [*found, "missing_channels"]
    for name, has in (("silent", is_silent), ("constant", is_constant)):
        if has(ours):
            return found if has(theirs) else [*found, name]
    if live_channels(ours) < live_channels(theirs):
        found.append("missing_channels")
    for name, has in (("clipped", is_clipped), ("repeating", is_repeating)):
        if has(ours) and not has(theirs):
            found.append(name)
    return [*found, "band_limited"] if is_band_limited(ours, theirs) else found


def is_silent(audio: np.ndarray) -> bool:
    """Return whether audio is silent. A constant is not silent: see :func:`is_constant`."""
    return audio.size == 0 or _level(audio) < SILENT


def is_constant(audio: np.ndarray) -> bool:
    """Return whether every channel stays at one value that is not zero."""
    moving = audio - audio.mean(axis=-1, keepdims=True, dtype=np.float64)
    return not is_silent(audio) and _level(moving) < SILENT


def live_channels(audio: np.ndarray) -> int:
    """Count the channels of (channels, samples) that are audible and no copy of an earlier one."""
    levels = [_level(channel) for channel in audio]
    live: list[np.ndarray] = []
    for channel, level in zip(audio, levels, strict=True):
        heard = level >= max(SILENT, DEAD * max(levels))
        if heard and not any(snr_db(other, channel) >= SAME_DB for other in live):
            live.append(channel)
    return len(live)


def is_repeating(audio: np.ndarray) -> bool:
    """Return whether audio is a loop: after some period it repeats what it was a period before.

    The period is between :data:`SHORTEST_PERIOD` samples and half the length. A steady tone is a
    loop too; silence is not.
    """
    channels = np.atleast_2d(audio).astype(np.float64)
    channels = channels - channels.mean(axis=-1, keepdims=True)
    samples = channels.shape[-1]
    if samples < 2 * SHORTEST_PERIOD or is_silent(channels):
        return False
    # The squared error at each period: the energies of both parts, less twice their product.
    spectrum = np.fft.rfft(channels, 2 * samples)
    shared = np.fft.irfft(np.square(np.abs(spectrum)), 2 * samples).sum(axis=0)[:samples]
    held = np.concatenate(([0.0], np.cumsum(np.square(channels).sum(axis=0))))
    periods = np.arange(SHORTEST_PERIOD, samples // 2 + 1)
    later, earlier = held[-1] - held[periods], held[samples - periods]
    errors = later + earlier - 2.0 * shared[periods]
    return bool((errors <= later * 10 ** (-LOOP_DB / 10)).any())


def is_band_limited(audio: np.ndarray, reference: np.ndarray) -> bool:
    """Return whether a spectrum ends at half of the range of the sampling rate.

    Audio that was generated at half the rate and played at the whole has such a spectrum. The
    reference's spectrum must go on beyond that.
    """
    theirs = _upper_share_db(reference)
    return theirs >= HEARD_DB and _upper_share_db(audio) < theirs - LOST_DB


def _upper_share_db(audio: np.ndarray) -> float:
    """Return the level of the upper half of a spectrum relative to the whole, in dB."""
    centred = audio - audio.mean(axis=-1, keepdims=True, dtype=np.float64)
    # Without a window the ends would leak into all frequencies.
    spectrum = np.abs(np.fft.rfft(centred * np.hanning(audio.shape[-1])))
    whole = power(spectrum)
    if whole == 0.0:
        return 0.0
    upper = power(spectrum[..., spectrum.shape[-1] // 2 :])
    return float(10.0 * np.log10(max(upper / whole, 1e-20)))


def _level(audio: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(power(audio) / max(audio.size, 1)))


# Several answers ---------------------------------------------------------------------------------


def same_outputs(sounds: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> int:
    """Count the answers that equal another answer although the reference's two answers differ."""
    blind: set[int] = set()
    for one, other in combinations(range(len(sounds)), 2):
        if is_same(sounds[one], sounds[other]) and not is_same(references[one], references[other]):
            blind |= {one, other}
    return len(blind)


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two sounds are the same apart from rounding."""
    known = one.shape == other.shape and one.size > 0 and bool(np.isfinite(one).all())
    return known and snr_db(other, one) >= SAME_DB


# Beside the reference ----------------------------------------------------------------------------


def fitted(audio: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return audio in the shape of the reference's.

    Missing samples and channels are filled with silence, and extra ones are cut off.
    """
    shaped = np.zeros(reference.shape, np.float32)
    ours, into = np.atleast_2d(audio), np.atleast_2d(shaped)
    channels, samples = min(len(ours), len(into)), min(ours.shape[-1], into.shape[-1])
    into[:channels, :samples] = ours[:channels, :samples]
    return shaped


def equal_steps(tokens: np.ndarray, reference: np.ndarray) -> NDArray[np.bool_]:
    """Return which of the reference's tokens (steps, codebooks) an answer has at the same place."""
    expected = np.asarray(reference)
    given = np.full(expected.shape, -1, np.int64)
    steps = min(len(tokens), len(expected))
    given[:steps] = np.asarray(tokens)[:steps]
    equal: NDArray[np.bool_] = given == expected
    return equal


def first_divergence(equal: NDArray[np.bool_]) -> int:
    """Return the first step at which a token differs, or the number of steps if none does.

    ``equal`` is the result of :func:`equal_steps`.
    """
    different = ~equal.reshape(len(equal), -1).all(axis=1)
    return int(different.argmax()) if different.any() else len(equal)
