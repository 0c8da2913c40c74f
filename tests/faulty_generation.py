"""Runtimes for the toys that generate, each with one defect that only a generator can have.

Loaded with ``--catalog tests/faulty_generation.py``, beside toy_diffusion.py and toy_codes.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compat.build.schemes import apply_scheme
from compat.build.torch_session import TorchSession
from compat.contract.case import Recipe, Target
from compat.contract.graph import State
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Session, Steps
from compat.contract.source import Source

DIFFUSION, CODES = "toy-diffusion", "toy-codes"


class DropsCarry(TorchSession):
    """Gives every step what the first one was given."""

    def steps(self, graph: str, feeds: Any, point: str, count: int, **options: Any) -> Steps:
        along, carry = dict(options["along"]), options.pop("carry")
        for name in carry:
            if name in along:
                along[name] = np.resize(along[name], (count, *along[name].shape[1:]))
        steps = super().steps(graph, feeds, point, count, **{**options, "along": along})
        if not carry:
            return steps
        # What nothing carries is not among the last outputs unless it is fetched.
        given = {name: values[steps.count - 1] for name, values in along.items()}
        return replace(steps, last=self.run(graph, {**feeds, **given}, point))


class LosesStep(TorchSession):
    """Ends one step early."""

    def steps(self, graph: str, feeds: Any, point: str, count: int, **options: Any) -> Steps:
        forced = not options.get("carry")
        return super().steps(graph, feeds, point, count if forced else count - 1, **options)


class IgnoresNoise(TorchSession):
    """Begins with an empty latent whatever noise it is given."""

    def steps(self, graph: str, feeds: Any, point: str, count: int, **options: Any) -> Steps:
        if "latent" in feeds:
            feeds = {**feeds, "latent": np.zeros_like(feeds["latent"])}
        return super().steps(graph, feeds, point, count, **options)


class IgnoresPrompt(TorchSession):
    """Reads every prompt as the empty one."""

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        if graph == "text":
            inputs = {"tokens": inputs["tokens"] * 0}
        return super().execute(graph, point, inputs)


class SwapsChannels(TorchSession):
    """Gives left for right."""

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        outputs = super().execute(graph, point, inputs)
        return [outputs[0].flip(1)] if graph == "decoder" else outputs


class ShiftsStreams(TorchSession):
    """Gives each stream the code of the one before."""

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        outputs = super().execute(graph, point, inputs)
        return [outputs[0].roll(1, 1), *outputs[1:]] if graph == "decoder" else outputs


class ForgetsPast(TorchSession):
    """Never writes into a cache."""

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        return buffer


class StopsAtOneCode(TorchSession):
    """Ends as soon as one of the four codes says so."""

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        outputs = super().execute(graph, point, inputs)
        if graph != "decoder":
            return outputs
        end = outputs[1].shape[-1] - 1
        some = (outputs[0] == end).any(dim=1, keepdim=True)
        return [outputs[0].masked_fill(some, end), *outputs[1:]]


DEFECTS: Mapping[str, tuple[type[TorchSession], str]] = {
    "drops-carry": (DropsCarry, DIFFUSION),
    "loses-step": (LosesStep, DIFFUSION),
    "ignores-noise": (IgnoresNoise, DIFFUSION),
    "ignores-prompt": (IgnoresPrompt, DIFFUSION),
    "swaps-channels": (SwapsChannels, DIFFUSION),
    "drops-codes": (DropsCarry, CODES),
    "ignores-words": (IgnoresPrompt, CODES),
    "shifts-streams": (ShiftsStreams, CODES),
    "forgets-past": (ForgetsPast, CODES),
    "stops-at-one-code": (StopsAtOneCode, CODES),
}
"""Session and the family that it is to spoil, by the target's name."""


class FaultyGeneration(GraphRuntime):
    """One target for each defect."""

    name = "faulty-generation"
    packages = ("torch",)
    modules = ("torch",)
    targets = tuple(
        Target(name, "cpu", "faulty-generation", "cpu", ("fp32",), on_host_cpu=True, families=(of,))
        for name, (_, of) in DEFECTS.items()
    )

    def probe(self, target: Target) -> Probe:
        return Probe("here")

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        import torch

        torch.set_num_threads(options.threads)
        device = torch.device("cpu")
        graphs = {name: source.graph for name, source in sources.items()}
        schemes = {name: recipe.for_graph(name) for name in sources}
        modules = {
            name: apply_scheme(source.module(), schemes[name], device)
            for name, source in sources.items()
        }
        return DEFECTS[target.name][0](graphs, modules, schemes, device)


RUNTIME = FaultyGeneration()
