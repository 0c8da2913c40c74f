"""``compat list``: the cases of the catalog."""

from __future__ import annotations

import argparse
import json

from compat import catalog
from compat.commands.command import Command
from compat.contract.profile import CORE, FULL
from compat.run import selection


def listing(arguments: argparse.Namespace) -> int:
    """List cases."""
    loaded = catalog.load()
    chosen = selection.Selection(
        arguments.models,
        arguments.targets,
        arguments.recipes,
        arguments.weights,
        CORE if arguments.core else FULL,
    )
    chosen.check(loaded)
    cases = chosen.cases(loaded)
    if arguments.json:
        print(json.dumps([{"id": case.id, "marks": case.marks} for case in cases]))
    else:
        for case in cases:
            print(case.id)
    return 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("models", "targets", "recipes", "weights"):
        parser.add_argument(f"--{name}", type=_words, default=(), metavar="LIST")
    parser.add_argument("--core", action="store_true", help="only those of the core profile")
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "list the cases of the catalog",
    listing,
    "example:\n  compat list --targets cuda",
    _arguments,
)
