"""Compressed results files: published ones are packed by Zstandard, and gzip is read as well.

Zstandard packs them better, because predictions of different cases are much alike but lie further
apart than the 32 KiB that gzip sees. Both formats are standards that DuckDB and pandas read. A
running process writes plain text, so that an interruption loses nothing.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compat.judge.problems import ResultsError

SUFFIX = ".zst"
"""Suffix of a published results file, after ``.jsonl``."""
LEVEL = 19
"""Compression level: the highest of 22 whose unpacking takes no more memory than the file."""

READ = ("gzip", "Zstandard")
"""Formats that :func:`unpacked` unpacks, by the names that :func:`packing` returns."""

_CHUNK = 2**20
_WINDOW_LOG = 26
"""A packed file may ask for 2 to this power of bytes (64 MiB) of memory, and no more."""
_GZIP = b"\x1f\x8b"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_OTHERS = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}


class Damaged(Exception):
    """Packed data ends too early, or breaks the rules of its format."""


def packing(data: bytes | bytearray) -> str:
    """Return the name of the format that packed the data, from its first bytes; empty if none."""
    known = {_GZIP: "gzip", _ZSTANDARD: "Zstandard", **_OTHERS}
    return next((name for magic, name in known.items() if data.startswith(magic)), "")


def pack(data: bytes) -> bytes:
    """Return data packed by Zstandard: the same bytes for the same data and library."""
    zstd = _zstd()
    kind = zstd.CompressionParameter
    packed: bytes = zstd.compress(
        data, options={kind.compression_level: LEVEL, kind.checksum_flag: 1}
    )
    return packed


def unpacked(data: bytes, limit: int) -> Iterator[bytes]:
    """Yield unpacked parts of gzip or Zstandard data, until they exceed ``limit`` bytes.

    Raises:
        Damaged: the rest cannot be unpacked. The parts that were yielded before are sound.
    """
    size = 0
    with _opened(data) as (file, errors):
        while size <= limit:
            try:
                part = file.read1(_CHUNK)
            except errors as error:
                raise Damaged(str(error)) from error
            if not part:
                return
            size += len(part)
            yield part


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Any, tuple[type[Exception], ...]]]:
    """Open packed data as a file, with the exceptions that its reading may raise."""
    if data.startswith(_GZIP):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            yield file, (EOFError, OSError, zlib.error)
        return
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    with zstd.ZstdFile(io.BytesIO(data), options=options) as opened:
        yield opened, (EOFError, zstd.ZstdError)


def _zstd() -> Any:
    try:
        from backports import zstd
    except ImportError as error:
        raise ResultsError(
            "Results packed by Zstandard need the package backports.zstd.",
            "Install compat again, or `pip install backports.zstd`.",
            tally="files that cannot be unpacked here",
        ) from error
    return zstd
