"""What of the results files counts: nothing that cannot be true, or that this code does not know.

A results file is a stranger's word. Whatever it claims may decide its own cells and no others, so
current versions come from the code, dates are held against the clock, and a run that is told in
two ways is believed in neither where they differ. What is left out is named, with its file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from compat.hardware.facts import machine_id
from compat.judge.checks import VERSIONS
from compat.judge.results import CaseFacts, Header, Observation, Planned, Run, scorer_of
from compat.metrics import SCORER_VERSION
from compat.report.findings import TASK

TOLERANCE = timedelta(days=1)
"""How far ahead of this machine's clock a date may be: clocks and time zones are set wrongly."""
STEP = timedelta(minutes=1)
"""How far a clock may be set back while a check runs."""

LONGEST = timedelta(days=30)
"""Longer than any check takes: a time beyond it was not measured."""

_UPDATE = "Update compat, or leave the file out."
_CLOCK = "Correct the clock that is wrong, or leave the file out."
_OUT = "Leave the file out, or measure again."

_MACHINE = re.compile("[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in one or several files that cannot be, and what became of it."""

    paths: tuple[Path, ...]
    text: str
    """Begins with the name of the file."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What is left of some runs, and what was wrong with the rest."""

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]


def audit(
    runs: Iterable[Run],
    current: Mapping[str, int] = VERSIONS,
    now: datetime | None = None,
) -> Audit:
    """Return what counts of some runs, each with its own problems added to it.

    ``current`` is the version that the code has of each check; checks that it lacks are an outside
    author's, of which any version from 1 on is taken.
    """
    now = now or datetime.now(UTC)
    sound: list[Run] = []
    problems: list[Problem] = []
    for run in runs:
        name = run.path.name
        reason = _header_problem(run.header, now)
        if reason:
            problems.append(Problem((run.path,), f"{name}: {reason}"))
            continue
        run, texts = _sound(run, current, now)
        own = [Problem((run.path,), f"{name}: {text}") for text in texts]
        other = other_machine(run.header)
        if other:
            text = (
                f"{name}: its machine is called {run.header.machine}, and its facts are those of "
                f"{other}: its results count only where nothing else is known. {_OUT}"
            )
            own.append(Problem((run.path,), text))
        problems += own
        sound.append(run)
    sound, contradictions = _told_once(sound)
    problems += contradictions
    by_path: dict[Path, list[str]] = defaultdict(list)
    for problem in problems:
        for path in problem.paths:
            by_path[path].append(problem.text)
    return Audit(
        tuple(replace(run, problems=(*run.problems, *by_path[run.path])) for run in sound),
        tuple(sorted(problems, key=lambda one: one.text)),
    )


def instant(text: str) -> datetime | None:
    """Return an ISO 8601 date as a moment, in UTC where it names no zone; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def other_machine(header: Header) -> str:
    """Return the machine that a header's facts give, if it is not the one that it names.

    Empty where they agree, and where that cannot be known: facts that are incomplete or of another
    form, an id that this code would not give.
    """
    given = _machine_of(header)
    return given if _MACHINE.fullmatch(header.machine) and given != header.machine else ""


def knows_machine(header: Header) -> bool:
    """Return whether a header's facts give the machine that it names."""
    return _machine_of(header) == header.machine


def _machine_of(header: Header) -> str:
    if not {"system", "cpu"} <= header.facts.keys():
        return ""
    try:
        return machine_id(header.facts)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        return ""  # A stranger's facts have any form.


def _header_problem(header: Header, now: datetime) -> str:
    """Say why nothing of a run counts; empty where something may."""
    started = instant(header.started)
    remedy = _OUT
    if header.schema < 1:
        reason = f"its schema is {header.schema}, and schemas begin at 1"
    elif header.threads < 0:
        reason = f"it says that it ran on {header.threads} threads"
    elif started is None:
        reason = f"it began at {_short(header.started)}, which is no date"
    elif started > now + TOLERANCE:
        reason = (
            f"it began on {_short(header.started)}, which is yet to come: here it is {_day(now)}"
        )
        remedy = _CLOCK
    else:
        return ""
    return f"{reason}. Nothing of it counts. {remedy}"


