"""The classes of numeric precision, in one table that all other code uses.

A scheme belongs to the class whose name begins its own: ``int8-dynamic`` belongs to ``int8``. A new
class is one line of :data:`CLASSES`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """A class of numeric schemes."""

    name: str
    """Beginning of its schemes' names, and its pytest marker, for example ``int8``."""
    bits: int
    """Bits of a stored weight."""
    quantised: bool
    """Whether weights are codes with scales that are fitted to them, rather than numbers of a
    floating-point format."""
    symbol: str
    """Shape of its points in the report's charts, as Plotly calls it."""
    in_recipes: bool = True
    """Whether a recipe may ask for it; only the reference uses float64."""


CLASSES: tuple[Precision, ...] = (
    Precision("fp64", 64, False, "cross", in_recipes=False),
    Precision("fp32", 32, False, "circle"),
    Precision("tf32", 32, False, "hexagon"),
    Precision("fp16", 16, False, "square"),
    Precision("bf16", 16, False, "diamond"),
    Precision("int8", 8, True, "triangle-up"),
    Precision("int4", 4, True, "triangle-down"),
    Precision("nf4", 4, True, "star"),
)
"""All classes, from exact to coarse."""


def precisions() -> tuple[str, ...]:
    """Return the names of the classes that a recipe may ask for, from exact to coarse."""
    return tuple(one.name for one in CLASSES if one.in_recipes)


def find_precision(scheme: str) -> Precision | None:
    """Return the class of a scheme; None for an unknown one, as in results of a newer version."""
    name = scheme.split("-", 1)[0]
    return next((one for one in CLASSES if one.name == name), None)


def precision_of(scheme: str) -> Precision:
    """Return the class of a scheme; raise ``ValueError`` for an unknown one."""
    precision = find_precision(scheme)
    if precision is None:
        name = scheme.split("-", 1)[0]
        raise ValueError(f"unknown precision {name!r} in {scheme!r}: use one of {precisions()}")
    return precision


def coarsest(schemes: Iterable[str]) -> Precision:
    """Return the coarsest class of some schemes; raise ``ValueError`` for an unknown one."""
    return max(map(precision_of, schemes), key=CLASSES.index)
