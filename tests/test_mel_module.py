"""Whisper's log-mel as a graph: equal to the one that NumPy computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compat.experiments.features import mel_module
from compat.inputs.features import log_mel_spectrogram


@pytest.mark.parametrize("mels", [80, 128])
def test_a_graph_gives_the_mels_of_the_host(mels: int) -> None:
    samples = 48_000
    audio = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32) * 0.1
    audio[1, 20_000:] = 0.0
    found = mel_module(mels, samples)(torch.from_numpy(audio)).numpy()
    wanted = np.stack([log_mel_spectrogram(one, mels, samples) for one in audio])
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-3
    # The planted defect: a window that is not Hann's.
    module = mel_module(mels, samples)
    module.basis = torch.sign(module.basis)
    assert np.abs(module(torch.from_numpy(audio)).numpy() - wanted).max() > 0.1
