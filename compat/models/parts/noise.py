"""Noise as an input of graphs: the host makes it from a seed, so that all runtimes get the same.

Values are computed from the raw bits of a counter-based generator, in float64, and rounded to
float32. NumPy's own distributions are not used, as they may change from version to version.
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
        seed: the seed of the item.
        shape: shape of the values.
        stream: name of the draw. Draws with one seed and different names are independent, such as
            the first latent and the noise of a later step.

    Source: Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
    """
    count = prod(shape)
    radius = np.sqrt(-2.0 * np.log(_uniform(f"noise.{stream}.{seed}.radius", count)))
    angle = 2.0 * np.pi * _uniform(f"noise.{stream}.{seed}.angle", count)
    values: Floats = (radius * np.cos(angle)).astype(np.float32).reshape(shape)
    return values


def gumbel(seed: int, shape: tuple[int, ...], stream: str = "gumbel") -> Floats:
    """Return values of a standard Gumbel distribution, between -2.9 and 17.4.

    Such noise is added to logits: the position of the largest sum is then a sample from the softmax
    of the logits. Arguments are those of :func:`normal`. Source: Gumbel, "Statistical Theory of
    Extreme Values", 1954.
    """
    uniform = _uniform(f"noise.{stream}.{seed}", prod(shape))
    values: Floats = (-np.log(-np.log(uniform))).astype(np.float32).reshape(shape)
    return values


def _uniform(name: str, count: int) -> NDArray[np.float64]:
    """Return float64 values within (0, 1), ends excluded: odd multiples of 2 to the power of -25.

    They lie in the middle of the steps of 24 bits that are taken from the generator.
    """
    found = (generator.uniform(name, count).astype(np.float64) + 1.0) / 2.0
    exact: NDArray[np.float64] = found + 2.0**-25
    return exact
