"""Checks of accuracy: answers compared with the truth, and outputs with an exact execution."""

from compat.run.measurement import Finding, Measurement, check


@check("accuracy.task", applies=lambda case: case.weights != "seeded")
def test_task(measurement: Measurement) -> None:
    """The task metric on every test set, and its degradation compared with the reference's."""
    found = measurement.stage("task")
    if not found["values"] and found["outside_uem"]:
        some = ", ".join(found["outside_uem"][:3])
        raise Finding(
            "skipped",
            f"nothing to score: the UEM, or NOSCORE, leaves nothing of what is heard of {some}"
            + (" …" if len(found["outside_uem"]) > 3 else ""),
            "correct the UEM; if it begins later than what a short run hears, run without --quick",
        )
    if not found["values"]:
        raise Finding(
            "skipped",
            f"no test set of the corpus has what {measurement.case.family.task} is scored by",
            "add text, rttm_filepath or trials.txt, see docs/corpora.md",
        )
    measurement.note(predictions=found["predictions"], metrics=found["metrics"])
    measurement.judge(found["values"], found["faults"])


@check("accuracy.numerics")
def test_numerics(measurement: Measurement) -> None:
    """Intermediate outputs, compared with a float64 reference and with an oracle of the recipe."""
    found = measurement.stage("numerics")
    measurement.judge(found["values"], found["faults"])
