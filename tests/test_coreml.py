"""Core ML: what converts, how small it gets, and how exact the converted program is."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.catalog import open_model
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.model_reference import ModelReference
from compat.contract.named import resolve
from compat.contract.runtime import Options
from compat.inputs.corpus import load
from compat.metrics.numerics import compare
from compat.runtimes.coreml import oracles
from compat.runtimes.coreml import runtime as coreml
from compat.runtimes.coreml.mil import Program

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
RUNTIME = coreml.RUNTIME
TARGETS = {target.name: target for target in RUNTIME.targets}
CONVERSION = TARGETS["coreml-conversion"]


def installed() -> bool:
    try:
        metadata.version("coremltools")
    except metadata.PackageNotFoundError:
        return False
    return sys.platform == "linux"


needs_tools = pytest.mark.skipif(not installed(), reason=f"no conversion here: {coreml.INSTALL}")


@pytest.fixture
def cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(cache_folder))


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_conversion_stands_in_where_core_ml_is_not(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one is present the other is absent, and says which to use."""
    monkeypatch.setattr(coreml.sys, "platform", platform)
    for name, target in TARGETS.items():
        if (platform == "darwin") == (target.evidence == "conversion"):
            found = RUNTIME.probe(target)
            assert found.state == "absent" and found.remedy, name


def test_absent_and_broken_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml.sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "coremltools", None)
    monkeypatch.setattr(coreml.metadata, "version", lambda name: "9.0")
    assert RUNTIME.probe(CONVERSION).state == "broken"

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(coreml.metadata, "version", version)
    found = RUNTIME.probe(CONVERSION)
    assert found.state == "absent" and found.remedy == coreml.INSTALL


@needs_tools
def test_whisper_converts_and_transcribes_as_the_reference_does(cache: None) -> None:
    model = open_model(NANO)
    session = RUNTIME.compile(sources(NANO, model, 2), CONVERSION, Recipe("fp16"), Options(2))
    item = load().sets["clean"].items(model.sample_rate, 1)[0]
    reference = oracle_session(model, "fp32")
    (guide,) = model.run(reference, [item], Stopwatch())
    (found,) = model.run(session, [item], Stopwatch())
    assert found["text"] == guide["text"] and found["text"]
    expected, traced = model.trace(reference, item, guide), model.trace(session, item, guide)
    for name, array in traced.items():
        assert 40 < compare([expected[name]], None, [array])["snr_db"] < 90, name
    assert set(session.executed().values()) == {"fp16"}
    assert "coremltools" in session.notes()["compiler"]
    session.close()


@needs_tools
def test_compressed_weights_are_smaller_and_as_coarse_as_they_say(cache: None) -> None:
    model = open_model(NANO)
    opened = {"decoder": sources(NANO, model, 2)["decoder"]}
    graph = opened["decoder"].graph
    generator = np.random.default_rng(0)
    feeds = {
        name: generator.standard_normal(shape).astype(dtype) * 0.3
        if dtype == "float32"
        else np.full(shape, 3, dtype)
        for name, (shape, dtype) in graph.examples("b1").items()
    }
    expected = oracle_session(model, "fp64").run("decoder", feeds, "b1")["logits"].numpy()
    size, error = {}, {}
    for recipe in coreml.RECIPES:
        session = RUNTIME.compile(opened, CONVERSION, Recipe(recipe), Options(2))
        logits = session.run("decoder", feeds, "b1")["logits"].numpy()
        size[recipe] = session.model_bytes()
        error[recipe] = np.linalg.norm(logits - expected) / np.linalg.norm(expected)
        assert dict(session.executed()) == {"decoder": recipe}
        if recipe in RUNTIME.oracles:
            oracle = oracle_session(model, recipe, "coreml")
            honest = oracle.run("decoder", feeds, "b1")["logits"].numpy()
            own = np.linalg.norm(honest - expected) / np.linalg.norm(expected)
            assert error[recipe] < 3 * own, "worse than weights of so many bits need to be"
            assert error[recipe] > own / 3, "weights that are better than their bits"
        session.close()
    assert size["int8-linear"] < 0.7 * size["fp16"]
    assert size["int4-palettized"] < size["int8-palettized-6bit"] < size["int8-palettized"]
    assert error["fp16"] < error["int8-palettized"] < error["int8-palettized-6bit"]
    assert error["int8-palettized-6bit"] < error["int4-palettized"]


@needs_tools
def test_a_broken_palette_shows(cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged is what the package holds: one table of weights upside down is seen."""
    model = open_model(NANO)
    opened = {"encoder": sources(NANO, model, 2)["encoder"]}
    session = RUNTIME.compile(opened, CONVERSION, Recipe("int8-palettized"), Options(2))
    program: Program = session._programs["encoder", "b1"]
    mel = np.random.default_rng(0).standard_normal(opened["encoder"].graph.examples("b1")["mel"][0])
    before = session.run("encoder", {"mel": mel}, "b1")["hidden"].numpy()
    weights = {n: v for n, v in program._constants.items() if v.is_floating_point()}
    name, table = max(weights.items(), key=lambda pair: pair[1].numel())
    program._constants[name] = -table
    after = session.run("encoder", {"mel": mel}, "b1")["hidden"].numpy()
    assert compare([before], None, [after])["snr_db"] < 20
    session.close()


def test_tables_of_the_oracle_are_as_good_as_k_means_gets() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(128, 128).requires_grad_(False)

    def error() -> float:
        exact = layer.weight.detach().clone()
        found = oracles.palettize_4(torch.nn.Sequential(layer))[0].weight
        assert len(found.unique()) == 16
        return float((found - exact).pow(2).mean().sqrt())

    # Uniform weights: sixteen equal steps are the best, and err by a twelfth of one squared.
    step = float(layer.weight.max() - layer.weight.min()) / 16
    assert error() < 1.01 * step / 12**0.5
    # Normal ones: the best sixteen values err by 0.009497 of the variance (Max, 1960).
    torch.nn.init.normal_(layer.weight)
    spread = float(layer.weight.std())
    assert error() < 1.005 * spread * 0.009497**0.5


def test_what_lies_far_out_has_entries_of_its_own() -> None:
    """The largest weights of Resemblyzer's first layer are 44 times their standard deviation."""
    torch.manual_seed(0)
    most = torch.randn(3, 608)
    far = torch.linspace(20, 44, 16) * torch.tensor([[1.0], [-1.0], [5.0]])
    rows = torch.cat((most, far, -far), dim=1)

    def error(rows: torch.Tensor, bits: int) -> torch.Tensor:
        return (oracles._looked_up(rows, bits) - rows).norm(dim=1)

    # With 32 entries for those that lie far out, the others have 32.
    assert (error(rows, 6) < 1.05 * error(most, 5)).all()


def test_small_tensors_are_left_alone() -> None:
    layer = torch.nn.Linear(16, 16)
    exact = layer.weight.detach().clone()
    for simulation in RUNTIME.oracles.values():
        torch.testing.assert_close(resolve(simulation)(layer).weight, exact, rtol=0, atol=0)
