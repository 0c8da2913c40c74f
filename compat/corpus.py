"""Corpora: folders of audio with JSON-lines manifests.

A test set is a folder with a ``manifest.jsonl`` whose lines have ``audio_filepath`` (relative to
the manifest), ``duration`` in seconds and ``text``; other fields are kept. A corpus is one such
folder, or a folder of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DEFAULT = FIXTURES / "corpus"


class CorpusError(Exception):
    """A corpus cannot be used; the message names the file, the line and the remedy."""


@dataclass(frozen=True)
class Item:
    """One input: mono audio and what is known of it."""

    id: str
    samples: np.ndarray = field(compare=False, repr=False)
    """float32 (samples,), between -1 and 1."""
    rate: int = 16_000
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read_audio(path: Path, rate: int) -> np.ndarray:
    """Read an audio file as mono float32 (samples,) at a sampling rate in hertz.

    Raises:
        CorpusError: the file is missing, is no audio, or holds no samples or no finite ones.
    """
    import soundfile

    if not path.is_file():
        raise CorpusError(f"audio file {path} is missing: restore it, or correct the manifest.")
    try:
        samples, found = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise CorpusError(
            f"cannot read audio file {path}: {error} Convert it to WAV or FLAC, or restore it."
        ) from error
    mono = np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))
    if not len(mono) or not np.isfinite(mono).all():
        raise CorpusError(f"audio file {path} holds no usable samples: restore it.")
    if found != rate:
        import soxr

        mono = soxr.resample(mono, found, rate).astype(np.float32)
    return mono


@dataclass(frozen=True)
class TestSet:
    """One manifest: the audio is read when it is asked for."""

    __test__ = False  # Not a test class, whatever pytest makes of its name.

    name: str
    folder: Path
    lines: tuple[Mapping[str, Any], ...]

    def item(self, index: int, rate: int) -> Item:
        """Read one utterance at a sampling rate."""
        line = self.lines[index]
        path = self.folder / line["audio_filepath"]
        identifier = str(line.get("id") or f"{self.name}-{index:04d}")
        return Item(identifier, read_audio(path, rate), rate, line["text"], line)

    def items(self, rate: int, limit: int | None = None) -> list[Item]:
        """Read utterances, spread evenly over the set if ``limit`` is below its length."""
        count = len(self.lines)
        wanted = count if limit is None else min(limit, count)
        chosen = [round(i * count / wanted) for i in range(wanted)]
        return [self.item(index, rate) for index in chosen]


@dataclass(frozen=True)
class Corpus:
    """Test sets by name."""

    path: Path
    sets: Mapping[str, TestSet]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digits that identify manifests and audio bytes."""
        from compat.artifacts import digest, file_digest

        return digest(
            {
                f"{name}/{line['audio_filepath']}": [
                    line["text"],
                    file_digest(test_set.folder / line["audio_filepath"]),
                ]
                for name, test_set in self.sets.items()
                for line in test_set.lines
            }
        )

    def choose(self, names: Sequence[str]) -> dict[str, TestSet]:
        """Return the sets called ``names``, or all sets where none is called so."""
        return {n: self.sets[n] for n in names if n in self.sets} or dict(self.sets)


def load(path: Path = DEFAULT) -> Corpus:
    """Read the manifests of a corpus and check that every file they name is there.

    Raises:
        CorpusError: no manifest, an empty or malformed one, or missing audio.
    """
    if (path / "manifest.jsonl").is_file():
        manifests = [path / "manifest.jsonl"]
    else:
        manifests = sorted(path.glob("*/manifest.jsonl")) if path.is_dir() else []
    if not manifests:
        raise CorpusError(
            f"no manifest.jsonl in {path} or its subfolders. A corpus is a folder of audio files "
            'with a manifest: {"audio_filepath": "a.flac", "duration": 2.5, "text": "…"} a line.'
        )
    return Corpus(path, {found.parent.name: _read_manifest(found) for found in manifests})


def _read_manifest(path: Path) -> TestSet:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read {path}: {error}. Save it as UTF-8 text.") from error
    lines: list[Mapping[str, Any]] = []
    for number, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            name, duration = line["audio_filepath"], float(line["duration"])
            if not isinstance(line["text"], str) or not isinstance(name, str) or duration <= 0:
                raise ValueError("audio_filepath and text must be strings, duration positive")
        except (ValueError, KeyError, TypeError) as error:
            missing = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise CorpusError(f"{path}:{number}: {missing}. Correct or remove the line.") from error
        audio = path.parent / name
        if not audio.resolve().is_relative_to(path.parent.resolve()):
            raise CorpusError(f"{path}:{number}: {name} lies outside the corpus: move it inside.")
        if not audio.is_file():
            raise CorpusError(f"{path}:{number}: audio file {audio} is missing: restore it.")
        lines.append(line)
    if not lines:
        raise CorpusError(f"{path} is empty: a test set needs at least one utterance.")
    return TestSet(path.parent.name, path.parent, tuple(lines))
