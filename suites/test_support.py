"""Does the case run at all, and does it run where it is said to?"""

from compat.run.measurement import Measurement, check


@check("support.loads")
def test_loads(measurement: Measurement) -> None:
    """It compiles, runs every standard input, and executes the precision that was asked for."""
    found = dict(measurement.stage("loads"))
    standard = measurement.stage("standard")
    faults = dict.fromkeys((*found.pop("faults"), *standard["faults"]))
    measurement.judge({**found, "inputs": len(standard["seconds"])}, list(faults))


@check(
    "support.placed",
    applies=lambda case: not case.target.on_host_cpu and case.target.evidence != "conversion",
)
def test_placed(measurement: Measurement) -> None:
    """Its nodes ran on the target, and not on the host's processor beside it."""
    measurement.judge(measurement.stage("placed"))
