"""Resemblyzer's network in plain PyTorch, with the parameter names of the package.

Source: Wan et al., "Generalized End-to-End Loss for Speaker Verification", 2018, in the form of
the package Resemblyzer 0.1.4.
"""

from __future__ import annotations

import copy

import torch

from compat.models.parts import lstm

LAYERS = 3


class VoiceEncoder(torch.nn.Module):
    """The published architecture.

    Its ``forward`` maps mel (batch, frames, mels) to the embedding (batch, width) of length one,
    the embedding before this normalisation, and the hidden state of the last layer.
    """

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(mels, width, LAYERS, batch_first=True)
        self.linear = torch.nn.Linear(width, width)

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # A time axis of length one is kept. Without it the linear layer would be exported as Gemm,
        # which weight quantisers skip.
        hidden = self.lstm(mel)[0][:, -1:]
        raw = self.linear(hidden).relu()
        # The package has no lower bound. Here it keeps zeros from becoming NaN.
        length = torch.linalg.vector_norm(raw, dim=2, keepdim=True).clamp(min=1e-6)
        return (raw / length)[:, 0], raw[:, 0], hidden[:, 0]


def exportable(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a :class:`VoiceEncoder` whose LSTM is exported as one node per layer."""
    network = copy.deepcopy(network)
    network.lstm = lstm.exportable(network.lstm)  # type: ignore[arg-type]
    return network
