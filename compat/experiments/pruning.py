"""The experiment ``pruning``: 30 % of the weights set to zero, or 30 % of the channels removed.

The guide's code sets weights to zero, which leaves a network as large as it was. Removed channels
make it smaller. Neither is followed by any training.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compat.experiments import segmenting
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, quotient
from compat.judge.experiments import Finding

SHARE = 0.3


def pruning(rounds: int, said: Callable[[str], None], share: float = SHARE) -> Measured:
    """Run the experiment: bytes, time and diarization error, with the weights and without."""
    import torch
    from safetensors.torch import save_file

    model, network = segmenting.trained()
    smaller, narrow = segmenting.pruned(share), segmenting.narrowed(share)
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        sizes = []
        for name, one in (("pruned", smaller), ("narrow", narrow), ("whole", network)):
            path = Path(folder) / name
            save_file({key: value.contiguous() for key, value in one.state_dict().items()}, path)
            sizes.append(path.stat().st_size)
    items = segmenting.conversations()
    said("diarization error")
    answers = [
        segmenting.predictions(segmenting.by_network(one), items)
        for one in (smaller, narrow, network)
    ]
    scores, narrow_scores = (model.task.scores(items, one, answers[-1]) for one in answers[:-1])
    window = torch.from_numpy(items[0].audio[:160_000][None, None])

    def contender(one: Any) -> Callable[[int], None]:
        def work(number: int) -> None:
            with torch.inference_mode():
                one(window)

        return work

    contenders = {
        "pruned": contender(smaller),
        "narrow": contender(narrow),
        "whole": contender(network),
    }
    seconds = in_turns(contenders, rounds, said)
    zeros = sum(int((p == 0).sum()) for p in smaller.parameters())
    total = sum(p.numel() for p in smaller.parameters())
    detail = f"{segmenting.CASE}: {zeros / total:.1%} of the weights are zero"
    removed = f"{segmenting.CASE}: {share:.0%} of the units of recurrent and linear layers removed"
    paired = f"{len(items)} conversations, paired"
    return Measured(
        (
            _bytes("bytes of the pruned file over the whole", sizes[0], sizes[-1], detail),
            quotient("speed-up by zeros", seconds["whole"], seconds["pruned"], detail),
            _degradation("degradation of DER", scores, f"{paired}; {detail}"),
            _bytes("bytes with channels removed over the whole", sizes[1], sizes[-1], removed),
            quotient("speed-up by removed channels", seconds["whole"], seconds["narrow"], removed),
            _degradation(
                "degradation of DER with channels removed", narrow_scores, f"{paired}; {removed}"
            ),
        )
    )


def _bytes(measure: str, smaller: int, whole: int, detail: str) -> Finding:
    said = f"safetensors, {smaller:,} and {whole:,} bytes; {detail}"
    return Finding(measure=measure, value=smaller / whole, detail=said)


def _degradation(measure: str, scores: Mapping[str, Any], detail: str) -> Finding:
    return Finding(
        measure=measure,
        value=scores["degradation"],
        unit="points",
        interval=tuple(scores["degradation_interval"]),
        detail=detail,
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return pruning(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what does pruning 30 % gain and cost, as zeros and with channels removed?",
    _run,
    rounds_argument(20),
    "compat experiment pruning --rounds 20 --save",
)
