"""The cache of derived files: exports, quantised graphs, reference outputs.

An artifact is a folder named by the hash of everything that determines it: the job, its
arguments, the bytes of the weights and the code, the versions of the packages that make it. It
is built in a process of its own, so that exporting a graph neither slows nor fattens the process
that is being measured, and moved into place in one step, so that parallel workers and
interruptions leave either a whole artifact or none.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.build import nursery
from compat.contract.digests import digest
from compat.processes import CACHE, child_environment, ending

_BUILDING = "COMPAT_BUILDING"


class ArtifactError(Exception):
    """A derived file could not be built; the message ends with what the builder said."""


def _nobody(building: str, builders: Sequence[int]) -> None:
    pass


told: Callable[[str, Sequence[int]], None] = _nobody
"""Told what this process waits to have built, and by which processes once there are any; at the
end that it is nothing any more (``""``). A worker passes it on: the time and the memory of a
builder are the suite's own, and not those of the case."""


class _Waits:
    """What this process waits to have built, in any of its threads, and how long it has waited."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0
        self._lock = threading.Lock()
        self._awaited: dict[object, tuple[str, int | None]] = {}

    @contextlib.contextmanager
    def __call__(self, building: str) -> Iterator[Callable[[int], None]]:
        """Wait for something; gives a function that is told which process builds it."""
        this = object()

        def know(builder: int | None) -> None:
            with self._lock:
                if not self._awaited:
                    self._since = time.perf_counter()
                self._awaited[this] = building, builder
                self._tell()

        know(None)
        try:
            yield know
        finally:
            with self._lock:
                del self._awaited[this]
                if not self._awaited:
                    self.seconds += time.perf_counter() - self._since
                self._tell()

    def _tell(self) -> None:
        names = ", ".join(name for name, _ in self._awaited.values())
        told(names, [builder for _, builder in self._awaited.values() if builder is not None])


_waits = _Waits()


def seconds_building() -> float:
    """Return how long this process has waited for artifacts to be built, in seconds."""
    return _waits.seconds


def cache_folder() -> Path:
    """Return the cache's folder: ``$COMPAT_CACHE``, else the user's cache folder."""
    import platformdirs

    named = os.environ.get(CACHE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("compat"))


def fetch(
    job: str,
    arguments: Mapping[str, Any],
    fingerprint: Sequence[str],
    threads: int = 0,
) -> Path:
    """Return the folder of an artifact, building it first if it is not there.

    Args:
        job: ``module:function``, called as ``function(folder, **arguments)`` in a builder process.
        arguments: JSON values, part of the identity.
        fingerprint: whatever else determines the bytes: versions, hashes of weights and code.
        threads: number of threads for the builder; 0 leaves it to the libraries.

    Raises:
        ArtifactError: the builder failed, or the cache cannot be written.
    """
    import filelock

    identity = {"job": job, "arguments": dict(arguments), "fingerprint": list(fingerprint)}
    name = f"{job.rsplit(':', 1)[1]}-{digest(identity)}"
    folder = cache_folder() / name
    if _complete(folder):
        return folder
    with _waits(described(job, arguments)) as built_by:
        lock = filelock.FileLock(str(folder) + ".lock")
        with _writing_cache():
            cache_folder().mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            if not _complete(folder):
                _build(job, arguments, identity, folder, threads, built_by)
        finally:
            lock.release()
    return folder


def side_by_side(fetches: Sequence[Callable[[], object]], at_once: int) -> None:
    """Call functions that fetch artifacts, so many at once: most jobs use one processor.

    A job that fetches does so one after the other, as it builds them itself.
    """
    if os.environ.get(_BUILDING):
        at_once = 1
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        for _ in pool.map(lambda fetched: fetched(), fetches):
            pass


def described(job: str, arguments: Mapping[str, Any]) -> str:
    """Return what a job makes, as ``reference:make whisper-tiny seeded fp64``."""
    words = {**arguments, **arguments.get("reference", {})}
    shown = [words[k] for k in ("variant", "weights", "graph", "point", "scheme") if k in words]
    return " ".join(map(str, (job.rsplit(".", 1)[-1], *shown)))


@contextlib.contextmanager
def _writing_cache() -> Iterator[None]:
    """Name cache and remedy where writing to it fails. Errors of a job are no such errors."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"cannot write the cache {cache_folder()}: {error.strerror or error}. "
            f"Free some space (`compat cache clear`) or name another folder in ${CACHE}."
        ) from error


def _complete(folder: Path) -> bool:
    return (folder / "artifact.json").is_file()


def _build(
    job: str,
    arguments: Mapping[str, Any],
    identity: Mapping[str, Any],
    folder: Path,
    threads: int,
    built_by: Callable[[int], None],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with _writing_cache():
        part = tempfile.mkdtemp(prefix=folder.name + ".", suffix=".part", dir=folder.parent)
    building = Path(part)
    started = time.time()
    try:
        if os.environ.get(_BUILDING):
            run_job(job, building, arguments)
        else:
            _build_in_process(job, arguments, building, threads, built_by)
        facts = {**identity, "seconds": round(time.time() - started, 3), "built": started}
        with _writing_cache():
            (building / "artifact.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _build_in_process(
    job: str,
    arguments: Mapping[str, Any],
    building: Path,
    threads: int,
    built_by: Callable[[int], None],
) -> None:
    request = {"job": job, "folder": str(building), "arguments": dict(arguments)}
    line = json.dumps(request).encode() + b"\n"
    environment = {**child_environment(threads), _BUILDING: "1"}
    with nursery.builder([sys.executable, "-m", "compat.build.builder"], environment) as process:
        built_by(process.pid)
        with contextlib.suppress(OSError):  # One that is dead already has said why.
            process.input.write(line)
        said = process.output.read().decode(errors="replace")
        code = process.wait()
    if code != 0:
        *before, cause = said.strip().splitlines() or ["it said nothing"]
        if code < 0:
            cause = f"the builder {ending(code)}; it last printed: {cause}"
        tail = "\n".join(before)[-4000:]
        raise ArtifactError(f"{job} failed: {cause}\n{tail}".strip())


def run_job(job: str, folder: Path, arguments: Mapping[str, Any]) -> None:
    """Call a job's function in this process."""
    module, function = job.split(":")
    loaded = sys.modules.get(module) or importlib.import_module(module)
    getattr(loaded, function)(folder, **arguments)


@dataclass(frozen=True)
class Entry:
    """One artifact in the cache."""

    folder: Path
    job: str
    arguments: Mapping[str, Any]
    bytes: int
    used: float


def entries() -> Iterator[Entry]:
    """Yield every artifact in the cache, unfinished ones left out."""
    root = cache_folder()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            facts = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        except (OSError, ValueError):
            continue
        used = folder.stat().st_mtime
        yield Entry(folder, facts.get("job", "?"), facts.get("arguments", {}), size, used)


def clear(match: str = "") -> int:
    """Delete the artifacts whose job or arguments contain ``match``; return the bytes freed."""
    freed = 0
    for entry in list(entries()):
        if match in entry.job or match in json.dumps(entry.arguments):
            shutil.rmtree(entry.folder, ignore_errors=True)
            freed += entry.bytes
    root = cache_folder()
    if not match and root.is_dir():
        for path in root.iterdir():
            if path.suffix == ".part":
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix == ".lock":
                path.unlink(missing_ok=True)
    return freed


def folder_bytes(folder: Path) -> int:
    """Return the size of every file below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
