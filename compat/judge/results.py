"""The results file: one JSON object a line, flushed as each check ends.

Every pytest process appends to a file of its own, ``<run>.<worker>.jsonl``. The first line is a
:class:`Header`; then one :class:`Planned` per selected case, a :class:`Started` before each check
and an :class:`Observation` after it. Files of any number of processes and machines merge by
reading them all, in any order. Unknown fields are ignored, so that newer files stay readable.

Results files come from anywhere. Names that become part of a path are checked as they are read, so
that those of a :class:`Run` are safe to use. Lines and observations have limits, so that pages and
tables made of them stay finite.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from compat.contract.case import Case, Recipe
from compat.judge.migrations import MIGRATIONS, migrated, schema_of
from compat.judge.migrations import SCHEMA_VERSION as SCHEMA_VERSION
from compat.judge.problems import Problems
from compat.judge.problems import ResultsError as ResultsError
from compat.judge.result_files import MIB, Content, content, find
from compat.judge.sharing import Shared
from compat.processes import no_collection

MAX_LINE = 16 * MIB
"""Bytes of one line; the longest published one has 0.4 MiB, nearly all of it predictions."""
MAX_VALUES = 100_000
"""Values of one line without its predictions. All are shown; published lines have up to 140."""
MAX_PREDICTED = 1_000_000
"""Values of one line with its predictions; published ones have up to 52,000."""
MAX_DEPTH = 32
"""Lists and objects inside one another; published lines have four."""

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

Count = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""A whole number that pages show as it is."""


class CaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a case for reports, which have no catalog (the model may be out of tree)."""

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
    is_host: bool = False
    """Whether the device is the host's processor although it has a column of its own, as WebNN's
    may be."""

    @property
    def quantised(self) -> bool:
        """Whether any component of the recipe is quantised."""
        return Recipe(self.recipe).quantised


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
    threads: Count
    parallel: bool
    hashes: dict[str, str] = {}
    """Content hashes of corpus, thresholds and stress inputs; weights are hashed per case."""
    own: tuple[str, ...] = ()
    """Inputs that a person put in place of the shipped ones: ``corpus``, ``thresholds`` (beside the
    shipped ones), ``checkpoint:VARIANT``. Such results never replace standard ones."""


class Planned(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="planned", tag_field="kind"):
    """A case that this run set out to measure, with the checks that apply to it."""

    case: CaseFacts
    checks: tuple[str, ...]


class Started(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="started", tag_field="kind"):
    """A line written before a check begins. A check without an observation after it was cut off."""

    case: str
    check: str
    time: str


class Limit(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One metric held against its threshold."""

    metric: str
    value: float | None
    strict: float
    relaxed: float
    direction: Literal["at_least", "at_most"]
    level: Level
    reason: str
    interval: tuple[float, float] | None = None
    """The interval of ``value``, if the interval was judged instead of the value."""


class MetricFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The declaration of a task's metric: see :class:`compat.metrics.Metric`."""

    unit: str = "number"
    better: str = ""
    primary: bool = False


class Observation(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="observation", tag_field="kind"
):
    """The result of one check of one case."""

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
    metrics: dict[str, MetricFacts] = {}
    """Unit and direction of the values that a task declares, by name. Empty in older files, whose
    units follow from the names."""
    limits: tuple[Limit, ...] = ()
    samples: dict[str, list[float]] = {}
    """Raw samples, for instance seconds of every timed round."""
    predictions: list[Any] = []
    threads: Count = 0
    batch: Count = 1
    time: str = ""
    seconds: float = 0.0
    expected: str = ""
    """The id of the expectation that matched, if any."""
    scorer: int | None = None
    """Version of the scorer behind the values, if it differs from the header's."""


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


def file_name(header: Header) -> str:
    """Return the name of a run's results file.

    Raises:
        ResultsError: the name of the run or of its worker could lead to another folder.
    """
    problem = _name_problem(header, "run", "worker")
    if problem:
        raise ResultsError(f"no results file can be named: {problem}.")
    return f"{header.run}.{header.worker}.jsonl"


def scorer_of(header: Header, one: Observation) -> int:
    """Return the version of the scorer behind an observation; 0 if it is not known."""
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

    A file holds one run when it is written, and several if files were joined. A header that differs
    from the one before it in more than its time begins another run. Lines without a usable header
    before them belong to no run.

    Raises:
        ResultsError: the file cannot be opened, has no usable header, or is of a newer schema.
    """
    return _runs(path, content(path), predictions=True)


class _Unreadable(Exception):
    """A line that cannot be used, and the plural under which it is counted."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class _Lean(Observation, frozen=True, kw_only=True, gc=False, tag="observation", tag_field="kind"):
    """An observation decoded without its predictions, which are four fifths of a file."""

    predictions: msgspec.Raw = msgspec.Raw()  # type: ignore[assignment]


