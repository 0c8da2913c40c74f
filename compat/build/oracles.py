"""Simulations of recipes: functions that change a float module to compute as a recipe should.

:mod:`compat.build.reference` uses them as oracles. They start from the float weights, not from a
runtime's files, so that a fault in such a file shows.
"""

from __future__ import annotations

import torch

from compat.build.schemes import quantise_rows, round_blocks


def round_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate int8 weights: symmetric, one scale per output channel; arithmetic in float32."""
    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            # A new tensor, as the weight may be tied to an embedding, which stays in float32.
            weight, scale = quantise_rows(child.weight)
            child.weight = torch.nn.Parameter(weight * scale, requires_grad=False)
    return module


def round_to_4_bits(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate int4 weights: symmetric, one scale per 32 values; arithmetic in float32."""
    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            rounded = round_blocks(child.weight, 32)  # The size is onnx_schemes.BLOCK.
            child.weight = torch.nn.Parameter(rounded, requires_grad=False)
    return module


def round_activations(module: torch.nn.Module, codes: int = 255) -> torch.nn.Module:
    """Simulate dynamic int8: int8 weights, and inputs of linear layers rounded per tensor.

    ``codes`` is the largest code of an input: 255 for 8 bits, 127 for 7.
    """

    def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (values,) = arguments
        # Asymmetric, one scale per tensor, zero always representable.
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        scale = ((high - low) / codes).clamp(min=1e-12)
        zero = (-low / scale).round()
        return (((values / scale).round() + zero).clamp(0, codes).sub(zero) * scale,)

    rounded = round_weights(module)
    for child in rounded.modules():
        if isinstance(child, torch.nn.Linear):
            child.register_forward_pre_hook(round_input)
    return rounded


def round_activations_to_7_bits(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate PyTorch's dynamic int8, which uses 7 of the 8 bits of each input.

    Sums of two products then fit into 16 bits, at which the instruction of x86 processors without
    VNNI saturates.
    """
    return round_activations(module, codes=127)


def round_mantissas(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate tf32: operands of products have 10 bits of mantissa; sums are in float32."""

    def rounded(values: torch.Tensor) -> torch.Tensor:
        bits = values.contiguous().view(torch.int32)
        # Round to nearest, ties away from zero, as the conversion instruction does.
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)

    def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (rounded(arguments[0]),)

    for child in module.modules():
        if isinstance(child, (torch.nn.Linear, torch.nn.Conv1d)):
            child.weight = torch.nn.Parameter(rounded(child.weight), requires_grad=False)
            child.register_forward_pre_hook(round_input)
    return module
