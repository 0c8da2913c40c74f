"""Python processes forked from one that has imported the libraries already (Linux).

Tests run the suites and ``compat`` some hundred times, each time in processes of their own: pytest,
a probe, a worker. Most of what these cost is the start of Python and the import of pytest and
PyTorch. Where fork is safe, a process of :func:`run` comes from a server that has imported both,
and what it starts as ``python -m MODULE`` is forked from itself. Each is a process with an
environment, a folder and pipes of its own, which imports ``compat`` anew; what it starts otherwise
is started as ever. Runs that are about the start of a process ask for a fresh one.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn

import pytest

from compat.catalog import FAMILIES, RUNTIMES
from compat.processes import child_environment

POSSIBLE = sys.platform == "linux"
PRELOADED = [
    *("pytest", "hypothesis", "numpy", "scipy.signal", "soundfile", "torch"),
    *("compat.run.plugin", "compat.measure.worker", "compat.build.builder", *FAMILIES, *RUNTIMES),
]
"""Modules that the server imports: none starts a thread, or reads the environment or a catalog."""
STANDARD = (0, 1, 2)


class Forking(subprocess.Popen[Any]):
    """As any ``Popen``, but that ``python -m MODULE …`` is forked and not started."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        if not isinstance(args, str | Path) and list(args[:2]) == [sys.executable, "-m"]:
            # Called in the forked process, between its standard streams and its program.
            options["preexec_fn"] = partial(
                become,
                *(str(args[2]), [str(word) for word in args[3:]]),
                os.environ if options.get("env") is None else options["env"],
                tuple(options.get("pass_fds", ())),
            )
        with warnings.catch_warnings():
            # Since Python 3.12, for threads: here they wait for pipes, and hold nothing.
            warnings.simplefilter("ignore", DeprecationWarning)
            super().__init__(args, *rest, **options)


def become(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    kept: Collection[int],
    fresh: bool = False,
) -> NoReturn:
    """Run a module as ``python -m`` does, in place of the program of this forked process.

    ``fresh`` tells that the process that was forked has only imported: its modules are kept.
    """
    code = 1
    try:
        _close_all_but({*STANDARD, *kept})
        _forget(dict(environment), fresh)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _close_all_but(kept: Collection[int]) -> None:
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) not in kept:
            with contextlib.suppress(OSError):  # That of the folder being listed.
                os.close(int(path.name))


def _forget(environment: dict[str, str], fresh: bool) -> None:
    """Undo what the process that was forked did to itself, but for libraries that it imported."""
    os.environ.clear()
    os.environ.update(environment)
    named = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in (str(Path.cwd()), *named) if path and path not in sys.path]
    for name, module in list(sys.modules.items()):
        if not (_is_library(module) or (fresh and name.partition(".")[0] == "compat")):
            del sys.modules[name]
    if fresh:
        # Else pytest warns that it is too late to rewrite the assertions of a plugin's modules.
        for name in ("compat", "_hypothesis_globals", "hypothesis"):
            sys.modules[name].__doc__ = "PYTEST_DONT_REWRITE"
    sys.meta_path[:] = [one for one in sys.meta_path if "pytest" not in type(one).__module__]
    warnings.resetwarnings()
    logging.getLogger().handlers.clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, closefd=False)  # noqa: SIM115
        for number, mode in zip(STANDARD, "rww", strict=True)
    )
    sys.stdout.reconfigure(line_buffering=True)
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _is_library(module: object) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or file.startswith((sys.prefix, sys.base_prefix))


def _serve(
    command: Sequence[str], environment: Mapping[str, str], folder: str, printed: Sequence[str]
) -> None:
    """Become a module with an empty standard input, which prints to these two files."""
    subprocess.Popen = Forking  # type: ignore[misc]
    # pytest ends with full collections, which need not look through PyTorch every time.
    gc.freeze()
    os.chdir(folder)
    for number, path in enumerate((os.devnull, *printed)):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    become(command[2], command[3:], environment, (), fresh=True)


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    timeout: float,
    together: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        command: is forked where it begins with ``sys.executable, "-m"``, and started otherwise.
        env: its whole environment.
        cwd: its working folder.
        timeout: seconds after which it is killed.
        together: ``stdout`` has its errors too.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    if not POSSIBLE or list(command[:2]) != [sys.executable, "-m"]:
        return subprocess.run(
            command,
            env=env,
            cwd=cwd,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if together else subprocess.PIPE,
            text=True,
            check=False,
        )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in child_environment(threads=1).items():
            patch.setenv(name, value)  # Libraries read it when they are loaded.
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, "out"), Path(folder, "out" if together else "errors")]
        process = context.Process(
            target=_serve, args=(command, dict(env), str(cwd), list(map(str, printed)))
        )
        process.start()
        process.join(timeout)
        code = process.exitcode
        process.kill()
        process.join()
        process.close()
        texts = [path.read_text(encoding="utf-8") for path in printed]
    if code is None:
        raise subprocess.TimeoutExpired(command, timeout, *texts)
    return subprocess.CompletedProcess(command, code, texts[0], "" if together else texts[1])
