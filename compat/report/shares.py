"""Share work among processes, one for each processor, where a system can fork."""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from compat.contract.errors import CompatError

MOST_PROCESSES = 8

Part = TypeVar("Part")


def in_shares(work: Callable[[Part], None], parts: Sequence[Part], alone: bool) -> None:
    """Call ``work`` on every part, in several processes; parts come largest first.

    Forked processes share this one's memory, which holds the whole report. ``work`` may only write
    files, because a forked process lacks the threads of libraries. All work is done in this process
    where the system is not Linux, or where ``alone`` says that the work is small.

    Raises:
        CompatError: a forked process failed; it printed its error.
    """
    count = 1 if alone or sys.platform != "linux" else min(os.cpu_count() or 1, MOST_PROCESSES)
    shares = [parts[index::count] for index in range(count)]
    copies: list[int] = []
    # A garbage collection would write to all objects, and so copy the shared memory.
    gc.freeze()
    try:
        for share in shares[1:]:
            with warnings.catch_warnings():
                # Python 3.12 and later warn of a fork in any process with threads.
                warnings.simplefilter("ignore", DeprecationWarning)
                copy = os.fork()
            if not copy:
                _as_copy(work, share)
            copies.append(copy)
        for part in shares[0]:
            work(part)
    finally:
        gc.unfreeze()
        failed = [copy for copy in copies if os.waitpid(copy, 0)[1]]
    if failed:
        raise CompatError(
            f"{len(failed)} of {count} processes that write the site failed, as printed above.",
            "Free memory or disk space, then run it again.",
        )


def _as_copy(work: Callable[[Part], None], share: Sequence[Part]) -> None:
    """Do one share in a forked process, and end it without the exit handlers of its parent."""
    status = 1
    try:
        for part in share:
            work(part)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
