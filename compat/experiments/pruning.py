"""The experiment ``pruning``: 30 % of the weights set to zero, as the guide's code does."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compat.experiments import segmenting
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, quotient
from compat.judge.experiments import Finding

SHARE = 0.3


def pruning(rounds: int, said: Callable[[str], None], share: float = SHARE) -> Measured:
    """Run the experiment: bytes, time and diarization error, with and without the weights."""
    import torch
    from safetensors.torch import save_file

    model, network = segmenting.trained()
    smaller = segmenting.pruned(share)
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        sizes = []
        for name, one in (("pruned", smaller), ("whole", network)):
            path = Path(folder) / name
            save_file({key: value.contiguous() for key, value in one.state_dict().items()}, path)
            sizes.append(path.stat().st_size)
    items = segmenting.conversations()
    said("diarization error")
    answers = [segmenting.predictions(segmenting.by_network(n), items) for n in (smaller, network)]
    scores = model.task.scores(items, *answers)
    window = torch.from_numpy(items[0].audio[:160_000][None, None])

    def contender(one: Any) -> Callable[[int], None]:
        def work(number: int) -> None:
            with torch.inference_mode():
                one(window)

        return work

    seconds = in_turns({"pruned": contender(smaller), "whole": contender(network)}, rounds, said)
    zeros = sum(int((p == 0).sum()) for p in smaller.parameters())
    total = sum(p.numel() for p in smaller.parameters())
    detail = f"{segmenting.CASE}: {zeros / total:.1%} of the weights are zero"
    return Measured(
        (
            Finding(
                measure="bytes of the pruned file over the whole",
                value=sizes[0] / sizes[1],
                detail=f"safetensors, {sizes[0]:,} and {sizes[1]:,} bytes; {detail}",
            ),
            quotient("speed-up by zeros", seconds["whole"], seconds["pruned"], detail),
            Finding(
                measure="degradation of DER",
                value=scores["degradation"],
                unit="points",
                interval=tuple(scores["degradation_interval"]),
                detail=f"{len(items)} conversations, paired; {detail}",
            ),
        )
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return pruning(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what does pruning 30 % of the weights to zeros gain, and cost?",
    _run,
    rounds_argument(20),
    "compat experiment pruning --rounds 20 --save",
)
