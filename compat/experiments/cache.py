"""The experiment ``cache``: key/value caches concatenated or preallocated, cross-attention cached.

The decoder has the sizes of Whisper tiny's (4 layers, 384 wide, 6 heads, 1500 positions of the
encoder) and random weights, because the cost of a step does not depend on them. All ways must give
the same numbers, which is checked.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, quotient, saved, too_few, yes
from compat.judge.experiments import Finding
from compat.metrics.timing import median_interval

LAYERS, WIDTH, HEADS, FRAMES, STEPS = 4, 384, 6, 1500, 400
WAYS = {
    "preallocated": (True, True),
    "concatenated": (False, True),
    "cross anew": (True, False),
}
"""Ways of decoding: whether the cache is preallocated, and whether the keys and values of
cross-attention are kept."""


def cache(rounds: int, said: Callable[[str], None], steps: int = STEPS) -> Measured:
    """Run the experiment."""
    import torch

    # Products with one vector are too small to share among threads, and waiting for a second thread
    # would add noise.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder = _decoder()
    hidden = torch.randn(1, FRAMES, WIDTH)
    tokens = torch.randn(steps, 1, 1, WIDTH)
    seconds: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    outputs: dict[str, Any] = {}
    names = list(WAYS)
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            # Making the keys of cross-attention anew at every step costs so much that a tenth of
            # the steps must do.
            some = tokens if WAYS[name][1] else tokens[: max(8, steps // 10)]
            taken, outputs[name] = _decode(decoder, hidden, some, *WAYS[name])
            if number:
                seconds[name].append(taken)
        said(f"round {number} of {rounds}")
    few = len(outputs["cross anew"])
    same = torch.allclose(outputs["preallocated"], outputs["concatenated"], atol=1e-4) and (
        torch.allclose(outputs["preallocated"][:few], outputs["cross anew"], atol=1e-4)
    )
    totals = {name: [sum(one) for one in taken] for name, taken in seconds.items()}
    start = {name: [sum(one[:few]) for one in taken] for name, taken in seconds.items()}
    detail = f"{LAYERS} layers of {WIDTH}, {steps} steps, PyTorch, one thread"
    return Measured(
        (
            yes("the caches give the same numbers", same, f"to 1e-4; {detail}"),
            *(
                _growth(f"growth over {STEPS} steps, {name}", seconds[name], detail)
                for name in ("concatenated", "preallocated")
            ),
            quotient(
                "time saved by preallocation",
                totals["preallocated"],
                totals["concatenated"],
                detail,
                "share",
                saved,
            ),
            quotient(
                "time saved by cached cross-attention",
                start["preallocated"],
                totals["cross anew"],
                f"the first {few} steps; {detail}",
                "share",
                saved,
            ),
        )
    )


def _growth(measure: str, seconds: list[list[float]], detail: str) -> Finding:
    """Return by which share a step takes longer at the end of a round than at its start.

    The share is that of a straight line fitted to the steps of each round.
    """
    grown = []
    for taken in seconds:
        # The line goes through medians of twenty parts, because a few steps that the scheduler
        # interrupted would distort a least-squares fit to all steps.
        parts = np.array_split(np.asarray(taken), 20)
        middles = [float(np.median(part)) for part in parts]
        slope, level = np.polyfit(np.linspace(0, 1, len(middles)), middles, 1)
        grown.append(float(slope / level))
    centre = median_interval(grown)
    return Finding(
        measure=measure,
        value=centre.value,
        unit="share",
        interval=(centre.low, centre.high),
        timed=True,
        doubt=too_few(len(seconds)),
        detail=f"{len(seconds)} rounds; {detail}",
        samples={"grown": grown},
    )


def _decoder() -> list[dict[str, Any]]:
    import torch

    def linear(rows: int, columns: int) -> Any:
        return torch.randn(rows, columns) / columns**0.5

    names = ("q", "k", "v", "o", "cq", "ck", "cv", "co")
    return [
        {
            **{name: linear(WIDTH, WIDTH) for name in names},
            "up": linear(4 * WIDTH, WIDTH),
            "down": linear(WIDTH, 4 * WIDTH),
        }
        for _ in range(LAYERS)
    ]


def _decode(
    layers: list[dict[str, Any]], hidden: Any, tokens: Any, preallocated: bool, kept: bool
) -> tuple[list[float], Any]:
    """Run steps; return the seconds of each, and the outputs (steps, width)."""
    import torch
    from torch.nn import functional as f

    def heads(x: Any) -> Any:
        return x.view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2)

    def cross(layer: dict[str, Any]) -> tuple[Any, Any]:
        return heads(hidden @ layer["ck"].T), heads(hidden @ layer["cv"].T)

    seconds, outputs = [], []
    with torch.inference_mode():
        empty = (1, HEADS, len(tokens) if preallocated else 0, WIDTH // HEADS)
        caches = [[torch.zeros(empty), torch.zeros(empty)] for _ in layers]
        crossed = [cross(layer) for layer in layers] if kept else []
        for position, token in enumerate(tokens):
            began = time.perf_counter()
            x = token
            for index, layer in enumerate(layers):
                normal = f.layer_norm(x, (WIDTH,))
                for which, name in enumerate(("k", "v")):
                    new = heads(normal @ layer[name].T)
                    if preallocated:
                        caches[index][which][:, :, position : position + 1] = new
                    else:
                        caches[index][which] = torch.cat((caches[index][which], new), 2)
                k, v = (one[:, :, : position + 1] for one in caches[index])
                query = heads(normal @ layer["q"].T)
                own = f.scaled_dot_product_attention(query, k, v)
                x = x + own.transpose(1, 2).reshape(1, 1, WIDTH) @ layer["o"].T
                k, v = crossed[index] if kept else cross(layer)
                query = heads(f.layer_norm(x, (WIDTH,)) @ layer["cq"].T)
                across = f.scaled_dot_product_attention(query, k, v)
                x = x + across.transpose(1, 2).reshape(1, 1, WIDTH) @ layer["co"].T
                x = x + f.gelu(f.layer_norm(x, (WIDTH,)) @ layer["up"].T) @ layer["down"].T
            outputs.append(x.view(WIDTH))
            seconds.append(time.perf_counter() - began)
    return seconds, torch.stack(outputs)


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return cache(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what do preallocated caches, and cached cross-attention, save?",
    _run,
    rounds_argument(12),
    "compat experiment cache --rounds 12 --save",
)
