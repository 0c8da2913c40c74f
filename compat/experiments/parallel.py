"""The experiment ``parallel``: processes against one and against threads, many files against one.

The work is whisper-nano's whole task on ONNX Runtime. Two processes with one thread each are
compared with one process that has one thread, or one for each core. Each process opens the model
once, and nothing is timed until all have opened it.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, opened, quotient, recordings
from compat.hardware.facts import available_cpus

CASE = "whisper-nano@trained/cpu-onnxruntime/fp32"
FILES = 8


def parallel(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(1)) for _ in range(2)]
        threaded = stack.enter_context(_worker(available_cpus()))

        def contender(*used: Any) -> Callable[[int], None]:
            def work(number: int) -> None:
                for worker in used:
                    _ask(worker, FILES // len(used))
                for worker in used:
                    _answer(worker)

            return work

        said("two processes, one, and threads")
        contenders = {
            "one": contender(workers[0]),
            "two": contender(*workers),
            "threads": contender(threaded),
        }
        seconds = in_turns(contenders, rounds, said)
    said("many files and one")
    many, one = _files(rounds, said)
    detail = f"{CASE}, one thread each, {FILES} files a round"
    return Measured(
        (
            quotient("two processes over one", seconds["one"], seconds["two"], detail),
            quotient(
                "two processes over one with all threads",
                seconds["threads"],
                seconds["two"],
                f"{CASE}, {available_cpus()} threads in one process, {FILES} files a round",
            ),
            quotient("many small files over one large", many, one, f"{CASE}, per second of audio"),
        )
    )


def _files(rounds: int, said: Callable[[str], None]) -> tuple[list[float], list[float]]:
    """Return the seconds of each round: for eight files, and for one file with all their audio."""
    model, session = opened(CASE, 1)
    small = recordings("clean", model.sample_rate, FILES)
    large = small[0].with_audio(np.concatenate([one.audio for one in small]), "joined")
    seconds = in_turns(
        {
            "many": lambda number: [model.run(session, [one], Stopwatch()) for one in small],
            "one": lambda number: model.run(session, [large], Stopwatch()),
        },
        rounds,
        said,
    )
    session.close()
    return seconds["many"], seconds["one"]


@contextlib.contextmanager
def _worker(threads: int) -> Iterator[Any]:
    """Start a process that transcribes as many files as it is asked to; it ends with its pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "compat.experiments.parallel", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        _answer(process)
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def _ask(process: Any, files: int) -> None:
    process.stdin.write(f"{files}\n")
    process.stdin.flush()


def _answer(process: Any) -> None:
    if not process.stdout.readline():
        raise CompatError("a process of the experiment ended before it answered.")


def main(threads: int) -> None:
    """Open the model, then transcribe as many files as each line of standard input says."""
    model, session = opened(CASE, threads)
    items = recordings("clean", model.sample_rate, FILES)
    model.run(session, items[:1], Stopwatch())
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for item in items[: int(line)]:
            model.run(session, [item], Stopwatch())
        print(time.perf_counter() - began, flush=True)


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return parallel(arguments.rounds, said)


EXPERIMENT = Experiment(
    "do parallel files scale with cores, and does the size of files matter?",
    _run,
    rounds_argument(10),
    "compat experiment parallel --rounds 10 --save",
)

if __name__ == "__main__":
    main(int(sys.argv[1]))
