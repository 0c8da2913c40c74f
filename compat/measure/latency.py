"""Latency stages: timed rounds, signs of false timings, and how busy the machine was."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import numpy as np

from compat.build.reference import oracle_session
from compat.contract.graph import Stopwatch
from compat.measure import occupancy
from compat.measure.case_under_test import CaseUnderTest
from compat.metrics import timing

HOST_ROUNDS = 3
"""Times that the target and the host each do the task; the fastest counts."""

PAIRS = (1, 9)
"""Fewest and most pairs of a repeated and a fresh input, which reveal cached results."""

FETCHES = (3, 21)
"""Fewest and most runs with a fetch after each, which reveal a clock that stops too early."""

ENOUGH = 0.5
"""Seconds. A measurement is repeated up to its maximum count while the total stays below this.

Fast models get more repeats, because their timings are noisier.
"""


def timed(case: CaseUnderTest, index: int) -> dict[str, Any]:
    """Run a timed round on the next standard input; say whether its output is the judged one.

    A fixed piece of arithmetic is timed before it, to tell a slow backend from a busy machine.
    """
    items = case.inputs.items.timed
    item = items[index % len(items)]
    baseline = calibrate()
    (prediction,), stopwatch, seconds = case.predict([item])
    return {
        "seconds": seconds,
        "baseline_s": baseline,
        "stages": stopwatch.stages,
        "marks": stopwatch.marks,
        "audio_s": case.task.seconds(item, prediction),
        "counts": {name: len(prediction.get(name, ())) for name in case.task.counted},
        "same": case.is_standard(item, prediction),
    }


def processors(case: CaseUnderTest) -> dict[str, Any]:
    """Read how long all processes, and the worker's own, have used the processors so far."""
    return occupancy.reading(case.processors)


def suspicions(case: CaseUnderTest) -> dict[str, Any]:
    """Look for signs of false timings: cached results, and clocks that stop before the work does.

    ``faults`` are certain. ``doubts`` rest on single rounds while other processes used the
    processors.
    """
    before = processors(case)
    for attempt in range(2):
        repeats, fresh = _repeats_and_fresh(case, attempt)
        run_s, fetch_s = _waits(case)
        checked = {"repeat_speed_up": timing.cached_result(repeats, fresh)}
        if run_s:
            checked["fetch_share"] = timing.unsynchronised(run_s, fetch_s)
        if not any(suspicion.flagged for suspicion in checked.values()):
            break  # A sign must show twice to count, since a busy machine can cause one.
    others = timing.others_busy(before, processors(case))
    crowded = timing.crowding(others, case.options.threads)
    flagged = [suspicion for suspicion in checked.values() if suspicion.flagged]
    doubts = [suspicion.detail for suspicion in flagged if crowded and suspicion.feignable]
    return {
        "values": {name: suspicion.value for name, suspicion in checked.items()},
        "samples": {"repeat_s": repeats, "fresh_s": fresh, "run_s": run_s, "fetch_s": fetch_s},
        "faults": [one.detail for one in flagged if one.detail not in doubts],
        "doubts": [f"{crowded}; {doubt}" for doubt in doubts],
    }


def host(case: CaseUnderTest) -> dict[str, Any]:
    """Do one task on the target and on the host's own processor by turns, and time both."""
    import torch

    item = case.inputs.items.timed[0]
    case.predict([item])  # Warms up, and leaves the threads as the runtime wants them.
    model = case.inputs.model
    threads = torch.get_num_threads()
    session = oracle_session(model, "fp32")
    torch.set_num_threads(case.options.threads)
    model.run(session, [item], Stopwatch())
    target_s, host_s = [], []
    before = processors(case)
    for _ in range(HOST_ROUNDS):
        target_s.append(case.predict([item])[2])
        started = perf_counter()
        model.run(session, [item], Stopwatch())
        host_s.append(perf_counter() - started)
    others = timing.others_busy(before, processors(case))
    torch.set_num_threads(threads)
    return {"samples": {"host_s": host_s, "target_s": target_s}, "others": others}


def throughput(case: CaseUnderTest, batch: int, rounds: int) -> dict[str, Any]:
    """Run batches of standard inputs; report seconds per round."""
    items = list(islice(cycle(case.inputs.items.timed), batch))
    predictions, _, _ = case.predict(items)
    seconds = [case.predict(items)[2] for _ in range(rounds)]
    return {"seconds": seconds, "audio_s": sum(map(case.task.seconds, items, predictions))}


def batches(case: CaseUnderTest, recommended: int = 0) -> list[int]:
    """Return the model's usual batch sizes, and large ones up to a recommended one."""
    return list(case.inputs.model.batches(recommended))


def calibrate() -> float:
    """Time a fixed piece of arithmetic, in seconds: about 10 ms on a laptop of 2020."""
    matrix = np.full((320, 320), 0.5, np.float32)
    started = perf_counter()
    for _ in range(12):
        matrix = np.tanh(matrix @ matrix * 1e-3)
    return perf_counter() - started


def _repeats_and_fresh(case: CaseUnderTest, attempt: int) -> tuple[list[float], list[float]]:
    """Time one repeated input and inputs that were never seen before, by turns, in seconds."""
    item = case.standard_items[0]
    _ = case.standard  # The standard pass runs the repeated input first, so that it may be cached.
    repeats: list[float] = []
    fresh: list[float] = []
    while _goes_on(PAIRS, [*repeats, *fresh], len(fresh)):
        other = case.task.fresh(item, PAIRS[1] * attempt + len(fresh) + 1)
        repeats.append(case.predict([item])[2])
        fresh.append(case.predict([other])[2])
    return repeats, fresh


def _waits(case: CaseUnderTest) -> tuple[list[float], list[float]]:
    """Time work until it is synchronised and then the fetch of an output, in seconds.

    The first call warms up. Both lists are empty if the execution cannot be timed so.
    """
    run_s: list[float] = []
    fetch_s: list[float] = []
    if case.execution.synchronisation() is None:
        return run_s, fetch_s
    while _goes_on(FETCHES, [*run_s, *fetch_s], len(run_s)):
        waited = case.execution.synchronisation()
        assert waited is not None
        run_s.append(waited[0])
        fetch_s.append(waited[1])
    return run_s, fetch_s


def _goes_on(limits: tuple[int, int], seconds: Sequence[float], done: int) -> bool:
    """Return whether to measure again: below the fewest, or below the most while it is quick."""
    fewest, most = limits
    return done < fewest or (done < most and sum(seconds) < ENOUGH)
