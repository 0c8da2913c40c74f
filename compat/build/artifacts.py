"""The cache of derived files: exports, quantised graphs, reference outputs.

An artifact is a folder named by the hash of everything that determines it: the job and its code,
its arguments, the weights and recordings that go in, the artifacts that the job starts from, the
versions of the packages that it uses. Each artifact is built in a process of its own, so that
exporting a graph adds neither time nor memory to the process that is being measured. The finished
folder is moved into place in one step, so that parallel workers and interruptions leave either a
whole artifact or none.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from compat.build import nursery
from compat.contract.cache import CACHE, cache_folder
from compat.contract.digests import code_digest, digest
from compat.contract.errors import CompatError
from compat.contract.named import module_of, name_of, resolve
from compat.contract.source import Derived, Job
from compat.processes import child_environment, ending

_BUILDING = "COMPAT_BUILDING"
"""Environment variable that is set in builders, where artifacts are built in the same process."""


class ArtifactError(CompatError):
    """A derived file could not be built. The message begins with the cause."""


def _ignore(awaited: str, builder_pids: Sequence[int]) -> None:
    pass


on_wait: Callable[[str, Sequence[int]], None] = _ignore
"""Callback ``(awaited, builder_pids)``, called whenever the set of artifacts that this process
waits for changes; ``awaited`` describes them and is empty when there are none. The worker forwards
it, so that the parent pauses the stage's deadline and ignores the builders' memory."""


class _Waits:
    """The artifacts that this process waits for, in any of its threads, and the seconds of waiting.

    Seconds in which several threads wait at the same time are counted once.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0
        self._lock = threading.Lock()
        self._awaited: dict[object, tuple[str, int | None]] = {}

    @contextlib.contextmanager
    def __call__(self, description: str) -> Iterator[Callable[[int], None]]:
        """Count the block as waiting for an artifact.

        Yields:
            A function to call with the process number of the artifact's builder.
        """
        key = object()

        def note(builder_pid: int | None) -> None:
            with self._lock:
                if not self._awaited:
                    self._since = time.perf_counter()
                self._awaited[key] = description, builder_pid
                self._report()

        note(None)
        try:
            yield note
        finally:
            with self._lock:
                del self._awaited[key]
                if not self._awaited:
                    self.seconds += time.perf_counter() - self._since
                self._report()

    def _report(self) -> None:
        descriptions = ", ".join(description for description, _ in self._awaited.values())
        on_wait(descriptions, [pid for _, pid in self._awaited.values() if pid is not None])


_waits = _Waits()


def seconds_building() -> float:
    """Return the seconds for which this process has waited for artifacts to be built."""
    return _waits.seconds


def package_versions(*distributions: str) -> list[str]:
    """Return ``name==version`` of each distribution, or ``name absent``."""
    versions = []
    for name in distributions:
        try:
            versions.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    return versions


@dataclass(frozen=True)
class Artifact:
    """A derived file, which a job makes. The artifact's name is known before it is built."""

    job: Job
    """Called as ``job(folder, **arguments)`` in a builder."""
    arguments: Mapping[str, Any]
    """JSON values."""
    packages: Sequence[str] = ()
    """Python distributions whose versions determine the bytes, such as ``onnxscript``."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of the contents that the arguments only name: ``{"model": …, "corpus": …}``."""
    made_from: Sequence[Derived] = ()
    """Artifacts that the job starts from. The job may fetch no others."""
    threads: int = 0
    """Threads of the builder; 0 lets the libraries choose. Their number does not change the bytes,
    and is no part of the name."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the bytes; ``artifact.json`` keeps it."""
        return {
            "job": name_of(self.job),
            "arguments": dict(self.arguments),
            "inputs": dict(self.inputs),
            "made_from": sorted(artifact.name for artifact in self.made_from),
            "code": code_digest(module_of(self.job)),
            "packages": package_versions(*self.packages),
        }

    @cached_property
    def name(self) -> str:
        """Name of its folder in the cache, such as ``compress-1f0c…``."""
        return f"{name_of(self.job).partition(':')[2]}-{digest(self.identity)}"

    def fetch(self) -> Path:
        """Return the artifact's folder, which is built first if the cache lacks it.

        Raises:
            ArtifactError: the builder failed, the cache cannot be written, or the job that this
                process is running does not list this artifact in ``made_from``.
        """
        import filelock

        if _under_way and self.name not in _under_way[-1][1]:
            raise ArtifactError(
                f"{_under_way[-1][0]} starts from {self.name}, which its identity lacks, so that "
                "a change of it would be missed: name it in `made_from`. If the code was changed "
                "meanwhile, run again."
            )
        folder = cache_folder() / self.name
        if _complete(folder):
            return folder
        with _waits(described(self.identity["job"], self.arguments)) as note_builder:
            lock = filelock.FileLock(str(folder) + ".lock")
            with _writing_cache():
                cache_folder().mkdir(parents=True, exist_ok=True)
                lock.acquire()
            try:
                if not _complete(folder):
                    _build(self.identity, folder, self.threads, note_builder)
            finally:
                lock.release()
        return folder


