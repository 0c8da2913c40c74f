"""``compat matrix``: run the suites for what is here, then show what was found."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from compat.commands.command import Command
from compat.commands.sources import LOCAL, write_report
from compat.judge import results
from compat.report import build, print_matrix
from compat.run import invocation, selection


def matrix(arguments: argparse.Namespace) -> int:
    """Run the suites for what is here, then show what was found."""
    from rich.console import Console

    rest = list(arguments.rest)
    if not any(word.startswith("--targets") for word in rest):
        rest.append(f"--targets={selection.HERE}")
    for file in arguments.catalog or ():
        rest.append(f"--catalog={file}")
    command = [sys.executable, "-m", "pytest", *invocation.suites()]
    command += ["-q", "-r", "", "--tb=no", "--no-header", "--no-summary", "--case-lines"]
    command += ["--benchmark-quiet"]
    command += ["-p", "no:cacheprovider", f"--results={arguments.results}", *rest]
    started = set(arguments.results.glob("*.jsonl"))
    try:
        status = subprocess.run(command).returncode
    except KeyboardInterrupt:
        status = 2
    fresh = [path for path in arguments.results.glob("*.jsonl") if path not in started]
    if fresh:
        shown = build(results.read_all(fresh))
        print_matrix(shown, Console())
    if arguments.results.is_dir() and any(arguments.results.glob("*.jsonl")):
        own = arguments.results != LOCAL / "results"
        site = arguments.results / "site" if own else LOCAL / "site"
        write_report(build(results.read_all([arguments.results])), site)
    if status == 2:
        print("Interrupted: what was measured is kept and shown above.", file=sys.stderr)
        return 130
    # Failed checks are findings, not faults of the run; required hardware that is absent is one.
    return 0 if status in (0, 1, 5) else 3


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=LOCAL / "results", metavar="DIR")


COMMAND = Command(
    "measure what is on this machine and show its matrix",
    matrix,
    "Every option of the suites is taken too, see `pytest --help`, group compat:\n"
    "  compat matrix --quick --models whisper-nano\n"
    "  compat matrix --targets openvino --recipes fp32,int8-weights",
    _arguments,
    takes_rest=True,
)
