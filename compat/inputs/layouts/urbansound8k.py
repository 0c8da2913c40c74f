"""UrbanSound8K: ``metadata/UrbanSound8K.csv``, and a folder in ``audio/`` for each fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.layouts.layout import Layout, Part
from compat.inputs.layouts.tables import labelled
from compat.inputs.text import beginning

TABLE = "metadata/UrbanSound8K.csv"
COLUMNS = ("slice_file_name", "class", "fold")


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    table = path / TABLE if path.is_dir() else path
    return table.name == Path(TABLE).name and set(COLUMNS) <= set(beginning(table).split(","))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    table = path / TABLE if path.is_dir() else path
    entries = labelled(
        table,
        COLUMNS,
        lambda row: f"audio/fold{row['fold'].strip()}/{row['slice_file_name'].strip()}",
    )
    return [Part(table.absolute().parents[1], entries)]


LAYOUT = Layout("UrbanSound8K", claims, read)
