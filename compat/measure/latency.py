"""Latency: how often a measurement is repeated, and the clock of a busy machine."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

HOST_ROUNDS = 3
"""Times that the target and the host each do the task; the fastest counts."""


PAIRS = (1, 9)
"""Fewest and most pairs of a repeated and a fresh input, to show a kept result."""


FETCHES = (3, 21)
"""Fewest and most runs with a fetch after each, to show a clock that does not wait."""


ENOUGH = 0.5
"""Seconds after which the fewest are enough. What is fast is disturbed easily: it gets more."""


def _goes_on(limits: tuple[int, int], seconds: Sequence[float], done: int) -> bool:
    """Tell whether another measurement is due: at least the fewest, more while they are cheap."""
    fewest, most = limits
    return done < fewest or (done < most and sum(seconds) < ENOUGH)


def calibrate() -> float:
    """Time a fixed piece of arithmetic, in seconds: about 10 ms on a laptop of 2020."""
    matrix = np.full((320, 320), 0.5, np.float32)
    started = perf_counter()
    for _ in range(12):
        matrix = np.tanh(matrix @ matrix * 1e-3)
    return perf_counter() - started
