"""The case under test: its request, its execution, and its standard pass.

Stages (``accuracy``, ``latency``, ``robustness``, ``memory``) are functions of a case under test.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from compat import catalog
from compat.build import artifacts
from compat.build.reference import REFERENCE, Inputs, Outputs
from compat.build.sources import sources
from compat.build.translation import translated
from compat.contract.execution import Execution
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.model_reference import ModelReference
from compat.contract.precision import precision_of
from compat.contract.profile import BRIEF, PROFILES
from compat.contract.runtime import Options
from compat.contract.session import Unsupported
from compat.measure import occupancy
from compat.measure.memory import peak_bytes, resident_bytes
from compat.measure.request import CaseRequest
from compat.models.tasks.base import Task

EPSILON = 1e-5
"""Relative error that is always allowed, since two correct float32 sums may differ by as much."""

EPSILON_FLOAT32 = 1e-4
"""Relative error that is always allowed if the reference is float32 too, and errs as much."""

LARGE = 400.0
"""Millions of parameters above which the reference is float32, as float64 would not fit."""


@dataclass(frozen=True)
class StandardPass:
    """The outputs of every standard input, run once; accuracy judges these."""

    predictions: Mapping[str, Prediction]
    """By item id."""
    seconds: Mapping[str, float]
    """By item id."""
    peak_bytes: int
    """Peak memory of this process so far, before references are read."""
    device_peak_bytes: int | None


class CaseUnderTest:
    """One case with its inputs; built from a :class:`CaseRequest` given as a mapping."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        asked = CaseRequest(**request)
        case = catalog.load().case(asked.id)
        self.target, self.recipe, self.weights = case.target, case.recipe, case.weights
        self.variant = case.variant
        checkpoint = asked.checkpoint or (self.variant.trained if self.weights == "trained" else "")
        checkpoint = translated(checkpoint)
        reference = ModelReference(case.family.name, self.variant.name, self.weights, checkpoint)
        brief = PROFILES[asked.profile].first_look and self.target.slow
        profile, hard = (BRIEF.name, ()) if brief else (asked.profile, asked.stress)
        self.inputs = Inputs(reference, asked.corpus, profile, tuple(hard), asked.language)
        self.options = Options(asked.threads, asked.device, asked.corpus, self.batched)
        self.reference_scheme = REFERENCE if self.variant.parameters < LARGE else "fp32"
        self.epsilon = EPSILON if self.reference_scheme == REFERENCE else EPSILON_FLOAT32
        self.processors = occupancy.allowed()
        """Numbers of the processors that this process may use."""
        self.timings: dict[str, float] = {}
        """Figures of opening the case: ``baseline_bytes`` (memory before it), ``import_s``,
        ``load_s`` and ``artifacts_s``."""
        self._ran: dict[str, tuple[Prediction, float]] = {}

    @property
    def batched(self) -> bool:
        """Whether answers to inputs in a batch are compared with those to the same inputs alone.

        Generated weights are left out, because their answers change with the last bit.
        """
        return self.weights != "seeded" and not PROFILES[self.inputs.profile].first_look

    @cached_property
    def execution(self) -> Execution:
        """The model on its target, opened when it is first needed; fills :attr:`timings`.

        Raises:
            Unsupported: the runtime cannot execute the recipe.
            ValueError: the recipe names components that the model lacks.
        """
        runtime = catalog.load().runtime(self.target.runtime)
        reason = runtime.unsupported(self.target, self.recipe)
        if reason:
            raise Unsupported(reason)
        model = self.inputs.model
        model.graphs()
        self.timings["baseline_bytes"] = resident_bytes()
        started = perf_counter()
        for package in runtime.modules:
            importlib.import_module(package)
        imported = perf_counter()
        built = artifacts.seconds_building()
        opened = sources(self.inputs.reference, model, self.options.threads)
        execution = runtime.open(model, opened, self.target, self.recipe, self.options)
        names = {part.rpartition("-")[2] for part in self.recipe.name.split("+")[1:]}
        if not names <= set(opened):
            raise ValueError(
                f"{self.recipe.name} names {', '.join(sorted(names - set(opened)))}; the "
                f"components of {self.variant.name} are {', '.join(opened)}"
            )
        building = artifacts.seconds_building() - built
        self.timings |= {
            "import_s": imported - started,
            "load_s": perf_counter() - imported - building,
            "artifacts_s": building,
        }
        return execution

    @cached_property
    def reference(self) -> Outputs:
        """The stored reference outputs on this case's inputs."""
        return self.inputs.fetch_reference(self.reference_scheme, self.options.threads)

    # Running -----------------------------------------------------------------------------------

    def predict(self, items: Sequence[Item]) -> tuple[list[Prediction], Stopwatch, float]:
        """Run the whole task on a batch; return predictions, stages and seconds.

        The seconds leave out the crossing of values to another process, which the suite causes.
        """
        stopwatch = Stopwatch()
        started = perf_counter()
        execution = self.execution
        crossed = execution.crossing_s
        predictions = execution.predict(items, stopwatch)
        crossing = execution.crossing_s - crossed
        if crossing:
            stopwatch.marks["crossing"] = crossing
        return predictions, stopwatch, perf_counter() - started - crossing

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the outputs of one input whose numerics are judged."""
        return self.execution.trace(item, guide)

    @cached_property
    def standard_items(self) -> list[Item]:
        """Every distinct input that accuracy or timing looks at, in a fixed order."""
        items = self.inputs.items
        everything = (*(i for one in items.task.values() for i in one), *items.timed)
        return list({item.id: item for item in everything}.values())

    @cached_property
    def first_run(self) -> dict[str, Any]:
        """Figures of the first standard input after opening: cold start, sizes, precision.

        Raises:
            Unsupported: another precision was executed than was asked for, or none of the weights
                is one that the recipe quantises.
        """
        execution = self.execution
        unquantised = set(execution.unquantised())
        asked = {
            graph.name: self.recipe.for_graph(graph.name) for graph in self.inputs.model.graphs()
        }
        integers = {name for name, scheme in asked.items() if precision_of(scheme).quantised}
        if integers and integers <= unquantised:
            raise Unsupported(
                f"nothing to quantise: {', '.join(sorted(integers))} "
                f"{'has' if len(integers) == 1 else 'have'} no weights that "
                f"{self.recipe.name} replaces"
            )
        first = self.standard_items[0]
        built = artifacts.seconds_building()
        predictions, _, seconds = self.predict([first])
        if self.target.evidence == "emulator":
            # An emulator's seconds mean nothing and are many, so this input is not run again.
            self._ran[first.id] = predictions[0], seconds
        seconds -= artifacts.seconds_building() - built  # A shape that was exported meanwhile.
        executed = dict(execution.executed())
        for graph, scheme in executed.items():
            wanted = self.recipe.for_graph(graph)
            if graph not in unquantised and precision_of(scheme) != precision_of(wanted):
                raise Unsupported(f"executed {scheme}: {graph} was asked to run {wanted}")
        return {
            "cold": {
                "import_s": self.timings["import_s"],
                "load_s": self.timings["load_s"],
                "first_run_s": seconds,
            },
            "artifacts_s": self.timings["artifacts_s"],
            "model_bytes": execution.model_bytes(),
            "executed": executed,
            "notes": {
                **execution.notes(),
                **({"nothing to quantise": ", ".join(sorted(unquantised))} if unquantised else {}),
            },
            "weights": self.inputs.model.fingerprint(),
            "faults": self.faults(predictions),
        }

    @cached_property
    def standard(self) -> StandardPass:
        """The standard pass, run when it is first asked for."""
        predictions: dict[str, Prediction] = {}
        seconds: dict[str, float] = {}
        for item in self.standard_items:
            if item.id in self._ran:
                predictions[item.id], seconds[item.id] = self._ran[item.id]
            else:
                (predictions[item.id],), _, seconds[item.id] = self.predict([item])
        # Read before references and oracles are loaded, whose memory is the suite's.
        peak = peak_bytes()
        return StandardPass(predictions, seconds, peak, self.execution.device_peak_bytes())

    # Judging by the task -----------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The model's task, which says which predictions are right."""
        return self.inputs.model.task

    def faults(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction] | None = None
    ) -> list[str]:
        """Return faults of predictions that no average may hide."""
        return self.task.faults(predictions, references)

    def is_standard(self, item: Item, prediction: Prediction) -> bool:
        """Return whether a prediction equals that of the standard pass, apart from rounding."""
        return self.task.same(prediction, self.standard.predictions[item.id])
