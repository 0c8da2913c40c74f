"""Kaldi's log mel filter bank, as models of speakers and of translation hear it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Hz."""
WINDOW, HOP = 400, 160
"""Samples of a frame (25 ms), and from one to the next (10 ms)."""
MELS = 80


def frame_count(samples: int) -> int:
    """Number of whole frames in so many samples."""
    return max(0, 1 + (samples - WINDOW) // HOP)


def fbank(
    samples: np.ndarray, window: Literal["povey", "hamming"] = "povey"
) -> NDArray[np.float32]:
    """Return the features of audio (samples,) at 16 kHz: float32 (frames, 80).

    Natural logarithms of mel power from 20 Hz to 8 kHz of the waveform times 2^15, pre-emphasised,
    without dither and without its mean in each frame; only whole frames. Source: Kaldi's
    ``compute-fbank-feats``. Audio has to hold at least one frame.
    """
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = MELS
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(RATE, np.asarray(samples, np.float32) * 32_768.0)
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])
