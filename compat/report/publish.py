"""Put a person's results under version control, and write the matrix that rests on them.

What is published is evidence: nothing that comes in deletes or rewrites it. What no longer counts
goes to an archive beside it, and what contradicts it is refused.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from compat.judge import packing
from compat.judge.migrations import in_current_schema
from compat.judge.problems import Problems
from compat.judge.result_files import content, find
from compat.judge.results import Collection, ResultsError, Run, file_name, read, read_all
from compat.report.audit import audit
from compat.report.choosing import choose, describing
from compat.report.markdown import matrix_markdown
from compat.report.merge import build
from compat.report.model import Report

_MACHINE = re.compile(r"[0-9a-f]{4,64}")
ARCHIVE = "archive"
"""Folder beside the results, of files that reports do not read."""

_PLAIN = ".jsonl"
_PACKED = f".jsonl{packing.SUFFIX}"


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
    packed: tuple[Path, ...] = ()
    """Files published earlier that are written anew: compressed, in the current schema."""
    cells: tuple[str, ...] = ()
    """Cells of the matrix that say something else than before."""


@dataclass(frozen=True)
class _Offer:
    """A results file that may be published."""

    source: Path
    data: bytes
    """In the current schema, not packed."""
    run: Run
    """As it will be read when published."""


def publish(
    sources: Sequence[Path], reports: Path, own: bool = False, dry_run: bool = False
) -> PublishResult:
    """Copy valid results files to ``reports/results/<machine>/`` and write ``MATRIX.md``.

    They are kept compressed and in the current schema, and so is what was published before.
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
    for source in sources:
        if not source.exists():
            raise ResultsError(f"{source} does not exist. Name a results file or a folder of them.")
    renewed = _renewed(results)
    if not dry_run:
        with _writing(reports):
            for path, place in renewed.items():
                _renew(path, place)
    before = read_all([results]) if results.is_dir() else Collection()
    runs = [replace(run, path=renewed.get(run.path, run.path)) for run in before.runs]
    before = replace(before, runs=tuple(runs))
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
        with _writing(reports):
            results.mkdir(parents=True, exist_ok=True)
            for path, one in added.items():
                _write(path, packing.pack(one.data))
            for path, place in archived.items():
                _archive(path, place)
            shown = build(read_all([results]))
            _write(matrix, matrix_markdown(shown, published=True).encode())
    return PublishResult(
        matrix,
        tuple(sorted({*added, *unchanged} - {*superseded})),
        tuple(rejected),
        tuple(superseded),
        tuple(sorted(added)),
        archived,
        tuple(sorted(renewed.values())),
        tuple(_changes(build(before), shown)),
    )


@contextmanager
def _writing(reports: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"cannot write below {reports}: {error.strerror}. The files published before are kept.",
            "Make the folder writable and publish again.",
        ) from error


def _renewed(results: Path) -> dict[Path, Path]:
    """Return published files that are plain or of an older schema, and where each shall lie."""
    renewed = {}
    for path in find([results], Problems()) if results.is_dir() else ():
        if path.is_symlink() or not path.name.endswith((_PLAIN, _PACKED)):
            continue
        place = path.with_name(path.name.removesuffix(packing.SUFFIX) + packing.SUFFIX)
        try:
            problems = read(path).problems
            found = content(path)
        except ResultsError:
            continue  # What cannot be read stays as it is; reports name it.
        if problems or (path != place and place.exists() and not _same(path, place)):
            continue
        if not found.packing or in_current_schema(found.data) != found.data:
            renewed[path] = place
    return renewed


def _same(path: Path, other: Path) -> bool:
    return _bytes(other).startswith(in_current_schema(content(path).data))


def _renew(path: Path, place: Path) -> None:
    """Write a published file as it is kept today, and only then remove it as it was."""
    if path == place or not place.exists():
        _write(place, packing.pack(in_current_schema(content(path).data)))
    if path != place:
        path.unlink()


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
            name = file_name(run.header) + packing.SUFFIX
            destination = results / run.header.machine / name
            data = in_current_schema(content(path).data)
            offer = _Offer(path, data, replace(run, path=destination))
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


def _bytes(published: Path) -> bytes:
    """Return what is published at a place, plainly until it is renewed; nothing where nothing is.

    It is in the current schema and not packed.
    """
    for path in (published, published.with_name(published.name.removesuffix(packing.SUFFIX))):
        if path.is_file():
            return in_current_schema(content(path).data)
    return b""


def _archived(reports: Path, published: Path) -> tuple[bytes, str]:
    """Return the newest archived copy of a published file, and in words where it is."""
    places = [place for place in _places(reports, published) if place.is_file()]
    return (_sound(places[-1]) or b"" if places else b""), "archived"


def _sound(place: Path) -> bytes | None:
    """Return what an archived file holds, in the current schema; None where it is damaged."""
    try:
        problems = read(place).problems
    except ResultsError:
        return None  # It says nothing, and is never written over.
    return None if problems else in_current_schema(content(place).data)


def _places(reports: Path, published: Path) -> Iterator[Path]:
    """Yield the archived copies of a published file in turn, then the next free place."""
    folder = reports / ARCHIVE / published.relative_to(reports / "results").parent
    for number in count(1):
        suffix = "" if number == 1 else f".{number}"
        place = folder / f"{published.name.removesuffix(_PACKED)}{suffix}{_PACKED}"
        yield place
        if not place.exists():
            return


def _place(reports: Path, published: Path) -> Path:
    """Return where to archive a published file: never over what it does not contain."""
    data = _bytes(published)
    for place in _places(reports, published):
        earlier = _sound(place) if place.exists() else b""
        if earlier is not None and (data.startswith(earlier) or earlier.startswith(data)):
            return place
    raise AssertionError("the last place is free")


def _archive(published: Path, place: Path) -> None:
    """Move a published file to the archive, unless it lies there already."""
    data = _bytes(published)
    if not (place.exists() and (_sound(place) or b"").startswith(data)):
        _write(place, packing.pack(data))
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
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # A temporary file is private; what is published is for everyone.
        fresh.chmod(0o644)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
