"""Settings of processes: offline, quiet, with a stated thread count; and of their memory."""

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
    """Return this process's environment with networks and telemetry off."""
    environment = {**os.environ, **OFFLINE, "PYTHONUTF8": "1"}
    # NumPy's own threads go on spinning after a product, beside those of the runtime: features
    # are small, and an encoder ran a fifth slower for it.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    if threads:
        environment |= dict.fromkeys(THREADS, str(threads))
    return environment


def ending(code: int | None) -> str:
    """Say how a process ended, from its return code: ``was ended by SIGSEGV``."""
    if code is None or code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def stop_with_parent() -> None:
    """End this process at once when standard input reaches its end: whoever started it is gone."""
    import threading

    def wait() -> None:
        # Not sys.stdin: its lock, held while reading, would block a library that forks.
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: of what is read and rated millions of objects all stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
