"""Diarization: who speaks when, scored by the diarization error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import TestSet
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.models.tasks.base import Task

STRESS_SHARE = 0.1
"""Share of a stress input's time in which an answer may differ from the reference's."""
STRESS_SECONDS = 3.0
"""Seconds that a shorter stress input counts as. Otherwise a single frame, a sixth of an input of
0.1 s, would exceed the share."""


@dataclass(frozen=True)
class Diarization(Task):
    """Says who speaks when. A prediction has ``segments``: [start, end, speaker], in seconds."""

    name: ClassVar[str] = "diarization"
    fact: ClassVar[str] = "segments"
    truths: ClassVar[tuple[str, ...]] = ("segments", "uem")
    sets: ClassVar[tuple[str, ...]] = ("conversations",)
    beginning_seconds: ClassVar[float | None] = 20.0
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("der", "share", "lower", primary=True),
        *(
            Metric(name, "share", "lower")
            for name in (
                "miss",
                "false_alarm",
                "confusion",
                "der_collar_250ms",
                "der_no_overlap",
                "jer",
            )
        ),
        Metric("reference_der", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        Metric("speakers_right", "share", "higher"),
        Metric("speech_s", "seconds"),
        Metric("recordings", "count"),
        Metric("worst_recording", "number"),
    )

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        """Read recordings, spread over the set, that fit into the profile's time; at least one."""
        seconds = profile.pick(90.0, 1800.0, float("inf"))
        lengths = [float(line["duration"]) for line in test_set.lines]
        count = len(lengths)
        while count > 1 and sum(lengths[index] for index in test_set.spread(count)) > seconds:
            count -= 1
        return test_set.items(rate, count)

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.diarization import task_diarization

        return task_diarization(
            [item.facts["segments"] for item in items],
            [prediction["segments"] for prediction in predictions],
            [prediction["segments"] for prediction in references],
            [item.scored for item in items],
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.diarization import diarization_errors

        whole = [(0.0, item.seconds)]
        counted = diarization_errors(reference["segments"], prediction["segments"], whole)
        limit = STRESS_SHARE * max(item.seconds, STRESS_SECONDS)
        return {"errors": float(counted.seconds > limit), "reference": 0.0}
