"""Typical inputs of a graph, for quantisers that set the ranges of activations from examples.

The inputs are recorded while the model does its task in float32 on recordings of the corpus. Sets
that the model is judged on are left out, so that no recipe is fitted to its own test. Where the
corpus has no other sets they are used all the same, and :attr:`Recorded.said` says so.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat import catalog
from compat.build.schemes import float_module
from compat.build.torch_session import TorchSession
from compat.contract.graph import Graph, Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.profile import FULL
from compat.inputs import corpus as corpora
from compat.inputs.corpus import Corpus
from compat.models.base import Model
from compat.models.tasks.base import is_recording

if TYPE_CHECKING:
    import torch

ITEMS = 24
"""Number of recordings that the model is run on."""
SECONDS = 8.0
"""Longest recording, in seconds. Longer ones are cut into excerpts."""
CALLS = 32
"""Most calls of a graph that are kept, drawn at random from all of them. Early calls alone would
not do: a decoder's cache fills up late."""


@dataclass(frozen=True)
class Recorded:
    """Recorded inputs of a graph."""

    feeds: list[dict[str, np.ndarray]]
    """Arrays by input name, states included; one mapping per call."""
    said: str
    """Where the inputs come from, in words, such as ``24 recordings of speech``."""


def choose(model: Model, corpus: Corpus) -> tuple[list[Item], str]:
    """Return items to calibrate a model with, and their origin in words."""
    items = model.items(corpus, FULL)
    if not all(map(is_recording, items.timed)):
        # The model takes no recordings (but texts, say), and the judged items must not be used:
        # new ones of the same kind are generated.
        unseen = [
            model.task.fresh(item, number)
            for number, item in enumerate(islice(cycle(items.timed), ITEMS), 1)
        ]
        return unseen, f"{ITEMS} inputs like those that are judged"
    groups = (*items.task.values(), items.numerics, items.timed)
    judged = {item.id for group in groups for item in group}
    free = {
        name: test_set
        for name, test_set in corpus.sets.items()
        # Windows and excerpts carry the id of the recording that they were cut from as a prefix.
        # Without judged answers (generated weights) the judged items come from the speech set.
        if not any(one.startswith(test_set.identifier(i)) for one in judged for i in _all(test_set))
        and (items.task or name != corpus.speech.name)
    }
    kept = {name: corpus.special[name] for name in model.task.unjudged if name in corpus.special}
    chosen = kept or free or corpus.sets
    each = -(-ITEMS // len(chosen))
    found = [
        item
        for test_set in chosen.values()
        for item in test_set.excerpts(SECONDS).items(model.sample_rate, each)
    ]
    said = f"{len(found)} recordings of {', '.join(chosen)}"
    return (
        found,
        said if kept or free else f"{said}: the same that are judged, the corpus has no others",
    )


def _all(test_set: corpora.TestSet) -> range:
    return range(len(test_set.lines))


def record(reference: ModelReference, graph: str, point: str, corpus: str) -> Recorded:
    """Return inputs of a graph at a static point, recorded in float32 on the CPU.

    A batch repeats one input, recorded at the point with the smallest batch. The ranges are then
    the same for every batch size, and an answer does not depend on its neighbours in the batch.

    Args:
        reference: the model.
        graph: name of the graph.
        point: name of the point.
        corpus: folder of the corpus; empty for the one that is shipped.

    Raises:
        ValueError: no recording leads the model to this point.
    """
    model = catalog.open_model(reference)
    spec = {found.name: found for found in model.graphs()}[graph]
    found = corpora.load(Path(corpus) if corpus else corpora.DEFAULT)
    items, said = choose(model, found.with_channels(model.channels))
    smallest_first = sorted((point, *spec.other_batches(point)), key=spec.batch)
    for recorded in smallest_first:
        if kept := _kept(model, graph, recorded, items):
            return Recorded([_batched(feed, spec, point) for feed in kept], said)
    raise ValueError(f"no recording of {said} leads to {graph} at {point}")


def _kept(
    model: Model, graph: str, point: str, items: Sequence[Item]
) -> list[dict[str, np.ndarray]]:
    import torch

    graphs = {spec.name: spec for spec in model.graphs()}
    modules = {name: float_module(spec) for name, spec in graphs.items()}
    session = Recorder(
        graphs, modules, dict.fromkeys(modules, "fp32"), torch.device("cpu"), (graph, point)
    )
    # A driver may call a graph with another batch size than the driver's own.
    for batch in dict.fromkeys((graphs[graph].batch(point), *model.batches())):
        # A batch may be larger than the number of recordings.
        filled = [*items, *islice(cycle(items), max(0, batch - len(items)))]
        for first in range(0, len(filled) - batch + 1, batch):
            model.run(session, filled[first : first + batch], Stopwatch())
        if session.kept:
            break
    return session.kept


def _batched(feed: Mapping[str, np.ndarray], graph: Graph, point: str) -> dict[str, np.ndarray]:
    """Return inputs recorded at another batch, repeated or cut to the shapes of a point.

    A model that cuts every recording into several windows never runs one alone.
    """
    return {
        name: np.tile(
            feed[name],
            [-(-size // have) for size, have in zip(shape, feed[name].shape, strict=True)],
        )[tuple(map(slice, shape))]
        for name, (shape, _) in graph.examples(point).items()
    }


class Recorder(TorchSession):
    """A session in PyTorch that keeps a sample of the inputs of one graph at one point."""

    def __init__(
        self,
        graphs: Mapping[str, Any],
        modules: dict[str, torch.nn.Module],
        schemes: Mapping[str, str],
        device: torch.device,
        wanted: tuple[str, str],
    ) -> None:
        super().__init__(graphs, modules, schemes, device)
        self.kept: list[dict[str, np.ndarray]] = []
        self._wanted = wanted
        self._calls = 0
        self._random = random.Random(0)  # noqa: S311 (which inputs are kept)

    def execute(
        self, graph: str, point: str, inputs: Mapping[str, torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        if (graph, point) == self._wanted:
            self._keep(inputs)
        return super().execute(graph, point, inputs)

    def _keep(self, inputs: Mapping[str, torch.Tensor]) -> None:
        # Reservoir sampling (Vitter's algorithm R), as the number of calls is not known ahead.
        place = len(self.kept) if self._calls < CALLS else self._random.randrange(self._calls + 1)
        self._calls += 1
        if place < CALLS:
            # Copies: states are written in place by later calls.
            taken = {name: self.download(value).copy() for name, value in inputs.items()}
            self.kept[place : place + 1] = [taken]
