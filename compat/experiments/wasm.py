"""The experiment ``wasm``: the gain of WebAssembly threads in a page.

Both pages run in Chromium, with the same model and audio. They take turns, and the page that is not
at work is stopped. ONNX Runtime's builds for the web need SIMD, so its gain cannot be measured.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable

from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.contract.runtime import Options
from compat.experiments.browsers import awake
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, model_of, quotient, recordings, yes
from compat.hardware.facts import available_cpus
from compat.runtimes.web import browser as web
from compat.runtimes.web import runtime as ort_web
from compat.runtimes.web.session import WebSession

CASE = "whisper-nano@trained/wasm-chromium/fp32"


def wasm(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment.

    Raises:
        CompatError: the browser or the package that drives it is missing.
    """
    reason, remedy = web.lacking()
    if reason:
        raise CompatError(reason, remedy)
    reference, model = model_of(CASE)
    target = next(one for one in ort_web.RUNTIME.targets if one.name == "wasm-chromium")
    items = recordings("clean", model.sample_rate, 8)
    counts = (1, available_cpus())
    taken: dict[int, list[float]] = {count: [] for count in counts}
    answers: dict[int, list[object]] = {count: [] for count in counts}
    with contextlib.ExitStack() as stack:
        opened = {
            count: WebSession(
                sources(reference, model, count), target, Recipe("fp32"), Options(count)
            )
            for count in counts
        }
        for session in opened.values():
            stack.callback(session.close)
        for number in range(rounds + 1):
            item = items[number % len(items)]
            for count in counts if number % 2 else counts[::-1]:
                with awake(opened, count):
                    before = opened[count].page.inside_s
                    (answer,) = model.run(opened[count], [item], Stopwatch())
                    if number:
                        taken[count].append(opened[count].page.inside_s - before)
                    answers[count].append(answer["tokens"])
            said(f"round {number} of {rounds}")
    detail = f"{CASE}, {counts[1]} threads"
    return Measured(
        (
            quotient("all threads over one", taken[1], taken[counts[1]], detail),
            yes("both give the same tokens", answers[1] == answers[counts[1]], detail),
        )
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return wasm(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what do threads of WebAssembly gain?",
    _run,
    rounds_argument(12),
    "compat experiment wasm --rounds 12 --save",
)
