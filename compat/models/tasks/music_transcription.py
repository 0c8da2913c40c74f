"""Music transcription: the notes of a recording, scored by how many are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.models.tasks.base import Task

FRAME = 0.024
"""Seconds by which two times of one answer may differ: two frames of 12 ms."""


def prediction(notes: Sequence[Sequence[float]], level: float) -> Prediction:
    """Return the answer of these notes, which are sorted by time.

    Args:
        notes: onset and offset in seconds, MIDI number, and how sure the model is of it (0 to 1).
        level: a mean of the model's output, which is NaN or infinite if anything in it is.
    """
    rounded = [
        [round(float(onset), 4), round(float(offset), 4), int(pitch), round(float(sure), 3)]
        for onset, offset, pitch, sure in notes
    ]
    return {"notes": sorted(rounded), "level": level}


@dataclass(frozen=True)
class MusicTranscription(Task):
    """Writes down notes. A prediction is that of :func:`prediction`.

    The fact ``notes`` of a recording has onset, offset and MIDI number of each true note.
    """

    brief_seconds: float = 5.0

    name: ClassVar[str] = "music-transcription"
    fact: ClassVar[str] = "notes"
    truths: ClassVar[tuple[str, ...]] = ("notes",)
    sets: ClassVar[tuple[str, ...]] = ("notes",)
    unjudged: ClassVar[tuple[str, ...]] = ("music-train",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("note_f1", "share", "higher", primary=True),
        Metric("note_precision", "share", "higher"),
        Metric("note_recall", "share", "higher"),
        Metric("note_offset_f1", "share", "higher"),
        Metric("reference_note_f1", "share"),
        DEGRADATION,
        Metric("agreement", "share", "higher"),
        NO_WORSE_SHARE,
        *(Metric(name, "count") for name in ("notes", "recordings")),
        Metric("worst_recording", "number"),
    )

    def unscored_count(self, profile: Profile) -> int | None:
        return profile.pick(4, 12, None)

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.notes import task_notes

        return task_notes(
            [item.facts["notes"] for item in items],
            [one["notes"] for one in predictions],
            [one["notes"] for one in references],
        )

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        """Count the notes that the reference has and the answer lacks, and those it has more.

        Hard inputs have no true notes, so the reference is believed.
        """
        from compat.metrics.notes import note_scores

        ours, theirs = prediction["notes"], reference["notes"]
        shared = note_scores(theirs, ours)["recall"] * len(theirs)
        return {"errors": round(len(ours) + len(theirs) - 2 * shared), "reference": 0.0}

    def same(self, one: Prediction, other: Prediction) -> bool:
        ours, theirs = (
            np.array([note[:3] for note in sorted(answer["notes"], key=lambda note: note[2])])
            for answer in (one, other)
        )
        if ours.shape != theirs.shape:
            return False
        return bool((np.abs(ours - theirs) <= FRAME).all())
