"""Check of memory."""

from compat.run.measurement import Measurement, check


@check("memory.peak", applies=lambda case: case.target.evidence != "conversion")
def test_peak(measurement: Measurement) -> None:
    """The peak memory of the process that ran the case, after every standard input."""
    measurement.stage("loads")
    measurement.judge(measurement.stage("memory"))
