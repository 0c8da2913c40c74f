"""Graphs as PyTorch modules, and their conversion to numeric schemes such as fp16 or int8."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

from compat.contract.session import Unsupported

if TYPE_CHECKING:
    import torch

    from compat.contract.graph import Graph


FLOATS = ("fp32", "fp16", "bf16")


def float_module(graph: Graph) -> torch.nn.Module:
    """Build a graph's float32 module, in evaluation mode, without gradients.

    The module is a copy, as graphs of one model share parameters, and a recipe may convert each
    graph differently. Both share the memory of their weights until one is converted: what replaces
    a weight puts a new tensor in its place, and writes nothing into the old one.
    """
    import torch

    # Gradients are on, wherever this is called: without them some libraries keep the parts of a
    # weight as buffers and not as parameters, for which other weights would be generated.
    with torch.enable_grad():
        module = graph.module()
    shared: dict[int, Any] = {
        id(one): torch.nn.Parameter(one.detach(), requires_grad=False)
        for one in module.parameters()
    }
    shared |= {id(one): one.detach() for one in module.buffers()}
    return copy.deepcopy(module, shared).eval().requires_grad_(False)


def apply_scheme(module: torch.nn.Module, scheme: str, device: torch.device) -> torch.nn.Module:
    """Convert a float32 module to a scheme and put it on a device.

    Raises:
        Unsupported: PyTorch itself has no such scheme.
    """
    import torch

    floats = {
        "fp64": torch.float64,
        "fp32": torch.float32,
        "tf32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }
    if scheme in floats:
        return module.to(device, floats[scheme])
    if scheme == "int8-dynamic":
        quantization: Any = torch.ao.quantization
        layers = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
        with warnings.catch_warnings():
            # It is deprecated in favour of torchao, but PyTorch itself has no other dynamic int8.
            warnings.simplefilter("ignore")
            quantised: torch.nn.Module = quantization.quantize_dynamic(module, layers, inplace=True)
        return quantised
    if scheme == "int8-weights":
        return replace_linears(module, int8_weight_linear).to(device)
    raise Unsupported(f"no PyTorch recipe for {scheme}")


def replace_linears(module: torch.nn.Module, make: Any) -> torch.nn.Module:
    """Replace every ``torch.nn.Linear`` below a module by what ``make(linear)`` returns."""
    import torch

    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, make(child))
        else:
            replace_linears(child, make)
    return module


def quantise_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a matrix (out, in) to int8, symmetric, one float32 scale (out, 1) per row."""
    import torch

    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def round_blocks(weight: torch.Tensor, block: int) -> torch.Tensor:
    """Round a matrix (out, in) to 4 bits: symmetric, one scale for ``block`` values of a row.

    The value of largest magnitude in a block becomes -8 steps, whatever its sign, so that all 16
    codes are used. llama.cpp's Q4_0, ONNX Runtime and NNCF do the same.
    """
    import torch

    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % block))
    blocks = padded.reshape(rows, -1, block)
    largest = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    scale = -largest / 8
    scale = torch.where(scale.abs() < 1e-12, torch.full_like(scale, 1e-12), scale)
    rounded = (blocks / scale).round().clamp(-8, 7) * scale
    return rounded.reshape(rows, -1)[:, :columns]


def int8_weight_linear(linear: torch.nn.Linear) -> torch.nn.Module:
    """Return a linear layer that stores its weight as int8 per row, and multiplies in float."""
    import torch

    class Int8WeightLinear(torch.nn.Module):
        weight: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            weight, scale = quantise_rows(linear.weight)
            self.register_buffer("weight", weight)
            self.register_buffer("scale", scale)
            self.bias = linear.bias

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            # Scaling the product's columns costs less than scaling the matrix's rows.
            weight = self.weight.to(values.dtype)
            product = torch.nn.functional.linear(values, weight) * self.scale.T[0]
            return product if self.bias is None else product + self.bias

    return Int8WeightLinear()
