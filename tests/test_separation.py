"""Source separation: scores against the truth and the reference, and the faults that they find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from compat.contract.item import Item
from compat.contract.profile import CORE, FULL, QUICK
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import load
from compat.metrics.separation import exchanged, fidelity_db, stems_of, task_separation
from compat.models.parts.windows import filled
from compat.models.tasks.separation import STEMS, Separation, middles, true_stems

RATE = 44_100
TASK = Separation()


def song(seed: int, samples: int = RATE // 2) -> np.ndarray:
    """Return four stems (4, 2, samples), no two alike, and each with its own balance."""
    random = np.random.default_rng(seed)
    sounds = (
        random.standard_normal((4, 1, samples)) * np.array([0.3, 0.2, 0.1, 0.15])[:, None, None]
    )
    sides = np.array([[1.0, 0.5], [0.8, 0.8], [0.3, 1.0], [0.9, 0.7]])[:, :, None]
    stems: np.ndarray = (sounds * sides * 0.3).astype(np.float32)
    return stems


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "stems"
    folder.mkdir()
    lines = []
    for number in range(2):
        stems = song(number)
        named = {name: f"{number}-{name}.flac" for name in STEMS}
        for name, stem in zip(STEMS, stems, strict=True):
            soundfile.write(folder / named[name], stem.T, RATE)
        soundfile.write(folder / f"{number}.flac", stems.sum(axis=0).T, RATE)
        lines.append({"id": f"song-{number}", "audio_filepath": f"{number}.flac", "stems": named})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def items_of(corpus: Path) -> list[Item]:
    items = TASK.items(load(corpus).with_channels(2), RATE, CORE)
    return list(items.task["stems"])


def answers(items: list[Item], noise: float = 0.0) -> list[dict[str, Any]]:
    """Return the true stems with so much noise, as predictions."""
    random = np.random.default_rng(9)
    found = []
    for item in items:
        truth = true_stems(item)
        wrong = random.standard_normal(truth.shape).astype(np.float32) * np.float32(noise)
        found.append({"stems": truth + wrong})
    return found


# --- scores --------------------------------------------------------------------------------------


def test_scores_are_those_of_their_definitions(corpus: Path) -> None:
    items = items_of(corpus)
    assert [item.audio.shape for item in items] == [(2, RATE // 2)] * 2
    ours, theirs = answers(items, 0.01), answers(items, 0.005)
    values = TASK.score(items, ours, theirs)
    by_hand = [
        10 * np.log10(np.square(truth).sum() / np.square(truth - found).sum())
        for item, one in zip(items, ours, strict=True)
        for truth, found in zip(true_stems(item), one["stems"], strict=True)
    ]
    assert values["sdr"] == pytest.approx(np.mean(by_hand), abs=1e-3)
    assert values["sdr_bass"] == pytest.approx(np.mean(by_hand[1::4]), abs=1e-3)
    # Half the noise is 6 dB more.
    assert values["degradation"] == pytest.approx(values["reference_sdr"] - values["sdr"])
    assert values["degradation"] == pytest.approx(6.02, abs=0.05)
    assert values["no_worse_share"] == 0.0
    assert values["mixture_sdr"] < 0 < values["sdr"]
    assert values["si_sdr_improvement"] > values["si_sdr"]
    assert values["worst_fidelity"] <= values["fidelity"]
    assert set(values) - {f"{name}_interval" for name in ("sdr", "degradation")} == {
        metric.name for metric in TASK.metrics
    }


def test_silence_has_no_decibels_and_the_mixture_fewer(corpus: Path) -> None:
    items = items_of(corpus)
    silent = [{"stems": np.zeros_like(true_stems(item))} for item in items]
    assert TASK.score(items, silent, answers(items))["sdr"] == pytest.approx(0.0, abs=1e-6)
    mixed = [{"stems": np.stack([item.audio] * 4)} for item in items]
    values = TASK.score(items, mixed, answers(items))
    assert values["sdr"] == pytest.approx(values["mixture_sdr"])
    assert values["sdr"] < -3.0
    assert values["si_sdr_improvement"] == pytest.approx(0.0, abs=1e-6)


def test_silent_stems_are_left_out(corpus: Path) -> None:
    truth = song(0)
    truth[3] = 0.0
    found = stems_of(STEMS, truth, truth * 0.9, truth, truth.sum(axis=0))
    assert [stem.name for stem in found] == list(STEMS[:3])
    values = task_separation([found, []], [[50.0] * 4, [60.0] * 4])
    assert values["sdr"] == pytest.approx(20.0, abs=1e-3)
    assert "sdr_vocals" not in values
    assert values["recordings"] == 2
    assert values["sdr_interval"] is None
    with pytest.raises(ValueError, match="every stem of every song is silent"):
        task_separation([[]], [[50.0]])
    with pytest.raises(ValueError, match="needs 4 stems"):
        stems_of(STEMS, truth, truth[:3], truth, truth.sum(axis=0))


def test_fidelity_is_held_against_a_thousandth_of_the_song() -> None:
    reference = song(0)
    assert fidelity_db(reference, reference) == [200.0] * 4
    quiet = reference.copy()
    quiet[3] *= 1e-6
    other = quiet.copy()
    other[3] = 0.0
    assert fidelity_db(quiet, other)[3] > 80.0
    assert fidelity_db(np.zeros_like(quiet), np.zeros_like(quiet)) == [200.0] * 4
    assert fidelity_db(quiet, other * np.float32(np.nan)) == [-200.0] * 4
    with pytest.raises(ValueError, match="stems of the shapes"):
        fidelity_db(reference, reference[:3])


# --- faults --------------------------------------------------------------------------------------


def test_exchanged_stems_and_channels_are_found(corpus: Path) -> None:
    items = items_of(corpus)
    references = answers(items)
    assert TASK.faults(references, references) == []
    assert TASK.faults(answers(items, 0.02), references) == []
    swapped = [{"stems": one["stems"][[1, 0, 2, 3]]} for one in references]
    (first, _) = TASK.faults(swapped, references)
    assert first == "recording 0: exchanged: drums as bass, bass as drums"
    mirrored = [{"stems": one["stems"][:, ::-1]} for one in references]
    (first, _) = TASK.faults(mirrored, references)
    assert first == "recording 0: exchanged: channel 0 as 1, channel 1 as 0"
    # Nothing else of what is exchanged need show: each answer is whole and finite.
    assert TASK.faults(swapped) == []


def test_other_faults_are_found(corpus: Path) -> None:
    references = answers(items_of(corpus))
    broken = [{"stems": one["stems"] * np.float32(np.nan)} for one in references]
    assert "NaN" in TASK.faults(broken, references)[0]
    short = [{"stems": one["stems"][..., :-1]} for one in references]
    assert "not (4, 2, 22050)" in TASK.faults(short, references)[0]
    silence = np.zeros((4, 2, 10), np.float32)
    assert TASK.faults([{"stems": silence}], [{"stems": silence}]) == []
    assert exchanged(song(0), song(0)[[3, 0, 1, 2]]) == [1, 2, 3, 0]


def test_a_hard_input_is_held_against_the_reference() -> None:
    item = Item.from_audio("hard", song(0).sum(axis=0), RATE)
    reference = {"stems": song(0)}
    assert TASK.errors(item, reference, reference) == {"errors": 0.0, "reference": 0.0}
    assert TASK.errors(item, {"stems": song(1)}, reference)["errors"] == 1.0
    nothing = {"stems": song(0) * np.float32(np.nan)}
    assert TASK.errors(item, nothing, reference)["errors"] == 1.0


# --- what goes in --------------------------------------------------------------------------------


def test_the_middle_of_a_song_is_heard_and_its_stems_there(corpus: Path) -> None:
    test_set = load(corpus).with_channels(2).sets["stems"]
    cut = middles(test_set, 0.1)
    (item, _) = cut.items(RATE)
    assert item.facts["offset"] == pytest.approx(0.2)
    assert item.audio.shape == (2, RATE // 10)
    located = item.facts["stems"]
    paths = {name: str(corpus / file) for name, file in located.items()}
    item = Item(item.id, item.inputs, item.seconds, RATE, {**item.facts, "stems": paths})
    np.testing.assert_allclose(true_stems(item).sum(axis=0), item.audio, atol=2e-4)
    assert [len(TASK.recordings(test_set, RATE, profile)) for profile in (QUICK, FULL)] == [1, 2]


def test_music_calibrates_what_music_is_judged_by() -> None:
    from compat.build.calibration import choose
    from compat.models.htdemucs import HTDemucsModel
    from compat.models.htdemucs_settings import Settings

    recordings, said = choose(HTDemucsModel(Settings()), load().with_channels(2))
    assert said.endswith("of music-train")
    assert {item.audio.shape[0] for item in recordings} == {2}


def test_results_keep_no_sound_and_no_path(corpus: Path) -> None:
    items = items_of(corpus)
    (answer, _) = answers(items)
    row = TASK.row("stems", items[0], answer, answer)
    assert row["truth"] == {}
    assert row["prediction"]["stems"].keys() == {"shape", "sha256"}
    assert str(corpus) not in json.dumps(row)
    assert not TASK.rescorable


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"stems": {"drums": "0-drums.flac"}}, "no stem called bass, other, vocals"),
        ({"stems": "0-drums.flac"}, "stems must name files"),
        ({"stems": dict.fromkeys(STEMS, "../outside.flac")}, "lies outside the corpus"),
        ({"stems": dict.fromkeys(STEMS, "gone.flac")}, "is missing"),
        ({"stems": dict.fromkeys(STEMS, "short.flac")}, "its mixture 0.flac 0.5 s"),
    ],
)
def test_broken_stems_are_refused(corpus: Path, damage: dict[str, Any], message: str) -> None:
    path = corpus / "manifest.jsonl"
    line, *_ = path.read_text(encoding="utf-8").splitlines()
    path.write_text(json.dumps({**json.loads(line), **damage}), encoding="utf-8")
    soundfile.write(corpus / "short.flac", np.zeros((100, 2)), RATE)
    with pytest.raises(CorpusError, match=message):
        true_stems(items_of(corpus)[0])


def test_recordings_of_two_channels_are_joined() -> None:
    parts = [Item.from_audio(str(n), np.full((2, 30), n, np.float32), RATE) for n in range(5)]
    first, second = filled(parts, 50, 2)
    assert first.audio.shape == second.audio.shape == (2, 50)
    np.testing.assert_array_equal(second.audio[0], [2] * 30 + [3] * 20)
