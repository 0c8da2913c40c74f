"""Make the two sides of a comparison: two collections, or two named parts of one collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from compat.contract.case import Recipe
from compat.contract.errors import CompatError
from compat.judge.results import Run
from compat.report import text
from compat.report.audit import audit, instant
from compat.report.choosing import Chosen, choose

Dimension = Literal["", "run", "machine", "commit", "version", "variant", "target", "recipe"]
"""The dimension in which two sides differ; empty for two collections of the same machines."""

Key = tuple[str, str, str, str, str]
"""Machine, ``variant@weights``, target, recipe and check; the part that differs is empty."""

_PART: dict[str, int] = {"machine": 0, "variant": 1, "target": 2, "recipe": 3}
NEWEST, BEFORE = "latest", "previous"
"""Names of the newest run, and of all runs of its machine before it."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its counting observations by a key that both sides share."""

    name: str
    found: Mapping[Key, Chosen]
    planned: frozenset[Key]
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides, and the dimension in which they differ."""

    before: Side
    after: Side
    dimension: Dimension
    problems: tuple[str, ...]


def of_collections(before: tuple[str, Sequence[Run]], after: tuple[str, Sequence[Run]]) -> Sides:
    """Return two collections as sides.

    ``before`` and ``after`` are a name and the runs. If each side has only one machine, and these
    differ, machines are compared; otherwise each machine is compared with itself.
    """
    audited = [audit(runs) for _, runs in (before, after)]
    machines = [{run.header.machine for run in one.runs} for one in audited]
    apart = all(len(one) == 1 for one in machines) and machines[0] != machines[1]
    dimension: Dimension = "machine" if apart else ""
    sides = [
        _side(name, one.runs, dimension)
        for (name, _), one in zip((before, after), audited, strict=True)
    ]
    problems = tuple(problem.text for one in audited for problem in one.problems)
    return Sides(sides[0], sides[1], dimension, problems)


def of_names(runs: Sequence[Run], before: str, after: str) -> Sides:
    """Return two named parts of one collection as sides.

    A name is that of a run, machine, commit, version (``torch==2.9.0``), variant, target or recipe;
    ``latest`` and ``previous`` name the newest run, and all earlier runs of its machine.

    Raises:
        CompatError: a name fits nothing, or the two names fit no common dimension.
    """
    audited = audit(runs)
    named = {name: _fitting(audited.runs, name) for name in (before, after)}
    for dimension in ("run", "machine", "commit", "version", "variant", "target", "recipe"):
        if all(dimension in found for found in named.values()):
            parts = [named[name][dimension] for name in (before, after)]
            across = _one_machine(parts[0]) and _one_machine(parts[1])
            across = across and parts[0][0].header.machine != parts[1][0].header.machine
            names = zip((before, after), parts, strict=True)
            sides = [_side(name, part, dimension, across) for name, part in names]
            problems = tuple(problem.text for problem in audited.problems)
            return Sides(sides[0], sides[1], dimension, problems)
    for name, found in named.items():
        if not found:
            raise CompatError(
                f"{text.one_line(name, 80)} is no file, and no run, machine, commit, version, "
                "variant, target or recipe of these results.",
                "`compat query 'select * from runs'` names the runs and machines.",
            )
    kinds = " and ".join(f"{text.one_line(n, 40)} is a {next(iter(f))}" for n, f in named.items())
    raise CompatError(f"{kinds}: these are not compared.", "Name two of one kind.")


def _fitting(runs: Sequence[Run], name: str) -> dict[str, list[Run]]:
    """Return the dimensions that a name fits, each with the parts of the runs that belong to it."""
    package, _, version = name.partition("==")
    ways: dict[str, Callable[[Run], bool]] = {
        "run": lambda run: len(name) > 7 and run.header.run.startswith(name),
        "machine": lambda run: len(name) > 2 and run.header.machine.startswith(name),
        "commit": lambda run: len(name) > 4 and run.header.commit.startswith(name),
        "version": lambda run: bool(version) and run.header.versions.get(package) == version,
    }
    if name in (NEWEST, BEFORE):
        return {"run": _newest(runs, name)}
    found = {way: [run for run in runs if fits(run)] for way, fits in ways.items()}
    parts: dict[str, Callable[[str], bool]] = {
        "variant": lambda case: name in (case.partition("/")[0], case.partition("@")[0]),
        "target": lambda case: case.split("/")[1:2] == [name],
        "recipe": lambda case: name in _recipes(case),
    }
    for part, holds in parts.items():
        found[part] = [_only(run, holds) for run in runs]
    return {way: some for way, some in found.items() if any(run.observations for run in some)}


def _newest(runs: Sequence[Run], name: str) -> list[Run]:
    """Return the newest run, or all earlier runs of its machine."""
    if not runs:
        raise CompatError("there are no results.", "Run `compat matrix` first, or name some.")
    last = max(runs, key=lambda run: (_instant(run), run.header.run)).header
    if name == NEWEST:
        return [run for run in runs if run.header.run == last.run]
    others = [run for run in runs if run.header.machine == last.machine]
    earlier = [run for run in others if run.header.run != last.run]
    if not earlier:
        raise CompatError(
            f"{last.run} is the only run of machine {last.machine}, so nothing comes before it.",
            "Name two sides yourself: two runs, machines or commits.",
        )
    return earlier


def _instant(run: Run) -> float:
    moment = instant(run.header.started)
    return moment.timestamp() if moment else 0.0


def _recipes(case: str) -> set[str]:
    recipe = "/".join(case.split("/")[2:])
    return {recipe, Recipe(recipe).precision} if recipe else set()


def _only(run: Run, holds: Callable[[str], bool]) -> Run:
    """Return a run with only the cases that belong to a side."""
    return replace(
        run,
        planned=tuple(plan for plan in run.planned if holds(plan.case.id)),
        observations=tuple(one for one in run.observations if holds(one.case)),
    )


def _one_machine(runs: Iterable[Run]) -> bool:
    return len({run.header.machine for run in runs}) == 1


def _side(name: str, runs: Iterable[Run], dimension: Dimension, across: bool = False) -> Side:
    """Return one side; with ``across`` its only machine is compared with the other side's."""
    runs = list(runs)
    found: dict[Key, Chosen] = {}
    for (machine, case, check), chosen in sorted(choose(runs).items()):
        # Several cases may have one key, such as the recipes of one precision: the first is taken.
        found.setdefault(_key("" if across else machine, case, check, dimension), chosen)
    planned = {
        _key("" if across else run.header.machine, plan.case.id, check, dimension)
        for run in runs
        for plan in run.planned
        for check in plan.checks
    }
    machines = tuple(sorted({run.header.machine for run in runs if run.observations}))
    return Side(name, found, frozenset(planned), machines)


def _key(machine: str, case: str, check: str, dimension: Dimension) -> Key:
    model, _, rest = case.partition("/")
    target, _, recipe = rest.partition("/")
    parts = [machine, model, target, recipe]
    if dimension in _PART:
        parts[_PART[dimension]] = ""
    machine, model, target, recipe = parts
    return machine, model, target, recipe, check
