"""Runtimes: they probe targets, and open models on them.

A runtime of graphs subclasses :class:`GraphRuntime` and compiles; one that owns the whole task of
some families subclasses :class:`Runtime` and opens an execution of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from compat.contract.case import Recipe, Target
from compat.contract.execution import Driver, Execution, GraphExecution
from compat.contract.named import resolve
from compat.contract.session import Session

if TYPE_CHECKING:
    from argparse import Namespace

    import torch

    from compat.contract.source import Source


Simulation: TypeAlias = "Callable[[torch.nn.Module], torch.nn.Module]"
"""Takes a float32 module and returns one that errs as a scheme does."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a runtime found of one target on this machine."""

    state: Literal["here", "absent", "broken"]
    reason: str = ""
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Versions, driver, device name, memory, capabilities; never a host name or a path."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a session is to be built."""

    threads: int
    device: str = ""
    """Which of several devices, for instance ``1`` for the second GPU; empty: the first."""
    corpus: str = ""
    """Folder of the corpus, for recipes that are calibrated on recordings; empty: the shipped."""
    batches: bool = False
    """Whether several inputs will also be run at once."""


class Runtime(ABC):
    """One runtime: where it can run, and how it opens a model there."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions identify its results."""
    oracles: ClassVar[Mapping[str, Simulation | str]] = {}
    """Simulations of schemes of its own, or their names ``module:function``."""
    modules: ClassVar[tuple[str, ...]] = ()
    """Modules whose import is the runtime's own start-up, timed apart."""
    targets: ClassVar[tuple[Target, ...]]
    copies: ClassVar[float] = 3.0
    """How often a model's float32 weights are in the host's memory at once while it is built,
    exported and compiled, as measured: what does not fit is skipped before it is loaded."""
    addressable: ClassVar[float] = math.inf
    """Bytes that its programs can address, whatever memory there is. Weights have to fit twice: as
    they are read, and in the order in which kernels want them."""

    def versions(self) -> Mapping[str, str]:
        """Return the versions of what Python does not install and what its results depend on."""
        return {}

    def add_options(self, add: Callable[..., None]) -> None:  # noqa: B027 (an option, not a duty)
        """Declare command-line options of its own; ``add`` is argparse's ``add_argument``."""

    def use(self, options: Namespace) -> None:  # noqa: B027 (an option, not a duty)
        """Make its options' values known to this process and to every process it starts."""

    @abstractmethod
    def probe(self, target: Target) -> Probe:
        """Say whether a target is here; runs in a process of its own and may import anything."""

    def unsupported(self, target: Target, recipe: Recipe) -> str:
        """Return why a recipe cannot be executed, or an empty string. Cheap: imports nothing."""
        lacking = [scheme for scheme in recipe.schemes if scheme not in target.recipes]
        return f"{target.name} has no {' and no '.join(lacking)}" if lacking else ""

    @abstractmethod
    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        """Make a model ready on a target; raise :class:`Unsupported` where that cannot be.

        ``sources`` holds the model's graphs by name, with their weights.
        """


class GraphRuntime(Runtime):
    """A runtime that compiles graphs, which the model drives."""

    session: ClassVar[str] = ""
    """Name ``module:class`` of its sessions, which are given what :meth:`compile` is given."""

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        """Compile every graph at its first point; raise :class:`Unsupported` where it cannot."""
        session: Session = resolve(self.session)(sources, target, recipe, options)
        return session

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return GraphExecution(model, self.compile(sources, target, recipe, options))
