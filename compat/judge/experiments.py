"""Stored answers of experiments: their measures, with machine, date and what disturbed them.

``compat experiment NAME --save`` writes one file, ``<run>.NAME.experiment.json``, into a folder of
results. It has the header of a results file, so that machine, versions, commit and date are said in
the same way, and one :class:`Finding` for each measure. A file may come from anybody, as a results
file may: it is read within limits, and the current version of an experiment comes from this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from compat.contract.untrusted import interval, number
from compat.judge.problems import Problems
from compat.judge.results import SCHEMA_VERSION, Header
from compat.metrics.timing import crowding

ENDING = ".experiment.json"
MAX_FILE = 2**20
"""Bytes of one file; an answer has a few thousand."""

VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "batches": 1,
        "beams": 1,
        "browsers": 1,
        "cache": 1,
        "chunks": 2,
        "decoding": 1,
        "ensemble": 1,
        "features": 2,
        "fusion": 1,
        "identities": 1,
        "live": 1,
        "long": 1,
        "parallel": 1,
        "pruning": 1,
        "seams": 1,
        "threads": 1,
        "times": 1,
        "wasm": 1,
    }
)
"""Experiment to version. It is raised when numbers of before can no longer be compared."""

_UNUSABLE = "answers of experiments that cannot be used"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One measure of an experiment."""

    measure: str
    """Its name, unique in the answer: ``speed-up of preallocated``."""
    value: float
    """A number in ``unit``; 1 or 0 for ``yes``."""
    unit: str = "ratio"
    """``ratio``, ``share``, ``seconds``, ``bytes``, ``count``, ``points`` or ``yes``."""
    interval: tuple[float, float] | None = None
    """95 % interval of ``value``; None where it is exact."""
    timed: bool = False
    """Whether the number rests on a clock, so that a busy machine decides nothing."""
    doubt: str = ""
    """Why nothing may be concluded from the number, for instance a software adapter; else empty."""
    detail: str = ""
    """The things that were compared, with model and input."""
    samples: dict[str, list[float]] = {}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of one experiment."""

    experiment: str
    version: int
    header: Header
    findings: tuple[Finding, ...]
    others: dict[str, float] = {}
    """``others_busy`` and ``processors``: how many processors other processes kept busy meanwhile;
    empty where that is not known."""
    seconds: float = 0.0

    @property
    def busy(self) -> str:
        """A sentence that other processes took the processors; empty if they did not.

        An experiment may use all processors, so that any other busy process disturbs it.
        """
        processors = number(self.others.get("processors"))
        return crowding(self.others, int(processors)) if processors else ""

    def finding(self, measure: str) -> Finding | None:
        return next((one for one in self.findings if one.measure == measure), None)


@dataclass(frozen=True, slots=True)
class Answers:
    """Every stored answer that counts, oldest first."""

    stored: tuple[Stored, ...] = ()
    problems: tuple[str, ...] = ()

    def newest(self, experiment: str, measure: str) -> dict[str, tuple[Stored, Finding]]:
        """Return for each machine the finding that counts, with its answer.

        The newest counts. A timed finding of a busy machine counts only if there is no other.
        """
        best: dict[str, tuple[tuple[bool, str], tuple[Stored, Finding]]] = {}
        for stored in self.stored:
            finding = stored.finding(measure)
            if stored.experiment != experiment or finding is None:
                continue
            order = (not (finding.timed and stored.busy), stored.header.started)
            machine = stored.header.machine
            if machine not in best or order > best[machine][0]:
                best[machine] = (order, (stored, finding))
        return {machine: found for machine, (_, found) in sorted(best.items())}


def file_name(stored: Stored) -> str:
    """Return the name of the file that keeps an answer."""
    return f"{stored.header.run}.{stored.experiment}{ENDING}"


def read_all(folders: Iterable[Path]) -> Answers:
    """Read every stored answer below ``folders``; a file that cannot be used becomes a problem.

    An answer of an older version of its experiment is one, unless the same machine has answered
    again since: then nobody has anything to do about it.
    """
    found: dict[tuple[str, str], Stored] = {}
    outdated: list[tuple[Path, Stored]] = []
    problems = Problems()
    for folder in folders:
        paths = sorted(folder.rglob(f"*{ENDING}")) if folder.is_dir() else [folder]
        for path in paths:
            if not path.name.endswith(ENDING) or not path.is_file():
                continue
            stored = _read(path)
            if isinstance(stored, str):
                problems.add(_UNUSABLE, f"{path.name}: {stored}")
            elif stored.version != VERSIONS[stored.experiment]:
                outdated.append((path, stored))
            else:
                found[stored.header.run, stored.experiment] = stored
    again = {(one.experiment, one.header.machine) for one in found.values()}
    for path, stored in outdated:
        if (stored.experiment, stored.header.machine) not in again:
            current = f"version {stored.version} of the experiment; {VERSIONS[stored.experiment]}"
            problems.add(_UNUSABLE, f"{path.name}: {current} is current. Run it again.")
    ordered = sorted(found.values(), key=lambda one: (one.header.started, one.header.run))
    return Answers(tuple(ordered), problems.lines())


def _read(path: Path) -> Stored | str:
    """Return the answer in a file, or the reason why the file cannot be used."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            return "it is larger than an answer of an experiment can be"
        stored = msgspec.json.decode(data, type=Stored)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"it cannot be read: {error}"
    header = stored.header
    if header.schema != SCHEMA_VERSION:
        return f"its schema is {header.schema}, and this version reads {SCHEMA_VERSION}"
    if not all(_NAME.fullmatch(name) for name in (header.run, header.machine, stored.experiment)):
        return "its run, machine or experiment is called what cannot be part of a path"
    if stored.experiment not in VERSIONS:
        return f"no experiment is called {stored.experiment}"
    for one in stored.findings:
        if number(one.value) is None or (one.interval and interval(one.interval) is None):
            return f"{one.measure} has a number that cannot be computed with"
    return stored
