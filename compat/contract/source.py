"""Sources: one graph of a model, in whichever form a runtime accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compat.contract.graph import Graph, Shipped
from compat.contract.model_reference import ModelReference

if TYPE_CHECKING:
    import torch


Job = Callable[..., None] | str
"""A top-level function that writes files into the folder of its first argument. It may be given by
its name, ``module:function``, so that the caller need not import its module."""


class Derived(Protocol):
    """A derived file, known by name before it is built; :mod:`compat.build.artifacts` makes it."""

    @property
    def name(self) -> str:
        """Name of its folder in the cache, which changes with everything that determines it."""
        ...

    def fetch(self) -> Path:
        """Return its folder, building it in another process if it is not in the cache."""
        ...


class Source(Protocol):
    """One graph of a model with its weights; :mod:`compat.build.sources` makes it."""

    @property
    def reference(self) -> ModelReference:
        """The model that the graph belongs to."""
        ...

    @property
    def graph(self) -> Graph:
        """The graph's declaration: inputs, outputs, states and shape points."""
        ...

    @property
    def threads(self) -> int:
        """Threads that builders may use; 0 leaves it to the libraries."""
        ...

    def module(self) -> torch.nn.Module:
        """Build the float32 torch module, in evaluation mode, without gradients."""
        ...

    def shipped(self, scheme: str, *forms: str) -> Shipped | None:
        """Return the file that the makers ship in the first of these forms; None if they ship none.

        Raises:
            Unsupported: they ship files, but none of these forms, or none in this scheme.
        """
        ...

    def onnx(self, point: str, scheme: str = "fp32", forms: Sequence[str] = ("onnx",)) -> Path:
        """Return the path of this graph as an ONNX file at a static point, or as it is shipped."""
        ...

    def exported(
        self, point: str, scheme: str = "fp32", forms: Sequence[str] = ("onnx",)
    ) -> Derived:
        """Return the artifact that :meth:`onnx` fetches, for the ``made_from`` of other jobs."""
        ...

    def derive(
        self,
        job: Job,
        arguments: Mapping[str, Any],
        packages: Sequence[str],
        made_from: Sequence[Derived] = (),
        fitted: bool = False,
    ) -> Derived:
        """Return the artifact that a runtime's own job makes of this graph; ``fetch()`` builds it.

        The job is called as ``job(folder, reference=…, graph=…, **arguments)``. The artifact's name
        changes with the job's code, with all that its module imports, and with the model's weights
        and code.

        Args:
            job: a function at the top of a module, or its name ``module:function``.
            arguments: JSON values.
            packages: distributions whose versions determine the bytes.
            made_from: artifacts that the job starts from, such as ``[self.exported(point)]``.
            fitted: whether the artifact depends on the inputs that the graph sees in this model.
        """
        ...
