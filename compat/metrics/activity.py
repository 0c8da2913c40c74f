"""Scores of voice activity: the frames of speech that a detector missed or made up.

Truth and decision are compared frame by frame. A frame is speech where anybody speaks at its
centre, and it is scored where its centre lies in a scored part of the recording. With M speech
frames that were missed, F false alarms, S speech frames and N scored frames:

    frame error rate     = (M + F) / N
    detection error rate = (M + F) / S     (can exceed 1)
    miss rate            = M / S
    false alarm rate     = F / (N - S)

Sums are taken over the whole corpus before they are divided. The detection error rate is
pyannote.metrics' (Bredin, Interspeech 2017), on frames instead of exact times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.metrics.bootstrap import no_worse_share, paired_interval, ratio, ratio_interval

Segment = Sequence[Any]
"""Start and end in seconds; further entries, such as the speaker, are ignored."""
Frames = NDArray[np.bool_]

NO_WORSE = 0.005
"""Frame error rate by which a recording may exceed the reference's and still count as no worse. A
probability next to the threshold tips with the last bit, which says nothing about the backend."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of scored frames of a recording, and of wrong ones among them."""

    missed: int = 0
    false_alarms: int = 0
    speech: int = 0
    frames: int = 0

    @property
    def errors(self) -> int:
        """Missed speech frames + false alarms."""
        return self.missed + self.false_alarms

    @property
    def rate(self) -> float:
        """Frame error rate."""
        return ratio(self.errors, self.frames)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.missed + other.missed,
            self.false_alarms + other.false_alarms,
            self.speech + other.speech,
            self.frames + other.frames,
        )


def covered_frames(segments: Iterable[Segment], frames: int, step: float) -> Frames:
    """Return which frames (frames,) have their centre in a segment.

    Args:
        segments: start (included) and end (excluded) in seconds, in any order; they may overlap.
        frames: number of frames.
        step: length of a frame in seconds.

    Raises:
        ValueError: a time is not finite, or a segment ends before it starts.
    """
    centres = (np.arange(frames) + 0.5) * step
    covered = np.zeros(frames, bool)
    for start, end, *_ in segments:
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise ValueError(f"no segment: {start} to {end} seconds")
        first, last = np.searchsorted(centres, (start, end))
        covered[first:last] = True
    return covered


def frame_errors(
    decided: Frames, segments: Iterable[Segment], scored: Iterable[Segment], step: float
) -> Counts:
    """Count the errors of one recording.

    Args:
        decided: (frames,) whether the detector decided for speech.
        segments: the true segments of speech.
        scored: the parts that count (the recording's UEM, or all of it).
        step: length of a frame in seconds.
    """
    speech = covered_frames(segments, len(decided), step)
    counts = covered_frames(scored, len(decided), step)
    return Counts(
        int((speech & ~decided & counts).sum()),
        int((~speech & decided & counts).sum()),
        int((speech & counts).sum()),
        int(counts.sum()),
    )


def task_activity(
    segments: Sequence[Sequence[Segment]],
    decided: Sequence[Frames],
    reference_decided: Sequence[Frames],
    scored: Sequence[Sequence[Segment]],
    step: float,
) -> dict[str, Any]:
    """Score the decisions of one case against the truth and against the reference execution.

    Args:
        segments: true segments, one list per recording.
        decided: (frames,) decisions of the case, one array per recording.
        reference_decided: decisions of the float reference on the same recordings; the hardware is
            judged by the difference to these.
        scored: the parts of each recording that count.
        step: length of a frame in seconds.

    Returns:
        ``frame_error_rate``, ``frame_error_rate_interval`` (95 %, over recordings), its parts
        ``missed`` and ``false_alarm`` (shares of the scored frames), ``miss_rate`` (share of the
        speech frames), ``false_alarm_rate`` (share of the others), ``detection_error_rate``,
        ``scored_s``, ``speech_s``, ``recordings``, ``reference_frame_error_rate``, ``degradation``
        (of the frame error rate), ``degradation_interval`` (95 %, paired), ``no_worse_share``
        (recordings whose rate exceeds the reference's by at most :data:`NO_WORSE`), ``changed``
        (share of the scored frames decided otherwise than by the reference) and
        ``worst_recording`` (index of the one with the most errors beyond the reference's).
        Fractions, not percentages. Intervals are None for fewer than two recordings.

    Raises:
        ValueError: there are no recordings, the lengths differ, or a segment is malformed.
    """
    lengths = {len(segments), len(decided), len(reference_decided), len(scored)}
    if not segments or len(lengths) != 1:
        raise ValueError(
            "needs one decision, one reference decision and one scored part per recording, and at "
            f"least one: got {len(segments)}, {len(decided)}, {len(reference_decided)} and "
            f"{len(scored)}"
        )
    ours = [frame_errors(*row, step) for row in zip(decided, segments, scored, strict=True)]
    theirs = [
        frame_errors(*row, step) for row in zip(reference_decided, segments, scored, strict=True)
    ]
    changed = sum(
        int(((one != other) & covered_frames(parts, len(one), step)).sum())
        for one, other, parts in zip(decided, reference_decided, scored, strict=True)
    )
    errors = [float(one.errors) for one in ours]
    baseline = [float(one.errors) for one in theirs]
    frames = [float(one.frames) for one in ours]
    whole, reference = sum(ours, Counts()), sum(theirs, Counts())
    rate_interval = ratio_interval(errors, frames)
    degradation_interval = paired_interval(errors, baseline, frames)
    return {
        "frame_error_rate": whole.rate,
        "frame_error_rate_interval": None if rate_interval is None else list(rate_interval),
        "missed": ratio(whole.missed, whole.frames),
        "false_alarm": ratio(whole.false_alarms, whole.frames),
        "miss_rate": ratio(whole.missed, whole.speech),
        "false_alarm_rate": ratio(whole.false_alarms, whole.frames - whole.speech),
        "detection_error_rate": ratio(whole.errors, whole.speech),
        "scored_s": whole.frames * step,
        "speech_s": whole.speech * step,
        "recordings": len(ours),
        "reference_frame_error_rate": reference.rate,
        "degradation": whole.rate - reference.rate,
        "degradation_interval": (
            None if degradation_interval is None else list(degradation_interval)
        ),
        "no_worse_share": no_worse_share(
            [one.rate for one in ours], [one.rate + NO_WORSE for one in theirs]
        ),
        "changed": ratio(changed, whole.frames),
        "worst_recording": max(
            range(len(ours)), key=lambda index: (errors[index] - baseline[index], errors[index])
        ),
    }
