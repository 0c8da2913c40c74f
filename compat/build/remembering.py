"""A session of PyTorch that computes what it is asked twice only once.

The reference answers each input, and then traces the same one: most of its graphs get the same
values both times, and in float64 they take the better part of a first case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compat.build.torch_session import TorchSession

if TYPE_CHECKING:
    import torch

Call = tuple[Mapping[str, "torch.Tensor"], Sequence["torch.Tensor"]]
"""Inputs of a graph, and the outputs that it gave."""
ROOM = 2**29
"""Bytes of calls that are remembered. Traces look at the beginning of an input: later calls, of
which a long one has many, are not."""


class RememberingSession(TorchSession):
    """Remembers calls of graphs that have no state, until it is told to forget."""

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
        # Arrays of the driver share their memory with inputs, and fetched ones with outputs.
        calls.append(({name: value.clone() for name, value in inputs.items()}, outputs))
        return [output.clone() for output in outputs]

    def forget(self) -> None:
        """Forget every call, as another input follows."""
        self._calls.clear()
        self._bytes = 0
