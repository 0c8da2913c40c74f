"""Palettes: how recipes of Core ML store weights as indices into tables of values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Palette:
    """The form of the tables that a recipe stores weights with."""

    bits: int
    """Bits of an index; a table has ``2**bits`` values."""
    channels: int = 0
    """Most output channels that share a table; 0 if the whole tensor has one table."""


PALETTES = {
    "int8-palettized": Palette(8),
    "int8-palettized-6bit": Palette(6),
    "int8-palettized-6bit-group16": Palette(6, 16),
    "int4-palettized": Palette(4),
    "int4-palettized-group16": Palette(4, 16),
}
