"""Inputs that a search found to break a case: written down, so that every later run tries them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compat.artifacts import digest
from compat.measurement import Measurement


def remember(measurement: Measurement, entry: dict[str, Any]) -> None:
    """Append a stress input to this machine's list, unless it is there already."""
    path = measurement.found_file
    name = f"found-{digest(entry)[:8]}"
    text = path.read_text(encoding="utf-8") if path.is_file() else _HEAD
    if name in text:
        return
    lines = [f'name = "{name}"', *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(
        path, text + f"\n# Found on {measurement.case.id}\n[[input]]\n" + "\n".join(lines) + "\n"
    )


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


_HEAD = """\
# Inputs on which a case failed when the suite searched beyond fixtures/stress.toml. Every run on
# this machine tries them; move one that matters to everybody to that file.
"""
