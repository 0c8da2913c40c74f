"""The nursery: a process that forks builders which have imported PyTorch already.

Importing PyTorch and transformers takes longer than most jobs of :mod:`compat.build.artifacts`.
Where a process can be forked safely (Linux), a run therefore has a nursery. The nursery imports
both when the first job comes (or at once, where a job is sure to come), computes nothing itself,
and forks for each job. A builder is still a process of its own, with the environment and working
folder of the process that asked for it.

Protocol: a client connects to a Unix socket and sends one line of JSON, together with the pipe for
the builder's output. ``environment`` and ``folder`` are set in the builder; ``installed`` tells
which packages the client imports. The nursery answers with the builder's process number and, when
the builder has ended, with its return code, a line each. Everything that the client sends after its
first line is the builder's standard input.
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
"""Environment variable with the path of the socket; unset where there is no nursery."""

INSTALLED = [sys.prefix, __file__]
"""Where a process imports its packages from. A nursery forks only for clients with the same value,
as its builders have imported its own packages already."""

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
    """The nursery of a run, which all processes of the run use until it is closed.

    No second nursery is started below a process that has one, such as a run inside ``compat
    matrix``: that one is used.

    Args:
        threads: threads of the nursery's libraries; 0 lets them choose.
        at_once: import PyTorch now, rather than when the first job comes.
    """

    def __init__(self, threads: int = 0, at_once: bool = False) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if not hasattr(os, "pidfd_open"):
            return  # On macOS frameworks do not survive a fork, and Windows has no fork.
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
        """End the nursery. Running builders go on until the processes that asked for them end."""
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
    """Pipe with everything that the builder prints, errors included."""
    wait: Callable[[], int]
    """Function that waits for the builder's end and returns its code: 0 for success, negative for a
    signal (-9: killed)."""


@contextlib.contextmanager
def builder(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Builder]:
    """Start a builder: forked from the nursery if ``environment`` names one, else by a command."""
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
        return None  # The nursery has ended: the caller starts an ordinary process instead.
    finally:
        os.close(theirs)
    if not pid:
        return None

    def wait() -> int:
        return int(_line(connection) or -signal.SIGKILL)

    given = stack.enter_context(os.fdopen(os.dup(connection.fileno()), "wb", buffering=0))
    return Builder(int(pid), given, output, wait)


def _line(connection: socket.socket) -> str:
    """Return the next line, or an empty text at the end; no byte beyond the line is read."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def serve(listener: socket.socket, work: Callable[[], None], ready: bool = False) -> None:
    """Fork a process that calls ``work`` for each connection, until standard input ends.

    The socket's folder is removed in the end, as the process that made it may have been killed.

    Args:
        listener: the listening Unix socket.
        work: what a builder does; it reads its request from standard input.
        ready: whether :data:`PRELOADED` is imported already; if not, the first connection does it.
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
    """Import the modules of :data:`PRELOADED`, and pass over those that fail."""
    for name in PRELOADED:
        # A job that needs the module imports it again, and fails with the reason.
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _fork(connection: socket.socket, work: Callable[[], None]) -> int:
    """Return the process number of a new builder, or 0 if none was forked.

    None is forked for a client that has gone, or that imports other packages: such a client starts
    a builder of its own.
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
        # Python and PyTorch read these when they started, from the nursery's own environment.
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
