"""The experiment ``threads``: the gain of all cores over one thread."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, model_of, quotient, recordings
from compat.hardware.facts import available_cpus


def threads(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment: time Whisper tiny's encoder in PyTorch by number of threads."""
    import torch

    from compat.models.whisper_network import Encoder

    _, model = model_of("whisper-tiny@seeded/cpu-torch/fp32")
    speech = np.concatenate([one.audio for one in recordings("conversations", 16_000, 2)])
    mel = torch.from_numpy(model.padded_mel([speech[: model.dimensions.window]], 1))
    module = Encoder(model.network).eval()
    before, cores = torch.get_num_threads(), available_cpus()

    def contender(number: int) -> Callable[[int], None]:
        def work(_: int) -> None:
            torch.set_num_threads(number)
            with torch.inference_mode():
                module(mel)

        return work

    counts = sorted({1, 2, cores})
    try:
        seconds = in_turns({str(n): contender(n) for n in counts}, rounds, said)
    finally:
        torch.set_num_threads(before)
    detail = f"encoder of whisper-tiny, 30 s, PyTorch, {cores} cores"
    return Measured(
        (
            quotient("all cores over one thread", seconds["1"], seconds[str(cores)], detail),
            quotient("two threads over one", seconds["1"], seconds["2"], detail),
        )
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return threads(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what do all cores gain over one thread?",
    _run,
    rounds_argument(12),
    "compat experiment threads --rounds 12 --save",
)
