"""``compat compare``: the changes between two results, runs, machines, versions or recipes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os

from compat.commands.command import Command
from compat.commands.printing import say, tell, told
from compat.commands.sources import add_sources, collect, collect_known, source
from compat.contract.untrusted import one_line
from compat.judge.remote import is_remote
from compat.report.compare import KINDS, Change, Comparison, Kind, compare
from compat.report.markdown import escape
from compat.report.sides import Sides, of_collections, of_names

SHOWN = 20
"""Number of changes of one kind that are named one by one, unless ``--all`` is given."""
_QUIET: tuple[Kind, ...] = ("missing", "new", "incomparable")
"""Kinds that are counted by reason, unless ``--all`` is given."""


def comparing(arguments: argparse.Namespace) -> int:
    """Compare two sides; the exit status is 1 if something is worse or newly failing."""
    compared = compare(_sides(arguments), arguments.threshold)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(compared), indent=2))
    elif arguments.markdown:
        say(markdown(compared, arguments.all))
    else:
        tell(compared.problems)
        _print(compared, arguments.all)
    return 1 if compared.regressed else 0


def _sides(arguments: argparse.Namespace) -> Sides:
    before, after = arguments.before, arguments.after
    if all(is_remote(side) or os.path.lexists(side) for side in (before, after)):
        sides = [collect([source(side)]) for side in (before, after)]
        for side in sides:
            tell(side.problems)
        return of_collections((before, sides[0].runs), (after, sides[1].runs))
    collection = collect_known(arguments.sources)
    tell(collection.problems)
    return of_names(collection.runs, before, after)


def _print(compared: Comparison, everything: bool) -> None:
    told(f"{headline(compared)}.")
    for kind, meaning in KINDS.items():
        of_kind = [change for change in compared.changes if change.kind == kind]
        if not of_kind:
            continue
        say(f"\n{kind} ({len(of_kind):,}): {meaning}")
        if kind in _QUIET and not everything:
            for reason, count in _by_reason(of_kind):
                told(f"{count:,} × {reason}", "  ", "    ")
            continue
        shown = of_kind if everything else of_kind[:SHOWN]
        for change in shown:
            told(_sentence(change), "  ")
        if len(of_kind) > len(shown):
            say(f"  and {len(of_kind) - len(shown):,} more (--all)")


def headline(compared: Comparison) -> str:
    """Return a sentence with the number of changes of each kind."""
    counts = compared.counts
    said = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS if counts[kind])
    what = f" ({compared.dimension}s)" if compared.dimension else ""
    before, after = (one_line(name, 60) for name in (compared.before, compared.after))
    return f"{before} → {after}{what}: {said or 'nothing'}"


def _sentence(change: Change) -> str:
    return f"{_where(change)}: {change.before} → {change.after}{_because(change)}"


def _where(change: Change) -> str:
    machine = f"{change.machine} " if change.machine else ""
    measure = f" {change.measure}" if change.measure else ""
    return one_line(f"{machine}{change.case} {change.check}{measure}")


def _because(change: Change) -> str:
    return f". {one_line(change.reason)}" if change.reason else ""


def _by_reason(changes: list[Change]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for change in changes:
        reason = one_line(change.reason, 120)
        counts[reason] = counts.get(reason, 0) + 1
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = ordered[SHOWN:]
    return [*ordered[:SHOWN], *([("other reasons", sum(n for _, n in rest))] if rest else [])]


def markdown(compared: Comparison, everything: bool = False) -> str:
    """Return a comparison in Markdown for a pull request: quiet kinds of changes are folded."""
    lines = [f"### {escape(headline(compared))}", ""]
    for kind, meaning in KINDS.items():
        of_kind = [change for change in compared.changes if change.kind == kind]
        if not of_kind:
            continue
        title = f"{kind} ({len(of_kind):,}): {meaning}"
        folded = kind in _QUIET
        lines += [f"<details><summary>{title}</summary>", ""] if folded else [f"**{title}**", ""]
        lines += ["| case | check | before | after | |", "| --- | --- | --- | --- | --- |"]
        shown = of_kind if everything else of_kind[:SHOWN]
        for one in shown:
            case = f"{one.machine} {one.case}".strip()
            check = f"{one.check} {one.measure}".strip()
            cells = (case, check, one.before, one.after, one.reason)
            lines.append(f"| {' | '.join(escape(cell, 200) for cell in cells)} |")
        if len(of_kind) > len(shown):
            lines.append(f"| and {len(of_kind) - len(shown):,} more | | | | |")
        lines += ["", *(["</details>", ""] if folded else [])]
    return "\n".join(lines).rstrip()


def _share(words: str) -> float:
    try:
        value = float(words.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{words} is no percentage from 0 on")
    return value / 100


def _arguments(parser: argparse.ArgumentParser) -> None:
    names = "results, or within them the beginning of a run, machine or commit; a version as"
    names += " PACKAGE==VERSION; a variant, target, recipe or precision; latest, previous"
    parser.add_argument("before", metavar="A", help=names)
    parser.add_argument("after", metavar="B", help="the other side")
    add_sources(parser)
    parser.add_argument(
        "--threshold",
        type=_share,
        metavar="PERCENT",
        help="difference of times and sizes that counts, where intervals lie apart; without it as "
        "much as runs on shared machines differ by (50 for times)",
    )
    parser.add_argument("--markdown", action="store_true", help="for a pull request")
    parser.add_argument("--all", action="store_true", help="tell every change")
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "say what is better, worse, newly passing or failing between two sides",
    comparing,
    "examples:\n"
    "  compat compare main/results branch/results --threshold 10\n"
    "  compat compare previous latest\n"
    "  compat compare onnxruntime==1.30.0 onnxruntime==1.31.1 reports/results\n"
    "  compat compare fp32 int8-dynamic reports/results --markdown >> $GITHUB_STEP_SUMMARY\n\n"
    "The status is 1 where something is worse or newly failing, 3 where nothing was compared.",
    _arguments,
)
