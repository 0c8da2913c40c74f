"""Read text files that people wrote: UTF-8, plain or gzipped, and of limited size."""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from compat.inputs.audio import CorpusError

TEXT_BYTES = 256 << 20
"""Bytes of the largest text file, unpacked; a manifest of a million recordings fits."""


def read_text(path: Path) -> str:
    """Return the content of a text file, plain or ``.gz``, without a byte order mark.

    Raises:
        CorpusError: the file is no regular file, no UTF-8, damaged, or larger than
            :data:`TEXT_BYTES`.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # Opening a pipe may wait for ever.
            raise CorpusError(f"{path} is no regular file: remove it.")
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(TEXT_BYTES + 1)
        if len(content) > TEXT_BYTES:
            raise CorpusError(f"{path} is larger than {TEXT_BYTES >> 20} MiB: split the test set.")
        return content.decode().removeprefix("\ufeff")
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"cannot read {path}: {error}. Restore it.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"cannot read {path}: {error}. Save it as UTF-8 text.") from error


def raw_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not blank; blanks at its ends are kept.

    Only a line feed, with or without a carriage return, ends a line. A text may hold other
    characters at which Python would split lines.
    """
    for number, text in enumerate(read_text(path).split("\n"), 1):
        line = text.removesuffix("\r").lstrip("\ufeff")
        if line.strip():
            yield number, line


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not blank, without blanks at its ends.

    Byte order marks are removed from every line, because joined files have them inside.
    """
    for number, line in raw_lines(path):
        if stripped := line.strip().lstrip("\ufeff"):
            yield number, stripped


def beginning(path: Path, count: int = 1 << 16) -> str:
    """Return the first line of a text file, within ``count`` bytes; empty if it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(count)
    except (OSError, EOFError, zlib.error):
        return ""
    return content.decode(errors="replace").lstrip("\ufeff").partition("\n")[0].strip()