@dataclass(frozen=True, slots=True)
class _Fault:
    """One thing wrong with one line; the same kind is named once for a file."""

    kind: str
    example: str
    remedy: str = _OUT


def _sound(run: Run, current: Mapping[str, int], now: datetime) -> tuple[Run, list[str]]:
    """Return a run without the lines that cannot be, and what is wrong with those."""
    faults: dict[tuple[str, str], list[_Fault]] = defaultdict(list)
    began: dict[tuple[str, str], datetime] = {}
    beginning = instant(run.header.started)
    for one in run.started:
        moment = instant(one.time)
        if moment is not None:
            key = (one.case, one.check)
            began[key] = min(moment, began.get(key, moment))
    planned = []
    for plan in run.planned:
        if plan.case.id == _id(plan.case):
            planned.append(plan)
        else:
            example = f"{_short(plan.case.id)}, where they make {_short(_id(plan.case))}"
            kind = "with an id that is not made of variant, weights, target and recipe"
            faults["case", kind].append(_Fault(kind, example))
    misplaced = {p.case.id for p in run.planned} - {p.case.id for p in planned}
    observations = []
    for seen in run.observations:
        key = (seen.case, seen.check)
        if seen.case in misplaced:
            continue
        fault = _fault(run.header, seen, began.get(key, beginning), current, now)
        if fault is None:
            observations.append(seen)
        else:
            faults["observation", fault.kind].append(fault)
    counting = {(one.case, one.check) for one in observations}
    gone = {(one.case, one.check) for one in run.observations} - counting
    texts = [
        f"{len(alike)} {what}{'s' if len(alike) > 1 else ''} {kind} ({alike[0].example}): "
        f"left out. {alike[0].remedy}"
        for (what, kind), alike in sorted(faults.items())
    ]
    return _without(replace(run, planned=tuple(planned)), gone, observations), texts


def _without(run: Run, gone: set[tuple[str, str]], observations: Sequence[Observation]) -> Run:
    """Return a run with these observations, as if it had never planned or begun others."""
    return replace(
        run,
        planned=tuple(_less(plan, gone) for plan in run.planned),
        started=tuple(one for one in run.started if (one.case, one.check) not in gone),
        observations=tuple(observations),
    )


def _less(plan: Planned, gone: set[tuple[str, str]]) -> Planned:
    left = tuple(check for check in plan.checks if (plan.case.id, check) not in gone)
    return plan if left == plan.checks else msgspec.structs.replace(plan, checks=left)


def _id(case: CaseFacts) -> str:
    return f"{case.variant}@{case.weights}/{case.target}/{case.recipe}"


def _fault(
    header: Header,
    one: Observation,
    began: datetime | None,
    current: Mapping[str, int],
    now: datetime,
) -> _Fault | None:
    """Return what cannot be about an observation, if anything."""
    version = f"{_short(one.check)} version {one.check_version}"
    scorer = scorer_of(header, one)
    moment = instant(one.time or header.started)
    ended = f"{_short(one.check)} ended on {_short(one.time)}"
    if one.check_version < 1 or scorer < 0:
        return _Fault("with a version below 1", f"{version}, scorer {scorer}")
    if one.check_version > current.get(one.check, one.check_version):
        example = f"{version}, where {current[one.check]} is current"
        return _Fault("by a version of a check that is not known here", example, _UPDATE)
    if one.check == TASK and scorer > SCORER_VERSION:
        example = f"scorer {scorer}, where {SCORER_VERSION} is current"
        return _Fault("by a scorer that is not known here", example, _UPDATE)
    if moment is None:
        return _Fault("at no date", ended)
    if moment > now + TOLERANCE:
        example = f"{ended}, and here it is {_day(now)}"
        return _Fault("at a date that is yet to come", example, _CLOCK)
    if one.time and began is not None and moment < began - STEP:
        return _Fault("that ended before they began", f"{ended}, begun {began.isoformat()}")
    if one.seconds < 0 or one.threads < 0 or one.batch < 1:
        numbers = f"{one.seconds:g} s, {one.threads} threads, batch {one.batch}"
        return _Fault("with an impossible number", f"{_short(one.check)}: {numbers}")
    for name, seconds in _times(one):
        if not -LONGEST.total_seconds() <= seconds <= LONGEST.total_seconds():
            example = f"{_short(one.check)}: {_short(name)} is {_in_words(seconds)} s"
            return _Fault(f"with a time beyond {LONGEST.days} days", example)
    return None


