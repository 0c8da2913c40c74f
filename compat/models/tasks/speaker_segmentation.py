"""Speaker segmentation: frames of a powerset of speakers, scored locally."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import TestSet
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.models.tasks.base import Task

if TYPE_CHECKING:
    from compat.metrics.segmentation import LocalErrors

SAMPLE_RATE = 16_000
SAMPLES = 160_000
"""Length of a window: 10 s."""
FRAMES = 589
"""Frames of a window."""
STEP_SECONDS = 270 / SAMPLE_RATE
"""Seconds from one frame to the next."""
FRAME_SECONDS = 991 / SAMPLE_RATE
"""Seconds of waveform that one frame sees before the recurrent layers."""
CLASSES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""Local speakers of each class of the powerset, in the published order."""
SPEAKERS = 3
SHORTEST_RUN = 3
"""Least length of a run in frames (3 are 50 ms); shorter changes of speakers count as noise."""
CHANGED_SHARE = 0.05
"""Largest share of a hard input's frames that may differ from the reference's."""
_MASKS = np.array([[speaker in members for speaker in range(SPEAKERS)] for members in CLASSES])


# The powerset ----------------------------------------------------------------------------------


def powerset_masks(log_probabilities: np.ndarray) -> np.ndarray:
    """Return who speaks in each frame: the most probable class, as 0 or 1 for each local speaker.

    Args:
        log_probabilities: (..., frames, 7).

    Returns:
        float32 (..., frames, 3).
    """
    return to_masks(log_probabilities.argmax(axis=-1)).astype(np.float32)


def to_masks(classes: np.ndarray) -> np.ndarray:
    """Return who speaks in each frame, bool (..., 3), from classes of the powerset (...)."""
    masks: np.ndarray = _MASKS[classes]
    return masks


def to_classes(masks: np.ndarray) -> np.ndarray:
    """Return the class of the powerset, int64 (frames,), of masks bool (frames, 3).

    Raises:
        ValueError: all three speak at once somewhere, which no class stands for.
    """
    numbers = np.full(2**SPEAKERS, -1, np.int64)
    bits = 1 << np.arange(SPEAKERS)
    numbers[_MASKS @ bits] = np.arange(len(CLASSES))
    classes = numbers[masks.astype(np.int64) @ bits]
    if (classes < 0).any():
        raise ValueError("no class of the powerset stands for three speakers at once")
    return classes


def encode(windows: Sequence[np.ndarray]) -> Prediction:
    """Return the prediction for windows of classes (frames,): their runs, without short ones.

    ``classes`` holds the class of each run, ``changes`` the seconds into the window at which each
    run but the first begins. Runs are compared instead of frames, because a backend that sums in
    another order may shift a change by a frame: the comparison of predictions then takes the shift
    for rounding, and the classes stay equal.
    """
    classes, changes = [], []
    for window in windows:
        starts = [0, *(np.flatnonzero(np.diff(window)) + 1).tolist()]
        lengths = np.diff([*starts, len(window)])
        found = [
            (start, int(window[start]))
            for start, length in zip(starts, lengths, strict=True)
            if length >= SHORTEST_RUN
        ] or [(0, int(window[0]))]
        # Runs of one class that a short run separated become one again. The first run reaches back
        # to the window's start.
        later = [new for old, new in pairwise(found) if new[1] != old[1]]
        classes.append([found[0][1], *(number for _, number in later)])
        changes.append([round(start * STEP_SECONDS, 4) for start, _ in later])
    return {"classes": classes, "changes": changes}


def decode(prediction: Prediction) -> list[np.ndarray]:
    """Return the class of every frame of each window of a prediction, int64 (589,)."""
    windows = []
    for classes, changes in zip(prediction["classes"], prediction["changes"], strict=True):
        starts = np.round(np.array([0.0, *changes]) / STEP_SECONDS).astype(np.int64)
        windows.append(np.repeat(classes, np.diff([*starts, FRAMES])))
    return windows


