"""Outputs that a device is compared with: the reference in float64, and an oracle per scheme.

Two comparisons separate "this precision hurts" from "this backend is broken". The reference is the
model in float64 on the CPU. The *oracle* of a scheme is a correct execution of that scheme: torch
on the CPU for fp32, fp16 and bf16, operands rounded to 10 mantissa bits for tf32, and for integer
schemes a simulation that rounds weights (and activations) as the scheme says. A simulation starts
from the float weights and not from the runtime's own artifact, so that a broken layer in the
artifact shows as a difference.

The outputs are computed in a builder process, and cached as artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from compat import catalog
from compat.build import artifacts
from compat.build.remembering import RememberingSession
from compat.build.schemes import float_module
from compat.build.torch_session import TorchSession
from compat.contract.case import Recipe
from compat.contract.digests import code_digest, file_digest
from compat.contract.graph import Graph, Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.model_reference import ModelReference
from compat.contract.named import module_of, resolve
from compat.contract.profile import PROFILES
from compat.contract.runtime import Simulation
from compat.contract.session import Session
from compat.inputs import corpus as corpora
from compat.inputs import stress
from compat.models.base import Model
from compat.models.items import Items
from compat.models.tasks.base import is_recording

if TYPE_CHECKING:
    import torch

REFERENCE = "fp64"
PREDICTIONS = "predictions.npz"
"""File with the arrays of predictions; a ``.json`` file of the same name holds the other values."""
SIMULATIONS: Mapping[str, Simulation | str] = {
    "int8-weights": "compat.build.oracles:round_weights",
    "int4-weights": "compat.build.oracles:round_to_4_bits",
    "int8-dynamic": "compat.build.oracles:round_activations",
    "tf32": "compat.build.oracles:round_mantissas",
}
"""Simulations of schemes, used where a runtime has no simulation of its own."""
BRIEF_NUMERICS = 1
"""Number of inputs whose numerics a brief profile judges."""
BRIEF_CONTRAST = 2
"""The same number for generated weights, whose outputs must differ between two inputs."""


@dataclass(frozen=True)
class Inputs:
    """Description of the inputs that a protocol runs, from which every process makes the same."""

    reference: ModelReference
    corpus: str
    """Folder of the corpus."""
    profile: str
    """Name of the profile."""
    stress: tuple[str, ...]
    """Files with the stress inputs."""
    language: str = ""
    """Language code, such as ``en``, for recordings whose language the corpus does not give."""

    @cached_property
    def model(self) -> Model:
        return catalog.open_model(self.reference)

    @cached_property
    def corpora(self) -> corpora.Corpus:
        found = corpora.load(Path(self.corpus), self.language)
        return found.with_channels(self.model.channels)

    @cached_property
    def items(self) -> Items:
        """The model's items, stress inputs included."""
        profile, task = PROFILES[self.profile], self.model.task
        chosen = self.model.items(self.corpora, profile)
        if profile.brief:
            seeded = self.reference.weights == "seeded"
            numerics = BRIEF_CONTRAST if seeded else BRIEF_NUMERICS
            return chosen.brief(task.brief_seconds, numerics)
        entries = stress.load([Path(path) for path in self.stress])
        if self.reference.weights == "seeded" and not profile.whole:
            entries = stress.plain(entries)
        if profile.first_look:
            entries = [entry for entry in entries if entry.get("seconds", 0) <= stress.SHORT]
        rate, easy = self.model.sample_rate, chosen.timed
        if all(map(is_recording, easy)):
            easy = self.corpora.speech.items(rate, 24)
        made = task.hard(entries, easy, rate)
        return replace(chosen, stress=made)

    def fetch_reference(self, scheme: str = REFERENCE, threads: int = 0) -> Outputs:
        """Return the reference's outputs on these inputs, computed the first time, then cached.

        ``scheme`` is ``fp64``, or ``fp32`` for a model that is too large for float64.
        """
        return Outputs(self._artifact(scheme, threads).fetch())

    def fetch_oracle(
        self, recipe: str, runtime: str, reference: str = REFERENCE, threads: int = 0
    ) -> Outputs:
        """Return the oracle's outputs on these inputs: a correct execution of a runtime's recipe.

        Args:
            recipe: the recipe, such as ``int8-dynamic``.
            runtime: name of the runtime, which may have simulations of its own.
            reference: scheme of the reference. The oracle follows its predictions, token by token,
                so that both compute the same values.
            threads: threads of the builder; 0 lets the libraries choose.
        """
        own = catalog.load().runtime(runtime).oracles
        simulations = {**SIMULATIONS, **own}
        schemes = {Recipe(recipe).for_graph(graph.name) for graph in self.model.graphs()}
        # Simulations are named, not imported, so their code is not in the digest of this job's.
        code = {
            f"oracle {scheme}": code_digest(module_of(simulations[scheme]))
            for scheme in schemes & set(simulations)
        }
        named = runtime if schemes & set(own) else ""
        return Outputs(self._artifact(recipe, threads, named, reference, code).fetch())

    def _artifact(
        self,
        scheme: str,
        threads: int = 0,
        runtime: str = "",
        guide: str = "",
        oracles: Mapping[str, str] = MappingProxyType({}),
    ) -> artifacts.Artifact:
        return artifacts.Artifact(
            make,
            {
                "reference": self.reference.arguments(),
                "corpus": self.corpus,
                "profile": self.profile,
                "stress": list(self.stress),
                "language": self.language,
                "scheme": scheme,
                "runtime": runtime,
                "guide": guide,
            },
            ("torch", "transformers"),
            {
                "model": self.model.fingerprint(),
                "corpus": self.corpora.fingerprint,
                **{f"stress {n}": file_digest(Path(p)) for n, p in enumerate(self.stress)},
                **oracles,
            },
            [self._artifact(guide)] if guide else [],
            threads,
        )


