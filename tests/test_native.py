"""Runtimes that own the whole of Whisper, held against PyTorch on the same weights and audio."""

from __future__ import annotations

import platform
from importlib import metadata
from importlib.util import find_spec

import numpy as np
import pytest

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.execution import Execution
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.contract.session import Unsupported
from compat.inputs.corpus import load
from compat.models.whisper import SEEDED_TOKENS, WhisperModel
from compat.runtimes import installed
from compat.runtimes.whisper import checkpoint, mlx

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
TINY = ModelReference("whisper", "whisper-tiny", "seeded")
MODULES = {
    "cpu-openai-whisper": "whisper",
    "cpu-mlx": "mlx_whisper",
    "cpu-faster-whisper": "faster_whisper",
}


def open_port(reference: ModelReference, target_name: str, recipe: str = "fp32") -> Execution:
    if find_spec(MODULES[target_name]) is None:
        pytest.skip(f"{MODULES[target_name]} is not installed")
    loaded = catalog.load()
    target = next(t for t in loaded.targets if t.name == target_name)
    model = catalog.open_model(reference)
    opened = sources(reference, model, 1)
    return loaded.runtime(target.runtime).open(model, opened, target, Recipe(recipe), Options(1))


def item_of(model: WhisperModel) -> Item:
    """Return the longest of some recordings."""
    items = load().sets["clean"].items(model.sample_rate, 12)
    return max(items, key=lambda one: one.seconds)


