"""Diarization error rate, its labelled variants, and the Jaccard error rate.

``DER = (miss + false alarm + confusion) / speech``, in seconds of speaker time: a second in which
two people talk at once counts twice. The names of true and found speakers are unrelated, so that
the best one-to-one mapping between them is taken for each recording (Hungarian algorithm). The
headline is the strict form, without a collar and with overlapped speech scored.

The arithmetic is pyannote.metrics' (Bredin, "pyannote.metrics: a toolkit for reproducible
evaluation, diagnostic, and error analysis of speaker diarization systems", Interspeech 2017).
Segments are first brought into a canonical form. A speaker's segments that touch or overlap become
one, since an annotator's choice to split them must not matter. Names are replaced by the order in
which the speakers appear, so that ties are resolved alike whatever the names are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from compat.metrics.bootstrap import no_worse_share, paired_interval, ratio, ratio_interval

Segment = Sequence[Any]
"""Start and end in seconds, and the speaker's name; further entries are ignored."""
Span = tuple[float, float]
"""Start and end in seconds."""

NIST_COLLAR = 0.25
"""Seconds on *each* side of every boundary of the reference that the NIST evaluations leave out
(``md-eval -c 0.25``). pyannote.metrics' ``collar`` is the whole width, 0.5 seconds."""
TOUCHING = 1e-6
"""Seconds below which a gap between two segments is rounding."""
NO_WORSE = 0.005
"""DER by which a recording may exceed the reference's and still count as no worse. The last bit of
a float can move a boundary by a frame, which an exact comparison would call a loss."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Seconds of wrong speaker time by kind of error, and seconds of true speaker time."""

    miss: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0
    speech: float = 0.0
    """Speaker time of the reference."""

    @property
    def seconds(self) -> float:
        """Miss + false alarm + confusion."""
        return self.miss + self.false_alarm + self.confusion

    @property
    def rate(self) -> float:
        """Diarization error rate; the seconds of false alarm where nobody speaks."""
        return ratio(self.seconds, self.speech)

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.miss + other.miss,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
            self.speech + other.speech,
        )


def by_speaker(segments: Iterable[Segment]) -> dict[str, list[Span]]:
    """Return each speaker's time as spans in order that neither touch nor overlap.

    Raises:
        ValueError: a time is not finite, or a segment ends before it starts.
    """
    found: dict[str, list[Span]] = {}
    for start, end, speaker, *_ in sorted(segments, key=lambda one: (one[0], one[1])):
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise ValueError(f"no segment: {start} to {end} seconds")
        spans = found.setdefault(str(speaker), [])
        if spans and start <= spans[-1][1] + TOUCHING:
            spans[-1] = (spans[-1][0], max(spans[-1][1], float(end)))
        elif end > start:
            spans.append((float(start), float(end)))
    return {speaker: spans for speaker, spans in found.items() if spans}