def side_by_side(fetches: Sequence[Callable[[], object]], at_once: int) -> None:
    """Call functions that fetch artifacts, ``at_once`` of them at a time.

    Most jobs use one processor core. Inside a builder the functions are called one after the other,
    because a builder makes the artifacts that it needs in its own process.
    """
    if os.environ.get(_BUILDING):
        at_once = 1
    with ThreadPoolExecutor(max(1, at_once)) as pool:
        for _ in pool.map(lambda fetch: fetch(), fetches):
            pass


def described(job: str, arguments: Mapping[str, Any]) -> str:
    """Return a job and its arguments in words, such as ``reference:make whisper-tiny seeded fp64``.

    Args:
        job: the job's function, ``module:function``.
        arguments: the job's arguments, of which only model, graph, point and scheme are shown.
    """
    words = {**arguments, **arguments.get("reference", {})}
    shown = [words[k] for k in ("variant", "weights", "graph", "point", "scheme") if k in words]
    return " ".join(map(str, (job.rsplit(".", 1)[-1], *shown)))


@contextlib.contextmanager
def _writing_cache() -> Iterator[None]:
    """Raise :class:`ArtifactError` with the remedy for an :class:`OSError` inside the block.

    The block must only write to the cache. It must not run a job, whose errors have other remedies.
    """
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
    identity: Mapping[str, Any],
    folder: Path,
    threads: int,
    note_builder: Callable[[int], None],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with _writing_cache():
        part = tempfile.mkdtemp(prefix=folder.name + ".", suffix=".part", dir=folder.parent)
    building = Path(part)
    request = {name: identity[name] for name in ("job", "arguments", "made_from")}
    request["folder"] = str(building)
    started = time.time()
    try:
        if os.environ.get(_BUILDING):
            run_job(request)
        else:
            _build_in_process(request, threads, note_builder)
        facts = {**identity, "seconds": round(time.time() - started, 3), "built": started}
        with _writing_cache():
            (building / "artifact.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _build_in_process(
    request: Mapping[str, Any], threads: int, note_builder: Callable[[int], None]
) -> None:
    line = json.dumps(request).encode() + b"\n"
    command = [sys.executable, "-m", "compat.build.builder"]
    with contextlib.ExitStack() as stack:
        # Some libraries delete their temporary files when the interpreter ends. A builder leaves by
        # os._exit, which skips that: its temporary folder is deleted here.
        temporary = tempfile.TemporaryDirectory(prefix="compat-", ignore_cleanup_errors=True)
        folder = stack.enter_context(temporary)
        environment = {**child_environment(threads), _BUILDING: "1", "TMPDIR": folder}
        process = stack.enter_context(nursery.builder(command, environment))
        note_builder(process.pid)
        with contextlib.suppress(OSError):  # A builder that has died already printed the cause.
            process.input.write(line)
        printed = process.output.read().decode(errors="replace")
        code = process.wait()
    if code != 0:
        *before, cause = printed.strip().splitlines() or ["it said nothing"]
        if code < 0:
            cause = f"the builder {ending(code)}; it last printed: {cause}"
        tail = "\n".join(before)[-4000:]
        raise ArtifactError(f"{request['job']} failed: {cause}\n{tail}".strip())


_under_way: list[tuple[str, Sequence[str]]] = []
"""The jobs that this process is running, outermost first, each with the names of the artifacts that
it may fetch. Jobs nest in a builder, which builds the artifacts that its job needs itself."""


def run_job(request: Mapping[str, Any]) -> None:
    """Call a job's function in this process.

    Args:
        request: ``job`` (``module:function``), ``folder``, ``arguments``, and in ``made_from`` the
            names of the artifacts that the job may fetch.
    """
    _under_way.append((request["job"], request["made_from"]))
    try:
        resolve(request["job"])(Path(request["folder"]), **request["arguments"])
    finally:
        _under_way.pop()


@dataclass(frozen=True)
class Entry:
    """One finished artifact in the cache: size in bytes, and last change in Unix seconds."""

    folder: Path
    job: str
    arguments: Mapping[str, Any]
    bytes: int
    used: float


def entries() -> Iterator[Entry]:
    """Yield every finished artifact in the cache, in the order of the folders' names."""
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
    """Delete the artifacts whose job or arguments contain ``match``, and return the bytes freed.

    An empty ``match`` deletes every artifact, unfinished ones, locks and parsed code included.
    """
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
            elif path.suffix in {".lock", ".json"}:  # JSON files hold parsed code: made anew.
                path.unlink(missing_ok=True)
    return freed


def folder_bytes(folder: Path) -> int:
    """Return the total size in bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