def frame_times(window: int = 0) -> np.ndarray:
    """Return the middle of each frame of a window in seconds of the recording, (589,)."""
    first = window * SAMPLES / SAMPLE_RATE + FRAME_SECONDS / 2
    return first + np.arange(FRAMES) * STEP_SECONDS


def _frames_within(seconds: float) -> list[np.ndarray]:
    """Return, for each window of a recording, which frames lie within it."""
    count = max(1, math.ceil(round(seconds * SAMPLE_RATE) / SAMPLES))
    return [frame_times(window) < seconds for window in range(count)]


def changed_frames(item: Item, prediction: Prediction, reference: Prediction) -> tuple[int, int]:
    """Return the number of a recording's frames in which two predictions differ, and of all frames.

    The local speakers of each window are renamed so that the fewest frames differ.
    """
    from compat.metrics.segmentation import matched

    different = frames = 0
    windows = zip(decode(prediction), decode(reference), _frames_within(item.seconds), strict=True)
    for found, expected, inside in windows:
        ours, theirs = to_masks(found[inside]), to_masks(expected[inside])
        renamed = np.zeros_like(ours)
        renamed[:, matched(theirs, ours)] = ours
        different += int((renamed != theirs).any(axis=1).sum())
        frames += len(ours)
    return different, frames


def errors_of(item: Item, prediction: Prediction) -> LocalErrors:
    """Count the local errors in the parts of a recording that are scored."""
    from compat.metrics.segmentation import local_errors, total

    segments = item.facts["segments"]
    names = sorted({str(speaker) for _, _, speaker in segments})
    counted = []
    windows = zip(decode(prediction), _frames_within(item.seconds), strict=True)
    for window, (classes, inside) in enumerate(windows):
        times = frame_times(window)
        truth = np.zeros((FRAMES, max(len(names), 1)), bool)
        for start, end, speaker in segments:
            truth[(times >= start) & (times < end), names.index(str(speaker))] = True
        parts = [(times >= start) & (times < end) for start, end in item.scored]
        scored = inside & np.any([np.zeros(FRAMES, bool), *parts], axis=0)
        counted.append(local_errors(truth[scored], to_masks(classes[scored])))
    return total(counted)


# The task --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeakerSegmentation(Task):
    """Says which of three local speakers speak, window by window; see :func:`encode`."""

    name: ClassVar[str] = "segmentation"
    fact: ClassVar[str] = "segments"
    truths: ClassVar[tuple[str, ...]] = ("segments", "uem")
    sets: ClassVar[tuple[str, ...]] = ("conversations",)
    beginning_seconds: ClassVar[float | None] = 20.0
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("der", "share", "lower", primary=True),
        *(
            Metric(name, "share", "lower")
            for name in ("miss", "false_alarm", "confusion", "changed")
        ),
        Metric("reference_der", "share"),
        DEGRADATION,
        NO_WORSE_SHARE,
        Metric("recordings", "count"),
        Metric("worst_recording", "number"),
    )

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        """Read as many recordings as fit the profile's time by their mean length; at least one."""
        seconds = profile.pick(80.0, 300.0, math.inf)
        mean = sum(float(line["duration"]) for line in test_set.lines) / len(test_set.lines)
        return test_set.items(rate, max(1, int(min(seconds / mean, len(test_set.lines)))))

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.bootstrap import ratio
        from compat.metrics.segmentation import task_segmentation

        ours = [errors_of(item, one) for item, one in zip(items, predictions, strict=True)]
        theirs = [errors_of(item, one) for item, one in zip(items, references, strict=True)]
        changed = np.array(list(map(changed_frames, items, predictions, references)))
        different, frames = changed.sum(axis=0)
        return {**task_segmentation(ours, theirs), "changed": ratio(int(different), int(frames))}

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        different, frames = changed_frames(item, prediction, reference)
        return {"errors": float(different > CHANGED_SHARE * frames), "reference": 0.0}
