"""``compat rescore``: stored results, scored again from their predictions and judged again."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say, tell, told
from compat.commands.sources import LOCAL, add_sources, collect
from compat.contract.errors import CompatError
from compat.judge.rescoring import rescore as judge_again
from compat.judge.thresholds import default_path, load

SHOWN = 10
"""Number of files with changed levels that are named; the others are counted."""


def rescore(arguments: argparse.Namespace) -> int:
    """Write results files again, scored from their predictions and judged by other thresholds."""
    limits = load([default_path(), *arguments.thresholds])
    if arguments.in_place and any(not isinstance(one, Path) for one in arguments.sources):
        raise CompatError("only files on this disk are replaced.", "Name a folder with --output.")
    collection = collect(arguments.sources, predictions=True)
    tell(collection.problems)
    output = None if arguments.in_place else arguments.output
    done = judge_again(collection.runs, limits, output, _progress)
    _progress(0, 0)
    changed = sorted((one for one in done if one.changed), key=lambda one: -one.changed)
    for one in changed[:SHOWN]:
        say(f"{one.changed} levels changed: {os.path.relpath(one.path)}")
    if len(changed) > SHOWN:
        say(f"and {len(changed) - SHOWN} more files with changes")
    total, levels = (
        sum(getattr(one, name) for one in done) for name in ("observations", "changed")
    )
    told(
        f"{total:,} observations of {len(done):,} files: {levels:,} levels changed, in "
        f"{len(changed):,} files"
    )
    unplanned, unreadable = (
        sum(getattr(one, name) for one in done) for name in ("unplanned", "unreadable")
    )
    if unplanned:
        told(f"{unplanned:,} were kept as they were: no header planned their case", "  ")
    if unreadable:
        told(f"{unreadable:,} keep their scores: unreadable predictions", "  ")
    if output:
        say(f"`compat report {output}` shows the matrix of them")
    return 0


def _progress(done: int, all_: int) -> None:
    """Show the number of the current file on a terminal; remove it if ``all_`` is 0."""
    if sys.stderr.isatty():
        said = f"file {done + 1:,} of {all_:,}" if all_ else ""
        print(f"\r\x1b[K{said}", end="", file=sys.stderr, flush=True)


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
