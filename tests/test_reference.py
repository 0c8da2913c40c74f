"""Oracles: what an honest execution of a scheme gives, against hand-computed values."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compat import catalog
from compat.build import artifacts
from compat.build.reference import SIMULATIONS, Inputs, oracle_session
from compat.build.remembering import RememberingSession
from compat.build.schemes import apply_scheme, quantise_rows
from compat.build.sources import sources
from compat.contract.graph import Graph, State, Tensor
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.named import resolve
from compat.contract.profile import BRIEF
from compat.inputs import stress
from compat.inputs.corpus import DEFAULT
from compat.measure import case_under_test, protocol
from compat.measure.request import CaseRequest
from compat.models.items import Items


def linear(weight: list[list[float]]) -> torch.nn.Module:
    layer = torch.nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight = torch.nn.Parameter(torch.tensor(weight), requires_grad=False)
    return torch.nn.Sequential(layer)


def remembering(state: bool = False) -> tuple[RememberingSession, list[float]]:
    """Return a session of a graph that doubles, and what the module was called with."""
    called: list[float] = []

    class Double(torch.nn.Module):
        def forward(self, values: torch.Tensor, *before: torch.Tensor) -> tuple[torch.Tensor, ...]:
            called.append(float(values[0]))
            return (values * 2, *(one + 1 for one in before))

    states = {"count": State(("batch",), update="replace")} if state else {}
    graph = Graph(
        "double",
        {"values": Tensor(("batch",))},
        ("twice",),
        {"b1": {"batch": 1}},
        Double,
        state=states,
    )
    device = torch.device("cpu")
    session = RememberingSession(
        {"double": graph}, {"double": Double()}, {"double": "fp32"}, device
    )
    return session, called


def test_what_is_asked_twice_is_computed_once_until_it_is_forgotten() -> None:
    session, called = remembering()
    values = torch.tensor([1.0])
    first = session.execute("double", "b1", {"values": values})[0]
    first += 5  # As a driver may, whose arrays share the memory of outputs and inputs.
    assert session.execute("double", "b1", {"values": values.clone()})[0].tolist() == [2.0]
    values += 1
    assert session.execute("double", "b1", {"values": values})[0].tolist() == [4.0]
    assert called == [1.0, 2.0]
    session.forget()
    session.execute("double", "b1", {"values": values})
    assert called == [1.0, 2.0, 2.0]


def test_graphs_with_a_state_and_large_calls_are_computed_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, called = remembering(state=True)
    feeds = {"values": torch.tensor([1.0]), "count": torch.tensor([0.0])}
    for _ in range(2):
        session.execute("double", "b1", feeds)
    assert called == [1.0, 1.0]
    monkeypatch.setattr("compat.build.remembering.ROOM", 0)
    session, called = remembering()
    for _ in range(2):
        session.execute("double", "b1", {"values": torch.tensor([1.0])})
    assert called == [1.0, 1.0]


def test_int8_rows_by_hand() -> None:
    weight, scale = quantise_rows(torch.tensor([[1.27, -0.5], [0.0, 2.54]]))
    assert weight.tolist() == [[127, -50], [0, 127]]
    np.testing.assert_allclose(scale[:, 0], [0.01, 0.02], rtol=1e-6)


def test_int8_weights_round_weights_only() -> None:
    module = resolve(SIMULATIONS["int8-weights"])(linear([[1.27, -0.504]]))
    np.testing.assert_allclose(module(torch.tensor([[1.0, 1.0]])), [[1.27 - 0.5]], rtol=1e-5)


def test_int8_dynamic_rounds_inputs_too() -> None:
    module = resolve(SIMULATIONS["int8-dynamic"])(linear([[1.0, 0.0], [0.0, 1.0]]))
    # Range 0 to 2.55 in 255 steps: 0.333 becomes 0.33.
    np.testing.assert_allclose(module(torch.tensor([[2.55, 0.333]])), [[2.55, 0.33]], rtol=1e-5)


@given(st.floats(1.0, 1.9999), st.integers(-10, 10))
def test_tf32_keeps_ten_bits_of_mantissa(mantissa: float, exponent: int) -> None:
    value = np.float32(mantissa * 2.0**exponent)
    module = resolve(SIMULATIONS["tf32"])(linear([[1.0]]))
    found = float(module(torch.tensor([[value]])))
    assert abs(found - value) <= 2.0 ** (exponent - 11) * 1.0001
    assert (found * 2.0 ** (10 - exponent)) % 1 == 0


def test_a_model_too_large_for_float64_has_a_float32_reference(
    faulty_catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path))
    monkeypatch.setattr(case_under_test, "LARGE", 0.0)
    request = CaseRequest("toy@seeded/cpu-torch/fp32", str(DEFAULT), "quick", threads=1)
    found = protocol.Protocol(asdict(request)).stage("numerics", {})
    assert found["values"]["reference"] == "fp32" and not found["faults"]
    assert {entry.arguments.get("scheme") for entry in artifacts.entries()} == {"fp32"}


@pytest.mark.parametrize(
    ("variant", "weights", "traced"), [("toy", "seeded", True), ("toy-stand-in", "trained", False)]
)
def test_hard_inputs_are_traced_only_where_traces_judge_them(
    faulty_catalog: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    weights: str,
    traced: bool,
) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path))
    reference = ModelReference("toy", variant, weights)
    inputs = Inputs(reference, str(DEFAULT), "quick", (str(stress.DEFAULT),))
    found = inputs.fetch_reference(threads=1)
    assert {item.id for item in inputs.items.stress} <= found.predictions.keys()
    names = {path.stem for path in found.folder.glob("*.npz")}
    assert {item.id for item in inputs.items.numerics} <= names
    assert traced == any(name.startswith("stress-") for name in names)


def test_an_emulator_runs_no_input_twice(
    faulty_catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path))
    ran: dict[str, list[str]] = {}
    for evidence in ("device", "emulator"):
        request = CaseRequest("toy@seeded/cpu-torch/fp32", str(DEFAULT), "quick", threads=1)
        measured = protocol.Protocol(asdict(request))
        measured.case.target = replace(measured.case.target, evidence=evidence)
        predict, here = measured.case.predict, ran.setdefault(evidence, [])

        def counted(items: Any, predict: Any = predict, here: Any = here) -> Any:
            here += [item.id for item in items]
            return predict(items)

        monkeypatch.setattr(measured.case, "predict", counted)
        measured.stage("loads", {})
        found = measured.stage("standard", {})
        assert sorted(found["seconds"]) == sorted(set(here))
    assert ran["device"] == [ran["emulator"][0], *ran["emulator"]]


def test_a_simulation_serves_its_own_runtime_alone(
    faulty_catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(faulty_catalog.runtime("torch")), "oracles", {"int8-weights": lambda module: module}
    )
    toy = ModelReference("toy", "toy", "seeded")

    def weights(recipe: str, runtime: str) -> torch.Tensor:
        session = oracle_session(catalog.open_model(toy), recipe, runtime)
        modules = session.modules.values()  # type: ignore[attr-defined]
        return torch.cat([p.flatten() for module in modules for p in module.parameters()])

    exact = weights("fp32", "")
    assert torch.equal(weights("int8-weights", "torch"), exact)
    assert not torch.equal(weights("int8-weights", "onnxruntime"), exact)


@pytest.mark.parametrize("scheme", ["int8-weights", "int8-dynamic"])
def test_the_simulation_is_what_torch_executes(scheme: str) -> None:
    """The oracle and torch's own kernels err by about as much, and in the same place."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 32)).requires_grad_(False)
    exact = layer(values := torch.randn(16, 64))
    own = {**SIMULATIONS, **catalog.load().runtime("torch").oracles}[scheme]
    simulated = resolve(own)(copy.deepcopy(layer))(values) - exact
    real = apply_scheme(copy.deepcopy(layer), scheme, torch.device("cpu"))(values) - exact
    # Of dynamic int8 PyTorch leaves a bit unused: held against 8 bits it errs nearly twice as much.
    assert 0.8 < float(real.norm() / simulated.norm()) < 1.25


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        (family.name, variant.name)
        for family in catalog.load().families
        for variant in family.variants
        # The largest take long to be generated twice, and are so by the code of the others.
        if "seeded" in variant.weights and variant.core and variant.parameters < 100
    ],
)
def test_generated_weights_do_not_depend_on_who_asks(family: str, variant: str) -> None:
    """The exporter asks without gradients, the reference with: both must get the same weights."""
    found = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            model = catalog.open_model(ModelReference(family, variant, "seeded"))
            modules = [graph.name for graph in model.graphs()]
            source = sources(ModelReference(family, variant, "seeded"), model)[modules[-1]]
            found.append(source.module().state_dict())
    assert found[0].keys() == found[1].keys()
    different = [name for name in found[0] if not torch.equal(found[0][name], found[1][name])]
    assert not different


