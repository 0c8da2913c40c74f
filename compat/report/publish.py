"""Publish a person's results to ``reports/``, and write the matrix that rests on them.

Published results are evidence, so nothing that comes in deletes or changes them. Files that no
longer count move to an archive beside them, and files that contradict them are refused.
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
"""Name of the folder beside the results whose files reports do not read."""

_PLAIN = ".jsonl"
_PACKED = f".jsonl{packing.SUFFIX}"


@dataclass(frozen=True)
class PublishResult:
    """The outcome of publishing, or of a dry run of it, for every file."""

    matrix: Path
    published: tuple[Path, ...] = ()
    """Files below ``reports/results`` that came from a source, now or earlier."""
    rejected: tuple[str, ...] = ()
    """Sources that were not taken, each with the reason and the remedy."""
    superseded: tuple[Path, ...] = ()
    """Files, published earlier or offered now, that contribute no observation that counts."""
    added: tuple[Path, ...] = ()
    """Files of ``published`` that are new or have grown."""
    archived: Mapping[Path, Path] = field(default_factory=dict)
    """Maps each superseded file that was published earlier to its place in the archive."""
    packed: tuple[Path, ...] = ()
    """Files published earlier that are rewritten compressed and in the current schema."""
    cells: tuple[str, ...] = ()
    """Sentences on the cells of the matrix that changed, with their new and old rating."""


@dataclass(frozen=True)
class _Offer:
    """A results file that may be published."""

    source: Path
    data: bytes
    """Content of the file in the current schema, not compressed."""
    run: Run
    """The run, with the path that it will have when published."""


def publish(
    sources: Sequence[Path], reports: Path, own: bool = False, dry_run: bool = False
) -> PublishResult:
    """Copy valid results files to ``reports/results/<machine>/`` and write ``MATRIX.md``.

    All published files are kept compressed and in the current schema; older ones are rewritten so.
    ``sources`` are results files or folders of them. A file is rejected, and named with the reason,
    if it has an unreadable line or an impossible claim, contradicts a published file, or was
    measured with an own corpus, checkpoint or thresholds (which ``own`` allows). A longer copy
    replaces a published file if it begins with that file's content. Published files without an
    observation that counts move to ``reports/archive``. Published files with problems, and files
    that are no results files, stay untouched.

    With ``dry_run`` nothing is written, and the result is the outcome that publishing would have.

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
        # Only the earlier files can have problems; fresh files with one were rejected.
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
    """Return the published files to rewrite, each with its new path.

    They are files that are not compressed, or have an older schema.
    """
    renewed = {}
    for path in find([results], Problems()) if results.is_dir() else ():
        if path.is_symlink() or not path.name.endswith((_PLAIN, _PACKED)):
            continue
        place = path.with_name(path.name.removesuffix(packing.SUFFIX) + packing.SUFFIX)
        try:
            problems = read(path).problems
            found = content(path)
        except ResultsError:
            continue  # An unreadable file stays as it is; reports name it.
        if problems or (path != place and place.exists() and not _same(path, place)):
            continue
        if not found.packing or in_current_schema(found.data) != found.data:
            renewed[path] = place
    return renewed


def _same(path: Path, other: Path) -> bool:
    return _bytes(other).startswith(in_current_schema(content(path).data))


def _renew(path: Path, place: Path) -> None:
    """Write a published file compressed and in the current schema, then remove the old one.

    An interruption between the two leaves both, and loses nothing.
    """
    if path == place or not place.exists():
        _write(place, packing.pack(in_current_schema(content(path).data)))
    if path != place:
        path.unlink()


def _offers(
    sources: Sequence[Path], reports: Path, own: bool
) -> tuple[dict[Path, _Offer], list[str]]:
    """Return the files that may be published, by destination, and sentences on rejected ones."""
    results = reports / "results"
    mine = {results.resolve(), (reports / ARCHIVE).resolve()}
    found: dict[Path, list[_Offer]] = {}
    rejected: list[str] = []
    unreadable = Problems()
    for source in sources:
        for path in find([source], unreadable):
            # Path.resolve() raises an error for a link to itself.
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
    """Say how copies of a run contradict one another or a published file; empty if they agree."""
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
    """Return the content of a published file; empty where there is none.

    The content is in the current schema and not compressed. A file that is not yet compressed has
    the same name without the suffix.
    """
    for path in (published, published.with_name(published.name.removesuffix(packing.SUFFIX))):
        if path.is_file():
            return in_current_schema(content(path).data)
    return b""


def _archived(reports: Path, published: Path) -> tuple[bytes, str]:
    """Return the content of the newest archived copy of a published file, and the word *archived*.

    The content is empty where there is no sound copy.
    """
    places = [place for place in _places(reports, published) if place.is_file()]
    return (_sound(places[-1]) or b"" if places else b""), "archived"


def _sound(place: Path) -> bytes | None:
    """Return the content of an archived file in the current schema; None where it is damaged."""
    try:
        problems = read(place).problems
    except ResultsError:
        return None  # A damaged file is no evidence, but it is never overwritten.
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
    """Return the path at which to archive a published file.

    It is free, or holds a copy of which one is the beginning of the other.
    """
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
    # The original goes last, so that an interruption leaves two copies, not none.
    published.unlink()


def _with(runs: Iterable[Run], fresh: Mapping[Path, _Offer]) -> list[Run]:
    """Return the published runs and the fresh ones; a fresh run replaces one of the same path."""
    return [run for run in runs if run.path not in fresh] + [one.run for one in fresh.values()]


def _superseded(runs: Sequence[Run]) -> list[Path]:
    """Return the files that have no problem and contribute no observation that counts.

    A file whose plan describes a counting observation contributes too.
    """
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
    """Yield a sentence for each cell of the matrix that changed, with the new and old text."""
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
        # Temporary files are private to their owner, but published ones are for everyone.
        fresh.chmod(0o644)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
