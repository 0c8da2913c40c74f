"""Spectra inside graphs: Fourier transforms and mel filters as convolutions.

Exporters turn ``torch.stft`` into operators that few runtimes have, and cannot export complex
tensors at all. A convolution runs everywhere. A spectrum is (batch, 2 × bins, frames) here, with
``size // 2 + 1`` bins: real parts first, then imaginary parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compat.inputs.features import mel_filterbank

if TYPE_CHECKING:
    import torch


def hann(size: int) -> NDArray[np.float64]:
    """Return the periodic Hann window (size,), as ``torch.hann_window`` does."""
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)
    return window


def fourier(size: int, hop: int, window: np.ndarray | None = None) -> torch.nn.Conv1d:
    """Return a convolution that maps audio (batch, 1, samples) to its spectrum.

    The transform is that of ``torch.stft`` with ``center=False``. For centred frames, the caller
    pads the audio by half a frame on either side.

    Args:
        size: samples of a frame.
        hop: samples from one frame to the next.
        window: (size,), multiplied with each frame; None for :func:`hann`.
    """
    import torch

    waves = _waves(size) * (hann(size) if window is None else window)
    layer = torch.nn.Conv1d(1, len(waves), size, stride=hop, bias=False)
    layer.weight.data = torch.from_numpy(waves[:, None]).float()
    return layer


def power(spectrum: torch.Tensor) -> torch.Tensor:
    """Return squared magnitudes (batch, bins, frames) of a spectrum."""
    real, imaginary = spectrum.chunk(2, dim=1)
    return real.square() + imaginary.square()


def mel_bands(
    mels: int, size: int, rate: int, filters: np.ndarray | None = None
) -> torch.nn.Conv1d:
    """Return mel filters as a convolution: powers (batch, bins, frames) to (batch, mels, frames).

    Args:
        mels: number of bands.
        size: samples of a frame.
        rate: sampling rate in hertz.
        filters: (bins, mels); None for Slaney's scale and area, as librosa and Whisper have them.
    """
    import torch

    weights = mel_filterbank(mels, size, rate) if filters is None else filters
    layer = torch.nn.Conv1d(len(weights), mels, 1, bias=False)
    layer.weight.data = torch.from_numpy(weights.T[:, :, None].copy()).float()
    return layer


def inverse(
    size: int, hop: int, frames: int, length: int, window: np.ndarray | None = None
) -> torch.nn.Module:
    """Return the inverse transform: a spectrum of centred frames to audio (batch, 1, length).

    It is that of ``torch.istft``: frames are windowed, added up, and divided by the sum of the
    squared windows over each sample.

    Args:
        size: samples of a frame.
        hop: samples from one frame to the next.
        frames: number of frames.
        length: samples of the audio, which begins in the middle of the first frame.
        window: (size,), the window of the transform; None for :func:`hann`.

    Raises:
        ValueError: a sample of the audio lies in no frame, or only where windows are zero.
    """
    import torch

    shape = hann(size) if window is None else window
    covered = np.zeros((frames - 1) * hop + size)
    for start in range(0, frames * hop, hop):
        covered[start : start + size] += np.square(shape)
    covered = covered[size // 2 : size // 2 + length]
    if len(covered) < length or covered.min() < 1e-11:
        raise ValueError(f"{frames} frames of {size} samples do not cover {length} samples")
    # For a real signal, every bin but the first and the last also stands for its mirrored bin.
    twice = np.full(size // 2 + 1, 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0
    waves = _waves(size) * np.tile(twice, 2)[:, None] * shape / size

    class Inverse(torch.nn.Module):
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.add = torch.nn.ConvTranspose1d(len(waves), 1, size, stride=hop, bias=False)
            self.add.weight.data = torch.from_numpy(waves[:, None]).float()
            self.register_buffer("scale", torch.from_numpy(1.0 / covered).float())

        def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
            audio: torch.Tensor = self.add(spectrum)
            return audio[:, :, size // 2 : size // 2 + length] * self.scale

    return Inverse()


def _waves(size: int) -> NDArray[np.float64]:
    """Return a cosine and minus a sine for each bin, (2 × bins, size)."""
    # Integers modulo the size keep phases exact: those of high bins are many turns.
    turns = np.arange(size // 2 + 1)[:, None] * np.arange(size) % size / size
    return np.concatenate((np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)))
