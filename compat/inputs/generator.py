"""Generate weights that are the same bytes on every platform and give informative outputs.

*Seeded* weights give a published architecture at full size without its published checkpoint.
A library's default initialisation does not suffice: with it a Whisper encoder gives nearly the same
output for silence and for noise, so that a backend which ignored its input would pass. Here values
are scaled by fan-in, so that signals keep their variance from layer to layer. They come from the
raw bits of a counter-based generator keyed by the parameter's name, so that they are the same bytes
on every platform and with every version of NumPy.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compat.contract.digests import digest

if TYPE_CHECKING:
    import torch


GENERATOR_VERSION = 1

NORMALISATION = re.compile(r"(Layer|RMS|Group|Batch|Instance)Norm([123]d)?$")
"""End of the names of normalisation classes. Names are used because libraries have their own
classes (``T5LayerNorm``), which do not derive from PyTorch's."""


def generated_digest(gains: Mapping[str, float | None]) -> str:
    """Return 16 hex digits that identify the weights generated with a family's gains."""
    return digest([GENERATOR_VERSION, dict(gains)])


def uniform(name: str, count: int) -> np.ndarray:
    """Return ``count`` float32 values, uniform on [-1, 1), that depend on ``name`` alone.

    Source: Philox 4x64-10 (Salmon et al., 2011), whose raw output NumPy keeps stable.
    """
    key = int.from_bytes(hashlib.sha256(f"{GENERATOR_VERSION}:{name}".encode()).digest()[:16])
    raw = np.random.Philox(key=key).random_raw((count + 1) // 2)
    # 24 bits are what a float32 holds exactly; each 64-bit word gives two values.
    words = np.asarray(raw, dtype="<u8").view("<u4")[:count]
    return ((words >> 8).astype(np.float32) * np.float32(2.0**-23)) - np.float32(1.0)


def seeded_tensor(name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Return one generated parameter, float32 of the given shape.

    Matrices and kernels (out, in, ...) have variance gain² / fan-in; vectors are small biases.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if len(shape) < 2:
        return (uniform(name, count) * np.float32(0.02 * gain)).reshape(shape)
    fan_in = int(np.prod(shape[1:], dtype=np.int64))
    scale = np.float32(gain * (3.0 / fan_in) ** 0.5)
    return (uniform(name, count) * scale).reshape(shape)


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Skip the random initialisation of modules that are made in this context.

    The initialisation takes longer than :func:`seed`, which overwrites it.
    """
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if getattr(function, "__name__", "").endswith(("normal_", "uniform_")):
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with Unfilled():
        yield


def seed(module: torch.nn.Module, gain: Callable[[str], float | None]) -> None:
    """Fill a module's parameters in place.

    Weights of normalisations become ones; they are recognised by their class. A parametrised tensor
    (``parametrizations.weight_norm``) gets the values of the same tensor without parametrisation.

    Args:
        module: the architecture at its published size.
        gain: returns a factor for a parameter's name, or None to keep the values that the
            architecture computes itself (sinusoid tables).
    """
    import torch

    scales = _scales(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            factor = gain(name)
            if factor is None or "parametrizations." in name:
                continue
            if id(parameter) in scales:
                parameter.fill_(1.0)
            else:
                values = seeded_tensor(name, tuple(parameter.shape), factor)
                parameter.copy_(torch.from_numpy(values))
        for name, part, own in _parametrised(module):
            factor = gain(name)
            if factor is not None:
                shape = tuple(getattr(part, own).shape)
                setattr(part, own, torch.from_numpy(seeded_tensor(name, shape, factor)))


def sum_to_zero(module: torch.nn.Module) -> None:
    """Subtract the mean from every kernel and row of a module, in place.

    Signals behind a rectifier are positive, and a kernel with a mean sums them to nearly the same
    output for every input.
    """
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                inputs = tuple(range(1, parameter.ndim))
                parameter.sub_(parameter.double().mean(inputs, keepdim=True).float())


def alternate(norm: torch.nn.Module) -> None:
    """Flip the sign of every second weight of a normalisation, in place.

    Otherwise a model whose token embeddings are also its output layer would repeat each token,
    because a part of the token's embedding is left in the last hidden state.
    """
    import torch

    with torch.no_grad():
        norm.get_parameter("weight")[1::2].neg_()


def _parametrised(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, str]]:
    """Yield the full name of each parametrised tensor, its module, and its name in the module."""
    from torch.nn.utils import parametrize

    for prefix, part in module.named_modules():
        if parametrize.is_parametrized(part):
            for own in cast("Any", part).parametrizations:
                yield f"{prefix}.{own}".lstrip("."), part, own


def _scales(module: torch.nn.Module) -> set[int]:
    """Return the identities of the weights of all normalisations in a module."""
    return {
        id(parameter)
        for part in module.modules()
        if any(NORMALISATION.search(kind.__name__) for kind in type(part).__mro__)
        for name, parameter in part.named_parameters(recurse=False)
        if name == "weight"
    }


def gains(rules: Mapping[str, float | None], default: float = 1.0) -> Callable[[str], float | None]:
    """Return a gain function that applies the first rule whose key occurs in the name."""

    def gain(name: str) -> float | None:
        return next((value for key, value in rules.items() if key in name), default)

    return gain
