"""The experiment ``long``: does a model drift over an hour, and does its memory grow?

People's utterances are joined to one long recording, which each model gets as one input. Neither
errors nor memory depend on a clock, so a busy machine gives the same answers.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from compat import catalog
from compat.contract.graph import Stopwatch
from compat.experiments.experiment import Experiment
from compat.experiments.made_recordings import LongRecording, joined
from compat.experiments.measures import Measured, model_of, ready, recordings
from compat.inputs.people import PEOPLE
from compat.judge.experiments import Finding
from compat.measure.memory import resident_bytes

CASES = (
    "whisper-tiny.en@pretrained/cpu-onnxruntime/fp32",
    "wav2vec2-nano@trained/cpu-onnxruntime/fp32",
    "silero-vad@pretrained/cpu-onnxruntime/fp32",
)
END = 600.0
"""Seconds at either end of a recording that are compared, or a third of the recording if that is
less."""
BLOCK = 10
"""Seconds of a block over which the decisions of voice activity detection are counted."""
LOOK_S = 0.5
"""Seconds between two readings of the memory."""


class Memory:
    """Reads this process's memory every :data:`LOOK_S` seconds while the block runs."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.seen.append(resident_bytes())
            if self._done.wait(LOOK_S):
                return

    @property
    def growth(self) -> float:
        """Bytes: the mean memory of the last third of the time, less that of the second third."""
        third = max(1, len(self.seen) // 3)
        return float(np.mean(self.seen[-third:]) - np.mean(self.seen[third : -third or None]))


def section_errors(
    recording: LongRecording, heard: str, normal: Callable[[str], str]
) -> np.ndarray:
    """Return the errors and the words of each utterance, (utterances, 2), in a whole transcript.

    The transcript is aligned with the words of all utterances at once. An inserted word counts for
    the utterance in which it stands.
    """
    import jiwer

    counts = [len(normal(one.text).split()) for one in recording.said]
    ends = list(accumulate(counts))
    errors = np.zeros(len(counts))
    truth = " ".join(normal(one.text) for one in recording.said)
    (alignment,) = jiwer.process_words(truth, normal(heard)).alignments
    for chunk in alignment:
        if chunk.type == "equal":
            continue
        if chunk.type == "insert":
            places = [chunk.ref_start_idx] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
        else:
            places = list(range(chunk.ref_start_idx, chunk.ref_end_idx))
        for place in places:
            errors[min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1)] += 1
    return np.stack([errors, counts], axis=1)


def long(minutes: float, cases: Sequence[str], said: Callable[[str], None]) -> Measured:
    """Run the experiment on cases of speech recognition and of voice activity detection."""
    found: list[Finding] = []
    for case in cases:
        said(f"{case}: {minutes:g} minutes")
        family = catalog.load().case(case).family
        found += (_activity if family.task == "vad" else _speech)(case, minutes)
    return Measured(tuple(found))


def _heard(case: str, recording: LongRecording) -> tuple[Any, Memory]:
    """Return a case's prediction for a recording, and the memory that this process used."""
    _, execution = ready(case)
    with Memory() as memory:
        (prediction,) = execution.predict([recording.item()], Stopwatch())
    execution.close()
    return prediction, memory


def _speech(case: str, minutes: float) -> list[Finding]:
    _, model = model_of(case)
    task = model.task
    recording = _recording(minutes, model.sample_rate, PEOPLE if task.open_vocabulary else "clean")

    def normal(text: str) -> str:
        return str(task.comparable([text], [""])[0])

    prediction, memory = _heard(case, recording)
    rates = section_errors(recording, str(prediction["text"]), normal)
    first, last, detail = _ends(recording)
    name = _name(case)
    whole = f"{case}, {recording.seconds / 60:.0f} min, {len(recording.said)} utterances"
    drift = rates[last].sum(0), rates[first].sum(0)
    return [
        Finding(
            measure=f"word error rate of {name}",
            value=float(rates[:, 0].sum() / rates[:, 1].sum()),
            unit="share",
            detail=whole,
        ),
        Finding(
            measure=f"drift of {name}, last less first",
            value=float(drift[0][0] / drift[0][1] - drift[1][0] / drift[1][1]),
            interval=_difference(rates[last], rates[first]),
            unit="share",
            detail=f"{detail}: {drift[0][0]:.0f} of {drift[0][1]:.0f} words wrong, at first "
            f"{drift[1][0]:.0f} of {drift[1][1]:.0f}",
        ),
        _growth(name, memory, whole),
    ]


