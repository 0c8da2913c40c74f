"""Judging stored observations again: thresholds change more often than measurements are made."""

from __future__ import annotations

from pathlib import Path

import msgspec

from compat.results import Level, Limit, Observation, Run, Status, Writer
from compat.thresholds import Thresholds


def rescore(run: Run, thresholds: Thresholds, folder: Path) -> tuple[Path, int]:
    """Write a results file with the same measurements, judged by other thresholds.

    Statuses that no threshold decides (crashed, unsupported, faults in outputs …) stay.

    Returns:
        The file's path, and how many observations changed their level.
    """
    hashes = {**run.header.hashes, "thresholds": thresholds.digest}
    path = folder / f"{run.header.run}.{run.header.worker}.jsonl"
    path.unlink(missing_ok=True)
    writer = Writer(folder, msgspec.structs.replace(run.header, hashes=hashes))
    facts = {planned.case.id: planned.case for planned in run.planned}
    changed = 0
    for planned in run.planned:
        writer.write(planned)
    for one in run.observations:
        judged = one
        if one.case in facts and one.values and one.status in ("passed", "failed"):
            level, limits, reason = thresholds.judge(one.check, facts[one.case], one.values)
            # A failure with every old limit met came from a fault, which no threshold forgives.
            fault = one.status == "failed" and all(old.level != "failed" for old in one.limits)
            if not fault:
                judged = _judged(one, level or one.level or "strict", limits, reason)
        changed += judged.level != one.level
        writer.write(judged)
    writer.close()
    return path, changed


def _judged(one: Observation, level: Level, limits: tuple[Limit, ...], reason: str) -> Observation:
    status: Status = "failed" if level == "failed" else "passed"
    return msgspec.structs.replace(one, status=status, level=level, limits=limits, reason=reason)
