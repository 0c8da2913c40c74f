"""Energy stages: readings of counters while a case does its task, and while it is idle."""

from __future__ import annotations

from itertools import cycle
from time import perf_counter, sleep
from typing import Any

from compat.hardware.energy import Meter, find
from compat.measure.case_under_test import CaseUnderTest

IDLE_S = 2.0
"""Seconds of doing nothing, with the case loaded, to measure the idle power."""


def energy(case: CaseUnderTest, seconds: float) -> dict[str, Any]:
    """Do the task for some seconds; report joules for each minute of audio.

    Returns: ``joules_per_minute`` of all counters together, ``idle_watts`` and ``watts`` (under
    load), and ``counters``, the joules for each minute of audio by counter. Joules are gross: they
    include the idle power.
    """
    counters = find().counters
    idle, load = Meter(counters), Meter(counters)
    case.predict([case.inputs.items.timed[0]])
    with idle:
        sleep(IDLE_S)
    audio_s = 0.0
    started = perf_counter()
    with load:
        for item in cycle(case.inputs.items.timed):
            (prediction,), _, _ = case.predict([item])
            audio_s += case.task.seconds(item, prediction)
            if perf_counter() - started >= seconds:
                break
    took = perf_counter() - started
    per_minute = {name: joules / audio_s * 60.0 for name, joules in load.joules.items()}
    return {
        "joules_per_minute": sum(per_minute.values()),
        "watts": sum(load.joules.values()) / took,
        "idle_watts": sum(idle.joules.values()) / IDLE_S,
        "counters": per_minute,
        "audio_s": audio_s,
        "load_s": took,
    }


def rounds(case: CaseUnderTest, seconds: float) -> dict[str, Any]:
    """Do the task on one input again and again; report the seconds of every round."""
    item = case.inputs.items.timed[0]
    found: list[float] = []
    started = perf_counter()
    while not found or perf_counter() - started < seconds:
        found.append(case.predict([item])[2])
    return {"seconds": found}
