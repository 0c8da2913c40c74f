"""People: human speech with transcripts, in packages that a person fetched.

Generated voices prove that words survive a machine; only recorded ones prove that they do in what
people say. ``fixtures/people.toml`` lists the packages and the recordings in them. Nothing is
copied: the test sets name the files where they were unpacked. Where a package is absent all sets
are, as a word error rate over other recordings is another number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from compat.contract.places import FIXTURES
from compat.inputs.audio import CorpusError, audio_seconds
from compat.inputs.packages import Package, packages_folder
from compat.inputs.rttm import read_turns

TABLE = FIXTURES / "people.toml"
PEOPLE = "people"
"""The set of utterances whose words are known, and the name by which all packages are fetched."""
REMEDY = f"compat fetch {PEOPLE}"
ALIGNED = "aligned"
"""Those of them of which is known when each word is said."""
MEETINGS = "meetings"
"""The set of recordings in which several people speak; their words are not known."""

PAUSE = 0.1
"""Seconds of silence between two words that end a stretch of speech. What is shorter is part of it:
a stop such as *t* is silent for up to a tenth of a second before it is released."""

SILENCE = {"", "sil", "sp", "spn", "<sil>", "<s>", "</s>", "[SPEECH]", "x"}
"""Labels of a time in which nobody speaks."""


class Recording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An utterance whose words are known."""

    id: str
    package: str
    file: str
    speaker: str
    text: str
    words: str = ""
    """File with the times of the words, if there is one."""
    offset: float | None = None
    duration: float | None = None
    note: str = ""


class Meeting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recordings of several people, of whom one RTTM file speaks."""

    package: str
    folder: str
    rttm: str
    names: tuple[str, ...]
    seconds: float


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``fixtures/people.toml`` holds."""

    package: tuple[Package, ...]
    recording: tuple[Recording, ...]
    meeting: tuple[Meeting, ...] = ()

    def missing(self) -> list[Package]:
        """Return the packages that are not here."""
        return [package for package in self.package if not package.here]


class Word(NamedTuple):
    """A word and its time, in seconds."""

    start: float
    end: float
    text: str


@cache
def read_table(path: Path = TABLE) -> Table:
    """Read the packages and the recordings.

    Raises:
        CorpusError: the table cannot be read, or names a package that it does not have.
    """
    try:
        table = msgspec.toml.decode(path.read_bytes(), type=Table)
    except (OSError, msgspec.MsgspecError) as error:
        raise CorpusError(f"cannot read the recordings in {path}: {error}.") from error
    known = {package.name for package in table.package}
    named = {one.package for one in table.recording} | {one.package for one in table.meeting}
    for name in sorted(named - known):
        raise CorpusError(f"{path} names a package {name}, and has no entry for it.")
    return table


def packages(table: Path = TABLE) -> tuple[Package, ...]:
    """Return every package that recordings come from."""
    return read_table(table).package


def missing(table: Path = TABLE) -> list[Package]:
    """Return the packages of recordings that were not fetched."""
    return read_table(table).missing()


def lines(table: Path = TABLE) -> dict[str, list[dict[str, Any]]]:
    """Return the test sets by name as lines of a manifest; none where a package is absent.

    The files that they name are relative to the folder of fetched packages. ``segments`` and
    ``words`` are lists of [start, end, speaker] and [start, end, word], in seconds from where the
    line begins.

    Raises:
        CorpusError: a file of a package is missing or cannot be read.
    """
    read = read_table(table)
    if read.missing():
        return {}
    folders = {package.name: package.folder for package in read.package}
    people = [utterance(one, folders[one.package]) for one in read.recording]
    found = {
        PEOPLE: people,
        ALIGNED: [line for line in people if "segments" in line],
        MEETINGS: [
            line for one in read.meeting for line in _meeting_lines(one, folders[one.package])
        ],
    }
    return {name: some for name, some in found.items() if some}


def utterance(recording: Recording, folder: Path) -> dict[str, Any]:
    """Return a recording in the folder of its package as a line of a manifest."""
    audio = folder / recording.file
    line: dict[str, Any] = {
        "id": recording.id,
        "audio_filepath": _relative(audio),
        "duration": recording.duration or audio_seconds(audio),
        "text": recording.text,
        "speaker": recording.speaker,
    }
    if recording.offset is not None:
        line["offset"] = recording.offset
    if recording.words:
        words = read_words(folder / recording.words)
        first = recording.offset or 0.0
        last = first + line["duration"]
        heard = [
            Word(word.start - first, min(word.end, last) - first, word.text)
            for word in words
            if first <= word.start < last
        ]
        line["words"] = [list(word) for word in heard]
        line["segments"] = [[*span, recording.speaker] for span in speech(heard)]
    return line


