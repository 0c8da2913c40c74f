"""Read checkpoints of Demucs: pickles (``955717e8-8726e21a.th``), and safetensors from the hub.

Both hold the name of a class, its arguments, and the weights under one set of names. Pickles are
read with ``weights_only``, so that no code in them runs; the class is only a name here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import Rules, fill_from_files, fill_from_state, stored_tensors

if TYPE_CHECKING:
    import torch

SAFE, PICKLE = ".safetensors", ".th"
HYBRID_TRANSFORMER = "demucs.htdemucs.HTDemucs"
CLASSES = (HYBRID_TRANSFORMER, "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")
FIRST = ("sources", "audio_channels", "channels", "channels_time", "growth", "nfft")
"""Names of the class's positional arguments, in order."""
NAMED = re.compile(r"-([0-9a-f]{8,64})$")
"""End of the names of Demucs's published files: the first digits of their SHA-256."""
AGAIN = "Copy the file from its source again."
CONVERT = (
    'Convert it where Demucs is installed, if you trust its origin: python -c "import json, torch, '
    "safetensors.torch as s; p = torch.load('{name}', weights_only=False); s.save_file({{k: "
    "v.contiguous() for k, v in p['state'].items()}}, 'htdemucs.safetensors', {{'klass': "
    "p['klass'].__module__ + '.' + p['klass'].__qualname__, 'args': json.dumps(p['args']), "
    "'kwargs': json.dumps(p['kwargs'], default=str)}})\""
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of one model: class, settings and weights."""

    file: Path
    kind: str
    """Full name of the class."""
    settings: Mapping[str, Any]
    """Arguments of the class by name."""
    state: Mapping[str, torch.Tensor] | None = None
    """Weights of a pickle by name; None for safetensors, whose weights stay in the file."""

    def fill(self, network: torch.nn.Module, remedy: str) -> None:
        """Copy the weights into a module; ``remedy`` ends error messages about differences.

        Raises:
            CheckpointError: names or shapes differ, or a value is not finite.
        """
        rules = Rules(remedy=remedy)
        if self.state is None:
            fill_from_files(network, self.file, [self.file], rules)
        else:
            fill_from_state(network, self.file, self.state, rules)


def find(checkpoint: Path) -> Path:
    """Return the one file with weights: the given file, or the only one in a folder.

    Raises:
        CheckpointError: there is none, or there are several, which are a bag of models.
    """
    if checkpoint.is_file():
        files = [checkpoint]
    elif checkpoint.is_dir():
        files = sorted(checkpoint.glob(f"*{SAFE}")) or sorted(checkpoint.glob(f"*{PICKLE}"))
    else:
        raise CheckpointError(f"no checkpoint {checkpoint}: check the path.")
    if not files or files[0].suffix not in (SAFE, PICKLE):
        raise CheckpointError(
            f"{checkpoint} is no checkpoint of Demucs: it has neither *{SAFE} nor *{PICKLE}.",
            "Name 955717e8-8726e21a.th, or a copy of adefossez/HTDemucs from the hub.",
        )
    if len(files) > 1:
        raise CheckpointError(
            f"{checkpoint} holds {len(files)} models, from {files[0].name} on: a bag, whose "
            "answers Demucs mixes.",
            "Name one of its files; each is a model of its own.",
        )
    return files[0]


def read(checkpoint: Path) -> Checkpoint:
    """Read the class and settings of a checkpoint, and the weights of a pickle.

    Raises:
        CheckpointError: as :func:`find`, or the file is damaged, would run code, or holds
            quantised weights.
    """
    file = find(checkpoint)
    _check_name(file)
    described = _read_safe(file) if file.suffix == SAFE else _read_pickle(file)
    arguments, named = described.get("args"), described.get("kwargs")
    if not isinstance(arguments, list | tuple) or not isinstance(named, dict):
        raise CheckpointError(f"{file} does not say how its model is built.", AGAIN)
    if len(arguments) > len(FIRST):
        raise CheckpointError(f"{file} has {len(arguments)} settings without a name.", AGAIN)
    settings = {**dict(zip(FIRST, arguments, strict=False)), **named}
    return Checkpoint(file, str(described.get("klass")), settings, described.get("state"))


def seconds(value: Any) -> Fraction:
    """Return a length in seconds as an exact fraction.

    ``value`` is a fraction, its JSON form, a number or a text.

    Raises:
        ValueError: ``value`` is none of these.
    """
    try:
        if isinstance(value, dict):
            return Fraction(int(value["numerator"]), int(value["denominator"]))
        return Fraction(str(value))
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{value!r} is no length in seconds") from error


def _check_name(file: Path) -> None:
    """Check a file against the SHA-256 digits in its own name, as Demucs does."""
    if named := NAMED.search(file.stem):
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if not found.startswith(named[1]):
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 begins with {found[: len(named[1])]}.", AGAIN
            )


def _read_safe(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    stored_tensors([file])
    with safe_open(file, "numpy") as opened:
        said = opened.metadata() or {}
    if "klass" not in said:
        raise CheckpointError(
            f"{file} does not say which class it holds and how that is built.",
            "Name a file that Demucs' tools/export_hf.py wrote, as on the hub.",
        )
    if "structure" in said:
        raise _quantised(file)
    try:
        return {name: json.loads(said[name]) for name in ("args", "kwargs")} | {
            "klass": said["klass"]
        }
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} does not say how its model is built ({error!r}).", AGAIN
        ) from error


def _read_pickle(file: Path) -> dict[str, Any]:
    import torch

    inert: dict[str, type] = {name: type("Named", (), {}) for name in CLASSES}
    allowed: list[Any] = [Fraction, *((kind, name) for name, kind in inert.items())]
    try:
        with torch.serialization.safe_globals(allowed):
            read = torch.load(file, map_location="cpu", weights_only=True)
        klass, state = read["klass"], read["state"]
        if not isinstance(state, dict):
            raise TypeError("its weights have no names")
    except Exception as error:  # pickle, zipfile and torch raise errors of many classes.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot read {file} without running code from it, as it is damaged, of another form, "
            f"or holds more than settings and weights ({type(error).__name__}: {reason}).",
            CONVERT.format(name=file.name),
        ) from error
    if state.get("__quantized"):
        raise _quantised(file)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{file} has other things than tensors among its weights.", AGAIN)
    named = next((name for name, kind in inert.items() if kind is klass), repr(klass))
    return {**read, "klass": named}


def _quantised(file: Path) -> CheckpointError:
    return CheckpointError(
        f"{file} holds weights that DiffQ quantised.",
        "Name the checkpoint before it was quantised: every recipe quantises for itself.",
    )
