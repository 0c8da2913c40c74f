"""The parent's side of a worker: start it, ask for stages, survive whatever becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any, ClassVar

from compat.measure.request import CaseRequest
from compat.processes import child_environment, ending

POLL = 0.25
"""Seconds between two looks at a busy worker's memory."""

BUILDING_LIMIT = 3600.0
"""Seconds that an export or a reference may take to build; ten stage limits, if that is more."""


class StageFailure(Exception):
    """A stage gave no result. ``status`` becomes the status of the observation."""

    status: ClassVar[str] = "error"
    trace = ""


class StageError(StageFailure):
    """The code of a stage, or of a library that it called, raised an exception."""


class StageUnsupported(StageFailure):
    """The runtime cannot execute the recipe, or executed another one."""

    status = "unsupported"


class StageInput(StageFailure):
    """An input of the stage cannot be used, so that nothing was learnt of the runtime.

    The input was given to the suite or made by it: a corpus, a checkpoint, a score that is no
    number, an export, the cache.
    """


class OutOfMemory(StageFailure):
    """The worker ran out of memory, or passed the limit that it was given."""

    status = "out-of-memory"


class Crashed(StageFailure):
    """The worker ended in the middle of a stage."""

    status = "crashed"


class TimedOut(StageFailure):
    """A stage took longer than its limit, and the worker was ended."""

    status = "timeout"


KINDS: dict[str, type[StageFailure]] = {
    "unsupported": StageUnsupported,
    "out-of-memory": OutOfMemory,
    "input": StageInput,
    "crashed": Crashed,
    "error": StageError,
}


class Worker:
    """One worker process for one case, started when it is first needed.

    The result or failure of a stage is remembered, so that suites may ask for a stage any number of
    times. After a crash, a hang or an out-of-memory kill, the next stage gets a fresh process.
    """

    def __init__(
        self,
        request: CaseRequest,
        time_limit: float,
        memory_limit: int,
        said: Callable[[str], None] = lambda stage: None,
    ) -> None:
        self.request = request
        self.time_limit = time_limit
        self.memory_limit = memory_limit
        self.building_limit = max(BUILDING_LIMIT, 10 * time_limit)
        self._said = said
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[bytes | None] = queue.Queue()
        self._log: IO[bytes] | None = None
        self._remembered: dict[str, Any] = {}
        self._count = 0

    def stage(self, name: str, **arguments: Any) -> Any:
        """Return the result of a stage, asking the worker only the first time.

        Raises:
            StageFailure: one of its subclasses, which say what happened.
        """
        key = name + json.dumps(arguments, sort_keys=True)
        if key not in self._remembered:
            try:
                self._remembered[key] = self.ask(name, **arguments)
            except StageFailure as failure:
                self._remembered[key] = failure
        remembered = self._remembered[key]
        if isinstance(remembered, StageFailure):
            raise remembered
        return remembered

    def known(self, name: str) -> Any:
        """Return the result of a stage if it was performed already, else None.

        Raises:
            StageFailure: the stage was performed and failed.
        """
        remembered = self._remembered.get(name + "{}")
        if isinstance(remembered, StageFailure):
            raise remembered
        return remembered

    def ask(self, name: str, **arguments: Any) -> Any:
        """Perform a stage now and return its result, without remembering it, for repeated rounds.

        Raises:
            StageFailure: one of its subclasses, which say what happened.
        """
        self._said(name)
        if self._process is not None and self._process.poll() is not None:
            # It ended after its last answer: a driver may report a fault late.
            raise self._crash(f"before {name}")
        process = self._started()
        self._count += 1
        request = {
            "id": self._count,
            "stage": name,
            "arguments": arguments,
            "case": asdict(self.request),
        }
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._crash(f"before {name}") from None
        reply = self._await(name)
        if reply["ok"]:
            return reply["value"]
        failure = KINDS[reply["kind"]](reply["message"])
        failure.trace = reply.get("trace", "")
        if isinstance(failure, Crashed):
            self.close()  # The process that it drove is gone: the next stage gets a fresh worker.
        raise failure

    def pause(self, still: bool) -> None:
        """Stop an idle worker with its spinning threads, or let it go on; no effect on Windows."""
        if self._process is not None and self._process.poll() is None and hasattr(os, "killpg"):
            os.killpg(self._process.pid, signal.SIGSTOP if still else signal.SIGCONT)

    def _await(self, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.time_limit
        # The artifact that is being built for the suite, its start, and the processes that build
        # it. Meanwhile the stage's clock stands still, and their memory is not counted.
        building, since = "", 0.0
        builders: list[int] = []
        while True:
            try:
                line = self._replies.get(timeout=POLL)
            except queue.Empty:
                self._check_memory(name, builders)
                now = time.monotonic()
                if building and now > since + self.building_limit:
                    tail = self._tail()
                    self.close()
                    raise StageInput(
                        f"building {building} took over {self.building_limit:g} s{tail}"
                    ) from None
                if not building and now > deadline:
                    tail = self._tail()
                    self.close()
                    raise TimedOut(
                        f"{name} took over {self.time_limit:g} s (--time-limit){tail}"
                    ) from None
                continue
            if line is None:
                raise self._crash(f"during {name}")
            try:
                reply: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            if "building" in reply:
                now = time.monotonic()
                if not building:
                    since = now
                elif not reply["building"]:
                    deadline += now - since
                building, builders = reply["building"], reply["builders"]
                self._said(f"building {building}" if building else name)
            elif reply.get("id") == self._count:
                return reply

    def _check_memory(self, name: str, builders: Sequence[int]) -> None:
        used = self._memory(builders)
        if used > self.memory_limit:
            self.close()
            raise OutOfMemory(
                f"{name} used {used / 2**30:.1f} GiB, over the limit of "
                f"{self.memory_limit / 2**30:.1f} GiB"
            )

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        # A file without a name: nothing of it is left if this process is killed.
        self._log = log = tempfile.TemporaryFile(prefix="compat-worker-")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compat.measure.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(self.request.threads),
            # A session of its own: Ctrl-C reaches this process, which then ends the worker.
            start_new_session=True,
        )
        self._replies = queue.Queue()
        threading.Thread(
            target=_read, args=(self._process, self._replies), name="worker", daemon=True
        ).start()
        return self._process

    def _memory(self, builders: Sequence[int]) -> int:
        """Return the resident bytes of the worker and its children, except for builders."""
        import psutil

        def family(process: int) -> set[Any]:
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(process)
                return {parent, *parent.children(recursive=True)}
            return set()

        assert self._process is not None
        total = 0
        for one in family(self._process.pid).difference(*map(family, builders)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
        return total

    def _crash(self, when: str) -> StageFailure:
        process = self._process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        code = process.poll()
        tail = self._tail()
        self.close()
        return Crashed(f"the worker {ending(code)} {when}{tail}")

    def _tail(self) -> str:
        """Return the end of the worker's log, as a continuation of a sentence."""
        if self._log is None:
            return ""
        with contextlib.suppress(OSError):
            # The worker shares this file's position: reading to the end lets it append there.
            self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 1500))
            text = self._log.read().decode(errors="replace").strip()
            lines = text.splitlines()[-6:]
            return "; it last printed: " + " | ".join(lines) if lines else ""
        return ""

    def close(self) -> None:
        """End the worker: close its pipe, and then its whole process group if it lingers."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
            _end_group(process)
            process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _read(process: subprocess.Popen[bytes], replies: queue.Queue[bytes | None]) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            replies.put(line)
    replies.put(None)
