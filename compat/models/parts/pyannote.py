"""Checkpoints as pyannote.audio saves them: folders with safetensors, or Lightning's pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.contract.digests import file_digest
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.generator import gains, generated_digest, seed
from compat.inputs.weights import Rules, fill_from_files, fill_from_state, stored_tensors

if TYPE_CHECKING:
    import torch

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"

CONVERT = (
    'convert it where pyannote.audio is installed, if you trust its origin: python -c "import '
    "torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load("
    "'pytorch_model.bin', weights_only=False)['state_dict'].items()}, 'model.safetensors')\""
)


@dataclass(frozen=True)
class Published:
    """A network with the weights of a folder, or with generated ones where there is none."""

    hub: str
    """Name of the published checkpoint on the hub, for messages."""
    rules: Rules
    build: Callable[[], torch.nn.Module]
    """Function that returns the architecture with any weights."""
    gains: Mapping[str, float | None]
    """Factors of generated weights, by parts of their names."""
    finish: Callable[[torch.nn.Module], None] = lambda network: None
    """Function that changes generated weights in place."""
    architecture: str = ""
    """Class that pyannote's ``config.yaml`` must name; if empty, no configuration is needed."""
    model_type: str = ""
    """Model type that this project's ``config.json`` names instead."""

    def file(self, folder: Path) -> Path:
        """Return the file with the weights; the header of a safetensors file is checked.

        Raises:
            CheckpointError: files are missing or damaged, or the architecture is another one.
        """
        if not folder.is_dir():
            raise CheckpointError(f"no checkpoint folder {folder}: check the path.")
        if self.architecture:
            self._check_configuration(folder)
        for name in (WEIGHTS, PICKLE):
            if (folder / name).is_file():
                break
        else:
            raise CheckpointError(
                f"{folder} has neither {WEIGHTS} nor {PICKLE}: copy the weights of {self.hub} "
                "there, or name its folder."
            )
        if name == WEIGHTS:
            stored_tensors([folder / name])
        return folder / name

    def digest(self, folder: Path | None) -> str:
        """Return 16 hex digits that identify the weights in a folder, or the generated ones."""
        return file_digest(self.file(folder)) if folder else generated_digest(self.gains)

    def load(self, folder: Path | None) -> torch.nn.Module:
        """Return the network with the weights of a folder, or with generated ones for None.

        Raises:
            CheckpointError: for the reasons of :meth:`file`, or because the weights do not fit the
                architecture, or because a pickle holds more than tensors.
        """
        network = self.build()
        if folder is None:
            seed(network, gains(self.gains))
            self.finish(network)
            return network.eval()
        path = self.file(folder)
        if path.name == WEIGHTS:
            fill_from_files(network, path, [path], self.rules)
        else:
            fill_from_state(network, path, _read_pickle(path), self.rules)
        return network.eval()

    def _check_configuration(self, folder: Path) -> None:
        own, published = folder / "config.json", folder / "config.yaml"
        wrong = ""
        try:
            if own.is_file():
                found = json.loads(own.read_text(encoding="utf-8")).get("model_type")
                if found != self.model_type:
                    wrong = f"{own} describes a {found!r} model"
            elif not published.is_file():
                wrong = f"{folder} has neither config.json nor config.yaml"
            elif self.architecture not in published.read_text(encoding="utf-8"):
                wrong = f"{published} describes no {self.architecture}"
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"cannot read the configuration in {folder}: {error}. Restore it from the "
                "checkpoint."
            ) from error
        if wrong:
            raise CheckpointError(f"{wrong}: name the folder of a copy of {self.hub}.")


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Read Lightning's checkpoint without running code from it."""
    import torch

    try:
        with torch.serialization.safe_globals(_inert_classes()):
            read = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(read.get("state_dict", read))
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise TypeError("it holds other things than tensors")
    except Exception as error:  # Pickles fail in many ways.
        raise CheckpointError(
            f"cannot read {path} without running code from it, as it is damaged or holds more than "
            f"tensors ({type(error).__name__}): {CONVERT}"
        ) from error
    return state


def _inert_classes() -> list[Any]:
    """Return classes without any behaviour for the objects that pyannote.audio stores with tensors.

    A pickle can then be read without running pyannote's code.
    """
    import torch

    class Inert:
        def __init__(self, *arguments: Any) -> None:
            pass

    module = "pyannote.audio.core.task"
    names = ("Specifications", "Problem", "Resolution")
    return [torch.torch_version.TorchVersion, *((Inert, f"{module}.{name}") for name in names)]