def _times(one: Observation) -> Iterator[tuple[str, float]]:
    """Yield every time of an observation with its name: those of a check, of rounds, of values."""
    yield "its length", one.seconds
    for name, samples in one.samples.items():
        if name.endswith(("seconds", "_s")):
            yield from ((name, sample) for sample in samples)
    open_ones: list[tuple[str, Any]] = list(one.values.items())
    while open_ones:
        name, value = open_ones.pop()
        if isinstance(value, dict):
            open_ones += value.items()
        elif isinstance(value, list):
            open_ones += ((name, part) for part in value)
        elif name.endswith("_s") and not name.endswith("_per_s") and _is_number(value):
            yield name, value


def _in_words(seconds: float) -> str:
    return f"{seconds:g}" if isinstance(seconds, float) else _short(str(seconds))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_Content = dict[tuple[str, str, str], tuple[bytes, ...]]
"""Machine, case and check, with all that a run says of them in turn; plans have no check."""


def _told_once(runs: Sequence[Run]) -> tuple[list[Run], list[Problem]]:
    """Leave out of runs that are told in several ways what they contradict one another in.

    Copies of one file are no contradiction, also where one was taken earlier and is shorter. Which
    of two contents was measured cannot be known: neither outranks anything.
    """
    same: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        same[run.header.run, run.header.worker].append(run)
    gone: dict[int, set[tuple[str, str]]] = {}
    problems = []
    for (name, worker), copies in sorted(same.items()):
        if len(copies) == 1:
            continue
        contents = [_content(run) for run in copies]
        longest = max(contents, key=lambda one: sum(map(len, one.values())))
        headers = {msgspec.json.encode(run.header) for run in copies}
        if len(headers) == 1 and all(_continues(longest, one) for one in contents):
            continue
        # Whose plan of a case is heard is known by whose observations of it count.
        contradicted = {key for key in _contradicted(contents) if key[2]}
        for run in copies:
            machine = run.header.machine
            gone[id(run)] = {(c, check) for m, c, check in contradicted if m == machine}
        paths = tuple(sorted({run.path for run in copies}))
        files = ", ".join(dict.fromkeys("/".join(path.parts[-2:]) for path in paths[:4]))
        more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
        left_out = (
            f"; of {len(contradicted)} checks on which they differ none counts"
            if contradicted
            else ""
        )
        text = (
            f"{files}{more}: the run {name}.{worker} has different contents{left_out}. Keep the "
            "file that was measured and leave out the other."
        )
        problems.append(Problem(paths, text))
    return [_left(run, gone[id(run)]) if gone.get(id(run)) else run for run in runs], problems


def _left(run: Run, gone: set[tuple[str, str]]) -> Run:
    observations = [one for one in run.observations if (one.case, one.check) not in gone]
    return _without(run, gone, observations)


def _content(run: Run) -> _Content:
    lines_of: dict[tuple[str, str, str], list[bytes]] = defaultdict(list)
    for plan in run.planned:
        lines_of[run.header.machine, plan.case.id, ""].append(msgspec.json.encode(plan))
    for one in run.observations:
        lines_of[run.header.machine, one.case, one.check].append(msgspec.json.encode(one))
    return {key: tuple(lines) for key, lines in lines_of.items()}


def _continues(longer: _Content, shorter: _Content) -> bool:
    """Whether everything of one copy is the beginning of the other."""
    return all(longer.get(key, ())[: len(lines)] == lines for key, lines in shorter.items())


def _contradicted(contents: Sequence[_Content]) -> Iterator[tuple[str, str, str]]:
    """Yield what several copies speak of and disagree about."""
    for key in dict.fromkeys(key for one in contents for key in one):
        versions = [one[key] for one in contents if key in one]
        longest = max(versions, key=len)
        if any(longest[: len(lines)] != lines for lines in versions):
            yield key


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")
