"""The experiment ``batches``: does a batch raise throughput on a processor?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, model_of, quotient, recordings
from compat.hardware.facts import available_cpus
from compat.judge.experiments import Finding

SIZES = (1, 2, 4, 8, 16, 32)
LEAST = 8
"""Least number of inputs in a turn: smaller batches are repeated until they make so many."""


def batches(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment on Whisper's encoder and on segmentation, in PyTorch."""
    import torch

    from compat.models.whisper_network import Encoder

    torch.set_num_threads(available_cpus())
    _, whisper = model_of("whisper-tiny@seeded/cpu-torch/fp32")
    _, segmentation = model_of("segmentation-3.0@trained/cpu-torch/fp32")
    speech = np.concatenate([one.audio for one in recordings("conversations", 16_000, 4)])
    window = whisper.dimensions.window
    mels = whisper.padded_mel([speech[n * 9999 :][:window] for n in range(max(SIZES))], max(SIZES))
    waves = np.stack([speech[n * 9999 :][:160_000] for n in range(max(SIZES))])[:, None]
    found: list[Finding] = []
    for name, module, inputs in (
        ("whisper encoder", Encoder(whisper.network), mels),
        ("segmentation", segmentation.network, waves),
    ):
        said(name)
        found += _sweep(name, module.eval(), torch.from_numpy(inputs), rounds, said)
    return Measured(tuple(found))


def _sweep(
    name: str, module: Any, inputs: Any, rounds: int, said: Callable[[str], None]
) -> list[Finding]:
    import torch

    def contender(size: int) -> Callable[[int], None]:
        def work(number: int) -> None:
            with torch.inference_mode():
                for start in range(0, max(size, LEAST), size):
                    module(inputs[start : start + size])

        return work

    turns = in_turns({str(size): contender(size) for size in SIZES}, rounds, said)
    seconds = {size: [taken / max(size, LEAST) for taken in turns[str(size)]] for size in SIZES}
    rates = {size: 1 / median(seconds[size]) for size in SIZES}
    said_rates = ", ".join(f"{size}: {rate:.3g}/s" for size, rate in rates.items())
    return [
        quotient(f"{name}, batch {size} over 1", seconds[1], seconds[size], said_rates)
        for size in SIZES[1:]
    ]


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return batches(arguments.rounds, said)


EXPERIMENT = Experiment(
    "does a batch raise throughput on a processor?",
    _run,
    rounds_argument(6),
    "compat experiment batches --rounds 6 --save",
)
