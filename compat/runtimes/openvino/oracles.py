"""Simulations of OpenVINO's integer recipes, as their oracles."""

from __future__ import annotations

from typing import Any

import torch

from compat.build.schemes import round_blocks
from compat.runtimes.openvino import GROUP


def products() -> tuple[type[torch.nn.Module], ...]:
    """Return the types of layers that multiply by weights, recurrent ones left out."""
    return (
        torch.nn.Linear,
        torch.nn.Conv1d,
        torch.nn.Conv2d,
        torch.nn.ConvTranspose1d,
    )


def round_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate NNCF's int8 weights: asymmetric, one scale per output channel, of every layer.

    Unlike the general scheme, NNCF rounds convolutions, recurrent layers and embeddings too
    (https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html).
    Arithmetic is in float32.
    """
    return _round_weights_of(module, (torch.nn.Embedding, torch.nn.RNNBase, *products()))


def _round_weights_of(
    module: torch.nn.Module, kinds: tuple[type[torch.nn.Module], ...]
) -> torch.nn.Module:
    for layer in module.modules():
        if isinstance(layer, kinds):
            for name, weight in list(layer.named_parameters(recurse=False)):
                if name.startswith("weight"):
                    channel = 1 if isinstance(layer, torch.nn.ConvTranspose1d) else 0
                    # A new tensor, as an output layer may be tied to an embedding.
                    rounded = torch.nn.Parameter(_rounded(weight, channel), requires_grad=False)
                    setattr(layer, name, rounded)
    return module


def round_activations(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate OpenVINO's dynamic int8: int8 weights, and int8 inputs of linear layers.

    Inputs are rounded symmetrically, with a scale for each :data:`GROUP` of values.
    """

    def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (values,) = arguments
        size = values.shape[-1]
        if size % GROUP:
            return arguments
        groups = values.reshape(*values.shape[:-1], size // GROUP, GROUP)
        scale = (groups.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-12)
        return (((groups / scale).round() * scale).reshape(values.shape),)

    rounded = round_weights(module)
    for layer in rounded.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(round_input)
    return rounded


def round_to_4_bits(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate NNCF's int4 weights: symmetric, in groups, of linear layers; other layers have int8.

    NNCF also keeps the last linear layer of a graph at 8 bits. This simulation does not, and so
    errs a little more.
    """
    weights = {
        name: layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    rounded = round_weights(module)
    for name, weight in weights.items():
        if weight.shape[1] % GROUP == 0:
            values = torch.nn.Parameter(round_blocks(weight, GROUP), requires_grad=False)
            rounded.get_submodule(name).weight = values
    return rounded


def round_tensors(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate full int8: weights rounded per channel, inputs of products by weights per tensor.

    Each input has a range of its own here. The artifact has one range for all inputs, set by
    calibration, and leaves products in float32 that this does not suit. Recurrent layers are in
    float32 in both.
    """

    def round_input(_: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        values, *rest = arguments
        # The whole tensor as one channel has one scale.
        return (_rounded(values.reshape(1, -1), 0).reshape(values.shape), *rest)

    rounded = _round_weights_of(module, (torch.nn.Embedding, *products()))
    for layer in rounded.modules():
        if isinstance(layer, products()):
            layer.register_forward_pre_hook(round_input)
    return rounded


def _rounded(weight: torch.Tensor, channel: int) -> torch.Tensor:
    """Round to 256 steps over the range of each channel, which always includes zero.

    ``channel`` is the axis of the channels.
    """
    others = [axis for axis in range(weight.ndim) if axis != channel]
    low = weight.amin(others, keepdim=True).clamp(max=0)
    high = weight.amax(others, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / scale).round()
    return ((weight / scale).round() + zero).clamp(0, 255).sub(zero) * scale
