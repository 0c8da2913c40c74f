"""The one loop that steps a graph, on a session in NumPy whose every call is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from compat.contract.case import Recipe
from compat.contract.execution import only_scheme
from compat.contract.graph import Graph, State, Tensor
from compat.contract.session import Placement, TensorSession, Unsupported


class InNumPy(TensorSession):
    """Adds its inputs and its state; keeps what it was fed."""

    def __init__(self, *shape: int, states: Mapping[str, State] | None = None) -> None:
        inputs = {"x": Tensor(shape, "int32"), "y": Tensor(shape, "int32")}
        graph = Graph("g", inputs, ("next_x",), {"p": {}}, lambda: None, states or {})
        super().__init__({"g": graph})
        self.fed: list[dict[str, Any]] = []
        self.uploads = 0

    def upload(self, array: np.ndarray, graph: str) -> Any:
        self.uploads += 1
        return array

    def download(self, native: Any) -> np.ndarray:
        return np.asarray(native)

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        self.fed.append(dict(inputs))
        total = sum(inputs.values())
        return [total] * (1 + len(self.graphs["g"].state))

    def placement(self) -> Placement:
        raise NotImplementedError

    def executed(self) -> Mapping[str, str]:
        raise NotImplementedError

    def model_bytes(self) -> int:
        raise NotImplementedError


def ints(*rows: Any) -> np.ndarray:
    return np.array(rows, np.int32)


def test_an_input_is_fed_along_then_carried_then_as_it_was() -> None:
    session = InNumPy(1)
    along = {"y": ints([1], [2], [3])}
    steps = session.steps("g", {"x": ints(10)}, "p", 3, along=along, carry={"x": "next_x"})
    assert [feed["x"].item() for feed in session.fed] == [10, 11, 13]
    assert (steps.last["next_x"].numpy().item(), steps.count) == (16, 3)
    assert not steps.outputs and steps.first_s == 0.0
    assert session.uploads == 4, "the first value and what comes along: nothing that is carried"


def test_a_prompt_is_forced_before_anything_is_fetched() -> None:
    session = InNumPy(1)
    steps = session.steps(
        *("g", {"y": ints(1)}, "p", 5),
        along={"x": ints([5], [7], [9])},
        carry={"x": "next_x"},
        stop=("next_x", 8),
        fetch=("next_x",),
    )
    assert [feed["x"].item() for feed in session.fed] == [5, 7, 9, 10, 11]
    # The answer to the second token of the prompt, an 8, is neither fetched nor does it stop.
    assert steps.outputs["next_x"].tolist() == [[10], [11], [12]]
    assert steps.first_s > 0


def test_states_begin_anew_and_are_fetched_after_each_step() -> None:
    session = InNumPy(1, states={"s": State((1,), "int32", initial=100)})
    for _ in range(2):
        steps = session.steps("g", {"x": ints(1), "y": ints(1)}, "p", 2, fetch=("s", "next_x"))
        assert steps.outputs["s"].tolist() == [[102], [104]]
        assert list(steps.outputs) == ["s", "next_x"]


@pytest.mark.parametrize(
    ("shape", "first", "stop", "count"),
    [
        # Rows that reach 3 at the first and at the third step.
        ((2,), [2, 0], 3, 3),
        # A row of codes has ended once all of them are the value at one step.
        ((2, 2), [[2, 2], [1, 1]], 3, 2),
        ((2, 2), [[2, 2], [2, 1]], 3, 6),
        ((2,), [2, 9], 3, 6),
    ],
)
def test_a_run_ends_when_every_row_has(
    shape: tuple[int, ...], first: list[Any], stop: int, count: int
) -> None:
    session = InNumPy(*shape)
    feeds = {"x": ints(*first), "y": np.ones(shape, np.int32)}
    steps = session.steps("g", feeds, "p", 6, carry={"x": "next_x"}, stop=("next_x", stop))
    assert steps.count == len(steps.outputs["next_x"]) == len(session.fed) == count


@pytest.mark.parametrize(
    ("along", "count", "message"),
    [
        ({"y": ints([1])}, 2, "1 values along y for 2 steps"),
        ({"x": ints([1], [2], [3])}, 2, "3 values of the prompt x for 2 steps"),
        ({}, 0, "0 steps"),
    ],
)
def test_values_are_as_many_as_steps(along: dict[str, Any], count: int, message: str) -> None:
    session = InNumPy(1)
    with pytest.raises(ValueError, match=message):
        session.steps(
            *("g", {"x": ints(1), "y": ints(1)}, "p", count), along=along, carry={"x": "next_x"}
        )
    assert not session.fed


def test_a_session_that_cannot_write_takes_no_caches() -> None:
    with pytest.raises(TypeError, match=r"InNumPy must implement write\(\): g has states"):
        InNumPy(1, states={"cache": State((1, 4), "int32", update="write", axis=1)})

    class Writes(InNumPy):
        def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
            return buffer

    Writes(1, states={"cache": State((1, 4), "int32", update="write", axis=1)})


def test_names_in_a_graph_are_told_apart() -> None:
    with pytest.raises(ValueError, match="g has two tensors of one name: x"):
        Graph("g", {"x": Tensor((1,))}, ("x",), {"p": {}}, lambda: None)


def test_a_port_has_one_scheme() -> None:
    assert only_scheme(Recipe("fp16")) == "fp16"
    with pytest.raises(Unsupported, match=r"one precision .* not fp32\+fp16-decoder"):
        only_scheme(Recipe("fp32+fp16-decoder"))
