"""Segmentation by any network, scored against the truth; for the pruning and ensemble experiments.

The networks are the trained one and copies of it with fewer or zeroed weights.
"""

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
"""Function that maps windows (windows, 1, 160000) to probabilities or their logarithms
(windows, 589, 7)."""


@cache
def trained() -> tuple[Any, Any]:
    """Return the trained model and its network, which callers must not change."""
    _, model = model_of(CASE)
    return model, model.network.eval()


def pruned(share: float) -> Any:
    """Return a copy of the network with a share of each matrix at zero: the smallest weights."""
    import torch

    network = copy.deepcopy(trained()[1])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "sincnet.conv1d.0" not in name:
                count = int(parameter.numel() * share)
                limit = parameter.abs().flatten().kthvalue(max(count, 1)).values
                parameter[parameter.abs() <= limit] = 0.0
    return network


def narrowed(share: float) -> Any:
    """Return a smaller network, without a share of the units of each recurrent and linear layer.

    This is structured pruning without any training. The units with the smallest incoming weights
    (by L2 norm) are removed together with their outgoing weights, so that every matrix is smaller.
    """
    import torch

    network = copy.deepcopy(trained()[1])
    old = network.lstm
    width = old.hidden_size
    kept_width = width - int(width * share)

    def largest(weights: Any, units: int) -> Any:
        """Return the units to keep, in order; weights are (gates × units, inputs)."""
        norms = weights.reshape(-1, units, weights.shape[1]).pow(2).sum(dim=(0, 2))
        return norms.topk(units - int(units * share)).indices.sort().values

    new = torch.nn.LSTM(
        old.input_size, kept_width, old.num_layers, batch_first=True, bidirectional=True
    )
    with torch.no_grad():
        columns = torch.arange(old.input_size)
        for layer in range(old.num_layers):
            following = []
            for number, ending in enumerate(("", "_reverse")):
                place = f"l{layer}{ending}"
                weights = torch.cat(
                    [getattr(old, f"weight_ih_{place}"), getattr(old, f"weight_hh_{place}")], 1
                )
                kept = largest(weights, width)
                rows = torch.cat([gate * width + kept for gate in range(4)])
                for name, taken in (("weight_ih", columns), ("weight_hh", kept)):
                    smaller = getattr(old, f"{name}_{place}")[rows][:, taken]
                    getattr(new, f"{name}_{place}").copy_(smaller)
                for name in ("bias_ih", "bias_hh"):
                    getattr(new, f"{name}_{place}").copy_(getattr(old, f"{name}_{place}")[rows])
                following.append(number * width + kept)
            columns = torch.cat(following)
        network.lstm = new.eval()
        layers = []
        for linear in network.linear:
            kept = largest(linear.weight, linear.out_features)
            layers.append(_smaller(linear, kept, columns))
            columns = kept
        network.linear = torch.nn.ModuleList(layers)
        last = network.classifier
        network.classifier = _smaller(last, torch.arange(last.out_features), columns)
    return network


def _smaller(linear: Any, rows: Any, columns: Any) -> Any:
    import torch

    new = torch.nn.Linear(len(columns), len(rows))
    new.weight.copy_(linear.weight[rows][:, columns])
    new.bias.copy_(linear.bias[rows])
    return new


def by_network(network: Any) -> Scores:
    """Return the function that computes a network's log-probabilities."""
    import torch

    def scores(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = [network(torch.from_numpy(one[None])) for one in windows]
            return np.asarray(torch.cat(found).numpy())

    return scores


def predictions(scores: Scores, items: Sequence[Any]) -> list[Any]:
    """Return a prediction for each recording, in the form that the task scores."""
    from compat.models.segmentation import WINDOWS
    from compat.models.tasks.speaker_segmentation import encode

    return [
        encode(list(scores(WINDOWS.cut(item.audio)[:, None]).argmax(axis=-1))) for item in items
    ]


def conversations() -> list[Any]:
    """Return conversations of the shipped corpus, with the segments of their speakers."""
    return recordings("conversations", 16_000, RECORDINGS)