_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
_LEAN: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Header | Planned | Started | _Lean)
_NONE: list[Any] = []
_NOTHING: dict[str, Any] = {}
_OBSERVED = ("case", "check", "reason", "remedy", "executed")
_REPEATED: Mapping[type, tuple[str, ...]] = {
    Header: ("machine", "arguments"),
    Started: ("case", "check"),
    Observation: _OBSERVED,
    _Lean: _OBSERVED,
    Limit: ("metric", "strict", "relaxed", "reason"),
    Planned: ("case", "checks"),
}
"""Fields whose values repeat from line to line, so that equal ones can be shared in memory."""
_MEASURED = ("values", "samples", "metrics")
_TREES: Mapping[type, tuple[str, ...]] = {
    Header: ("facts", "versions", "hashes"),
    Observation: _MEASURED,
    _Lean: _MEASURED,
}
"""Fields that are much like those of the line before of the same machine, or case and check."""
_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))


def _decoded(text: bytes, schema: Any, predictions: bool = True) -> tuple[Line, Any]:
    """Return one line and the schema that it was written in.

    ``schema`` is that of the line before it. Without ``predictions`` an observation has none.

    Raises:
        _Unreadable: the line exceeds the limits, or is no sound JSON of a known kind.
    """
    if len(text) > MAX_LINE:
        raise _Unreadable(
            "lines that are too long",
            f"the line has more than {MAX_LINE // MIB} MiB. Measure its case again, "
            "on a smaller corpus or in fewer rounds.",
        )
    brackets = text.translate(None, _NO_BRACKETS)
    # An upper bound of the number of values: each has a comma before it, or the bracket that opens
    # its list or object. Commas in strings count too; for a short line its length is bound enough.
    most = len(text) if len(text) <= MAX_VALUES else text.count(b",") + len(brackets)
    if most > MAX_PREDICTED:
        raise _too_many(MAX_PREDICTED, "")
    try:
        # A line that is examined below is decoded whole.
        whole = most > MAX_VALUES or not _is_flat(brackets)
        lean = not predictions and not whole
        line, schema = _line(text.removeprefix(codecs.BOM_UTF8), schema, lean)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _Unreadable("lines that are no sound JSON of a known kind", str(error)) from error
    if whole:
        _examine(line)
    if not predictions and isinstance(line, Observation):
        # Nobody else has the line yet, so that a frozen object may still be changed.
        msgspec.structs.force_setattr(line, "predictions", _NONE)
    return line, schema


def _line(text: bytes, schema: Any, lean: bool) -> tuple[Line, Any]:
    """Return one line in the current schema, and the schema that it was written in."""
    if schema not in MIGRATIONS:
        line = (_LEAN if lean else _DECODER).decode(text)
        if not isinstance(line, Header) or line.schema not in MIGRATIONS:
            return line, line.schema if isinstance(line, Header) else schema
    tree = msgspec.json.decode(text)
    schema = schema_of(tree, schema)
    line = msgspec.convert(migrated(tree, schema), Line)
    return line, schema


def _share(line: Any, shared: Shared) -> None:
    """Replace parts of a line by equal ones of the lines before it.

    Nobody else may have the line yet, since it is changed.
    """
    kind = type(line)
    for name in _REPEATED.get(kind, ()):
        value = getattr(line, name)
        known = shared.known.setdefault(value, value)
        if known is not value:
            msgspec.structs.force_setattr(line, name, known)
    for name in _TREES.get(kind, ()):
        tree = getattr(line, name)
        place = (line.machine, name) if kind is Header else (line.case, line.check, name)
        found = shared.like(place, tree) if tree else _NOTHING
        if found is not tree:
            msgspec.structs.force_setattr(line, name, found)
    for limit in getattr(line, "limits", ()):
        _share(limit, shared)


def _too_many(limit: int, where: str) -> _Unreadable:
    return _Unreadable(
        "lines of too many values",
        f"the line has more than {limit:,} values{where}. Measure its case again, on a smaller "
        "corpus or in fewer rounds.",
    )


def _is_flat(brackets: bytes) -> bool:
    """Whether the brackets of a line surely nest no deeper than :data:`MAX_DEPTH`."""
    if len(brackets) <= MAX_DEPTH:
        return True
    for _ in range(MAX_DEPTH):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets


def _examine(line: Line) -> None:
    """Count the values and the depth of a line that may exceed the limits.

    Raises:
        _Unreadable: the line exceeds one.
    """
    fields: dict[str, Any] = msgspec.to_builtins(line)
    predictions = fields.pop("predictions", [])
    for tree in (fields, predictions):
        level: list[Any] = [tree]
        count = depth = 0
        while level:
            count += len(level)
            depth += 1
            if depth > MAX_DEPTH:
                raise _Unreadable(
                    "lines that are nested too deep",
                    f"the line has lists and objects more than {MAX_DEPTH} deep. Delete it, and "
                    "measure its case again.",
                )
            level = [
                value
                for one in level
                if isinstance(one, dict | list | tuple)
                for value in (one.values() if isinstance(one, dict) else one)
            ]
        if tree is fields and count > MAX_VALUES:
            raise _too_many(MAX_VALUES, " besides its predictions")


