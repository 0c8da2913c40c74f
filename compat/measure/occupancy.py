"""Who has the processors: the time that all processes took, and the worker's own share of it.

What other processes took is the difference. It says that a machine was busy without asking how
long the timed work itself took, and where every round was busy alike.
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

    Ask before a runtime may pin the calling thread.
    """
    import psutil

    with contextlib.suppress(AttributeError, psutil.Error, OSError):  # macOS has no affinity.
        return list(psutil.Process().cpu_affinity())
    return list(range(os.cpu_count() or 1))


def keep_orphans() -> None:
    """Have Linux give this process the children of its children that ended.

    A helper that detached itself from whoever started it stays among this process's own.
    """
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def reading(processors: Collection[int]) -> dict[str, Any]:
    """Read the clocks of some processors and of this process's family; two readings make a span.

    Only time outside the kernel counts. What the kernel does, in interrupts and in threads of its
    own, may be done for the worker: to call it another's would excuse a slow backend. To what
    others took belongs what a hypervisor took (``steal``).

    Args:
        processors: numbers of the processors, see :func:`allowed`.

    Returns:
        ``wall_s``, ``used_s`` (seconds that all processes used those processors), ``own_s`` (of it
        the worker, its children at any depth, those that ended included, and the suite that asks),
        ``processors`` (their number) and ``processes`` (the ids behind ``own_s``); empty where the
        operating system does not say.
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
