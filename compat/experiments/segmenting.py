"""Segmentation by any network, scored against the truth: what pruning and ensembles share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from compat.experiments.measures import model_of, recordings

CASE = "segmentation-3.0@trained/cpu-torch/fp32"
RECORDINGS = 12

Scores = Callable[[np.ndarray], np.ndarray]
"""Windows (windows, 1, 160000) to probabilities or their logarithms (windows, 589, 7)."""


@cache
def trained() -> tuple[Any, Any]:
    """Return the model and its network, which nobody changes."""
    _, model = model_of(CASE)
    return model, model.network.eval()


def pruned(share: float) -> Any:
    """Return a copy of the network whose smallest weights are zero, that share of each matrix."""
    import torch

    network = copy.deepcopy(trained()[1])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "sincnet.conv1d.0" not in name:
                count = int(parameter.numel() * share)
                limit = parameter.abs().flatten().kthvalue(max(count, 1)).values
                parameter[parameter.abs() <= limit] = 0.0
    return network


def by_network(network: Any) -> Scores:
    """Return the log-probabilities of a network."""
    import torch

    def scores(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = [network(torch.from_numpy(one[None])) for one in windows]
            return np.asarray(torch.cat(found).numpy())

    return scores


def predictions(scores: Scores, items: Sequence[Any]) -> list[Any]:
    """Return a prediction for each recording, as the task scores it."""
    from compat.models.segmentation import WINDOWS
    from compat.models.tasks.speaker_segmentation import encode

    return [
        encode(list(scores(WINDOWS.cut(item.audio)[:, None]).argmax(axis=-1))) for item in items
    ]


def conversations() -> list[Any]:
    """Return conversations of the shipped corpus, with who speaks when."""
    return recordings("conversations", 16_000, RECORDINGS)
