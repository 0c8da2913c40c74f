"""The experiment ``live``: how soon do words appear while somebody speaks, and how many change?

Audio arrives in chunks. Voice activity detection says when an utterance begins and ends. While the
utterance lasts, all of it so far is transcribed again and again, and once more at its end. Time is
simulated: a chunk arrives when its last sample was spoken, and work takes as long as it takes on
this machine, one piece after the other. So work that is slower than speech delays the work after
it.
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
"""Seconds before each chunk that voice activity detection hears again."""

Hear = Callable[[np.ndarray], np.ndarray]
"""Voice activity detection: maps audio (samples,) to whether each frame of 32 ms is speech."""
Write = Callable[[np.ndarray], str]
"""Speech recognition: maps audio (samples,) to its words."""


@dataclass
class Utterance:
    """One stretch of speech, and the times and words of its transcripts."""

    start: float
    end: float = 0.0
    """Seconds of the recording at which speech begins and ends, by voice activity detection."""
    first: float | None = None
    """Time in seconds when the first word was shown; None until then."""
    final: float = 0.0
    """Time in seconds when the last transcript was shown."""
    shown: list[str] = field(default_factory=list)
    """Words that are shown now."""
    told: int = 0
    """Number of words that were ever shown, including those that replaced others."""
    revised: int = 0
    """Number of words that were shown and then changed or removed."""

    def show(self, text: str, now: float) -> None:
        """Show a transcript in place of the previous one, at ``now`` in seconds."""
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
        recording: the recording that is spoken.
        hear: voice activity detection, called with a chunk and up to 2 s before it.
        write: speech recognition, called with an utterance from its beginning.
        clock: returns seconds, by which work is timed.
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
        # A chunk is heard when it has arrived, or later if earlier work is not yet finished.
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
    """Return the measures of some utterances; latencies are medians over them."""
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