def diarization_errors(
    reference: Iterable[Segment],
    hypothesis: Iterable[Segment],
    scored: Iterable[Span],
    *,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> Errors:
    """Count the errors of one recording.

    Args:
        reference: the true segments.
        hypothesis: the segments that were found.
        scored: the parts of the recording that count (its UEM, or all of it).
        collar: seconds left out on each side of every boundary of the reference.
        skip_overlap: whether times at which the reference has several speakers are left out.
    """
    from pyannote.metrics.diarization import DiarizationErrorRate

    metric = DiarizationErrorRate(collar=2 * collar, skip_overlap=skip_overlap)
    found = metric(
        _annotation(reference), _annotation(hypothesis), uem=_timeline(scored), detailed=True
    )
    return Errors(
        float(found["missed detection"]),
        float(found["false alarm"]),
        float(found["confusion"]),
        float(found["total"]),
    )


def jaccard_errors(
    reference: Iterable[Segment], hypothesis: Iterable[Segment], scored: Iterable[Span]
) -> tuple[float, int]:
    """Return the Jaccard error rates of a recording's speakers, summed, and their number.

    A speaker's rate is 1 minus intersection over union with the speaker mapped to them, or 1 if no
    speaker is. Every speaker counts the same, however little they say. Arguments as in
    :func:`diarization_errors`. Source: evaluation plan of the second DIHARD challenge, 2019.
    """
    from pyannote.metrics.diarization import JaccardErrorRate

    found = JaccardErrorRate()(
        _annotation(reference), _annotation(hypothesis), uem=_timeline(scored), detailed=True
    )
    return float(found["speaker error"]), int(found["speaker count"])


def speakers(segments: Iterable[Segment], scored: Iterable[Span]) -> int:
    """Return how many people speak in the parts that are scored."""
    parts = list(scored)
    return sum(
        any(
            min(end, stop) - max(start, begin) > TOUCHING
            for start, end in spans
            for begin, stop in parts
        )
        for spans in by_speaker(segments).values()
    )


def task_diarization(
    references: Sequence[Sequence[Segment]],
    hypotheses: Sequence[Sequence[Segment]],
    reference_hypotheses: Sequence[Sequence[Segment]],
    scored: Sequence[Sequence[Span]],
) -> dict[str, Any]:
    """Score one case's diarization against the truth and against the reference execution.

    Args:
        references: true segments, one list per recording.
        hypotheses: segments that the case found.
        reference_hypotheses: segments that the float reference found in the same recordings; the
            hardware is judged by the difference to these.
        scored: the parts of each recording that count.

    Returns:
        ``der`` (no collar, overlap scored), ``der_interval`` (95 %, over recordings), its parts
        ``miss``, ``false_alarm`` and ``confusion`` as shares of the reference's speaker time,
        ``speech_s`` (that time), ``recordings``, ``reference_der``, ``degradation`` (``der`` minus
        ``reference_der``), ``degradation_interval`` (95 %, paired), ``no_worse_share`` (recordings
        whose DER exceeds the reference's by at most :data:`NO_WORSE`), ``worst_recording`` (index
        of the one with the most seconds of error beyond the reference's), ``speakers_right``
        (share of recordings with the right number of speakers), and the labelled variants
        ``der_collar_250ms`` (250 ms left out on each side of every true boundary),
        ``der_no_overlap`` (overlapped speech left out) and ``jer``. Fractions, not percentages.
        Intervals are None for fewer than two recordings.

    Raises:
        ValueError: there are no recordings, the four lengths differ, or a segment is malformed.
    """
    lengths = {len(references), len(hypotheses), len(reference_hypotheses), len(scored)}
    if not references or len(lengths) != 1:
        raise ValueError(
            "needs one hypothesis, one reference execution and one scored part per reference, and "
            f"at least one: got {len(references)}, {len(hypotheses)}, {len(reference_hypotheses)} "
            f"and {len(scored)}"
        )
    rows = list(zip(references, hypotheses, scored, strict=True))
    ours = [diarization_errors(*row) for row in rows]
    theirs = [
        diarization_errors(truth, found, parts)
        for truth, found, parts in zip(references, reference_hypotheses, scored, strict=True)
    ]
    errors = [one.seconds for one in ours]
    baseline = [one.seconds for one in theirs]
    speech = [one.speech for one in ours]
    whole, reference = sum(ours, Errors()), sum(theirs, Errors())
    der_interval = ratio_interval(errors, speech)
    degradation_interval = paired_interval(errors, baseline, speech)
    collared = sum((diarization_errors(*row, collar=NIST_COLLAR) for row in rows), Errors())
    single = sum((diarization_errors(*row, skip_overlap=True) for row in rows), Errors())
    jaccard = [jaccard_errors(*row) for row in rows]
    return {
        "der": whole.rate,
        "der_interval": None if der_interval is None else list(der_interval),
        "miss": ratio(whole.miss, whole.speech),
        "false_alarm": ratio(whole.false_alarm, whole.speech),
        "confusion": ratio(whole.confusion, whole.speech),
        "speech_s": whole.speech,
        "recordings": len(ours),
        "reference_der": reference.rate,
        "degradation": whole.rate - reference.rate,
        "degradation_interval": (
            None if degradation_interval is None else list(degradation_interval)
        ),
        "no_worse_share": no_worse_share(
            [one.rate for one in ours], [one.rate + NO_WORSE for one in theirs]
        ),
        "worst_recording": max(
            range(len(ours)), key=lambda index: (errors[index] - baseline[index], errors[index])
        ),
        "speakers_right": sum(
            speakers(truth, parts) == speakers(found, parts) for truth, found, parts in rows
        )
        / len(rows),
        "der_collar_250ms": collared.rate,
        "der_no_overlap": single.rate,
        "jer": ratio(sum(error for error, _ in jaccard), sum(count for _, count in jaccard)),
    }


def _annotation(segments: Iterable[Segment]) -> Any:
    """Return pyannote's form of segments, the speakers named in order of appearance."""
    from pyannote.core import Annotation
    from pyannote.core import Segment as Stretch

    annotation = Annotation()
    for index, spans in enumerate(sorted(by_speaker(segments).values())):
        for start, end in spans:
            annotation[Stretch(start, end), index] = f"{index:04d}"
    return annotation


def _timeline(scored: Iterable[Span]) -> Any:
    from pyannote.core import Segment as Stretch
    from pyannote.core import Timeline

    return Timeline([Stretch(start, end) for start, end in scored]).support()
