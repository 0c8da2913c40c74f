"""Occupancy of the processors: the time that all processes took, and the worker's share of it.

The difference is the time of other processes. It shows that a machine was busy without looking at
the timed work itself, and even if every round was disturbed alike.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection
from time import perf_counter
from typing import Any


def allowed() -> list[int]:
    """Return the numbers of the processors that this process may use.

    Call this before a runtime is loaded, which may pin the calling thread to fewer.
    """
    import psutil

    with contextlib.suppress(AttributeError, psutil.Error, OSError):  # macOS has no affinity.
        return list(psutil.Process().cpu_affinity())
    return list(range(os.cpu_count() or 1))


def keep_orphans() -> None:
    """Make this process the new parent of its orphaned descendants, on Linux.

    A helper that detached itself from its parent then still counts among this process's children.
    """
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def reading(processors: Collection[int]) -> dict[str, Any]:
    """Read the clocks of some processors and of this process's family; two readings make a span.

    Only time outside the kernel counts. The kernel's own time, in interrupts and threads, may serve
    the worker, and counting it as another's would excuse a slow backend. Time that a hypervisor
    took (``steal``) counts as another's.

    Args:
        processors: numbers of the processors, see :func:`allowed`.

    Returns:
        ``wall_s`` (a clock, in seconds), ``used_s`` (seconds that all processes used those
        processors), ``own_s`` (seconds of the worker, of its children at any depth, ended ones
        included, and of the suite that asks), ``processors`` (their number) and ``processes`` (the
        ids behind ``own_s``). Empty if the operating system does not tell.
    """
    import psutil

    with contextlib.suppress(psutil.Error, OSError, NotImplementedError):
        clocks = psutil.cpu_times(percpu=True)
        rows = [clocks[number] for number in processors if number < len(clocks)]
        kinds = ("user", "nice", "steal")
        used = sum(getattr(row, kind, 0.0) for row in rows for kind in kinds)
        wall = perf_counter()
        worker = psutil.Process()
        own = {os.getppid(): float(psutil.Process(os.getppid()).cpu_times().user)}
        for one in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                own[one.pid] = times.user + times.children_user
        if used:
            return {
                "wall_s": wall,
                "used_s": used,
                "own_s": sum(own.values()),
                "processors": len(rows),
                "processes": sorted(own),
            }
    return {}
