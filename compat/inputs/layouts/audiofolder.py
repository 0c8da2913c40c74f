"""Hugging Face audiofolder: ``metadata.csv`` or ``metadata.jsonl`` with a ``file_name`` a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compat.inputs.audio import CorpusError
from compat.inputs.layouts import tables
from compat.inputs.layouts.layout import Entry, Layout, Part, plain_name
from compat.inputs.text import beginning

FILE = "file_name"
READERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[tuple[str, Mapping[str, Any]]]]] = {
    "metadata.csv": tables.quoted_rows,
    "metadata.jsonl": tables.json_rows,
}


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return _metadata(path) is not None


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    metadata = _metadata(path)
    assert metadata is not None
    entries = []
    for where, row in READERS[_plain(metadata)](metadata, (FILE,)):
        name = row[FILE]
        if not isinstance(name, str) or not name.strip():
            raise CorpusError(f"{where}: no {FILE}. Correct or remove the line.")
        fields = {**tables.known(row), "id": plain_name(name), "audio_filepath": name.strip()}
        entries.append(Entry(where, fields))
    if not entries:
        raise CorpusError(f"{metadata} names no recordings: restore it.")
    return [Part(metadata.parent, entries)]


def _metadata(path: Path) -> Path | None:
    """Return the table in a folder, or the path itself; None where no table names files."""
    found = [path / name for name in READERS] if path.is_dir() else [path]
    found += [path / f"{name}.gz" for name in READERS] if path.is_dir() else []
    for one in found:
        header = beginning(one) if _plain(one) in READERS else ""
        if f'"{FILE}"' in header or FILE in header.replace('"', "").split(","):
            return one
    return None


def _plain(path: Path) -> str:
    return path.name.lower().removesuffix(".gz")


LAYOUT = Layout("Hugging Face audiofolder", claims, read)
