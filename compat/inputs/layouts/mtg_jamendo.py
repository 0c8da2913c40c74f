"""MTG-Jamendo: lists of songs with tags (``autotagging-test.tsv``), and audio in folders.

The tags are the last columns of a line, one tag each, so that lines differ in length.
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
"""End of the names of files of the low-bitrate version, one of two that can be downloaded."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return bool(_lists(path))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the list for testing; of several, the one with the shortest name has all tags."""
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

    Lists lie two folders below the project's root, and audio lies where it was downloaded. So the
    song is looked for beside the list and in all folders above inside the corpus, also in
    ``audio/`` there. A song that is not found keeps the name that the list gives.
    """
    above = [folder, *(one for one in folder.parents if one.is_relative_to(corpus))]
    for start in above:
        for found in (start / name, start / "audio" / name):
            for file in (found, found.with_suffix(LOW)):
                if file.is_file():
                    return os.path.relpath(file, folder)
    return name


LAYOUT = Layout("MTG-Jamendo", claims, read)
