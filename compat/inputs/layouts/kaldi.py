"""Kaldi: ``wav.scp`` and ``text``, and optionally ``segments``, ``utt2spk`` and ``utt2lang``.

``wav.scp`` may hold commands whose output is the audio (``sox a.mp3 -t wav - |``). They are never
run, because a corpus is data, and its author must not decide what this machine executes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part
from compat.inputs.text import text_lines

RECORDINGS = "wav.scp"


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return path.is_dir() and (path / RECORDINGS).is_file()


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    recordings = {
        name: _audio(path, corpus, audio, where)
        for name, (where, audio) in _table(path / RECORDINGS).items()
    }
    segments = _optional(path, "segments")
    texts = _optional(path, "text")
    speakers, languages = _optional(path, "utt2spk"), _optional(path, "utt2lang")
    utterances = segments or dict.fromkeys(recordings, (f"{path / RECORDINGS}", ""))
    strangers = sorted(texts.keys() - utterances.keys())
    if strangers:
        known = "segments" if segments else RECORDINGS
        raise CorpusError(
            f"{texts[strangers[0]][0]}: {strangers[0]} is not in {known}. Kaldi's "
            "utils/fix_data_dir.sh removes such lines."
        )
    entries = []
    for name, (where, segment) in utterances.items():
        fields: dict[str, Any] = {"id": name}
        fields |= (
            _cut(segment, recordings, where) if segments else {"audio_filepath": recordings[name]}
        )
        if texts:
            if name not in texts:
                raise CorpusError(
                    f"{path / 'text'} has no line of {name}, which {where} names. Add it (the id "
                    "alone where nobody speaks); utils/fix_data_dir.sh removes such utterances."
                )
            fields["text"] = texts[name][1]
        for key, table in (("speaker", speakers), ("lang", languages)):
            if table.get(name, ("", ""))[1]:
                fields[key] = table[name][1]
        entries.append(Entry(where, fields))
    if not entries:
        raise CorpusError(f"{path / RECORDINGS} names no recordings: restore it.")
    return [Part(path, entries, root=corpus)]


def _optional(folder: Path, name: str) -> dict[str, tuple[str, str]]:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return _table(path)
    return {}


def _table(path: Path) -> dict[str, tuple[str, str]]:
    """Return the first word of each line, with the line's file and number and its other words."""
    table: dict[str, tuple[str, str]] = {}
    for number, line in text_lines(path):
        name, *rest = line.split(maxsplit=1)
        if name in table:
            raise CorpusError(
                f"{path}:{number}: {name} is there already, in {table[name][0]}: keep one of them."
            )
        table[name] = f"{path}:{number}", rest[0] if rest else ""
    return table


def _audio(folder: Path, corpus: Path, name: str, where: str) -> str:
    """Return the name of an audio file, relative to the folder.

    Paths in Kaldi's files are relative to the folder where its recipe was run, which may be any
    folder above.
    """
    if "|" in name:
        raise CorpusError(
            f"{where}: {name[:60]!r} is a command, which is never run. Write its output to a file "
            "(Kaldi's wav-copy does it for the whole list: wav-copy scp:wav.scp "
            "ark,scp:… and extract-segments; or run the commands yourself), and name that file."
        )
    if re.search(r"\.ark(:\d+)?$|:\d+$", name):
        raise CorpusError(
            f"{where}: {name[:60]!r} lies in a Kaldi archive: write each recording to a file of "
            "its own, and name that."
        )
    if not name:
        raise CorpusError(f"{where}: no audio file is named. Correct or remove the line.")
    above = [folder, *(one for one in folder.parents if one.is_relative_to(corpus))]
    for start in above:
        if (start / name).exists():
            return os.path.relpath(start / name, folder)
    raise CorpusError(
        f"{where}: audio file {name} is missing below {corpus}. Restore it; where paths begin in "
        "another folder, that in which Kaldi's recipe is run, name that one with --corpus."
    )


def _cut(segment: str, recordings: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return file, offset and duration of a segment; an end of -1 is the recording's end."""
    try:
        recording, start, end = segment.split()[:3]
        begin, stop = float(start), float(end)
        if stop != -1 and not 0 <= begin < stop:
            raise ValueError(f"{start} to {end} s is no stretch of time")
        if recording not in recordings:
            raise ValueError(f"{recording} is not in {RECORDINGS}")
    except ValueError as error:
        raise CorpusError(
            f"{where}: {error}. A segment reads: utterance recording start end, in seconds."
        ) from error
    fields: dict[str, Any] = {"audio_filepath": recordings[recording], "offset": begin}
    return fields if stop == -1 else {**fields, "duration": stop - begin}


LAYOUT = Layout("Kaldi", claims, read)
