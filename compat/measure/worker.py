"""The worker: a process that measures one case, started as ``python -m compat.measure.worker``.

It reads one JSON request a line from its standard input and answers each with one line on its
standard output. Both are first moved to private descriptors, because vendor libraries print. Lines
that say what is being built, and by which processes, may come before an answer. The worker ends at
once when its input is closed, because its parent is gone then.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, BinaryIO

from compat.build import artifacts
from compat.contract.errors import CompatError
from compat.measure import occupancy

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "failed to allocate memory",
    "bad allocation",
    "array buffer allocation failed",
    "could not allocate memory",
)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the pipes to private descriptors; ordinary output goes to the log, standard error."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def end_with_parent() -> None:
    """Let Linux end this process with its parent, even while a library holds Python's lock."""
    if sys.platform == "linux":
        import ctypes
        import signal

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by their names, at any depth.

    Scalars of NumPy and PyTorch become built-in numbers.
    """
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def encoded(stage: str, value: Any) -> bytes:
    """Return the answer of a stage as JSON.

    Raises:
        CompatError: the answer holds something other than built-in values.
    """

    def refuse(found: Any) -> Any:
        who = "score()" if stage == "task" else f"the stage {stage}"
        raise CompatError(f"{who} must return built-in numbers (got {type(found).__name__})")

    return json.dumps(finite(value), default=refuse).encode()


def kind_of(error: BaseException) -> str:
    """Classify an exception as one of the statuses that a stage can end with."""
    if isinstance(error, CompatError):
        return error.kind
    if isinstance(error, MemoryError) or any(m in str(error).lower() for m in OUT_OF_MEMORY):
        return "out-of-memory"
    return "error"


def main() -> int:
    """Serve requests until the pipe is closed."""
    end_with_parent()
    occupancy.keep_orphans()
    requests, replies = take_pipes()
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        buffer = b""
        while chunk := os.read(requests.fileno(), 65536):
            buffer += chunk
            *whole, buffer = buffer.split(b"\n")
            for line in whole:
                lines.put(line)
        os._exit(0)

    def forward(awaited: str, builder_pids: Sequence[int]) -> None:
        event = {"building": awaited, "builders": builder_pids}
        replies.write(json.dumps(event).encode() + b"\n")

    threading.Thread(target=read, daemon=True).start()
    artifacts.on_wait = forward
    protocol: Any = None
    while True:
        request = json.loads(lines.get())
        try:
            if protocol is None:
                from compat.measure.protocol import Protocol

                protocol = Protocol(request["case"])
            value = protocol.stage(request["stage"], request["arguments"])
            reply = encoded(request["stage"], {"id": request["id"], "ok": True, "value": value})
        except Exception as error:
            trace = traceback.format_exc()
            print(trace, file=sys.stderr, flush=True)
            failure = {
                "id": request["id"],
                "ok": False,
                "kind": kind_of(error),
                "message": str(error) or type(error).__name__,
                "type": type(error).__name__,
                "trace": trace[-6000:],
            }
            reply = json.dumps(failure).encode()
        replies.write(reply + b"\n")


if __name__ == "__main__":
    sys.exit(main())
