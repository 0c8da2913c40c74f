"""MagnaTagATune: ``annotations_final.csv`` with a column of 0 and 1 for each tag, and the clips.

Despite its name the file is separated by tabs, and its fields are quoted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part
from compat.inputs.text import beginning, read_text

ANNOTATIONS = "annotations_final.csv"
CLIP, AUDIO = "clip_id", "mp3_path"
TESTED = ("d/", "e/", "f/")
"""Folders of the usual test part. Folders ``0`` to ``b`` are for training, ``c`` for validation."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    file = path / ANNOTATIONS if path.is_dir() else path
    header = beginning(file).replace('"', "").split("\t")
    return {CLIP, AUDIO} <= set(header)


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    file = path / ANNOTATIONS if path.is_dir() else path
    reader = csv.reader(io.StringIO(read_text(file), newline=""), delimiter="\t", strict=True)
    entries = []
    try:
        header = next(reader)
        for fields in reader:
            if fields:
                entries.append(_entry(f"{file}:{reader.line_num}", header, fields))
    except csv.Error as error:
        raise CorpusError(
            f"{file}:{reader.line_num}: {error}. Correct the quotation marks."
        ) from error
    if not entries:
        raise CorpusError(f"{file} lists no clips: restore it.")
    tested = [one for one in entries if one.fields["audio_filepath"].startswith(TESTED)]
    return [Part(file.parent, tested or entries)]


def _entry(where: str, header: Sequence[str], fields: Sequence[str]) -> Entry:
    if len(fields) != len(header):
        raise CorpusError(
            f"{where}: {len(fields)} fields where the header has {len(header)}: a line that was "
            "cut, or one with a tab too many. Correct or remove the line."
        )
    row = dict(zip(header, fields, strict=True))
    identifier, audio = row.pop(CLIP).strip(), row.pop(AUDIO).strip()
    strange = sorted(set(row.values()) - {"0", "1"})
    if strange or not identifier or not audio:
        said = f"{strange[0]!r} instead of 0 or 1" if strange else f"no {CLIP} or no {AUDIO}"
        raise CorpusError(f"{where}: {said}. Correct or remove the line.")
    tags = [tag for tag, given in row.items() if given == "1"]
    return Entry(where, {"id": identifier, "audio_filepath": audio, "tags": tags})


LAYOUT = Layout("MagnaTagATune", claims, read, splits=False)
