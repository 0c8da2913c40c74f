"""The experiment ``beams``: what beams and batches cost and gain, in ports and in this driver.

The weights are Whisper tiny.en's published ones, the recordings are people's. All contestants of a
round hear the same windows. Every round has other windows, so that word errors are counted over all
of them. openai-whisper is the baseline: each contestant is compared with it at the same number of
beams, one window at a time, because its beam search takes no batch. faster-whisper runs its batched
pipeline, whisper.cpp its own ``whisper_full`` without fallbacks to other temperatures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import (
    Measured,
    in_turns,
    opened,
    quotient,
    ready,
    recordings,
    too_few,
)
from compat.hardware.facts import available_cpus
from compat.inputs.people import PEOPLE
from compat.judge.experiments import Finding
from compat.metrics.timing import median_interval
from compat.models.parts.beam import beam_search
from compat.models.whisper import Decoded

MODEL = "whisper-tiny.en@pretrained"
BASELINE = "openai-whisper fp32"
PORTS = {
    BASELINE: "cpu-openai-whisper/fp32",
    "faster-whisper fp32": "cpu-faster-whisper/fp32",
    "faster-whisper int8": "cpu-faster-whisper/int8-dynamic",
}
"""Ports with beams and batches of their own: their names, and their targets and recipes."""
CPP = {"whisper.cpp fp16": "cpu-whisper-cpp/fp16", "whisper.cpp q8_0": "cpu-whisper-cpp/int8-q8_0"}
"""Ports that take one window at a time: their names, and their targets and recipes."""
OWN = {"OpenVINO int8, this suite's driver": "openvino-cpu/int8-dynamic"}
"""Runtimes of graphs, driven by :func:`beam_search`; the graphs have points of 1, 4 and 8 rows."""
BEAMS = (1, 2, 5)
WINDOWS = 4
"""Number of windows in a round, and in a batch."""
LONGEST = 30.0
"""Seconds of a window; longer recordings are left out."""
ROWS = {1: "b1", 2: "b4", 5: "b8"}
"""Number of beams to the point of this suite's graphs that has enough rows for them."""

Hear = Callable[[Sequence[Item]], list[Prediction]]


@dataclass(frozen=True)
class Contestant:
    """A library with a number of beams and a batch size."""

    library: str
    beams: int
    batch: int
    hear: Hear
    """Function that transcribes recordings, each of one window."""

    @property
    def name(self) -> str:
        return f"{self.library}, {setting(self.beams, self.batch)}"


def setting(beams: int, batch: int) -> str:
    """Return beams and batch in words, for example ``5 beams, batch 4``."""
    return f"{beams} beam{'s' if beams > 1 else ''}, batch {batch}"


