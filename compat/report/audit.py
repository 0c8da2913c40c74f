"""Leave out of results files what cannot be true, and what this code does not know.

Results files come from strangers, and a file may decide its own cells only. So current versions
come from the code, dates are checked against the clock, and where two files give one run different
contents, neither counts. Everything that is left out is reported, with the name of its file.
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
"""How far a date may lie ahead of this machine's clock; some clocks and time zones are wrong."""
STEP = timedelta(minutes=1)
"""How far a clock may be set back while a check runs, so that the check seems to end too early."""

LONGEST = timedelta(days=30)
"""Longest time that can be a measurement; no check takes as long."""
_LONGEST_S = LONGEST.total_seconds()

_UPDATE = "Update compat, or leave the file out."
_CLOCK = "Correct the clock that is wrong, or leave the file out."
_OUT = "Leave the file out, or measure again."

_MACHINE = re.compile("[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of one or several results files, and what was left out because of it."""

    paths: tuple[Path, ...]
    text: str
    """Sentence on the fault; it begins with the name of the file."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The runs without their faulty lines, and the problems of those lines."""

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]


def audit(
    runs: Iterable[Run],
    current: Mapping[str, int] = VERSIONS,
    now: datetime | None = None,
) -> Audit:
    """Return runs without the lines that do not count, each run with its problems added to it.

    ``current`` maps each check to its version in the code. Other checks come from outside authors,
    and any of their versions from 1 on is accepted. ``now`` is the current time, by default the
    clock's.
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
    """Parse an ISO 8601 date, as UTC where it has no time zone; return None where it is invalid."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def other_machine(header: Header) -> str:
    """Return the machine id that a header's facts give, if the header names another one.

    Empty where both agree, and where they cannot be compared: the facts are incomplete or of
    another form, or the named id is not of this code's form (8 hexadecimal digits).
    """
    given = _machine_of(header)
    return given if _MACHINE.fullmatch(header.machine) and given != header.machine else ""


def knows_machine(header: Header) -> bool:
    """Whether a header's facts give the machine id that the header names."""
    return _machine_of(header) == header.machine


def _machine_of(header: Header) -> str:
    if not {"system", "cpu"} <= header.facts.keys():
        return ""
    try:
        return machine_id(header.facts)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        return ""  # The facts come from a stranger's file, and may have any form.


def _header_problem(header: Header, now: datetime) -> str:
    """Say why a whole run is left out; empty where its lines may count."""
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
    """A fault of one line of a file; faults of one kind are reported once for each file."""

    kind: str
    example: str
    remedy: str = _OUT


def _sound(run: Run, current: Mapping[str, int], now: datetime) -> tuple[Run, list[str]]:
    """Return a run without its faulty lines, and a sentence on each kind of fault."""
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
    """Return a run with these observations, as if it had never planned or begun the ``gone`` ones.

    ``gone`` holds pairs of case id and check.
    """
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
    """Return the first fault of an observation; None where it has none."""
    # Examples are written where there is a fault, since nearly all of a million have none.
    scorer = scorer_of(header, one)
    moment = instant(one.time or header.started)
    if one.check_version < 1 or scorer < 0:
        return _Fault("with a version below 1", f"{_version(one)}, scorer {scorer}")
    if one.check_version > current.get(one.check, one.check_version):
        example = f"{_version(one)}, where {current[one.check]} is current"
        return _Fault("by a version of a check that is not known here", example, _UPDATE)
    if one.check == TASK and scorer > SCORER_VERSION:
        example = f"scorer {scorer}, where {SCORER_VERSION} is current"
        return _Fault("by a scorer that is not known here", example, _UPDATE)
    if moment is None:
        return _Fault("at no date", _ended(one))
    if moment > now + TOLERANCE:
        example = f"{_ended(one)}, and here it is {_day(now)}"
        return _Fault("at a date that is yet to come", example, _CLOCK)
    if one.time and began is not None and moment < began - STEP:
        return _Fault("that ended before they began", f"{_ended(one)}, begun {began.isoformat()}")
    if one.seconds < 0 or one.threads < 0 or one.batch < 1:
        numbers = f"{one.seconds:g} s, {one.threads} threads, batch {one.batch}"
        return _Fault("with an impossible number", f"{_short(one.check)}: {numbers}")
    for name, seconds in _times(one):
        if not -_LONGEST_S <= seconds <= _LONGEST_S:
            example = f"{_short(one.check)}: {_short(name)} is {_in_words(seconds)} s"
            return _Fault(f"with a time beyond {LONGEST.days} days", example)
    return None


def _version(one: Observation) -> str:
    return f"{_short(one.check)} version {one.check_version}"


def _ended(one: Observation) -> str:
    return f"{_short(one.check)} ended on {_short(one.time)}"


def _times(one: Observation) -> Iterator[tuple[str, float]]:
    """Yield every time of an observation in seconds, with its name.

    The times are the length of the check, its samples, and every value whose name ends in ``_s``.
    """
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
"""Encoded lines of a run by machine, case and check; lines of plans have an empty check."""


def _told_once(runs: Sequence[Run]) -> tuple[list[Run], list[Problem]]:
    """Leave out every check on which several files of one run disagree.

    A copy of a file does not disagree with it, even where the copy is older and shorter. Where two
    files disagree, nobody can know which one was measured, so neither counts.
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
        # Plans stay: only a run whose observations of a case count describes that case.
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
    """Whether all lines of the shorter copy are the first lines of the longer one."""
    return all(longer.get(key, ())[: len(lines)] == lines for key, lines in shorter.items())


def _contradicted(contents: Sequence[_Content]) -> Iterator[tuple[str, str, str]]:
    """Yield machine, case and check for everything on which several copies disagree."""
    for key in dict.fromkeys(key for one in contents for key in one):
        versions = [one[key] for one in contents if key in one]
        longest = max(versions, key=len)
        if any(longest[: len(lines)] != lines for lines in versions):
            yield key


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")
