"""Simulations of QNN's integer recipes, as their oracles."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MASKED = {"int8-a8w8": 24.0, "int8-a16w8": 100.0}
"""Distance of a masked score below zero. exp(-24) is zero in 16 bits. A mask of -10,000 would widen
the range so far that all other scores lie within one step of 8 bits."""


# Oracles -----------------------------------------------------------------------------------------


def _rounded(module: torch.nn.Module, bits: int) -> torch.nn.Module:
    """Simulate 8-bit weights and ``bits``-bit activations, both rounded per tensor.

    Activations are rounded after every operator.
    """

    def grid(values: torch.Tensor, steps: int) -> torch.Tensor:
        # The grid is asymmetric, and always includes zero.
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        scale = ((high - low) / steps).clamp(min=1e-12)
        zero = (-low / scale).round()
        return (((values / scale).round() + zero).clamp(0, steps) - zero) * scale

    def activation(value: Any, known: set[int]) -> Any:
        if isinstance(value, tuple):
            return tuple(activation(one, known) for one in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if value.untyped_storage().data_ptr() in known or not value.numel():
            return value  # A view of a tensor that is rounded already.
        softened = torch.where(value < -1000, -MASKED[f"int8-a{bits}w8"], value)
        return grid(softened, 2**bits - 1)

    class Rounding(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
            return activation(function(*args, **(kwargs or {})), given)

    class Rounded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            rounded = [activation(tensor, set()) for tensor in tensors]
            with Rounding():
                return self.inner(*rounded)

    for child in module.modules():
        if isinstance(child, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.LSTM)):
            for name, weight in list(child.named_parameters(recurse=False)):
                if "weight" in name:
                    # A new tensor, as the weight may be tied to an embedding.
                    rounded = torch.nn.Parameter(grid(weight, 255), requires_grad=False)
                    setattr(child, name, rounded)
    return Rounded()


def round_to_8(module: torch.nn.Module) -> torch.nn.Module:
    """Return a float32 module that errs as 8-bit activations and weights do."""
    return _rounded(module, 8)


def round_to_16(module: torch.nn.Module) -> torch.nn.Module:
    """Return a float32 module that errs as 16-bit activations and 8-bit weights do."""
    return _rounded(module, 16)
