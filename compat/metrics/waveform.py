"""Scores of waveforms against a reference: signal-to-noise ratios, and a distance of mel spectra.

Audio is (samples,) or (channels, samples), float, between -1 and 1. Ratios are cut off at
:data:`LIMIT_DB` either way, so that every score is a number that JSON can carry.

- **Signal-to-noise ratio**: ``10 log10(|s|² / |s - ŝ|²)``, over all channels. Source separation
  calls it SDR (Mitsufuji et al., "Music Demixing Challenge 2021", 2022).
- **Scale-invariant SDR**: that ratio with the reference scaled to fit the estimate best (Le Roux
  et al., "SDR - half-baked or well done?", 2019): ``a = <ŝ, s> / |s|²``,
  ``10 log10(|a s|² / |a s - ŝ|²)``. One scale serves all channels, so that a shifted balance of
  stereo counts as an error. No mean is removed.
- **Mel distance**: the mean over :data:`WINDOWS` of the mean absolute difference of two log-mel
  spectrograms, in dB. It compares frequencies but not phases, which a codec is free to choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

LIMIT_DB = 200.0
"""Largest ratio in dB. Ratios beyond the precision of float64, as of identical audio, get it."""
WINDOWS: Mapping[int, int] = MappingProxyType({256: 20, 512: 40, 1024: 80, 2048: 160})
"""Samples of a window to bands of its mel spectrogram; windows overlap by three quarters."""
FLOOR = 1e-4
"""Amplitude of a band below which it is silent: 80 dB below a sine of full scale."""

CLIPPED_SHARE = 0.02
"""Share of samples at the peak above which audio counts as clipped; a sine has 0.009."""

Floats = NDArray[np.float64]


def snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-noise ratio of an estimate in dB, over all channels.

    An estimate that is not finite has the lowest ratio. If the reference is silent, a silent
    estimate has the highest ratio and any other the lowest.

    Raises:
        ValueError: the shapes differ, or there are no samples.
    """
    signal, found = _pair(reference, estimate)
    return decibels(power(signal), power(signal - found))


def si_sdr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant SDR of an estimate in dB.

    Silence and values that are not finite count as in :func:`snr_db`.

    Raises:
        ValueError: the shapes differ, or there are no samples.
    """
    signal, found = _pair(reference, estimate)
    energy = power(signal)
    if energy == 0.0:
        return decibels(0.0, power(found))
    target = signal * (float(np.vdot(found, signal)) / energy)
    if not found.any():
        return -LIMIT_DB  # A silent estimate holds nothing of the reference.
    return decibels(power(target), power(target - found))


def is_clipped(audio: np.ndarray) -> bool:
    """Return whether audio is clipped: a part of its samples lies at its peak."""
    magnitude = np.abs(audio)
    peak = magnitude.max(initial=0.0)
    return bool(peak > 0 and (magnitude >= peak * (1 - 1e-4)).mean() > CLIPPED_SHARE)


def mel_distance_db(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Mean distance of two log-mel spectrograms in dB, over several resolutions and all channels.

    An estimate that is not finite is :data:`LIMIT_DB` away.

    Args:
        reference: audio (samples,) or (channels, samples).
        estimate: audio of the same shape.
        rate: sampling rate in hertz.

    Raises:
        ValueError: the shapes differ, or there are no samples.
    """
    signal, found = _pair(reference, estimate)
    if not np.isfinite(found).all():
        return LIMIT_DB
    distances = [
        np.abs(
            mel_spectrogram_db(signal, rate, window, bands)
            - mel_spectrogram_db(found, rate, window, bands)
        ).mean()
        for window, bands in WINDOWS.items()
    ]
    return float(np.mean(distances))


def mel_spectrogram_db(audio: np.ndarray, rate: int, window: int, bands: int) -> Floats:
    """Mel spectrogram in dB below a sine of full scale, (…, frames, bands).

    Hann windows of ``window`` samples, a quarter of that apart, from half a window of zeros before
    the audio to as much after it. Bands sum up amplitudes by triangles on Slaney's mel scale from 0
    to half the sampling rate, and are silent below :data:`FLOOR`.
    """
    edges = [(0, 0)] * (audio.ndim - 1) + [(window // 2, window // 2)]
    padded = np.pad(audio.astype(np.float64), edges)
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = sliding_window_view(padded, window, axis=-1)[..., :: window // 4, :] * shape
    # A sine of full scale gives half the sum of the window at its frequency.
    amplitudes = np.abs(np.fft.rfft(frames)) / (shape.sum() / 2)
    levels: Floats = 20.0 * np.log10(np.maximum(amplitudes @ mel_bands(rate, window, bands), FLOOR))
    return levels


@cache
def mel_bands(rate: int, window: int, bands: int) -> Floats:
    """Weights (window // 2 + 1, bands) of frequencies in triangular bands, 1 at their peak.

    Slaney's scale is linear up to 1 kHz and logarithmic above (Auditory Toolbox, 1998).
    """
    top = _to_mel(np.array(rate / 2))
    corners = _to_hertz(np.linspace(0.0, float(top), bands + 2))
    frequencies = np.arange(window // 2 + 1)[:, None] * (rate / window)
    rise = (frequencies - corners[:-2]) / np.diff(corners)[:-1]
    fall = (corners[2:] - frequencies) / np.diff(corners)[1:]
    weights: Floats = np.maximum(0.0, np.minimum(rise, fall))
    return weights


_LINEAR = 200.0 / 3
"""Hertz of a mel below 1 kHz."""
_KNEE = 1000.0
_STEP = float(np.log(6.4)) / 27.0
"""Logarithm of the ratio of two frequencies a mel apart, above 1 kHz."""


def _to_mel(hertz: Floats) -> Floats:
    above = _KNEE / _LINEAR + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _STEP
    mels: Floats = np.where(hertz < _KNEE, hertz / _LINEAR, above)
    return mels


def _to_hertz(mels: Floats) -> Floats:
    knee = _KNEE / _LINEAR
    above = _KNEE * np.exp(_STEP * (np.maximum(mels, knee) - knee))
    hertz: Floats = np.where(mels < knee, mels * _LINEAR, above)
    return hertz


def _pair(reference: np.ndarray, estimate: np.ndarray) -> tuple[Floats, Floats]:
    if reference.shape != estimate.shape or reference.size == 0:
        raise ValueError(f"needs two waveforms of one shape: {reference.shape}, {estimate.shape}")
    return reference.astype(np.float64), estimate.astype(np.float64)


def power(values: np.ndarray) -> float:
    """Return the sum of squares of a waveform, summed in float64."""
    exact = np.asarray(values, np.float64)
    return float(np.vdot(exact, exact))


def decibels(signal: float, noise: float) -> float:
    """Return 10 log₁₀(signal ÷ noise) of two powers, between ±:data:`LIMIT_DB`.

    Noise that is not finite gives the lowest value, and noise of zero the highest.
    """
    if not np.isfinite(noise):
        return -LIMIT_DB
    if noise == 0.0:
        return LIMIT_DB
    if signal == 0.0:
        return -LIMIT_DB
    return float(np.clip(10.0 * np.log10(signal / noise), -LIMIT_DB, LIMIT_DB))
