"""The experiment ``features``: does it pay to keep features of audio that was heard before?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from compat.contract.graph import Stopwatch
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, opened, quotient, recordings, yes

CASE = "whisper-tiny.en@pretrained/cpu-onnxruntime/fp32"


def features(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment: the whole task with log-mels computed, and with log-mels kept."""
    model, session = opened(CASE)
    items = recordings("clean", model.sample_rate, 8)
    compute = model.padded_mel
    kept: dict[bytes, np.ndarray] = {}
    answers: dict[str, list[Any]] = {"anew": [], "cached": []}

    def remembered(chunks: Any, batch: int) -> np.ndarray:
        key = b"".join(np.ascontiguousarray(chunk).tobytes() for chunk in chunks)
        if key not in kept:
            kept[key] = compute(chunks, batch)
        return kept[key]

    for item in items:
        model.padded_mel = remembered
        model.run(session, [item], Stopwatch())
    same = all(
        np.array_equal(mel, compute([np.frombuffer(key, np.float32)], 1))
        for key, mel in kept.items()
    )

    def contender(name: str, mel: Callable[..., np.ndarray]) -> Callable[[int], None]:
        def work(number: int) -> None:
            model.padded_mel = mel
            answers[name].append(model.run(session, items[:4], Stopwatch()))

        return work

    contenders = {"anew": contender("anew", compute), "cached": contender("cached", remembered)}
    # The features of the four at once are kept by the round that warms up.
    seconds = in_turns(contenders, rounds, said)
    session.close()
    same = same and answers["anew"] == answers["cached"]
    detail = f"{CASE}, {len(kept)} inputs"
    return Measured(
        (
            yes("a hit equals a miss", same, f"log-mels bit for bit and transcripts; {detail}"),
            quotient(
                "task with cached features over without", seconds["cached"], seconds["anew"], detail
            ),
        )
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return features(arguments.rounds, said)


EXPERIMENT = Experiment(
    "does it pay to cache features?",
    _run,
    rounds_argument(12),
    "compat experiment features --rounds 12 --save",
)
