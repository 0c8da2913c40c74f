"""Voice activity: where somebody speaks, scored by the share of frames that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.people import ALIGNED, MEETINGS
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.models.tasks.base import Task


@dataclass(frozen=True)
class VoiceActivity(Task):
    """Finds speech. A prediction has the probability of speech in each frame."""

    step: float
    """Seconds from one frame to the next."""
    threshold: float
    """Probability from which a frame counts as speech."""
    brief_seconds: float = 1.5

    name: ClassVar[str] = "vad"
    fact: ClassVar[str] = "segments"
    truths: ClassVar[tuple[str, ...]] = ("segments", "uem")
    sets: ClassVar[tuple[str, ...]] = ("conversations",)
    beginning_seconds: ClassVar[float | None] = 10.0
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("frame_error_rate", "share", "lower", primary=True),
        *(
            Metric(name, "share", "lower")
            for name in (
                "missed",
                "false_alarm",
                "miss_rate",
                "false_alarm_rate",
                "detection_error_rate",
                "changed",
            )
        ),
        Metric("reference_frame_error_rate", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        Metric("scored_s", "seconds"),
        Metric("speech_s", "seconds"),
        Metric("recordings", "count"),
        Metric("worst_recording", "number"),
    )

    def preferred(self, profile: Profile) -> tuple[str, ...]:
        return (*self.sets, ALIGNED, MEETINGS, *(("long",) if profile.whole else ()))

    def unscored_count(self, profile: Profile) -> int | None:
        # There are about thirty frames a second, so a few recordings give thousands of decisions.
        return profile.pick(2, 4, None)

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.activity import task_activity

        return task_activity(
            [item.facts["segments"] for item in items],
            [self.decided(prediction) for prediction in predictions],
            [self.decided(reference) for reference in references],
            [item.scored for item in items],
            self.step,
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.activity import frame_errors

        ours, theirs = self.decided(prediction), self.decided(reference)
        nobody = item.facts.get("stress", {}).get("kind", "speech") != "speech"
        segments = item.facts.get("segments", [] if nobody else None)
        if segments is None:  # Where the speech is was not annotated: the reference is believed.
            return {"errors": float((ours != theirs).sum()), "reference": 0.0}
        counted, expected = (
            frame_errors(frames, segments, item.scored, self.step) for frames in (ours, theirs)
        )
        return {"errors": float(counted.errors), "reference": float(expected.errors)}

    def decided(self, prediction: Prediction) -> np.ndarray:
        """Return, per frame, whether its probability of speech reaches the threshold, bool."""
        frames: np.ndarray = np.asarray(prediction["probabilities"]) >= self.threshold
        return frames
