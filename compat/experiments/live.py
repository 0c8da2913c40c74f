"""The experiment ``live``: how soon do words appear while somebody speaks, and how many change?

Audio arrives in chunks. Voice activity says when an utterance begins and ends; while it lasts all
of it is transcribed again and again, and once more at its end. Time is simulated: a chunk arrives
when its last sample was spoken, and work takes as long as it really takes here, one piece after the
other, so that work which is slower than speech delays what comes behind it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from statistics import median
from time import perf_counter

import numpy as np

from compat.contract.graph import Stopwatch
from compat.experiments.experiment import Experiment
from compat.experiments.made_recordings import LongRecording, joined
from compat.experiments.measures import Measured, opened, recordings
from compat.inputs.people import PEOPLE
from compat.judge.experiments import Finding
from compat.metrics.timing import median_interval

SPEECH = "whisper-tiny.en@pretrained/cpu-onnxruntime/fp32"
ACTIVITY = "silero-vad@pretrained/cpu-onnxruntime/fp32"
CHUNK = 0.256
"""Seconds of audio that arrive together: eight frames of Silero VAD."""
SILENCE = 0.512
"""Seconds without speech that end an utterance."""
BEFORE = 0.256
"""Seconds before the first frame of speech that belong to an utterance."""
CONTEXT = 2.048
"""Seconds that voice activity hears again before each chunk."""

Hear = Callable[[np.ndarray], np.ndarray]
"""Audio (samples,) to whether each frame of 32 ms is speech."""
Write = Callable[[np.ndarray], str]
"""Audio (samples,) to its words."""


@dataclass
class Utterance:
    """What became of one stretch of speech."""

    start: float
    end: float = 0.0
    """Seconds of the recording at which speech begins and ends, as voice activity has it."""
    first: float | None = None
    """When the first word was there; None until then."""
    final: float = 0.0
    """When the last answer was there."""
    shown: list[str] = field(default_factory=list)
    """Words that are shown now."""
    told: int = 0
    """Words that were ever shown, one that took the place of another too."""
    revised: int = 0
    """Words that were shown and then changed or taken back."""

    def show(self, text: str, now: float) -> None:
        """Show another transcript in the place of the one before."""
        words = text.split()
        pairs = zip(words, self.shown, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.revised += len(self.shown) - same
        self.told += len(words) - same
        self.shown = words
        if words and self.first is None:
            self.first = now


def follow(
    recording: LongRecording,
    hear: Hear,
    write: Write,
    clock: Callable[[], float] = perf_counter,
    every: float = 1.0,
) -> list[Utterance]:
    """Follow a recording as it is spoken.

    Args:
        recording: what is said.
        hear: voice activity; it is given a chunk and what was before it.
        write: speech recognition; it is given an utterance from its beginning.
        clock: tells seconds, by which work is timed.
        every: seconds of new speech after which an utterance is transcribed again.
    """
    rate, audio = recording.rate, recording.audio
    step, context = int(CHUNK * rate), int(CONTEXT * rate)
    now = 0.0
    current: Utterance | None = None
    done: list[Utterance] = []
    heard_until = 0.0

    def work(task: Callable[[np.ndarray], object], part: np.ndarray) -> object:
        nonlocal now
        began = clock()
        answer = task(part)
        now += clock() - began
        return answer

    for at in range(0, len(audio), step):
        arrived = min(at + step, len(audio))
        # Nothing is heard before it was said; what is late waits for nothing.
        now = max(now, arrived / rate)
        begin = max(0, at - context)
        frames = np.asarray(work(hear, audio[begin:arrived]))
        new = frames[-max(1, round((arrived - at) / rate / 0.032)) :]
        speaks = np.flatnonzero(new)
        if len(speaks):
            first, last = (at / rate + index * 0.032 for index in (speaks[0], speaks[-1] + 1))
            if current is None:
                current, heard_until = Utterance(max(0.0, first - BEFORE)), first
            current.end = last
        if current is None:
            continue
        spoken = audio[int(current.start * rate) : arrived]
        if arrived / rate - current.end >= SILENCE or arrived == len(audio):
            current.show(str(work(write, spoken)), now)
            current.final = now
            done.append(current)
            current = None
        elif current.end - heard_until >= every:
            heard_until = current.end
            current.show(str(work(write, spoken)), now)
    return done


def live(minutes: float, case: str, every: float, said: Callable[[str], None]) -> Measured:
    """Run the experiment."""
    detector, ears = opened(ACTIVITY)
    writer, pen = opened(case)
    recording = joined(recordings(PEOPLE, writer.sample_rate), minutes * 60)

    def hear(part: np.ndarray) -> np.ndarray:
        (found,) = detector.run(ears, [recording.item().with_audio(part)], Stopwatch())
        return np.asarray(found["probabilities"]) >= 0.5

    def write(part: np.ndarray) -> str:
        (found,) = writer.run(pen, [recording.item().with_audio(part)], Stopwatch())
        return str(found["text"])

    said(f"{case}, {minutes:g} minutes")
    write(recording.audio[: recording.rate])
    followed = follow(recording, hear, write, every=every)
    ears.close()
    pen.close()
    return Measured(tuple(findings(followed, case.partition("@")[0], every)))


def findings(followed: Sequence[Utterance], name: str, every: float) -> list[Finding]:
    """Return what is told of some utterances; latencies are medians over them."""
    started = [one for one in followed if one.first is not None]
    detail = f"{name}, {len(followed)} utterances, transcribed again after {every:g} s of speech"
    found = []
    for measure, values in (
        ("first word after speech begins", [(one.first or 0.0) - one.start for one in started]),
        ("last word after speech ends", [one.final - one.end for one in followed]),
    ):
        centre = median_interval(values)
        found.append(
            Finding(
                measure=measure,
                value=centre.value,
                unit="seconds",
                interval=(centre.low, centre.high),
                timed=True,
                detail=f"{detail}; at most {max(values):.2f} s, median {median(values):.2f} s",
            )
        )
    told, revised = (sum(getattr(one, key) for one in followed) for key in ("told", "revised"))
    found.append(
        Finding(
            measure="words that change after they were shown",
            value=revised / max(told, 1),
            unit="share",
            detail=f"{revised} of {told}; {detail}",
        )
    )
    return found


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return live(arguments.minutes, arguments.case, arguments.every, said)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=5.0, help="of audio (default: 5)")
    parser.add_argument("--case", default=SPEECH, help=f"of speech recognition ({SPEECH})")
    parser.add_argument("--every", type=float, default=1.0, help="seconds of speech (default: 1)")


EXPERIMENT = Experiment(
    "how soon do words appear while somebody speaks, and how many change?",
    _run,
    _arguments,
    "compat experiment live --minutes 5 --save",
)
