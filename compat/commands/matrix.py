"""``compat matrix``: run the suites on this machine's targets, and show the matrix.

A first look (the quick profile) goes before the profile that was asked for, so that there is a
matrix within minutes; cells that are still to come are *pending* in it. Each look is a run of
pytest and writes results of its own, of which the thorough ones count (docs/rating.md).
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say
from compat.commands.sources import LOCAL, rated, write_report, write_step_summary
from compat.contract.profile import PROFILES, QUICK
from compat.judge import result_files, results
from compat.judge.problems import Problems
from compat.report import build, print_matrix
from compat.run import invocation, selection

LATEST_S = 150.0
"""Seconds after which a matrix is shown although the first look goes on, as it does on a slow
machine or with many models."""
POLL_S = 0.5
"""Seconds between two looks at whether a matrix is due."""
ENDING_S = 10.0
"""Seconds that pytest gets to end its workers after Ctrl-C or SIGTERM."""
FOUND = (0, 1, 5)
"""Exit statuses of a pytest that ran to its end: failed checks are findings, not faults of the run.
Hardware that is required and absent is a fault, and has a status of its own."""
INTERRUPTED, MISREAD = 2, 4


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a scheduler sends to this process alone; Ctrl-C goes to pytest as well."""


def matrix(arguments: argparse.Namespace) -> int:
    """Run the suites on this machine's targets, a first look before the rest; show the matrix."""
    signal.signal(signal.SIGTERM, _terminate)
    folder: Path = arguments.results
    before = _results(folder)
    began = time.monotonic()
    statuses: list[int] = []

    def found() -> list[Path]:
        return [path for path in _results(folder) if path not in before]

    for look in _looks(arguments):
        earlier = found()

        def due(earlier: Sequence[Path] = earlier) -> bool:
            if not earlier:
                late = time.monotonic() - began >= LATEST_S
                return late and any(_holds(path, "observation") for path in found())
            # The first start of a check shows that all plans are written.
            return any(_holds(path, "started") for path in found() if path not in earlier)

        statuses.append(_run(look, due, lambda: _show(found(), pending=True)))
        if statuses[-1] in (INTERRUPTED, MISREAD) or statuses[-1] < 0:
            break
    if found():
        _show(found())
    if _results(folder):
        own = folder != LOCAL / "results"
        site = folder / "site" if own else LOCAL / "site"
        report = rated([folder], results.read_all([folder], predictions=False))
        write_report(report, site)
        write_step_summary(report)
    if INTERRUPTED in statuses:
        print("Interrupted: what was measured is kept and shown above.", file=sys.stderr)
        return 130
    return 0 if set(statuses) <= {*FOUND} else 3


def _terminate(_number: int, _frame: types.FrameType | None) -> None:
    raise Terminated


def _looks(arguments: argparse.Namespace) -> list[list[str]]:
    """Return the command lines of pytest, one for each look."""
    rest = list(arguments.rest)
    if not any(word.startswith("--targets") for word in rest):
        rest.append(f"--targets={selection.HERE}")
    for file in arguments.catalog or ():
        rest.append(f"--catalog={file}")
    command = [sys.executable, "-m", "pytest", *invocation.suites()]
    command += ["-q", "-r", "", "--tb=no", "--no-header", "--no-summary", "--case-lines"]
    command += ["--benchmark-quiet"]
    command += ["-p", "no:cacheprovider", f"--results={arguments.results}", *rest]
    asked = {*rest, *shlex.split(os.environ.get(invocation.ADDED, ""))}
    if any(f"--{name}" in asked for name, one in PROFILES.items() if one.first_look):
        return [command]
    # The last profile of a command line counts.
    return [[*command, f"--{QUICK.name}"], command]


def _run(command: Sequence[str], due: Callable[[], bool], show: Callable[[], None]) -> int:
    """Run pytest to its end and return its status; show the matrix once, when it is due."""
    sys.stdout.flush()
    process = subprocess.Popen(command)
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_S)
            if due():
                show()
                return process.wait()
    except KeyboardInterrupt as reason:
        # A terminal sends Ctrl-C to both processes; SIGTERM reaches only this one. pytest then gets
        # time to end its workers.
        if isinstance(reason, Terminated) and os.name == "posix":
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_S)
        return INTERRUPTED
    finally:
        process.terminate()
        process.wait()


def _results(folder: Path) -> list[Path]:
    """Return the results files below a folder, packed ones too."""
    return list(result_files.find([folder], Problems())) if folder.is_dir() else []


def _holds(path: Path, kind: str) -> bool:
    """Return whether a results file that is being written holds a line of a kind."""
    return f'{{"kind":"{kind}"'.encode() in path.read_bytes()


def _show(files: Sequence[Path], pending: bool = False) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        # A line of progress may stand there.
        print("\r\x1b[K", end="")
    print_matrix(build(results.read_all(files, predictions=False)), console, pending)
    if pending:
        say("Ctrl-C keeps what was measured, with its matrix and its site.")
    sys.stdout.flush()


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=LOCAL / "results", metavar="DIR")


COMMAND = Command(
    "measure what is on this machine and show its matrix",
    matrix,
    "Every option of the suites is taken too, see `pytest --help`, group compat:\n"
    "  compat matrix --quick --models whisper-nano\n"
    "  compat matrix --targets openvino --recipes fp32,int8-weights\n"
    "  compat matrix --corpus recordings --language de",
    _arguments,
    takes_rest=True,
)
