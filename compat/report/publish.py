"""Copy a person's results under version control, and write the matrix that rests on them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compat.problems import Problems
from compat.report.markdown import matrix_markdown
from compat.report.merge import build, choose
from compat.result_files import content, find
from compat.results import ResultsError, Run, file_name, read, read_all

_MACHINE = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class PublishResult:
    """What became of every file."""

    matrix: Path
    published: tuple[Path, ...] = ()
    """Files that now lie below ``reports/results`` and came from a source."""
    rejected: tuple[str, ...] = ()
    """Sources that were not taken, each with the reason and the remedy."""
    superseded: tuple[Path, ...] = ()
    """Files, published earlier or now, that no longer contribute an observation: removed."""


def publish(sources: Sequence[Path], reports: Path, own: bool = False) -> PublishResult:
    """Copy valid results files to ``reports/results/<machine>/`` and write ``MATRIX.md``.

    ``sources`` are results files or folders of them. A file with any unreadable line is rejected
    whole and named, and so is one that was measured with an own corpus, checkpoint or thresholds
    unless ``own`` allows it. Of each machine only files that still contribute an observation that
    counts are kept; everything below ``reports/results`` that is no results file stays untouched.

    Raises:
        ResultsError: a source does not exist, or ``reports`` cannot be written.
    """
    accepted: dict[Path, bytes] = {}
    rejected: list[str] = []
    unreadable = Problems()
    results = reports / "results"
    for source in sources:
        if not source.exists():
            raise ResultsError(f"{source} does not exist. Name a results file or a folder of them.")
        for path in find([source], unreadable):
            # Not resolve(), which a link to itself ends.
            if results.resolve() in Path(os.path.realpath(path)).parents:
                continue
            try:
                run = read(path)
                problem = _problem(run, own)
            except ResultsError as error:
                problem = str(error)
            if problem:
                rejected.append(f"{path.name}: {problem}")
                continue
            header = run.header
            accepted[results / header.machine / file_name(header)] = content(path).data
    try:
        results.mkdir(parents=True, exist_ok=True)
        for destination, data in accepted.items():
            # A results file only ever grows: the longer copy holds everything of the shorter.
            if not destination.exists() or destination.stat().st_size < len(data):
                _write(destination, data)
        superseded = _supersede(results)
        collection = read_all([results])
        matrix = reports / "MATRIX.md"
        _write(matrix, matrix_markdown(build(collection)).encode())
    except OSError as error:
        raise ResultsError(
            f"cannot write below {reports}: {error.strerror}. The files published before are "
            "kept; make the folder writable and publish again."
        ) from error
    return PublishResult(
        matrix,
        tuple(sorted(path for path in accepted if path.exists())),
        (*rejected, *unreadable.lines()),
        tuple(superseded),
    )


def _problem(run: Run, own: bool) -> str:
    """Say why a file may not be published; empty where it may."""
    header = run.header
    if run.problems:
        shown = "; ".join(run.problems[:3])
        return f"it cannot be read whole ({shown}). Measure it again."
    if not _MACHINE.fullmatch(header.machine):
        return (
            f"its machine id {header.machine!r} is no hash. Results name machines by a hash of "
            "their facts, never by a host name: measure again with this version."
        )
    if header.own and not own:
        return (
            f"it was measured with a person's own {', '.join(header.own)}. Measure it with what "
            "is shipped, or publish it with --own: its cells will say so."
        )
    if not run.observations:
        return "it holds no observation."
    return ""


def _supersede(results: Path) -> list[Path]:
    """Remove and return the files that contribute no observation that counts."""
    runs = read_all([results]).runs
    planners: dict[tuple[str, str], Path] = {}
    for run in runs:
        planners.update({(run.header.machine, one.case.id): run.path for one in run.planned})
    useful: set[Path] = set()
    for (machine, case, _), chosen in choose(runs).items():
        useful.add(chosen.run.path)
        # Without the facts in a plan, which another worker may have written, an observation
        # cannot be attributed.
        if all(one.case.id != case for one in chosen.run.planned) and (machine, case) in planners:
            useful.add(planners[machine, case])
    removed = [path for path in dict.fromkeys(run.path for run in runs) if path not in useful]
    for path in removed:
        path.unlink()
    return removed


def _write(path: Path, data: bytes) -> None:
    """Replace one file as a whole, so that an interruption leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # A temporary file is private; what is published is for everyone.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
