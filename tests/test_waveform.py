"""Scores of waveforms: cases worked out by hand, and the libraries' numbers where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compat.metrics.waveform import (
    FLOOR,
    LIMIT_DB,
    WINDOWS,
    mel_bands,
    mel_distance_db,
    mel_spectrogram_db,
    si_sdr_db,
    snr_db,
)

RATE = 24_000


def noise(seed: int, shape: tuple[int, ...] = (RATE,)) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sine(hertz: float, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)


# --- ratios --------------------------------------------------------------------------------------


def test_ratios_by_hand() -> None:
    signal = np.array([3.0, 4.0])
    # |s|² = 25; the error (1, 0) has power 1.
    assert snr_db(signal, np.array([2.0, 4.0])) == pytest.approx(10 * np.log10(25))
    # <ŝ, s> / |s|² = 22/25: the target (2.64, 3.52) has power 19.36, the error 0.64.
    assert si_sdr_db(signal, np.array([2.0, 4.0])) == pytest.approx(10 * np.log10(19.36 / 0.64))


def test_scale_matters_to_one_ratio_alone() -> None:
    signal = noise(0)
    estimate = signal + noise(1) * 0.1
    assert snr_db(signal, signal / 2) == pytest.approx(20 * np.log10(2), abs=1e-5)
    assert si_sdr_db(signal, signal / 2) > 140
    assert si_sdr_db(signal, estimate * 0.3) == pytest.approx(si_sdr_db(signal, estimate), abs=1e-4)


def test_the_balance_of_stereo_counts() -> None:
    signal = noise(0, (2, RATE))
    louder = signal * np.array([[1.0], [2.0]], np.float32)
    assert si_sdr_db(signal, louder) < 12
    assert si_sdr_db(signal, signal[::-1]) < 0


@pytest.mark.parametrize("score", [snr_db, si_sdr_db])
def test_what_has_no_ratio_has_a_limit(score: Any) -> None:
    signal, silence = noise(0), np.zeros(RATE, np.float32)
    assert score(signal, signal) > 140
    assert score(signal, silence) == (0.0 if score is snr_db else -LIMIT_DB)
    assert score(silence, silence) == LIMIT_DB
    assert score(silence, signal) == -LIMIT_DB
    broken = signal.copy()
    broken[7] = np.nan
    assert score(signal, broken) == -LIMIT_DB
    with pytest.raises(ValueError, match="one shape"):
        score(signal, signal[:-1])


def test_si_sdr_is_that_of_torchmetrics() -> None:
    audio = pytest.importorskip("torchmetrics.functional.audio")
    import torch

    signal, estimate = noise(0, (4, RATE)), noise(0, (4, RATE)) * 0.7 + noise(1, (4, RATE)) * 0.2
    arguments = torch.from_numpy(estimate).double(), torch.from_numpy(signal).double()
    expected = audio.scale_invariant_signal_distortion_ratio(*arguments)
    assert [si_sdr_db(*one) for one in zip(signal, estimate, strict=True)] == pytest.approx(
        expected.tolist(), abs=1e-6
    )
    expected = audio.signal_noise_ratio(*arguments)
    assert [snr_db(*one) for one in zip(signal, estimate, strict=True)] == pytest.approx(
        expected.tolist(), abs=1e-6
    )


# --- mel spectra ---------------------------------------------------------------------------------


def test_a_sine_of_full_scale_is_near_0_db() -> None:
    levels = mel_spectrogram_db(sine(3000), RATE, 1024, 80)
    assert levels.shape == (RATE // 256 + 1, 80)
    middle = levels[len(levels) // 2]
    # Its main lobe is four bins wide, which add up to twice its amplitude at most.
    assert -3 < middle.max() < 6.1
    peak = np.argmax(mel_bands(RATE, 1024, 80)[3000 * 1024 // RATE])
    assert abs(int(np.argmax(middle)) - int(peak)) <= 1
    assert middle.min() == pytest.approx(20 * np.log10(FLOOR))


@pytest.mark.parametrize(("window", "bands"), WINDOWS.items())
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
def test_every_band_hears_something(rate: int, window: int, bands: int) -> None:
    assert (mel_bands(rate, window, bands).sum(axis=0) > 0).mean() > 0.85
    # Between the first peak and the last, triangles add up to one.
    sums = mel_bands(rate, window, bands).sum(axis=1)
    assert sums[len(sums) // 2] == pytest.approx(1.0)


def test_mel_distance_by_hand() -> None:
    signal = noise(0) * 2
    assert mel_distance_db(signal, signal, RATE) == 0.0
    # Half the amplitude is 6 dB in every band that is above the floor.
    assert mel_distance_db(signal, signal / 2, RATE) == pytest.approx(20 * np.log10(2), abs=0.05)
    # Phases are not heard: another noise of the same spectrum is nearer than half of the same.
    assert mel_distance_db(signal, -signal, RATE) < 1e-9
    assert 1 < mel_distance_db(signal, noise(1) * 2, RATE) < 8
    assert mel_distance_db(signal, np.full_like(signal, np.nan), RATE) == LIMIT_DB
    stereo = np.stack([signal, signal])
    louder = np.stack([signal, signal / 2])
    assert mel_distance_db(stereo, louder, RATE) == pytest.approx(10 * np.log10(2), abs=0.05)
    with pytest.raises(ValueError, match="one shape"):
        mel_distance_db(signal, stereo, RATE)


def test_mel_distance_is_that_of_auraloss() -> None:
    freq = pytest.importorskip("auraloss.freq")
    pytest.importorskip("librosa")
    import torch

    signal, estimate = noise(0), noise(0) * 0.5 + noise(1)
    distances = []
    for window, bands in WINDOWS.items():
        loss = freq.STFTLoss(
            *(window, window // 4, window),
            w_sc=0.0,
            w_lin_mag=0.0,
            w_log_mag=1.0,
            sample_rate=RATE,
            scale="mel",
            n_bins=bands,
        )
        tensors = [torch.from_numpy(one)[None, None] for one in (estimate, signal)]
        distances.append(20 / np.log(10) * float(loss(*tensors)))
    # The library mirrors the audio at its ends, where this has zeros.
    assert mel_distance_db(signal, estimate, RATE) == pytest.approx(np.mean(distances), rel=0.02)
