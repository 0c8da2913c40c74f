"""The nursery: a process that forks builders which have imported PyTorch already.

Importing PyTorch and transformers takes longer than most jobs of :mod:`compat.build.artifacts` do.
Where a process can be forked safely (Linux), a run therefore has a nursery. It imports them when
the first job comes (or at once, where one is sure to come), computes nothing itself, and forks for
each job. A builder is still a process of its own, with the environment and working folder of the
process that asked for it.

Over a Unix socket a client sends one line of JSON with the pipe that is to be the builder's output.
``environment`` and ``folder`` are the builder's, ``installed`` tells which packages the client
imports. It is answered with the builder's process number and, in the end, with its return code, a
line each. What follows the first line is the builder's standard input.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from compat.processes import child_environment

ENVIRONMENT = "COMPAT_NURSERY"
"""Path of the socket; absent where there is no nursery."""

INSTALLED = [sys.prefix, __file__]
"""Which packages a process imports: a nursery forks for those that would import the same."""

PRELOADED = (
    "torch",
    "torch._dynamo",
    "torch.export",
    "torch.onnx._internal.exporter._core",
    "onnx",
    "onnxscript",
    "transformers.modeling_utils",
    "transformers.generation",
)
"""Modules that the nursery imports. None of them starts a thread, which a fork would lose."""


class Nursery:
    """The nursery of a run; used by every process that the run starts, until it is closed.

    A run that is part of something larger, which has a nursery, uses that one.
    """

    def __init__(self, threads: int = 0, at_once: bool = False) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if not hasattr(os, "pidfd_open"):
            return  # macOS and Windows: their frameworks do not survive a fork, or there is none.
        if os.environ.get(ENVIRONMENT):
            return
        self._folder = Path(tempfile.mkdtemp(prefix="compat-"))
        path = self._folder / "nursery"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "compat.build.builder", "--serve"),
                    *(str(listener.fileno()), *["now"] * at_once),
                ],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                env=child_environment(threads),
                start_new_session=True,
            )
        os.environ[ENVIRONMENT] = str(path)

    def close(self) -> None:
        """End the nursery. Builders go on until the processes that asked for them end."""
        if self._process is not None:
            os.environ.pop(ENVIRONMENT, None)
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class Builder:
    """A process that was started to build one artifact."""

    pid: int
    input: BinaryIO
    """Pipe for its request; the builder stops when the pipe is closed."""
    output: BinaryIO
    """Pipe with everything that it prints, errors included."""
    wait: Callable[[], int]
    """Function that waits for its end and returns its code, negative for a signal (-9: killed)."""


@contextlib.contextmanager
def builder(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Builder]:
    """Start a builder, forked from the nursery if there is one, else by ``command``."""
    with contextlib.ExitStack() as stack:
        forked = _forked(environment, stack)
        if forked:
            yield forked
            return
        process = stack.enter_context(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=environment,
            )
        )
        yield Builder(process.pid, process.stdin, process.stdout, process.wait)  # type: ignore[arg-type]


def _forked(environment: Mapping[str, str], stack: contextlib.ExitStack) -> Builder | None:
    path = environment.get(ENVIRONMENT)
    if not path:
        return None
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    ours, theirs = os.pipe()
    output: BinaryIO = stack.enter_context(os.fdopen(ours, "rb"))
    request = {"environment": dict(environment), "folder": str(Path.cwd()), "installed": INSTALLED}
    try:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [theirs])
        pid = _line(connection)
    except OSError:
        return None  # It has ended; a process of the usual kind does as well.
    finally:
        os.close(theirs)
    if not pid:
        return None

    def wait() -> int:
        return int(_line(connection) or -signal.SIGKILL)

    given = stack.enter_context(os.fdopen(os.dup(connection.fileno()), "wb", buffering=0))
    return Builder(int(pid), given, output, wait)


def _line(connection: socket.socket) -> str:
    """Read a line byte by byte, as the bytes after it are the next reader's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def serve(listener: socket.socket, work: Callable[[], None], ready: bool = False) -> None:
    """Fork for each connection a process that calls ``work``, until standard input ends.

    Unless it is ``ready``, it imports first what jobs need, when the first comes. The folder of the
    socket is removed in the end, as whoever made it may have been killed.
    """
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                path = Path(listener.getsockname())
                with contextlib.suppress(OSError):
                    path.unlink()
                    path.parent.rmdir()
                return
            if key.fileobj is not listener:
                pid, connection = key.data
                selector.unregister(key.fileobj)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % code)
                connection.close()
                continue
            if not ready:
                preload()
                ready = True
            connection, _ = listener.accept()
            pid = _fork(connection, work)
            if pid:
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))


def preload() -> None:
    """Import :data:`PRELOADED`."""
    for name in PRELOADED:
        # The job that needs a module will fail with the reason why it does not import.
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _fork(connection: socket.socket, work: Callable[[], None]) -> int:
    """Return the process number of a new builder.

    It is 0 if the process that asked for it is gone or is of another installation, which is left to
    start a builder of its own.
    """
    message, outputs, _, _ = socket.recv_fds(connection, 1 << 20, 1)
    while not message.endswith(b"\n") and (more := connection.recv(1 << 20)):
        message += more
    request = json.loads(message) if message.endswith(b"\n") else {}
    if not outputs or request.get("installed") != INSTALLED:
        for descriptor in outputs:
            os.close(descriptor)
        connection.close()
        return 0
    (output,) = outputs
    pid = os.fork()
    if pid:
        os.close(output)
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % pid)
        return pid
    try:
        os.dup2(connection.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 1 << 10)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        # Read when Python started, from another environment, as is the number of threads.
        named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in named if path and path not in sys.path]
        if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:
            sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        tempfile.tempdir = None
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
