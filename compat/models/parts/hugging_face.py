"""Models whose network is a class of transformers: its configuration, weights and identity."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from compat.contract.case import Variant
from compat.contract.places import FIXTURES
from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import (
    POSITIONS,
    Rules,
    checkpoint_files,
    checkpoint_fingerprint,
    fill_from_folder,
    read_json,
)
from compat.models.base import Model


def published(name: str, checkpoint: str, parameters: float, core: bool = False) -> Variant:
    """Return the variant of a published size: with its weights if they are here, else generated."""
    kinds = ("pretrained", "seeded")
    return Variant(name, kinds, core=core, parameters=parameters, checkpoint=checkpoint)


def stand_in(name: str, parameters: float) -> Variant:
    """Return the variant of a small model that this project trained, with weights in ``fixtures/``.

    Its checkpoint is ``fixtures/checkpoints/NAME``.
    """
    return Variant(
        name,
        ("trained",),
        published=False,
        core=True,
        parameters=parameters,
        trained=f"checkpoints/{name}",
    )


def read_checkpoint(
    checkpoint: str,
    kind: str | tuple[str, ...],
    title: str,
    variant: str,
    settings: Collection[str] = (),
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a checkpoint, and its configuration after checking it.

    Args:
        checkpoint: the folder, absolute or below ``fixtures/``.
        kind: the ``model_type`` that the configuration must have, or several, one of which it must
            have.
        title: name of this kind of checkpoint in messages.
        variant: the variant that messages name as the one to be loaded.
        settings: names of settings that the configuration must have.

    Raises:
        CheckpointError: files or settings are missing, or the architecture is another one.
    """
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    checkpoint_files(folder)
    path = folder / "config.json"
    config = read_json(path)
    kinds = (kind,) if isinstance(kind, str) else kind
    if config.get("model_type") not in kinds:
        raise CheckpointError(
            f"{path} describes a {config.get('model_type')!r} model, not {kinds[0]!r}: name the "
            f"folder of a {title} checkpoint for {variant}."
        )
    if missing := sorted(set(settings) - config.keys()):
        raise CheckpointError(
            f"{path} has no {', '.join(missing)}. Restore the file from the checkpoint."
        )
    return folder, config


def read_features(folder: Path, rate: int) -> dict[str, Any]:
    """Return a checkpoint's settings of features, from ``preprocessor_config.json``.

    Transformers 5 saves the same settings inside ``processor_config.json`` if the checkpoint also
    has a tokenizer.

    Raises:
        CheckpointError: the file is missing, or has another sampling rate than ``rate`` hertz.
    """
    path = folder / "preprocessor_config.json"
    newer = folder / "processor_config.json"
    if not path.is_file() and newer.is_file():
        path, features = newer, read_json(newer).get("feature_extractor")
        if not isinstance(features, dict):
            raise CheckpointError(
                f"{path} has no feature_extractor. Restore it, or preprocessor_config.json."
            )
    else:
        features = read_json(path)
    if features.get("sampling_rate") != rate:
        raise CheckpointError(
            f"{path} asks for audio at {features.get('sampling_rate')} Hz; only {rate} is "
            "supported."
        )
    return features


class HuggingFaceModel(Model):
    """A model around one class of transformers, with a checkpoint's weights or generated ones."""

    architecture: ClassVar[str]
    """Name of transformers' class."""
    gains: ClassVar[Mapping[str, float | None]]
    """Factors of generated weights, by parts of their names: see ``generator.gains``."""
    needless: ClassVar[tuple[str, ...]] = POSITIONS
    """Last parts of the names of weights that inference does not use."""
    unused: ClassVar[tuple[str, ...]] = ()
    """First parts of the names of weights that belong to components which are not run."""

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self.config = config
        """Settings under the names of transformers; its defaults hold for all others."""
        self.folder = folder
        """The checkpoint's folder; None for generated weights."""

    def content(self) -> Any:
        if self.folder:
            return checkpoint_fingerprint(self.folder)
        return [generator.generated_digest(self.gains), dict(self.config)]

    @cached_property
    def network(self) -> Any:
        """The module with its weights, float32."""
        import transformers

        architecture = getattr(transformers, self.architecture)
        with generator.unfilled():
            network = architecture(self.settings(architecture.config_class))
        if self.folder:
            rules = Rules(network.base_model_prefix, self.needless, self.unused)
            fill_from_folder(network, self.folder, rules)
        self.adapt(network)
        if not self.folder:
            generator.seed(network, generator.gains(self.gains))
            self.finish(network)
        return network.eval()

    def settings(self, kind: Any) -> Any:
        """Return the configuration, of transformers' class ``kind``."""
        if self.folder:
            return kind.from_pretrained(self.folder, local_files_only=True)
        return kind(**self.config)

    def adapt(self, network: Any) -> None:
        """Change the module after a checkpoint was read, and before weights are generated."""

    def finish(self, network: Any) -> None:
        """Change weights after they were generated."""
