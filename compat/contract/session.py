"""Sessions: the compiled graphs of one model on one target, as models run them.

A model calls :class:`Session`. A runtime usually subclasses :class:`TensorSession`, which asks for
three calls on tensors (``upload``, ``execute``, ``download``; ``write`` where a graph has states
that are written) and derives the rest; one that keeps graph and state elsewhere, as a page does,
subclasses :class:`Session`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.graph import POSITION, Graph, State


class Unsupported(CompatError):
    """The runtime cannot execute this recipe here; the message is the runtime's own reason."""

    kind = "unsupported"


class Crash(CompatError):
    """A browser, its tab or a device outside this process died, and what it held is lost."""

    kind = "crashed"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the compiled nodes ran: the share of nodes (or of time) by device, summing to 1."""

    devices: Mapping[str, float]
    target: str
    """The name under which the target's own device appears in ``devices``."""
    method: str
    """Source of the shares, for instance ``execution devices of the compiled model``."""

    @property
    def share(self) -> float:
        """Share that ran on the target, 0 to 1."""
        return float(self.devices.get(self.target, 0.0))


class Handle:
    """A device-resident tensor, valid until the graph that made it runs again.

    It may be fed to any graph, even to the one that made it.
    """

    __slots__ = ("_download", "native")

    def __init__(self, native: Any, download: Callable[[Any], np.ndarray]) -> None:
        self.native = native
        self._download = download

    def numpy(self) -> np.ndarray:
        """Copy to the host; floating-point values arrive as float32 (float64 stays)."""
        array = self._download(self.native)
        return array if array.dtype != np.float16 else array.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Steps:
    """The result of :meth:`Session.steps`."""

    outputs: Mapping[str, np.ndarray]
    """Fetched outputs, each (steps, *its shape); the steps of a prompt are not among them."""
    last: Mapping[str, Handle]
    """The outputs of the last step, on the device."""
    count: int
    """Number of steps that ran, including those of a prompt."""
    first_s: float
    """Seconds from the start until the first fetched outputs were on the host; 0 without any."""


class Compiled(ABC):
    """A compiled model or graph on a target: it tells where and how it ran, and can be released."""

    @abstractmethod
    def placement(self) -> Placement:
        """Return which share of the nodes that ran did so on the target."""

    @abstractmethod
    def executed(self) -> Mapping[str, str]:
        """Return, per graph that ran, the scheme that it really executed (``fp32``, ``bf16``)."""

    def unquantised(self) -> Collection[str]:
        """Return the graphs in which an integer recipe found nothing that it quantises.

        The answer is read from the compiled graph, not from the recipe: a scheme for products of
        matrices leaves a graph of convolutions as it was.
        """
        return ()

    @abstractmethod
    def model_bytes(self) -> int:
        """Return the size of the compiled weights, as stored on disk or held in memory."""

    def notes(self) -> Mapping[str, Any]:
        """Return other facts that affect results: ``compiler``, ``calibration``, ``browser``."""
        return {}

    def device_peak_bytes(self) -> int | None:
        """Return the peak memory of the device in bytes; None if it shares the process's memory."""
        return None

    @property
    def crossing_s(self) -> float:
        """Seconds spent so far on carrying values to another process and back.

        They are reported apart, because only the suite causes them: an application would run inside
        that process (a page).
        """
        return 0.0

    def close(self) -> None:  # noqa: B027 (an option, not a duty)
        """Release the device."""


