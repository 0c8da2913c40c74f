"""From results files of any number of runs and machines to rated configurations.

The order in which files are read never matters: every choice is made by a total order.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from compat.contract.case import HARDWARE
from compat.contract.profile import PROFILES
from compat.judge import rating
from compat.judge.checks import VERSIONS
from compat.judge.problems import Problems
from compat.judge.results import CaseFacts, Collection, Header, Observation, Run, scorer_of
from compat.metrics import SCORER_VERSION
from compat.report import text
from compat.report.audit import audit, instant, knows_machine, other_machine
from compat.report.gates import TASK, Draft, processor_seconds
from compat.report.model import Cell, Configuration, Machine, Record, Report, RunFacts

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
                _moment(one.time or header.started),
                header.run,
                header.worker,
                msgspec.json.encode(one),
            )
            key = (header.machine, one.case, one.check)
            if key not in ranked or order > ranked[key][0]:
                ranked[key] = (order, Chosen(run, one))
    return {key: chosen for key, (_, chosen) in ranked.items()}


def _moment(text: str) -> datetime:
    """Return a date to order by: as a moment, since equal moments are written in several ways."""
    return instant(text) or datetime.min.replace(tzinfo=UTC)


def own_inputs(header: Header, case: str) -> tuple[str, ...]:
    """Return what a person replaced of the inputs of a case, in words; empty for standard ones."""
    variant, _, weights = case.partition("/")[0].partition("@")
    found = []
    for entry in header.own:
        kind, _, which = entry.partition(":")
        if kind != "checkpoint" or (which in ("", variant) and weights != "seeded"):
            found.append(OWN.get(kind, f"own {text.one_line(kind, 40)}"))
    return tuple(sorted(set(found)))


def build(
    collection: Collection,
    current: Mapping[str, int] = VERSIONS,
    now: datetime | None = None,
) -> Report:
    """Return the rated report of a collection.

    ``current`` gives the current version of each check, as the code has it: what was observed by
    an older one is stale, by a newer one left out. Checks that it lacks are an outside author's
    and never stale. Task metrics by an older scorer than this version's are stale too. Dates after
    ``now`` are no evidence; it is the time of the call unless it is given.
    """
    audited = audit(collection.runs, current, now)
    runs = audited.runs
    chosen = choose(runs)
    described = describing(runs, chosen, current)
    facts = {key: case for key, (case, _) in described.items()}
    planned, begun = _plans(runs)
    problems = Problems()
    for problem in audited.problems:
        problems.add("files with something that cannot be true", problem.text)
    for machine, case in sorted({key[:2] for key in chosen} - set(facts)):
        problems.add(
            "cases whose results cannot be attributed",
            f"machine {machine}: results of {case} cannot be attributed, because no run header "
            "there planned that case. Restore the results file that they came from.",
        )
    records: dict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
    for machine, case, check in sorted({*planned, *chosen}):
        if (machine, case) in facts:
            records[machine, case][check] = _record(
                facts[machine, case],
                check,
                machine,
                chosen.get((machine, case, check)),
                (machine, case, check) in begun,
                current,
            )

    machines = _machines(runs)
    short = {machine.id: machine.short for machine in machines}
    groups: dict[tuple[str, str, str, str], list[dict[str, Record]]] = defaultdict(list)
    for (machine, case), checks in sorted(records.items()):
        about = facts[machine, case]
        groups[about.family, about.target, about.recipe, machine].append(checks)
    stand_ins = _stand_ins(runs, chosen, described, current)
    drafts = [
        Draft(
            family,
            target,
            recipe,
            machine,
            cases,
            any(family in stand_ins[machine, next(iter(case.values())).case.id] for case in cases),
        )
        for (family, target, recipe, machine), cases in sorted(groups.items())
    ]
    configurations = [
        draft.finish(processor_seconds(draft, drafts), short.get(draft.machine, draft.machine))
        for draft in drafts
    ]
    return _report(configurations, machines, [*collection.problems, *problems.lines()])


Source = tuple[str, ...]
"""Who speaks for an observation: one results file, or the first process of a parallel run."""


def _first_process(run: Run) -> Source:
    return (run.header.machine, run.header.run)


def _file(run: Run) -> Source:
    return (str(run.path), run.header.machine, run.header.run, run.header.worker)


def _heard(run: Run) -> tuple[Source, ...]:
    """Return whose plans speak for what a run observed.

    Its own, and of a parallel run those of the first process, which alone writes what all of them
    were to measure. Whoever merely calls himself a process of a run has no say in it.
    """
    parallel = _LATER_PROCESS.fullmatch(run.header.worker)
    return (_file(run), _first_process(run)) if parallel else (_file(run),)


def _speaking(run: Run) -> tuple[Source, ...]:
    """Return as whom a run's plans speak."""
    first = run.header.worker == "gw0"
    return (_file(run), _first_process(run)) if first else (_file(run),)


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
        for source in _heard(one.run)
    )
    best: dict[tuple[str, str], tuple[tuple[object, ...], CaseFacts, Run]] = {}
    for run in runs:
        header = run.header
        sources = _speaking(run)
        for plan in run.planned:
            key = (header.machine, plan.case.id)
            order = (
                max(support[(*key, source)] for source in sources),
                _moment(header.started),
                header.run,
                header.worker,
                msgspec.json.encode(plan.case),
            )
            if key not in best or order > best[key][0]:
                best[key] = (order, plan.case, run)
    return {key: (case, run) for key, (_, case, run) in best.items()}


