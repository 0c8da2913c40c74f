"""Layouts: the forms in which people keep corpora, and the entries that a reader returns.

A reader reads the lists and transcripts of a folder and opens no audio. It returns *entries* with
the fields of a NeMo manifest, so that all later steps are the same for every layout: ``choosing``
selects entries, and ``checking`` checks each against its audio.
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
    """One recording as its layout describes it, before its audio is opened."""

    where: str
    """File and line of the entry, for messages."""
    fields: dict[str, Any]
    """``audio_filepath`` and whatever else is known: ``id``, ``text``, ``lang``, ``duration``,
    ``offset``, ``segments`` as [start, end, speaker], ``uem`` and ``noscore`` as [start, end]."""


@dataclass(frozen=True)
class Part:
    """Recordings that belong together, which become one test set."""

    folder: Path
    """Folder where relative names of audio files begin."""
    entries: Sequence[Entry]
    split: str = ""
    """Name of the part in a corpus that has several: ``test``, ``train``."""
    trials: Path | None = None
    """File with pairs of recordings to compare, if there is one."""
    total: int = field(default=0, kw_only=True)
    """Number of recordings in the corpus; 0 where it is the number of entries."""
    root: Path | None = field(default=None, kw_only=True)
    """Folder in which all audio must lie; None for ``folder``."""

    @property
    def count(self) -> int:
        return self.total or len(self.entries)


@dataclass(frozen=True)
class Layout:
    """One form of corpora. A path of it is a folder, or a file where the form is one file."""

    name: str
    """Usual name of the form, for messages."""
    claims: Callable[[Path], bool]
    """Whether a path has this form, judged quickly by file names and first lines."""
    read: Callable[[Path, Path], Sequence[Part]]
    """Read a claimed path; the second argument is the path of the corpus that a person named."""
    deep: bool = False
    """Whether it searches deep folders; then the forms of inner folders take precedence."""
    splits: bool = True
    """Whether its corpora have parts for training, which are not used as test sets."""


def files(folder: Path, endings: Sequence[str], depth: int = DEPTH) -> Iterator[Path]:
    """Yield the files below a folder with one of the endings, in order, without hidden files.

    Hidden files include the ``._name`` files that macOS adds to archives, which have the endings of
    audio but hold none.
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
        folder: the folder where relative names begin.
        name: the name as the corpus has it.
        where: file and line, for messages.
        root: the folder in which the file must lie; None for ``folder``.

    Raises:
        CorpusError: the file lies outside, also by symbolic links, or the name is no file name.
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
"""Words in the names of parts, by kind: the first kind that a corpus has is used for testing."""
_LEFT = {"validated", "other", "invalidated"}
"""Common Voice's lists of whole collections, from which its parts are taken."""


def evaluated(names: Collection[str]) -> list[str]:
    """Return the parts of a data set that are for testing, and the parts of unknown kind.

    Parts for training, and whole collections, are returned only where there are no others.
    """
    words = {name: set(re.findall(r"[a-z]+", name.lower())) for name in names}
    for kind in (*_TRAINED, _LEFT):
        if any(words[name] & kind for name in names):
            others = set().union(*_TRAINED, _LEFT)
            return [name for name in names if words[name] & kind or not words[name] & others]
    return list(names)


def plain_name(file: str) -> str:
    """Return a valid file name without ending for an audio file: ``a/b.flac`` gives ``a-b``."""
    path = PurePosixPath(file.strip().replace("\\", "/"))
    stem = path.with_suffix("").as_posix() if path.name else file
    return re.sub(r'[<>:"/|?*\x00-\x1f\x7f]+', "-", stem).strip(" .-")
