"""``compat show``: everything known of one case."""

from __future__ import annotations

import argparse
import json

from compat import catalog
from compat.commands.command import Command
from compat.commands.printing import tell
from compat.commands.sources import LOCAL, PUBLISHED, add_sources
from compat.contract.case import Case
from compat.contract.errors import CompatError
from compat.contract.untrusted import clean
from compat.judge import recommendations, results
from compat.judge.results import facts_of
from compat.judge.thresholds import default_path, load
from compat.run import selection


def show(arguments: argparse.Namespace) -> int:
    """Show what the catalog, recommendations, thresholds and results say of a case."""
    from rich.console import Console

    loaded = catalog.load()
    try:
        case: Case = loaded.case(arguments.case)
    except KeyError:
        said = selection.suggestion(arguments.case, [case.id for case in loaded.cases()])
        if len(said) > 300:
            said = "`compat list` names them all."
        raise CompatError(f"no case {arguments.case}: {said}") from None
    console = Console(highlight=False, soft_wrap=True)
    facts = facts_of(case)
    console.print(f"[bold]{case.id}[/bold]")
    console.print(
        f"  {facts.parameters:g} M parameters, task {facts.task}, row {facts.row}; "
        f"runs on {facts.hardware} by {facts.runtime}, evidence: {facts.evidence}"
    )
    console.print(f'  pytest -m "{" and ".join(case.marks)}"')
    reason = loaded.runtime(case.target.runtime).unsupported(case.target, case.recipe)
    if reason:
        console.print(f"  unsupported: {reason}")
    recommended = recommendations.load(recommendations.default_path()).of(case)
    if recommended:
        words = f"{recommended.precision}, batch {recommended.batches}"
        if recommended.memory_gb:
            words += f", {recommended.memory_gb:g} GB"
        if recommended.precision != facts.precision:
            words += f"; this case is {facts.precision}"
        said = f"  recommended on {facts.hardware}: {words} ({recommended.source})"
        console.print(said, markup=False)
    console.print("\nlimits")
    for entry in load([default_path()]).entries:
        if entry.applies(facts):
            sign = "≥" if entry.direction == "at_least" else "≤"
            console.print(
                f"  {entry.check} {entry.metric} {sign} {entry.strict:g} "
                f"(relaxed {entry.relaxed:g}): {entry.reason}",
                markup=False,
            )
    folders = list(arguments.sources) or [p for p in (LOCAL / "results", PUBLISHED) if p.exists()]
    console.print("\nobservations")
    count = 0
    collection = results.read_all(folders)
    tell(collection.problems)
    for run in collection.runs:
        for one in run.observations:
            if one.case == case.id:
                count += 1
                level = f" ({one.level})" if one.level else ""
                line = (
                    f"  {one.time} machine {run.header.machine} {run.header.profile} {one.check}: "
                )
                line += f"{one.status}{level} {one.reason}"
                console.print(clean(line), markup=False)
                console.print(clean("    " + json.dumps(one.values)[:600]), markup=False)
    if not count:
        console.print(f"  none yet: pytest --models {facts.variant} --targets {facts.target}")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("case", help="for example whisper-tiny@seeded/cpu-torch/fp32")
    add_sources(parser)


COMMAND = Command(
    "show everything known of one case",
    show,
    "example:\n  compat show whisper-tiny@seeded/cpu-torch/fp32 reports/results",
    _arguments,
)
