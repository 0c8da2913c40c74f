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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from compat.contract.item import Item, Span
from compat.contract.places import FIXTURES
from compat.inputs.audio import TOLERANCE, CorpusError, audio_seconds, read_audio
from compat.inputs.rttm import Turns, read_span, read_turns, read_uem, text_lines

DEFAULT = FIXTURES / "corpus"
MANIFEST = "manifest.jsonl"
TRIALS_FACT = "trials"
"""Fact of an item: pairs of it and another recording, which lie in a file of their own."""
TRIALS = "trials.txt"

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".aif", ".aiff")
"""Endings of audio files that are looked for beside RTTM files."""
DEPTH = 6
"""Levels of folders that are searched for RTTM files and audio."""
EXCERPT = 30.0
"""Seconds above which a recording is no utterance, and gives excerpts instead."""

_NO_NAME = r'<>:"/\\|?*\x00-\x1f\x7f'
"""Characters that names of files cannot have, on Windows at least."""
_ID = re.compile(rf"[^\s.{_NO_NAME}](?:[^{_NO_NAME}]{{0,148}}[^\s.{_NO_NAME}])?")
"""Ids become names of files, which begin and end with neither a blank nor a dot."""


# Test sets ---------------------------------------------------------------------------------------


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

    def knows(self, fact: str) -> bool:
        """Return whether a fact is known of every recording: ``text``, ``segments``, ``trials``.

        Any field of the manifest is a fact. Texts that are all empty say nothing.
        """
        if fact == TRIALS_FACT:
            return bool(self.trials)
        values = [line.get(fact) for line in self.lines]
        return None not in values and (fact != "text" or any(values))

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
        audio = self.folder / line["audio_filepath"]
        samples = read_audio(audio, rate, *part)
        if abs(len(samples) / rate - line["duration"]) > TOLERANCE:
            raise CorpusError(
                f"audio file {audio}: {len(samples) / rate:.2f} s can be decoded, where the "
                f"manifest or the file itself says {line['duration']:.2f} s. Restore it, or "
                "correct the manifest."
            )
        return Item.from_audio(identifier, samples, rate, facts)

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
        from compat.contract.digests import digest, file_digest

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

    def choose(self, names: Sequence[str], fact: str = "") -> dict[str, TestSet]:
        """Return the sets called ``names``, or all sets where none is called so.

        Only sets count of whose recordings a fact is known, if one is named; there may be none.
        """
        fitting = {n: s for n, s in self.sets.items() if not fact or s.knows(fact)}
        return {n: fitting[n] for n in names if n in fitting} or fitting

    @property
    def speech(self) -> TestSet:
        """A set of short utterances, where any speech will do and no truth is needed.

        Long recordings give excerpts: nobody wants a meeting of an hour as an utterance.
        """
        found = next(iter((self.choose(("clean",), "text") or self.sets).values()))
        long = any(line["duration"] > EXCERPT for line in found.lines)
        return found.excerpts() if long else found


def _lasts(audio: Path, said: float, seconds: float, where: str) -> None:
    """Check that a whole recording is as long as is said of it, within :data:`TOLERANCE`.

    Raises:
        CorpusError: it is not; the message has both numbers.
    """
    if abs(said - seconds) <= TOLERANCE:
        return
    shorter = f', or add "offset": 0 to take the first {said:g} s of it'
    raise CorpusError(
        f"{where}: the duration says {said:g} s, and {audio.name} lasts {seconds:.6g} s. "
        f"{_in_milliseconds(said, seconds)}Correct the duration"
        f"{shorter if said < seconds else ''}, or restore the audio."
    )


