"""What a runtime is: something that compiles graphs and runs them.

A new runtime subclasses :class:`Runtime` and :class:`Session`, and writes four short methods of
the latter: ``upload``, ``execute``, ``download`` and ``placement``. State, loops, beams and
snapshots are inherited; a runtime overrides them where it can do better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Recipe
from compat.contract.graph import POSITION, Graph, State

if TYPE_CHECKING:
    from compat.contract.graph import Stopwatch
    from compat.contract.item import Item, Prediction
    from compat.contract.source import Source


class Unsupported(Exception):
    """The runtime cannot execute this recipe here; the message is the runtime's own reason."""


class Crash(Exception):
    """What executes died beside this process: a browser, its tab, a device. Nothing is left."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the compiled nodes ran: device name to share of nodes (or of time), summing to 1."""

    devices: Mapping[str, float]
    target: str
    """The name under which the target's own device appears in ``devices``."""
    method: str
    """How it is known, for instance ``execution devices of the compiled model``."""

    @property
    def share(self) -> float:
        """Share that ran on the target, 0 to 1."""
        return float(self.devices.get(self.target, 0.0))


class Handle:
    """A device-resident tensor, valid until the graph that made it runs again."""

    __slots__ = ("_session", "native")

    def __init__(self, session: Session, native: Any) -> None:
        self._session = session
        self.native = native

    def numpy(self) -> np.ndarray:
        """Copy to the host; floating-point values arrive as float32 (float64 stays)."""
        array = self._session.download(self.native)
        return array if array.dtype != np.float16 else array.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Generated:
    """The tokens of an autoregressive loop."""

    tokens: np.ndarray
    """int32 (batch, steps): what was generated after the prompt, the stop token included."""
    first_token_s: float
    """Seconds from the start of the loop to the first generated token on the host."""