@dataclass(frozen=True)
class Outputs:
    """Stored outputs of one scheme, read from an artifact's folder."""

    folder: Path

    @cached_property
    def predictions(self) -> dict[str, Prediction]:
        """Predictions by item id. Only the reference has them, not an oracle."""
        read: dict[str, dict[str, Any]] = json.loads(
            (self.folder / PREDICTIONS).with_suffix(".json").read_text(encoding="utf-8")
        )
        with np.load(self.folder / PREDICTIONS, allow_pickle=False) as arrays:
            for key in arrays.files:
                name, _, identifier = key.partition("@")
                read[identifier][name] = arrays[key]
        return dict(read)

    def trace(self, item: str) -> dict[str, np.ndarray]:
        """Return the traced arrays of one item, by output name."""
        with np.load(self.folder / f"{item}.npz", allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def make(
    folder: Path,
    reference: Mapping[str, str],
    corpus: str,
    profile: str,
    stress: Sequence[str],
    language: str,
    scheme: str,
    runtime: str,
    guide: str,
) -> None:
    """Job: compute and store the outputs of the reference or, with a ``guide``, of an oracle.

    The reference stores predictions and traces. An oracle stores traces only, and takes the
    predictions of the reference.

    Args:
        folder: where to store them.
        reference: arguments of the model's reference.
        corpus: folder of the corpus.
        profile: name of the profile.
        stress: files with the stress inputs.
        language: code of the language of recordings without one.
        scheme: scheme of the reference, or recipe of the oracle.
        runtime: the runtime whose own simulations are used; empty for the general ones.
        guide: scheme of the reference that the oracle is compared with; empty for the reference.
    """
    inputs = Inputs(ModelReference(**reference), corpus, profile, tuple(stress), language)
    model, items = inputs.model, inputs.items
    sessions = _sessions(inputs.reference, model, scheme, runtime)

    def store(session: Session, item: Item, prediction: Prediction) -> None:
        arrays: dict[str, Any] = model.trace(session, item, prediction)
        np.savez(folder / f"{item.id}.npz", **arrays)

    if not guide:
        everything = [*(i for found in items.task.values() for i in found), *items.numerics]
        # With generated weights the answers to hard inputs are not judged, only their numerics.
        known = inputs.reference.weights != "seeded"
        everything += [*items.timed, *items.examples, *(items.stress if known else ())]
        distinct = {item.id: item for item in everything}
        # With trained weights hard inputs are judged by their answers, and need no traces.
        traced = {item.id: item for item in (*items.numerics, *(() if known else items.stress))}

        def answer(session: RememberingSession, item: Item) -> Prediction:
            prediction = model.run(session, [item], Stopwatch())[0]
            if item.id in traced:
                store(session, item, prediction)
            session.forget()
            return prediction

        predictions = _side_by_side(sessions, distinct, answer)
        first = next(iter(predictions.values()))
        traced = {name: item for name, item in traced.items() if name not in predictions}
        predictions |= {item.id: first for item in items.stress if item.id not in predictions}
        _store_predictions(folder, predictions)
    else:
        predictions = inputs.fetch_reference(guide).predictions
        traced = {item.id: item for item in items.numerics}

    def trace(session: RememberingSession, item: Item) -> None:
        store(session, item, predictions[item.id])
        session.forget()

    _side_by_side(sessions, traced, trace)


def _store_predictions(folder: Path, predictions: Mapping[str, Prediction]) -> None:
    """Write predictions: arrays into one file, all other values into a JSON file beside it."""
    values = {
        identifier: {k: v for k, v in one.items() if not isinstance(v, np.ndarray)}
        for identifier, one in predictions.items()
    }
    arrays: dict[str, Any] = {
        f"{name}@{identifier}": value
        for identifier, one in predictions.items()
        for name, value in one.items()
        if isinstance(value, np.ndarray)
    }
    path = (folder / PREDICTIONS).with_suffix(".json")
    path.write_text(json.dumps(values), encoding="utf-8")
    np.savez(folder / PREDICTIONS, **arrays)


def _sessions(
    reference: ModelReference, model: Model, recipe: str, runtime: str
) -> SimpleQueue[RememberingSession]:
    """Return sessions that share the processor's threads: two for a small model, else one.

    Small models gain little from more threads for one input, as recurrences and small products do
    not divide well. Two inputs at a time, with half of the threads each, take less time.
    """
    import torch

    threads = torch.get_num_threads()
    count = 2 if threads > 1 and catalog.is_small(reference) else 1
    torch.set_num_threads(threads // count)
    sessions: SimpleQueue[RememberingSession] = SimpleQueue()
    for _ in range(count):
        sessions.put(RememberingSession(*_oracle(model, recipe, runtime)))
    return sessions


def _side_by_side(
    sessions: SimpleQueue[RememberingSession],
    items: Mapping[str, Item],
    work: Callable[[RememberingSession, Item], Any],
) -> dict[str, Any]:
    """Call ``work`` for each item, in as many threads as there are sessions.

    Returns:
        What ``work`` returned, by the items' ids.
    """

    def in_turn(item: Item) -> Any:
        session = sessions.get()
        try:
            return work(session, item)
        finally:
            sessions.put(session)

    with ThreadPoolExecutor(sessions.qsize()) as pool:
        return dict(zip(items, pool.map(in_turn, items.values()), strict=True))


def oracle_session(model: Model, recipe: str, runtime: str = "") -> TorchSession:
    """Return a session of PyTorch on the CPU that executes a recipe correctly, however slowly.

    ``runtime`` names the runtime whose own simulations replace the general :data:`SIMULATIONS`.
    """
    return TorchSession(*_oracle(model, recipe, runtime))


def _oracle(
    model: Model, recipe: str, runtime: str
) -> tuple[Mapping[str, Graph], dict[str, torch.nn.Module], Mapping[str, str], torch.device]:
    """Return the arguments of an oracle's session: graphs, modules, schemes and the device."""
    import torch

    from compat.build.schemes import apply_scheme

    device = torch.device("cpu")
    simulations = {
        **SIMULATIONS,
        **(catalog.load().runtime(runtime).oracles if runtime else {}),
    }
    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {}
    schemes = {}
    for name, graph in graphs.items():
        scheme = Recipe(recipe).for_graph(name)
        module = float_module(graph)
        if scheme in simulations:
            modules[name] = resolve(simulations[scheme])(module)
        else:
            modules[name] = apply_scheme(module, scheme, device)
        schemes[name] = scheme
    return graphs, modules, schemes, device
