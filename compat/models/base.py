"""What a model is: graphs for the target, and a host-side driver in NumPy for all runtimes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from compat.contract.digests import code_digest, digest
from compat.contract.graph import Graph, Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.session import Session
from compat.inputs.corpus import Corpus
from compat.models.items import Items

OUTSIDE_UEM = "outside_uem"
"""Among the values of a task: how many recordings were not scored, as their UEM leaves nothing."""


def score_sets(
    score: Callable[..., dict[str, Any]],
    sets: Mapping[str, tuple[Sequence[Item], Sequence[Prediction], Sequence[Prediction]]],
) -> dict[str, Any]:
    """Score test sets, each with its items, predictions and the reference's predictions.

    Recordings of which no part counts would be free of errors, so they are left out, and a set
    that has no other. ``score`` is :meth:`Model.score`; ``worst_recording`` stays the position
    among all items of a set.
    """
    scores: dict[str, Any] = {}
    left_out = 0
    for name, columns in sets.items():
        kept = [index for index, item in enumerate(columns[0]) if item.is_scored]
        left_out += len(columns[0]) - len(kept)
        if kept:
            scores[name] = score(*([column[index] for index in kept] for column in columns))
            if "worst_recording" in scores[name]:
                scores[name]["worst_recording"] = kept[scores[name]["worst_recording"]]
    return {**scores, OUTSIDE_UEM: left_out} if scores and left_out else scores


class Model(ABC):
    """One variant with its weights: graphs, driver, scorer."""

    sample_rate: ClassVar[int] = 16_000
    brief_seconds: ClassVar[float] = 10.0
    """Seconds of audio of each test set in a slow target's first look: of a conversation, its
    beginning."""

    @abstractmethod
    def graphs(self) -> tuple[Graph, ...]:
        """Return the graphs; their modules are built only when a runtime asks for them."""

    @abstractmethod
    def content(self) -> Any:
        """Return a JSON value that determines the weights and settings: digests of files, sizes."""

    def fingerprint(self) -> str:
        """Return hex digits that identify content and code, with all that the code imports."""
        return digest([self.content(), code_digest(type(self).__module__)])

    @abstractmethod
    def items(self, corpus: Corpus, profile: str) -> Items:
        """Choose inputs from a corpus for a profile (``quick``, ``core`` or ``full``)."""

    @abstractmethod
    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        """Do the whole task on a batch: features, graphs, decoding. One prediction per item."""

    @abstractmethod
    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the outputs whose numerics are judged, float arrays with time first.

        ``guide`` is the reference's prediction for the item, which an autoregressive decoder is
        forced to follow.
        """

    @abstractmethod
    def score(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        """Return the task metrics of one test set against the truth and against the reference."""

    @abstractmethod
    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        """Return how far one prediction is off, and the reference's: ``{"errors", "reference"}``.

        Used where single inputs are judged (stress), so that a hard input is held against what
        the reference makes of it.
        """

    def batches(self, recommended: int = 0) -> tuple[int, ...]:
        """Return the usual batch sizes, and large ones up to a recommended one, ascending."""
        return tuple(
            sorted(
                {
                    point["batch"]
                    for graph in self.graphs()
                    for point in graph.points.values()
                    if point["batch"] not in graph.large_batches or point["batch"] <= recommended
                }
            )
        )
