"""Compute Whisper's log-mel features with NumPy alone.

Every runtime is fed the same features, so that a difference between two cells of the matrix comes
from the runtime and not from the front end. The definition is that of OpenAI's Whisper
(``whisper/audio.py``, and ``preprocessor_config.json`` of its checkpoints): 16 kHz, 25 ms Hann
window, 10 ms hop, Slaney mel scale and Slaney area normalisation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Sampling rate of the audio, in Hz."""
N_FFT = 400
"""Samples in one analysis window (25 ms)."""
HOP_LENGTH = 160
"""Samples from one frame to the next (10 ms)."""

# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    """Convert a frequency in Hz to Slaney mels."""
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert Slaney mels (any shape) to frequencies in Hz (same shape)."""
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, above)


@lru_cache(maxsize=8)
def mel_filterbank(
    n_mels: int,
    n_fft: int = N_FFT,
    sample_rate: int = SAMPLE_RATE,
    lowest: float = 0.0,
    highest: float | None = None,
) -> NDArray[np.float64]:
    """Return triangular mel filters with Slaney scale and Slaney (equal area) normalisation.

    The weights have shape ``(n_fft // 2 + 1, n_mels)``: power spectrum @ weights = mel power.
    The filters lie between ``lowest`` and ``highest`` Hz (None: half the sampling rate). The array
    is cached and read-only. Equal to ``librosa.filters.mel(...).T`` with its other defaults.
    """
    nyquist = sample_rate / 2
    bins = np.linspace(0.0, nyquist, n_fft // 2 + 1)
    last = nyquist if highest is None else highest
    edges = _mel_to_hz(np.linspace(_hz_to_mel(lowest), _hz_to_mel(last), n_mels + 2))
    widths = np.diff(edges)
    distance = edges[None, :] - bins[:, None]
    rising = -distance[:, :-2] / widths[:-1]
    falling = distance[:, 2:] / widths[1:]
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights *= 2.0 / (edges[2:] - edges[:-2])
    weights.flags.writeable = False
    return weights


def power_spectrogram(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared magnitudes of the whole frames in samples (n,): shape (frames, 201)."""
    frames = sliding_window_view(samples, N_FFT)[::HOP_LENGTH]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)  # periodic, not symmetric
    spectrum = np.fft.rfft(frames * hann, axis=1)
    power: NDArray[np.float64] = spectrum.real**2 + spectrum.imag**2
    return power


def log_mel_spectrogram(
    audio: NDArray[np.float32], n_mels: int, window_samples: int
) -> NDArray[np.float32]:
    """Return Whisper's normalised log-mel spectrogram of one window.

    ``audio`` is mono at 16 kHz, shape ``(samples,)``, full scale ±1; it is cut, or padded at the
    end with zeros, to ``window_samples`` (480,000 for published Whisper). Returns shape
    ``(n_mels, window_samples // 160)``: log10 of the mel power, floored 8 decades below the
    window's maximum, then shifted and scaled by ``(x + 4) / 4``.
    """
    if audio.ndim != 1:
        raise ValueError(f"audio must have shape (samples,), got {audio.shape}")
    if window_samples <= N_FFT // 2:
        raise ValueError(f"window_samples must exceed {N_FFT // 2}, got {window_samples}")
    window = np.zeros(window_samples, dtype=np.float64)
    kept = min(audio.size, window_samples)
    window[:kept] = audio[:kept]

    # Frames are centred on multiples of the hop; the edges see a mirror image of the signal.
    padded = np.pad(window, N_FFT // 2, mode="reflect")
    # Whisper drops the last frame, which is centred on the first sample after the window.
    power = power_spectrogram(padded)[: window_samples // HOP_LENGTH]

    log_mel = np.log10(np.maximum(power @ mel_filterbank(n_mels), 1e-10))
    log_mel = np.maximum(log_mel, log_mel.max() - 8.0)
    return np.ascontiguousarray(((log_mel + 4.0) / 4.0).T, dtype=np.float32)
