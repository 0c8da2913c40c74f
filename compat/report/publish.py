"""Put a person's results under version control, and write the matrix that rests on them.

What is published is evidence: nothing that comes in deletes or rewrites it. What no longer counts
goes to an archive beside it, and what contradicts it is refused.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from compat.judge.problems import Problems
from compat.judge.result_files import content, find
from compat.judge.results import Collection, ResultsError, Run, file_name, read, read_all
from compat.report.audit import audit
from compat.report.markdown import matrix_markdown
from compat.report.merge import build, choose, describing
from compat.report.model import Report

_MACHINE = re.compile(r"[0-9a-f]{4,64}")
ARCHIVE = "archive"
"""Folder beside the results, of compressed copies that reports do not read."""


@dataclass(frozen=True)
class PublishResult:
    """What became of every file, or would become of it."""

    matrix: Path
    published: tuple[Path, ...] = ()
    """Files below ``reports/results`` that came from a source, now or earlier."""
    rejected: tuple[str, ...] = ()
    """Sources that were not taken, each with the reason and the remedy."""
    superseded: tuple[Path, ...] = ()
    """Files, published earlier or offered now, that contribute no observation that counts."""
    added: tuple[Path, ...] = ()
    """Those of ``published`` that were not there, or have grown."""
    archived: Mapping[Path, Path] = field(default_factory=dict)
    """Where those of ``superseded`` that had been published lie now."""
    cells: tuple[str, ...] = ()
    """Cells of the matrix that say something else than before."""


@dataclass(frozen=True)
class _Offer:
    """A results file that may be published."""

    source: Path
    data: bytes
    run: Run
    """As it will be read when published."""


def publish(
    sources: Sequence[Path], reports: Path, own: bool = False, dry_run: bool = False
) -> PublishResult:
    """Copy valid results files to ``reports/results/<machine>/`` and write ``MATRIX.md``.

    ``sources`` are results files or folders of them. A file that cannot be believed as a whole is
    rejected and named: one with an unreadable line or an impossible claim, one that contradicts
    what is published, one that was measured with an own corpus, checkpoint or thresholds unless
    ``own`` allows it. A longer copy of a published file replaces it if it begins with it. Published
    files that no longer contribute an observation that counts move to ``reports/archive``; what
    has problems of its own, and everything that is no results file, stays untouched.

    With ``dry_run`` nothing is written, and the result says what would be.

    Raises:
        ResultsError: a source does not exist, or ``reports`` cannot be written.
    """
    results = reports / "results"
    before = read_all([results]) if results.is_dir() else Collection()
    offers, rejected = _offers(sources, reports, own)
    unchanged = [path for path, one in offers.items() if _bytes(path).startswith(one.data)]
    fresh = {path: one for path, one in offers.items() if path not in unchanged}

    runs = _with(before.runs, fresh)
    refused: dict[Path, list[str]] = {}
    for problem in audit(runs).problems:
        for path in set(problem.paths) & set(fresh):
            refused.setdefault(path, []).append(problem.text)
    for path, texts in refused.items():
        name = fresh.pop(path).source.name
        reasons = [text.removeprefix(f"{path.name}: ") for text in texts]
        rejected.append(f"{name}: {_listed(reasons)}")
    runs = _with(before.runs, fresh)

    superseded = _superseded(runs)
    added = {path: one for path, one in fresh.items() if path not in superseded}
    leaving = [path for path in superseded if path not in fresh]
    kept = tuple(run for run in runs if run.path not in superseded)
    archived = {path: _place(reports, path) for path in leaving}
    matrix = reports / "MATRIX.md"
    if dry_run:
        # The problems are those of what was there: what came in has none.
        shown = build(Collection(kept, before.problems))
    else:
        try:
            results.mkdir(parents=True, exist_ok=True)
            for path, one in added.items():
                _write(path, one.data)
            for path, place in archived.items():
                _archive(path, place)
            shown = build(read_all([results]))
            _write(matrix, matrix_markdown(shown).encode())
        except OSError as error:
            raise ResultsError(
                f"cannot write below {reports}: {error.strerror}. The files published before are "
                "kept; make the folder writable and publish again."
            ) from error
    return PublishResult(
        matrix,
        tuple(sorted({*added, *unchanged} - {*superseded})),
        tuple(rejected),
        tuple(superseded),
        tuple(sorted(added)),
        archived,
        tuple(_changes(build(before), shown)),
    )


def _offers(
    sources: Sequence[Path], reports: Path, own: bool
) -> tuple[dict[Path, _Offer], list[str]]:
    """Return what may be published, by its destination, and what was rejected."""
    results = reports / "results"
    mine = {results.resolve(), (reports / ARCHIVE).resolve()}
    found: dict[Path, list[_Offer]] = {}
    rejected: list[str] = []
    unreadable = Problems()
    for source in sources:
        if not source.exists():
            raise ResultsError(f"{source} does not exist. Name a results file or a folder of them.")
        for path in find([source], unreadable):
            # Not resolve(), which a link to itself ends.
            if mine & {*Path(os.path.realpath(path)).parents}:
                continue
            try:
                run = read(path)
                problem = _problem(run, own)
            except ResultsError as error:
                problem = str(error)
            if problem:
                rejected.append(f"{path.name}: {problem}")
                continue
            destination = results / run.header.machine / file_name(run.header)
            offer = _Offer(path, content(path).data, replace(run, path=destination))
            found.setdefault(destination, []).append(offer)
    offers = {}
    for destination, copies in found.items():
        longest = max(copies, key=lambda one: len(one.data))
        problem = _contradiction(destination, copies, longest, reports)
        if problem:
            rejected += [f"{one.source.name}: {problem}" for one in copies]
        else:
            offers[destination] = longest
    return offers, [*rejected, *unreadable.lines()]


def _problem(run: Run, own: bool) -> str:
    """Say why a file may not be published; empty where it may."""
    header = run.header
    if run.problems:
        shown = _listed(run.problems)
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


def _contradiction(
    destination: Path, copies: Sequence[_Offer], longest: _Offer, reports: Path
) -> str:
    """Say how copies of one run differ, among themselves or from what is published."""
    name = destination.name
    if not all(longest.data.startswith(one.data) for one in copies):
        return (
            f"{len(copies)} files tell the run {name} in different ways. Publish the one that was "
            "measured."
        )
    for data, where in ((_bytes(destination), "published"), (_archived(reports, destination))):
        if not (longest.data.startswith(data) or data.startswith(longest.data)):
            return (
                f"a different {name} is {where} already. A results file only ever grows, so that "
                "a later copy begins with the earlier one, byte for byte. Nothing was changed: "
                "if this one is right, move the other away by hand, in a commit that says why."
            )
    return ""


def _bytes(path: Path) -> bytes:
    """Return what is published at a place; nothing where nothing is."""
    return path.read_bytes() if path.is_file() else b""


def _archived(reports: Path, published: Path) -> tuple[bytes, str]:
    """Return the newest archived copy of a published file, and in words where it is."""
    places = [place for place in _places(reports, published) if place.is_file()]
    return (_unpacked(places[-1]) or b"" if places else b""), "archived"


def _unpacked(place: Path) -> bytes | None:
    try:
        return gzip.decompress(place.read_bytes())
    except (OSError, EOFError, zlib.error):
        return None  # Damaged: it says nothing, and is never written over.


def _places(reports: Path, published: Path) -> Iterator[Path]:
    """Yield the archived copies of a published file in turn, then the next free place."""
    folder = reports / ARCHIVE / published.relative_to(reports / "results").parent
    for number in count(1):
        suffix = "" if number == 1 else f".{number}"
        place = folder / f"{published.stem}{suffix}.jsonl.gz"
        yield place
        if not place.exists():
            return


def _place(reports: Path, published: Path) -> Path:
    """Return where to archive a published file: never over what it does not contain."""
    data = published.read_bytes()
    for place in _places(reports, published):
        earlier = _unpacked(place) if place.exists() else b""
        if earlier is not None and (data.startswith(earlier) or earlier.startswith(data)):
            return place
    raise AssertionError("the last place is free")


def _archive(published: Path, place: Path) -> None:
    """Move a published file to the archive, unless it lies there already."""
    data = published.read_bytes()
    if not (place.exists() and (_unpacked(place) or b"").startswith(data)):
        _write(place, gzip.compress(data, 9, mtime=0))
    # Only now: an interruption leaves two copies.
    published.unlink()


def _with(runs: Iterable[Run], fresh: Mapping[Path, _Offer]) -> list[Run]:
    """Return published runs and fresh ones, which replace shorter copies."""
    return [run for run in runs if run.path not in fresh] + [one.run for one in fresh.values()]


def _superseded(runs: Sequence[Run]) -> list[Path]:
    """Return the files that contribute no observation that counts, and have no problem."""
    audited = audit(runs)
    chosen = choose(audited.runs)
    described = describing(audited.runs, chosen)
    troubled = {path for problem in audited.problems for path in problem.paths}
    useful = {run.path for run in runs if run.problems} | troubled
    for (machine, case, _), one in chosen.items():
        useful.add(one.run.path)
        # Without the facts in a plan, which another worker may have written, an observation
        # cannot be attributed.
        if (machine, case) in described:
            useful.add(described[machine, case][1].path)
    return [path for path in dict.fromkeys(run.path for run in runs) if path not in useful]


def _changes(before: Report, after: Report) -> Iterator[str]:
    """Yield what cells of the matrix say now, where they said something else."""
    earlier = {(cell.row, cell.hardware): cell for cell in before.cells}
    later = {(cell.row, cell.hardware): cell for cell in after.cells}
    for place in sorted({*earlier, *later}):
        old, new = (
            cells[place].sentence if place in cells and cells[place].best else "Not measured"
            for cells in (earlier, later)
        )
        if old != new:
            row, hardware = place
            yield f"{row}, {hardware}: {new} (was {old})"


def _listed(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - 3} more" if len(texts) > 3 else ""
    return "; ".join(texts[:3]) + more


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
