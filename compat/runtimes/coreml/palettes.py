"""Palettes: how recipes of Core ML store weights as indices into tables of values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Palette:
    """Tables of values by which weights are stored as indices."""

    bits: int
    """Of an index: a table has two to the power of them values."""
    channels: int = 0
    """Most output channels that share a table; 0 where one table serves the whole tensor."""


PALETTES = {
    "int8-palettized": Palette(8),
    "int8-palettized-6bit": Palette(6),
    "int8-palettized-6bit-group16": Palette(6, 16),
    "int4-palettized": Palette(4),
    "int4-palettized-group16": Palette(4, 16),
}
