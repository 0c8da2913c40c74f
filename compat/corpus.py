"""Corpora: folders of audio, and what is known of it.

A test set is a folder in one of two forms, and a corpus is one such folder or a folder of them:

- with a ``manifest.jsonl`` whose lines have ``audio_filepath`` (relative to the manifest),
  ``duration`` in seconds, and the truth: ``text``, or ``rttm_filepath`` (who spoke when) with an
  optional ``uem_filepath`` (which part is scored). These are the names that NVIDIA's NeMo uses.
  Beside it ``trials.txt`` may pair recordings as VoxCeleb does: ``1 a.flac b.flac`` for one
  speaker, ``0 a.flac c.flac`` for two;
- without a manifest, audio files and RTTM files (and UEM files) anywhere below it, matched by
  name, as AMI and VoxConverse are laid out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DEFAULT = FIXTURES / "corpus"
MANIFEST = "manifest.jsonl"
TRIALS = "trials.txt"
TRUTHS = ("segments", "uem", "speaker", "trials")
"""Facts of an item that predictions are scored against, beside its text."""


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

    @property
    def truth(self) -> dict[str, Any]:
        """What predictions of this item are scored against, as JSON."""
        known = {key: self.facts[key] for key in TRUTHS if key in self.facts}
        return {"text": self.text, **known} if self.text else known

    @classmethod
    def without_audio(cls, identifier: str, truth: Mapping[str, Any], seconds: float) -> Item:
        """Return an item that can be scored but not heard."""
        rate = 16_000
        silence = np.broadcast_to(np.float32(0), (round(seconds * rate),))
        return cls(identifier, silence, rate, truth.get("text", ""), truth)


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


Truth = Literal["text", "segments", "trials"]
"""What a test set can hold of each recording: its words, who spoke when, pairs of speakers."""

Segment = tuple[float, float, str]
"""Start and end in seconds, and who speaks."""


@dataclass(frozen=True)
class TestSet:
    """One folder of recordings: the audio is read when it is asked for."""

    __test__ = False  # Not a test class, whatever pytest makes of its name.

    name: str
    folder: Path
    lines: tuple[Mapping[str, Any], ...]
    """Per recording the manifest's fields, with ``segments`` as lists [start, end, speaker]."""
    trials: tuple[tuple[str, str, bool], ...] = ()
    """Ids of two recordings, and whether one person speaks in both."""

    @property
    def truths(self) -> frozenset[Truth]:
        """What is known of every recording of the set."""
        found: set[Truth] = {"trials"} if self.trials else set()
        if all(line.get("text") for line in self.lines):
            found.add("text")
        if all(line.get("segments") is not None for line in self.lines):
            found.add("segments")
        return frozenset(found)

    def identifier(self, index: int) -> str:
        """Return the id of a recording."""
        return str(self.lines[index].get("id") or f"{self.name}-{index:04d}")

    def item(self, index: int, rate: int) -> Item:
        """Read one recording at a sampling rate in hertz.

        ``facts`` are the manifest's fields, and ``trials``: a list of [id of the other recording,
        whether it is the same speaker] for the trials in which this one is named first.
        """
        line = self.lines[index]
        identifier = self.identifier(index)
        pairs = [[other, same] for one, other, same in self.trials if one == identifier]
        facts = {**line, **({"trials": pairs} if pairs else {})}
        samples = read_audio(self.folder / line["audio_filepath"], rate)
        return Item(identifier, samples, rate, line.get("text", ""), facts)

    def items(self, rate: int, limit: int | None = None) -> list[Item]:
        """Read recordings, spread evenly over the set if ``limit`` is below its length."""
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
        """Hex digits that identify every recording and what is said of it."""
        from compat.artifacts import digest, file_digest

        return digest(
            {
                name: [
                    [
                        [dict(line), file_digest(test_set.folder / line["audio_filepath"])]
                        for line in test_set.lines
                    ],
                    test_set.trials,
                ]
                for name, test_set in self.sets.items()
            }
        )

    def choose(self, names: Sequence[str], truth: Truth | None = None) -> dict[str, TestSet]:
        """Return the sets called ``names``, or all sets where none is called so.

        Only sets with the wanted truth count; there may be none.
        """
        fitting = {n: s for n, s in self.sets.items() if truth is None or truth in s.truths}
        return {n: fitting[n] for n in names if n in fitting} or fitting

    @property
    def speech(self) -> TestSet:
        """A set of short utterances, where any speech will do and no truth is needed."""
        return next(iter((self.choose(("clean",), "text") or self.sets).values()))


