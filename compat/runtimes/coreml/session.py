"""Sessions of Core ML: prediction on a Mac, and execution of converted programs elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compat.build.artifacts import folder_bytes
from compat.contract.case import Recipe, Target
from compat.contract.graph import State
from compat.contract.precision import precision_of
from compat.contract.runtime import Options
from compat.contract.session import Placement, TensorSession, Unsupported
from compat.runtimes.coreml.convert import INPUT, package, stored_scheme
from compat.runtimes.coreml.mil import Program
from compat.runtimes.coreml.runtime import UNITS

if TYPE_CHECKING:
    from compat.contract.source import Source


# Sessions ----------------------------------------------------------------------------------------


class CoreMlSession(TensorSession):
    """A session with one program per graph and point: predicted by Core ML, or executed here."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        self.sources = sources
        self.target = target
        self.recipe = recipe
        self._packages: dict[tuple[str, str], Path] = {}
        self._programs: dict[tuple[str, str], Program] = {}
        self._models: dict[tuple[str, str], Any] = {}
        if target.evidence == "conversion":
            torch.set_num_threads(options.threads)
        for graph in self.graphs.values():
            self._open(graph.name, next(iter(graph.points)))

    def _open(self, graph: str, point: str) -> None:
        key = graph, point
        if key in self._packages:
            return
        source, scheme = self.sources[graph], self.recipe.for_graph(graph)
        # Raises Unsupported for a graph that its makers ship, as no shipped graph is converted.
        source.shipped(scheme, "coreml")
        self._packages[key] = package(source, point, scheme).fetch() / "model.mlpackage"
        program = self._programs[key] = Program(self._packages[key])
        if self.target.evidence == "conversion":
            if program.unknown:
                unknown = ", ".join(program.unknown)
                raise Unsupported(f"{graph} converts, but is not checked: no operator {unknown}")
        else:
            self._models[key] = _loaded(self._packages[key], self.target)

    def upload(self, array: np.ndarray, graph: str) -> np.ndarray:
        return array

    def download(self, native: np.ndarray) -> np.ndarray:
        return native

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[np.ndarray]:
        self._open(graph, point)
        feeds = {INPUT + name: value for name, value in inputs.items()}
        if self.target.evidence == "conversion":
            return self._programs[graph, point].run(feeds)
        predicted = self._models[graph, point].predict(feeds)
        spec = self.graphs[graph]
        names = (*spec.outputs, *(f"new_{name}" for name in spec.state))
        return [np.asarray(predicted[name]) for name in names]

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        buffer[(slice(None),) * state.axis + (slice(position, position + 1),)] = value
        return buffer

    def placement(self) -> Placement:
        if self.target.evidence == "conversion":
            raise Unsupported("a conversion is placed nowhere: no Core ML runs it")
        costs: Counter[str] = Counter()
        for model in self._models.values():
            costs += _anticipated(model, self.target)
        total = sum(costs.values())
        shares = {unit: cost / total for unit, cost in costs.items()}
        return Placement(shares, self.target.device, "estimated cost by unit in the compute plan")

    def executed(self) -> Mapping[str, str]:
        return {graph: stored_scheme(program) for (graph, _), program in self._programs.items()}

    def unquantised(self) -> Collection[str]:
        return [
            graph
            for (graph, _), program in self._programs.items()
            if precision_of(self.recipe.for_graph(graph)).quantised
            and not any(weight.lookup or weight.bits < 16 for weight in program.weights())
        ]

    def notes(self) -> Mapping[str, str]:
        return {"compiler": f"coremltools {metadata.version('coremltools')}, macOS 15 program"}

    def model_bytes(self) -> int:
        """Return the bytes of the packages of each graph's first point."""
        return sum(
            folder_bytes(self._packages[graph.name, next(iter(graph.points))])
            for graph in self.graphs.values()
        )

    def close(self) -> None:
        self._programs.clear()
        self._models.clear()


# Functions for a Mac. They were written without one, and never run: see docs/hardware.md.


def _loaded(package: Path, target: Target) -> Any:
    import coremltools

    units = coremltools.ComputeUnit[UNITS[target.device]]
    return coremltools.models.MLModel(str(package), compute_units=units)


def _anticipated(model: Any, target: Target) -> Counter[str]:
    """Return the estimated cost of a model's operations, summed by Core ML's preferred unit."""
    import coremltools
    from coremltools.models.compute_plan import MLComputePlan

    names = {
        "MLCPUComputeDevice": "cpu",
        "MLGPUComputeDevice": "gpu",
        "MLNeuralEngineComputeDevice": "ane",
    }
    units = coremltools.ComputeUnit[UNITS[target.device]]
    plan = MLComputePlan.load_from_path(model.get_compiled_model_path(), units)
    costs: Counter[str] = Counter()
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        if usage is not None and cost is not None:
            device = type(usage.preferred_compute_device).__name__
            costs[names.get(device, device)] += cost.weight
    return costs
