"""Results files on disk: finding them below folders, and reading one within limits.

A folder of results comes from anywhere and may hold anything: links in a circle, pipes, devices,
archives that unpack to terabytes. Only regular files are opened, and no more of one is read than
:data:`MAX_FILE`.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compat.judge import packing
from compat.judge.problems import Problems, ResultsError

MIB = 2**20
MAX_FILE = 64 * MIB
"""Bytes of one file, unpacked; the largest published one has 4 MiB."""
MAX_LINES = 100_000
"""Lines of one file; the longest published one has 3,400."""

SUFFIXES = (".jsonl", ".jsonl.gz", f".jsonl{packing.SUFFIX}")
_PACKED = tuple(f".jsonl{suffix}" for suffix in (".xz", ".bz2", ".lz4", ".br", ".zip"))
_OTHERWISE = "files that are packed otherwise than by gzip or Zstandard"
_ENCODINGS = (
    # The longer mark first: that of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SPLIT = (
    "Split it at the end of a line, and let each part begin with the file's first line, the "
    "run header."
)


@dataclass(frozen=True)
class Content:
    """The content of a results file as UTF-8, and the problems of the parts that were left out."""

    data: bytes
    problems: Problems
    packing: str = ""
    """Format that the file is packed in, for instance ``gzip``; empty if it is not packed."""

    def lines(self) -> Iterator[bytes]:
        return iter(io.BytesIO(self.data))


def find(sources: Iterable[Path], problems: Problems) -> Iterator[Path]:
    """Yield results files: sources that are files, and those below sources that are folders.

    A file is yielded once, however many names it has. Links to folders are not followed below a
    source. Files that are packed in another format, and unreadable folders, go to ``problems``.
    """
    seen: set[str] = set()
    for source in sources:
        # Not Path.is_dir, which raises for a folder that may not be looked into.
        is_folder = os.path.isdir(source)  # noqa: PTH112
        for path in sorted(_below(source, problems)) if is_folder else [source]:
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                yield path


def _below(folder: Path, problems: Problems) -> Iterator[Path]:
    def unlisted(error: OSError) -> None:
        problems.add(
            "folders that cannot be listed",
            f"cannot list {error.filename}: {error.strerror}. Make it readable.",
        )

    for parent, _, names in os.walk(folder, onerror=unlisted):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield Path(parent, name)
            elif name.lower().endswith(_PACKED):
                problems.add(
                    _OTHERWISE,
                    f"{Path(parent, name)} is packed, and only gzip and Zstandard are read. "
                    "Unpack it.",
                )


def content(path: Path) -> Content:
    """Return a results file's content as UTF-8 without a mark, unpacked where it is packed.

    Parts beyond the limits are left out, and named in the problems of the content.

    Raises:
        ResultsError: it is no regular file, cannot be opened, or holds no line within the limits.
    """
    problems = Problems()
    try:
        data = _read(path)
    except OSError as error:
        raise ResultsError(
            f"cannot read {path}: {error.strerror}.",
            "Restore it, make it readable, or delete it.",
            tally="files that cannot be opened",
        ) from error
    size = len(data)
    packed_by = packing.packing(data)
    if packed_by:
        data = _unpacked(data, path, problems)
    cut = len(data) > MAX_FILE
    for mark, encoding in _ENCODINGS:
        if data.startswith(mark):
            data = _as_utf8(data[len(mark) :], encoding)
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    if cut:
        data = data[: data.rfind(b"\n", 0, MAX_FILE) + 1]
        _name_cut(path, data.count(b"\n"), size if packed_by else 0, problems)
    if data.count(b"\n") > MAX_LINES:
        lines = io.BytesIO(data)
        data = data[: sum(len(next(lines)) for _ in range(MAX_LINES))]
        problems.add(
            "files of too many lines",
            f"{path} holds more than {MAX_LINES:,} lines, of which the first are read. {SPLIT}",
        )
    return Content(data, problems, packed_by)


def _name_cut(path: Path, lines: int, packed: int, problems: Problems) -> None:
    """Add to problems that a file is too large; ``packed`` is its packed size in bytes, else 0.

    Raises:
        ResultsError: not even one line of it can be used.
    """
    kind = "files that are too large"
    said = f"{path} holds more than {MAX_FILE // MIB} MiB"
    if packed:
        said = f"{path} has {_size(packed)}, and unpacks to more than {MAX_FILE // MIB} MiB"
    if not lines:
        raise ResultsError(
            f"{said} without the end of a line, so it is no results file.",
            "Delete it, or restore it from where it was copied.",
            tally=kind,
        )
    unpack = "Unpack it first. " if packed else ""
    problems.add(kind, f"{said}, of which the first {lines:,} lines are read. {unpack}{SPLIT}")


def _size(count: int) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB // 10 else f"{-(-count // 1024):,} KiB"


def _read(path: Path) -> bytes:
    """Return at most :data:`MAX_FILE` + 1 bytes of a regular file: one more than may be used."""
    # Merely opening a pipe or a device may wait for ever, or do something.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ResultsError(
            f"{path} is no regular file but {_what(path)}. Move it out of the folder.",
            tally="files that are no regular files",
        )
    with path.open("rb", buffering=0) as file:
        data = bytearray()
        while len(data) <= MAX_FILE and (more := file.read(MAX_FILE + 1 - len(data))):
            data += more
    return bytes(data)


def _what(path: Path) -> str:
    mode = path.stat().st_mode
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket"))
    return next((name for check, name in kinds if check(mode)), "a device")


def _unpacked(data: bytes, path: Path, problems: Problems) -> bytes:
    """Unpack data up to the limit; damaged data is unpacked up to the damage, which is a problem.

    Raises:
        ResultsError: the data is packed in a format that is not read, or twice.
    """
    name = packing.packing(data)
    if name not in packing.READ:
        raise ResultsError(
            f"{path} is packed by {name}, and only gzip and Zstandard are read.",
            "Unpack it.",
            tally=_OTHERWISE,
        )
    parts: list[bytes] = []
    try:
        for part in packing.unpacked(data, MAX_FILE):
            parts.append(part)  # noqa: PERF402 (what came before the damage stays)
    except packing.Damaged as error:
        problems.add(
            "files whose packing is damaged",
            f"{path} cannot be unpacked to its end: {error}. Copy it again.",
        )
    result = b"".join(parts)
    if packing.packing(result):
        raise ResultsError(
            f"{path} is packed twice.", "Unpack it once.", tally="files that are packed twice"
        )
    return result


def _as_utf8(data: bytes, encoding: str) -> bytes:
    """Return text as UTF-8. Invalid parts stay invalid, so that only their lines are refused."""
    unit = 4 if "32" in encoding else 2
    whole = data[: len(data) // unit * unit]
    try:
        text = whole.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        text = whole.decode(encoding, "replace")
    return text.encode("utf-8", "surrogatepass")
