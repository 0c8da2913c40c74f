"""The experiment ``seams``: what do the length of chunks, and how they are cut, cost in words?

People's utterances are joined to one recording, which is cut in pauses as the suite cuts it, or
every so many seconds, with overlaps whose words are joined. All ways hear the same recording, so
that their errors are compared utterance by utterance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compat.contract.graph import Stopwatch
from compat.contract.session import Session
from compat.experiments.experiment import Experiment
from compat.experiments.long import section_errors
from compat.experiments.made_recordings import LongRecording, joined
from compat.experiments.measures import Measured, opened, recordings
from compat.inputs.people import PEOPLE
from compat.judge.experiments import Finding
from compat.metrics.bootstrap import ratio_interval
from compat.models.parts.long_audio import Pauses, merge
from compat.models.parts.windows import Windows

CASE = "whisper-tiny.en@pretrained/cpu-onnxruntime/fp32"
LENGTHS = (10, 30)
"""Seconds of a chunk; Whisper pads shorter ones to its window of 30 s."""
OVERLAPS = (0.0, 0.1, 0.25)
"""Shares of a chunk that two neighbours have in common."""
WORDS_A_SECOND = 5
"""More than anybody says: what two neighbours may have in common."""


@dataclass(frozen=True)
class Cutting:
    """A way to cut a recording."""

    seconds: float
    """Length of a chunk."""
    overlap: float | None
    """Share of a chunk that the next one hears again; None to cut in pauses."""

    @property
    def name(self) -> str:
        how = "in pauses" if self.overlap is None else f"overlapping by {self.overlap:.0%}"
        return f"chunks of {self.seconds:g} s {how}"

    def pieces(self, audio: np.ndarray, rate: int) -> tuple[list[np.ndarray], list[float]]:
        """Return the chunks, and the middle of what each shares with the one before, in seconds."""
        if self.overlap is None:
            window, shared = round(self.seconds * rate), rate // 4
            # As Whisper's driver cuts (compat/models/whisper.py), for any length of window.
            reach = min(2 * window // 3, 10 * rate)
            found = Pauses(window, reach, shared, frame=rate // 10, frames=5).pieces(audio)
            steps = [len(piece) - 2 * shared for piece in found[:-1]]
            return found, [float(at + shared) / rate for at in np.cumsum(steps)]
        windows = Windows.overlapping(self.seconds, self.overlap, rate)
        starts = windows.starts(len(audio))
        middle = (windows.length - windows.step) / 2
        found = [audio[start : start + windows.length] for start in starts]
        return found, [(start + middle) / rate for start in starts[1:]]

    @property
    def shared_words(self) -> int:
        """The most words that two neighbours can have in common."""
        seconds = 0.5 if self.overlap is None else self.overlap * self.seconds
        return int(np.ceil(seconds * WORDS_A_SECOND))


CUTTINGS = tuple(Cutting(s, overlap) for s in LENGTHS for overlap in (None, *OVERLAPS))


def heard(pieces: Sequence[str], most: int) -> str:
    """Join the texts of chunks, where they agree on up to ``most`` words of both sides."""
    numbers: dict[str, int] = {}
    joint: list[int] = []
    for text in pieces:
        found = [numbers.setdefault(word, len(numbers)) for word in text.split()]
        joint = merge(joint, found, most) if most else joint + found
    words = list(numbers)
    return " ".join(words[number] for number in joint)


def findings(
    cutting: Cutting, recording: LongRecording, seams: Sequence[float], rates: np.ndarray
) -> list[Finding]:
    """Return the errors over all utterances, and those of utterances that hold a seam.

    Args:
        cutting: how the recording was cut.
        recording: what was cut.
        seams: where chunks meet, in seconds.
        rates: errors and words of each utterance, (utterances, 2).
    """
    at = [any(one.start < seam < one.end for seam in seams) for one in recording.said]
    there = rates[at]
    detail = f"{len(seams)} seams, {sum(at)} of {len(at)} utterances hold one"
    found = [_rate(f"word error rate, {cutting.name}", rates, detail)]
    if len(there):
        found.append(_rate(f"word error rate at seams, {cutting.name}", there, detail))
    return found


def _rate(measure: str, rates: np.ndarray, detail: str) -> Finding:
    errors, words = rates.T.tolist()
    said = f"{sum(errors):g} of {sum(words):g} words wrong; {detail}"
    interval = ratio_interval(errors, words)
    return Finding(
        measure=measure,
        value=sum(errors) / sum(words),
        unit="share",
        interval=interval,
        detail=said,
    )


def more_errors(cutting: Cutting, than: Cutting, rates: np.ndarray, others: np.ndarray) -> Finding:
    """Return how many errors more in a word one way makes, paired by utterance."""
    more, words = (rates[:, 0] - others[:, 0]).tolist(), rates[:, 1].tolist()
    return Finding(
        measure=f"errors added by {cutting.name}",
        value=sum(more) / sum(words),
        unit="share",
        interval=ratio_interval(more, words),
        detail=f"{sum(more):+g} of {sum(words):g} words against {than.name}, paired by utterance",
    )


def seams(
    minutes: float,
    said: Callable[[str], None],
    case: str = CASE,
    cuttings: Sequence[Cutting] = CUTTINGS,
) -> Measured:
    """Run the experiment."""
    model, session = opened(case)
    task = model.task
    name = PEOPLE if task.open_vocabulary else "clean"
    recording = joined(recordings(name, model.sample_rate), minutes * 60)

    def normal(text: str) -> str:
        return str(task.comparable([text], [""])[0])

    found: list[Finding] = []
    first: tuple[Cutting, np.ndarray] | None = None
    for cutting in cuttings:
        said(cutting.name)
        pieces, between = cutting.pieces(recording.audio, recording.rate)
        texts = [normal(_text(model, session, recording, piece)) for piece in pieces]
        rates = section_errors(recording, heard(texts, cutting.shared_words), normal)
        found += findings(cutting, recording, between, rates)
        # Each length of chunks is held against its cuts in pauses.
        if cutting.overlap is None or first is None:
            first = cutting, rates
        else:
            found.append(more_errors(cutting, first[0], rates, first[1]))
    session.close()
    whole = f"{case}, {recording.seconds / 60:.1f} min, {len(recording.said)} utterances"
    return Measured(tuple(_with(one, whole) for one in found))


def _text(model: Any, session: Session, recording: LongRecording, piece: np.ndarray) -> str:
    (prediction,) = model.run(session, [recording.item().with_audio(piece)], Stopwatch())
    return str(prediction["text"])


def _with(finding: Finding, detail: str) -> Finding:
    from msgspec.structs import replace

    return replace(finding, detail=f"{finding.detail}; {detail}")


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return seams(arguments.minutes, said, arguments.case)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=4.0, help="of audio (default: 4)")
    parser.add_argument("--case", default=CASE, help=f"of speech recognition (default: {CASE})")


EXPERIMENT = Experiment(
    "what do the length of chunks, and how they are cut, cost in words?",
    _run,
    _arguments,
    "compat experiment seams --save",
)
