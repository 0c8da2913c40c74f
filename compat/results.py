"""The results file: one JSON object a line, flushed as each check ends.

Every pytest process appends to a file of its own, ``<run>.<worker>.jsonl``. The first line is a
:class:`Header`; then one :class:`Planned` per selected case, a :class:`Started` before each check
and an :class:`Observation` after it. Files of any number of processes and machines merge by
reading them all, in any order. Unknown fields are ignored, so that newer files stay readable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1

Status = Literal[
    "passed",
    "failed",
    "error",
    "timeout",
    "crashed",
    "out-of-memory",
    "unsupported",
    "known-failure",
    "unexpected-pass",
    "skipped",
    "inconclusive",
]
Level = Literal["strict", "relaxed", "failed"]


class CaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the report must know of a case without its catalog (the model may be out of tree)."""

    id: str
    family: str
    task: str
    row: str
    variant: str
    weights: str
    hardware: str
    runtime: str
    target: str
    recipe: str
    precision: str
    evidence: str
    on_host_cpu: bool
    published: bool
    headline: bool
    stand_in: bool
    timed: bool
    parameters: float = 0.0


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="kind"):
    """Provenance of one process of one run."""

    schema: int
    run: str
    worker: str
    started: str
    profile: str
    machine: str
    facts: dict[str, Any]
    versions: dict[str, str]
    commit: str
    arguments: tuple[str, ...]
    threads: int
    parallel: bool
    hashes: dict[str, str] = {}
    """Content hashes of corpus, thresholds and stress inputs; weights are hashed per case."""


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned", tag_field="kind"):
    """A case that this run set out to measure, with the checks that apply to it."""

    case: CaseFacts
    checks: tuple[str, ...]


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started", tag_field="kind"):
    """Written before a check begins: one without an observation after it was cut off."""

    case: str
    check: str
    time: str


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One metric held against its threshold."""

    metric: str
    value: float | None
    strict: float
    relaxed: float
    direction: Literal["at_least", "at_most"]
    level: Level
    reason: str


class Observation(msgspec.Struct, frozen=True, kw_only=True, tag="observation", tag_field="kind"):
    """What one check of one case found."""

    case: str
    check: str
    check_version: int
    status: Status
    level: Level | None = None
    """How far the check met its thresholds; None where nothing was judged."""
    reason: str = ""
    remedy: str = ""
    executed: str = ""
    """The recipe that really ran, as the runtime reports it."""
    values: dict[str, Any] = {}
    limits: tuple[Limit, ...] = ()
    samples: dict[str, list[float]] = {}
    """Raw samples, for instance seconds of every timed round."""
    predictions: list[Any] = []
    threads: int = 0
    batch: int = 1
    time: str = ""
    seconds: float = 0.0
    expected: str = ""
    """The id of the expectation that matched, if any."""


Line = Header | Planned | Started | Observation


@dataclass(frozen=True)
class Run:
    """One results file as read back."""

    path: Path
    header: Header
    planned: tuple[Planned, ...] = ()
    started: tuple[Started, ...] = ()
    observations: tuple[Observation, ...] = ()
    problems: tuple[str, ...] = ()
    """Lines that could not be read, each with its number and the reason."""


class ResultsError(Exception):
    """A results file or folder cannot be used; the message names it and the remedy."""


class Writer:
    """Appends lines to one results file, each flushed to the operating system at once."""

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / f"{header.run}.{header.worker}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(
                self.path,
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0),
                0o644,
            )
        except OSError as error:
            raise ResultsError(
                f"cannot write results to {folder}: {error.strerror}. "
                "Choose a folder that you can write to with --results DIR."
            ) from error
        self.write(header)

    def write(self, line: Line) -> None:
        """Append one line in one system call; raise :class:`ResultsError` on a full disk."""
        data = msgspec.json.encode(line) + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise ResultsError(
                f"cannot append to {self.path}: {error.strerror}. What was written before is kept; "
                "free some space, then run the remaining cases again."
            ) from error

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> Run:
    """Read one results file, keeping every readable line and naming the others.

    Raises:
        ResultsError: the file has no readable header, or was written by a newer schema.
    """
    header: Header | None = None
    planned: list[Planned] = []
    started: list[Started] = []
    observations: list[Observation] = []
    problems: list[str] = []
    decoder = msgspec.json.Decoder(Line)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}.") from error
    for number, text in enumerate(lines, 1):
        try:
            line = decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            problems.append(f"{path.name}:{number}: {error}")
            continue
        match line:
            case Header():
                if line.schema > SCHEMA_VERSION:
                    raise ResultsError(
                        f"{path} was written with results schema {line.schema}; this version reads "
                        f"up to {SCHEMA_VERSION}. Update compat to read it."
                    )
                header = header or line
            case Planned():
                planned.append(line)
            case Started():
                started.append(line)
            case Observation():
                observations.append(line)
    if header is None:
        raise ResultsError(
            f"{path} has no readable run header, so its results cannot be attributed. "
            "Delete the file, or restore it from where it was copied."
        )
    return Run(path, header, tuple(planned), tuple(started), tuple(observations), tuple(problems))


@dataclass(frozen=True)
class Collection:
    """Every results file below some folders, and what could not be read."""

    runs: tuple[Run, ...] = ()
    problems: tuple[str, ...] = field(default=())


def read_all(folders: Iterable[Path]) -> Collection:
    """Read every ``*.jsonl`` file below ``folders``; unreadable files become problems."""
    runs: list[Run] = []
    problems: list[str] = []
    for path in _files(folders):
        try:
            run = read(path)
        except ResultsError as error:
            problems.append(str(error))
            continue
        runs.append(run)
        problems.extend(run.problems)
    runs.sort(key=lambda run: (run.header.started, run.header.run, run.header.worker))
    return Collection(tuple(runs), tuple(problems))


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in folders:
        candidates = [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl"))
        for path in candidates:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def schema() -> str:
    """Return the JSON Schema of a line of the results file."""
    return json.dumps(msgspec.json.schema(Line), indent=2, sort_keys=True)