class Session(Compiled):
    """The compiled graphs of one model with their states; the model calls it."""

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self.graphs = graphs

    @abstractmethod
    def run(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, Handle]:
        """Run a graph once and update its states.

        Args:
            graph: name of the graph.
            feeds: one array or handle per input; extra handles are ignored, so that the outputs
                of one graph can be passed to the next as they are.
            point: name of the static shape point.
            fetch: outputs wanted; all of them when None.
        """

    @abstractmethod
    def reset(self, graph: str, point: str) -> None:
        """Give every state of a graph its initial value."""

    @abstractmethod
    def snapshot(self, graph: str, point: str) -> dict[str, np.ndarray]:
        """Copy the states of a graph to the host."""

    @abstractmethod
    def restore(self, graph: str, point: str, snapshot: Mapping[str, np.ndarray]) -> None:
        """Set the states of a graph from a snapshot."""

    def synchronize(self) -> None:
        """Wait until all started work has ended; synchronous runtimes need no implementation."""

    def gather(self, graph: str, point: str, rows: np.ndarray) -> None:
        """Reorder the batch rows of every state (beam search); ``rows`` is int (batch,)."""
        axes = {n: s.shape.index("batch") for n, s in self.graphs[graph].state.items()}
        states = {
            name: np.take(value, rows, axis=axes[name])
            for name, value in self.snapshot(graph, point).items()
        }
        self.restore(graph, point, states)

    def steps(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        count: int,
        *,
        along: Mapping[str, np.ndarray] | None = None,
        carry: Mapping[str, str] | None = None,
        stop: tuple[str, int] | None = None,
        fetch: Sequence[str] = (),
    ) -> Steps:
        """Run a graph ``count`` times from its initial states, as decoders and samplers do.

        At step ``i`` (from 0) an input takes the first of these that exists: ``along[i]``; the
        output that it carries, from the step before; its value in ``feeds``.

        A carried input that is also in ``along`` is *forced* first, as by a decoder's prompt of
        ``n`` tokens. The last of them is fed at step ``n - 1``, whose outputs are the first answer.
        Outputs of the steps before are not fetched and cannot stop the run.

        ======================  ================================================================
        autoregressive decoder  ``along={"token": prompt, "position": arange}``,
                                ``carry={"token": "next_token"}``, ``stop=("next_token", end)``
        forced decoder          ``along={"token": tokens, "position": arange}``
        recurrence over chunks  ``along={"input": chunks}``
        diffusion               ``feeds={"latent": noise}``, ``along={"time": times}``,
                                ``carry={"latent": "denoised"}``; the answer is ``last["denoised"]``
        ======================  ================================================================

        Args:
            graph: name of the graph.
            feeds: arrays or handles of inputs that stay the same, and first values of carried ones.
            point: name of the static shape point.
            count: number of all steps, including those of a prompt.
            along: values of inputs step by step, each (steps, *shape of the input). There are at
                least ``count`` of them, but for a carried input at most ``count``.
            carry: input to the output that it takes from the step before. Both have one shape and
                dtype; the value stays on the device.
            stop: an output and a value. The run ends after the step at which every row (first
                axis) of that output has been nothing but this value once: for (batch,) a token,
                for (batch, 4) four equal codes. The output is fetched.
            fetch: outputs, and states after each step, that are copied to the host.

        Raises:
            ValueError: ``along`` has too few values, or more of a carried input than steps.
        """
        along, carry = along or {}, carry or {}
        prompt = prompt_steps(count, along, carry)
        wanted = fetched(fetch, stop)
        states = [name for name in wanted if name in self.graphs[graph].state]
        outputs = [name for name in wanted if name not in states]
        rows: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        last: dict[str, Handle] = {}
        ended: np.ndarray | bool = False
        first_s, step = 0.0, 0
        self.reset(graph, point)
        started = perf_counter()
        for step in range(count):
            carried = {name: last[output] for name, output in carry.items() if last}
            given = {name: values[step] for name, values in along.items() if step < len(values)}
            last = self.run(graph, {**feeds, **carried, **given}, point)
            if step < prompt:
                continue
            for name in outputs:
                rows[name].append(last[name].numpy().copy())
            for name, value in (self.snapshot(graph, point) if states else {}).items():
                if name in states:
                    rows[name].append(value)
            if step == prompt and wanted:
                first_s = perf_counter() - started
            if stop is not None:
                answer = rows[stop[0]][-1]
                ended = ended | (answer.reshape(len(answer), -1) == stop[1]).all(axis=1)
                if np.all(ended):
                    break
        return Steps({name: np.stack(r) for name, r in rows.items()}, last, step + 1, first_s)


def prompt_steps(count: int, along: Mapping[str, np.ndarray], carry: Mapping[str, str]) -> int:
    """Return how many steps come before the first answer; check the arguments of ``steps``.

    Raises:
        ValueError: ``along`` has too few values, or more of a carried input than steps.
    """
    for name, values in along.items():
        if name in carry and len(values) > count:
            raise ValueError(f"{len(values)} values of the prompt {name} for {count} steps")
        if name not in carry and len(values) < count:
            raise ValueError(f"{len(values)} values along {name} for {count} steps")
    if count < 1:
        raise ValueError(f"{count} steps: one is the fewest")
    return max([len(along[name]) - 1 for name in carry if name in along], default=0)


def fetched(fetch: Sequence[str], stop: tuple[str, int] | None) -> list[str]:
    """Return the outputs that ``steps`` copies to the host: ``fetch``, and the one of ``stop``."""
    return list(dict.fromkeys((*fetch, *(stop[:1] if stop else ()))))


class TensorSession(Session):
    """A session on a runtime's own tensors; a runtime implements the abstract methods.

    Raises:
        TypeError: a graph has states that are written, and the class has no ``write``.
    """

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        super().__init__(graphs)
        self._state: dict[tuple[str, str], dict[str, Any]] = {}
        written = [
            name
            for name, graph in graphs.items()
            if any(state.update == "write" for state in graph.state.values())
        ]
        if written and type(self).write is TensorSession.write:
            raise TypeError(
                f"{type(self).__name__} must implement write(): {', '.join(written)} has states "
                "that are written by slice"
            )

    # What a runtime must say -------------------------------------------------------------------

    @abstractmethod
    def upload(self, array: np.ndarray, graph: str) -> Any:
        """Return a native tensor of a host array, in the precision that ``graph`` executes."""

    @abstractmethod
    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """Run a graph on native tensors; return outputs and new states natively, in order.

        An input may be an output of the graph's last run. A runtime that reuses the memory of
        outputs must not overwrite such an input while it reads it.
        """

    @abstractmethod
    def download(self, native: Any) -> np.ndarray:
        """Copy a native tensor to the host, after waiting for its computation."""

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        """Write a slice into a state buffer; return the buffer to be used from now on.

        A class whose graphs have such states must implement it; the constructor checks that.
        """
        raise NotImplementedError

    # What follows from these -------------------------------------------------------------------

    def run(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, Handle]:
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
        return {n: Handle(v, self.download) for n, v in named if not fetch or n in fetch}

    def reset(self, graph: str, point: str) -> None:
        self._state.pop((graph, point), None)

    def snapshot(self, graph: str, point: str) -> dict[str, np.ndarray]:
        return {name: self.download(v).copy() for name, v in self._states(graph, point).items()}

    def restore(self, graph: str, point: str, snapshot: Mapping[str, np.ndarray]) -> None:
        self._state[graph, point] = {
            name: self.upload(value.copy(), graph) for name, value in snapshot.items()
        }

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
