"""Windows over long audio: cut, filled with speech, and joined again by overlap-add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from compat.contract.item import Item


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length, one after the other or overlapping, over audio of any length.

    Raises:
        ValueError: the step is longer than a window, or not positive.
    """

    length: int
    """Samples of a window."""
    step: int
    """Samples from the start of one window to the start of the next, at most ``length``."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.length:
            raise ValueError(f"windows of {self.length} samples every {self.step} leave some out")

    @classmethod
    def overlapping(cls, seconds: float, overlap: float, rate: int) -> Windows:
        """Return windows of so many seconds; neighbours share ``overlap`` (0 to 1) of a window."""
        length = round(seconds * rate)
        return cls(length, int(length * (1 - overlap)))

    def starts(self, samples: int) -> range:
        """Return the first sample of each window; at least one, and as few as cover the audio."""
        return range(0, max(1, samples - self.length + self.step), self.step)

    def cut(self, audio: np.ndarray) -> np.ndarray:
        """Return the windows (windows, …, length) of audio (…, samples); zeros follow its end."""
        end = self.starts(audio.shape[-1])[-1] + self.length
        windows = sliding_window_view(window_at(audio, 0, end), self.length, axis=-1)
        return np.moveaxis(windows[..., :: self.step, :], -2, 0).copy()

    def join(self, windows: np.ndarray, samples: int, weights: np.ndarray) -> NDArray[np.float32]:
        """Add overlapping windows up, (windows, …, length), to audio (…, samples).

        Every sample is the mean of the windows over it, weighted by ``weights`` (length,), which
        are positive. Sums are float64, so that joining unchanged windows gives back the audio that
        they were cut from, exactly.

        Raises:
            ValueError: there are more or fewer windows than :meth:`cut` gives.
        """
        shape = windows.shape[1:-1]
        total = np.zeros((*shape, samples))
        covered = np.zeros(samples)
        for window, start in zip(windows, self.starts(samples), strict=True):
            part = weights[: max(0, samples - start)].astype(np.float64)
            total[..., start : start + self.length] += window[..., : len(part)] * part
            covered[start : start + self.length] += part
        total /= covered
        return total.astype(np.float32)


def triangular(length: int) -> NDArray[np.float64]:
    """Return weights (length,) that rise to 1 in the middle of a window and fall again.

    Source: Demucs (Défossez, "Hybrid Spectrogram and Waveform Source Separation", 2021).
    """
    rise = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
    weights: NDArray[np.float64] = rise / rise.max()
    return weights


def window_at(audio: np.ndarray, start: int, length: int) -> np.ndarray:
    """Return ``length`` samples of audio (…, samples) from ``start`` on, zeros after its end."""
    found = audio[..., start : start + length]
    missing = length - found.shape[-1]
    return np.pad(found, [(0, 0)] * (audio.ndim - 1) + [(0, missing)]) if missing else found


def filled(utterances: Sequence[Item], length: int, count: int) -> list[Item]:
    """Join utterances into ``count`` inputs of ``length`` samples, for weights that know no task.

    Each input begins with another utterance. If the utterances do not suffice, there are fewer
    inputs; if they do not fill a single one, there is one shorter input.
    """
    windows: list[Item] = []
    joined: list[np.ndarray] = []
    rate = utterances[0].rate
    for item in utterances:
        if len(windows) == count:
            break
        joined.append(item.audio)
        if sum(audio.shape[-1] for audio in joined) >= length:
            audio = np.concatenate(joined, axis=-1)[..., :length]
            windows.append(Item.from_audio(f"window-{len(windows)}", audio, rate))
            joined = []
    return windows or [Item.from_audio("window-0", np.concatenate(joined, axis=-1), rate)]