def beams(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment."""
    model, session = opened(f"{MODEL}/{next(iter(OWN.values()))}")
    rate = model.sample_rate
    heard = [one for one in recordings(PEOPLE, rate) if one.seconds < LONGEST]
    items = [heard[n % len(heard)] for n in range(WINDOWS * (rounds + 1))]
    contestants = [*_ports(said), *_cpp(said), *_own(model, session)]
    answers: dict[str, list[Prediction]] = {one.name: [] for one in contestants}

    def contender(one: Contestant) -> Callable[[int], None]:
        def work(number: int) -> None:
            answers[one.name] += one.hear(items[WINDOWS * number : WINDOWS * (number + 1)])

        return work

    seconds = in_turns({one.name: contender(one) for one in contestants}, rounds, said)
    session.close()
    return Measured(tuple(findings(contestants, seconds, answers, items, model.task)))


def findings(
    contestants: Sequence[Contestant],
    seconds: dict[str, list[float]],
    answers: dict[str, list[Prediction]],
    items: Sequence[Item],
    task: Any,
) -> Iterator[Finding]:
    """Yield time and word error rate of each contestant, alone and compared with others.

    The others are the baseline, the same library with one beam, and the same library without batch.
    """
    for one in contestants:
        taken = [value / WINDOWS for value in seconds[one.name]]
        centre = median_interval(taken)
        detail = f"{MODEL}, {one.name}, {len(items)} windows in {len(taken)} rounds"
        yield Finding(
            measure=f"seconds a window: {one.name}",
            value=centre.value,
            unit="seconds",
            interval=(centre.low, centre.high),
            timed=True,
            doubt=too_few(len(taken)),
            detail=detail,
            samples={"seconds": taken},
        )
        same = f"{BASELINE}, {setting(one.beams, 1)}"
        if same in seconds and same != one.name:
            yield quotient(
                f"speed of {one.name} over {BASELINE}", seconds[same], seconds[one.name], detail
            )
        greedy = f"{one.library}, {setting(1, one.batch)}"
        scored = task.scores(items, answers[one.name], answers[greedy])
        yield Finding(
            measure=f"word error rate: {one.name}",
            value=scored["wer"],
            unit="share",
            detail=detail,
        )
        if one.beams > 1:
            yield quotient(
                f"time of {one.beams} beams over 1: {one.library}, batch {one.batch}",
                seconds[one.name],
                seconds[greedy],
                detail,
            )
            yield Finding(
                measure=f"words that {one.beams} beams cost: {one.library}, batch {one.batch}",
                value=scored["degradation"],
                unit="points",
                interval=tuple(scored["degradation_interval"]),
                detail=f"word error rate less that of one beam, paired; {detail}",
            )
        if one.batch > 1:
            alone = f"{one.library}, {setting(one.beams, 1)}"
            yield quotient(
                f"speed of batch {one.batch} over 1: {one.library}, {setting(one.beams, 1)}",
                seconds[alone],
                seconds[one.name],
                detail,
            )


def _alone(hear: Hear) -> Hear:
    return lambda items: [answer for item in items for answer in hear([item])]


def _ports(said: Callable[[str], None]) -> Iterator[Contestant]:
    for library, place in PORTS.items():
        try:
            _, execution = ready(f"{MODEL}/{place}")
        except CompatError as error:
            said(f"{library} is left out: {error}")
            continue
        opened_port: Any = execution

        def hearing(count: int, port: Any = opened_port) -> Hear:
            def hear(items: Sequence[Item]) -> list[Prediction]:
                port.beams = count
                return list(port.predict(items, Stopwatch()))

            return hear

        for count in BEAMS:
            yield Contestant(library, count, 1, _alone(hearing(count)))
        # openai-whisper fails on a batch with beams, as it does not repeat the encoder's output for
        # each beam.
        for count in BEAMS[:1] if library == BASELINE else (BEAMS[0], BEAMS[-1]):
            yield Contestant(library, count, WINDOWS, hearing(count))


def _cpp(said: Callable[[str], None]) -> Iterator[Contestant]:
    from pywhispercpp.model import Model

    for library, place in CPP.items():
        try:
            _, execution = ready(f"{MODEL}/{place}")
        except CompatError as error:
            said(f"{library} is left out: {error}")
            continue
        converted: Any = execution
        for count in BEAMS:
            whole = Model(
                str(converted.path),
                params_sampling_strategy=int(count > 1),
                print_progress=False,
                # The same settings as in the suite's own execution, which gives the reasons.
                context_params={"flash_attn": False, "use_gpu": False},
                n_threads=available_cpus(),
                language="en",
                no_timestamps=True,
                single_segment=True,
                no_context=True,
                temperature_inc=0.0,
                greedy={"best_of": 1},
                beam_search={"beam_size": count, "patience": -1.0},
            )

            def hear(items: Sequence[Item], whole: Any = whole) -> list[Prediction]:
                return [
                    {"text": " ".join(part.text.strip() for part in whole.transcribe(one.audio))}
                    for one in items
                ]

            yield Contestant(library, count, 1, hear)
        execution.close()


def _own(model: Any, session: Any) -> Iterator[Contestant]:
    vocabulary = model.vocabulary

    def hearing(count: int) -> Hear:
        def decode(mel: np.ndarray, ask: Any, stopwatch: Stopwatch) -> list[Decoded]:
            encoded = session.run("encoder", {"mel": mel}, "b1")
            (prompt,) = ask(lambda rows: [])
            found = beam_search(
                session,
                encoded,
                ROWS[count],
                prompt,
                count,
                model.max_tokens,
                vocabulary.end,
                vocabulary.suppress,
                vocabulary.begin_suppress,
            )
            return [Decoded(found)]

        def hear(items: Sequence[Item]) -> list[Prediction]:
            if count == 1:
                return list(model.run(session, items, Stopwatch()))
            return list(model.transcribe(items, Stopwatch(), decode))

        return hear

    for library in OWN:
        for count in BEAMS:
            yield Contestant(library, count, 1, _alone(hearing(count)))
        yield Contestant(library, 1, WINDOWS, hearing(1))


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return beams(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what do beams and batches cost and gain, and how fast are the ports of Whisper?",
    _run,
    rounds_argument(6),
    "compat experiment beams --save",
)
