"""Choose the observation that counts for each check of a case, and the run that describes a case.

Every choice follows a total order, so that the order in which files are read never matters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from compat.contract.profile import PROFILES
from compat.judge.checks import VERSIONS
from compat.judge.results import CaseFacts, Header, Observation, Run, scorer_of
from compat.report import text
from compat.report.audit import instant, other_machine
from compat.report.findings import TASK

PROFILE_RANK = {name: profile.rank for name, profile in PROFILES.items()}
"""Maps the name of a profile to its thoroughness; names that this version lacks rank lowest."""

OWN = {
    "corpus": "own corpus",
    "thresholds": "other limits",
    "expectations": "own expectations",
    "checkpoint": "own checkpoint",
}
"""Maps the kind of an input that a person replaced to the words that a cell shows."""

Key = tuple[str, str, str]
"""Machine, case id, check."""

_LATER_PROCESS = re.compile("gw[1-9][0-9]*")
"""Names that pytest-xdist gives the later processes of a parallel run; the first is ``gw0``."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The observation that counts for one machine, case and check."""

    run: Run
    observation: Observation


def run_key(run: Run) -> str:
    """Return the name of one process of a run: ``run.worker``."""
    return f"{run.header.run}.{run.header.worker}"


def choose(runs: Iterable[Run]) -> dict[Key, Chosen]:
    """Return the observation that counts for every machine, case and check.

    ``runs`` are audited. Of two observations the one counts that comes first in this order:

    1. its file's facts fit the machine that the file names;
    2. it is a measurement, not a skip;
    3. it rests on the shipped corpus, thresholds and checkpoints, not on a person's own;
    4. its check, then its scorer, has the higher version;
    5. its profile is a whole one, not quick;
    6. it is conclusive;
    7. its profile is the fuller one;
    8. it is newer.

    Ties are broken by run and content, so that the order of files never matters.
    """
    ranked: dict[Key, tuple[tuple[object, ...], Chosen]] = {}
    for run in runs:
        header = run.header
        on_this_machine = not other_machine(header)
        for one in run.observations:
            order = (
                on_this_machine,
                one.status != "skipped",
                not own_inputs(header, one.case),
                one.check_version,
                scorer_of(header, one) if one.check == TASK else 0,
                PROFILE_RANK.get(header.profile, 0) > 0,
                one.status != "inconclusive",
                PROFILE_RANK.get(header.profile, 0),
                moment(one.time or header.started),
                header.run,
                header.worker,
            )
            key = (header.machine, one.case, one.check)
            if key not in ranked or _after(order, one, ranked[key][0], ranked[key][1].observation):
                ranked[key] = (order, Chosen(run, one))
    return {key: chosen for key, (_, chosen) in ranked.items()}


def _after(
    order: tuple[object, ...], one: object, other_order: tuple[object, ...], other: object
) -> bool:
    """Whether one thing comes after another: by its order, and where that is equal by content."""
    if order != other_order:
        return order > other_order
    return msgspec.json.encode(one) > msgspec.json.encode(other)


def moment(text: str) -> datetime:
    """Parse a date for sorting, because equal moments are written in several ways.

    A text that is no date sorts before all dates.
    """
    return instant(text) or datetime.min.replace(tzinfo=UTC)


def own_inputs(header: Header, case: str) -> tuple[str, ...]:
    """Return in words which inputs of a case a person replaced; empty where all are standard."""
    if not header.own:
        return ()
    variant, _, weights = case.partition("/")[0].partition("@")
    found = []
    for entry in header.own:
        kind, _, which = entry.partition(":")
        if kind != "checkpoint" or (which in ("", variant) and weights != "seeded"):
            found.append(OWN.get(kind, f"own {text.one_line(kind, 40)}"))
    return tuple(sorted(set(found)))


Source = tuple[str, ...]
"""Key of a plan's author: one results file, or the first process of a parallel run."""


def _first_process(run: Run) -> Source:
    return (run.header.machine, run.header.run)


def file_of(run: Run) -> Source:
    """Return a key that is unique to one results file."""
    return (str(run.path), run.header.machine, run.header.run, run.header.worker)


def heard(run: Run) -> tuple[Source, ...]:
    """Return the sources whose plans describe the observations of a run.

    These are the run's own file and, for a later process of a parallel run, the first process,
    which alone writes the plan of all of them. A file that merely claims the name of a run does not
    describe it.
    """
    parallel = _LATER_PROCESS.fullmatch(run.header.worker)
    return (file_of(run), _first_process(run)) if parallel else (file_of(run),)


def speaking(run: Run) -> tuple[Source, ...]:
    """Return the sources that the plans of a run belong to."""
    first = run.header.worker == "gw0"
    return (file_of(run), _first_process(run)) if first else (file_of(run),)


def describing(
    runs: Iterable[Run], chosen: Mapping[Key, Chosen], current: Mapping[str, int] = VERSIONS
) -> dict[tuple[str, str], tuple[CaseFacts, Run]]:
    """Return the facts of every planned case, by machine and case id, and the run that gives them.

    The run with the most counting observations of a case gives its facts; among equals, the newest.
    So a run that only plans a case does not describe what others measured.
    """
    support = Counter(
        (machine, case, source)
        for (machine, case, check), one in chosen.items()
        if check in current
        for source in heard(one.run)
    )
    best: dict[tuple[str, str], tuple[tuple[object, ...], CaseFacts, Run]] = {}
    for run in runs:
        header = run.header
        sources = speaking(run)
        for plan in run.planned:
            key = (header.machine, plan.case.id)
            order = (
                max(support[(*key, source)] for source in sources),
                moment(header.started),
                header.run,
                header.worker,
            )
            if key not in best or _after(order, plan.case, best[key][0], best[key][1]):
                best[key] = (order, plan.case, run)
    return {key: (case, run) for key, (_, case, run) in best.items()}
