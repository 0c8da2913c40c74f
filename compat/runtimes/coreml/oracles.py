"""Simulations of Core ML's compressed weights, as oracles for its recipes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad

from compat.build.schemes import quantise_rows
from compat.runtimes.coreml.convert import SMALLEST, channels_together
from compat.runtimes.coreml.palettes import PALETTES, Palette

# Oracles -----------------------------------------------------------------------------------------


def _each_weight(module: torch.nn.Module, change: Any) -> torch.nn.Module:
    """Replace every weight of a module that is large enough to be compressed by ``change(weight)``.

    The weight is passed with its output channels as the first axis.
    """
    for child in module.modules():
        axis = 1 if type(child).__name__.startswith("ConvTranspose") else 0
        for name, weight in list(child.named_parameters(recurse=False)):
            if weight.ndim > 1 and weight.numel() > SMALLEST:
                changed = change(weight.transpose(0, axis)).transpose(0, axis)
                setattr(child, name, torch.nn.Parameter(changed, requires_grad=False))
    return module


def _simulated(module: torch.nn.Module, palette: Palette) -> torch.nn.Module:
    def change(weight: torch.Tensor) -> torch.Tensor:
        together = channels_together(len(weight), palette.channels) if palette.channels else 0
        tables = len(weight) // together if together else 1
        rows = weight.reshape(tables, -1)
        found = [_looked_up(part, palette.bits) for part in torch.split(rows, 64)]
        return torch.cat(found).reshape(weight.shape)

    return _each_weight(module, change)


def _looked_up(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """Replace each value by the nearest entry of its row's table, which k-means chooses.

    The start splits the part with the largest error at its mean, again and again, so that outliers
    get entries of their own. Lloyd's algorithm in one dimension follows, for all rows at once.

    Args:
        rows: values (rows, columns).
        bits: bits of an index; a table has ``2**bits`` entries.
    """
    count = 2**bits
    values = rows.double().sort(dim=1).values
    last = values.shape[1]
    few = (values.diff(dim=1) != 0).sum(1, keepdim=True) < count
    total = pad(values.cumsum(1), (1, 0))
    squares = pad(values.square().cumsum(1), (1, 0))

    def means(bounds: torch.Tensor) -> torch.Tensor:
        return total.gather(1, bounds).diff(dim=1) / bounds.diff(dim=1).clamp(min=1)

    bounds = torch.tensor([[0, last]]).repeat(len(rows), 1)
    for _ in range(count - 1):
        centres = means(bounds)
        errors = squares.gather(1, bounds).diff(dim=1) - bounds.diff(dim=1) * centres.square()
        worst = errors.argmax(dim=1, keepdim=True)
        split = torch.searchsorted(values, centres.gather(1, worst))
        bounds = torch.cat((bounds, split), 1).sort(dim=1).values
    table = means(bounds)
    for _ in range(60):
        bounds = torch.searchsorted(values, (table[:, 1:] + table[:, :-1]) / 2)
        bounds = pad(pad(bounds, (1, 0)), (0, 1), value=last)
        table = torch.where(bounds.diff(dim=1) > 0, means(bounds), table)
    table = table.to(rows.dtype).sort(dim=1).values
    nearest = torch.searchsorted((table[:, 1:] + table[:, :-1]) / 2, rows.contiguous())
    return torch.where(few, rows, table.gather(1, nearest))


def palettize_8(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights have 256 values each, chosen by k-means."""
    return _simulated(module, PALETTES["int8-palettized"])


def palettize_6(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights have 64 values each, chosen by k-means."""
    return _simulated(module, PALETTES["int8-palettized-6bit"])


def palettize_4(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights have 16 values each, chosen by k-means."""
    return _simulated(module, PALETTES["int4-palettized"])


def palettize_6_in_groups(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module in which every 16 output channels share 64 values, chosen by k-means."""
    return _simulated(module, PALETTES["int8-palettized-6bit-group16"])


def palettize_4_in_groups(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module in which every 16 output channels share 16 values, chosen by k-means."""
    return _simulated(module, PALETTES["int4-palettized-group16"])


def round_rows(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module with weights rounded to int8: symmetric, one scale per output channel."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        rounded, scale = quantise_rows(weight.flatten(1))
        found: torch.Tensor = (rounded * scale).reshape(weight.shape)
        return found

    return _each_weight(module, change)