def load(path: Path = DEFAULT) -> Corpus:
    """Read the manifests of a corpus and check that every file they name is there.

    Raises:
        CorpusError: no manifest and no RTTM, an empty or malformed one, or missing audio.
    """
    folders = [path] if _is_test_set(path) else []
    if not folders and path.is_dir():
        folders = [folder for folder in sorted(path.iterdir()) if _is_test_set(folder)]
    if not folders:
        raise CorpusError(
            f"no manifest.jsonl in {path} or its subfolders. A corpus is a folder of audio files "
            'with a manifest: {"audio_filepath": "a.flac", "duration": 2.5, "text": "…"} a line, '
            "or with RTTM files that are named like the recordings."
        )
    return Corpus(path, {folder.name: _read_test_set(folder) for folder in folders})


def _is_test_set(folder: Path) -> bool:
    if (folder / MANIFEST).is_file():
        return True
    # Folders of test sets are told from folders in AMI's layout by the manifests below.
    return folder.is_dir() and not any(folder.glob(f"*/{MANIFEST}")) and _holds(folder, "*.rttm")


def _holds(folder: Path, pattern: str) -> bool:
    return next(folder.rglob(pattern), None) is not None


def _read_test_set(folder: Path) -> TestSet:
    if (folder / MANIFEST).is_file():
        return _read_manifest(folder / MANIFEST)
    return _read_rttm_folder(folder)


