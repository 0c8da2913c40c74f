"""``compat list``: the cases of the catalog, how many there are, and which were measured."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from compat import catalog
from compat.commands.command import Command
from compat.commands.printing import say, told
from compat.commands.sources import known_sources
from compat.contract.case import Case
from compat.contract.profile import CORE, FULL
from compat.contract.untrusted import one_line
from compat.judge.results import read_all
from compat.report.audit import audit
from compat.report.choosing import choose
from compat.run import selection
from compat.run.probing import Prober

FEW = 400
"""Most cases that are named one by one if no option selects them."""
_WORST = ("crashed", "out-of-memory", "timeout", "error", "failed", "unsupported", "known-failure")


def listing(arguments: argparse.Namespace) -> int:
    """List cases."""
    loaded = catalog.load()
    targets = arguments.targets
    chosen = selection.Selection(
        arguments.models,
        targets,
        arguments.recipes,
        arguments.weights,
        CORE if arguments.core else FULL,
    )
    chosen.check(loaded)
    cases = list(chosen.cases(loaded))
    if arguments.here or selection.HERE in targets:
        found = Prober().all(case.target for case in cases)
        cases = [case for case in cases if found[case.target.name].state == "here"]
    if arguments.json:
        print(json.dumps([{"id": case.id, "marks": case.marks} for case in cases]))
        return 0
    if arguments.ids:
        for case in cases:
            print(case.id)
        return 0
    measured = _measured()
    asked = arguments.models or targets or arguments.recipes or arguments.weights
    if arguments.here or asked or arguments.all or len(cases) <= FEW:
        _cases(cases, measured)
    else:
        _rows(cases, measured)
    ran = [measured[case.id] for case in cases if case.id in measured]
    fails = sum(not said.startswith("✓") for said in ran)
    where = ", ".join(map(str, known_sources())) or "results"
    families = len({case.family.name for case in cases})
    places = len({case.target.name for case in cases})
    told(
        f"{len(cases):,} cases of {families} {'model' if families == 1 else 'models'} on "
        f"{places} {'target' if places == 1 else 'targets'}; {len(ran):,} were measured, of which "
        f"{fails:,} fail something ({where})"
    )
    if not (arguments.here or selection.HERE in targets):
        told("--here keeps what this machine can run; `compat doctor` says what the rest needs")
    return 0


def _measured() -> Mapping[str, str]:
    """Return, by case id, its last date and the worst status of its checks: ``✓ 2026-11-30``."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for (_, case, check), one in choose(
        audit(read_all(known_sources(), predictions=False).runs).runs
    ).items():
        seen = one.observation
        if seen.status != "skipped":
            found[case].append((seen.time or one.run.header.started, seen.status, check))
    said = {}
    for case, checks in found.items():
        date = max(time for time, _, _ in checks)[:10]
        worst = min(checks, key=lambda entry: (_rank(entry[1]), entry[2]))
        fails = _rank(worst[1]) < len(_WORST)
        said[case] = one_line(f"✕ {date} {worst[2]} {worst[1]}" if fails else f"✓ {date}", 80)
    return said


def _rank(status: str) -> int:
    return _WORST.index(status) if status in _WORST else len(_WORST)


def _cases(cases: Sequence[Case], measured: Mapping[str, str]) -> None:
    width = max((len(case.id) for case in cases), default=0)
    for case in cases:
        say(f"{case.id:{width}}  {measured.get(case.id, '·')}")


def _rows(cases: Sequence[Case], measured: Mapping[str, str]) -> None:
    """Print how many cases each row of the matrix has, when there are too many to name."""
    rows: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        rows[case.family.row].append(case)
    width = max(map(len, rows))
    say(f"{'row':{width}}  variants  targets   cases  measured")
    for row, own in rows.items():
        variants = len({case.variant.name for case in own})
        targets = len({case.target.name for case in own})
        count = sum(case.id in measured for case in own)
        say(f"{row:{width}}  {variants:8}  {targets:7}  {len(own):6,}  {count:8,}")
    name = cases[0].variant.name
    say(f"\n`compat list --models {name}` names the cases of a model; --all names every one")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (
        ("models", "variants, families or patterns"),
        ("targets", "targets, hardware or patterns"),
        ("recipes", "recipes or precisions"),
        ("weights", "pretrained, trained, seeded"),
    ):
        parser.add_argument(f"--{name}", type=_words, default=(), metavar="LIST", help=what)
    parser.add_argument("--core", action="store_true", help="only those of the core profile")
    parser.add_argument("--here", action="store_true", help="only what this machine can run")
    parser.add_argument("--all", action="store_true", help="name every case, however many")
    parser.add_argument("--ids", action="store_true", help="nothing but ids, for scripts")
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "list the cases of the catalog, and which were measured",
    listing,
    "examples:\n"
    "  compat list\n"
    "  compat list --models whisper-tiny --here\n"
    "  compat list --targets cuda --ids",
    _arguments,
)
