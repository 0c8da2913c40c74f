"""Judging stored observations again: scorers and thresholds change more often than measurements.

Task metrics are computed again from the predictions that the results file keeps, whatever
thresholds apply. Tasks that score arrays are left out, since results keep only digests of arrays.
All other numbers stay as they were measured.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from compat import catalog
from compat.build.translation import translated
from compat.contract.item import Item
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.judge import packing
from compat.judge.result_files import content
from compat.judge.results import (
    CaseFacts,
    Header,
    Level,
    Limit,
    MetricFacts,
    Observation,
    ResultsError,
    Run,
    Writer,
    file_name,
    scorer_of,
)
from compat.judge.thresholds import Thresholds, default_path, load
from compat.judge.verdict import verdict
from compat.metrics import SCORER_VERSION
from compat.models.base import Model
from compat.models.tasks.base import Task

TASK = "accuracy.task"
NEEDED = {"set", "item", "audio_s", "truth", "prediction"}
"""Fields that a stored prediction needs to be scored again; those of the oldest files lack some."""


_FORM = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Exceptions that scoring raises if rows have another form; others are faults of the scorer."""


class _NotItsTasks(Exception):
    """Predictions have another form than those of their task."""


@dataclass(frozen=True)
class Rescored:
    """The outcome of rescoring one results file."""

    path: Path
    changed: int = 0
    """Observations that changed their level."""
    unplanned: int = 0
    """Observations left as they were, because no header of their machine planned their case."""
    unreadable: int = 0
    """Observations with their old scores, because their task cannot read their predictions."""
    observations: int = field(default=0, compare=False)
    """Observations in all."""


def rescore(
    runs: Sequence[Run],
    thresholds: Thresholds,
    folder: Path | None,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> list[Rescored]:
    """Write results files with the same measurements, scored and judged again.

    With ``folder`` they are written there, unpacked and under the names that a process gives them.
    Without it they replace the files that they come from, and are packed if those are.

    The facts of a case come from any run of its machine, since only one of parallel processes
    writes them. Statuses that no threshold decides (crashed, unsupported, faults in outputs …)
    stay, and so do the scores of models that are not in the catalog, or whose checkpoint is not at
    hand. A file is replaced as a whole, so that an interruption leaves what was there.
    ``progress`` gets the number of files that are done and the number of all files.

    Raises:
        ResultsError: the folder cannot be written.
    """
    facts: dict[tuple[str, ...], CaseFacts] = {}
    for run in runs:
        for plan in run.planned:
            # Facts from the run itself are preferred, since those of another run may differ.
            facts[run.header.machine, plan.case.id] = plan.case
            facts[run.header.machine, plan.case.id, run.header.run] = plan.case
    by_file: dict[Path, list[Run]] = {}
    for run in runs:
        path = folder / file_name(run.header) if folder else run.path
        by_file.setdefault(path, []).append(run)
    if folder is None:
        _refuse_what_would_be_lost(by_file)
    shipped = thresholds.digest == load([default_path()]).digest
    done = []
    for number, (path, same) in enumerate(by_file.items()):
        progress(number, len(by_file))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".rescoring.") as fresh:
                done.append(_rescore(same, thresholds, shipped, facts, Path(fresh), path))
        except OSError as error:
            raise ResultsError(
                f"cannot write to {path.parent}: {error.strerror}.",
                "Name another folder with --output.",
            ) from error
    return done


def _refuse_what_would_be_lost(by_file: Mapping[Path, Sequence[Run]]) -> None:
    """Raise :class:`ResultsError` where writing files again would leave something out of them."""
    for path, runs in by_file.items():
        problem = "holds several runs" if len(runs) > 1 else "".join(runs[0].problems[:1])
        if problem:
            raise ResultsError(
                f"{path} is not rescored in its place, nor is any other file: {problem}.",
                "Mend or move it, or write copies to a folder with --output.",
            )


def _rescore(
    runs: Sequence[Run],
    thresholds: Thresholds,
    shipped: bool,
    facts: dict[tuple[str, ...], CaseFacts],
    fresh: Path,
    path: Path,
) -> Rescored:
    """Rescore the runs that share a file name: one, or copies of it from several places."""
    changed = unplanned = unreadable = 0
    for run in runs:
        writer = Writer(fresh, _header(run.header, thresholds, shipped))
        for planned in run.planned:
            writer.write(planned)
        for begun in run.started:
            writer.write(begun)
        for one in run.observations:
            if one.check == TASK and one.values:
                # An observation that cannot be scored again keeps the version of its old scorer.
                one = msgspec.structs.replace(one, scorer=scorer_of(run.header, one))
            judged = one
            if _judgeable(one):
                key = (run.header.machine, one.case)
                case = facts.get((*key, run.header.run)) or facts.get(key)
                unplanned += case is None
                if case:
                    try:
                        scored = _scored(one, case)
                    except _NotItsTasks:
                        scored = one
                        unreadable += 1
                    if scored.scorer in (None, SCORER_VERSION):
                        judged = _judged_by(thresholds, scored, case)
            changed += judged.level != one.level
            writer.write(judged)
        writer.close()
    written = fresh / file_name(runs[0].header)
    if path.exists() and content(path).packing:
        written.write_bytes(packing.pack(written.read_bytes()))
    written.replace(path)
    total = sum(len(run.observations) for run in runs)
    return Rescored(path, changed, unplanned, unreadable, total)


