"""Common Voice: a folder for each language, with lists (``test.tsv``) and MP3 in ``clips/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import CorpusError
from compat.inputs.layouts import tables
from compat.inputs.layouts.layout import Entry, Layout, Part, evaluated
from compat.inputs.text import beginning

CLIPS = "clips"
COLUMNS = ("path", "sentence")
SPLITS = ("test", "dev", "validated", "train", "other", "invalidated")
"""Usual names of lists of recordings; a download has other tables beside them."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    if path.is_dir():
        return (path / CLIPS).is_dir() and bool(_lists(path))
    return _is_list(path) and set(COLUMNS) <= set(beginning(path).split("\t"))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    if path.is_file():
        return [_part(path, "")]
    lists = _lists(path)
    return [_part(lists[split], split) for split in evaluated(list(lists))]


def _lists(folder: Path) -> dict[str, Path]:
    """Return the lists of a language by name: those with usual names, or all where none has one."""
    found = {path.name.partition(".")[0]: path for path in sorted(folder.iterdir())}
    found = {name: path for name, path in found.items() if name and _is_list(path)}
    return {name: found[name] for name in SPLITS if name in found} or found


def _is_list(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".tsv")


def _part(path: Path, split: str) -> Part:
    entries = []
    for where, row in tables.unquoted_rows(path, COLUMNS):
        name = row["path"].strip()
        known = tables.known(row)
        if not known["text"]:
            raise CorpusError(f"{where}: {name} has no sentence. Correct or remove the line.")
        # Early releases give the names of clips without ending.
        clip = name if Path(name).suffix else f"{name}.mp3"
        fields = {
            "id": Path(name).stem,
            "lang": path.parent.name,
            **{key: value for key, value in known.items() if value},
            "audio_filepath": f"{CLIPS}/{clip}",
        }
        entries.append(Entry(where, fields))
    if not entries:
        raise CorpusError(f"{path} lists no recordings: restore it.")
    return Part(path.parent, entries, split)


LAYOUT = Layout("Common Voice", claims, read)
