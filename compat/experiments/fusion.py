"""The experiment ``fusion``: the gain of graphs over eager execution, and of optimisation alone.

The same network runs eagerly in PyTorch, and as an exported graph in ONNX Runtime, with its graph
optimisations and without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from compat.build.sources import sources
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import (
    Measured,
    count,
    in_turns,
    model_of,
    quotient,
    recordings,
    yes,
)
from compat.hardware.facts import available_cpus

CASE = "segmentation-3.0@trained/cpu-onnxruntime/fp32"


def fusion(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment on segmentation: eagerly, with all optimisations, and with none."""
    import onnxruntime
    import torch

    from compat.models.segmentation import WINDOWS

    reference, model = model_of(CASE)
    path = sources(reference, model, available_cpus())["segmentation"].onnx("b1")
    items = recordings("conversations", 16_000, 4)
    windows = np.concatenate([WINDOWS.cut(item.audio) for item in items])[:, None, None]
    level = onnxruntime.GraphOptimizationLevel
    sessions: dict[str, Any] = {}
    for name, wanted in (("all", level.ORT_ENABLE_ALL), ("none", level.ORT_DISABLE_ALL)):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = wanted
        options.intra_op_num_threads = available_cpus()
        options.log_severity_level = 3
        sessions[name] = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
    outputs = {
        name: np.concatenate([one.run(["log_probabilities"], {"waveform": w})[0] for w in windows])
        for name, one in sessions.items()
    }

    def contender(session: Any) -> Callable[[int], None]:
        def work(number: int) -> None:
            session.run(None, {"waveform": windows[number % len(windows)]})

        return work

    def eager(number: int) -> None:
        with torch.inference_mode():
            network(tensors[number % len(tensors)])

    network, tensors = model.network.eval(), torch.from_numpy(windows)
    before = torch.get_num_threads()
    torch.set_num_threads(available_cpus())
    try:
        contenders = {name: contender(one) for name, one in sessions.items()} | {"eager": eager}
        seconds = in_turns(contenders, rounds, said)
        with torch.inference_mode():
            scores = np.concatenate([network(one).numpy() for one in tensors])
    finally:
        torch.set_num_threads(before)
    changed = int((outputs["all"].argmax(-1) != outputs["none"].argmax(-1)).sum())
    furthest = float(np.abs(outputs["all"] - outputs["none"]).max())
    detail = f"{CASE}, {len(windows)} windows"
    return Measured(
        (
            quotient("speed-up of optimisation", seconds["none"], seconds["all"], detail),
            count(
                "frames that optimisation changes",
                changed,
                f"of {outputs['all'][..., 0].size}, log-probabilities at most {furthest:.2g} apart",
            ),
            quotient(
                "speed-up of the exported graph over eager PyTorch",
                seconds["eager"],
                seconds["all"],
                detail,
            ),
            count(
                "frames that the export changes",
                int((outputs["all"].argmax(-1) != scores.argmax(-1)).sum()),
                f"of {scores[..., 0].size}, against eager PyTorch; {detail}",
            ),
            yes("optimised outputs equal bit for bit", furthest == 0.0, detail),
        )
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return fusion(arguments.rounds, said)


EXPERIMENT = Experiment(
    "what does operator fusion gain, and change?",
    _run,
    rounds_argument(120),
    "compat experiment fusion --rounds 60 --save",
)
