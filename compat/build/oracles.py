"""Oracles: what an honest execution of a recipe computes, simulated from the float weights."""

from __future__ import annotations

import torch

from compat.build.schemes import quantise_rows, round_blocks


def round_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate int8 weights: symmetric, one scale per output channel; arithmetic in float32."""
    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            # A new tensor: the weight may be tied to an embedding, which the scheme leaves alone.
            weight, scale = quantise_rows(child.weight)
            child.weight = torch.nn.Parameter(weight * scale, requires_grad=False)
    return module


def round_to_4_bits(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate int4 weights: symmetric, one scale per 32 values; arithmetic in float32."""
    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            rounded = round_blocks(child.weight, 32)  # As compat.build.onnx_schemes.BLOCK.
            child.weight = torch.nn.Parameter(rounded, requires_grad=False)
    return module


def round_activations(module: torch.nn.Module, codes: int = 255) -> torch.nn.Module:
    """Simulate dynamic int8: weights as above, inputs of linear layers rounded to 8 bits.

    ``codes`` is the largest code of an input.
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
    """Simulate PyTorch's dynamic int8, which leaves a bit of each input unused.

    Sums of two products then fit into 16 bits, where an instruction of some processors saturates.
    """
    return round_activations(module, codes=127)


def round_mantissas(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate tf32: operands of products rounded to 10 bits of mantissa, sums in float32."""

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
