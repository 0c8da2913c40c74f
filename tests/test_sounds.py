"""Sets of music and sounds: lengths, checksums, stereo, sums of stems, and what can be told."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from compat.contract.places import FIXTURES
from compat.inputs import corpus as corpora
from compat.inputs.corpus import SOUNDS, TestSet, load
from compat.inputs.layouts.checking import audio_files

SHAPES = {
    "music": (12, 48_000, 2, "tags"),
    "music-train": (48, 24_000, 1, "tags"),
    "notes": (8, 22_050, 1, "notes"),
    "stems": (3, 44_100, 2, "stems"),
    "sounds": (40, 48_000, 1, "caption"),
}
"""Recordings, hertz, channels and the fact of each set."""
MEGABYTES = 11


@pytest.fixture(scope="module")
def sets() -> dict[str, TestSet]:
    return dict(load(SOUNDS).sets)


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of fixtures/build, where they import one another by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FIXTURES / "build"))
        yield __import__


def integers(path: Path) -> np.ndarray:
    samples, _ = soundfile.read(path, dtype="int16")
    return samples.astype(np.int64)


def test_every_file_is_listed_with_its_checksum() -> None:
    listed = dict(
        reversed(line.split("  ", 1))
        for line in (SOUNDS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    files = [path for path in SOUNDS.rglob("*") if path.is_file()]
    assert listed == {
        path.relative_to(SOUNDS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("README.md", "SHA256SUMS")
    }
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 1e6


def test_every_recording_has_its_length_rate_and_channels(sets: dict[str, TestSet]) -> None:
    assert list(sets) == sorted(SHAPES)
    for name, (count, rate, channels, fact) in SHAPES.items():
        found = sets[name]
        assert len(found.lines) == count and found.knows(fact)
        assert json.loads(json.dumps(found.lines)) == list(found.lines)
        for line in found.lines:
            for file in audio_files(line):
                facts = soundfile.info(found.folder / file)
                assert (facts.samplerate, facts.channels) == (rate, channels)
                assert facts.frames == round(line["duration"] * rate)
                assert facts.subtype == "PCM_16"


def test_only_tasks_that_name_them_get_music_and_sounds() -> None:
    corpus = load()
    assert set(SHAPES) <= set(corpus.special) and not set(SHAPES) & set(corpus.sets)
    assert list(corpus.choose(["music"], "tags")) == ["music"]


def test_stems_add_up_to_the_mixture(sets: dict[str, TestSet]) -> None:
    for line in sets["stems"].lines:
        assert list(line["stems"]) == ["drums", "bass", "other", "vocals"]
        mixture, *stems = (integers(sets["stems"].folder / file) for file in audio_files(line))
        assert (mixture == sum(stems)).all()
        # All of them matter, and none is another once more.
        levels = [10 * np.log10(np.square(stem).mean()) for stem in stems]
        assert max(levels) - min(levels) < 12
        mono = [stem.sum(axis=1) for stem in stems]
        assert np.abs(np.triu(np.corrcoef(mono), 1)).max() < 0.2


def test_channels_of_stereo_differ(sets: dict[str, TestSet]) -> None:
    """Swapped channels are as far from the true ones as the signal is large."""
    for name in ("music", "stems"):
        for line in sets[name].lines:
            left, right = integers(sets[name].folder / line["audio_filepath"]).T
            assert min(np.square(left).mean(), np.square(right).mean()) > 100
            error = np.square(left - right).mean() / np.square(left + right).mean()
            assert 10 * np.log10(error) > -10


def test_tags_are_balanced(sets: dict[str, TestSet]) -> None:
    for name in ("music", "music-train"):
        counted = Counter(tag for line in sets[name].lines for tag in line["tags"])
        count = len(sets[name].lines)
        leads = {"guitar", "bells", "flute", "organ"}
        assert {counted.pop(lead) for lead in leads} == {count // 4}
        assert set(counted.values()) == {count // 2} and len(counted) == 8
    assert not {line["seed"] for line in sets["music"].lines} & {
        line["seed"] for line in sets["music-train"].lines
    }


def spectra(found: TestSet, index: int) -> np.ndarray:
    """Mean, deviation and change of 64 log bands of a recording."""
    samples = found.item(index, 24_000).audio
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2048)[::512] * np.hanning(2048)
    power = np.abs(np.fft.rfft(frames)) ** 2 / power_of(samples)
    edges = np.geomspace(2, 1024, 65).astype(int)
    bands = [power[:, a : max(b, a + 1)].mean(1) for a, b in pairwise(edges)]
    logs = np.log(np.stack(bands, 1) + 1e-4)
    return np.concatenate([logs.mean(0), logs.std(0), np.abs(np.diff(logs, axis=0)).mean(0)])


def power_of(samples: np.ndarray) -> float:
    return float(np.square(samples).mean())


def normal(features: np.ndarray, of: np.ndarray) -> np.ndarray:
    return (features - of.mean(0)) / of.std(0)


def test_tags_can_be_told_by_timbre(sets: dict[str, TestSet]) -> None:
    """A ridge regression on spectra, trained on one set, decides the tags of the other."""
    train, test = (
        np.stack([spectra(sets[name], index) for index in range(len(sets[name].lines))])
        for name in ("music-train", "music")
    )
    tags = sorted({tag for line in sets["music"].lines for tag in line["tags"]})
    known, true = (
        np.array([[2.0 * (tag in line["tags"]) - 1 for tag in tags] for line in sets[name].lines])
        for name in ("music-train", "music")
    )
    one, other = normal(train, train), normal(test, train)
    weights = np.linalg.solve(one @ one.T + 30 * np.eye(len(one)), known - known.mean(0))
    decided = other @ one.T @ weights + known.mean(0) > 0
    assert np.mean(decided == (true > 0)) > 0.9
    assert np.mean((decided == (true > 0)).mean(0) > 0.8) > 0.9, "most tags, each by itself"


def test_sounds_can_be_told_by_their_spectra(sets: dict[str, TestSet]) -> None:
    found = sets["sounds"]
    labels = [line["label"] for line in found.lines]
    assert set(Counter(labels).values()) == {4} and len(set(labels)) == 10
    assert len({line["caption"] for line in found.lines}) == len(found.lines)
    features = np.stack([spectra(found, index) for index in range(len(labels))])
    features = normal(features, features)
    distance = np.square(features[:, None] - features).sum(-1) + 1e9 * np.eye(len(labels))
    near = [labels[index] for index in distance.argmin(1)]
    assert np.mean([one == other for one, other in zip(near, labels, strict=True)]) > 0.9
    peaks = {
        loud: [
            np.abs(found.item(index, 48_000).audio).max()
            for index, line in enumerate(found.lines)
            if line["loud"] is loud
        ]
        for loud in (False, True)
    }
    assert min(peaks[True]) > 2 * max(peaks[False])


def test_regeneration_gives_the_same_samples(
    build: Callable[[str], ModuleType], sets: dict[str, TestSet]
) -> None:
    """To the last bit but one: processors and versions of libraries round otherwise."""
    music = build("make_music")
    for name in ("music", "music-train"):
        song = next(music.draw_songs(name, len(sets[name].lines)))
        line = sets[name].lines[0]
        assert (song.tags, song.seed) == (line["tags"], line["seed"])
    _, seconds, rate, channels = music.TAGGED["music-train"]
    samples = music.mixed(song, seconds, rate, channels)
    kept = integers(sets["music-train"].folder / line["audio_filepath"])
    assert np.abs(samples - kept).max() <= 1
    facts, samples = next(build("make_sounds").sounds())
    found = sets["sounds"]
    assert facts == found.lines[0]
    assert np.abs(samples - integers(found.folder / facts["audio_filepath"])).max() <= 1


# Checks of facts, in a corpus of one's own too ---------------------------------------------------


def test_the_fingerprint_covers_stems(tmp_path: Path) -> None:
    for name in ("mixture", "drums"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(1600), 16_000)
    line = {"audio_filepath": "mixture.wav", "stems": {"drums": "drums.wav"}}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line), encoding="utf-8")
    before = corpora.load(tmp_path).fingerprint
    soundfile.write(tmp_path / "drums.wav", np.full(1600, 0.5), 16_000)
    assert corpora.load(tmp_path).fingerprint != before
