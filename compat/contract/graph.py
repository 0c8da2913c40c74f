"""Graphs: the programs that a model asks a runtime to execute.

A :class:`Graph` is a float32 ``torch.nn.Module`` without complex tensors, with named inputs,
outputs and state. Shapes may name symbols (``"batch"``); a *point* gives them values, and a
runtime compiles one static program per point, when the point is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from compat.contract.model_reference import ModelReference

Point = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape and NumPy dtype name of an input; a string in the shape is a symbol of the point."""

    shape: tuple[int | str, ...]
    dtype: str = "float32"

    def at(self, point: Point) -> tuple[int, ...]:
        """Return the concrete shape at a point."""
        return tuple(point[size] if isinstance(size, str) else size for size in self.shape)


@dataclass(frozen=True, slots=True)
class State(Tensor):
    """A tensor that the graph reads and updates from call to call and that lives on the device.

    ``update`` is ``"replace"`` (the graph returns the whole new value) or ``"write"`` (it returns
    a slice of length one along ``axis``, to be written at the index given by the graph's input
    ``position``). The latter spares copying a key/value cache at every step.
    """

    initial: float = 0.0
    update: Literal["replace", "write"] = "replace"
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file in which the makers of a model ship a graph; it is executed as it is, never exported.

    Its inputs have the names of the graph's inputs and states. Its outputs are the graph's and then
    the new states, in order.
    """

    path: Path
    constants: Mapping[str, int] = field(default_factory=dict)
    """Extra inputs of the file by name, each fed with one constant int64 at every call."""
    part: str = ""
    """Name of the TorchScript submodule that is the graph; empty for the whole module."""


POSITION = "position"
"""Name of the int32 input of shape (1,) that says where ``write`` states are written."""


@dataclass(frozen=True)
class Graph:
    """One program of a model.

    The module's ``forward`` takes the inputs and then the states, positionally and in order, and
    returns a tuple of the outputs and then the new values (or slices) of the states, in order.

    Raises:
        ValueError: two of its inputs, outputs and states have one name, which no file can hold.
    """

    name: str
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    points: Mapping[str, Point]
    module: Callable[[], torch.nn.Module] = field(compare=False)
    state: Mapping[str, State] = field(default_factory=dict)
    scalar: str = ""
    """Name of a small output, whose fetch shows whether the graph had really ended."""
    large_batches: tuple[int, ...] = ()
    """Batch sizes that only a throughput sweep uses, where guides recommend them. Nothing else runs
    their points, and nothing is built for these in advance."""
    windowed: bool = False
    """Whether even a single input is run in batches, of its windows or pieces."""
    shipped: Mapping[str, Shipped] = field(default_factory=dict, compare=False)
    """Float32 files by form (``torchscript``, ``onnx``, ``openvino``: an ONNX file made for it).

    A graph that has any is executed only from these; reference and oracles use the module.
    """
    origin: ModelReference | None = field(default=None, compare=False)
    """The model that a pipeline takes this graph from, with all its points. Its exported and
    compressed files are used again."""

    def __post_init__(self) -> None:
        names = (*self.inputs, *self.outputs, *self.state)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{self.name} has two tensors of one name: {', '.join(twice)}")

    @property
    def smallest_output(self) -> str:
        """Name of the output that is cheapest to fetch; the first unless the graph says so."""
        return self.scalar or self.outputs[0]

    def batch(self, point: str) -> int:
        """Return the batch of a point; 1 where the graph's shapes name none."""
        return self.points[point].get("batch", 1)

    def other_batches(self, point: str) -> list[str]:
        """Return the points that differ from ``point`` only in ``batch``, without large batches."""

        def apart_from_batch(name: str) -> dict[str, int]:
            return {symbol: n for symbol, n in self.points[name].items() if symbol != "batch"}

        same = apart_from_batch(point)
        return [
            name
            for name, symbols in self.points.items()
            if name != point
            and symbols.get("batch") not in self.large_batches
            and apart_from_batch(name) == same
        ]

    def examples(self, point: str) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every input and state at a point, in ``forward``'s order."""
        return {
            name: (tensor.at(self.points[point]), tensor.dtype)
            for name, tensor in (*self.inputs.items(), *self.state.items())
        }


class Stopwatch:
    """Accumulates seconds per named stage of a task: ``with stopwatch("features"): …``."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.marks: dict[str, float] = {}
        """Moments within the task, in seconds from its start (``first_token``), and seconds that
        its stages include although they are no part of it (``crossing``)."""
        self._started = 0.0
        self._stage = ""

    def __call__(self, stage: str) -> Stopwatch:
        self._stage = stage
        return self

    def __enter__(self) -> Stopwatch:
        from time import perf_counter

        self._started = perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        from time import perf_counter

        elapsed = perf_counter() - self._started
        self.stages[self._stage] = self.stages.get(self._stage, 0.0) + elapsed
