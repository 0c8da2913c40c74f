"""Which observation counts for a check of a case on a machine, and which run describes a case.

Every choice is made by a total order, so that the order in which files are read never matters.
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
"""Thoroughness by the name of a profile; names of other versions rank lowest."""

OWN = {
    "corpus": "own corpus",
    "thresholds": "other limits",
    "expectations": "own expectations",
    "checkpoint": "own checkpoint",
}
"""What a header names as a person's own, in the words that a cell shows."""

Key = tuple[str, str, str]
"""Machine, case id, check."""

_LATER_PROCESS = re.compile("gw[1-9][0-9]*")
"""What pytest-xdist calls the processes of a parallel run after the first, which is ``gw0``."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The observation that counts for one machine, case and check."""

    run: Run
    observation: Observation


def run_key(run: Run) -> str:
    """Return what names one process of a run."""
    return f"{run.header.run}.{run.header.worker}"


def choose(runs: Iterable[Run]) -> dict[Key, Chosen]:
    """Return the observation that counts for every machine, case and check.

    ``runs`` are audited ones. What was measured on the machine that it names outranks what was
    measured on another, then a measurement a skip, then what rests on the shipped corpus,
    thresholds and checkpoints a person's own, then the higher version of check and scorer, then a
    whole profile a quick one, then what decides something an inconclusive timing, then the fuller
    profile, then the newer observation; what is left is ordered by run and content, so that no
    file order shows.
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
    """Whether one thing comes after another, by its order, or by its content if that is equal."""
    if order != other_order:
        return order > other_order
    return msgspec.json.encode(one) > msgspec.json.encode(other)


def moment(text: str) -> datetime:
    """Return a date to order by: as a moment, since equal moments are written in several ways."""
    return instant(text) or datetime.min.replace(tzinfo=UTC)


def own_inputs(header: Header, case: str) -> tuple[str, ...]:
    """Return what a person replaced of the inputs of a case, in words; empty for standard ones."""
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
"""Who speaks for an observation: one results file, or the first process of a parallel run."""


def _first_process(run: Run) -> Source:
    return (run.header.machine, run.header.run)


def file_of(run: Run) -> Source:
    """Return what tells a results file from all others."""
    return (str(run.path), run.header.machine, run.header.run, run.header.worker)


def heard(run: Run) -> tuple[Source, ...]:
    """Return whose plans speak for what a run observed.

    Its own, and of a parallel run those of the first process, which alone writes what all of them
    were to measure. Whoever merely calls himself a process of a run has no say in it.
    """
    parallel = _LATER_PROCESS.fullmatch(run.header.worker)
    return (file_of(run), _first_process(run)) if parallel else (file_of(run),)


def speaking(run: Run) -> tuple[Source, ...]:
    """Return as whom a run's plans speak."""
    first = run.header.worker == "gw0"
    return (file_of(run), _first_process(run)) if first else (file_of(run),)


def describing(
    runs: Iterable[Run], chosen: Mapping[Key, Chosen], current: Mapping[str, int] = VERSIONS
) -> dict[tuple[str, str], tuple[CaseFacts, Run]]:
    """Return the facts of every planned case, by machine and case id, and the run that gives them.

    Runs of which more observations of the case count come first, then newer ones: a run that only
    plans a case does not say what others measured.
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
