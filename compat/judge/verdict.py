"""The verdict of one check: its status and reason, from the level that its values reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compat.judge.results import Level, Status
from compat.metrics.timing import crowding

QUIETER = "close other programs and run again"
"""The remedy for a time that a busy machine spoilt."""


def verdict(
    level: Level, reason: str, values: Mapping[str, Any], threads: int
) -> tuple[Status, str, str]:
    """Return status, reason and remedy for the level that values reached.

    If other processes used the processors, a measured time is only an upper bound: it can prove
    that a limit is met, but not that one is missed.
    """
    crowded = crowding(values, threads) if level != "strict" else ""
    if level == "failed":
        if crowded:
            return "inconclusive", f"the machine was busy: {crowded}; {reason}", QUIETER
        return "failed", reason, ""
    if crowded:
        reason = f"{reason} ({crowded}: a quiet machine may do better)"
    return "passed", reason, ""
