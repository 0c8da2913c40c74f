"""compat.build.sources: which files are built ahead, and generated weights before them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from compat.build.sources import GraphSource, build_ahead, sources
from compat.catalog import open_model
from compat.contract.graph import Graph, Tensor
from compat.contract.model_reference import ModelReference
from compat.inputs import generator as weights


def graph(name: str, windowed: bool = False) -> Graph:
    points = {
        f"b{batch}-{seconds}s": {"batch": batch, "samples": seconds}
        for seconds in (4, 8)
        for batch in (1, 4)
    }
    inputs = {"samples": Tensor(("batch", "samples"))}
    return Graph(name, inputs, ("x",), points, torch.nn.Identity, windowed=windowed)


def test_other_batches_are_of_the_same_shape_otherwise() -> None:
    assert graph("g").other_batches("b1-4s") == ["b4-4s"]
    assert graph("g").other_batches("b4-8s") == ["b1-8s"]


@pytest.mark.parametrize(
    ("variant", "windowed", "batches", "expected"),
    [
        ("whisper-nano", False, False, ["b1-4s"]),
        ("whisper-nano", True, False, ["b1-4s", "b4-4s"]),
        ("whisper-nano", False, True, ["b1-4s", "b4-4s"]),
        ("whisper-small", True, True, ["b1-4s"]),  # Twice its export would not fit everywhere.
    ],
)
def test_what_is_built_ahead(
    variant: str, windowed: bool, batches: bool, expected: list[str]
) -> None:
    reference = ModelReference("whisper", variant, "seeded")
    sources = {
        name: GraphSource(reference, graph(name, windowed), "", 2) for name in ("one", "two")
    }
    asked: list[tuple[str, str]] = []
    build_ahead(sources, lambda name, point: asked.append((name, point)), batches)
    assert sorted(asked) == sorted((name, point) for name in sources for point in expected)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (
            ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano"),
            {("encoder", "b1"), ("encoder", "b4"), ("decoder", "b1"), ("decoder", "b4")},
        ),
        (
            ModelReference("wav2vec2", "wav2vec2-nano", "trained", "checkpoints/wav2vec2-nano"),
            {("recogniser", "b1-4s"), ("recogniser", "b4-4s")},
        ),
    ],
)
def test_large_batches_are_not_built_ahead(
    reference: ModelReference, expected: set[tuple[str, str]]
) -> None:
    asked: list[tuple[str, str]] = []
    found = sources(reference, open_model(reference), 2)
    build_ahead(found, lambda name, point: asked.append((name, point)), True)
    assert sorted(asked) == sorted(expected)


def test_only_what_is_needed_at_once_may_fail_at_once() -> None:
    sources = {
        "g": GraphSource(ModelReference("whisper", "whisper-nano", "seeded"), graph("g"), "", 2)
    }

    def refuse(point: str) -> Any:
        def file(name: str, wanted: str) -> None:
            if wanted == point:
                raise RuntimeError(f"no {wanted}")

        return file

    build_ahead(sources, refuse("b4-4s"), True)
    with pytest.raises(RuntimeError, match="no b1-4s"):
        build_ahead(sources, refuse("b1-4s"), True)


@pytest.mark.parametrize("variant", ["whisper-tiny", "wav2vec2-base"])
def test_generated_weights_replace_every_initialisation(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not waited for: neither drawn, nor missed by what is generated in their place."""
    family = variant.partition("-")[0]
    before = torch.random.get_rng_state()
    found: Any = open_model(ModelReference(family, variant, "seeded"))
    state = found.network.state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.setattr(weights, "unfilled", nullcontext)
    usual: Any = open_model(ModelReference(family, variant, "seeded"))
    expected = usual.network.state_dict()
    assert not torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(values, expected[name]) for name, values in state.items())
