"""``compat show``: everything that is known of one case."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from compat import catalog
from compat.commands.command import Command
from compat.commands.printing import say, tell, told
from compat.commands.sources import LOCAL, add_sources, collect_known
from compat.contract.case import Case
from compat.contract.errors import CompatError
from compat.contract.untrusted import one_line
from compat.judge import recommendations
from compat.judge.results import CaseFacts, Collection, ResultsError, facts_of
from compat.judge.thresholds import Threshold, default_path, load
from compat.report import Report, build, machines, text
from compat.report.history import History, Point, changed_versions, histories
from compat.report.measures import measures
from compat.report.model import Configuration, Record
from compat.report.reasons import sentence
from compat.report.steps import SHORTEST, steps
from compat.run import selection

VERSIONS = 3
"""Number of changed package versions that are named at a measurement."""
RUNS = 12
"""Number of newest measurements of one number that are shown, unless ``--all`` is given."""


def show(arguments: argparse.Namespace) -> int:
    """Show what the catalog, recommendations, thresholds and results say of a case."""
    collection = _results(arguments)
    tell(collection.problems)
    case, facts = _case(arguments.case, collection)
    say(facts.id)
    told(
        f"{facts.parameters:g} M parameters, task {facts.task}, row {facts.row}; "
        f"runs on {facts.hardware} by {facts.runtime}, evidence: {facts.evidence}",
        "  ",
    )
    _catalogued(case, facts)
    files = "".join(f" --catalog {shlex.quote(str(file))}" for file in arguments.catalog or ())
    told(f"measure it: {text.reproduction(facts)}{files}", "  ")
    report = build(collection)
    rated = [
        (one, [record for record in one.records if record.case.id == facts.id])
        for one in report.configurations
    ]
    rated = [(one, records) for one, records in rated if records]
    for one, records in rated:
        _rating(one, records, report)
    _limits(facts)
    if not rated:
        say("\nno measurements yet")
        return 0
    _histories(histories(collection.runs, facts.id), arguments.all)
    _page(rated[0][0], report, arguments.site)
    return 0


def _results(arguments: argparse.Namespace) -> Collection:
    try:
        return collect_known(arguments.sources)
    except ResultsError:
        if arguments.sources:
            raise
        return Collection()  # A case can be looked up before anything was measured.


def _case(name: str, collection: Collection) -> tuple[Case | None, CaseFacts]:
    """Return a case by its id, from the catalog or from results that another catalog made.

    Raises:
        CompatError: neither has such a case.
    """
    loaded = catalog.load()
    try:
        case = loaded.case(name)
    except KeyError:
        for run in reversed(collection.runs):
            for plan in run.planned:
                if plan.case.id == name:
                    return None, plan.case
        said = selection.suggestion(name, [case.id for case in loaded.cases()])
        if len(said) > 300:
            said = "`compat list` names them all."
        raise CompatError(f"no case {name}: {said}") from None
    return case, facts_of(case)


def _catalogued(case: Case | None, facts: CaseFacts) -> None:
    """Print what the catalog and published guides say of a case."""
    if case is None:
        told("not in this catalog: name the file of its model or runtime with --catalog", "  ")
        return
    reason = catalog.load().runtime(case.target.runtime).unsupported(case.target, case.recipe)
    if reason:
        told(f"unsupported: {reason}", "  ")
    recommended = recommendations.load(recommendations.default_path()).of(case)
    if recommended:
        words = f"{recommended.precision}, batch {recommended.batches}"
        if recommended.memory_gb:
            words += f", {recommended.memory_gb:g} GB"
        if recommended.precision != facts.precision:
            words += f"; this case is {facts.precision}"
        told(f"recommended on {facts.hardware}: {words} ({recommended.source})", "  ")


def _rating(one: Configuration, records: list[Record], report: Report) -> None:
    """Print the rating of a machine's configuration, and the observations that it rests on."""
    facts = next((m.facts for m in report.machines if m.id == one.machine), {})
    say(f"\non {machines.name(facts, one.machine)}")
    badges = "".join(f" [{badge}]" for badge in text.badges(one.rating))
    told(f"rated {one.rating.label}{badges}: {one.name}", "  ")
    for reason in one.why:
        told(one_line(reason, 240), "    ")
    for record in records:
        seen = record.observation
        level = f" ({seen.level})" if seen and seen.level else ""
        numbers = ", ".join(
            f"{number.name} {number.with_interval}" for number in (measures(seen) if seen else ())
        )
        passed = record.status == "passed" and (seen is None or seen.level == "strict")
        reason = "" if passed else sentence(record.status, record.reason, seen)
        said = "; ".join(part for part in (numbers, one_line(reason, 160)) if part)
        date = f", {seen.time[:10]} in {record.run}" if seen else ""
        told(
            f"{one_line(record.check)} {record.status}{level}{date}{f': {said}' if said else ''}",
            "  ",
            "    ",
        )


