"""What a runtime is given: one graph of a model, in whichever form it accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compat.contract.graph import Graph, Shipped
from compat.contract.model_reference import ModelReference

if TYPE_CHECKING:
    import torch


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

    def derive(
        self,
        job: str,
        arguments: Mapping[str, Any],
        modules: Sequence[str],
        distributions: Sequence[str],
        fitted: bool = False,
    ) -> Path:
        """Return the folder of something that a runtime's own job makes from this graph, cached."""
        ...
