"""The catalog: all families and runtimes, and the cases that they give.

A family is a module with ``FAMILY`` and ``load``; a runtime is a module with ``RUNTIME``. Those of
this project are listed below, one line each. Others come from a file named with ``--catalog``
(``$COMPAT_CATALOG``), or from a package that declares an entry point in the group ``compat``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compat.contract.case import HARDWARE, Case, Family, Recipe, Target
from compat.contract.errors import CompatError

if TYPE_CHECKING:
    from compat.contract.model_reference import ModelReference
    from compat.contract.runtime import Runtime
    from compat.models.base import Model

FAMILIES = (
    "compat.models.whisper",
    "compat.models.wav2vec2",
    "compat.models.clap",
    "compat.models.silero",
    "compat.models.resemblyzer",
    "compat.models.wespeaker",
    "compat.models.segmentation",
    "compat.models.diarization",
    "compat.models.encodec",
    "compat.models.mert",
    "compat.models.basic_pitch",
    "compat.models.htdemucs",
    "compat.models.musicgen",
    "compat.models.audioldm",
    "compat.models.stable_audio",
    "compat.models.seamless",
)
RUNTIMES = (
    "compat.runtimes.pytorch",
    "compat.runtimes.torch_compile",
    "compat.runtimes.torch_quantised",
    "compat.runtimes.ort",
    "compat.runtimes.whisper.ctranslate2",
    "compat.runtimes.whisper.faster_whisper",
    "compat.runtimes.whisper.openai",
    "compat.runtimes.whisper.whisper_cpp",
    "compat.runtimes.whisper.mlx",
    "compat.runtimes.openvino.runtime",
    "compat.runtimes.qnn.runtime",
    "compat.runtimes.coreml.runtime",
    "compat.runtimes.web.runtime",
)
SMALL = 50.0
"""Millions of parameters below which two copies of a model in float64 fit into any memory."""
ENVIRONMENT = "COMPAT_CATALOG"
ENTRY_POINTS = "compat"


@dataclass(frozen=True)
class Catalog:
    """All families and runtimes, and the targets and cases that they give."""

    families: tuple[Family, ...]
    runtimes: tuple[Runtime, ...]

    def family_module(self, name: str) -> ModuleType:
        """Return the imported module that implements a family."""
        family = next(family for family in self.families if family.name == name)
        return sys.modules[family.module]

    def runtime(self, name: str) -> Runtime:
        """Return a runtime by name."""
        return next(runtime for runtime in self.runtimes if runtime.name == name)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target, in the order of the matrix's columns."""
        targets = [target for runtime in self.runtimes for target in runtime.targets]
        columns = self.hardware
        return tuple(sorted(targets, key=lambda target: columns.index(target.hardware)))

    @property
    def hardware(self) -> tuple[str, ...]:
        """Every column of the matrix: the project's in their order, then others by name."""
        served = {target.hardware for runtime in self.runtimes for target in runtime.targets}
        return (*HARDWARE, *sorted(served - set(HARDWARE)))

    def cases(self, composed: Sequence[str] = ()) -> Iterator[Case]:
        """Yield every case in a fixed order: family, variant, weights, target, recipe.

        ``composed`` holds recipes with schemes of components (``int8-weights+fp16-decoder``). No
        target lists such recipes; they are added to each.
        """
        for family in self.families:
            for variant in family.variants:
                for weights in variant.weights:
                    for target in self.targets:
                        if target.families and family.name not in target.families:
                            continue
                        for recipe in (*target.recipes, *composed):
                            yield Case(family, variant, weights, target, Recipe(recipe))

    def case(self, identifier: str) -> Case:
        """Return a case by its id; raise ``KeyError`` for one that the catalog does not have."""
        try:
            model, target_name, recipe = identifier.split("/")
            variant_name, weights = model.split("@")
            target = next(target for target in self.targets if target.name == target_name)
            # A composed recipe may name a scheme that the target lacks: its runtime reports that.
            if "+" not in recipe and recipe not in target.recipes:
                raise KeyError(identifier)
            family, variant = next(
                (family, variant)
                for family in self.families
                for variant in family.variants
                if variant.name == variant_name
                and weights in variant.weights
                and (not target.families or family.name in target.families)
            )
        except (ValueError, StopIteration):
            raise KeyError(identifier) from None
        return Case(family, variant, weights, target, Recipe(recipe))


def open_model(reference: ModelReference) -> Model:
    """Return a model with only its host side loaded: no graph is built and no runtime imported."""
    module = load().family_module(reference.family)
    model: Model = module.load(reference.variant, reference.weights, reference.checkpoint)
    return model


def parameters(reference: ModelReference) -> float:
    """Return the size of a model's variant, in millions of parameters."""
    family = next(family for family in load().families if family.name == reference.family)
    return next(v.parameters for v in family.variants if v.name == reference.variant)


def is_small(reference: ModelReference) -> bool:
    """Return whether two copies of a model surely fit into memory; see :data:`SMALL`."""
    return parameters(reference) < SMALL


def use(files: list[str]) -> None:
    """Make catalog files known to this process and to every process it starts."""
    paths = [str(Path(file).resolve()) for file in files]
    if paths:
        named = [name for name in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if name]
        os.environ[ENVIRONMENT] = os.pathsep.join(dict.fromkeys((*named, *paths)))
        load.cache_clear()


@cache
def load() -> Catalog:
    """Load the project's catalog with the families and runtimes that were added to it.

    Raises:
        CompatError: a file is missing, does not import, or declares nothing.
    """
    modules = [importlib.import_module(name) for name in (*FAMILIES, *RUNTIMES)]
    modules += [point.load() for point in metadata.entry_points(group=ENTRY_POINTS)]
    named = os.environ.get(ENVIRONMENT, "")
    modules += [_load_file(Path(name)) for name in named.split(os.pathsep) if name]
    families: dict[str, Family] = {}
    runtimes: dict[str, Runtime] = {}
    for module in modules:
        for family in _declared(module, "FAMILY", "FAMILIES"):
            families[family.name] = replace(family, module=module.__name__)
        for runtime in _declared(module, "RUNTIME", "RUNTIMES"):
            runtimes[runtime.name] = runtime
    return Catalog(tuple(families.values()), tuple(runtimes.values()))


def _declared(module: ModuleType, one: str, many: str) -> list[Any]:
    single = getattr(module, one, None)
    return [*([single] if single is not None else []), *getattr(module, many, ())]


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CompatError(f"no catalog file {path}", "check the path given to --catalog.")
    # The name depends only on the path, so that every process gives the module the same one.
    name = f"compat_catalog_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CompatError(f"catalog file {path} is no Python file", "name one that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise CompatError(
            f"catalog file {path} does not import: {type(error).__name__}: {error}"
        ) from error
    if not (_declared(module, "FAMILY", "FAMILIES") or _declared(module, "RUNTIME", "RUNTIMES")):
        raise CompatError(
            f"catalog file {path} declares nothing: it needs FAMILY and load(), or RUNTIME.",
            "See docs/extending.md.",
        )
    return module
