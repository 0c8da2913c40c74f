"""Find the form of a corpus. Each known form is a module of this package, and a line in the list.

The first form in the list that claims a folder reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from compat.inputs.layouts.layout import Layout, evaluated

NAMES = (
    "manifest",
    "common_voice",
    "kaldi",
    "ljspeech",
    "musdb18",
    "mtg_jamendo",
    "magnatagatune",
    "esc50",
    "urbansound8k",
    "audiocaps",
    "audiofolder",
    "parquet",
    "librispeech",
    "rttm_tree",
    "note_lists",
)
LEVELS = 3
"""Levels of folders that are searched for a folder of a known form."""


def layouts() -> Iterator[Layout]:
    """Yield every form that is known."""
    for name in NAMES:
        yield import_module(f"{__name__}.{name}").LAYOUT


def find(path: Path, levels: int = LEVELS) -> list[tuple[Path, Layout]]:
    """Return the folders (or the file) of a corpus, each with its form, in order.

    Either the path itself has a form, or the folders in it, or those a level deeper, up to
    ``levels``. If a data set has parts for training and parts for testing, only the parts for
    testing are returned.
    """
    shallow = _claim(path, deep=False)
    if shallow or not path.is_dir():
        return [(path, shallow)] if shallow else []
    folders = _folders(path)
    if any(_claim(folder, deep=False) for folder in folders):
        found = [(one, _claim(one, False) or _claim(one, True)) for one in folders]
        return _tested([(one, layout) for one, layout in found if layout])
    deep = _claim(path, deep=True)
    if deep or levels <= 1:
        return [(path, deep)] if deep else []
    below = [found for folder in folders for found in find(folder, levels - 1)]
    return _tested(below)


def _claim(path: Path, deep: bool) -> Layout | None:
    return next((one for one in layouts() if one.deep == deep and one.claims(path)), None)


def _folders(path: Path) -> list[Path]:
    return [one for one in sorted(path.iterdir()) if one.is_dir() and not one.name.startswith(".")]


def _tested(found: list[tuple[Path, Layout]]) -> list[tuple[Path, Layout]]:
    taken = set(evaluated([str(path.name) for path, layout in found if layout.splits]))
    return [one for one in found if not one[1].splits or one[0].name in taken]
