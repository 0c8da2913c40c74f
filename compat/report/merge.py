"""Build a report: rated configurations from the results files of any runs and machines.

The order in which files are read never matters, because every choice follows a total order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from compat.contract.case import HARDWARE
from compat.judge import rating
from compat.judge.checks import VERSIONS
from compat.judge.problems import Problems
from compat.judge.results import CaseFacts, Collection, Run, scorer_of
from compat.metrics import SCORER_VERSION
from compat.processes import no_collection
from compat.report import machines as naming
from compat.report import text
from compat.report.audit import audit, knows_machine
from compat.report.choosing import (
    Chosen,
    Key,
    Source,
    choose,
    describing,
    file_of,
    heard,
    moment,
    own_inputs,
    run_key,
    speaking,
)
from compat.report.coverage import coverage
from compat.report.findings import TASK
from compat.report.gates import Draft
from compat.report.model import Cell, Configuration, Coverage, Machine, Record, Report, RunFacts
from compat.report.yardstick import Yardsticks


@no_collection()
def build(
    collection: Collection,
    current: Mapping[str, int] = VERSIONS,
    now: datetime | None = None,
    known: Iterable[CaseFacts] = (),
) -> Report:
    """Return the rated report of a collection.

    ``current`` maps each check to its version in the code. Observations by an older version are
    stale, and those by a newer one are left out. Other checks come from outside authors and are
    never stale. Task metrics by an older scorer are stale too. ``now`` is the current time, by
    default the clock's; observations dated after it do not count. ``known`` are the cases of the
    catalog: the report's coverage names those that nobody ever ran.
    """
    now = now or datetime.now(UTC)
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
    names = {machine.id: (machine.short, machine.name) for machine in machines}
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
    yardsticks = Yardsticks(drafts)
    configurations = [
        draft.finish(yardsticks.of(draft), *names.get(draft.machine, (draft.machine,) * 2))
        for draft in drafts
    ]
    return _report(
        configurations,
        machines,
        [*collection.problems, *problems.lines()],
        now.date().isoformat(),
        coverage(configurations, known),
    )


def _plans(runs: Iterable[Run]) -> tuple[set[Key], set[Key]]:
    """Return the keys of all planned checks, and of all checks that began."""
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
    """Return the families that have a stand-in, by machine and case id.

    Only the plans of the runs that measured a case decide this, so that no other run's plan can
    change its rating. Where nothing was measured, the run that describes the case decides.
    """
    planned: dict[Source, set[str]] = defaultdict(set)
    for run in runs:
        families = {plan.case.family for plan in run.planned if plan.case.stand_in}
        for source in speaking(run):
            planned[source] |= families
    sources: dict[tuple[str, str], set[Source]] = defaultdict(set)
    for (machine, case, check), one in chosen.items():
        if check in current:
            sources[machine, case].update(heard(one.run))
    return {
        key: set().union(*(planned[source] for source in sources[key] or {file_of(run)}))
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
    # Later entries replace earlier ones of one name, so the newest run with true facts remains.
    for run in sorted(
        runs,
        key=lambda one: (
            knows_machine(one.header),
            moment(one.header.started),
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
        # Newest first: the newest run whose facts fit the machine's id describes the machine.
        known = tuple(
            sorted(
                by_machine[machine].values(),
                key=lambda r: (moment(r.started), r.key),
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
            Machine(
                machine,
                machine[:length],
                naming.name(speaking.facts, machine[:length]),
                speaking.facts,
                speaking.versions,
                known,
            )
        )
    return tuple(machines)


def _report(
    configurations: list[Configuration],
    machines: tuple[Machine, ...],
    problems: list[str],
    made: str,
    covered: tuple[Coverage, ...],
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
        rating.RULE_VERSION,
        newest,
        rows,
        hardware,
        tuple(cells),
        machines,
        tuple(problems),
        made,
        covered,
    )


def _best_first(one: Configuration) -> tuple[object, ...]:
    """Return a sort key: better rating, fewer failures, faster, more accurate."""
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
