"""Compute Kaldi's log mel filter bank, the input of models of speakers and of translation."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Sampling rate of the audio, in Hz."""
WINDOW, HOP = 400, 160
"""Samples in one frame (25 ms), and samples from one frame to the next (10 ms)."""
MELS = 80


def frame_count(samples: int) -> int:
    """Return the number of whole frames in a number of samples."""
    return max(0, 1 + (samples - WINDOW) // HOP)


def fbank(
    samples: np.ndarray, window: Literal["povey", "hamming"] = "povey"
) -> NDArray[np.float32]:
    """Return the log mel features of audio (samples,) at 16 kHz: float32 (frames, 80).

    They are natural logarithms of the mel power from 20 Hz to 8 kHz. The waveform is multiplied by
    2^15; each frame loses its mean and is pre-emphasised, without dither. Only whole frames count,
    and the audio must hold at least one. Source: Kaldi's ``compute-fbank-feats``.
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
