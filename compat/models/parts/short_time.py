"""Short-time Fourier transforms for host-side drivers, in NumPy and SciPy, along the last axis.

The transforms are those of ``torch.stft`` and ``torch.istft`` with ``normalized=True``,
``center=False`` and a periodic Hann window. For centred frames, the caller pads the audio by half a
frame on either side. Frames overlap by three quarters. The precision is that of the input.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.models.parts.spectral import hann

OVERLAP = 4
"""Number of frames over each sample."""


def stft(audio: np.ndarray, size: int) -> NDArray[Any]:
    """Return spectra (…, size // 2 + 1, frames) of audio (…, samples), every ``size // 4`` samples.

    Samples at the end that fill no whole frame are left out.
    """
    from scipy.fft import rfft

    frames = np.lib.stride_tricks.sliding_window_view(audio, size, axis=-1)
    windowed = frames[..., :: size // OVERLAP, :] * _window(size).astype(audio.dtype)
    spectra: NDArray[Any] = rfft(windowed, axis=-1, workers=-1)
    return np.swapaxes(spectra, -1, -2)


def istft(spectra: np.ndarray, size: int) -> NDArray[Any]:
    """Return audio (…, (frames + 3) x size // 4) of spectra (…, size // 2 + 1, frames).

    Frames are windowed, added up, and divided by the sum of four squared windows, also at the ends,
    where fewer frames overlap: the first and the last three quarters of a frame are too faint.
    """
    from scipy.fft import irfft

    hop = size // OVERLAP
    frames = irfft(np.swapaxes(spectra, -1, -2), size, axis=-1, workers=-1)
    *other, count, _ = frames.shape
    # The squares of four periodic Hann windows a quarter apart add up to 3/2 everywhere.
    window = (_window(size) / _overlap_sum(size)).astype(frames.dtype)
    frames *= window
    quarters = frames.reshape(*other, count, OVERLAP, hop)
    audio = np.zeros((*other, count + OVERLAP - 1, hop), frames.dtype)
    for quarter in range(OVERLAP):
        audio[..., quarter : quarter + count, :] += quarters[..., quarter, :]
    return audio.reshape(*other, -1)


@cache
def _window(size: int) -> NDArray[np.float64]:
    """Return the Hann window, scaled so that transforms keep a signal's power."""
    window: NDArray[np.float64] = hann(size) / np.sqrt(size)
    return window


def _overlap_sum(size: int) -> float:
    return float(np.square(_window(size)).sum() * OVERLAP / size)