def _header(header: Header, thresholds: Thresholds, shipped: bool) -> Header:
    own = tuple(entry for entry in header.own if entry != "thresholds")
    return msgspec.structs.replace(
        header,
        hashes={**header.hashes, "thresholds": thresholds.digest},
        versions={**header.versions, "scorer": str(SCORER_VERSION)},
        own=own if shipped else (*own, "thresholds"),
    )


def _judgeable(one: Observation) -> bool:
    """Return whether thresholds decided an observation, so that other ones may decide otherwise."""
    # A time that missed its limits on a busy machine may meet other limits.
    missed = one.status == "inconclusive" and bool(one.limits)
    decided = one.status in ("passed", "failed", "known-failure", "unexpected-pass")
    return bool(one.values) and (missed or decided)


def _scored(one: Observation, case: CaseFacts) -> Observation:
    """Score an observation again if it holds task metrics and can be scored; else return it."""
    scores = task_scores(one, case) if one.check == TASK else None
    if not scores:
        return one
    return msgspec.structs.replace(one, values=scores, metrics=_declared(case), scorer=None)


def _judged_by(thresholds: Thresholds, one: Observation, case: CaseFacts) -> Observation:
    """Judge an observation with values by other thresholds."""
    level, limits, reason = thresholds.judge(one.check, case, one.values)
    # A failure with every old limit met came from a fault, which no threshold forgives.
    if one.status in ("failed", "known-failure") and all(
        old.level != "failed" for old in one.limits
    ):
        return one
    return _judged(one, level or one.level or "strict", limits, reason)


def task_scores(one: Observation, case: CaseFacts) -> dict[str, Any] | None:
    """Return the task metrics of stored predictions; None if they cannot be computed.

    They cannot if the model is not at hand, a prediction is not stored as a whole, or the task
    scores arrays, of which results keep only digests.

    Raises:
        _NotItsTasks: the predictions, or their truths, are of another form.
    """
    task = _task(case)
    rows = one.predictions
    whole = all(isinstance(row, dict) and row.keys() >= NEEDED for row in rows)
    if task is None or not task.rescorable or not rows or not whole:
        return None
    try:
        return task.score_sets(_sets(task, rows))
    except _FORM as error:  # A stranger's predictions have any form, and tasks trust theirs.
        raise _NotItsTasks from error


def _sets(task: Task, rows: Sequence[Any]) -> dict[str, tuple[list[Item], list[Any], list[Any]]]:
    """Return items, predictions and references of stored rows, by test set."""
    sets: dict[str, tuple[list[Item], list[Any], list[Any]]] = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        items = [task.restored(row["item"], row["truth"], row["audio_s"]) for row in of_set]
        predictions = [row["prediction"] for row in of_set]
        references = [row.get("reference", row["prediction"]) for row in of_set]
        sets[name] = items, predictions, references
    return sets


def _declared(case: CaseFacts) -> dict[str, MetricFacts]:
    """Return the units and directions of the metrics of a case's task."""
    task = _task(case)
    return {m.name: MetricFacts(**m.facts) for m in task.metrics} if task else {}


def _task(case: CaseFacts) -> Task | None:
    known = catalog.load()
    try:
        family = next(family for family in known.families if family.name == case.family)
        variant = next(variant for variant in family.variants if variant.name == case.variant)
        trained = case.weights == "trained"
        found = variant.trained if trained else str(find_checkpoint(variant.checkpoint))
        checkpoint = translated(found)
        model: Model = known.family_module(family.name).load(variant.name, case.weights, checkpoint)
    except (StopIteration, CheckpointError):
        return None
    return model.task


def _judged(one: Observation, level: Level, limits: tuple[Limit, ...], reason: str) -> Observation:
    status, reason, remedy = verdict(level, reason, one.values, one.threads)
    known = re.search(r"(?:\(known: |^expected to fail: )(.*?)\)?$", one.reason)
    if one.expected and status != "inconclusive":
        expected = known[1] if known else one.expected
        if status == "passed":
            status, reason = "unexpected-pass", f"expected to fail: {expected}"
        else:
            status, reason = "known-failure", f"{reason} (known: {expected})"
    return msgspec.structs.replace(
        one,
        status=status,
        level=None if status == "inconclusive" else level,
        limits=limits,
        reason=reason,
        remedy=remedy,
    )
