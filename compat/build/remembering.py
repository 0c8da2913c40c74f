"""A session of PyTorch that remembers the outputs of its graphs.

The reference answers each input and then traces the same one, with the same values for most of its
graphs. In float64 these take most of the time of a first case: each is computed once only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compat.build.torch_session import TorchSession

if TYPE_CHECKING:
    import torch

Call = tuple[Mapping[str, "torch.Tensor"], Sequence["torch.Tensor"]]
"""Inputs of a graph by name, and its outputs."""
ROOM = 2**29
"""Most bytes of calls that are remembered. The first calls of an input are, which traces repeat;
the many later calls of a long input need not be."""


class RememberingSession(TorchSession):
    """A session that remembers the calls of graphs without state, until :meth:`forget`."""

    def __init__(
        self,
        graphs: Mapping[str, Any],
        modules: dict[str, torch.nn.Module],
        schemes: Mapping[str, str],
        device: torch.device,
    ) -> None:
        super().__init__(graphs, modules, schemes, device)
        self._calls: dict[tuple[str, str], list[Call]] = {}
        self._bytes = 0

    def execute(
        self, graph: str, point: str, inputs: Mapping[str, torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        import torch

        if self.graphs[graph].state:
            return super().execute(graph, point, inputs)
        calls = self._calls.setdefault((graph, point), [])
        for known, given in calls:
            if all(torch.equal(known[name], value) for name, value in inputs.items()):
                return [output.clone() for output in given]
        outputs = super().execute(graph, point, inputs)
        size = sum(one.nbytes for one in (*inputs.values(), *outputs))
        if self._bytes + size > ROOM:
            return outputs
        self._bytes += size
        # Copies: inputs share memory with the driver's arrays, outputs with what it downloads.
        calls.append(({name: value.clone() for name, value in inputs.items()}, outputs))
        return [output.clone() for output in outputs]

    def forget(self) -> None:
        """Forget every call, before the next input."""
        self._calls.clear()
        self._bytes = 0
