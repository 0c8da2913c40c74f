"""What a device is held against: reference outputs in float64, and oracles per scheme.

Three-way comparison separates "this precision hurts" from "this backend is broken". The reference
is the model in float64 on the CPU. The *oracle* of a scheme is what an honest execution of that
scheme gives: torch on the CPU for fp32, fp16 and bf16, operands rounded to 10 mantissa bits for
tf32, and for integer schemes a simulation that rounds weights (and activations) as the scheme
says, made from the float weights and not from the runtime's own artifact, so that an artifact
with a broken layer does not excuse itself.

Runs in a builder process; results are cached as artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat import artifacts, catalog, stress
from compat import corpus as corpora
from compat.case import Recipe
from compat.graph import Stopwatch
from compat.models.base import Items, Model, Prediction
from compat.runtimes.base import Session
from compat.sources import ModelReference, distribution_versions, sources

if TYPE_CHECKING:
    import torch

REFERENCE = "fp64"
MODULES = (
    __name__,
    "compat.runtimes.base",
    "compat.runtimes.pytorch",
    "compat.stress",
    "compat.corpus",
)


@dataclass(frozen=True)
class Inputs:
    """Which inputs a protocol runs: enough for any process to make the same ones."""

    reference: ModelReference
    corpus: str
    profile: str
    stress: tuple[str, ...]
    """Files with the stress inputs."""

    @cached_property
    def model(self) -> Model:
        return self.reference.load()

    @cached_property
    def corpora(self) -> corpora.Corpus:
        return corpora.load(Path(self.corpus))

    @cached_property
    def items(self) -> Items:
        """The model's items, stress inputs included."""
        chosen = self.model.items(self.corpora, self.profile)
        entries = stress.load([Path(path) for path in self.stress])
        speech = self.corpora.speech.items(self.model.sample_rate, 24)
        made = [stress.make(entry, speech, self.model.sample_rate) for entry in entries]
        return Items(chosen.task, chosen.numerics, chosen.timed, made)

    def fetch(self, scheme: str, threads: int = 0) -> Outputs:
        """Return the outputs of a scheme on these inputs, computing them the first time.

        ``scheme`` is ``fp64`` for the reference, else a recipe name whose oracle is wanted.
        """
        folder = artifacts.fetch(
            f"{__name__}:make",
            {
                "reference": self.reference.arguments(),
                "corpus": self.corpus,
                "profile": self.profile,
                "stress": list(self.stress),
                "scheme": scheme,
            },
            (
                self.model.fingerprint(),
                self.corpora.fingerprint,
                *(artifacts.file_digest(Path(path)) for path in self.stress),
                artifacts.module_digest(*MODULES),
                *distribution_versions("torch", "transformers"),
            ),
            threads,
        )
        return Outputs(folder)


@dataclass(frozen=True)
class Outputs:
    """Stored outputs of one scheme."""

    folder: Path

    @cached_property
    def predictions(self) -> dict[str, Prediction]:
        """Predictions by item id (of the reference only)."""
        read: dict[str, Prediction] = json.loads(
            (self.folder / "predictions.json").read_text(encoding="utf-8")
        )
        return read

    def trace(self, item: str) -> dict[str, np.ndarray]:
        """Traced arrays of one item by output name."""
        with np.load(self.folder / f"{item}.npz", allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def make(
    folder: Path,
    reference: Mapping[str, str],
    corpus: str,
    profile: str,
    stress: Sequence[str],
    scheme: str,
) -> None:
    """Job: compute and store predictions and traces."""
    inputs = Inputs(ModelReference(**reference), corpus, profile, tuple(stress))
    model, items = inputs.model, inputs.items
    session = oracle_session(inputs.reference, model, scheme)
    if scheme == REFERENCE:
        everything = [*(i for found in items.task.values() for i in found), *items.numerics]
        # What generated weights say of a hard input is judged by nobody: only its numerics are.
        known = inputs.reference.weights != "seeded"
        everything += [*items.timed, *(items.stress if known else ())]
        distinct = {item.id: item for item in everything}
        predictions = {
            name: model.run(session, [item], Stopwatch())[0] for name, item in distinct.items()
        }
        guide = next(iter(predictions.values()))
        predictions |= {item.id: guide for item in items.stress if item.id not in predictions}
        text = json.dumps(predictions)
        (folder / "predictions.json").write_text(text, encoding="utf-8")
        traced = {item.id: item for item in (*items.numerics, *items.stress)}
    else:
        predictions = inputs.fetch(REFERENCE).predictions
        traced = {item.id: item for item in items.numerics}
    for name, item in traced.items():
        arrays: dict[str, Any] = model.trace(session, item, predictions[name])
        np.savez(folder / f"{name}.npz", **arrays)


def oracle_session(reference: ModelReference, model: Model, recipe: str) -> Session:
    """Return a torch session on the CPU that executes a recipe honestly, however slowly."""
    import torch

    from compat.runtimes.pytorch import TorchSession, apply_scheme

    device = torch.device("cpu")
    simulations = dict(SIMULATIONS)
    for runtime in catalog.load().runtimes:
        simulations |= runtime.oracles
    modules = {}
    schemes = {}
    for name, source in sources(reference, model).items():
        scheme = Recipe(recipe).for_graph(name)
        module = source.module()
        if scheme in simulations:
            modules[name] = simulations[scheme](module)
        else:
            modules[name] = apply_scheme(module, scheme, device)
        schemes[name] = scheme
    return TorchSession({graph.name: graph for graph in model.graphs()}, modules, schemes, device)


def _round_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate int8 weights: symmetric, one scale per output channel; arithmetic in float32."""
    import torch

    from compat.runtimes.pytorch import quantise_rows

    for child in module.modules():
        if isinstance(child, torch.nn.Linear):
            # A new tensor: the weight may be tied to an embedding, which the scheme leaves alone.
            weight, scale = quantise_rows(child.weight)
            child.weight = torch.nn.Parameter(weight * scale, requires_grad=False)
    return module


def _round_activations(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate dynamic int8: weights as above, inputs of linear layers rounded to 8 bits."""
    import torch

    def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (values,) = arguments
        # Asymmetric, one scale per tensor, zero always representable.
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        scale = ((high - low) / 255).clamp(min=1e-12)
        zero = (-low / scale).round()
        return (((values / scale).round() + zero).clamp(0, 255).sub(zero) * scale,)

    rounded = _round_weights(module)
    for child in rounded.modules():
        if isinstance(child, torch.nn.Linear):
            child.register_forward_pre_hook(round_input)
    return rounded


def _round_mantissas(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate tf32: operands of products rounded to 10 bits of mantissa, sums in float32."""
    import torch

    def rounded(values: torch.Tensor) -> torch.Tensor:
        bits = values.contiguous().view(torch.int32)
        # Round to nearest, ties away from zero, as the conversion instruction does.
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)

    def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (rounded(arguments[0]),)

    for child in module.modules():
        if isinstance(child, (torch.nn.Linear, torch.nn.Conv1d)):
            child.weight = torch.nn.Parameter(rounded(child.weight), requires_grad=False)
            child.register_forward_pre_hook(round_input)
    return module


SIMULATIONS = {
    "int8-weights": _round_weights,
    "int8-dynamic": _round_activations,
    "tf32": _round_mantissas,
}
