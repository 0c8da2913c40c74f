"""Features against transformers' WhisperFeatureExtractor, and hand-checked properties."""

from __future__ import annotations

import numpy as np
import pytest

from compat.inputs.features import log_mel_spectrogram, mel_filterbank

SAMPLE_RATE = 16_000


def _test_signal(seconds: float) -> np.ndarray:
    """A chirp with noise that fades in: exercises low and high bands and the 8-decade floor."""
    generator = np.random.default_rng(7)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    chirp = 0.5 * np.sin(2 * np.pi * (100 + 800 * time) * time)
    noise = 0.05 * generator.standard_normal(time.size) * time / seconds
    return (chirp + noise).astype(np.float32)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("window_seconds", [4, 30])
@pytest.mark.parametrize("audio_seconds", [2.5, 35.0])
def test_equals_transformers(n_mels: int, window_seconds: int, audio_seconds: float) -> None:
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=n_mels, chunk_length=window_seconds
    )
    audio = _test_signal(audio_seconds)
    expected = extractor(audio, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0]
    actual = log_mel_spectrogram(audio, n_mels, window_seconds * SAMPLE_RATE)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape == (n_mels, window_seconds * 100)
    assert np.abs(actual - expected).max() < 1e-4


def test_filterbank_equals_transformers() -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    for n_mels in (80, 128):
        expected = audio_utils.mel_filter_bank(
            201, n_mels, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        np.testing.assert_allclose(mel_filterbank(n_mels), expected, atol=1e-12)


def test_silence_is_the_clamped_floor() -> None:
    # log10(1e-10) = -10 everywhere, so the maximum is -10 too and (-10 + 4) / 4 = -1.5.
    silence = np.zeros(SAMPLE_RATE, dtype=np.float32)
    features = log_mel_spectrogram(silence, 80, 4 * SAMPLE_RATE)
    assert np.all(features == np.float32(-1.5))


def test_dynamic_range_is_eight_decades() -> None:
    features = log_mel_spectrogram(_test_signal(1.0), 80, 4 * SAMPLE_RATE)
    assert features.max() - features.min() == pytest.approx(2.0, abs=1e-6)  # 8 decades / 4


def test_sine_peaks_in_its_own_filter() -> None:
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    sine = (0.5 * np.sin(2 * np.pi * 1000.0 * time)).astype(np.float32)
    features = log_mel_spectrogram(sine, 80, 4 * SAMPLE_RATE)
    # 1 kHz is bin 25 of 201; the filter with the largest weight there must win in every frame.
    winner = int(mel_filterbank(80)[25].argmax())
    assert np.all(features[:, 2:-2].argmax(axis=0) == winner)


def test_rejects_other_shapes() -> None:
    with pytest.raises(ValueError, match="shape"):
        log_mel_spectrogram(np.zeros((1, 16_000), dtype=np.float32), 80, 64_000)
    with pytest.raises(ValueError, match="window_samples"):
        log_mel_spectrogram(np.zeros(16_000, dtype=np.float32), 80, 200)
