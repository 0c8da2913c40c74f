"""Executions: a model on one target that does its whole task, which the suite measures.

Most runtimes run graphs that the model drives, see :class:`GraphExecution`. A port such as
CTranslate2 does the task itself, except for features and text, and implements :class:`Execution`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from compat.contract.session import Compiled, Placement, Session, Unsupported

if TYPE_CHECKING:
    from compat.contract.case import Recipe
    from compat.contract.graph import Graph, Stopwatch
    from compat.contract.item import Item, Prediction


class Driver(Protocol):
    """The part of a model that runs graphs; :class:`compat.models.base.Model` is one."""

    def graphs(self) -> tuple[Graph, ...]:
        """Return the graphs."""
        ...

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        """Do the whole task on a batch."""
        ...

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the outputs whose numerics are judged."""
        ...


class Execution(Compiled):
    """One model on one target, ready to do its task."""

    @abstractmethod
    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        """Do the whole task on a batch; return one prediction per item."""

    @abstractmethod
    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the outputs whose numerics are judged, float arrays with time first.

        They have the names of :meth:`compat.models.base.Model.trace`; a port may lack some.
        ``guide`` is the reference's prediction, which autoregressive decoders are forced to follow.
        """

    def synchronisation(self) -> tuple[float, float] | None:
        """Return the seconds of some work until it is reported done, and of one output's fetch.

        A fetch that takes long shows that the work was not done yet. None for executions whose only
        work is ``predict``, which returns results on the host.
        """
        return None


class GraphExecution(Execution):
    """A model that drives the graphs of a session."""

    def __init__(self, model: Driver, session: Session) -> None:
        self.model = model
        self.session = session

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        return self.model.run(self.session, items, stopwatch)

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        return self.model.trace(self.session, item, guide)

    def synchronisation(self) -> tuple[float, float]:
        graph = self.model.graphs()[0]
        point = next(iter(graph.points))
        feeds = {
            name: np.zeros(tensor.at(graph.points[point]), tensor.dtype)
            for name, tensor in graph.inputs.items()
        }
        started = perf_counter()
        outputs = self.session.run(graph.name, feeds, point)
        self.session.synchronize()
        ran = perf_counter()
        outputs[graph.smallest_output].numpy()
        return ran - started, perf_counter() - ran

    def placement(self) -> Placement:
        return self.session.placement()

    def executed(self) -> Mapping[str, str]:
        return self.session.executed()

    def unquantised(self) -> Collection[str]:
        return self.session.unquantised()

    def model_bytes(self) -> int:
        return self.session.model_bytes()

    def notes(self) -> Mapping[str, Any]:
        return self.session.notes()

    def device_peak_bytes(self) -> int | None:
        return self.session.device_peak_bytes()

    @property
    def crossing_s(self) -> float:
        return self.session.crossing_s

    def close(self) -> None:
        self.session.close()


def only_scheme(recipe: Recipe) -> str:
    """Return the one scheme of a recipe, for ports that run the whole model in one precision.

    Raises:
        Unsupported: the recipe gives components schemes of their own.
    """
    if "+" in recipe.name:
        raise Unsupported(f"one precision for the whole model is all it has, not {recipe.name}")
    return recipe.scheme
