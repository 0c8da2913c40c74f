"""Check the entries of every layout against their audio files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compat.contract.item import Span
from compat.inputs.audio import SLACK, TOLERANCE, CorpusError, audio_seconds
from compat.inputs.layouts.layout import Entry, inside
from compat.inputs.rttm import Turns, of_recording, read_span, read_turns, read_uem

STEMS = "stems"
"""Fact of a mixture: the names of its stems (``drums``, ``vocals``) with their audio files."""
TAGS = "tags"
"""Fact of a recording: a list of words that all describe it."""
LABEL, CAPTION = "label", "caption"
"""Facts of a sound: its class, and one or several sentences that describe it."""
NOTES = "notes"
"""Fact of music: its notes, as [onset, offset, MIDI number] with times in seconds."""
HIGHEST = 127
"""Largest MIDI number."""
TRANSLATION, TARGET = "translation", "target_lang"
"""Facts of speech: its translation, and the code of the translation's language."""


def audio_files(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of all audio files of a recording: its own, and those of its stems."""
    yield line["audio_filepath"]
    yield from line.get(STEMS, {}).values()


def checked(entry: Entry, folder: Path, root: Path | None = None) -> dict[str, Any]:
    """Return the checked fields of an entry, with all times in seconds from its beginning.

    Args:
        entry: a recording as its layout describes it.
        folder: the folder where relative file names begin.
        root: the folder in which all files must lie; None for ``folder``.

    Raises:
        CorpusError: a file is missing or outside, or times contradict one another or the audio.
    """
    where = entry.where
    try:
        line = dict(entry.fields)
        name = line["audio_filepath"]
        if not isinstance(line.get("text", ""), str) or not isinstance(name, str):
            raise ValueError("audio_filepath and text must be strings")
        audio = inside(folder, name, where, root)
        if not audio.exists():
            raise CorpusError(f"{where}: audio file {audio} is missing: restore it.")
        _read_times(line, audio, where)
        _check_facts(line)
        for stem, file in line.get(STEMS, {}).items():
            _check_stem(stem, inside(folder, file, where, root), audio, where)
        # Null means unknown; an empty list means that there are none.
        for key in ("segments", "uem", NOTES):
            if line.get(key, ...) is None:
                del line[key]
        if "segments" in line:
            line["segments"] = [_segment(found, line) for found in line["segments"]]
        if "uem" in line:
            line["uem"] = [list(read_span(start, end)) for start, end in line["uem"]]
        if NOTES in line:
            line[NOTES] = [_note(*found) for found in line[NOTES]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CorpusError(f"{where}: {missing}. Correct or remove the line.") from error
    noscore: Sequence[Span] = line.pop("noscore", ())
    if line.get("rttm_filepath"):
        named = _truth_file(folder, line, "rttm_filepath", where)
        turns = of_recording(read_turns(named), audio.stem, named) or Turns()
        line["segments"] = [list(segment) for segment in turns.segments]
        noscore = turns.noscore
    if line.get("uem_filepath"):
        named = _truth_file(folder, line, "uem_filepath", where)
        parts = of_recording(read_uem(named), audio.stem, named) or []
        line["uem"] = [list(part) for part in parts]
    return _within(_left_out(line, noscore), where)


def _lasts(audio: Path, said: float, seconds: float, where: str) -> None:
    """Check that a whole recording has its stated length, within :data:`TOLERANCE`.

    Raises:
        CorpusError: the lengths differ; the message has both.
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


def _read_times(line: dict[str, Any], audio: Path, where: str) -> None:
    """Read ``duration`` and ``offset`` of a line, and check them against the audio's length.

    Without a duration, a recording lasts from its offset to the end of the file.
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


def _check_facts(line: dict[str, Any]) -> None:
    """Check the form of all facts but words and speakers; facts that are null are removed."""
    for key in (STEMS, TAGS, LABEL, CAPTION, TRANSLATION, TARGET):
        if line.get(key, ...) is None:
            del line[key]
    tags, stems = line.get(TAGS, []), line.get(STEMS, {"": ""})
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag.strip() for tag in tags):
        raise ValueError('tags must be a list of words: ["guitar", "slow"]')
    if (
        not isinstance(stems, dict)
        or not stems
        or not all(isinstance(file, str) for file in stems.values())
    ):
        raise ValueError('stems must name files by what they hold: {"drums": "drums.wav"}')
    captions = line.get(CAPTION, "-")
    for said in (line.get(LABEL, "-"), *(captions if isinstance(captions, list) else [captions])):
        if not isinstance(said, str) or not said.strip():
            raise ValueError("label must be a word, and caption a sentence or a list of them")
    for key in (TRANSLATION, TARGET):
        if not isinstance(line.get(key, "-"), str) or not line.get(key, "-").strip():
            raise ValueError(f"{key} must be a text that is not empty; leave out what is not known")
    if captions == []:
        raise ValueError("caption is an empty list: leave it out")


def _check_stem(stem: str, file: Path, mixture: Path, where: str) -> None:
    """Check that a stem exists, and has its mixture's length within :data:`SLACK`.

    Raises:
        CorpusError: the stem is missing or has another length; the message names the file.
    """
    if not file.exists():
        raise CorpusError(f"{where}: audio file {file} of the stem {stem} is missing: restore it.")
    seconds, whole = audio_seconds(file), audio_seconds(mixture)
    if abs(seconds - whole) > SLACK:
        raise CorpusError(
            f"{where}: the stem {file.name} lasts {seconds:.6g} s, and its mixture {mixture.name} "
            f"{whole:.6g} s. Stems are added up sample by sample: restore the files."
        )


def _truth_file(folder: Path, line: Mapping[str, Any], key: str, where: str) -> Path:
    named = inside(folder, str(line[key]), where)
    if not named.is_file():
        raise CorpusError(f"{where}: {key} {named} is missing: restore it.")
    return named


def _left_out(line: dict[str, Any], noscore: Sequence[Span]) -> dict[str, Any]:
    """Remove spans from the scored parts of a recording; all times count from the file's start."""
    if noscore:
        first = line.get("offset", 0.0)
        scored = line.get("uem", [[first, first + line["duration"]]])
        for begin, stop in noscore:
            parts = [part for s, e in scored for part in ([s, min(e, begin)], [max(s, stop), e])]
            scored = [[start, end] for start, end in parts if start < end]
        line["uem"] = scored
    return line


def _within(line: dict[str, Any], where: str) -> dict[str, Any]:
    """Make the times of a line relative to its offset; refuse times behind the recording's end."""
    first, length = line.get("offset", 0.0), line["duration"]
    last = first + length if "offset" in line else math.inf
    for key in ("segments", "uem", NOTES):
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


def _segment(found: Any, line: Mapping[str, Any]) -> list[Any]:
    if isinstance(found, tuple):  # JSON has no tuples, so this comes from an RTTM reader.
        return list(found)
    if not isinstance(found, dict):
        raise ValueError("a segment is an object with start, end and speaker")
    speaker = str(found.get("speaker") or line.get("speaker") or "speaker")
    return [*read_span(found["start"], found["end"]), speaker]


def _note(onset: Any, offset: Any, pitch: Any) -> list[float]:
    if not 0 <= float(pitch) <= HIGHEST:
        raise ValueError(f"{pitch} is no MIDI number, which are 0 to {HIGHEST}")
    return [*read_span(onset, offset), float(pitch)]
