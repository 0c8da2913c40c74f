"""Results in object stores and on servers, read through fsspec: ``s3://bucket/results``.

Only files with the names of results are fetched, up to the size that is read of one, and stored
under names that this module chooses. fsspec and its packages take keys and end points of a store
from their own environment variables and files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.contract.untrusted import one_line
from compat.judge.problems import Problems, ResultsError
from compat.judge.result_files import MAX_FILE, SUFFIXES

MOST_FILES = 100_000
MOST_BYTES = 8 * 2**30
"""Bytes of all files together, as they are stored."""

PARQUET = ".parquet"
MAX_PARQUET = 2**30
_CHUNK = 2**22
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.+")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
_PACKAGES |= {"abfs": "adlfs", "http": "aiohttp", "https": "aiohttp"}


@dataclass(frozen=True, slots=True)
class Remote:
    """The address of results that are not on this disk."""

    address: str

    def __str__(self) -> str:
        return self.address


def is_remote(word: str) -> bool:
    """Whether a word is an address, as ``s3://bucket/results``, and no path."""
    return _ADDRESS.fullmatch(word) is not None


def fetch(remote: Remote, folder: Path, problems: Problems) -> Path:
    """Fetch results below an address into a new folder inside ``folder``; return that folder.

    Raises:
        ResultsError: the store cannot be entered or read, or there are no results.
    """
    store, root = _opened(remote)
    target = folder / f"{len(list(folder.iterdir())):04}"
    target.mkdir()
    total = count = 0
    try:
        for path in _listed(store, root):
            count += 1
            if count > MOST_FILES or total > MOST_BYTES:
                raise ResultsError(
                    f"{remote.address} holds more than {MOST_FILES:,} files or "
                    f"{MOST_BYTES // 2**30} GiB of results.",
                    "Name a part of it.",
                )
            name = _UNSAFE.sub("_", path.rpartition("/")[2])[-120:]
            limit = MAX_PARQUET if name.endswith(PARQUET) else MAX_FILE
            place = target if name.endswith(PARQUET) else target / f"{count:06}"
            place.mkdir(exist_ok=True)
            size = _copy(store, path, place / name, limit)
            total += size
            if size > limit:
                problems.add(
                    "files that are too large",
                    f"{path} in {remote.address} holds more than {limit // 2**20} MiB, of which "
                    "the first are read. Split it.",
                )
    except ResultsError:
        raise
    except Exception as error:  # Each store raises errors of its own package.
        raise _unreadable(remote, error) from error
    if not count:
        raise ResultsError(f"no results below {remote.address}.", "Name another address.")
    return target


def _opened(remote: Remote) -> tuple[Any, str]:
    protocol = remote.address.partition("://")[0]
    package = _PACKAGES.get(protocol, f"a package of fsspec for {protocol}")
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ResultsError(
            f"{remote.address} is read by fsspec, which is absent.",
            "pip install 'audio-compat[query]'",
        ) from error
    try:
        store, root = url_to_fs(remote.address)
    except (ImportError, ValueError) as error:
        raise ResultsError(
            f"{remote.address} cannot be read: {one_line(error, 200)}.",
            f"Install {package}, as `pip install {package}`." if protocol in _PACKAGES else "",
        ) from error
    except Exception as error:  # As above.
        raise _unreadable(remote, error) from error
    return store, str(root)


def _listed(store: Any, root: str) -> list[str]:
    """Return the paths of all results, in order; the address itself may be of one."""
    found = sorted(map(str, store.find(root)))
    if found == [root]:
        return found
    return [path for path in found if path.lower().endswith((*SUFFIXES, PARQUET))]


def _copy(store: Any, path: str, place: Path, limit: int) -> int:
    """Copy at most ``limit`` + 1 bytes of a file; the size that the store reports is not trusted.

    Returns the number of bytes that were copied; more than ``limit`` means that the file is larger.
    """
    size = 0
    with store.open(path, "rb") as source, place.open("wb") as copy:
        while size <= limit and (part := source.read(min(_CHUNK, limit + 1 - size))):
            size += copy.write(part)
    return size


def _unreadable(remote: Remote, error: Exception) -> ResultsError:
    said = one_line(f"{type(error).__name__}: {error}", 200)
    return ResultsError(
        f"{remote.address} cannot be read: {said}.",
        "Check the address, and the keys and end point that its package takes from the environment "
        "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL for S3).",
    )
