"""The task of codecs: scores, faults, and defects that they must show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compat.contract.item import Item
from compat.metrics.waveform import is_clipped
from compat.models.tasks.codec import Codec, at_bitrate, fitted

RATE = 24_000
TASK = Codec((1.5, 6.0), 6.0)


def recording(seed: int, seconds: float = 0.25) -> Item:
    """Return stereo of tones and noise that differ between the channels."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tones = [
        sum(0.1 * np.sin(2 * np.pi * hertz * time) for hertz in generator.uniform(100, 6000, 5))
        for _ in range(2)
    ]
    noise = 0.02 * generator.standard_normal((2, len(time)))
    return Item.from_audio(f"{seed}", (np.stack(tones) + noise).astype(np.float32), RATE)


def decoded(item: Item, noise: float = 0.02) -> dict[str, Any]:
    """Return what a good codec makes of a recording."""
    generator = np.random.default_rng(len(item.id))
    error = noise * generator.standard_normal(item.audio.shape)
    codes = generator.integers(0, 1024, (1, 8, 19), dtype=np.int32)
    return {"codes": codes, "audio": (item.audio + error).astype(np.float32)}


ITEMS = [recording(seed) for seed in range(2)]
REFERENCES = [decoded(item) for item in ITEMS]


def resampled(audio: np.ndarray) -> np.ndarray:
    """Return audio that was taken at 44.1 kHz and is played at 48."""
    places = np.arange(audio.shape[-1]) * 44.1 / 48
    return np.stack([np.interp(places, np.arange(len(one)), one) for one in audio])


def test_the_reference_scores_as_itself() -> None:
    scores = TASK.score(ITEMS, REFERENCES, REFERENCES)
    assert scores["degradation"] == 0.0 and scores["no_worse_share"] == 1.0
    assert scores["code_agreement"] == scores["first_code_agreement"] == 1.0
    assert scores["waveform_snr"] == 200.0 and scores["reference_distance"] == 0.0
    # Five tones of 0.1 and noise have a power of 0.0254, the error of 0.0004.
    assert scores["si_sdr"] == pytest.approx(18.0, abs=0.3)
    assert 0 < scores["mel_distance"] == scores["reference_mel_distance"] < 8
    declared = {metric.name for metric in TASK.metrics}
    assert {name for name in scores if not name.endswith("_interval")} == declared
    assert [metric.name for metric in TASK.metrics if metric.primary] == ["mel_distance"]


def test_codes_count_by_codebook() -> None:
    predictions = [dict(one) for one in REFERENCES]
    for one in predictions:
        one["codes"] = one["codes"].copy()
        one["codes"][:, 0] += 1
    scores = TASK.score(ITEMS, predictions, REFERENCES)
    assert scores["first_code_agreement"] == 0.0
    assert scores["code_agreement"] == pytest.approx(7 / 8)
    shorter = [{**one, "codes": one["codes"][:, :4]} for one in REFERENCES]
    assert TASK.score(ITEMS, shorter, REFERENCES)["code_agreement"] == 0.0


@pytest.mark.parametrize(
    ("defect", "behind", "snr"),
    [
        (lambda audio: audio[::-1], 3.0, 1.0),
        (resampled, 2.0, 1.0),
        (lambda audio: audio[..., :-320], 0.5, 20.0),
        (np.zeros_like, 20.0, 0.1),
        (lambda audio: np.clip(audio * 20, -1, 1), 5.0, 1.0),
        (lambda audio: audio + 0.1 * np.random.default_rng(0).standard_normal(audio.shape), 2, 10),
    ],
    ids=["swapped channels", "44.1 kHz as 48", "last frame lost", "silent", "clipped", "noisy"],
)
def test_scores_show_a_defect(defect: Any, behind: float, snr: float) -> None:
    predictions = [{**one, "audio": defect(one["audio"])} for one in REFERENCES]
    scores = TASK.score(ITEMS, predictions, REFERENCES)
    assert scores["degradation"] > behind and scores["no_worse_share"] == 0.0
    assert scores["degradation_interval"][0] > behind / 2
    assert scores["waveform_snr"] < snr
    wrong = [TASK.errors(*one) for one in zip(ITEMS, predictions, REFERENCES, strict=True)]
    assert all(one["errors"] > one["reference"] for one in wrong)
    assert not any(map(TASK.same, predictions, REFERENCES))


@pytest.mark.parametrize(
    ("defect", "fault"),
    [
        (np.zeros_like, "2 of 2 outputs are silent"),
        (lambda audio: np.clip(audio, -0.1, 0.1), "2 of 2 outputs are clipped"),
        (lambda audio: audio[..., :-320], "2 of 2 outputs are truncated"),
        (lambda audio: audio * np.nan, "2 of 2 outputs hold NaN"),
        (lambda audio: REFERENCES[0]["audio"], "the same output"),
    ],
)
def test_faults(defect: Any, fault: str) -> None:
    codes = REFERENCES[0]["codes"]
    predictions = [{"codes": codes, "audio": defect(one["audio"])} for one in REFERENCES]
    assert any(fault in found for found in TASK.faults(predictions, REFERENCES))
    assert not TASK.faults(REFERENCES, REFERENCES)
    # What the reference does too is no fault.
    assert not [f for f in TASK.faults(predictions, predictions) if "NaN" not in f]


def test_a_sine_is_not_clipped() -> None:
    sine = np.sin(np.arange(RATE) * 0.05)
    assert not is_clipped(sine) and not is_clipped(np.zeros(9))
    assert is_clipped(np.clip(sine, -0.99, 0.99))


def test_an_answer_is_the_same_but_for_a_code_near_a_tie() -> None:
    one, other = REFERENCES[0], dict(REFERENCES[0])
    other["codes"] = one["codes"].copy()
    other["codes"][0, 5:, 10] += 1
    assert TASK.same(other, one)
    other["codes"][0, 2] += 1
    assert not TASK.same(other, one)
    assert not TASK.same({**one, "audio": one["audio"] * 0.8}, one)


def test_results_keep_no_audio() -> None:
    row = TASK.row("music-6kbps", at_bitrate(ITEMS[0], 6.0), REFERENCES[0], REFERENCES[1])
    assert row["truth"] == {"bitrate": 6.0} and row["item"] == "0-6kbps"
    assert row["prediction"]["audio"]["shape"] == [2, RATE // 4]
    assert 0 < row["prediction"]["rms"] < row["prediction"]["peak"] < 1
    assert not TASK.rescorable


def test_audio_is_fitted_to_its_input() -> None:
    item = recording(0, 0.1)
    assert fitted(item.audio[:, :-7], item).shape == item.audio.shape
    assert fitted(np.pad(item.audio, ((0, 0), (0, 9))), item).shape == item.audio.shape
