"""Note lists: a list of notes beside each recording, `a.txt` as in MAPS, or `a.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import AUDIO, CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part, files, plain_name
from compat.inputs.text import beginning, text_lines

COLUMNS = (
    # MAPS (Emiya, Badeau and David, 2010).
    ("OnsetTime", "OffsetTime", "MidiPitch"),
    # What basic-pitch writes; its bends of pitch make rows longer than the header.
    ("start_time_s", "end_time_s", "pitch_midi"),
)
"""Names of the columns with onset and offset in seconds and with the MIDI number."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return path.is_dir() and any(_audio(file) for file in files(path, (".txt", ".csv")))


def read(folder: Path, corpus: Path) -> Sequence[Part]:
    """Read the lists below a folder that have a recording beside them."""
    entries = []
    for file in files(folder, (".txt", ".csv")):
        if audio := _audio(file):
            name = audio.relative_to(folder).as_posix()
            fields = {"id": plain_name(name), "audio_filepath": name, "notes": _notes(file)}
            entries.append(Entry(str(file), fields))
    return [Part(folder, entries)]


def _audio(file: Path) -> Path | None:
    """Return the recording that a list of notes belongs to; None for other files."""
    if not _places(beginning(file)):
        return None
    beside = (file.with_suffix(ending) for ending in AUDIO)
    return next((path for path in beside if path.is_file()), None)


def _places(header: str) -> list[int]:
    """Return in which columns onset, offset and pitch are; empty if they are in none."""
    names = _fields(header)
    return next(([*map(names.index, some)] for some in COLUMNS if {*some} <= {*names}), [])


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t" if "\t" in line else ",")]


def _notes(file: Path) -> list[list[float]]:
    (_, header), *rows = text_lines(file)
    places = _places(header)
    notes = []
    for number, text in rows:
        try:
            fields = _fields(text)
            notes.append([float(fields[place]) for place in places])
        except (ValueError, IndexError) as error:
            raise CorpusError(
                f"{file}:{number}: no note ({error}). A line has onset and offset in seconds and a "
                "MIDI number: correct or remove it."
            ) from error
    return notes


LAYOUT = Layout("note lists", claims, read, deep=True)
"""The form, as the list of forms has it."""