def _in_milliseconds(said: float, seconds: float) -> str:
    fits = abs(said / 1000 - seconds) <= TOLERANCE and said > 10 * seconds
    return "Durations are in seconds; is this one in milliseconds? " if fits else ""


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
                    'become names of files, of at most 150 characters without / \\ : * ? " < > |, '
                    "and with no blank or dot at either end. Give it another id."
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
        for number, text in text_lines(path)
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
        if not paired and not {"text", "rttm_filepath", "segments"} & set(line):
            raise KeyError("text")
        if line.get("text", "-") in ("-", None):  # NeMo's ways to say that words are not known.
            line.pop("text", None)
        if not isinstance(line.get("text", ""), str) or not isinstance(name, str):
            raise ValueError("audio_filepath and text must be strings")
        audio = _inside(folder, name, where)
        if not audio.is_file():
            raise CorpusError(f"{where}: audio file {audio} is missing: restore it.")
        _read_times(line, audio, where)
        for key in ("segments", "uem"):  # No truth is another thing than an empty one.
            if line.get(key, ...) is None:
                del line[key]
        if "segments" in line:
            line["segments"] = [_inline_segment(found, line) for found in line["segments"]]
        if "uem" in line:
            line["uem"] = [list(read_span(start, end)) for start, end in line["uem"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CorpusError(f"{where}: {missing}. Correct or remove the line.") from error
    noscore: Sequence[Span] = ()
    if line.get("rttm_filepath"):
        named = _truth_file(folder, line, "rttm_filepath", where)
        turns = _of_recording(read_turns(named), audio.stem, named) or Turns()
        line["segments"] = [list(segment) for segment in turns.segments]
        noscore = turns.noscore
    if line.get("uem_filepath"):
        named = _truth_file(folder, line, "uem_filepath", where)
        parts = _of_recording(read_uem(named), audio.stem, named) or []
        line["uem"] = [list(part) for part in parts]
    return _within(_left_out(line, noscore), where)


def _read_times(line: dict[str, Any], audio: Path, where: str) -> None:
    """Read ``duration`` and ``offset`` of a line, and hold them against the audio's length.

    Without a duration a recording is all that follows its offset.
    """
    if line.get("offset") is None:
        line.pop("offset", None)
    else:
        line["offset"] = float(line["offset"])
        if not 0 <= line["offset"] < math.inf:
            raise ValueError("offset must not be negative")
    said = None if line.get("duration") is None else float(line["duration"])
    if said is not None and not 0 < said < math.inf:
        raise ValueError("make the duration positive")
    first, seconds = line.get("offset", 0.0), audio_seconds(audio)
    if first and first >= seconds:
        raise CorpusError(
            f"{where}: the offset is {first:g} s, and {audio.name} lasts {seconds:.6g} s. Offsets "
            "are in seconds; correct it, or restore the audio."
        )
    line["duration"] = seconds - first if said is None else said
    if line["duration"] <= 0:
        raise CorpusError(f"audio file {audio} holds no usable samples: restore it.")
    if "offset" not in line:
        _lasts(audio, line["duration"], seconds, where)
    elif first + line["duration"] > seconds + TOLERANCE:
        raise CorpusError(
            f"{where}: offset and duration end at {first + line['duration']:g} s, and {audio.name} "
            f"lasts {seconds:.6g} s. Both are in seconds, not milliseconds: correct them, or "
            "restore the audio."
        )


def _truth_file(folder: Path, line: Mapping[str, Any], key: str, where: str) -> Path:
    named = _inside(folder, str(line[key]), where)
    if not named.is_file():
        raise CorpusError(f"{where}: {key} {named} is missing: restore it.")
    return named


def _left_out(line: dict[str, Any], noscore: Sequence[Span]) -> dict[str, Any]:
    """Take times out of what is scored of a recording; they are those of its file."""
    if noscore:
        first = line.get("offset", 0.0)
        scored = line.get("uem", [[first, first + line["duration"]]])
        for begin, stop in noscore:
            parts = [part for s, e in scored for part in ([s, min(e, begin)], [max(s, stop), e])]
            scored = [[start, end] for start, end in parts if start < end]
        line["uem"] = scored
    return line


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
    return [*read_span(found["start"], found["end"]), speaker]


def _read_rttm_folder(folder: Path) -> TestSet:
    """Match RTTM and UEM files below a folder with audio files, by the recording's name."""
    audio = list(_files(folder, AUDIO))
    rttm = _gather(folder, ".rttm", lambda path: read_turns(path) or {path.stem: Turns()})
    uem = _gather(folder, ".uem", read_uem)
    unknown = sorted(uem.keys() - rttm.keys())
    if unknown:
        raise CorpusError(
            f"{uem[unknown[0]][1]} speaks of {unknown[0]}, of which there is no RTTM: add one (an "
            f"empty file {unknown[0]}.rttm if nobody speaks), or remove the line."
        )
    lines = []
    for name, (turns, file) in sorted(rttm.items(), key=lambda one: one[0]):
        recording = _recording(audio, name, file)
        _inside(folder, recording.relative_to(folder).as_posix(), str(file))
        seconds = audio_seconds(recording)
        if uem and name not in uem:
            raise CorpusError(
                f"{folder}: there are UEM files, and none of them speaks of {name}. Add a line "
                f'to one: "{name} 1 0.000 {seconds:.3f}" scores all of it.'
            )
        line: dict[str, Any] = {
            "id": name,
            "audio_filepath": recording.relative_to(folder).as_posix(),
            "duration": seconds,
            "segments": [list(segment) for segment in turns.segments],
        }
        if uem:
            line["uem"] = [list(part) for part in uem[name][0]]
        lines.append(_within(_left_out(line, turns.noscore), str(file)))
    return TestSet(folder.name, folder, tuple(lines))


_Said = TypeVar("_Said")


def _gather(
    folder: Path, ending: str, read: Callable[[Path], Mapping[str, _Said]]
) -> dict[str, tuple[_Said, Path]]:
    """Read every file with an ending; return what is said of each recording, and where."""
    found: dict[str, tuple[_Said, Path]] = {}
    for path in _files(folder, (ending,)):
        _inside(folder, path.relative_to(folder).as_posix(), str(folder))
        for name, said in _by_plain_name(read(path), path).items():
            if name in found:
                raise CorpusError(
                    f"{found[name][1]} and {path} both speak of {name}: keep one of them."
                )
            found[name] = said, path
    return found


def _by_plain_name(found: Mapping[str, _Said], file: Path) -> dict[str, _Said]:
    """Return what a file says by names without folder and ending: ``wav/a.wav`` means ``a``."""
    plain: dict[str, str] = {}
    for name in found:
        last = PurePosixPath(name.replace("\\", "/")).name
        stem, dot, ending = last.rpartition(".")
        bare = stem if stem and dot + ending.lower() in AUDIO else last or name
        if bare in plain:
            raise CorpusError(
                f"{file} speaks of {plain[bare]} and of {name}, which both mean {bare}: give "
                "the recordings different names."
            )
        plain[bare] = name
    return {bare: found[name] for bare, name in plain.items()}


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


def _of_recording(found: Mapping[str, _Said], stem: str, file: Path) -> _Said | None:
    """Return what a file says of a recording; of a file about one recording, all of it."""
    by_name = _by_plain_name(found, file)
    for name in (stem, stem.split(".")[0]):
        if name in by_name:
            return by_name[name]
    if len(by_name) > 1:
        raise CorpusError(
            f"{file} speaks of {', '.join(sorted(by_name)[:3])} …, and not of {stem}: correct the "
            "names in it."
        )
    return next(iter(by_name.values()), None)


# Trials ------------------------------------------------------------------------------------------


def _read_trials(path: Path, test_set: TestSet) -> tuple[tuple[str, str, bool], ...]:
    names = {
        str(line["audio_filepath"]): test_set.identifier(index)
        for index, line in enumerate(test_set.lines)
    }
    trials = []
    for number, text in text_lines(path):
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
