"""Local segmentation error: diarization error within windows, frame by frame.

In each window the local speakers are matched to the true ones in the way that favours the system
most. No identity is carried from window to window, so that only the segmentation network is judged,
as its authors do ("local" diarization error; Bredin, Interspeech 2023). Overlap counts, and there
is no collar. Per frame with R true and S found speakers, of which C are matched with each other:

    miss = max(0, R - S), false alarm = max(0, S - R), confusion = min(R, S) - C

Rates are shares of the true speech, the sum of R.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.metrics.bootstrap import no_worse_share, paired_interval, ratio, ratio_interval

NO_WORSE = 0.01
"""Share of a recording's speech by which its errors may exceed the reference's and still count as
no worse. Frames in which two classes are about equally probable fall either way."""

Activity = NDArray[np.bool_]
"""Whether each speaker speaks in each frame, of shape (frames, speakers)."""


@dataclass(frozen=True, slots=True)
class LocalErrors:
    """Errors and true speech, both in frames × speakers."""

    miss: int = 0
    false_alarm: int = 0
    confusion: int = 0
    speech: int = 0

    @property
    def errors(self) -> int:
        """Missed + falsely found + confused."""
        return self.miss + self.false_alarm + self.confusion

    def __add__(self, other: LocalErrors) -> LocalErrors:
        return LocalErrors(
            self.miss + other.miss,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
            self.speech + other.speech,
        )


def matched(truth: Activity, found: Activity) -> NDArray[np.int64]:
    """Return the true speaker that each found one is matched with, -1 for none: (found speakers,).

    The matching has the most frames in common (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    common = truth.T.astype(np.int64) @ found.astype(np.int64)
    rows, columns = linear_sum_assignment(common, maximize=True)
    result = np.full(found.shape[1], -1, np.int64)
    result[columns] = rows
    return result


def local_errors(truth: Activity, found: Activity) -> LocalErrors:
    """Count the errors of one window.

    Args:
        truth: true activity, (frames, true speakers).
        found: activity that the system found, (frames, local speakers).

    Raises:
        ValueError: the numbers of frames differ.
    """
    if len(truth) != len(found):
        raise ValueError(f"{len(found)} frames found where the truth has {len(truth)}")
    actual, claimed = truth.sum(axis=1), found.sum(axis=1)
    partner = matched(truth, found)
    common = sum(
        int((truth[:, row] & found[:, column]).sum())
        for column, row in enumerate(partner)
        if row >= 0
    )
    return LocalErrors(
        int(np.maximum(actual - claimed, 0).sum()),
        int(np.maximum(claimed - actual, 0).sum()),
        int(np.minimum(actual, claimed).sum()) - common,
        int(actual.sum()),
    )


def total(errors: Iterable[LocalErrors]) -> LocalErrors:
    """Add up the errors of windows."""
    return sum(errors, LocalErrors())


def task_segmentation(ours: Sequence[LocalErrors], theirs: Sequence[LocalErrors]) -> dict[str, Any]:
    """Score a case against the truth and against the reference execution.

    Args:
        ours: errors of the case, one entry per recording.
        theirs: errors of the float reference on the same recordings.

    Returns:
        ``der`` (local diarization error), its parts ``miss``, ``false_alarm`` and ``confusion``,
        ``der_interval`` (95 %, over recordings), ``reference_der``, ``degradation`` (``der`` minus
        ``reference_der``), ``degradation_interval`` (95 %, paired), ``no_worse_share``,
        ``recordings`` and ``worst_recording`` (index of that with the most errors beyond the
        reference's). Rates are fractions. Intervals are None for fewer than two recordings.

    Raises:
        ValueError: there are no recordings or the two lengths differ.
    """
    whole, reference = total(ours), total(theirs)
    errors = [float(one.errors) for one in ours]
    baseline = [float(one.errors) for one in theirs]
    speech = [float(one.speech) for one in ours]
    interval = ratio_interval(errors, speech)
    degradation = paired_interval(errors, baseline, speech)
    der, reference_der = (ratio(one.errors, one.speech) for one in (whole, reference))
    return {
        "der": der,
        "der_interval": None if interval is None else list(interval),
        "miss": ratio(whole.miss, whole.speech),
        "false_alarm": ratio(whole.false_alarm, whole.speech),
        "confusion": ratio(whole.confusion, whole.speech),
        "reference_der": reference_der,
        "degradation": der - reference_der,
        "degradation_interval": None if degradation is None else list(degradation),
        "no_worse_share": no_worse_share(
            errors, [one + NO_WORSE * share for one, share in zip(baseline, speech, strict=True)]
        ),
        "recordings": len(ours),
        "worst_recording": max(
            range(len(ours)), key=lambda index: (errors[index] - baseline[index], errors[index])
        ),
    }
