"""Layouts: the forms in which people keep corpora, and what a reader of one gives.

A reader finds out what a folder says of its recordings and opens no audio. It hands over *entries*
in the terms of a NeMo manifest, whatever its own files call them, so that everything after it is
one path: ``choosing`` takes some of many, ``checking`` holds each against its audio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from compat.inputs.audio import CorpusError

DEPTH = 6
"""Levels of folders that are searched for files."""


@dataclass(frozen=True)
class Entry:
    """What is said of one recording, before its audio was looked at."""

    where: str
    """File and line, for messages."""
    fields: dict[str, Any]
    """``audio_filepath`` and whatever else is known: ``id``, ``text``, ``lang``, ``duration``,
    ``offset``, ``segments`` as [start, end, speaker], ``uem`` and ``noscore`` as [start, end]."""


@dataclass(frozen=True)
class Part:
    """Recordings that belong together, which become one test set."""

    folder: Path
    """Relative names of audio files begin here."""
    entries: Sequence[Entry]
    split: str = ""
    """Name of the part in a corpus that has several: ``test``, ``train``."""
    trials: Path | None = None
    """File of pairs to compare, if there is one."""
    total: int = field(default=0, kw_only=True)
    """Recordings that there are; 0 where that is the number of entries."""
    root: Path | None = field(default=None, kw_only=True)
    """No audio lies outside of it; None for ``folder``."""

    @property
    def count(self) -> int:
        return self.total or len(self.entries)


@dataclass(frozen=True)
class Layout:
    """One form of a corpus. ``path`` is a folder, or a file where a form is one file."""

    name: str
    """What people call it."""
    claims: Callable[[Path], bool]
    """Whether a path has this form: by names of files and their first lines, quickly."""
    read: Callable[[Path, Path], Sequence[Part]]
    """Read a path that was claimed; the second path is the corpus that a person named."""
    deep: bool = False
    """Whether it looks for files far below, so that a form of a folder inside comes first."""
    splits: bool = True
    """Whether it is a data set with parts to train on, which are no test sets."""


def files(folder: Path, endings: Sequence[str], depth: int = DEPTH) -> Iterator[Path]:
    """Yield the files below a folder that end so, in order; hidden ones are left out.

    ``._name`` files are those that macOS adds to archives: their endings promise what they lack.
    """
    for name, folders, found in os.walk(folder):
        inside = Path(name)
        deep = len(inside.relative_to(folder).parts) >= depth
        folders[:] = [] if deep else sorted(one for one in folders if not one.startswith("."))
        for file in sorted(found):
            if not file.startswith(".") and file.lower().endswith(tuple(endings)):
                yield inside / file


def inside(folder: Path, name: str, where: str, root: Path | None = None) -> Path:
    """Return the path of a file that a corpus names.

    Args:
        folder: relative names begin here.
        name: as it is written.
        where: file and line, for messages.
        root: the file must lie in it; None for ``folder``.

    Raises:
        CorpusError: it lies outside, also by symbolic links, or is no name of a file.
    """
    path = folder / name
    try:
        within = path.resolve().is_relative_to((root or folder).resolve())
        path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"{where}: {name[:60]!r} names no file ({error}).") from error
    if not within:
        other = ", or name a folder with --corpus that holds both" if root else ""
        raise CorpusError(f"{where}: {name} lies outside the corpus: move it inside{other}.")
    return path


_TRAINED = ({"test", "eval"}, {"dev", "valid", "validation", "val"}, {"train", "training"})
"""Words in the names of parts: of several kinds the first that is there is the one to test on."""
_LEFT = {"validated", "other", "invalidated"}
"""Common Voice's lists of all that its parts were taken from."""


def evaluated(names: Collection[str]) -> list[str]:
    """Return the parts of a data set that models are tested on, and those of no known kind.

    Parts to train on, and the rest of a collection, are taken only where there are no others.
    """
    words = {name: set(re.findall(r"[a-z]+", name.lower())) for name in names}
    for kind in (*_TRAINED, _LEFT):
        if any(words[name] & kind for name in names):
            others = set().union(*_TRAINED, _LEFT)
            return [name for name in names if words[name] & kind or not words[name] & others]
    return list(names)


def plain_name(file: str) -> str:
    """Return a name that an output file can have for an audio file: ``a/b.flac`` gives ``a-b``."""
    path = PurePosixPath(file.strip().replace("\\", "/"))
    stem = path.with_suffix("").as_posix() if path.name else file
    return re.sub(r'[<>:"/|?*\x00-\x1f\x7f]+', "-", stem).strip(" .-")
