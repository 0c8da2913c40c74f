"""The base class of models: graphs for the target, and a NumPy driver on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from compat.contract.digests import code_digest, digest
from compat.contract.graph import Graph, Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.corpus import Corpus
from compat.models.items import Items
from compat.models.tasks.base import Task


class Model(ABC):
    """One variant of a family with its weights: its graphs, its host-side driver, and its task."""

    task: Task
    """The task, which chooses inputs and scores answers."""
    sample_rate: int = 16_000
    """Sampling rate in hertz of the audio that this variant hears."""
    channels: int = 1
    """Channels of that audio: one as (samples,), more as (channels, samples)."""

    @abstractmethod
    def graphs(self) -> tuple[Graph, ...]:
        """Return the graphs; their modules are built only when a runtime asks for them."""

    @abstractmethod
    def content(self) -> Any:
        """Return a JSON value that determines the weights and settings: digests of files, sizes."""

    def fingerprint(self) -> str:
        """Return hex digits that identify the content and the code, including imported code."""
        return digest([self.content(), code_digest(type(self).__module__)])

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        """Choose inputs from a corpus, or make them.

        The default asks the task. Models whose weights do not know the task override this method.
        """
        return self.task.items(corpus, self.sample_rate, profile)

    @abstractmethod
    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        """Do the whole task on a batch: features, graphs, decoding. One prediction per item."""

    @abstractmethod
    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the outputs whose numerics are judged, as arrays with time first.

        Floats are judged by their errors, integers (codes) by the share that equals the
        reference's. ``guide`` is the reference's prediction for the item, which an autoregressive
        decoder is forced to follow.
        """

    def batches(self, recommended: int = 0) -> tuple[int, ...]:
        """Return the usual batch sizes, and large ones up to a recommended one, ascending."""
        return tuple(
            sorted(
                {
                    batch
                    for graph in self.graphs()
                    for batch in map(graph.batch, graph.points)
                    if batch not in graph.large_batches or batch <= recommended
                }
            )
        )
