"""Work in shares: one process for each processor, where processes can be copied."""

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
    """Do some work on every part; parts come largest first.

    Copies of this process share its memory, which holds the whole report. They write files and do
    nothing else, so that threads of libraries, which a copy lacks, are not missed. Where a system
    cannot copy, or for work so small that it is to be done ``alone``, there is one process.

    Raises:
        CompatError: a copy could not do its share; what was wrong was printed.
    """
    count = 1 if alone or sys.platform != "linux" else min(os.cpu_count() or 1, MOST_PROCESSES)
    shares = [parts[index::count] for index in range(count)]
    copies: list[int] = []
    # Collecting garbage would touch, and so copy, all memory.
    gc.freeze()
    try:
        for share in shares[1:]:
            with warnings.catch_warnings():
                # From Python 3.12 on it is said of every process with threads: see above.
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
    """Do one share and end: nothing that the process would do at its end is the copy's to do."""
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
