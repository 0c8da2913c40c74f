"""The parts of a report: plain immutable data, ready to be rendered or written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compat.judge.claims import Outcome
from compat.judge.rating import Rating, State
from compat.judge.results import CaseFacts, MetricFacts, Observation
from compat.report.changes import Changes
from compat.report.evidence import Kind


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Provenance of one process of one run."""

    key: str
    """``run.worker``, unique in a report."""
    run: str
    worker: str
    machine: str
    started: str
    profile: str
    threads: int
    parallel: bool
    commit: str
    arguments: tuple[str, ...]
    versions: dict[str, str]
    hashes: dict[str, str]
    facts: dict[str, Any]
    observations: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine; its id is a hash of its facts."""

    id: str
    short: str
    """The shortest prefix of the id that is unique in the report."""
    name: str
    """Name for people: processor, instruction sets and short id."""
    facts: dict[str, Any]
    versions: dict[str, str]
    runs: tuple[RunFacts, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one check of one case on one machine."""

    case: CaseFacts
    check: str
    machine: str
    status: str
    """A written status, or one of the derived ``not-run``, ``cut-off`` and ``stale``."""
    reason: str
    anchor: str
    """The HTML id of the record on every page."""
    observation: Observation | None = None
    run: str = ""
    """Key of the run that observed it, ``run.worker``; empty where nothing was observed."""
    own: tuple[str, ...] = ()
    """Inputs that a person replaced, in words: ``own corpus``, ``other limits`` …"""

    @property
    def measured(self) -> bool:
        """Whether a current measurement exists, whatever its outcome."""
        return self.status not in ("not-run", "cut-off", "skipped", "stale")


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate of one configuration, with its state and the reason for it."""

    key: str
    name: str
    state: State
    reason: str
    strict: str
    relaxed: str
    said: str = ""
    """The reason in one sentence, with the number that matters."""
    evidence: tuple[str, ...] = ()
    """Anchors of the records that the gate rests on."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Headline numbers of a configuration; a number that was not measured is None.

    Names ending in ``_s`` are in seconds. ``rtf`` is seconds of work for a second of audio, and
    ``rtfx`` the inverse.
    """

    median_s: float | None = None
    interval_s: tuple[float, float] | None = None
    interval_coverage: float | None = None
    """Probability that the interval holds the median, 0 to 1; below 0.95 for fewer than six
    rounds."""
    rtf: float | None = None
    rtf_upper: float | None = None
    rtfx: float | None = None
    speed_up: float | None = None
    """Lower bound of the speed-up over the best accurate CPU configuration."""
    peak_bytes: float | None = None
    device_peak_bytes: float | None = None
    model_bytes: float | None = None
    share: float | None = None
    """Share of the work placed on the target, 0 to 1."""
    metric_case: str = ""
    """The ``variant@weights`` whose task metric and degradation these are: often the stand-in."""
    metric: str = ""
    declared: Mapping[str, MetricFacts] = field(default_factory=dict)
    """Units and directions of the task's metrics; empty for results that declare none."""
    metric_set: str = ""
    metric_value: float | None = None
    metric_interval: tuple[float, float] | None = None
    degradation: float | None = None
    degradation_interval: tuple[float, float] | None = None
    snr_db: float | None = None
    """The lowest signal-to-noise ratio of all compared outputs, in decibels."""
    seconds: tuple[float, ...] = ()
    """Raw latency samples, in seconds."""
    cold_s: float | None = None
    """Seconds of a cold start: import, load and first run."""
    first_token_s: float | None = None
    latency_status: str = ""
    executed: str = ""
    threads: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """Family, target and recipe on one machine: the unit that is rated."""

    id: str
    anchor: str
    row: str
    family: str
    task: str
    hardware: str
    runtime: str
    target: str
    recipe: str
    precision: str
    evidence: str
    on_host_cpu: bool
    machine: str
    machine_short: str
    variant: str
    """The ``variant@weights`` that was judged: the headline case's, the smaller one's where only
    that loads, or the stand-in's where only that was planned."""
    rating: Rating
    gates: tuple[Gate, ...]
    why: tuple[str, ...]
    """Sentences on what limits the rating, or on what is missing for one; never empty below
    High."""
    figures: Figures
    records: tuple[Record, ...]
    kind: Kind
    """Kind of evidence: where the configuration really ran."""
    machine_name: str
    measured: tuple[str, str]
    """Days of the oldest and the newest observation behind the gates, such as ``2026-11-28``;
    empty if there is none."""

    @property
    def name(self) -> str:
        """Variant, target, recipe and machine of the configuration."""
        return f"{self.variant}, {self.target} {self.recipe}, {self.machine_name}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the matrix on one kind of hardware."""

    row: str
    hardware: str
    slug: str
    """Name of the cell's files without suffix, safe for any row and hardware."""
    configurations: tuple[Configuration, ...] = ()
    """Configurations of the cell, the best first."""

    @property
    def best(self) -> Configuration | None:
        return self.configurations[0] if self.configurations else None

    @property
    def label(self) -> str:
        return self.best.rating.label if self.best else "Not measured"

    @property
    def sentence(self) -> str:
        """The rating and the configuration that earned it."""
        if self.best is None:
            return "Not measured: no run planned a case here."
        return f"{self.label}: {self.best.name}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage of one target: how many cases exist, were planned, and ran on any machine."""

    target: str
    hardware: str
    evidence: str
    known: int
    """Number of cases in the catalog or in the plan of a run."""
    planned: int
    measured: int
    reasons: tuple[str, ...]
    """Reasons why cases did not run, the most frequent first."""
    remedies: tuple[str, ...]
    never: tuple[str, ...]
    """Ids of the cases that nobody ever ran."""


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report: the matrix, its machines, coverage, claims and changes."""

    rule_version: int
    newest: str
    """Start of the newest run, UTC; empty without runs."""
    rows: tuple[str, ...]
    hardware: tuple[str, ...]
    cells: tuple[Cell, ...]
    """Cells of the matrix row by row, in the order of ``hardware``."""
    machines: tuple[Machine, ...]
    problems: tuple[str, ...] = field(default=())
    """Sentences on files and lines that could not be read, believed or attributed."""
    made: str = ""
    """Day on which the report was made, UTC."""
    coverage: tuple[Coverage, ...] = ()
    """Coverage of each target."""
    claims: tuple[Outcome, ...] = ()
    """Claims of guides with their verdicts; empty where they were not evaluated."""
    changes: Changes = field(default=Changes())
    """Changes since the last run; empty where runs were not compared."""

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        return tuple(one for cell in self.cells for one in cell.configurations)

    def cell(self, row: str, hardware: str) -> Cell:
        """Return one cell; raise ``KeyError`` where the report has none."""
        try:
            place = self.rows.index(row) * len(self.hardware) + self.hardware.index(hardware)
        except ValueError:
            raise KeyError((row, hardware)) from None
        return self.cells[place]
