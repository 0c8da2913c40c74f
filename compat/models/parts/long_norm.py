"""Normalisation over long audio that keeps its precision in every runtime.

Exporters write GroupNorm as InstanceNormalization, whose sums ONNX Runtime and OpenVINO compute in
plain float32, one value after the other. Over eight million values that loses 60 dB in either.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-5


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over all but the first axis of (batch, a, b), as (batch, 1, 1).

    The sum has three stages: within blocks, over the blocks of a row, and over rows. With two
    stages OpenVINO would fuse them into one again.
    """
    batch, rows, length = values.shape
    width = block_width(length)
    count = -(-length // width)
    if count * width > length:
        values = functional.pad(values, (0, count * width - length))
    blocks = values.reshape(batch, rows, count, width).mean(3).mean(2).mean(1)
    return (blocks * (count * width / length)).reshape(batch, 1, 1)


def block_width(length: int) -> int:
    """Return the block width, near the square root of a length, that needs the least padding."""
    root = max(1, math.isqrt(length))
    return min(range(max(1, root // 2), 2 * root + 1), key=lambda width: (-length % width, -width))


def standardised(values: torch.Tensor) -> torch.Tensor:
    """Return (batch, a, b) with mean 0 and variance 1 over both last axes."""
    deviation = values - mean(values)
    return deviation / torch.sqrt(mean(deviation * deviation) + EPSILON)


class GroupNorm(nn.GroupNorm):
    """Normalisation of (batch, channels, time) over channels and time together."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, EPSILON)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return standardised(values) * self.weight[:, None] + self.bias[:, None]


class GroupNormLast(GroupNorm):
    """Normalisation of (batch, time, channels) over time and channels together."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return standardised(values) * self.weight + self.bias


def sum_in_blocks(network: nn.Module) -> None:
    """Replace every ``GroupNorm`` of one group in a network, in place, by one that sums in blocks.

    Parameters keep their names. Values are (batch, channels, time), and epsilon is PyTorch's
    default, 1e-5.
    """
    for module in network.modules():
        if type(module) is nn.GroupNorm and module.num_groups == 1:
            assert module.eps == EPSILON
            module.__class__ = GroupNorm