def _limits(facts: CaseFacts) -> None:
    """Print the limits that apply to a case, without those that more specific ones replace."""
    say("\nlimits (strict, relaxed)")
    deciding: dict[tuple[str, str], Threshold] = {}
    for entry in load([default_path()]).entries:
        other = deciding.get((entry.check, entry.metric))
        if entry.applies(facts) and (other is None or entry.specificity >= other.specificity):
            deciding[entry.check, entry.metric] = entry
    for (check, metric), entry in sorted(deciding.items()):
        sign = "≥" if entry.direction == "at_least" else "≤"
        limit = f"{sign} {entry.strict:g}, {entry.relaxed:g}" if entry.judged else "not judged"
        told(f"{check} {metric} {limit}: {entry.reason}", "  ", "    ")


def _histories(found: tuple[History, ...], everything: bool) -> None:
    """Print every measurement, not only those that count."""
    say("\nhistory (◂ the one that counts)")
    for history in found:
        points = history.points if everything else history.points[-RUNS:]
        told(f"{history.check} {history.name} on {history.machine}", "  ")
        if len(points) < len(history.points):
            say(f"    {len(history.points) - len(points)} earlier ones (--all)")
        for before, point in zip((None, *points), points, strict=False):
            told(_point(point) + _newer(before, point), "    ")
        if history.name:
            told(_steps(history), "    ")


def _point(point: Point) -> str:
    when = point.time.strftime("%Y-%m-%d %H:%M")
    number = point.measure.with_interval if point.measure else ""
    level = f" ({point.level})" if point.level and point.level != "strict" else ""
    status = "" if point.status == "passed" and number and not level else f"{point.status}{level}"
    said = ", ".join(part for part in (number, status) if part)
    commit = f" {point.commit[:8]}" if point.commit else ""
    return f"{when} {point.profile}{commit}: {said}{' ◂' if point.counts else ''}"


def _newer(before: Point | None, after: Point) -> str:
    """Return, in brackets, the packages whose version changed since the measurement before."""
    moved = changed_versions(before, after) if before else ()
    said = [one for one in moved if not one.startswith("commit ") and " absent" not in one]
    more = f", and {len(said) - VERSIONS} more" if len(said) > VERSIONS else ""
    return f" [{', '.join(said[:VERSIONS])}{more}]" if said else ""


def _steps(history: History) -> str:
    """Return a sentence on where the number stepped to another level, or why none can be told."""
    if len(history.values) < SHORTEST:
        more = SHORTEST - len(history.values)
        return f"too short to tell a step from noise: {more} more runs are needed"
    try:
        found = steps(history)
    except CompatError as error:
        return f"{error.message} {error.remedy}"
    if not found:
        return "no step that noise does not explain"
    return "; ".join(f"{s.kind} since {s.after.time:%Y-%m-%d}: {s.sentence}" for s in found)


def _page(one: Configuration, report: Report, site: Path) -> None:
    """Print the address of the page that shows the case with its samples and logs."""
    cell = report.cell(one.row, one.hardware)
    page = site / "cells" / f"{cell.slug}.html"
    if page.exists():
        say(f"\npage: {page.resolve().as_uri()}#{one.anchor}")
    else:
        say("")
        told(f"page: none in {site} yet; `compat report` writes it (--site DIR names another)")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("case", help="for example whisper-tiny@seeded/cpu-torch/fp32")
    add_sources(parser)
    parser.add_argument("--all", action="store_true", help="every measurement of its history")
    parser.add_argument(
        "--site", type=Path, default=LOCAL / "site", metavar="DIR", help="where its page is"
    )


COMMAND = Command(
    "show everything known of one case: rating, what counts, limits, history",
    show,
    "examples:\n"
    "  compat show whisper-tiny@seeded/cpu-torch/fp32 reports/results\n"
    "  compat show whisper-tiny@seeded/openvino-cpu/int8-dynamic --site site --all",
    _arguments,
)