def _meeting_lines(meeting: Meeting, folder: Path) -> Iterator[dict[str, Any]]:
    turns = read_turns(folder / meeting.rttm)
    for name in meeting.names:
        if name not in turns:
            raise CorpusError(f"{folder / meeting.rttm} says nothing of {name}: fetch it again.")
        audio = folder / meeting.folder / f"{name}.wav"
        seconds = min(meeting.seconds, audio_seconds(audio))
        spoken = [
            [start, min(end, seconds), who]
            for start, end, who in turns[name].segments
            if start < seconds
        ]
        yield {
            "id": f"meeting-{name}",
            "audio_filepath": _relative(audio),
            "offset": 0.0,
            "duration": seconds,
            "segments": spoken,
        }


def _relative(audio: Path) -> str:
    if not audio.is_file():
        raise CorpusError(f"audio file {audio} is missing: fetch it again ({REMEDY} --again).")
    return audio.relative_to(packages_folder()).as_posix()


# Times of words ----------------------------------------------------------------------------------


def speech(words: Iterable[Word], pause: float = PAUSE) -> list[tuple[float, float]]:
    """Return when somebody speaks, in seconds: words with less than a pause between them are one.

    Args:
        words: in order, without silences.
        pause: seconds.
    """
    spans: list[tuple[float, float]] = []
    for word in words:
        if spans and word.start - spans[-1][1] < pause:
            spans[-1] = spans[-1][0], max(word.end, spans[-1][1])
        else:
            spans.append((word.start, word.end))
    return spans


def read_words(path: Path) -> list[Word]:
    """Read the times of words from a file; silences are left out.

    Args:
        path: JSON of pocketsphinx (``*.json``), a TextGrid of Praat with a tier ``word``
            (``*.TextGrid``), or the labels of HTS (``*.lab``), whose phones count as words.

    Raises:
        CorpusError: the file is missing or malformed, has no words, or has times that go back.
    """
    try:
        read = _READERS[path.suffix.lower()]
        found = [
            word
            for word in read(path.read_text(encoding="utf-8"))
            if word.text not in SILENCE and word.end > word.start
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CorpusError(f"{path} has no times of words that can be read ({error!r}).") from error
    if not found:
        raise CorpusError(f"{path} has no words.")
    if any(one.start > other.start for one, other in pairwise(found)):
        raise CorpusError(f"{path}: the times of words go back.")
    return found


def _of_pocketsphinx(text: str) -> Iterator[Word]:
    """Source: ``pocketsphinx align``; ``a(2)`` is the second pronunciation of *a*."""
    for word in json.loads(text)["w"]:
        start = float(word["b"])
        yield Word(start, start + float(word["d"]), re.sub(r"\(\d+\)$", "", word["t"]))


def _of_hts(text: str) -> Iterator[Word]:
    """Source: labels of HTS: start and end in 100 ns, and a phone between ``-`` and ``+``."""
    for line in text.splitlines():
        start, end, label = line.split()[:3]
        phone = re.search(r"-(.+?)\+", label)
        yield Word(float(start) * 1e-7, float(end) * 1e-7, phone[1] if phone else label)


_TOKEN = re.compile(r'"(?:[^"]|"")*"|(?<!\S)-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\S)')


def _of_textgrid(text: str) -> Iterator[Word]:
    """Source: Praat's manual, "TextGrid file formats": texts and numbers count, the rest is prose.

    The long and the short form are one by that.
    """
    tokens = iter(_TOKEN.findall(text))

    def following() -> str:
        token = next(tokens, "")
        if not token:
            raise ValueError("it breaks off")
        return token

    def number() -> float:
        return float(following())

    def quoted() -> str:
        return following()[1:-1].replace('""', '"')

    if quoted() != "ooTextFile" or quoted() != "TextGrid":
        raise ValueError("no TextGrid")
    number(), number()
    for _ in range(int(number())):
        kind, name = quoted(), quoted()
        number(), number()
        for _ in range(int(number())):
            if kind == "IntervalTier":
                word = Word(number(), number(), quoted().strip())
                if name.lower() in ("word", "words"):
                    yield word
            else:
                number(), quoted()


_READERS: Mapping[str, Callable[[str], Iterator[Word]]] = {
    ".json": _of_pocketsphinx,
    ".textgrid": _of_textgrid,
    ".lab": _of_hts,
}
