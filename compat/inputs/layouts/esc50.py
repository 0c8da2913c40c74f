"""ESC-50: ``meta/esc50.csv`` with a ``filename`` and a ``category`` a row, and ``audio/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.layouts.layout import Layout, Part
from compat.inputs.layouts.tables import labelled
from compat.inputs.text import beginning

TABLE = "meta/esc50.csv"
COLUMNS = ("filename", "category")


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    table = path / TABLE if path.is_dir() else path
    return table.name == Path(TABLE).name and set(COLUMNS) <= set(beginning(table).split(","))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    table = path / TABLE if path.is_dir() else path
    entries = labelled(table, COLUMNS, lambda row: f"audio/{row['filename'].strip()}")
    return [Part(table.absolute().parents[1], entries)]


LAYOUT = Layout("ESC-50", claims, read)
