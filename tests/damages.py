"""Damages of a saved checkpoint, each a function that changes its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def setting(name: str, value: Any, *path: str) -> Callable[[Path], None]:
    """Return a change of a JSON file: of a key, or of one in an object inside."""

    def change(folder: Path) -> None:
        stored = json.loads((folder / name).read_text())
        inner = stored
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / name).write_text(json.dumps(stored))

    return change


def without(*names: str) -> Callable[[Path], None]:
    """Return what removes files and folders, where they are there."""

    def change(folder: Path) -> None:
        for name in names:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return change


def cut_short(name: str) -> Callable[[Path], None]:
    """Return what cuts the last bytes of a file."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-9])

    return change
