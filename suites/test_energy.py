"""What does it cost to run, and does it stay as fast? Where no counter is, energy is not told."""

from functools import cache
from statistics import median

from compat.contract.case import Case
from compat.hardware import energy
from compat.judge.verdict import QUIETER
from compat.metrics.timing import crowding, others_busy
from compat.run.measurement import Finding, Measurement, check

MINUTES = 10


@cache
def counted() -> bool:
    """Tell whether this machine has a counter: looked up once, and not for each of all cases."""
    return bool(energy.find().counters)


@check(
    "energy.task",
    timed=True,
    headline=True,
    applies=lambda case: case.target.evidence == "device" and counted(),
)
def test_task(measurement: Measurement) -> None:
    """Joules for each minute of audio, by the machine's own counters.

    They count whatever else runs on the machine, too.
    """
    before = measurement.worker.ask("processors")
    values = measurement.stage("energy", seconds=measurement.profile.pick(2.0, 5.0, 20.0))
    values |= others_busy(before, measurement.worker.ask("processors"))
    measurement.note(values=values)
    crowded = crowding(values, measurement.worker.request.threads)
    if crowded:
        raise Finding("inconclusive", f"the machine was busy: {crowded}", QUIETER)
    measurement.judge(values)


def heats(case: Case) -> bool:
    """Tell whether a case stands for the heat of its target: the headline in its first recipe.

    What grows hot is the machine. Other recipes and a stand-in load the same parts for ten minutes
    each, and would make hours of a whole run.
    """
    first = case.recipe.name == case.target.recipes[0]
    headline = case.variant.name == case.family.headline
    return case.target.evidence == "device" and case.family.timed and first and headline


@check("latency.sustained", timed=True, rare=True, applies=heats)
def test_sustained(measurement: Measurement) -> None:
    """Ten minutes of load without a pause: a machine that grows hot slows down."""
    measurement.stage("loads")
    minutes: list[float] = []
    samples: dict[str, list[float]] = {}
    # What ends it early keeps what was measured.
    measurement.note(samples=samples)
    before = measurement.worker.ask("processors")
    for minute in range(MINUTES):
        found = measurement.worker.ask("rounds", seconds=60.0)["seconds"]
        samples[f"minute_{minute}_seconds"] = found
        minutes.append(median(found))
    values = {
        "drift": minutes[-1] / minutes[0],
        "first_minute_s": minutes[0],
        "last_minute_s": minutes[-1],
        "slowest_minute_s": max(minutes),
        **others_busy(before, measurement.worker.ask("processors")),
    }
    measurement.judge(values)