class Session(ABC):
    """Compiled graphs of one model on one target, with their state."""

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self.graphs = graphs
        self._state: dict[tuple[str, str], dict[str, Any]] = {}

    # What a runtime must say -------------------------------------------------------------------

    @abstractmethod
    def upload(self, array: np.ndarray, graph: str) -> Any:
        """Make a native tensor of a host array, in the precision that ``graph`` executes."""

    @abstractmethod
    def download(self, native: Any) -> np.ndarray:
        """Copy a native tensor to the host, waiting for it."""

    @abstractmethod
    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """Run a graph on native tensors; return outputs and new states natively, in order."""

    @abstractmethod
    def placement(self) -> Placement:
        """Say which share of the nodes that ran did so on the target."""

    @abstractmethod
    def executed(self) -> Mapping[str, str]:
        """Return, per graph that ran, the scheme that it really executed (``fp32``, ``bf16``)."""

    @abstractmethod
    def model_bytes(self) -> int:
        """Size of the compiled graphs' weights, as stored on disk or held in memory."""

    # What a runtime may do better --------------------------------------------------------------

    def synchronize(self) -> None:  # noqa: B027 (an option, not a duty)
        """Wait until everything that was started has ended. Synchronous runtimes need nothing."""

    def device_peak_bytes(self) -> int | None:
        """Peak memory of the device, where it is apart from the process's own."""
        return None

    def notes(self) -> Mapping[str, Any]:
        """Return what else decides the results: ``compiler``, ``calibration``, the ``browser``."""
        return {}

    @property
    def crossing_s(self) -> float:
        """Seconds spent so far on carrying values to another process and back.

        They belong to the suite, which stands outside of where an application would be (a page),
        and are reported apart.
        """
        return 0.0

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        """Write a slice into a state buffer; return the buffer to be used from now on."""
        raise TypeError(f"{type(self).__name__} must implement write() for cached states")

    def close(self) -> None:  # noqa: B027 (an option, not a duty)
        """Release the device."""

    # What follows from it ----------------------------------------------------------------------

    def run(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, Handle]:
        """Run a graph once and update its state.

        Args:
            graph: name of the graph.
            feeds: one array or handle per input; extra handles are ignored, so that the outputs
                of one graph can be passed to the next as they are.
            point: name of the static shape point.
            fetch: outputs wanted; all of them when None.
        """
        spec = self.graphs[graph]
        inputs: dict[str, Any] = {}
        for name, tensor in spec.inputs.items():
            value = feeds[name]
            inputs[name] = (
                value.native
                if isinstance(value, Handle)
                else self.upload(np.ascontiguousarray(value, dtype=tensor.dtype), graph)
            )
        states = self._states(graph, point)
        outputs = self.execute(graph, point, {**inputs, **states})
        for (name, state), value in zip(
            spec.state.items(), outputs[len(spec.outputs) :], strict=True
        ):
            if state.update == "write":
                position = feeds[POSITION]
                assert isinstance(position, np.ndarray)
                states[name] = self.write(state, states[name], value, int(position[0]))
            else:
                states[name] = value
        named = zip(spec.outputs, outputs, strict=False)
        return {name: Handle(self, value) for name, value in named if not fetch or name in fetch}

    def loop(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        prompt: np.ndarray,
        stop: int | None,
        max_steps: int,
    ) -> Generated:
        """Run a step graph until every row has emitted ``stop``, or for ``max_steps`` tokens.

        The graph has inputs ``token`` (batch,) and ``position`` (1,) and an output
        ``next_token`` (batch,). ``prompt`` is int32 (batch, length). State is reset first.
        """
        self.reset(graph, point)
        started = perf_counter()
        first = 0.0
        generated: list[np.ndarray] = []
        token = prompt[:, 0]
        finished = np.zeros(len(prompt), dtype=bool)
        for position in range(prompt.shape[1] + max_steps - 1):
            outputs = self.run(
                graph,
                {**feeds, "token": token, POSITION: np.array([position], np.int32)},
                point,
                ("next_token",),
            )
            if position + 1 < prompt.shape[1]:
                token = prompt[:, position + 1]
                continue
            token = outputs["next_token"].numpy().astype(np.int32)
            if not generated:
                first = perf_counter() - started
            generated.append(token)
            if stop is not None:
                finished |= token == stop
                if finished.all():
                    break
        return Generated(np.stack(generated, axis=1), first)

    def scan(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        along: Mapping[str, np.ndarray],
        point: str,
        fetch: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Run a step graph along sequences that are known beforehand. State is reset first.

        Args:
            graph: name of the graph.
            feeds: the inputs that are the same at every step.
            along: the other inputs, each (steps, *shape of the input).
            point: name of the static shape point.
            fetch: outputs, and states after each step, that are wanted.

        Returns:
            Each of ``fetch``, (steps, *its shape): outputs as :meth:`Handle.numpy` has them, states
            as :meth:`snapshot` does.
        """
        self.reset(graph, point)
        found: dict[str, list[np.ndarray]] = {name: [] for name in fetch}
        states = [name for name in fetch if name in self.graphs[graph].state]
        outputs = [name for name in fetch if name not in states]
        for step in range(len(next(iter(along.values())))):
            fed = {**feeds, **{name: values[step] for name, values in along.items()}}
            made = self.run(graph, fed, point, outputs)
            for name in outputs:
                found[name].append(made[name].numpy().copy())
            kept = self.snapshot(graph, point) if states else {}
            for name in states:
                found[name].append(kept[name])
        return {name: np.stack(values) for name, values in found.items()}

    def reset(self, graph: str, point: str) -> None:
        """Give every state of a graph its initial value."""
        self._state.pop((graph, point), None)

    def snapshot(self, graph: str, point: str) -> dict[str, np.ndarray]:
        """Copy the states of a graph to the host."""
        return {name: self.download(v).copy() for name, v in self._states(graph, point).items()}

    def restore(self, graph: str, point: str, snapshot: Mapping[str, np.ndarray]) -> None:
        """Set the states of a graph from a snapshot."""
        self._state[graph, point] = {
            name: self.upload(value.copy(), graph) for name, value in snapshot.items()
        }

    def gather(self, graph: str, point: str, rows: np.ndarray) -> None:
        """Reorder the batch rows of every state (beam search); ``rows`` is int (batch,)."""
        axes = {n: s.shape.index("batch") for n, s in self.graphs[graph].state.items()}
        taken = {
            name: np.take(value, rows, axis=axes[name])
            for name, value in self.snapshot(graph, point).items()
        }
        self.restore(graph, point, taken)

    def _states(self, graph: str, point: str) -> dict[str, Any]:
        if (graph, point) not in self._state:
            spec = self.graphs[graph]
            self._state[graph, point] = {
                name: self.upload(
                    np.full(state.at(spec.points[point]), state.initial, state.dtype), graph
                )
                for name, state in spec.state.items()
            }
        return self._state[graph, point]


class Pipeline(Session):
    """A session of a runtime that owns the whole task of some families, features and text aside.

    It has no graphs to be run one by one; its outputs are judged as everybody's are.

    Raises:
        Unsupported: the recipe gives components schemes of their own.
    """

    def __init__(self, sources: Mapping[str, Source], recipe: Recipe) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        if "+" in recipe.name:
            name = recipe.name
            raise Unsupported(f"one precision for the whole model is all it has, not {name}")

    @abstractmethod
    def perform(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        """Do the whole task on a batch, as :meth:`compat.models.base.Model.run` does."""

    @abstractmethod
    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return those outputs of :meth:`compat.models.base.Model.trace` that can be had."""

    def upload(self, array: np.ndarray, graph: str) -> Any:
        raise TypeError(f"{type(self).__name__} runs no single graphs")

    def download(self, native: Any) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} runs no single graphs")

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        raise TypeError(f"{type(self).__name__} runs no single graphs")