def _activity(case: str, minutes: float) -> list[Finding]:
    """Return how voice activity detection decides at the beginning and at the end."""
    _, model = model_of(case)
    recording = _recording(minutes, model.sample_rate, PEOPLE)
    prediction, memory = _heard(case, recording)
    rate = 100
    heard, truth = (np.zeros(int(recording.seconds * rate) + 1, bool) for _ in range(2))
    for start, end in prediction["segments"]:
        heard[int(start * rate) : int(end * rate)] = True
    for one in recording.said:
        truth[int(one.start * rate) : int(one.end * rate)] = True
    blocks = len(truth) // (BLOCK * rate)
    wrong = (heard != truth)[: blocks * BLOCK * rate].reshape(blocks, -1)
    rows = np.stack([wrong.sum(1), np.full(blocks, wrong.shape[1])], axis=1)
    some = max(1, int(min(END, recording.seconds / 3) / BLOCK))
    first, last = rows[:some], rows[-some:]
    name = _name(case)
    of_first, of_last = (one[:, 0].sum() / one[:, 1].sum() for one in (first, last))
    return [
        Finding(
            measure=f"drift of {name}, last less first",
            value=float(of_last - of_first),
            interval=_difference(last, first),
            unit="share",
            detail=f"share of the time that is decided otherwise than utterances begin and end: "
            f"{of_first:.1%} at first, {of_last:.1%} at last",
        ),
        _growth(name, memory, f"{case}, {recording.seconds / 60:.0f} min"),
    ]


def _name(case: str) -> str:
    variant, _, rest = case.partition("@")
    return f"{variant} on {rest.split('/')[1]}"


def _recording(minutes: float, rate: int, name: str) -> LongRecording:
    return joined(recordings(name, rate), minutes * 60)


def _ends(recording: LongRecording) -> tuple[list[int], list[int], str]:
    """Return the positions of the utterances at both ends of a recording, and the ends in words."""
    length = min(END, recording.seconds / 3)
    first = [n for n, one in enumerate(recording.said) if one.end <= length]
    last = [n for n, one in enumerate(recording.said) if one.start >= recording.seconds - length]
    return first, last, f"the last {length / 60:.0f} minutes"


def _difference(last: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two rates, by bootstrap over utterances."""
    draw = np.random.default_rng(0)

    def rates(rows: np.ndarray) -> Any:
        sums = rows[draw.integers(0, len(rows), (1000, len(rows)))].sum(1)
        return sums[:, 0] / np.maximum(sums[:, 1], 1)

    low, high = np.quantile(rates(last) - rates(first), (0.025, 0.975))
    return float(low), float(high)


def _growth(name: str, memory: Memory, detail: str) -> Finding:
    return Finding(
        measure=f"memory that {name} takes more in the last third than in the second",
        value=memory.growth,
        unit="bytes",
        detail=f"{detail}; at most {max(memory.seen) / 1e6:.0f} MB",
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return long(arguments.minutes, arguments.case or CASES, said)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=60.0, help="of audio (default: 60)")
    parser.add_argument(
        "--case",
        action="append",
        help="of speech recognition or voice activity, may be repeated (default: one of each "
        "family, on ONNX Runtime)",
    )


EXPERIMENT = Experiment(
    "do models drift over an hour of speech, and does their memory grow?",
    _run,
    _arguments,
    "compat experiment long --minutes 60 --save",
)
