"""``compat claims``: the claims of guides, and whether measurements confirm them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from compat.commands.command import Command
from compat.commands.printing import tell
from compat.commands.sources import LOCAL, PUBLISHED, collect, rated
from compat.contract.errors import CompatError
from compat.contract.untrusted import clean
from compat.judge import claims as ledger
from compat.judge import experiments
from compat.judge.claims import Outcome
from compat.judge.repeats import closest
from compat.report.claims_page import deciding

if TYPE_CHECKING:
    from rich.console import Console


def claims(arguments: argparse.Namespace) -> int:
    """Show claims with their verdicts; if only one is chosen, show everything known of it."""
    from rich.console import Console

    words: Sequence[str] = arguments.words
    patterns = [word for word in words if word[:1].isdigit() and not Path(word).exists()]
    sources = [Path(word) for word in words if word not in patterns]
    folders = sources or [p for p in (LOCAL / "results", PUBLISHED) if p.exists()]
    collection = collect(folders)
    report = rated(folders, collection)
    tell(report.problems)
    if arguments.closest:
        return _closest(arguments.closest, folders)
    chosen = [
        one
        for one in report.claims
        if not patterns or any(fnmatchcase(one.id, pattern) for pattern in patterns)
    ]
    for pattern in patterns:
        if not any(fnmatchcase(one.id, pattern) for one in report.claims):
            raise CompatError(
                f"no claim is called {pattern}.",
                "`compat claims` lists them all; 4.* are guide 4's.",
            )
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(chosen), indent=1).decode())
        return 0
    console = Console(highlight=False)
    if len(chosen) == 1:
        _everything(chosen[0], console)
    else:
        _table(chosen, console)
    return 0


def _closest(count: int, folders: Sequence[Path]) -> int:
    """List the experiments whose verdicts another run might change first."""
    answers = experiments.read_all(folders)
    for one in closest(answers, ledger.load(ledger.default_folder()), count):
        print(
            f"{one.claim} {one.verdict}, {one.margin:.1%} from another verdict: {one.measure}\n"
            f"  compat experiment {one.experiment} --repeat 3 --save"
        )
    return 0


def _table(outcomes: Sequence[Outcome], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), width=min(console.width, 100), show_edge=False)
    for name, ratio in (("claim", 0), ("verdict", 20), ("claimed", 18), ("measured", 30)):
        table.add_column(name, ratio=ratio or None, min_width=5 if not ratio else None)
    for one in outcomes:
        part = deciding(one)
        measured = part.found[0].measured if part.found else "–"
        if part.what:
            measured = f"{part.what}: {measured}"
        cells = (one.id, one.label, part.claimed, measured)
        table.add_row(*(Text(clean(cell).replace("`", "")) for cell in cells))
    console.print(table)
    counts = Counter(one.verdict for one in outcomes)
    said = ", ".join(f"{counts[v]} {v}" for v in ("confirmed", "refuted", "inconclusive"))
    console.print(
        f"\n{len(outcomes)} claims: {said}, {counts['needs']} need something that is absent"
    )


def _everything(one: Outcome, console: Console) -> None:
    def say(line: str) -> None:
        console.print(clean(line), markup=False, soft_wrap=True)

    say(f"{one.id}  {one.label}")
    say(f"  {one.text}")
    say(f"  {one.source}")
    for line in (one.note, one.reason):
        if line:
            say(f"  {line}")
    for part in one.parts:
        what = f"{part.what}: " if part.what else ""
        say(f"\n{what}claimed {part.claimed}, {part.verdict}")
        if not part.found:
            say(f"  would be decided by {part.needs}")
        for found in part.found:
            where = f", machine {found.machine}" if found.machine else ""
            say(f"  {found.measured}: {found.verdict}{where}{', ' * bool(found.date)}{found.date}")
            for line in (found.reason, *found.evidence[:8]):
                if line:
                    say(f"    {line}")
            if len(found.evidence) > 8:
                say(f"    and {len(found.evidence) - 8} more observations")
        say(f"  repeat: {part.command.replace('ID', one.id)}")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ID or RESULTS",
        help="claims (4.05, or 4.* for a guide), and results files or folders "
        f"(default: {LOCAL / 'results'} and {PUBLISHED})",
    )
    parser.add_argument(
        "--closest",
        type=int,
        default=0,
        metavar="N",
        help="list the N experiments whose verdicts are closest to another, with the command that "
        "repeats each",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "show what guides claim, and whether measurements bear it out",
    claims,
    "examples:\n  compat claims\n  compat claims 4.05\n  compat claims '0.*' reports/results\n"
    "  compat claims 3.17 --json",
    _arguments,
)
