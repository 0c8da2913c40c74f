"""Whisper in the forms of CTranslate2 and OpenAI, read back and compared with its origin."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small_whisper import EN, END, NO_TIMESTAMPS, START, TRANSCRIBE, TRANSLATE, VOCABULARY, save

from compat.build import translation
from compat.build.translation import translated
from compat.catalog import load
from compat.contract.places import FIXTURES
from compat.inputs import ctranslate2, openai
from compat.inputs.checkpoints import CheckpointError
from compat.judge import rescoring
from compat.judge.results import Observation, facts_of
from compat.measure.case_under_test import CaseUnderTest
from compat.models import whisper
from compat.runtimes.whisper.checkpoint import openai_name

NANO = FIXTURES / "checkpoints/whisper-nano"
GENERATION = {
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": EN},
    "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
    "no_timestamps_token_id": NO_TIMESTAMPS,
    "suppress_tokens": [1, 2],
    "begin_suppress_tokens": [3, END],
}
Damage = Callable[[bytes], bytes]


def network(folder: str | Path) -> torch.nn.Module:
    opened: torch.nn.Module = whisper.load("whisper-tiny", "pretrained", str(folder)).network
    return opened


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("original"), GENERATION)


def converted(original: Path, folder: Path, quantization: str | None = None) -> Path:
    converters = pytest.importorskip("ctranslate2.converters")
    present = [name for name in ("tokenizer.json",) if (original / name).is_file()]
    converter = converters.TransformersConverter(str(original), copy_files=present)
    return Path(converter.convert(str(folder), quantization=quantization))


@pytest.fixture(scope="session")
def float32(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(original, tmp_path_factory.mktemp("converted") / "float32")


# CTranslate2 -------------------------------------------------------------------------------------


def rounded(
    values: torch.Tensor, name: str, kind: str
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """Return what the converter should have stored, and how far from it is no fault."""
    if "int" in kind and name.endswith("weight") and "norm" not in name and "positions" not in name:
        rows = values.flatten(1)
        largest = rows.abs().amax() if kind == "int16" else rows.abs().amax(1)
        # One scale for a whole stack of matrices: that of the largest, of which this may be none.
        steps = 512 if kind == "int16" else 127
        step = (largest / steps).reshape(-1, *[1] * (values.dim() - 1))
        return values, step * 0.5001 + 1e-12
    halves = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    half = halves.get(kind.removeprefix("int8_"))
    return (values.to(half).float() if half else values), 0.0


@pytest.mark.parametrize(
    "kind",
    ["float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16"],
)
def test_weights_are_those_that_were_converted(original: Path, tmp_path: Path, kind: str) -> None:
    folder = converted(original, tmp_path / kind, kind)
    found = dict(ctranslate2.read_state(folder / ctranslate2.MODEL))
    state = network(original).state_dict()
    assert found.keys() == state.keys()
    for name, values in state.items():
        expected, tolerance = rounded(values, name, kind)
        distance = (found[name].float() - expected).abs()
        assert (distance <= tolerance).all(), name
        # Nothing may be exact by accident: integers did round something.
        if isinstance(tolerance, torch.Tensor):
            assert distance.any(), name


def test_a_scale_is_of_its_own_row(original: Path, tmp_path: Path) -> None:
    """The check above sees a scale that was doubled."""
    folder = converted(original, tmp_path / "int8", "int8")
    path = folder / ctranslate2.MODEL
    name = "decoder/layer_0/ffn/linear_0/weight"
    scale = ctranslate2.read_variables(path)[f"{name}_scale"]
    data = bytearray(path.read_bytes())
    (value,) = struct.unpack_from("<f", data, scale.offset)
    struct.pack_into("<f", data, scale.offset, value * 2)
    path.write_bytes(data)
    ours = "model.decoder.layers.0.fc1.weight"
    values = network(original).state_dict()[ours]
    found = dict(ctranslate2.read_state(path))[ours]
    distance = (found - values).abs()
    _, tolerance = rounded(values, ours, "int8")
    assert (distance > tolerance)[0].any() and not (distance > tolerance)[1:].any()


@pytest.mark.parametrize("beside", [True, False], ids=["tokenizer", "vocabulary"])
def test_a_folder_of_faster_whisper_is_a_checkpoint(
    original: Path, float32: Path, tmp_path: Path, beside: bool
) -> None:
    given = shutil.copytree(float32, tmp_path / "given")
    if not beside:
        (given / "tokenizer.json").unlink()
    model = whisper.load("whisper-tiny", "pretrained", translated(str(given)))
    expected = whisper.load("whisper-tiny", "pretrained", str(original))
    # faster-whisper asks for a transcript, which the settings that it drops leave open.
    told = replace(expected.vocabulary, prompt=(START, EN, TRANSCRIBE, NO_TIMESTAMPS))
    assert model.vocabulary == told and told.suppress == (1, 2)
    assert model.dimensions == expected.dimensions and model.tied
    state = expected.network.state_dict()
    assert all(one.equal(state[name]) for name, one in model.network.state_dict().items())
    assert model._tokenizer.decode([5, 6]).split() == (
        ["word5", "word6"] if beside else ["word5word6"]
    )


def test_untied_projections_stay_apart(tmp_path: Path) -> None:
    original = save(tmp_path / "original", GENERATION, tie_word_embeddings=False)
    given = converted(original, tmp_path / "given")
    model = whisper.load("whisper-tiny", "pretrained", translated(str(given)))
    assert not model.tied
    expected = network(original).state_dict()["proj_out.weight"]
    assert model.network.state_dict()["proj_out.weight"].equal(expected)


def test_results_of_a_folder_of_faster_whisper_are_scored_again(
    float32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescoring, "find_checkpoint", lambda name: float32)
    case = facts_of(load().case("whisper-tiny.en@pretrained/cpu-torch/fp32"))
    row = {"set": "people", "item": "a", "audio_s": 1.5, "truth": {"text": "word5 word6"}}
    said = {"prediction": {"text": "word5"}, "reference": {"text": "word5 word6"}}
    one = Observation(
        case=case.id,
        check="accuracy.task",
        check_version=1,
        status="passed",
        level="strict",
        predictions=[{**row, **said}],
        time="2026-11-20T12:00:01.000Z",
    )
    scores = rescoring.task_scores(one, case)
    assert scores and scores["people"]["wer"] == 0.5


def test_a_case_hears_the_same_from_each_form(tmp_path: Path) -> None:
    given = converted(NANO, tmp_path / "nano")
    request = {
        "id": "whisper-nano@trained/cpu-torch/fp32",
        "corpus": str(FIXTURES / "corpus"),
        "profile": "quick",
        "stress": [],
        "threads": 1,
        "device": "",
    }
    model = CaseUnderTest({**request, "checkpoint": str(given)}).inputs.model
    expected = CaseUnderTest({**request, "checkpoint": ""}).inputs.model
    assert model.vocabulary == expected.vocabulary  # type: ignore[attr-defined]
    state = expected.network.state_dict()  # type: ignore[attr-defined]
    found = model.network.state_dict()  # type: ignore[attr-defined]
    assert all(found[name].equal(one) for name, one in state.items())


def replaced(old: bytes, new: bytes) -> Damage:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change


def at(position: int, new: bytes) -> Damage:
    return lambda data: data[:position] + new + data[position + len(new) :]


def read_all(path: Path) -> None:
    list(ctranslate2.read_state(path))
    ctranslate2.read_heads(path, ctranslate2.read_variables(path))


HUGE = (2**32 - 1).to_bytes(4, "little")
CONV = b"encoder/conv1/weight\0\x03"
FIRST = 6 + len(b"WhisperSpec\0") + 8
"""Where the first variable begins."""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "cannot read .*model.bin: cannot mmap an empty file"),
        (lambda data: data[:-1], "ends within"),
        (lambda data: data[: len(data) // 2], "ends within"),
        (lambda data: data + b"\0", "1 bytes behind its end"),
        (at(0, (5).to_bytes(4, "little")), "version 5 .* and 6 and 3 are read.*Convert"),
        (at(FIRST - 8, (9).to_bytes(4, "little")), "revision 9 .*Convert"),
        (replaced(b"WhisperSpec\0", b"MadeOfsSpec\0"), "holds a MadeOfsSpec"),
        (at(FIRST - 4, HUGE), "says that it has 4294967295 variables"),
        (at(FIRST, b"\xff\xff"), "a name of 65535 bytes"),
        (at(FIRST + 2, b"\x1b"), "no name where one belongs"),
        (replaced(CONV, CONV[:-1] + b"\xff"), "conv1/weight has 255 dimensions"),
        (replaced(CONV + (32).to_bytes(4, "little"), CONV + HUGE), "bytes of encoder/conv1/weight"),
        (replaced(b"encoder/conv1/bias\0", b"encoder/conv3/bias\0"), "conv3/bias, which is no"),
        (replaced(b"encoder/num_heads\0", b"encoder/pre_norms\0"), "pre_norms|how many heads"),
        (
            replaced(b"decoder/embeddings/weight\0", b"decoder/embeddingz/weight\0"),
            "embeddings/weight|embeddingz/weight",
        ),
    ],
)
def test_damage_is_named_with_its_remedy(
    float32: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    folder = shutil.copytree(float32, tmp_path / "damaged")
    path = folder / ctranslate2.MODEL
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=said) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_no_byte_of_the_headers_can_break_the_reader(float32: Path, tmp_path: Path) -> None:
    """Each of many single changes is read, or refused; nothing else and nothing large happens."""
    data = (float32 / ctranslate2.MODEL).read_bytes()
    variables = ctranslate2.read_variables(float32 / ctranslate2.MODEL).values()
    weights = {p for one in variables for p in range(one.offset, one.offset + one.bytes)}
    headers = [position for position in range(len(data)) if position not in weights]
    chosen = random.Random(0)  # noqa: S311 (no secret)
    path = tmp_path / ctranslate2.MODEL
    refused = 0
    for _ in range(400):
        position = chosen.choice(headers)
        path.write_bytes(at(position, bytes([chosen.randrange(256)]))(data))
        try:
            list(ctranslate2.read_state(path))
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_integers_without_scales_are_refused(original: Path, tmp_path: Path) -> None:
    folder = converted(original, tmp_path / "int8", "int8")
    path = folder / ctranslate2.MODEL
    name = b"decoder/layer_0/ffn/linear_0/weight_scale\0"
    path.write_bytes(path.read_bytes().replace(name, name.replace(b"t_scale", b"t_saale")))
    with pytest.raises(
        CheckpointError, match=r"linear_0/weight is int8 and has no scale|weight_saale"
    ):
        list(ctranslate2.read_state(path))


def test_a_vocabulary_of_another_size_is_refused(float32: Path, tmp_path: Path) -> None:
    given = shutil.copytree(float32, tmp_path / "given")
    (given / "tokenizer.json").unlink()
    (given / "vocabulary.json").write_text(json.dumps(["a", "b"]))
    with pytest.raises(Exception, match=f"has 2 tokens, and the weights are for {VOCABULARY}"):
        translated(str(given))


# OpenAI ------------------------------------------------------------------------------------------


def openai_file(original: Path, folder: Path) -> Path:
    """Write a checkpoint as openai-whisper's files are, with a tokenizer beside it."""
    model = whisper.load("whisper-tiny", "pretrained", str(original))
    size = model.dimensions
    state = {
        openai_name(name): one.half()
        for name, one in model.network.state_dict().items()
        if not name.startswith("proj_out")
    }
    dims = {
        "n_mels": size.mels,
        "n_vocab": size.vocabulary,
        "n_audio_ctx": size.source_positions,
        "n_audio_state": size.width,
        "n_audio_head": size.heads,
        "n_audio_layer": size.encoder_layers,
        "n_text_ctx": size.target_positions,
        "n_text_state": size.width,
        "n_text_head": size.heads,
        "n_text_layer": size.decoder_layers,
    }
    path = folder / "small.pt"
    torch.save({"dims": dims, "model_state_dict": state}, path)
    shutil.copyfile(original / "tokenizer.json", folder / "tokenizer.json")
    return path


