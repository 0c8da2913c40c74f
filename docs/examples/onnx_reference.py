"""ONNX's reference evaluator: every operator in NumPy. It is slow, but gives a second opinion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compat.api import (
    GraphRuntime,
    Options,
    Placement,
    Probe,
    Recipe,
    Session,
    Source,
    State,
    Target,
    TensorSession,
    folder_bytes,
)


class OnnxReference(GraphRuntime):
    """The runtime: its targets, whether they exist on this machine, and how it compiles graphs."""

    name = "onnx-reference"
    packages = ("onnx", "torch", "onnxscript")
    modules = ("onnx.reference",)
    targets = (
        Target("cpu-onnx-reference", "cpu", "onnx-reference", "cpu", ("fp32",), on_host_cpu=True),
    )

    def probe(self, target: Target) -> Probe:
        try:
            import onnx
        except ImportError:
            return Probe("absent", "ONNX is not installed", "pip install onnx==1.23.2")
        return Probe("here", facts={"onnx": onnx.__version__})

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return ReferenceSession(sources)


class ReferenceSession(TensorSession):
    """A session of opened graphs, whose device tensors are NumPy arrays."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        self.sources = sources
        self._evaluators: dict[tuple[str, str], Any] = {}
        for graph in self.graphs.values():
            self._evaluator(graph.name, next(iter(graph.points)))

    def _evaluator(self, graph: str, point: str) -> Any:
        from onnx.reference import ReferenceEvaluator

        if (graph, point) not in self._evaluators:
            path = self.sources[graph].onnx(point)
            self._evaluators[graph, point] = ReferenceEvaluator(str(path))
        return self._evaluators[graph, point]

    def upload(self, array: np.ndarray, graph: str) -> np.ndarray:
        return array

    def download(self, native: np.ndarray) -> np.ndarray:
        return native

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        outputs: Sequence[Any] = self._evaluator(graph, point).run(None, dict(inputs))
        return outputs

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        where = (slice(None),) * state.axis + (slice(position, position + 1),)
        buffer[where] = value
        return buffer

    def placement(self) -> Placement:
        return Placement({"cpu": 1.0}, "cpu", "there is no other device")

    def executed(self) -> Mapping[str, str]:
        return {graph: "fp32" for graph, _ in self._evaluators}

    def model_bytes(self) -> int:
        paths = {source.onnx(next(iter(source.graph.points))) for source in self.sources.values()}
        return sum(folder_bytes(path.parent) for path in paths)


RUNTIME = OnnxReference()
