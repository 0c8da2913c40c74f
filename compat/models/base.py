"""What a model is: graphs for the target, and a host-side driver in NumPy for all runtimes."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from compat.corpus import Corpus, Item
from compat.graph import Graph, Stopwatch
from compat.runtimes.base import Session

Prediction = dict[str, Any]
"""What a model says of one item, as JSON: ``tokens``, ``text``, ``embedding`` …"""


@dataclass(frozen=True)
class Items:
    """The inputs of one protocol, chosen by the model from a corpus."""

    task: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    """Test sets that carry the truth; empty for seeded weights, which can prove no accuracy."""
    numerics: Sequence[Item] = ()
    """Inputs whose intermediate outputs are compared with the reference's."""
    timed: Sequence[Item] = ()
    """Inputs of the timed rounds: among those that accuracy is computed on."""
    stress: Sequence[Item] = ()

    @classmethod
    def of(cls, sets: Mapping[str, Sequence[Item]], scored: bool = True) -> Items:
        """Return the usual choice: six inputs of each set for numerics, the first set for timing.

        ``scored`` says whether the sets carry the truth that the task metric needs.
        """
        some = [item for found in sets.values() for item in found[:: max(1, len(found) // 6)]]
        return cls(sets if scored else {}, some, next(iter(sets.values()))[:16])

    def brief(self, seconds: float, numerics: int) -> Items:
        """Return a part of the choice, for what takes seconds where others take milliseconds.

        Args:
            seconds: about how much audio of each test set is kept, spread over it: whole
                utterances, or the beginning of one conversation. Of a set of trials, whose
                recordings are compared with one another, two pairs are kept.
            numerics: how many of these are kept whose numerics are judged.
        """

        def fitting(items: Sequence[Item]) -> Sequence[Item]:
            if any("trials" in item.facts for item in items):
                return _two_pairs(items)
            count = len(items)
            while count > 1 and sum(item.seconds for item in _spread(items, count)) > seconds:
                count -= 1
            return [beginning(item, seconds) for item in _spread(items, count)]

        task = {name: fitting(found) for name, found in self.task.items()}
        kept = [item for found in task.values() for item in found]
        if not kept:  # Generated weights, or a corpus without the truth.
            found = fitting(self.timed)
            kept = list(found) if len(found) >= numerics else _spread(self.timed, numerics)
        return Items(task, _spread(kept, numerics), kept)


def _two_pairs(items: Sequence[Item]) -> Sequence[Item]:
    """Return two recordings of one speaker and two of another; all where no four are compared."""
    paired = [(item.id, *trial) for item in items for trial in item.facts.get("trials", ())]
    trials = {(one, other): same for one, other, same in paired}
    known = {item.id for item in items}
    pairs = [pair for pair, same in trials.items() if same and known >= set(pair)]
    for first, second in itertools.combinations(pairs, 2):
        across = {trials.get(pair) for pair in itertools.product(first, second)}
        across |= {trials.get(pair) for pair in itertools.product(second, first)}
        if False in across and True not in across:
            return [item for item in items if item.id in {*first, *second}]
    return items


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return up to ``count`` items, spread evenly."""
    wanted = min(count, len(items))
    return [items[round(i * len(items) / wanted)] for i in range(wanted)]


def beginning(item: Item, seconds: float) -> Item:
    """Cut a recording of which it is known who speaks when; what is said in a part is not."""
    if item.seconds <= seconds or item.text or "segments" not in item.facts:
        return item
    facts = dict(item.facts)
    for name in {"segments", "uem"} & facts.keys():
        spans = [span for span in facts[name] if span[0] < seconds]
        facts[name] = [[first, min(last, seconds), *of] for first, last, *of in spans]
    samples = item.samples[: round(seconds * item.rate)]
    name = item.id.removesuffix("-beginning")
    return replace(item, id=f"{name}-beginning", samples=samples, facts=facts)


def beginnings(sets: Mapping[str, Sequence[Item]], seconds: float) -> dict[str, Sequence[Item]]:
    """Cut every recording of conversations, for a first look."""
    return {name: [beginning(item, seconds) for item in found] for name, found in sets.items()}


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
    def fingerprint(self) -> str:
        """Return hex digits that identify the weights and this driver's code."""

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