def test_a_file_of_openai_is_a_checkpoint(original: Path, tmp_path: Path) -> None:
    path = openai_file(original, tmp_path)
    model = whisper.load("whisper-tiny", "pretrained", translated(str(path)))
    expected = whisper.load("whisper-tiny", "pretrained", str(original))
    assert model.dimensions == expected.dimensions
    assert model.vocabulary.prompt[0] == START and model.vocabulary.prompt[-1] == NO_TIMESTAMPS
    assert {START, TRANSLATE, TRANSCRIBE} <= {*model.vocabulary.suppress}
    state = model.network.state_dict()
    for name, values in expected.network.state_dict().items():
        assert state[name].equal(values.half().float()), name


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("true",)


def change(path: Path, edit: Callable[[dict[str, dict[str, object]]], object]) -> None:
    whole = torch.load(path, weights_only=True)
    edit(whole)
    torch.save(whole, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:1000]), "cannot read .*small.pt"),
        (lambda p: p.write_bytes(b""), "cannot read .*small.pt"),
        (lambda p: torch.save(Evil(), p), "cannot read .*small.pt as a file of weights"),
        (lambda p: torch.save({"a": torch.zeros(1)}, p), 'has no "dims"'),
        (lambda p: change(p, lambda w: w["dims"].pop("n_text_head")), "no number for n_text_head"),
        (lambda p: change(p, lambda w: w["dims"].update(n_vocab="x")), "no number for n_vocab"),
        (
            lambda p: change(p, lambda w: w["dims"].update(n_audio_ctx=10**9)),
            "n_audio_ctx = 1000000000",
        ),
        (lambda p: change(p, lambda w: w["dims"].update(n_audio_head=7)), "7 heads"),
        (
            lambda p: change(p, lambda w: w["model_state_dict"].pop("encoder.conv1.weight")),
            "encoder.conv1.weight is needed",
        ),
        (lambda p: (p.parent / "tokenizer.json").unlink(), "hold no tokenizer.*pip install"),
    ],
)
def test_damage_of_openai_files_is_named(
    original: Path, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    path = openai_file(original, tmp_path)
    damage(path)
    with pytest.raises(Exception, match=said) as caught:
        translated(str(path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "model.encoder.conv1.weight",
        "model.encoder.embed_positions.weight",
        "model.encoder.layers.31.self_attn_layer_norm.bias",
        "model.decoder.layers.0.encoder_attn.out_proj.weight",
        "model.decoder.layers.10.encoder_attn_layer_norm.weight",
        "model.decoder.layers.0.final_layer_norm.bias",
        "model.decoder.layers.0.fc2.bias",
        "model.decoder.embed_tokens.weight",
        "model.decoder.layer_norm.bias",
    ],
)
def test_names_go_there_and_back(name: str) -> None:
    assert openai.transformers_name(openai_name(name)) == name


@pytest.mark.parametrize(("kind", "size"), [("gpt2", 51864), ("multilingual", 51865)])
def test_published_vocabularies_come_from_packages(tmp_path: Path, kind: str, size: int) -> None:
    if not find_spec("whisper") and not find_spec("mlx_whisper"):
        pytest.skip("neither openai-whisper nor mlx-whisper is installed")
    tokens = translation._published_tokens(*translation._tokenizer_files(tmp_path, size), size)
    assert len(tokens) == len(set(tokens)) == size and tokens[-1] == "<|30.00|>"
    shift = size - 51864
    assert tokens[50256 + shift] == "<|endoftext|>" and tokens[50258 + shift] == "<|en|>"
    assert tokens[50362 + shift] == "<|notimestamps|>"
    tokenizer = translation.tokenizer_of(tokens)
    assert tokenizer.decode([tokens.index("Hello"), tokens.index("Ġthere")]) == "Hello there"
