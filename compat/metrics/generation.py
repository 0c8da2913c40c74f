"""Generated audio: what a listener would call broken, and how long tokens follow the reference's.

Nothing says which sound a prompt must give, so that the reference execution's sound, from the same
noise, is the measure. Some failures are silent: numbers are finite and of the right shape, and
nobody would want to hear them. A *finding* is one of :data:`FINDINGS` that an answer has and the
reference's has not.

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
"""The same of a channel, relative to the loudest one: 60 dB below it."""
SHORTEST_PERIOD = 1024
"""Samples of the shortest loop that is looked for: 21 to 64 ms. Tones have shorter periods."""
LOOP_DB = 20.0
"""How exactly audio is its own past to be a loop."""
LOST_DB = 30.0
"""By how much the upper half of a spectrum is weaker than the reference's where it ends below."""
HEARD_DB = -60.0
"""Level of the upper half, relative to the whole, from which on a reference has one."""
SAME_DB = 40.0
"""Signal-to-noise ratio of two sounds that are one."""

Floats = NDArray[np.float64]


# Failures of one answer --------------------------------------------------------------------------


def findings(audio: np.ndarray, reference: np.ndarray) -> list[str]:
    """Return which of :data:`FINDINGS` an answer has, and the reference's answer has not.

    What is not finite, silent or constant has no other but a wrong length, and neither has what
    lacks a channel altogether.
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
    """Return whether nothing is heard. A constant is no silence: see :func:`is_constant`."""
    return audio.size == 0 or _level(audio) < SILENT


def is_constant(audio: np.ndarray) -> bool:
    """Return whether every channel stays at one value that is not zero."""
    moving = audio - audio.mean(axis=-1, keepdims=True, dtype=np.float64)
    return not is_silent(audio) and _level(moving) < SILENT


def live_channels(audio: np.ndarray) -> int:
    """Count the channels (channels, samples) that are heard and are no copy of one before them."""
    levels = [_level(channel) for channel in audio]
    live: list[np.ndarray] = []
    for channel, level in zip(audio, levels, strict=True):
        heard = level >= max(SILENT, DEAD * max(levels))
        if heard and not any(snr_db(other, channel) >= SAME_DB for other in live):
            live.append(channel)
    return len(live)


def is_repeating(audio: np.ndarray) -> bool:
    """Return whether audio is a loop: from some period on it is what it was a period before.

    The period is between :data:`SHORTEST_PERIOD` samples and half the length. A steady tone is a
    loop too, and silence is none.
    """
    channels = np.atleast_2d(audio).astype(np.float64)
    channels = channels - channels.mean(axis=-1, keepdims=True)
    samples = channels.shape[-1]
    if samples < 2 * SHORTEST_PERIOD or is_silent(channels):
        return False
    # The error of each period: what both parts hold, less twice what they share.
    spectrum = np.fft.rfft(channels, 2 * samples)
    shared = np.fft.irfft(np.square(np.abs(spectrum)), 2 * samples).sum(axis=0)[:samples]
    held = np.concatenate(([0.0], np.cumsum(np.square(channels).sum(axis=0))))
    periods = np.arange(SHORTEST_PERIOD, samples // 2 + 1)
    later, earlier = held[-1] - held[periods], held[samples - periods]
    errors = later + earlier - 2.0 * shared[periods]
    return bool((errors <= later * 10 ** (-LOOP_DB / 10)).any())


def is_band_limited(audio: np.ndarray, reference: np.ndarray) -> bool:
    """Return whether a spectrum ends at half of what the sampling rate holds.

    So does audio that was generated at half the rate and played at the whole. The reference's
    must go on beyond that.
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
    """Count the answers that are another one's too, although the reference's differ."""
    blind: set[int] = set()
    for one, other in combinations(range(len(sounds)), 2):
        if is_same(sounds[one], sounds[other]) and not is_same(references[one], references[other]):
            blind |= {one, other}
    return len(blind)


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two sounds are one but for rounding."""
    known = one.shape == other.shape and one.size > 0 and bool(np.isfinite(one).all())
    return known and snr_db(other, one) >= SAME_DB


# Beside the reference ----------------------------------------------------------------------------


def fitted(audio: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return audio in the shape of the reference's: silence where samples or channels are missing.

    What is too much is cut off.
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
    """Return the first step at which a token differs; the number of steps where none does.

    ``equal`` is what :func:`equal_steps` returns.
    """
    different = ~equal.reshape(len(equal), -1).all(axis=1)
    return int(different.argmax()) if different.any() else len(equal)
