"""Checks of energy and of sustained load. Energy needs a counter in the machine."""

from functools import cache
from statistics import median

from compat.contract.case import Case
from compat.hardware import energy
from compat.judge.verdict import QUIETER
from compat.metrics.timing import crowding, others_busy
from compat.run.measurement import Finding, Measurement, check

MINUTES = 10
"""Minutes of sustained load."""


@cache
def counted() -> bool:
    """Return whether this machine has an energy counter. It is looked up once for all cases."""
    return bool(energy.find().counters)


@check(
    "energy.task",
    timed=True,
    headline=True,
    applies=lambda case: case.target.evidence == "device" and counted(),
)
def test_task(measurement: Measurement) -> None:
    """Joules for each minute of audio, by the machine's own counters.

    The counters include everything else that runs on the machine.
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
    """Return whether a case is loaded for ten minutes: the headline variant in its first recipe.

    Heat is a property of the machine. Other recipes and variants load the same parts, and ten
    minutes for each of them would add hours to a whole run.
    """
    first = case.recipe.name == case.target.recipes[0]
    headline = case.variant.name == case.family.headline
    return case.target.evidence == "device" and case.family.timed and first and headline


@check("latency.sustained", timed=True, rare=True, applies=heats)
def test_sustained(measurement: Measurement) -> None:
    """Drift of the time over ten minutes of load without a pause, as a hot machine slows down."""
    measurement.stage("loads")
    minutes: list[float] = []
    samples: dict[str, list[float]] = {}
    # Noted before the load, so that an early end keeps the samples so far.
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
