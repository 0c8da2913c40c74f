"""Recipes of quantisation libraries: what is executed, and that the simulations err as they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compat import catalog
from compat.build.oracles import round_to_4_bits, round_weights
from compat.build.reference import oracle_session
from compat.build.schemes import apply_scheme, float_module
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.contract.session import Session
from compat.inputs import corpus
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.metrics import numerics
from compat.models.base import Model
from compat.runtimes.openvino import convert, oracles
from compat.runtimes.openvino.session import saturates

EMBEDDER = ModelReference("resemblyzer", "resemblyzer", "pretrained")
NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")


@pytest.fixture(scope="module")
def model() -> Model:
    return catalog.open_model(NANO)


@pytest.fixture(scope="module")
def items(model: Model) -> list[Item]:
    return corpus.load().sets["clean"].items(model.sample_rate, 3)


def open_session(target_name: str, recipe: str, reference: ModelReference = NANO) -> Session:
    loaded = catalog.load()
    target = next(t for t in loaded.targets if t.name == target_name)
    runtime = loaded.runtime(target.runtime)
    found = runtime.probe(target)
    if found.state != "here":
        pytest.skip(f"{found.reason} ({found.remedy})")
    opened = sources(reference, catalog.open_model(reference), 1)
    return runtime.compile(opened, target, Recipe(recipe), Options(1))


def snr(model: Model, session: Session, exact: Session, items: list[Item]) -> dict[str, float]:
    """Return the distance of traced outputs to exact ones in dB, by output."""
    found: list[Mapping[str, np.ndarray]] = []
    expected: list[Mapping[str, np.ndarray]] = []
    for item in items:
        (guide,) = model.run(exact, [item], Stopwatch())
        found.append(model.trace(session, item, guide))
        expected.append(model.trace(exact, item, guide))
    return {
        name: numerics.compare([e[name] for e in expected], None, [f[name] for f in found])[
            "snr_db"
        ]
        for name in found[0]
    }


RECIPES = [
    ("openvino-cpu", "int8-a8w8"),
    ("openvino-cpu", "int4-weights"),
    ("cpu-torchao", "int8-weights"),
    ("cpu-torchao", "int8-dynamic"),
    ("cpu-torchao", "int4-weights"),
    ("cpu-bitsandbytes", "int8-dynamic"),
    ("cpu-bitsandbytes", "nf4"),
]


@pytest.mark.parametrize(("target", "recipe"), RECIPES)
def test_a_recipe_errs_as_its_simulation(
    model: Model, items: list[Item], target: str, recipe: str
) -> None:
    """Neither hides a broken layer behind a poor simulation, nor is it exact by not quantising."""
    session = open_session(target, recipe)
    exact = oracle_session(model, "fp32")
    runtime = next(t.runtime for t in catalog.load().targets if t.name == target)
    simulated = snr(model, oracle_session(model, recipe, runtime), exact, items)
    executed = snr(model, session, exact, items)
    assert set(session.executed().values()) == {recipe}
    # Without VNNI a bit of each weight stays unused: 6 dB less.
    tolerance = 10 if recipe == "int8-a8w8" and saturates() else 8
    for name, decibels in executed.items():
        assert 10 < decibels < 60, (name, executed)
        assert abs(decibels - simulated[name]) < tolerance, (executed, simulated)
    fp32 = open_session(target, "fp32")
    share = session.model_bytes() / fp32.model_bytes()
    assert share < 0.6, share
    session.close()


@pytest.mark.parametrize(
    "scheme", ["fp64", "bf16", "int8-dynamic", "int8-weights", "8 bits", "4 bits"]
)
def test_weights_are_in_memory_once_until_a_graph_is_converted(model: Model, scheme: str) -> None:
    """A second copy of a large model's weights would not fit, and be measured as the runtime's."""
    encoder = model.graphs()[0]
    kept, converted = float_module(encoder), float_module(encoder)
    places = [one.data_ptr() for one in kept.parameters()]
    assert places == [one.data_ptr() for one in converted.parameters()]
    before = {name: one.clone() for name, one in kept.state_dict().items()}
    simulations = {"8 bits": round_weights, "4 bits": round_to_4_bits}
    if scheme in simulations:
        simulations[scheme](converted)
    else:
        apply_scheme(converted, scheme, torch.device("cpu"))
    torch.testing.assert_close(kept.state_dict(), before, rtol=0, atol=0)


def test_full_int8_says_what_it_was_calibrated_on() -> None:
    session = open_session("openvino-cpu", "int8-a8w8")
    said = session.notes()["calibration"]
    assert "recordings of" in said
    # Whisper is judged on these: to have been fitted to them would flatter it.
    assert "clean" not in said and "hard" not in said


def test_openvino_s_4_bits_by_hand() -> None:
    layer = torch.nn.Linear(32, 1, bias=False)
    weight = torch.zeros(1, 32)
    # The extreme of a group has the ninth step, whatever its sign: 0.8 = -8 × -0.1.
    weight[0, :4] = torch.tensor([0.8, -0.75, 0.04, 0.31])
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    oracles.round_to_4_bits(torch.nn.Sequential(layer))
    torch.testing.assert_close(layer.weight[0, :4], torch.tensor([0.8, -0.7, 0.0, 0.3]))
    assert not layer.weight[0, 4:].any()


def test_openvino_s_full_int8_rounds_inputs_too() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight = torch.nn.Parameter(torch.eye(2), requires_grad=False)
    network = oracles.round_tensors(torch.nn.Sequential(layer))
    found = network(torch.tensor([[0.0, 255.0], [0.4, 0.6]]))
    # One step for the tensor, 1: what is small beside it is rounded away.
    torch.testing.assert_close(found, torch.tensor([[0.0, 255.0], [0.0, 1.0]]))


def products_of(x: np.ndarray) -> Any:
    """Return an OpenVINO model with two convolutions over one input and a product behind them."""
    ov = pytest.importorskip("openvino")
    ops = ov.opset13
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    given = ops.parameter(list(x.shape), np.float32)
    given.output(0).set_names({"x"})
    convolved = [
        ops.convolution(given, weight(4, 1, 3), [1], [0], [0], [1], name=name)
        for name in ("first", "second")
    ]
    # What comes out of the arc tangent is of one size, whatever went in.
    bounded = ops.atan(ops.add(*convolved))
    product = ops.matmul(bounded, weight(x.shape[2] - 2, 5), False, False, name="third")
    return ov.Model([product], [given], "toy")


@pytest.mark.parametrize("batch", [1, 3])
def test_what_8_bits_destroy_is_found(batch: int) -> None:
    """A few large values among small ones: both products that take them, and no other."""
    x = np.random.default_rng(1).uniform(-1, 1, (batch, 1, 4000)).astype(np.float32)
    assert convert.too_coarse(products_of(x), [{"x": x}]) == []
    x[..., :2] = 100.0
    found = convert.too_coarse(products_of(x), [{"x": x}])
    assert sorted(found) == ["first", "second"]


def test_padding_of_a_batch_says_nothing_of_its_recordings() -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (4, 1, 4000)).astype(np.float32)
    x[1:] = 0
    assert convert.too_coarse(products_of(x), [{"x": x}]) == []


def test_recurrent_layers_stay_in_float32_under_full_int8() -> None:
    """Quantised with one scale for all gates, Resemblyzer's embeddings were noise."""
    try:
        checkpoint = str(find_checkpoint("package:Resemblyzer/resemblyzer", False))
    except CheckpointError as error:
        pytest.skip(str(error))
    reference = replace(EMBEDDER, checkpoint=checkpoint)
    model = catalog.open_model(reference)
    items = corpus.load().sets["speakers"].items(model.sample_rate, 3)
    session = open_session("openvino-cpu", "int8-a8w8", reference)
    found = model.run(session, items, Stopwatch())
    expected = model.run(oracle_session(model, "fp32"), items, Stopwatch())
    for one, other in zip(found, expected, strict=True):
        assert np.dot(one["embedding"], other["embedding"]) > 0.99
    assert session.notes()["embedder in float32"] == "recurrent layers"
