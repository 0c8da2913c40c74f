"""Silero VAD's network, and its weights in the files of the package.

Source: the package silero-vad 6.2.3, whose code is never imported. The module computes what the
files for runtimes do, at 16 kHz.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import Conv1d, Linear, ReLU, Sequential

from compat.inputs.weights import fill_from_state
from compat.models.parts import lstm, spectral


class Step(torch.nn.Module):
    """The network for one chunk: audio (batch, 576) and state (2, batch, width).

    It returns the probability of speech (batch, 1) and the new state: output and cell of the LSTM,
    each with ``width`` units.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.basis = spectral.fourier(256, 128)
        self.encoder = Sequential(
            Conv1d(129, 128, 3, padding=1),
            ReLU(),
            Conv1d(128, 64, 3, stride=2, padding=1),
            ReLU(),
            Conv1d(64, 64, 3, stride=2, padding=1),
            ReLU(),
            Conv1d(64, width, 3, padding=1),
            ReLU(),
        )
        # The LSTM cell consists of two linear layers on (batch, 1, width), because every
        # quantisation scheme supports linear layers.
        self.input_gates = Linear(width, 4 * width)
        self.hidden_gates = Linear(width, 4 * width)
        self.decoder = Conv1d(width, 1, 1)

    def forward(
        self, audio: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        padded = torch.nn.functional.pad(audio.unsqueeze(1), (0, 64), mode="reflect")
        magnitude = spectral.power(self.basis(padded)).sqrt()
        features = self.encoder(magnitude).transpose(1, 2)
        hidden, cell = state.unsqueeze(2)
        gates = self.input_gates(features) + self.hidden_gates(hidden)
        hidden, cell = lstm.step(gates, cell)
        probability = self.decoder(hidden.relu().transpose(1, 2)).sigmoid()
        return probability.mean(dim=2), torch.stack((hidden, cell)).squeeze(2)


class Steps(torch.nn.Module):
    """The network for consecutive chunks of one recording: audio (chunks, 576).

    LSTM output and cell are (1, 1, 128) each. The module returns the probabilities (chunks,) and
    the new output and cell.
    """

    def __init__(self, step: torch.nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(
        self, audio: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        probabilities = []
        state = torch.cat((hidden, cell))
        for chunk in audio.unsqueeze(1):
            probability, state = self.step(chunk, state)
            probabilities.append(probability[:, 0])
        return torch.cat(probabilities), state[:1], state[1:]


# Weights -----------------------------------------------------------------------------------------


def step_module(parameters: Mapping[str, torch.Tensor], path: Path) -> Step:
    """Return the network with parameters that were read from ``path``, which messages name.

    Raises:
        CheckpointError: the parameters do not fit the network.
    """
    network = Step()
    fill_from_state(network, path, parameters)
    return network


def read_weights(path: Path, part: str = "_model") -> dict[str, torch.Tensor]:
    """Read the weights for 16 kHz from a file of the package, by the names of :func:`names`.

    ``part`` is the submodule of a TorchScript file that has the weights.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found = load_file(path)
        return {own: found[plain] for own, _, plain in names() if plain in found}
    if path.suffix == ".onnx":
        import onnx  # Not at the top: it is not installed where PyTorch is the only runtime.

        graph = onnx.load(path).graph
        found = {
            value.name: torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
            for value in graph.initializer
        }
        return {own: found[script] for own, script, _ in names() if script in found}
    jit: Any = torch.jit
    with warnings.catch_warnings():
        # PyTorch warns that TorchScript is deprecated, but that is what the package ships.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = getattr(jit.load(path, map_location="cpu"), part).state_dict()
    return {own: found[script] for own, script, _ in names() if script in found}


def names() -> Iterator[tuple[str, str, str]]:
    """Yield each parameter's names in the module, in TorchScript and ONNX, and in safetensors."""
    yield "basis.weight", "stft.forward_basis_buffer", "stft_conv.weight"
    for kind in ("weight", "bias"):
        for layer in range(4):
            yield (
                f"encoder.{2 * layer}.{kind}",
                f"encoder.{layer}.reparam_conv.{kind}",
                f"conv{layer + 1}.{kind}",
            )
        for own, theirs in (("input", "ih"), ("hidden", "hh")):
            yield (
                f"{own}_gates.{kind}",
                f"decoder.rnn.{kind}_{theirs}",
                f"lstm_cell.{kind}_{theirs}",
            )
        yield f"decoder.{kind}", f"decoder.decoder.2.{kind}", f"final_conv.{kind}"
