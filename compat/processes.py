"""Settings of processes: their environment, their end, and their garbage collection."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    # NNCF's switch for its telemetry, which otherwise forks a process that may never end.
    "NNCF_CI": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def child_environment(threads: int = 0) -> dict[str, str]:
    """Return an environment for child processes, with networks and telemetry off.

    ``threads`` is the number of threads of numerical libraries; 0 leaves it to them.
    """
    environment = {**os.environ, **OFFLINE, "PYTHONUTF8": "1"}
    # NumPy's own threads go on spinning after a product, beside those of the runtime. They gain
    # little on small features, and slowed an encoder by a fifth.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    if threads:
        environment |= dict.fromkeys(THREADS, str(threads))
    return environment


def ending(code: int | None) -> str:
    """Return a clause on how a process ended, from its return code: ``was ended by SIGSEGV``."""
    if code is None or code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def stop_with_parent() -> None:
    """Watch standard input, and end this process at once when it closes: its parent is gone."""
    import threading

    def wait() -> None:
        # Not sys.stdin: its lock, held while reading, would block a library that forks.
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def no_collection() -> Iterator[None]:
    """Turn garbage collection off meanwhile, since millions of results are read and all stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