def _read_manifest(path: Path) -> TestSet:
    lines: list[Mapping[str, Any]] = []
    for number, text in enumerate(_read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        try:
            line = json.loads(text)
            name, duration = line["audio_filepath"], float(line["duration"])
            if not isinstance(line.get("text", ""), str) or not isinstance(name, str):
                raise ValueError("audio_filepath and text must be strings")
            if not 0 < duration < float("inf"):
                raise ValueError("duration must be positive")
            if not {"text", "rttm_filepath", "segments"} & set(line):
                raise KeyError("text")
            audio = _inside(path.parent, name, where)
            line = dict(line)
            if "segments" in line:
                line["segments"] = [_inline_segment(found, line) for found in line["segments"]]
        except (ValueError, KeyError, TypeError) as error:
            missing = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise CorpusError(f"{where}: {missing}. Correct or remove the line.") from error
        if not audio.is_file():
            raise CorpusError(f"{where}: audio file {audio} is missing: restore it.")
        for field_name, key, read in (
            ("rttm_filepath", "segments", read_rttm),
            ("uem_filepath", "uem", read_uem),
        ):
            if line.get(field_name):
                found = read(_inside(path.parent, str(line[field_name]), where))
                line[key] = [list(part) for part in _of_recording(found, audio.stem)]
        lines.append(line)
    if not lines:
        raise CorpusError(f"{path} is empty: a test set needs at least one utterance.")
    test_set = TestSet(path.parent.name, path.parent, tuple(lines))
    trials = path.parent / TRIALS
    return (
        replace(test_set, trials=_read_trials(trials, test_set)) if trials.is_file() else test_set
    )


def _inside(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CorpusError(f"{where}: {name} lies outside the corpus: move it inside.")
    return path


def _inline_segment(found: Mapping[str, Any], line: Mapping[str, Any]) -> list[Any]:
    speaker = str(found.get("speaker") or line.get("speaker") or "speaker")
    return [float(found["start"]), float(found["end"]), speaker]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read {path}: {error}. Save it as UTF-8 text.") from error


def _read_rttm_folder(folder: Path) -> TestSet:
    """Match RTTM and UEM files below a folder with audio files, by the recording's name."""
    import soundfile

    audio = {
        path.stem: path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3")
    }
    segments: dict[str, list[Segment]] = {}
    scored: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.rglob("*.rttm")):
        segments |= read_rttm(path)
    for path in sorted(folder.rglob("*.uem")):
        scored |= read_uem(path)
    lines = []
    for name, found in sorted(segments.items()):
        # AMI's recordings are called after the microphone too: ES2004a.Mix-Headset.wav.
        recording = audio.get(name) or next(
            (file for stem, file in audio.items() if stem.split(".")[0] == name), None
        )
        if recording is None:
            raise CorpusError(f"{folder}: RTTM speaks of {name}, of which there is no audio file.")
        line: dict[str, Any] = {
            "id": name,
            "audio_filepath": recording.relative_to(folder).as_posix(),
            "duration": soundfile.info(recording).duration,
            "segments": [list(segment) for segment in found],
        }
        if name in scored:
            line["uem"] = [list(part) for part in scored[name]]
        lines.append(line)
    if not lines:
        raise CorpusError(f"the RTTM files in {folder} are empty: they need SPEAKER lines.")
    return TestSet(folder.name, folder, tuple(lines))


def read_rttm(path: Path) -> dict[str, list[Segment]]:
    """Read a Rich Transcription Time Marked file: segments by recording.

    Raises:
        CorpusError: the file cannot be read, or a line is no SPEAKER line.
    """
    found: dict[str, list[Segment]] = {}
    for number, text in enumerate(_read_text(path).splitlines(), 1):
        parts = text.split()
        if not parts or parts[0].startswith(";;") or parts[0] in ("SPKR-INFO", "NON-SPEECH"):
            continue
        try:
            if parts[0] != "SPEAKER":
                raise ValueError("it does not begin with SPEAKER")
            start, duration = float(parts[3]), float(parts[4])
            if not (start >= 0 and duration >= 0):
                raise ValueError("negative times")
            found.setdefault(parts[1], []).append((start, start + duration, parts[7]))
        except (ValueError, IndexError) as error:
            raise CorpusError(
                f"{path}:{number}: no RTTM line ({error}). It should read: SPEAKER name 1 start "
                "duration <NA> <NA> speaker <NA> <NA>"
            ) from error
    return found


def read_uem(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read an un-partitioned evaluation map: the scored parts of each recording, in seconds.

    Raises:
        CorpusError: the file cannot be read, or a line is malformed.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for number, text in enumerate(_read_text(path).splitlines(), 1):
        parts = text.split()
        if not parts or parts[0].startswith(";;"):
            continue
        try:
            start, end = float(parts[2]), float(parts[3])
            if not 0 <= start <= end:
                raise ValueError("times out of order")
            found.setdefault(parts[0], []).append((start, end))
        except (ValueError, IndexError) as error:
            raise CorpusError(
                f"{path}:{number}: no UEM line ({error}). It should read: name 1 start end"
            ) from error
    return found


def _of_recording(found: Mapping[str, list[Any]], name: str) -> list[Any]:
    """Return what a file says of a recording; of a file about one recording, all of it."""
    return found.get(name) or (next(iter(found.values())) if len(found) == 1 else [])


def _read_trials(path: Path, test_set: TestSet) -> tuple[tuple[str, str, bool], ...]:
    names = {
        str(line["audio_filepath"]): test_set.identifier(index)
        for index, line in enumerate(test_set.lines)
    }
    trials = []
    for number, text in enumerate(_read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        try:
            same, one, other = text.split()
            if same not in ("0", "1"):
                raise ValueError(f"{same} instead of 0 or 1")
            trials.append((names[one], names[other], same == "1"))
        except (ValueError, KeyError) as error:
            raise CorpusError(
                f"{path}:{number}: {error}. A trial reads: 1 a.flac b.flac (0 for two speakers), "
                "with files of the manifest."
            ) from error
    return tuple(trials)
