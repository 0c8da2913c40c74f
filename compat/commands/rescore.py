"""``compat rescore``: stored results, scored from their predictions and judged anew."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say, tell
from compat.commands.sources import LOCAL, add_sources, collect
from compat.contract.errors import CompatError
from compat.judge.rescoring import rescore as judge_again
from compat.judge.thresholds import default_path, load


def rescore(arguments: argparse.Namespace) -> int:
    """Write results files again, scored from their predictions and judged by other thresholds."""
    limits = load([default_path(), *arguments.thresholds])
    if arguments.in_place and any(not isinstance(one, Path) for one in arguments.sources):
        raise CompatError("only files on this disk are replaced.", "Name a folder with --output.")
    collection = collect(arguments.sources)
    tell(collection.problems)
    output = None if arguments.in_place else arguments.output
    for one in judge_again(collection.runs, limits, output):
        say(f"{one.changed} levels changed: {os.path.relpath(one.path)}")
        if one.unplanned:
            print(f"  {one.unplanned} observations kept as they were: no header planned their case")
        if one.unreadable:
            print(f"  {one.unreadable} observations keep their scores: unreadable predictions")
    if output:
        say(f"`compat report {output}` shows the matrix of them")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument("--thresholds", action="append", type=Path, default=[], metavar="FILE")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, default=LOCAL / "rescored", metavar="DIR")
    where.add_argument(
        "--in-place", action="store_true", help="replace the files themselves, not write copies"
    )


COMMAND = Command(
    "score and judge stored results anew, with other thresholds",
    rescore,
    "example:\n  compat rescore reports/results --thresholds FILE",
    _arguments,
)
