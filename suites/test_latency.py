"""Checks of latency and throughput. The worker measures the times, so that no pipe is measured."""

from statistics import median
from typing import Any

import pytest

from compat.judge.verdict import QUIETER
from compat.metrics.timing import crowding, others_busy, summarise, undisturbed
from compat.run.client import OutOfMemory
from compat.run.measurement import Finding, Measurement, check

NOISE = 0.25
"""Share by which fixed arithmetic beside a round may take longer than at best (0.25: 25 %). Beyond
it the machine was busy, and the round is repeated. Too many such rounds leave the timing
inconclusive."""


BUDGET = 2.0
"""Seconds for the timed rounds of a case, unless a person chose the number of rounds."""
MINIMUM = 4
"""Fewest timed rounds."""


class WorkerClock:
    """A clock for pytest-benchmark that advances only by the seconds that the worker measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = WorkerClock()


@check("latency.task", timed=True, applies=lambda case: case.target.evidence == "device")
@pytest.mark.benchmark(timer=CLOCK)
def test_task(measurement: Measurement, benchmark: Any) -> None:
    """The time of the whole task and its stages, on inputs whose outputs accuracy judges."""
    cold = measurement.stage("loads")["cold"]
    suspected = measurement.stage("suspicions")
    warmup, iterations = measurement.warmup, measurement.iterations
    if not measurement.chosen:
        # A slow case gets fewer rounds, so that they take a few seconds.
        typical = median(suspected["samples"]["repeat_s"])
        iterations = max(MINIMUM, min(iterations, int(BUDGET / typical)))
    rounds: list[dict[str, Any]] = []
    before: dict[str, Any] = {}

    def one_round() -> None:
        if len(rounds) == warmup:
            before.update(measurement.worker.ask("processors"))
        rounds.append(measurement.worker.ask("timed", index=len(rounds)))
        CLOCK.now += rounds[-1]["seconds"]

    def calm() -> list[dict[str, Any]]:
        """Return the undisturbed rounds after warm-up, by the arithmetic beside each round."""
        good = undisturbed([one["baseline_s"] for one in rounds], NOISE)
        return [one for one, found in list(zip(rounds, good, strict=True))[warmup:] if found]

    benchmark.pedantic(one_round, rounds=iterations, iterations=1, warmup_rounds=warmup)
    # Further rounds replace disturbed ones, and those that pytest-benchmark left out if it is off.
    while len(rounds) < warmup + iterations or (
        len(calm()) < iterations and len(rounds) < warmup + 3 * iterations
    ):
        one_round()
    others = others_busy(before, measurement.worker.ask("processors"))
    benchmark.extra_info["case"] = measurement.case.id
    kept = calm() or rounds[warmup:]
    seconds = [one["seconds"] for one in kept]
    baseline = [one["baseline_s"] for one in kept]
    samples = {"seconds": seconds, "baseline_seconds": baseline, **suspected["samples"]}
    samples["audio_seconds"] = [one["audio_s"] for one in kept]
    measurement.note(samples=samples)
    audio_s = [one["audio_s"] for one in kept]
    values = {
        **summarise(seconds, audio_s),
        "audio_s": median(audio_s),
        **_medians([one["counts"] for one in kept]),
        "stages": _medians([one["stages"] for one in kept]),
        **{f"{name}_s": value for name, value in _medians([r["marks"] for r in kept]).items()},
        "cold": cold,
        "disturbed_rounds": len(rounds) - warmup - len(kept),
        **others,
        **suspected["values"],
    }
    faults = list(suspected["faults"])
    different = sum(not one["same"] for one in rounds)
    if different:
        faults.append(f"{different} of {len(rounds)} timed outputs are not those that were judged")
    busy = list(suspected["doubts"])
    if len(kept) < iterations:
        busy.append(
            f"beside {len(rounds) - warmup - len(kept)} of {len(rounds) - warmup} rounds fixed "
            f"arithmetic took over {1 + NOISE:g} times as long as at best"
        )
    if busy and not faults:
        measurement.note(values=values)
        raise Finding("inconclusive", f"the machine was busy: {'; '.join(busy)}", QUIETER)
    measurement.judge(values, faults)


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: median(row.get(name, 0.0) for row in rows) for name in names}


@check(
    "latency.throughput",
    timed=True,
    headline=True,
    costly=True,
    applies=lambda case: case.target.evidence == "device",
)
def test_throughput(measurement: Measurement) -> None:
    """Items per second by batch size: a sweep up to the recommended size, or the largest usual one.

    The sweep ends if memory runs out, and keeps the smaller sizes.
    """
    full = measurement.profile.whole
    recommendation = measurement.recommendation
    batches: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    values: dict[str, Any] = {"batches": batches}
    if recommendation:
        values["recommended"] = recommendation.values(measurement.case)
    # Noted before the sweep, so that an early end keeps the sizes so far.
    measurement.note(values=values, samples=samples)
    wanted = recommendation.batch if recommendation and full else 0
    sizes = measurement.stage("batches", recommended=wanted)
    for batch in sizes if full else reversed(sizes):
        try:
            found = measurement.stage("throughput", batch=batch, rounds=10 if full else 1)
        except OutOfMemory as failure:
            batches[str(batch)] = {"status": failure.status}
            if full:
                break
            continue
        typical = median(found["seconds"])
        samples[f"batch_{batch}_seconds"] = found["seconds"]
        measurement.note(batch=batch)
        batches[str(batch)] = {
            "items_per_s": batch / typical,
            "audio_s_per_s": found["audio_s"] / typical,
        }
        if not full:
            break
    if not samples:
        raise Finding("out-of-memory", f"memory ran out in every batch: {', '.join(batches)}")
    measurement.judge(values)


@check(
    "latency.host",
    timed=True,
    headline=True,
    applies=lambda case: (
        case.target.evidence == "device"
        and not (case.target.on_host_cpu or case.target.is_host)
        and case.variant.published
        and case.family.timed
    ),
)
def test_host(measurement: Measurement) -> None:
    """An accelerator is faster than its host, unless it silently fell back to the host.

    The host runs the same graphs in PyTorch, fp32. Small unpublished models are left out, as
    starting a device may take longer than their work.
    """
    found = measurement.stage("host")
    fastest = {name: min(seconds) for name, seconds in found["samples"].items()}
    values = {**fastest, "speed_up": fastest["host_s"] / fastest["target_s"], **found["others"]}
    measurement.note(samples=found["samples"], values=values)
    crowded = crowding(values, measurement.worker.request.threads)
    if crowded:
        # A busy machine makes a single time an upper bound, but not a ratio of two times: the host
        # may have been slowed more than the device.
        raise Finding("inconclusive", f"the machine was busy: {crowded}", QUIETER)
    measurement.judge(values)
