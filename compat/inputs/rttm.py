"""Read RTTM files, which say who speaks when, and UEM files, which say what is scored."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from compat.contract.item import Span
from compat.inputs.audio import AUDIO, CorpusError
from compat.inputs.text import text_lines

_OTHER_RTTM = (
    *("SEGMENT", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU", "CB", "A/P"),
    *("SPKR-INFO", "NO_RT_METADATA"),
)
"""Types of RTTM lines that do not name speakers (NIST, RT-09 evaluation plan); they are skipped."""

Segment = tuple[float, float, str]
"""Start and end in seconds, and the speaker's name."""


def read_span(start: Any, end: Any) -> tuple[float, float]:
    """Return start and end in seconds as floats; raise ``ValueError`` if they are no time span."""
    begin, stop = float(start), float(end)
    if not 0 <= begin <= stop < math.inf:
        raise ValueError(f"{begin:g} to {stop:g} s is no stretch of time")
    return begin, stop


# RTTM and UEM files ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turns:
    """The SPEAKER and NOSCORE lines of one recording in an RTTM file."""

    segments: list[Segment] = field(default_factory=list)
    noscore: list[Span] = field(default_factory=list)
    """Spans that are not scored, as (start, end) in seconds."""


def read_rttm(path: Path) -> dict[str, list[Segment]]:
    """Read a Rich Transcription Time Marked file, and return the segments of each recording.

    Raises:
        CorpusError: as :func:`read_turns`.
    """
    return {name: turns.segments for name, turns in read_turns(path).items()}


def read_turns(path: Path) -> dict[str, Turns]:
    """Read a Rich Transcription Time Marked file, and return the turns of each recording.

    Lines of the other types that NIST lists, and comments (``;;``), are passed over.

    Raises:
        CorpusError: the file cannot be read, or a line is malformed or can be read in two ways.
    """
    found: dict[str, Turns] = {}
    for number, text in text_lines(path):
        kind = text.split(maxsplit=1)[0]
        if kind.startswith(";;") or kind in _OTHER_RTTM:
            continue
        try:
            if kind not in ("SPEAKER", "NOSCORE"):
                raise ValueError(
                    f"{kind[:60]} is none of the types SPEAKER, NOSCORE, {', '.join(_OTHER_RTTM)}"
                )
            name, start, duration, speaker = _rttm_fields(text)
            span = read_span(start, start + duration)
            turns = found.setdefault(name, Turns())
            if kind == "SPEAKER":
                turns.segments.append((*span, speaker))
            else:
                turns.noscore.append(span)
        except (ValueError, IndexError) as error:
            raise CorpusError(
                f"{path}:{number}: no RTTM line ({error}). It should read: SPEAKER name 1 start "
                "duration <NA> <NA> speaker <NA> <NA>"
            ) from error
    return found


def _rttm_fields(text: str) -> tuple[str, float, float, str]:
    """Return recording, start, duration and speaker: fields 2, 4, 5 and 8 of a line of 8 to 10.

    If a name holds blanks, the line has more fields, or fields of the wrong kind. Then the times
    are the two numbers before two ``<NA>``, and the speaker is the text behind these, without up to
    two last fields that hold a confidence or nothing.
    """
    parts = _fields(text, (8, 9, 10))
    if len(parts) < 8:
        raise IndexError(f"{len(parts)} fields instead of 8 to 10")
    usual = len(parts) <= 10 and all(map(_is_number, parts[3:5])) and all(map(_is_value, parts[8:]))
    if usual and (parts[7] != _NONE or parts[5:7] == [_NONE, _NONE]):
        return parts[1], float(parts[3]), float(parts[4]), parts[7]
    for at in range(3, len(parts) - 4):
        times, after = parts[at : at + 2], parts[at + 2 : at + 4]
        if all(map(_is_number, times)) and after == [_NONE, _NONE]:
            end = len(parts)
            while end > max(at + 5, len(parts) - 2) and _is_value(parts[end - 1]):
                end -= 1
            speaker = parts[at + 4 : end]
            if speaker == [_NONE] or _NONE not in speaker:
                name = " ".join(parts[1 : at - 1])
                return name, float(times[0]), float(times[1]), " ".join(speaker)
    raise ValueError(
        "its times or its speaker are not where they belong; where names hold blanks, write them "
        "without, or tabs between the fields"
    )


_NONE = "<NA>"
"""RTTM's mark of an empty field."""


def _fields(text: str, counts: Collection[int]) -> list[str]:
    """Split a line at tabs if that gives one of the expected counts of fields, else at blanks."""
    parts = [part.strip() for part in text.split("\t")]
    return parts if len(parts) in counts and all(parts) else text.split()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_value(text: str) -> bool:
    return text == _NONE or _is_number(text)


def read_uem(path: Path) -> dict[str, list[Span]]:
    """Read an un-partitioned evaluation map: the scored spans of each recording, in seconds.

    Raises:
        CorpusError: the file cannot be read, is empty, or a line is malformed.
    """
    found: dict[str, list[Span]] = {}
    for number, text in text_lines(path):
        parts = _fields(text.partition(";;")[0], (4,))
        if not parts:
            continue
        try:
            *name, _, start, end = parts  # A name may hold blanks, and nothing follows the end.
            if not name:
                raise ValueError(f"{len(parts)} fields instead of 4")
            found.setdefault(" ".join(name), []).append(read_span(start, end))
        except ValueError as error:
            raise CorpusError(
                f"{path}:{number}: no UEM line ({error}). It should read: name 1 start end"
            ) from error
    if not found:
        raise CorpusError(f"{path} is empty, so that nothing would be scored: remove or fill it.")
    return found


# Names of recordings ------------------------------------------------------------------------------

Said = TypeVar("Said")


def by_plain_name(found: Mapping[str, Said], file: Path) -> dict[str, Said]:
    """Return a file's content by names without folder and ending: ``wav/a.wav`` becomes ``a``."""
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


def of_recording(found: Mapping[str, Said], stem: str, file: Path) -> Said | None:
    """Return a file's content about a recording; a file about only one recording needs no match.

    None where the file is empty.
    """
    by_name = by_plain_name(found, file)
    for name in (stem, stem.split(".", maxsplit=1)[0]):
        if name in by_name:
            return by_name[name]
    if len(by_name) > 1:
        raise CorpusError(
            f"{file} speaks of {', '.join(sorted(by_name)[:3])} …, and not of {stem}: correct the "
            "names in it."
        )
    return next(iter(by_name.values()), None)