def test_a_brief_look_keeps_what_can_be_judged() -> None:
    def item(name: str, seconds: float, **known: Any) -> Item:
        return Item.from_audio(name, np.ones(int(seconds * 100), np.float32), 100, **known)

    words = [item(f"words-{index}", 2.0, facts={"text": "one"}) for index in range(24)]
    spoken = [[0.5, 3.0, "a"], [9.0, 12.0, "b"], [11.0, 13.0, "a"]]
    talks = [item(f"talk-{i}", 30.0, facts={"segments": spoken}) for i in range(3)]
    voices = "aabbccaa"
    pairs = [
        item(
            f"pair-{i}",
            3.0,
            facts={"trials": [(f"pair-{j}", voices[i] == voices[j]) for j in range(i)]},
        )
        for i in range(len(voices))
    ]
    found = Items.of({"words": words, "talks": talks, "pairs": pairs}).brief(10.0, 2)
    assert [one.id for one in found.task["words"]] == [f"words-{i}" for i in (0, 5, 10, 14, 19)]
    (beginning,) = found.task["talks"]
    assert beginning.seconds == 10.0 and beginning.id != "talk-0"
    assert beginning.facts["segments"] == [[0.5, 3.0, "a"], [9.0, 10.0, "b"]]
    assert talks[0].facts["segments"] == spoken
    assert [one.id for one in found.task["pairs"]] == [f"pair-{i}" for i in range(4)]
    one_voice = [replace(one, facts={"trials": [("pair-0", True)]}) for one in pairs]
    assert Items.of({"pairs": one_voice}).brief(10.0, 2).task["pairs"] == one_voice
    assert len(found.numerics) == 2 and not found.stress
    assert list(found.timed) == [one for kept in found.task.values() for one in kept]
    # What is said in a part is not known: a long utterance stays whole.
    (whole,) = (
        Items.of({"long": [item("long", 30.0, facts={"text": "all"})]}).brief(10.0, 2).task["long"]
    )
    assert whole.seconds == 30.0
    generated = Items({}, words[:4], words[:6]).brief(10.0, 2)
    assert not generated.task and len(generated.timed) == 5 and len(generated.numerics) == 2
    # Windows are longer than all that is kept of a set, and yet there have to be two.
    windows = [item(f"window-{index}", 28.0) for index in range(4)]
    assert len(Items({}, windows, windows).brief(10.0, 2).numerics) == 2


@pytest.mark.parametrize(
    ("family", "variant", "weights", "count"),
    [
        ("wespeaker", "wespeaker-resnet34", "seeded", 2),
        ("whisper", "whisper-tiny", "seeded", 2),
        ("whisper", "whisper-nano", "trained", 1),
    ],
)
def test_generated_weights_have_to_tell_two_inputs_apart(
    family: str, variant: str, weights: str, count: int
) -> None:
    checkpoint = "checkpoints/whisper-nano" if weights == "trained" else ""
    reference = ModelReference(family, variant, weights, checkpoint)
    items = Inputs(reference, str(DEFAULT), BRIEF.name, ()).items
    assert len(items.numerics) == len({one.id for one in items.numerics}) == count
