"""Removal of absolute paths from messages: results are published, and paths hold users' names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from compat.contract.cache import CACHE

_SEPARATOR = r"[\\/]+"
_NOT_INSIDE = r"(?<![\w.~…$\\/-])"
_ABSOLUTE = re.compile(_NOT_INSIDE + r"(?:[A-Za-z]:)?[\\/][^\s'\"`<>|:,;()\[\]{}]+")
_HOMES = ("home", "Users")


def without_paths(text: str) -> str:
    """Return a message whose absolute paths are made relative, or cut until they name no person.

    Paths below the working folder become relative; the home folder is ``~``, the cache
    ``$COMPAT_CACHE``, Python's own folder and every other ``…``.
    """
    for folder, name in _known():
        parts = [re.escape(part.strip("\\/")) for part in folder.parts]
        pattern = _NOT_INSIDE + _SEPARATOR.join(parts)
        if not name:
            text = re.sub(pattern + _SEPARATOR + r"(?=\w|\.\w)", "", text)
        text = re.sub(pattern + r"(?![\w-]|\.\w)", name or ".", text)
    return _ABSOLUTE.sub(lambda found: _cut(found[0]), text)


def _known() -> Iterator[tuple[Path, str]]:
    """Yield folders and the text that replaces each in a message, the innermost folder first."""
    folders = {
        Path(sys.base_prefix): "…",
        Path(sys.prefix): "…",
        # Path.expanduser raises where a user has no home.
        Path(os.path.expanduser("~")): "~",  # noqa: PTH111
        Path.cwd(): "",
    }
    if os.environ.get(CACHE):
        folders[Path(os.environ[CACHE])] = f"${CACHE}"
    folders |= {folder.resolve(): name for folder, name in folders.items()}
    deepest = sorted(folders.items(), key=lambda pair: len(pair[0].parts), reverse=True)
    # A root (the working folder of some containers) is the beginning of every path, not a place.
    return (pair for pair in deepest if pair[0].is_absolute() and len(pair[0].parts) > 1)


def _cut(path: str) -> str:
    """Cut a path to its last part; leave words that only look like paths, as ``/encoder/MatMul``.

    Nodes of a graph have such names. A word counts as a path if its first part exists.
    """
    parts = re.split(_SEPARATOR, path.rstrip("\\/"))
    beginning = os.sep.join(parts[:2])  # noqa: PTH118 (the first part of an absolute path is empty)
    # Path.exists raises where a part is too long for a name.
    if len(parts) < 3 or not os.path.exists(beginning):  # noqa: PTH110
        return path
    return "…" if parts[1] in _HOMES and len(parts) == 3 else f"…/{parts[-1]}"
