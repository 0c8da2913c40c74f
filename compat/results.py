"""The results file: one JSON object a line, flushed as each check ends.

Every pytest process appends to a file of its own, ``<run>.<worker>.jsonl``. The first line is a
:class:`Header`; then one :class:`Planned` per selected case, a :class:`Started` before each check
and an :class:`Observation` after it. Files of any number of processes and machines merge by
reading them all, in any order. Unknown fields are ignored, so that newer files stay readable.

Results files come from anywhere. What names a file or a folder is checked as it is read, so that
everything that is made of a :class:`Run` is safe to use in a path.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_HEADER = re.compile(rb'\{\s*"kind"\s*:\s*"run"')

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
    own: tuple[str, ...] = ()
    """What a person put in the place of what the project ships: ``corpus``, ``thresholds`` (beside
    the shipped ones), ``checkpoint:VARIANT``. Such results never replace standard ones."""


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
    scorer: int | None = None
    """Version of the scorer behind the values, where it is not the header's."""


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


def file_name(header: Header) -> str:
    """Return the name of a run's results file.

    Raises:
        ResultsError: the run or its worker is called what could lead to another folder.
    """
    problem = _name_problem(header, "run", "worker")
    if problem:
        raise ResultsError(f"no results file can be named: {problem}.")
    return f"{header.run}.{header.worker}.jsonl"


def scorer_of(header: Header, one: Observation) -> int:
    """Return the version of the scorer behind an observation; 0 where it is not said."""
    if one.scorer is not None:
        return one.scorer
    said = header.versions.get("scorer", "")
    return int(said) if re.fullmatch("[0-9]{1,9}", said) else 0


def _name_problem(header: Header, *names: str) -> str:
    """Say which name of a header cannot be part of a path; empty where all can."""
    for what in names:
        name: str = getattr(header, what)
        if not _NAME.fullmatch(name):
            return f"the {what} is called {name[:80]!r}, not letters, digits and . _ - alone"
    return ""


class Writer:
    """Appends lines to one results file, each flushed to the operating system at once."""

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / file_name(header)
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
    """Read the one run of a results file as it was written.

    Raises:
        ResultsError: as :func:`read_runs`, or the file holds several runs.
    """
    runs = read_runs(path)
    if len(runs) > 1:
        names = ", ".join(f"{run.header.run}.{run.header.worker}" for run in runs)
        raise ResultsError(
            f"{path} holds {len(runs)} runs ({names}), as where files were joined. "
            "Use the files as they were written."
        )
    return runs[0]


@dataclass
class _Part:
    """The lines of one run, while its file is being read."""

    header: Header
    planned: list[Planned] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)


def read_runs(path: Path) -> tuple[Run, ...]:
    """Read a results file, skipping and naming lines that cannot be read.

    A file holds one run as it is written, and several where files were joined. A header that
    differs from the one before it, but for its time, begins another run; lines without a usable
    header before them belong to none.

    Raises:
        ResultsError: the file cannot be opened, has no usable header, or is of a newer schema.
    """
    parts: dict[bytes, _Part] = {}
    part: _Part | None = None
    problems: list[str] = []
    lost = 0
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
            headers = list(_HEADER.finditer(text))
            if not headers:
                continue
            # A torn line and the header of what was appended to it: from here on another run
            # may speak, and the one before it must not be taken for it.
            part = None
            try:
                line = decoder.decode(text[headers[-1].start() :])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
        if isinstance(line, Header):
            if line.schema > SCHEMA_VERSION:
                raise ResultsError(
                    f"{path} was written with results schema {line.schema}; this version reads "
                    f"up to {SCHEMA_VERSION}. Update compat to read it."
                )
            problem = _name_problem(line, "run", "worker", "machine")
            if problem:
                part = None
                problems.append(f"{path.name}:{number}: {problem}")
                continue
            key = msgspec.json.encode(msgspec.structs.replace(line, started=""))
            part = parts.setdefault(key, _Part(line))
        elif part is None:
            lost += 1
        elif isinstance(line, Planned):
            part.planned.append(line)
        elif isinstance(line, Started):
            part.started.append(line)
        else:
            part.observations.append(line)
    if not parts:
        said = f" ({problems[0]})" if problems else ""
        raise ResultsError(
            f"{path} has no readable run header{said}, so its results cannot be attributed. "
            "Delete the file, or restore it from where it was copied."
        )
    if lost:
        problems.append(f"{path.name}: {lost} lines follow no usable run header and are left out")
    return tuple(
        Run(
            path,
            one.header,
            tuple(one.planned),
            tuple(one.started),
            tuple(one.observations),
            () if index else tuple(problems),
        )
        for index, one in enumerate(parts.values())
    )


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
            found = read_runs(path)
        except ResultsError as error:
            problems.append(str(error))
            continue
        runs.extend(found)
        problems.extend(problem for run in found for problem in run.problems)
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
