"""How much memory does it take?"""

from compat.run.measurement import Measurement, check


@check("memory.peak", applies=lambda case: case.target.evidence != "conversion")
def test_peak(measurement: Measurement) -> None:
    """The peak of the process that ran the case, after it ran every standard input."""
    measurement.stage("loads")
    measurement.judge(measurement.stage("memory"))
