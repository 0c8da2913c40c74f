"""Recordings of people: human speech with transcripts, in packages that a person fetched.

Only recorded voices show how well a model works for human speech; the shipped corpus has generated
ones. ``fixtures/people.toml`` lists the packages and the recordings in them. Nothing is copied: the
test sets name the unpacked files. If one package is absent, all sets are, because a word error rate
over other recordings would be another number.
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
"""Name of the set of utterances with known words; ``compat fetch`` takes it for all packages."""
REMEDY = f"compat fetch {PEOPLE}"
ALIGNED = "aligned"
"""Name of the set of those utterances for which the time of each word is known."""
MEETINGS = "meetings"
"""Name of the set of recordings in which several people speak; their words are not known."""

PAUSE = 0.1
"""Seconds of silence between two words that end a stretch of speech. Shorter silences are part of
speech: a stop such as *t* is silent for up to 0.1 s before it is released."""

SILENCE = {"", "sil", "sp", "spn", "<sil>", "<s>", "</s>", "[SPEECH]", "x"}
"""Labels of silence in files with the times of words."""


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
    """Recordings of several people that one RTTM file describes."""

    package: str
    folder: str
    rttm: str
    names: tuple[str, ...]
    seconds: float


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``fixtures/people.toml``."""

    package: tuple[Package, ...]
    recording: tuple[Recording, ...]
    meeting: tuple[Meeting, ...] = ()

    def missing(self) -> list[Package]:
        """Return the packages that were not fetched."""
        return [package for package in self.package if not package.here]


class Word(NamedTuple):
    """A word and its time, in seconds."""

    start: float
    end: float
    text: str


@cache
def read_table(path: Path = TABLE) -> Table:
    """Read the table of packages and recordings.

    Raises:
        CorpusError: the table cannot be read, or a recording names a package that is not in it.
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
    """Return each test set by name as lines of a manifest; empty where a package is absent.

    File names are relative to the folder of fetched packages. ``segments`` and ``words`` are lists
    of [start, end, speaker] and [start, end, word], in seconds from the line's offset.

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
    """Return a recording as a line of a manifest; ``folder`` is its package's folder."""
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
    """Return the stretches of speech as (start, end) in seconds: words joined over short pauses.

    Args:
        words: words in order, without silences.
        pause: seconds of silence that end a stretch.
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
    """Read the output of ``pocketsphinx align``; ``a(2)`` is the second pronunciation of *a*."""
    for word in json.loads(text)["w"]:
        start = float(word["b"])
        yield Word(start, start + float(word["d"]), re.sub(r"\(\d+\)$", "", word["t"]))


def _of_hts(text: str) -> Iterator[Word]:
    """Read HTS labels: start and end in units of 100 ns, and a phone between ``-`` and ``+``."""
    for line in text.splitlines():
        start, end, label = line.split()[:3]
        phone = re.search(r"-(.+?)\+", label)
        yield Word(float(start) * 1e-7, float(end) * 1e-7, phone[1] if phone else label)


_TOKEN = re.compile(r'"(?:[^"]|"")*"|(?<!\S)-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\S)')


def _of_textgrid(text: str) -> Iterator[Word]:
    """Read the words of a TextGrid (Praat's manual, "TextGrid file formats").

    Only quoted texts and numbers count. Without the other words, the long form of the format is the
    same as the short one.
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