def _plans(runs: Iterable[Run]) -> tuple[set[Key], set[Key]]:
    """Return every planned check and every check begun."""
    planned: set[Key] = set()
    begun: set[Key] = set()
    for run in runs:
        machine = run.header.machine
        planned.update((machine, p.case.id, check) for p in run.planned for check in p.checks)
        begun.update((machine, one.case, one.check) for one in run.started)
    return planned, begun


def _stand_ins(
    runs: Iterable[Run],
    chosen: Mapping[Key, Chosen],
    described: Mapping[tuple[str, str], tuple[CaseFacts, Run]],
    current: Mapping[str, int],
) -> dict[tuple[str, str], set[str]]:
    """Return which families have a stand-in, by machine and case.

    The runs that measured a case say so, or the one that describes it where nothing was measured:
    what another run plans changes nothing of it.
    """
    planned: dict[Source, set[str]] = defaultdict(set)
    for run in runs:
        families = {plan.case.family for plan in run.planned if plan.case.stand_in}
        for source in _speaking(run):
            planned[source] |= families
    heard: dict[tuple[str, str], set[Source]] = defaultdict(set)
    for (machine, case, check), one in chosen.items():
        if check in current:
            heard[machine, case].update(_heard(one.run))
    return {
        key: set().union(*(planned[source] for source in heard[key] or {_file(run)}))
        for key, (_, run) in described.items()
    }


def _record(
    case: CaseFacts,
    check: str,
    machine: str,
    chosen: Chosen | None,
    begun: bool,
    current: Mapping[str, int],
) -> Record:
    anchor = text.slug(case.id, machine, check)
    if chosen is None:
        if begun:
            return Record(case, check, machine, "cut-off", "cut off: begun, never ended", anchor)
        return Record(case, check, machine, "not-run", "planned, but never begun", anchor)
    one = chosen.observation
    scorer = scorer_of(chosen.run.header, one)
    status, reason = str(one.status), one.reason
    if one.status != "skipped" and one.check_version < current.get(check, 0):
        status = "stale"
        reason = (
            f"{one.status} by version {one.check_version} of the check; "
            f"version {current[check]} is current. Measure it again."
        )
    elif check == TASK and one.values and scorer < SCORER_VERSION:
        status = "stale"
        reason = (
            f"{one.status} by version {scorer} of the scorer; version {SCORER_VERSION} is "
            "current. Score it again with compat rescore, or measure it again."
        )
    own = own_inputs(chosen.run.header, case.id)
    return Record(case, check, machine, status, reason, anchor, one, run_key(chosen.run), own)


def _machines(runs: Sequence[Run]) -> tuple[Machine, ...]:
    by_machine: dict[str, dict[str, RunFacts]] = defaultdict(dict)
    vouched: dict[str, set[str]] = defaultdict(set)
    """Runs whose facts give the machine that they name."""
    # Of several runs by one name the last is shown: the newest whose facts are that machine's.
    for run in sorted(
        runs,
        key=lambda one: (
            knows_machine(one.header),
            _moment(one.header.started),
            msgspec.json.encode(one.header),
        ),
    ):
        header = run.header
        if knows_machine(header):
            vouched[header.machine].add(run_key(run))
        by_machine[header.machine][run_key(run)] = RunFacts(
            run_key(run),
            header.run,
            header.worker,
            header.machine,
            header.started,
            header.profile,
            header.threads,
            header.parallel,
            header.commit,
            header.arguments,
            header.versions,
            header.hashes,
            header.facts,
            len(run.observations),
            run.problems,
        )
    ids = sorted(by_machine)
    machines = []
    for machine in ids:
        # Newest first: its facts speak for the machine, if they are that machine's.
        known = tuple(
            sorted(
                by_machine[machine].values(),
                key=lambda r: (_moment(r.started), r.key),
                reverse=True,
            )
        )
        speaking = next((one for one in known if one.key in vouched[machine]), known[0])
        others = [one for one in ids if one != machine]
        length = next(
            (n for n in range(4, len(machine)) if not any(o[:n] == machine[:n] for o in others)),
            len(machine),
        )
        machines.append(
            Machine(machine, machine[:length], speaking.facts, speaking.versions, known)
        )
    return tuple(machines)


def _report(
    configurations: list[Configuration], machines: tuple[Machine, ...], problems: list[str]
) -> Report:
    rows = tuple(sorted({one.row for one in configurations}))
    extra = sorted({one.hardware for one in configurations} - set(HARDWARE))
    hardware = (*HARDWARE, *extra)
    by_cell: dict[tuple[str, str], list[Configuration]] = defaultdict(list)
    for one in configurations:
        by_cell[one.row, one.hardware].append(one)
    cells = []
    for row in rows:
        for column in hardware:
            inside = tuple(sorted(by_cell[row, column], key=_best_first))
            cells.append(Cell(row, column, text.slug(row, column), inside))
    newest = max((run.started for machine in machines for run in machine.runs), default="")
    return Report(
        rating.RULE_VERSION, newest, rows, hardware, tuple(cells), machines, tuple(problems)
    )


def _best_first(one: Configuration) -> tuple[object, ...]:
    """Order configurations: the better rating, fewer failures, the faster, the more accurate."""
    infinity = float("inf")
    works = one.rating.ceiling != "None"
    failed = sum(gate.state == "failed" for gate in one.gates) if works else 0
    unknown = sum(gate.state == "unknown" for gate in one.gates) if works else 0
    speed = one.figures.rtf_upper
    loss = one.figures.degradation
    return (
        rating.preference(one.rating),
        failed + unknown,
        failed,
        infinity if speed is None else speed,
        infinity if loss is None else loss,
        one.id,
    )
