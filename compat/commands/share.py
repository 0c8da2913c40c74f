"""``compat share``: this machine's evidence, ready to be contributed by a pull request."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections import Counter
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say, tell, told, warn
from compat.commands.sources import LOCAL, PUBLISHED, add_sources, collect
from compat.contract.errors import CompatError
from compat.contract.untrusted import one_line
from compat.judge.results import Collection
from compat.report import build, machines, text
from compat.report.markdown import escape
from compat.report.model import Machine, Report
from compat.report.publish import PublishResult
from compat.report.publish import publish as put

REJECTED = 5
"""Number of rejected files, and of changed cells, that are named one by one."""
CELLS = 40
"""Number of changed cells that the description of a pull request names."""


def share(arguments: argparse.Namespace) -> int:
    """Print what would be contributed and the commands for it, and write the description."""
    if any(not isinstance(one, Path) for one in arguments.sources):
        raise CompatError("only results on this disk are contributed.", "Copy them here first.")
    sources = list(arguments.sources) or [LOCAL / "results"]
    collection = collect(sources)
    report = build(collection)
    tell(report.problems)
    if not collection.runs:
        raise CompatError("there are no results to share.", "Run `compat matrix --quick` first.")
    checkout = _checkout()
    reports = (checkout or Path.cwd()) / PUBLISHED
    outcome = put(sources, reports, dry_run=True)
    for reason in outcome.rejected[:REJECTED]:
        warn(f"left out {reason}")
    if len(outcome.rejected) > REJECTED:
        warn(f"and {len(outcome.rejected) - REJECTED} more left out")
    if not outcome.added:
        said = "all of it is published" if outcome.published else "nothing can be contributed"
        say(f"{said[0].upper()}{said[1:]}: there is nothing to do.")
        return 3 if outcome.rejected else 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    body = arguments.output / "pull-request.md"
    body.write_text(_description(report, collection, outcome), encoding="utf-8")
    _steps(report, outcome, sources, checkout, body)
    return 0


def _checkout() -> Path | None:
    """Return the root of this project's checkout, where the command was called inside one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    root = Path(done.stdout.strip())
    return root if (root / PUBLISHED / "results").is_dir() else None


def _steps(
    report: Report,
    outcome: PublishResult,
    sources: list[Path],
    checkout: Path | None,
    body: Path,
) -> None:
    """Print what would be contributed, what it holds, and the commands that do it."""
    names = ", ".join(_name(machine) for machine in report.machines)
    told(f"{len(outcome.added)} results files of {names}; {len(outcome.cells)} cells would change.")
    for change in outcome.cells[:REJECTED]:
        told(change, "  ")
    if len(outcome.cells) > REJECTED:
        say(f"  and {len(outcome.cells) - REJECTED} more (see {body})")
    told(
        "In them: processor, memory, system and versions of packages, arguments with paths cut, "
        "and every number. Not in them: names of this machine and of its users, audio, weights."
    )
    say("\nIn the checkout of your fork:" if checkout is None else "\nThe rest is these commands:")
    branch = f"evidence-{report.machines[0].id}" if report.machines else "evidence"
    if checkout is None:
        say("  git clone <your fork of the project> audio-compat && cd audio-compat")
    places = " ".join(
        shlex.quote(str(one.resolve() if checkout is None else one)) for one in sources
    )
    title = f"Evidence of {one_line(names, 80)}"
    for command in (
        f"git switch --create {branch}",
        f"compat publish {places}",
        f"git add {PUBLISHED} docs README.md",
        f"git commit -m {shlex.quote(title)}",
        f"git push -u origin {branch}",
        f"gh pr create --title {shlex.quote(title)} --body-file "
        f"{shlex.quote(str(body.resolve() if checkout is None else body))}",
    ):
        say(f"  {command}")
    told("Without gh: open the pull request in the browser, with that file as its description.")


def _name(machine: Machine) -> str:
    return machines.name(machine.facts, machine.id)


def _description(report: Report, collection: Collection, outcome: PublishResult) -> str:
    """Return a pull request's description: machines, what ran, which cells change."""
    lines = ["Evidence measured by `compat matrix`, added by `compat publish`.", ""]
    for machine in report.machines:
        facts = "; ".join(
            f"{name} {text.quantity(name, value)}" for name, value in machine.facts.items()
        )
        lines.append(f"- **{escape(_name(machine))}**: {escape(facts, 600)}")
    statuses = Counter(str(one.status) for run in collection.runs for one in run.observations)
    counted = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    lines += ["", f"{len(outcome.added)} results files, checks: {counted}.", ""]
    if outcome.cells:
        lines += ["Cells that change:", ""]
        lines += [f"- {escape(change, 300)}" for change in outcome.cells[:CELLS]]
        if len(outcome.cells) > CELLS:
            lines.append(f"- and {len(outcome.cells) - CELLS} more")
    return "\n".join(lines) + "\n"


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=LOCAL / "share",
        metavar="DIR",
        help="where the description of the pull request goes",
    )


COMMAND = Command(
    "prepare this machine's evidence for a pull request",
    share,
    "examples:\n"
    "  compat matrix --quick && compat share\n"
    "  compat share reports/local/results\n\n"
    "It changes nothing but its own folder: it says what would be contributed, what is in it, and\n"
    "the commands that contribute it.",
    _arguments,
)
