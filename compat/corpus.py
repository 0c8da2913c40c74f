"""Corpora: folders of audio, and what is known of it.

A test set is a folder in one of two forms, and a corpus is one such folder or a folder of them:

- with a ``manifest.jsonl`` whose lines have ``audio_filepath`` (relative to the manifest),
  ``duration`` in seconds, and the truth: ``text``, or ``rttm_filepath`` (who spoke when) with an
  optional ``uem_filepath`` (which part is scored). These are the names that NVIDIA's NeMo uses.
  Beside it ``trials.txt`` may pair recordings as VoxCeleb does: ``1 a.flac b.flac`` for one
  speaker, ``0 a.flac c.flac`` for two;
- without a manifest, audio files and RTTM files (and UEM files) anywhere below it, matched by
  name, as AMI and VoxConverse are laid out.

docs/corpora.md shows each form.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DEFAULT = FIXTURES / "corpus"
MANIFEST = "manifest.jsonl"
TRIALS = "trials.txt"
TRUTHS = ("segments", "uem", "speaker", "trials")
"""Facts of an item that predictions are scored against, beside its text."""

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".aif", ".aiff")
"""Endings of audio files that are looked for beside RTTM files."""
LONGEST = 6 * 3600.0
"""Seconds of the longest recording: what is read is held in memory."""
TEXT_BYTES = 256 << 20
"""Bytes of the largest text file: a manifest of a million recordings."""
DEPTH = 6
"""Levels of folders that are searched for RTTM files and audio."""
EXCERPT = 30.0
"""Seconds above which a recording is no utterance, and gives excerpts instead."""

_ID = re.compile(r"[\w@%+=,~-][\w.@%+=,~-]{0,149}")
"""Ids become names of files."""
_OTHER_RTTM = (
    *("SEGMENT", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU", "CB", "A/P"),
    *("SPKR-INFO", "NO_RT_METADATA"),
)
"""Types of RTTM lines that say nothing of who spoke when (NIST, RT-09 evaluation plan)."""


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


def read_audio(
    path: Path, rate: int, offset: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """Read an audio file as mono float32 (samples,) at a sampling rate in hertz.

    Args:
        path: a file in any format that libsndfile reads; channels are averaged.
        rate: sampling rate of the result, in hertz.
        offset: where to begin, in seconds.
        seconds: how much to read; None for all the rest.

    Raises:
        CorpusError: the file is missing, is no audio, is longer than :data:`LONGEST`, or holds no
            samples or no finite ones.
    """
    import soundfile

    if not path.is_file():
        raise CorpusError(f"audio file {path} is missing: restore it, or correct the manifest.")
    try:
        with soundfile.SoundFile(path) as file:
            found = int(file.samplerate)
            _not_too_long(path, file.frames / found)
            first = min(round(offset * found), file.frames)
            file.seek(first)
            wanted = file.frames - first
            if seconds is not None:
                wanted = min(wanted, round(seconds * found))
            # By blocks: a meeting has many channels, and their mean is all that is kept.
            blocks = file.blocks(1 << 20, frames=wanted, dtype="float32", always_2d=True)
            means = [block.mean(axis=1, dtype=np.float32) for block in blocks] if wanted else []
    except (soundfile.LibsndfileError, RuntimeError, MemoryError) as error:
        raise CorpusError(
            f"cannot read audio file {path}: {error} Convert it to WAV or FLAC, or restore it."
        ) from error
    mono = np.concatenate(means) if means else np.zeros(0, np.float32)
    if not len(mono) or not np.isfinite(mono).all():
        raise CorpusError(f"audio file {path} holds no usable samples: restore it.")
    if found != rate:
        import soxr

        mono = soxr.resample(mono, found, rate).astype(np.float32)
    return mono


def _not_too_long(path: Path, seconds: float) -> None:
    if seconds > LONGEST:
        raise CorpusError(
            f"audio file {path} is {seconds / 3600:.1f} hours long: cut it into recordings of "
            f"{LONGEST / 3600:.0f} hours at most."
        )


def _audio_seconds(path: Path) -> float:
    """Return the duration that an audio file's header gives."""
    import soundfile

    try:
        seconds = float(soundfile.info(path).duration)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise CorpusError(
            f"cannot read audio file {path}: {error} Convert it to WAV or FLAC, or restore it."
        ) from error
    _not_too_long(path, seconds)
    return seconds


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
        texts = [line.get("text") for line in self.lines]
        if any(texts) and None not in texts:  # Silence is said to have no words.
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
        pairs = self._pairs.get(identifier)
        facts = {**line, **({"trials": pairs} if pairs else {})}
        part = (line["offset"], line["duration"]) if "offset" in line else ()
        samples = read_audio(self.folder / line["audio_filepath"], rate, *part)
        return Item(identifier, samples, rate, line.get("text", ""), facts)

    @cached_property
    def _pairs(self) -> Mapping[str, list[list[Any]]]:
        found: dict[str, list[list[Any]]] = {}
        for one, other, same in self.trials:
            found.setdefault(one, []).append([other, same])
        return found

    def items(self, rate: int, limit: int | None = None) -> list[Item]:
        """Read recordings, spread evenly over the set if ``limit`` is below its length."""
        return [self.item(index, rate) for index in self.spread(limit)]

    def spread(self, limit: int | None = None) -> list[int]:
        """Return the indices of the recordings that ``items`` reads."""
        count = len(self.lines)
        wanted = count if limit is None else min(limit, count)
        return [round(i * count / wanted) for i in range(wanted)]

    def excerpts(self, seconds: float = 8.0, each: int = 8) -> TestSet:
        """Return a set of short excerpts, up to ``each`` of a recording, that begin with speech.

        Nothing is said of their words.
        """
        lines = []
        for index, line in enumerate(self.lines):
            length = float(line["duration"])
            speech = [start for start, end, _ in line.get("segments") or () if end - start >= 1.0]
            starts = sorted(set(speech)) or list(np.arange(0.0, length, seconds))
            for start in starts[:: max(1, len(starts) // each)][:each]:
                lines.append(
                    {
                        "id": f"{self.identifier(index)}-{start:.2f}",
                        "audio_filepath": line["audio_filepath"],
                        "offset": line.get("offset", 0.0) + start,
                        "duration": min(seconds, length - start),
                    }
                )
        return TestSet(self.name, self.folder, tuple(lines))


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
        """A set of short utterances, where any speech will do and no truth is needed.

        Long recordings give excerpts: nobody wants a meeting of an hour as an utterance.
        """
        found = next(iter((self.choose(("clean",), "text") or self.sets).values()))
        long = any(line["duration"] > EXCERPT for line in found.lines)
        return found.excerpts() if long else found


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
    sets = {folder.name: _read_test_set(folder) for folder in folders}
    owners: dict[str, Path] = {}
    for test_set in sets.values():
        for index in range(len(test_set.lines)):
            identifier = test_set.identifier(index)
            if not _ID.fullmatch(identifier):
                raise CorpusError(
                    f"{test_set.folder}: a recording cannot be called {identifier[:60]!r}: ids "
                    "are letters, digits and - _ . of at most 150 characters."
                )
            if identifier in owners:
                raise CorpusError(
                    f"two recordings are called {identifier}, in {owners[identifier]} and "
                    f"{test_set.folder}: give one of them another id."
                )
            owners[identifier] = test_set.folder
    return Corpus(path, sets)


def _is_test_set(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if (folder / MANIFEST).is_file():
        return True
    # Folders of test sets are told from folders in AMI's layout by the manifests below.
    return not any(folder.glob(f"*/{MANIFEST}")) and any(_files(folder, (".rttm",)))


def _files(folder: Path, endings: Sequence[str]) -> Iterator[Path]:
    """Yield the files below a folder that end so, in order; hidden ones are left out."""
    for name, folders, files in os.walk(folder):
        inside = Path(name)
        deep = len(inside.relative_to(folder).parts) >= DEPTH
        folders[:] = [] if deep else sorted(one for one in folders if not one.startswith("."))
        for file in sorted(files):
            path = inside / file
            if path.suffix.lower() in endings and not file.startswith("."):
                yield path


def _read_test_set(folder: Path) -> TestSet:
    if (folder / MANIFEST).is_file():
        return _read_manifest(folder / MANIFEST)
    return _read_rttm_folder(folder)


def _read_manifest(path: Path) -> TestSet:
    trials = path.parent / TRIALS
    paired = trials.is_file()
    lines = [
        _manifest_line(path.parent, f"{path}:{number}", text, paired)
        for number, text in enumerate(_read_text(path).split("\n"), 1)
        if text.strip()
    ]
    if not lines:
        raise CorpusError(f"{path} is empty: a test set needs at least one utterance.")
    test_set = TestSet(path.parent.name, path.parent, tuple(lines))
    return replace(test_set, trials=_read_trials(trials, test_set)) if paired else test_set


def _manifest_line(folder: Path, where: str, text: str, paired: bool) -> dict[str, Any]:
    """Read and check one line; ``paired`` says whether trials are truth enough."""
    try:
        line = dict(json.loads(text))
        name = line["audio_filepath"]
        if line.get("text") == "-":  # NeMo's way to say that the words are not known.
            del line["text"]
        if not isinstance(line.get("text", ""), str) or not isinstance(name, str):
            raise ValueError("audio_filepath and text must be strings")
        if not paired and not {"text", "rttm_filepath", "segments"} & set(line):
            raise KeyError("text")
        audio = _inside(folder, name, where)
        if not audio.is_file():
            raise CorpusError(f"{where}: audio file {audio} is missing: restore it.")
        if line["duration"] is None:
            line["duration"] = _audio_seconds(audio) - float(line.get("offset") or 0.0)
        line["duration"] = float(line["duration"])
        if not 0 < line["duration"] < math.inf:
            raise ValueError("make the duration positive")
        if line.get("offset") is None:
            line.pop("offset", None)
        else:
            line["offset"] = float(line["offset"])
            if not 0 <= line["offset"] < math.inf:
                raise ValueError("offset must not be negative")
        if "segments" in line:
            line["segments"] = [_inline_segment(found, line) for found in line["segments"]]
        if "uem" in line:
            line["uem"] = [list(_span(start, end)) for start, end in line["uem"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CorpusError(f"{where}: {missing}. Correct or remove the line.") from error
    for key, file in (("segments", "rttm_filepath"), ("uem", "uem_filepath")):
        if line.get(file):
            named = _inside(folder, str(line[file]), where)
            if not named.is_file():
                raise CorpusError(f"{where}: {file} {named} is missing: restore it.")
            found: Mapping[str, list[Any]] = (read_rttm if key == "segments" else read_uem)(named)
            line[key] = [list(part) for part in _of_recording(found, audio.stem, named)]
    return _within(line, where)


def _within(line: dict[str, Any], where: str) -> dict[str, Any]:
    """Make the times of a line relative to its offset; refuse those of another recording."""
    first, length = line.get("offset", 0.0), line["duration"]
    last = first + length if "offset" in line else math.inf
    for key in ("segments", "uem"):
        if line.get(key) is None:
            continue
        parts = [
            [max(start, first) - first, min(end, last) - first, *rest]
            for start, end, *rest in line[key]
            if end > first and start < last
        ]
        beyond = [start for start, *_ in parts if start >= length]
        if beyond:
            raise CorpusError(
                f"{where}: {key} begin at {beyond[0]:g} s, and the recording ends at {length:g} s. "
                "Times are in seconds; is this the file of another recording?"
            )
        line[key] = parts
    return line


def _inside(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"{where}: {name[:60]!r} names no file ({error}).") from error
    if not inside:
        raise CorpusError(f"{where}: {name} lies outside the corpus: move it inside.")
    return path


def _inline_segment(found: Any, line: Mapping[str, Any]) -> list[Any]:
    if not isinstance(found, dict):
        raise ValueError("a segment is an object with start, end and speaker")
    speaker = str(found.get("speaker") or line.get("speaker") or "speaker")
    return [*_span(found["start"], found["end"]), speaker]


def _span(start: Any, end: Any) -> tuple[float, float]:
    """Return a start and an end in seconds; raise ``ValueError`` for what is no stretch of time."""
    begin, stop = float(start), float(end)
    if not 0 <= begin <= stop < math.inf:
        raise ValueError(f"{begin:g} to {stop:g} s is no stretch of time")
    return begin, stop


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > TEXT_BYTES:
            raise CorpusError(f"{path} is larger than {TEXT_BYTES >> 20} MiB: split the test set.")
        return path.read_text(encoding="utf-8-sig")  # Windows begins files with a mark.
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read {path}: {error}. Save it as UTF-8 text.") from error


def _read_rttm_folder(folder: Path) -> TestSet:
    """Match RTTM and UEM files below a folder with audio files, by the recording's name."""
    audio = list(_files(folder, AUDIO))
    segments, rttm = _gather(folder, ".rttm", read_rttm)
    scored, uem = _gather(folder, ".uem", read_uem)
    unknown = sorted(scored.keys() - segments.keys())
    if unknown:
        raise CorpusError(
            f"{uem[unknown[0]]} speaks of {unknown[0]}, of which there is no RTTM: add one (an "
            f"empty file {unknown[0]}.rttm if nobody speaks), or remove the line."
        )
    lines = []
    for name, found in sorted(segments.items()):
        recording = _recording(audio, name, rttm[name])
        _inside(folder, recording.relative_to(folder).as_posix(), str(rttm[name]))
        if scored and name not in scored:
            raise CorpusError(
                f"{folder}: there are UEM files, and none of them speaks of {name}. Add a line "
                f'to one: "{name} 1 0.000 {_audio_seconds(recording):.3f}" scores all of it.'
            )
        line: dict[str, Any] = {
            "id": name,
            "audio_filepath": recording.relative_to(folder).as_posix(),
            "duration": _audio_seconds(recording),
            "segments": [list(segment) for segment in found],
        }
        if scored:
            line["uem"] = [list(part) for part in scored[name]]
        lines.append(_within(line, str(rttm[name])))
    return TestSet(folder.name, folder, tuple(lines))


_Part = TypeVar("_Part")


def _gather(
    folder: Path, ending: str, read: Callable[[Path], dict[str, list[_Part]]]
) -> tuple[dict[str, list[_Part]], dict[str, Path]]:
    """Read every file with an ending; return what is said of each recording, and where.

    An RTTM file without a line says that nobody speaks in the recording of its name.
    """
    found: dict[str, list[_Part]] = {}
    origin: dict[str, Path] = {}
    for path in _files(folder, (ending,)):
        _inside(folder, path.relative_to(folder).as_posix(), str(folder))
        for name, parts in (read(path) or {path.stem: []}).items():
            if name in found:
                raise CorpusError(
                    f"{origin[name]} and {path} both speak of {name}: keep one of them."
                )
            found[name], origin[name] = parts, path
    return found, origin


def _recording(audio: Sequence[Path], name: str, file: Path) -> Path:
    """Return the audio file of a recording that a file speaks of.

    AMI's recordings are called after the microphone too (``ES2004a.Mix-Headset.wav``); of several
    the mix of the headsets is meant, on which diarization of AMI is published.
    """
    fitting = [path for path in audio if path.stem == name]
    if not fitting:
        fitting = [path for path in audio if path.stem.startswith(f"{name}.")]
        mixed = [path for path in fitting if path.stem == f"{name}.Mix-Headset"]
        fitting = mixed or fitting
    if not fitting:
        raise CorpusError(
            f"{file} speaks of {name}, of which there is no audio file: add {name}.wav (or "
            f"{', '.join(AUDIO[1:])}), or remove what is said of it."
        )
    if len(fitting) > 1:
        several = ", ".join(map(str, fitting[:3]))
        raise CorpusError(f"{file} speaks of {name}, which may be {several}: keep one of them.")
    return fitting[0]


def read_rttm(path: Path) -> dict[str, list[Segment]]:
    """Read a Rich Transcription Time Marked file: segments by recording.

    Lines of other types than SPEAKER, and comments (``;;``), are passed over.

    Raises:
        CorpusError: the file cannot be read, or a line is malformed.
    """
    found: dict[str, list[Segment]] = {}
    for number, text in enumerate(_read_text(path).split("\n"), 1):
        parts = text.split()
        if not parts or parts[0].startswith(";;") or parts[0] in _OTHER_RTTM:
            continue
        try:
            if parts[0] != "SPEAKER":
                raise ValueError("it does not begin with SPEAKER")
            start, duration = float(parts[3]), float(parts[4])
            segment = (*_span(start, start + duration), parts[7])
            found.setdefault(parts[1], []).append(segment)
        except (ValueError, IndexError) as error:
            raise CorpusError(
                f"{path}:{number}: no RTTM line ({error}). It should read: SPEAKER name 1 start "
                "duration <NA> <NA> speaker <NA> <NA>"
            ) from error
    return found


def read_uem(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read an un-partitioned evaluation map: the scored parts of each recording, in seconds.

    Raises:
        CorpusError: the file cannot be read, is empty, or a line is malformed.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for number, text in enumerate(_read_text(path).split("\n"), 1):
        parts = text.split()
        if not parts or parts[0].startswith(";;"):
            continue
        try:
            found.setdefault(parts[0], []).append(_span(parts[2], parts[3]))
        except (ValueError, IndexError) as error:
            raise CorpusError(
                f"{path}:{number}: no UEM line ({error}). It should read: name 1 start end"
            ) from error
    if not found:
        raise CorpusError(f"{path} is empty, so that nothing would be scored: remove or fill it.")
    return found


def _of_recording(found: Mapping[str, list[Any]], stem: str, file: Path) -> list[Any]:
    """Return what a file says of a recording; of a file about one recording, all of it."""
    for name in (stem, stem.split(".")[0]):
        if name in found:
            return found[name]
    if len(found) > 1:
        raise CorpusError(
            f"{file} speaks of {', '.join(sorted(found)[:3])} …, and not of {stem}: correct the "
            "names in it."
        )
    return next(iter(found.values()), [])


def _read_trials(path: Path, test_set: TestSet) -> tuple[tuple[str, str, bool], ...]:
    names = {
        str(line["audio_filepath"]): test_set.identifier(index)
        for index, line in enumerate(test_set.lines)
    }
    trials = []
    for number, text in enumerate(_read_text(path).split("\n"), 1):
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
