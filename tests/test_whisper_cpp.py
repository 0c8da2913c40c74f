"""whisper.cpp, held against PyTorch on the same weights and audio; files with planted defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_whisper import save

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.contract.session import Session, Unsupported
from compat.inputs.corpus import load
from compat.models.whisper import WhisperModel
from compat.runtimes.whisper import ggml

pytest.importorskip("_pywhispercpp")
gguf = pytest.importorskip("gguf")
from compat.runtimes.whisper import whisper_cpp  # noqa: E402 (after the packages are there)

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
TOKENS = [30, 300, 31, 301, 40, 302]
RATIO = 3.0
"""Times the error of its oracle that a sound recipe may have: the limit of quantised schemes."""
SOUND_DB = 45.0
"""The limit of half precision."""


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    opened = catalog.open_model(NANO)
    assert isinstance(opened, WhisperModel)
    return opened


@pytest.fixture(scope="module")
def item(model: WhisperModel) -> Item:
    return load().sets["clean"].items(model.sample_rate, 1)[0]


@pytest.fixture(scope="module")
def expected(model: WhisperModel, item: Item) -> np.ndarray:
    session = oracle_session(model, "fp32")
    return model.trace(session, item, {"tokens": TOKENS})["logits"]


def execution(reference: ModelReference, recipe: str) -> whisper_cpp.WhisperCppExecution:
    opened = catalog.open_model(reference)
    target = whisper_cpp.RUNTIME.targets[0]
    made = whisper_cpp.RUNTIME.open(
        opened, sources(reference, opened, 1), target, Recipe(recipe), Options(1)
    )
    assert isinstance(made, whisper_cpp.WhisperCppExecution)
    return made


def decibels(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()))


def ratio(found: np.ndarray, oracle: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(oracle - expected))


def oracle_logits(model: WhisperModel, item: Item, recipe: str) -> np.ndarray:
    session = oracle_session(model, recipe, "whisper-cpp")
    return model.trace(session, item, {"tokens": TOKENS})["logits"]


def test_half_precision_computes_what_pytorch_does(
    model: WhisperModel, item: Item, expected: np.ndarray
) -> None:
    opened = execution(NANO, "fp16")
    assert decibels(opened.trace(item, {"tokens": TOKENS})["logits"], expected) > SOUND_DB
    # Tokens are those that are forced, and nothing of the last time is left behind.
    other = opened.trace(item, {"tokens": TOKENS[::-1]})["logits"]
    assert decibels(other[2:], expected[2:]) < SOUND_DB
    assert decibels(opened.trace(item, {"tokens": TOKENS})["logits"], expected) > SOUND_DB
    items = load().sets["clean"].items(model.sample_rate, 4)
    session: Session = oracle_session(model, "fp32")
    stopwatch = Stopwatch()
    answers = opened.predict(items, stopwatch)
    assert [one["text"] for one in answers] == [
        one["text"] for one in model.run(session, items, Stopwatch())
    ]
    assert {"features", "encoder", "decoder", "text"} <= stopwatch.stages.keys()
    assert opened.placement().share == 1.0 and opened.executed() == {"model": "fp16"}
    opened.close()


@pytest.mark.parametrize("recipe", [scheme for scheme in ggml.KINDS if scheme != "fp16"])
def test_quantised_schemes_err_as_their_oracles_do(
    model: WhisperModel, item: Item, expected: np.ndarray, recipe: str
) -> None:
    opened = execution(NANO, recipe)
    found = opened.trace(item, {"tokens": TOKENS})["logits"]
    oracle = oracle_logits(model, item, recipe)
    assert 1 / RATIO < ratio(found, oracle, expected) < RATIO
    assert opened.executed() == {"model": recipe}
    bits = {"q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_0": 4.5}[recipe.partition("-")[2]]
    half = execution(NANO, "fp16").model_bytes()
    assert bits / 16 < opened.model_bytes() / half < 1.25 * bits / 16 + 0.25
    opened.close()


@pytest.mark.parametrize("scheme", [scheme for scheme in ggml.KINDS if scheme != "fp16"])
def test_oracles_round_as_the_format_does(scheme: str) -> None:
    values = torch.randn(7, 3 * ggml.BLOCK, generator=torch.Generator().manual_seed(1))
    values[0, : ggml.BLOCK] = 0
    kind = gguf.GGMLQuantizationType[ggml.KINDS[scheme].name]
    theirs = gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), kind), kind)
    ours = ggml.round_blocks(values, scheme).numpy()
    # A value half-way between two steps may go either way.
    assert np.isclose(ours, theirs, atol=2e-3).mean() > 0.995


# Planted defects ---------------------------------------------------------------------------------


def traced(path: Path, model: WhisperModel, item: Item) -> np.ndarray:
    context = whisper_cpp.Context(path, None)
    mel, forced = model.traced_input(item, {"tokens": TOKENS})
    context.encode(mel[0], 1)
    logits = [context.decode([token], place, 1) for place, token in enumerate(forced)]
    context.close()
    return np.stack(logits[len(model.vocabulary.prompt) - 1 :])


def transposed(name: str, values: np.ndarray) -> np.ndarray:
    return values.T if name == "encoder.blocks.0.attn.out.weight" else values


def shifted_positions(name: str, values: np.ndarray) -> np.ndarray:
    return np.roll(values, 1, 0) if name == "decoder.positional_embedding" else values


def other_values(name: str, values: np.ndarray) -> np.ndarray:
    return values[::-1] if name == "decoder.blocks.1.cross_attn.value.weight" else values


@pytest.mark.parametrize("scheme", ["fp16", "int8-q8_0"])
@pytest.mark.parametrize("defect", [None, transposed, shifted_positions, other_values])
def test_a_wrong_tensor_shows(
    model: WhisperModel,
    item: Item,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    defect: object,
) -> None:
    write = ggml._write_tensor
    if callable(defect):
        monkeypatch.setattr(
            ggml,
            "_write_tensor",
            lambda f, n, v, k: write(f, n, np.ascontiguousarray(defect(n, v)), k),
        )
    ggml.convert(tmp_path, NANO.arguments(), "", scheme)
    found = traced(tmp_path / ggml.MODEL, model, item)
    if scheme == "fp16":
        sound = decibels(found, expected) > SOUND_DB
    else:
        sound = ratio(found, oracle_logits(model, item, scheme), expected) < RATIO
    assert sound == (defect is None)


@pytest.mark.parametrize("scheme", ["int8-q8_0", "int8-q5_0", "int4-q4_0"])
def test_a_wrong_block_shows(
    model: WhisperModel,
    item: Item,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    """Scales of neighbouring blocks are exchanged, or the halves of every byte.

    In 8 bits one matrix of the first layer shows it. In the coarser schemes the same matrix passes
    (0.8 to 2.5 times the oracle's error), and the embedding of tokens has to be wrong.
    """
    quantise = ggml._quantised
    width = {"int8-q8_0": 34, "int8-q5_0": 22, "int4-q4_0": 18}[scheme]
    count = iter(range(1000))

    def wrong(values: np.ndarray, kind: ggml.Kind) -> np.ndarray:
        blocks = quantise(values, kind).copy()
        parts = blocks.reshape(-1, width)
        if scheme == "int8-q8_0" and next(count) == 3:
            parts[0::2, :2], parts[1::2, :2] = parts[1::2, :2].copy(), parts[0::2, :2].copy()
        if scheme != "int8-q8_0" and len(values) == model.dimensions.vocabulary:
            codes = parts[:, -16:]
            parts[:, -16:] = (codes << 4) | (codes >> 4)
        return blocks

    monkeypatch.setattr(ggml, "_quantised", wrong)
    ggml.convert(tmp_path, NANO.arguments(), "", scheme)
    found = traced(tmp_path / ggml.MODEL, model, item)
    assert ratio(found, oracle_logits(model, item, scheme), expected) > RATIO


# Files and models that cannot be -----------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ggml")
    ggml.convert(folder, NANO.arguments(), "", "int8-q8_0")
    return (folder / ggml.MODEL).read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"x" + data[1:],
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"encoder.conv1.weight", b"encoder.conv9.weight"),
        lambda data: data.replace(b"decoder.ln.bias", b"decoder.ln.xxxx"),
    ],
    ids=["empty", "magic", "cut", "unknown", "missing"],
)
def test_a_damaged_file_is_refused(file: bytes, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    path = tmp_path / ggml.MODEL
    path.write_bytes(damage(file))
    with pytest.raises(
        CompatError, match=r"whisper\.cpp does not load .*ggml-model\.bin: \w+"
    ) as caught:
        whisper_cpp.Context(path, None)
    assert "compat cache clear" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "recipe", "said"),
    [
        ({"tie_word_embeddings": False}, "fp16", "projection of its own"),
        ({"d_model": 48}, "int8-q8_0", "blocks of 32 values"),
        ({}, "fp16", "four times .* 128, .* encoder_ffn_dim = 64"),
        ({}, "fp16+int8-q8_0-decoder", "one precision for the whole model"),
    ],
)
def test_models_without_a_place_are_unsupported(
    tmp_path: Path, changes: dict[str, object], recipe: str, said: str
) -> None:
    folder = save(tmp_path / "checkpoint", {"suppress_tokens": [1]}, **changes)
    reference = ModelReference("whisper", "whisper-tiny", "pretrained", str(folder))
    with pytest.raises(Unsupported, match=said):
        execution(reference, recipe)


def test_devices_that_are_not_here_are_absent() -> None:
    names = whisper_cpp.devices()
    for target in whisper_cpp.RUNTIME.targets:
        here = target.device == "cpu" or any(
            name.startswith(whisper_cpp.DEVICES[target.hardware]) for name in names
        )
        probe = whisper_cpp.RUNTIME.probe(target)
        assert probe.state == ("here" if here else "absent")
        assert here or probe.remedy
