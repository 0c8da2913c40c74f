"""Checks of support: the case runs, in the right precision and on the right device."""

from compat.run.measurement import Measurement, check


@check("support.loads")
def test_loads(measurement: Measurement) -> None:
    """The case compiles, runs every standard input, and executes in the precision of its recipe."""
    found = dict(measurement.stage("loads"))
    standard = measurement.stage("standard")
    faults = dict.fromkeys((*found.pop("faults"), *standard["faults"]))
    measurement.judge({**found, "inputs": len(standard["seconds"])}, list(faults))


@check(
    "support.placed",
    applies=lambda case: not case.target.on_host_cpu and case.target.evidence != "conversion",
)
def test_placed(measurement: Measurement) -> None:
    """The nodes of the case ran on the target, and not on the host's processor."""
    measurement.judge(measurement.stage("placed"))
