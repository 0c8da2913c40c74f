"""The transformer between encoders and decoders of HTDemucs.

Parameters have the names of the package ``demucs``, so that published weights load unchanged.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from compat.models.htdemucs_settings import Settings
from compat.models.parts.long_norm import GroupNormLast


class LayerScale(nn.Module):
    """A factor for each channel of a residual branch."""

    def __init__(self, channels: int, *, last: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.last = last

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (self.scale if self.last else self.scale[:, None]) * values


class Attention(nn.Module):
    """Attention of (batch, queries, width) to (batch, keys, width).

    Checkpoints have the projections in one matrix. :meth:`unpack` splits it into linear layers,
    which recipes can quantise.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def unpack(self) -> None:
        """Split the packed matrix into linear layers."""
        parts = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        for name, (weight, bias) in zip(("query", "key", "value"), parts, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight = nn.Parameter(weight.detach().clone())
            layer.bias = nn.Parameter(bias.detach().clone())
            setattr(self, name, layer)
        del self.in_proj_weight, self.in_proj_bias

    def forward(self, hidden: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            self._split(project(values))
            for project, values in ((self.query, hidden), (self.key, other), (self.value, other))
        )
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
        mixed = scores.softmax(dim=-1) @ value
        answer: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return answer

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        batch, positions, width = values.shape
        return values.view(batch, positions, self.heads, width // self.heads).transpose(1, 2)


class Block(nn.Module):
    """A layer of the transformer: self-attention or cross-attention, and a feed-forward part."""

    self_attn: Attention
    cross_attn: Attention

    def __init__(self, settings: Settings, *, across: bool) -> None:
        super().__init__()
        width = settings.bottom_channels
        hidden = int(width * settings.t_hidden_scale)
        self.across = across
        setattr(self, "cross_attn" if across else "self_attn", Attention(width, settings.t_heads))
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        if across:
            self.norm3 = nn.LayerNorm(width)
        self.norm_out = GroupNormLast(width)
        self.gamma_1, self.gamma_2 = (LayerScale(width, last=True) for _ in range(2))

    def forward(self, hidden: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(hidden)
        if self.across:
            attended, feed_norm = self.cross_attn(normed, self.norm2(other)), self.norm3
        else:
            attended, feed_norm = self.self_attn(normed, normed), self.norm2
        hidden = hidden + self.gamma_1(attended)
        fed = self.linear2(functional.gelu(self.linear1(feed_norm(hidden))))
        normed_out: torch.Tensor = self.norm_out(hidden + self.gamma_2(fed))
        return normed_out


class CrossTransformer(nn.Module):
    """Layers of both branches in turns: first each attends to itself, then each to the other."""

    table: torch.Tensor
    table_t: torch.Tensor

    def __init__(self, settings: Settings, bins: int, samples: int) -> None:
        super().__init__()
        width, layers = settings.bottom_channels, range(settings.t_layers)
        self.norm_in, self.norm_in_t = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers, self.layers_t = (
            nn.ModuleList(Block(settings, across=index % 2 == 1) for index in layers)
            for _ in range(2)
        )
        period = settings.t_max_period
        table = plane_positions(width, bins, settings.frames, period)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("table_t", positions(width, samples, period), persistent=False)

    def forward(
        self, spectral: torch.Tensor, temporal: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (batch, width, bins, frames) and (batch, width, samples) to the same shapes."""
        batch, width, bins, frames = spectral.shape
        # The order of the sequence is: all bins of a frame, then those of the next frame.
        hidden = self.norm_in(spectral.permute(0, 3, 2, 1).flatten(1, 2)) + self.table
        hidden_t = self.norm_in_t(temporal.transpose(1, 2)) + self.table_t
        for layer, layer_t in zip(self.layers, self.layers_t, strict=True):
            hidden, hidden_t = layer(hidden, hidden_t), layer_t(hidden_t, hidden)
        spectral = hidden.reshape(batch, frames, bins, width).permute(0, 3, 2, 1)
        return spectral, hidden_t.transpose(1, 2)


def positions(width: int, length: int, period: float) -> torch.Tensor:
    """Return the sinusoids of a sequence, float32 (1, length, width): cosines, then sines."""
    half = width // 2
    steps = torch.arange(length).view(-1, 1) / period ** (torch.arange(half) / (half - 1))
    return torch.cat((torch.cos(steps), torch.sin(steps)), dim=1)[None]


def plane_positions(width: int, height: int, length: int, period: float) -> torch.Tensor:
    """Return the sinusoids of a plane, float32 (1, length x height, width).

    The first half of the width tells columns apart, the second half rows; sines and cosines of one
    frequency are neighbours.
    """
    half = width // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(period) / half))

    def along(count: int) -> torch.Tensor:
        phases = torch.arange(0.0, count)[:, None] * rates
        return torch.stack((torch.sin(phases), torch.cos(phases)), dim=2).flatten(1)

    columns = along(length)[:, None].expand(-1, height, -1)
    rows = along(height)[None].expand(length, -1, -1)
    return torch.cat((columns, rows), dim=2).reshape(1, length * height, width)
