"""Steps in histories: critical values, rates of false alarms, and what is found of real steps.

    python tests/benchmarks/false_alarms.py --calibrate    the table of compat/report/steps.py
    python tests/benchmarks/false_alarms.py                rates, by the code as it is

Noise of runs is simulated as normal, as Student's t with 3 degrees of freedom (outliers), as
exponential (late, never early), and as an autoregression (a machine that stays slow for a while).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIZES = (5, 6, 7, 8, 10, 12, 15, 20, 30, 40, 50, 100)
SEED = 20_261_129
LEAST = 2
"""Runs on each side of a step."""


def noise(kind: str, histories: int, runs: int, generator: np.random.Generator) -> Floats:
    """Return noise of unit scale, ``[histories, runs]``."""
    shape = (histories, runs)
    if kind == "heavy":
        return generator.standard_t(3, shape)
    if kind == "late":
        return generator.exponential(1.0, shape)
    found = generator.standard_normal(shape)
    if kind == "lasting":
        for run in range(1, runs):
            found[:, run] = 0.5 * found[:, run - 1] + np.sqrt(0.75) * found[:, run]
    return found


def gains(values: Floats, steps: int) -> Floats:
    """Return by how much the best ``steps`` lower the sum of squares, over what is left of it."""
    _, runs = values.shape
    sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, 1)], 1)
    total = ((values - values.mean(1, keepdims=True)) ** 2).sum(1)
    mean = sums[:, -1] ** 2 / runs
    best = np.zeros(len(values))
    for ends in _places(runs, steps):
        parts = zip((0, *ends), (*ends, runs), strict=True)
        explained = sum((sums[:, b] - sums[:, a]) ** 2 / (b - a) for a, b in parts)
        best = np.maximum(best, explained - mean)
    return (best / steps) / ((total - best) / (runs - 1 - steps))


def _places(runs: int, steps: int) -> Iterator[tuple[int, ...]]:
    for first in range(LEAST, runs - LEAST + 1):
        if steps == 1:
            yield (first,)
        else:
            for second in range(first + LEAST, runs - LEAST + 1):
                yield first, second


def calibrate(histories: int, rate: float) -> None:
    """Print what only ``rate`` of the histories without a step exceed, for one step and two."""
    for steps in (1, 2):
        row = {}
        for runs in SIZES:
            if runs < LEAST * (steps + 1):
                continue
            generator = np.random.default_rng([SEED, runs])
            found = [
                gains(noise("heavy", 20_000, runs, generator), steps)
                for _ in range(max(1, histories // 20_000))
            ]
            row[runs] = round(float(np.quantile(np.concatenate(found), 1 - rate)), 1)
        print(f"    {steps}: {row},", flush=True)


def rates(histories: int) -> None:
    """Print false alarms and detections of :func:`compat.report.steps.places`."""
    from compat.report.steps import places

    generator = np.random.default_rng(SEED)
    print(f"{'runs':>5} {'noise':8} {'false alarms':>13}  found: 3, 5, 10 deviations, last third")
    for runs in (5, 8, 12, 20, 30):
        for kind in ("normal", "heavy", "late", "lasting"):
            drawn = noise(kind, histories, runs, generator)
            scale = float(np.std(noise(kind, 100_000, 1, generator)))
            wrong = sum(bool(places(row, 0.0)) for row in drawn)
            found = []
            for size in (3, 5, 10):
                moved = drawn[: histories // 4].copy()
                moved[:, runs - max(LEAST, runs // 3) :] += size * scale
                found.append(sum(bool(places(row, 0.0)) for row in moved) / len(moved))
            shown = "  ".join(f"{share:5.0%}" for share in found)
            print(f"{runs:5} {kind:8} {wrong / histories:13.2%}  {shown}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--histories", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.calibrate:
        calibrate(arguments.histories or 400_000, 0.0025)
    else:
        rates(arguments.histories or 2_000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
