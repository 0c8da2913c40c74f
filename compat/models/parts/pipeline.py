"""Pipelines of several networks, as diffusers saves them, or with generated weights."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from compat.contract.digests import digest, file_digest
from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES
from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import (
    POSITIONS,
    WEIGHTS,
    Rules,
    checkpoint_files,
    fill_from_files,
    read_json,
    stored_tensors,
)
from compat.models.base import Model

INDEX = "model_index.json"
"""File that names the class of a pipeline and the classes of its components."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Component:
    """A network of a pipeline, or its scheduler; a saved pipeline has a folder for each."""

    library: str
    """``diffusers`` or ``transformers``."""
    architecture: str
    """Name of the library's class."""
    settings: Settings
    """The published settings; the class's defaults hold for all others."""
    gains: Mapping[str, float | None] = field(default_factory=dict)
    """Factors of generated weights, by parts of their names: see ``generator.gains``."""
    fixed: Settings = field(default_factory=dict)
    """Settings that a checkpoint may not have with other values, as no other kind is run here."""
    needless: tuple[str, ...] = POSITIONS
    """Last parts of the names of weights that inference does not use."""

    @property
    def is_scheduler(self) -> bool:
        """Whether the component is a scheduler, which has settings and no weights."""
        return self.architecture.endswith("Scheduler")

    @property
    def settings_file(self) -> str:
        """Name of the component's settings file."""
        return "scheduler_config.json" if self.is_scheduler else "config.json"

    def weights(self, folder: Path) -> list[Path]:
        """Return the component's weight files."""
        if self.is_scheduler:
            return []
        plain = self.library == "transformers"
        return checkpoint_files(folder, WEIGHTS if plain else f"diffusion_pytorch_{WEIGHTS}")

    def read(self, folder: Path) -> Settings:
        """Return the settings in a checkpoint's folder.

        Raises:
            CheckpointError: files are missing or damaged, or the architecture is another one.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder.parent} has no folder {folder.name}, which holds a {self.architecture}. "
                "Copy it from the checkpoint."
            )
        path = folder / self.settings_file
        settings = read_json(path)
        named = settings.get("_class_name") or next(iter(settings.get("architectures") or ()), None)
        if named is not None and named != self.architecture:
            raise CheckpointError(
                f"{path} describes a {named}; only {self.architecture} is supported. Restore the "
                "folder from the checkpoint."
            )
        for name, value in self.fixed.items():
            if settings.get(name, value) != value:
                raise CheckpointError(
                    f"{path} has {name} {settings[name]!r}; only {value!r} is supported. Restore "
                    "the file from the checkpoint."
                )
        stored_tensors(self.weights(folder))
        return settings


def read_pipeline(
    checkpoint: str, kind: str, variant: str, components: Mapping[str, Component]
) -> tuple[Path, dict[str, Settings]]:
    """Return the folder of a saved pipeline, and the settings of its components after checking it.

    Args:
        checkpoint: the folder, absolute or below ``fixtures/``.
        kind: the class that the pipeline's index must name.
        variant: the variant that messages name as the one to be loaded.
        components: the components by the names of their folders.

    Raises:
        CheckpointError: files are missing or damaged, or the pipeline is another one.
    """
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder {folder}: check the path.")
    if not (folder / INDEX).is_file():
        raise CheckpointError(
            f"{folder} has no {INDEX}, so it is no pipeline that diffusers saved. Name the folder "
            "that `save_pretrained` of the whole pipeline wrote."
        )
    named = read_json(folder / INDEX).get("_class_name")
    if named != kind:
        raise CheckpointError(
            f"{folder / INDEX} describes a {named}, not a {kind}: name the folder of a checkpoint "
            f"for {variant}."
        )
    return folder, {name: part.read(folder / name) for name, part in components.items()}


def generated(
    components: Mapping[str, Component], changes: Mapping[str, Settings]
) -> dict[str, Settings]:
    """Return the published settings of components, with the values in ``changes`` replaced."""
    return {name: {**one.settings, **changes.get(name, {})} for name, one in components.items()}


class Pipeline(Model):
    """A model of several networks, with a checkpoint's weights or generated ones.

    Each network is built when its graph is asked for, and not kept, because all networks together
    may not fit into memory.
    """

    components: ClassVar[Mapping[str, Component]]
    """The components by the names of their folders."""

    def __init__(self, settings: Mapping[str, Settings], folder: Path | None = None) -> None:
        self.settings = settings
        """The settings of each component, by its name."""
        self.folder = folder
        """The checkpoint's folder; None for generated weights."""

    def content(self) -> Any:
        return [self._weights, {name: dict(one) for name, one in self.settings.items()}, _version()]

    @cached_property
    def _weights(self) -> str:
        """Return a digest of everything that determines the weights."""
        if self.folder is None:
            return digest({n: generator.generated_digest(c.gains) for n, c in self._networks()})
        files = [
            path
            for name, component in self._networks()
            for path in component.weights(self.folder / name)
        ]
        files += sorted((self.folder / "tokenizer").glob("*"))
        return digest({str(path.relative_to(self.folder)): file_digest(path) for path in files})

    def _networks(self) -> list[tuple[str, Component]]:
        return [(n, one) for n, one in self.components.items() if not one.is_scheduler]

    def network(self, name: str) -> Any:
        """Build a component's module with its weights, float32."""
        component = self.components[name]
        architecture = _architecture(component)
        settings = {n: one for n, one in self.settings[name].items() if not n.startswith("_")}
        with generator.unfilled(), warnings.catch_warnings():
            # Diffusers builds autoencoders of sound with PyTorch's old weight normalisation, which
            # warns.
            warnings.simplefilter("ignore", FutureWarning)
            if component.library == "transformers":
                network = architecture(architecture.config_class(**settings))
            else:
                network = architecture.from_config(settings)
        if self.folder:
            where = self.folder / name
            rules = Rules(needless=component.needless)
            fill_from_files(network, where, component.weights(where), rules)
        self.adapt(name, network)
        if not self.folder:
            generator.seed(network, generator.gains(component.gains))
        return network.eval()

    def adapt(self, name: str, network: Any) -> None:
        """Change a module after a checkpoint was read, and before weights are generated."""


def _architecture(component: Component) -> Any:
    try:
        library = importlib.import_module(component.library)
    except ImportError as error:
        raise CompatError(
            f"the package {component.library} is missing, which has {component.architecture}",
            f"pip install {component.library}",
        ) from error
    return getattr(library, component.architecture)


def _version() -> str:
    """Return the version of diffusers, by which its networks may change; empty without it."""
    try:
        return metadata.version("diffusers")
    except metadata.PackageNotFoundError:
        return ""
