"""Noise that is an input: made by the host from a seed, so that every runtime computes the same.

Values come from the raw bits of a counter-based generator, through float64 to float32: NumPy's own
distributions may change from version to version.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from compat.inputs import generator

Floats = NDArray[np.float32]


def normal(seed: int, shape: tuple[int, ...], stream: str = "normal") -> Floats:
    """Return values of a standard normal distribution, of magnitude 5.9 at most.

    Args:
        seed: the item's. Another one gives other values.
        shape: of the values.
        stream: tells draws of one seed apart, such as the latent and what a later step adds.

    Source: Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
    """
    count = prod(shape)
    radius = np.sqrt(-2.0 * np.log(_uniform(f"noise.{stream}.{seed}.radius", count)))
    angle = 2.0 * np.pi * _uniform(f"noise.{stream}.{seed}.angle", count)
    values: Floats = (radius * np.cos(angle)).astype(np.float32).reshape(shape)
    return values


def gumbel(seed: int, shape: tuple[int, ...], stream: str = "gumbel") -> Floats:
    """Return values of a standard Gumbel distribution, between -2.9 and 17.4.

    The largest of logits to which such noise was added is a sample of their softmax. Arguments are
    those of :func:`normal`. Source: Gumbel, "Statistical Theory of Extreme Values", 1954.
    """
    uniform = _uniform(f"noise.{stream}.{seed}", prod(shape))
    values: Floats = (-np.log(-np.log(uniform))).astype(np.float32).reshape(shape)
    return values


def _uniform(name: str, count: int) -> NDArray[np.float64]:
    """Return float64 values within (0, 1), ends excluded: odd multiples of 2 to the power of -25.

    Halves of the steps of 24 bits, which are all that the generator gives.
    """
    found = (generator.uniform(name, count).astype(np.float64) + 1.0) / 2.0
    exact: NDArray[np.float64] = found + 2.0**-25
    return exact
