"""Text files that people wrote: whole, as UTF-8, of a size that fits."""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from compat.inputs.audio import CorpusError

TEXT_BYTES = 256 << 20
"""Bytes of the largest text file, unpacked: a manifest of a million recordings."""


def read_text(path: Path) -> str:
    """Return a text file's content without the mark that Windows begins it with; ``.gz`` too.

    Raises:
        CorpusError: it is no regular file, no UTF-8, damaged, or larger than :data:`TEXT_BYTES`.
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
    """Yield the lines of a text that are not blank, blanks at their ends kept, and their numbers.

    Only line feeds end a line, with or without a carriage return: a text may hold other marks that
    Python takes for an end.
    """
    for number, text in enumerate(read_text(path).split("\n"), 1):
        line = text.removesuffix("\r").lstrip("\ufeff")
        if line.strip():
            yield number, line


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank without blanks at their ends, and their numbers.

    Windows begins files with a mark, which joined files have inside too.
    """
    for number, line in raw_lines(path):
        if stripped := line.strip().lstrip("\ufeff"):
            yield number, stripped


def beginning(path: Path, count: int = 1 << 16) -> str:
    """Return the first line of a text as far as it can be read; nothing where it cannot."""
    try:
        if not path.is_file():
            return ""
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(count)
    except (OSError, EOFError, zlib.error):
        return ""
    return content.decode(errors="replace").lstrip("\ufeff").partition("\n")[0].strip()
