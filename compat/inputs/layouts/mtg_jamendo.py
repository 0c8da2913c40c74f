"""MTG-Jamendo: lists of songs with tags (``autotagging-test.tsv``), and the audio in folders.

The last column is as long as it has to be: tags follow one another behind tabs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part, evaluated
from compat.inputs.text import beginning, raw_lines

HEADER = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")
LOW = ".low.mp3"
"""Ends the names of the smaller of two versions that can be downloaded."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return bool(_lists(path))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the list to test on; of several the one with the shortest name, which has all tags."""
    lists = {one.name.partition(".")[0]: one for one in _lists(path)}
    name = min(evaluated(list(lists)), key=lambda one: (len(one), one))
    return [_part(lists[name], name if len(lists) > 1 else "", corpus)]


def _lists(path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        one
        for one in found
        if one.name[0] != "."
        and one.name.lower().removesuffix(".gz").endswith(".tsv")
        and beginning(one).split("\t")[: len(HEADER)] == list(HEADER)
    ]


def _part(path: Path, split: str, corpus: Path) -> Part:
    entries = []
    for number, text in raw_lines(path):
        if number == 1:
            continue
        where = f"{path}:{number}"
        track, _, _, name, _, *tags = (field.strip() for field in (*text.split("\t"), *[""] * 5))
        tags = [tag for tag in tags if tag]
        if not track or not name or not tags:
            raise CorpusError(
                f"{where}: a line has a track, an artist, an album, a path, a duration and tags, "
                "with tabs between them. Correct or remove the line."
            )
        fields = {"id": track, "audio_filepath": _audio(path.parent, corpus, name), "tags": tags}
        entries.append(Entry(where, fields))
    if not entries:
        raise CorpusError(f"{path} lists no songs: restore it.")
    return Part(path.parent, entries, split, root=corpus)


def _audio(folder: Path, corpus: Path, name: str) -> str:
    """Return the name of a song relative to the folder of its list.

    Lists lie two folders below the project's own, and audio where it was downloaded to: beside the
    list or in any folder above inside the corpus, there perhaps in ``audio/``.
    """
    above = [folder, *(one for one in folder.parents if one.is_relative_to(corpus))]
    for start in above:
        for found in (start / name, start / "audio" / name):
            for file in (found, found.with_suffix(LOW)):
                if file.is_file():
                    return os.path.relpath(file, folder)
    return name


LAYOUT = Layout("MTG-Jamendo", claims, read)