def _runs(
    path: Path, found: Content, predictions: bool, shared: Shared | None = None
) -> tuple[Run, ...]:
    """Return the runs of a file's content, and add lines that cannot be read to its problems.

    Parts that other files have too are shared with them through ``shared``; None shares nothing.
    """
    parts: dict[bytes, _Part] = {}
    part: _Part | None = None
    lost = 0
    schema: Any = SCHEMA_VERSION
    problems = found.problems
    for number, text in enumerate(found.lines(), 1):
        if text.isspace():
            continue
        try:
            line, schema = _decoded(text, schema, predictions)
        except _Unreadable as error:
            problems.add(error.kind, f"{path.name}:{number}: {error}")
            headers = list(_HEADER.finditer(text, max(0, len(text) - MAX_LINE)))
            if not headers:
                continue
            # A torn line, with the header of another run appended to it: the lines that follow
            # may be that run's, and must not be taken for those of the run before.
            part = None
            try:
                line, schema = _decoded(text[headers[-1].start() :], schema, predictions)
            except _Unreadable:
                continue
        if shared is not None:
            _share(line, shared)
        if isinstance(line, Header):
            if line.schema > SCHEMA_VERSION:
                raise ResultsError(
                    f"{path} was written with results schema {line.schema}; this version reads "
                    f"up to {SCHEMA_VERSION}. Update compat to read it.",
                    tally="files of a newer schema",
                )
            problem = _name_problem(line, "run", "worker", "machine")
            if problem:
                part = None
                problems.add("headers with unusable names", f"{path.name}:{number}: {problem}")
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
        said = f" ({problems.lines(path.name)[0]})" if problems else ""
        raise ResultsError(
            f"{path} has no readable run header{said}, so its results cannot be attributed. "
            "Delete the file, or restore it from where it was copied.",
            tally="files without a readable run header",
        )
    if lost:
        problems.add(
            "files with lines that belong to no run",
            f"{path.name}: {lost} lines follow no usable run header and are left out",
        )
    return tuple(
        Run(
            path,
            one.header,
            tuple(one.planned),
            tuple(one.started if predictions else _telling(one)),
            tuple(one.observations),
            () if index else problems.lines(path.name),
        )
        for index, one in enumerate(parts.values())
    )


def _telling(part: _Part) -> list[Started]:
    """Return the starts that say more than that a check began before it ended, as nearly all do.

    A check that began or ended several times keeps all its starts.
    """
    begun = Counter((one.case, one.check) for one in part.started)
    ended: dict[tuple[str, str], str] = {}
    for one in part.observations:
        key = (one.case, one.check)
        ended[key] = one.time if key not in ended else ""
    return [
        one
        for one in part.started
        if begun[one.case, one.check] > 1
        or not _in_order(part.header.started, one.time, ended.get((one.case, one.check), ""))
    ]


def _in_order(run: str, start: str, end: str) -> bool:
    """Whether dates are surely in order: of one form and time zone, their texts sort as they do."""
    alike = len(run) == len(start) == len(end) and run[-6:] == start[-6:] == end[-6:]
    return alike and run <= start <= end


@dataclass(frozen=True)
class Collection:
    """The runs of all results files below some folders, and the problems in reading them."""

    runs: tuple[Run, ...] = ()
    problems: tuple[str, ...] = field(default=())
    """A few of each kind in full, the others counted."""


@no_collection()
def read_all(folders: Iterable[Path], predictions: bool = True) -> Collection:
    """Read every results file below ``folders``; parts that cannot be read become problems.

    Without ``predictions`` the models' predictions are skipped: reports do not need them, and they
    are four fifths of the data. Skipped too is the start of a check that then ended, which says
    nothing more; and what repeats is one object, so that nobody may change it.
    """
    runs: list[Run] = []
    problems = Problems()
    shared = None if predictions else Shared()
    for path in find(folders, problems):
        try:
            found = content(path)
            runs.extend(_runs(path, found, predictions, shared))
            problems.extend(found.problems)
        except ResultsError as error:
            problems.add(error.tally, str(error))
    runs.sort(key=lambda run: (run.header.started, run.header.run, run.header.worker))
    return Collection(tuple(runs), problems.lines())


def schema() -> str:
    """Return the JSON Schema of a line of the results file."""
    return json.dumps(msgspec.json.schema(Line), indent=2, sort_keys=True)


def facts_of(case: Case) -> CaseFacts:
    """Return the facts of a case that the results file stores."""
    return CaseFacts(
        id=case.id,
        family=case.family.name,
        task=case.family.task,
        row=case.family.row,
        variant=case.variant.name,
        weights=case.weights,
        hardware=case.target.hardware,
        runtime=case.target.runtime,
        target=case.target.name,
        recipe=case.recipe.name,
        precision=case.recipe.precision,
        evidence=case.target.evidence,
        on_host_cpu=case.target.on_host_cpu,
        published=case.variant.published,
        headline=case.variant.name == case.family.headline,
        stand_in=case.variant.name == case.family.stand_in,
        timed=case.family.timed,
        parameters=case.variant.parameters,
        is_host=case.target.is_host,
    )