def follows(execution: Execution, reference: ModelReference, tolerance: float = 1e-3) -> None:
    """Hold traces against PyTorch's, along tokens that it chose and along others."""
    model = catalog.open_model(reference)
    oracle = oracle_session(model, "fp32")
    item = item_of(model)  # type: ignore[arg-type]
    tokens = list(range(300, 306))
    for forced in ({"tokens": tokens}, {"tokens": tokens[::-1]}):
        expected = model.trace(oracle, item, forced)
        found = execution.trace(item, forced)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(array, expected[name], atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("name", ["ctranslate2", "openai-whisper", "mlx"])
def test_components_cannot_differ(name: str) -> None:
    """Refused by what all ports share, before anything is converted."""
    runtime = catalog.load().runtime(name)
    model = catalog.open_model(NANO)
    if not all(find_spec(one.split(".")[0]) for one in runtime.modules):
        pytest.skip(f"{name} is not installed")
    with pytest.raises(Unsupported, match=r"one precision .* not fp32\+fp16-decoder"):
        runtime.open(model, {}, runtime.targets[0], Recipe("fp32+fp16-decoder"), Options(1))


# openai-whisper --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("model.encoder.conv1.weight", "encoder.conv1.weight"),
        ("model.encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("model.encoder.layers.3.self_attn.q_proj.bias", "encoder.blocks.3.attn.query.bias"),
        ("model.encoder.layers.0.self_attn_layer_norm.bias", "encoder.blocks.0.attn_ln.bias"),
        ("model.encoder.layers.0.fc1.weight", "encoder.blocks.0.mlp.0.weight"),
        ("model.encoder.layer_norm.weight", "encoder.ln_post.weight"),
        ("model.decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
        (
            "model.decoder.layers.0.encoder_attn.out_proj.weight",
            "decoder.blocks.0.cross_attn.out.weight",
        ),
        (
            "model.decoder.layers.0.encoder_attn_layer_norm.weight",
            "decoder.blocks.0.cross_attn_ln.weight",
        ),
        ("model.decoder.layers.0.final_layer_norm.bias", "decoder.blocks.0.mlp_ln.bias"),
        ("model.decoder.layer_norm.bias", "decoder.ln.bias"),
    ],
)
def test_names_are_those_of_openai(theirs: str, ours: str) -> None:
    assert checkpoint.openai_name(theirs) == ours


# It leaves the file with its vocabulary to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_openai_whisper_computes_what_pytorch_does() -> None:
    execution = open_port(TINY, "cpu-openai-whisper")
    follows(execution, TINY)
    item = item_of(execution.host)  # type: ignore[attr-defined]
    stopwatch = Stopwatch()
    (found,) = execution.predict([item], stopwatch)
    assert len(found["tokens"]) == SEEDED_TOKENS and found["level"] > 0
    # A window of generated weights may not end by itself, whatever its tokens are.
    assert execution.host.vocabulary.end in execution.options.suppress_tokens  # type: ignore[attr-defined]
    assert {"features", "encoder", "decoder"} <= stopwatch.stages.keys()
    assert execution.placement().share == 1.0 and execution.executed() == {"model": "fp32"}
    assert execution.model_bytes() > 4 * 37_000_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_openai_whisper_refuses_another_tokenizer() -> None:
    with pytest.raises(Unsupported, match="tokenizers of the published sizes"):
        open_port(NANO, "cpu-openai-whisper")


def test_absent_and_broken_packages_have_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = installed.installed("no-such-package", "json", "pip install it")
    assert absent is not None and (absent.state, absent.remedy) == ("absent", "pip install it")
    monkeypatch.setattr(metadata, "version", lambda name: "1")
    broken = installed.installed("it", "no_such_module", "pip install it")
    assert broken is not None and broken.state == "broken" and "no_such_module" in broken.reason
    assert installed.installed("it", "json", "pip install it") is None


# faster-whisper --------------------------------------------------------------------------------


@pytest.mark.parametrize(("recordings", "together"), [(1, 8), (4, 8), (16, 16)])
def test_faster_whisper_decodes_a_batch_in_one(
    recordings: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own default in ordinary runs; a sweep that gives it more gets a batch of as many."""
    execution = open_port(NANO, "cpu-faster-whisper")
    pipeline = execution.pipeline  # type: ignore[attr-defined]
    transcribe, asked = pipeline.transcribe, []

    def recorded(*arguments: object, **options: object) -> object:
        asked.append(options["batch_size"])
        return transcribe(*arguments, **options)

    monkeypatch.setattr(pipeline, "transcribe", recorded)
    items = load().sets["clean"].items(execution.host.sample_rate, recordings)  # type: ignore[attr-defined]
    assert len(execution.predict(items, Stopwatch())) == recordings
    assert asked == [together]


# MLX -------------------------------------------------------------------------------------------


def test_mlx_hears_what_pytorch_does() -> None:
    execution = open_port(NANO, "cpu-mlx")
    follows(execution, NANO)
    model = catalog.open_model(NANO)
    items = load().sets["clean"].items(model.sample_rate, 3)
    expected = model.run(oracle_session(model, "fp32"), items, Stopwatch())
    found = execution.predict(items, Stopwatch())
    assert [one["tokens"] for one in found] == [one["tokens"] for one in expected]
    assert execution.placement().share == 1.0 and execution.executed() == {"model": "fp32"}


def test_mlx_s_int8_is_the_one_that_is_simulated() -> None:
    execution = open_port(NANO, "cpu-mlx", "int8-weights")
    assert execution.executed() == {"model": "int8-weights"}
    assert execution.model_bytes() < 2_000_000
    model = catalog.open_model(NANO)
    item = item_of(model)  # type: ignore[arg-type]
    forced = {"tokens": list(range(300, 306))}
    found = execution.trace(item, forced)["encoder"]
    exact = model.trace(oracle_session(model, "fp32"), item, forced)["encoder"]
    simulated = model.trace(oracle_session(model, "int8-weights", "mlx"), item, forced)
    error = np.abs(simulated["encoder"] - exact).max()
    assert 0 < np.abs(found - simulated["encoder"]).max() < 0.3 * error


def test_mlx_is_absent_where_its_wheels_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {target.name: target for target in mlx.RUNTIME.targets}
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    old = mlx.RUNTIME.probe(targets["cpu-mlx"])
    assert old.state == "absent" and "glibc 2.35" in old.reason and "Debian 12" in old.remedy
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert mlx.RUNTIME.probe(targets["mps-mlx"]).state == "absent"
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert mlx.RUNTIME.probe(targets["cpu-mlx"]).remedy
