"""Cases, and their parts: families, variants, targets and recipes, with their names.

A *case* is ``variant@weights / target / recipe``, for instance
``whisper-tiny@seeded/openvino-cpu/int8-weights``. Everything here is plain immutable data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from compat.contract.precision import coarsest, find_precision

HARDWARE: tuple[str, ...] = (
    "cpu",
    "cuda",
    "rocm",
    "mps",
    "coreml",
    "openvino",
    "qualcomm",
    "webnn",
    "webgpu",
)
WEIGHTS: tuple[str, ...] = ("pretrained", "trained", "seeded")

Evidence = Literal["device", "emulator", "conversion"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """An exact numeric scheme, such as ``int8-dynamic`` or ``fp16+fp32-decoder``.

    A name is a default scheme, optionally followed by ``+scheme-component`` for every component
    (graph) that differs from it.
    """

    name: str

    @property
    def scheme(self) -> str:
        """The scheme of every component that has none of its own."""
        return self.name.split("+", 1)[0]

    @property
    def schemes(self) -> tuple[str, ...]:
        """The scheme of every component, the default first."""
        own = (part.rsplit("-", 1)[0] for part in self.name.split("+")[1:])
        return tuple(dict.fromkeys((self.scheme, *own)))

    @property
    def precision(self) -> str:
        """The precision class, which is also the pytest marker: ``int8`` for ``int8-dynamic``.

        If components differ the coarsest counts, since a whole is no more exact than its parts.
        """
        return coarsest(self.schemes).name

    @property
    def quantised(self) -> bool:
        """Whether any component is quantised.

        A precision that this version does not know counts as quantised, to be on the safe side.
        """
        classes = map(find_precision, self.schemes)
        return any(one is None or one.quantised for one in classes)

    def for_graph(self, graph: str) -> str:
        """Return the scheme that the graph called ``graph`` is to execute."""
        for part in self.name.split("+")[1:]:
            if part.endswith(f"-{graph}"):
                return part.removesuffix(f"-{graph}")
        return self.scheme


@dataclass(frozen=True, slots=True)
class Target:
    """One way to execute on one kind of hardware: hardware + runtime + device."""

    name: str
    hardware: str
    runtime: str
    device: str
    recipes: tuple[str, ...]
    evidence: Evidence = "device"
    on_host_cpu: bool = False
    """True if the device is the processor that also runs the host-side driver of the model."""
    is_host: bool = False
    """True if the device *is* the host's processor although it has a column of its own, such as
    WebNN on the processor. There is no separate device, so ``latency.host`` compares nothing."""
    core: tuple[str, ...] = ("fp32", "int8-dynamic")
    """Recipes of the core profile on a host's processor. Half precisions are slow on most of
    them, and 8-bit weights that are unpacked at each use are slow on all."""
    on_request: bool = False
    """Whether it runs only when it is named or under ``--full``, as it takes too long otherwise."""
    slow: bool = False
    """Whether it is as slow as an emulator or a page on the processor. A first look then takes few
    inputs and small graphs."""
    families: tuple[str, ...] = ()
    """Families that it can run, where the runtime owns the whole task; empty: all of them."""
    marks: tuple[str, ...] = ()
    """More words by which ``pytest -m`` selects its cases, such as the name of a browser."""

    @property
    def plain(self) -> str:
        """The recipe of a first look: float32, or the first of a target that has none."""
        return "fp32" if "fp32" in self.recipes else self.recipes[0]


@dataclass(frozen=True, slots=True)
class Variant:
    """One published (or trained) size of a family."""

    name: str
    weights: tuple[str, ...]
    """Kinds of weights that it can run with, preferred first."""
    published: bool = True
    """Whether this is a size that somebody published, rather than a small stand-in."""
    core: bool | str = False
    """True if the core profile runs it. A kind of weights, such as ``pretrained``, if the core
    profile runs it with these weights only, unless its family or other weights are asked for. False
    if it runs only when it is named, or under ``--full``."""
    parameters: float = 0.0
    """Number of parameters in millions."""
    working_gb: float = 0.0
    """Measured peak of intermediate values in gigabytes, where they exceed the weights, as for long
    audio at a high rate. A case that does not fit into memory is skipped."""
    checkpoint: str = ""
    """Hub id of the published checkpoint, or ``package:distribution/folder`` that holds it."""
    trained: str = ""
    """Folder below ``fixtures/`` of the checkpoint that this project trained."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models that share graphs and driver, and do one task."""

    name: str
    task: str
    row: str
    """The row of the matrix that it belongs to."""
    headline: str
    """The variant whose published size decides support, speed, memory and numerics."""
    variants: tuple[Variant, ...]
    stand_in: str = ""
    """The small trained variant that shows the task metric where no published weights are."""
    timed: bool = True
    """Whether a real-time factor makes sense for the task."""
    module: str = field(default="", compare=False)
    """Import path of the module that implements the family."""


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of work: a variant with its weights on a target by a recipe."""

    family: Family
    variant: Variant
    weights: str
    target: Target
    recipe: Recipe

    @property
    def id(self) -> str:
        return f"{self.variant.name}@{self.weights}/{self.target.name}/{self.recipe.name}"

    @property
    def marks(self) -> tuple[str, ...]:
        """Names by which ``pytest -m`` selects this case."""
        return tuple(
            dict.fromkeys(
                (
                    mark_name(self.target.hardware),
                    mark_name(self.target.runtime),
                    *self.target.marks,
                    mark_name(self.recipe.precision),
                    mark_name(self.family.name),
                    mark_name(self.family.task),
                    self.weights,
                    self.target.evidence,
                )
            )
        )


def mark_name(word: str) -> str:
    """Turn a name into one that a ``-m`` expression accepts (``ort-web`` becomes ``ort_web``)."""
    return word.replace("-", "_").replace(" ", "_")
