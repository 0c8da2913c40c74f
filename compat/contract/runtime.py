"""Runtimes: they probe targets, and open models on them.

A runtime that compiles graphs subclasses :class:`GraphRuntime`. One that does the whole task of
some families itself subclasses :class:`Runtime` and opens an execution of its own.
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
"""Function that takes a float32 module and returns one with the rounding errors of a scheme."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The state of one target on this machine, as its runtime found it."""

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
    """Measured number of copies of a model's float32 weights in the host's memory at once, while it
    is built, exported and compiled. A case that does not fit is skipped before it is loaded."""
    addressable: ClassVar[float] = math.inf
    """Bytes that its programs can address, however large the memory is. Weights have to fit twice:
    as they are read, and in the order that kernels need."""

    def versions(self) -> Mapping[str, str]:
        """Return versions of software that results depend on and that Python does not install."""
        return {}

    def add_options(self, add: Callable[..., None]) -> None:  # noqa: B027 (an option, not a duty)
        """Declare the runtime's own command-line options; ``add`` is as ``add_argument``."""

    def use(self, options: Namespace) -> None:  # noqa: B027 (an option, not a duty)
        """Make the values of the runtime's options known to this process and those it starts."""

    @abstractmethod
    def probe(self, target: Target) -> Probe:
        """Return whether a target is here; runs in a process of its own and may import anything."""

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
        """Return a model that is ready to run on a target.

        ``sources`` holds the model's graphs by name, with their weights.

        Raises:
            Unsupported: the runtime cannot execute the model by this recipe.
        """


class GraphRuntime(Runtime):
    """A runtime that compiles graphs, which the model drives."""

    session: ClassVar[str] = ""
    """Name ``module:class`` of its sessions, which take the arguments of :meth:`compile`."""

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
