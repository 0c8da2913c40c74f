"""Weights that do not match their module, in every family; names and types that do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_whisper import EN, NO_TIMESTAMPS, START, TRANSCRIBE, save

from compat import catalog
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.model_reference import ModelReference
from compat.contract.places import FIXTURES
from compat.contract.runtime import Options
from compat.contract.session import Unsupported
from compat.inputs import weights as checkpoints
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.inputs.corpus import load
from compat.models import (
    resemblyzer,
    segmentation,
    silero,
    silero_network,
    wav2vec2,
    wespeaker,
    whisper,
)
from compat.runtimes.whisper import checkpoint as whisper_checkpoint

WHISPER = FIXTURES / "checkpoints/whisper-nano"
WAV2VEC2 = FIXTURES / "checkpoints/wav2vec2-nano"
SEGMENTATION = FIXTURES / "checkpoints/segmentation-3.0-synthetic"
FOLDERS = {"whisper": WHISPER, "wav2vec2": WAV2VEC2, "segmentation": SEGMENTATION}
LAST = {
    "whisper": "model.decoder.layer_norm.bias",
    "wav2vec2": "lm_head.bias",
    "segmentation": "classifier.bias",
    "wespeaker": "resnet.seg_1.bias",
}
"""A tensor of each family."""
Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], Tensors]


def checkpoint(family: str, folder: Path) -> Path:
    """Return a copy of a checkpoint that a test may spoil."""
    if family == "wespeaker":
        folder.mkdir()
        network = wespeaker.PUBLISHED.load(None)
        save_file(network.state_dict(), folder / "model.safetensors")
        return folder
    return Path(shutil.copytree(FOLDERS[family], folder))


def rewrite(folder: Path, change: Change) -> Path:
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file(
        {name: one.clone().contiguous() for name, one in tensors.items()}, path, {"format": "pt"}
    )
    return folder


def network(family: str, folder: Path) -> torch.nn.Module:
    """Return a family's module with the weights in a folder, as every runtime gets it."""
    if family == "wespeaker":
        return wespeaker.PUBLISHED.load(folder)
    module = {"whisper": whisper, "wav2vec2": wav2vec2, "segmentation": segmentation}[family]
    found: torch.nn.Module = module.load(f"{family}-nano", "trained", str(folder)).network
    return found


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def prefixed(prefix: str) -> Change:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def inner_wrapper(tensors: Tensors) -> Tensors:
    """As torch.compile of every layer leaves them."""
    return {name.replace(".layers.", ".layers._orig_mod."): t for name, t in tensors.items()}


FAMILIES = ("whisper", "wav2vec2", "segmentation", "wespeaker")
WRAPPERS = {
    "torch.compile": prefixed("_orig_mod."),
    "DDP": prefixed("module."),
    "both": prefixed("module._orig_mod."),
    "PEFT": prefixed("base_model.model."),
    "PEFT under DDP": prefixed("module.base_model.model."),
    "parts": inner_wrapper,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrappers_are_left_out_of_names(tmp_path: Path, family: str, wrapper: str) -> None:
    folder = checkpoint(family, tmp_path / "checkpoint")
    expected = network(family, folder)
    assert same(network(family, rewrite(folder, WRAPPERS[wrapper])), expected)


def without(name: str) -> Change:
    return lambda tensors: {one: tensor for one, tensor in tensors.items() if one != name}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["missing", "unknown", "shape", "prefix", "twice"])
def test_weights_that_differ_are_refused(tmp_path: Path, family: str, kind: str) -> None:
    last = LAST[family]
    change, said = {
        "missing": (without(last), f"{last} should have shape (.*) and is missing.*1 missing"),
        "unknown": (lambda t: {**t, "extra.w": t[last]}, "the model has no extra.w.*1 unknown"),
        "shape": (
            lambda t: {**t, last: torch.zeros(3, 2)},
            rf"{last} should have shape .* and has \(3, 2\).*1 of another shape",
        ),
        "prefix": (prefixed("student."), r"[1-9]\d+ missing, [1-9]\d+ unknown"),
        "twice": (lambda t: {**t, f"module.{last}": t[last]}, "there twice.*1 doubled"),
    }[kind]
    folder = rewrite(checkpoint(family, tmp_path / "checkpoint"), change)
    with pytest.raises(CheckpointError, match=said) as caught:
        network(family, folder)
    assert str(folder / "model.safetensors") in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_published_weights_of_packages_are_whole() -> None:
    """What is verified by its hash is also compared with the module."""
    try:
        folder = find_checkpoint(resemblyzer.FAMILY.variants[0].checkpoint)
        other = find_checkpoint(silero.CHECKPOINT)
    except CheckpointError as error:
        pytest.skip(str(error))
    state = resemblyzer.load_network(folder).state_dict()
    assert all(one.isfinite().all() for one in state.values())
    for variant, form in silero.VARIANTS.items():
        step = silero.SileroModel(form, other).network
        assert all(one.isfinite().all() for one in step.state_dict().values()), variant
    weights = silero_network.read_weights(other / silero.SCRIPT.name)
    with pytest.raises(CheckpointError, match=r"decoder\.bias should have shape \(1,\) and is mis"):
        silero_network.step_module(without("decoder.bias")(weights), other / silero.SCRIPT.name)


# What transformers ignores or renames ------------------------------------------------------------


def test_a_tied_projection_may_be_there_or_not(tmp_path: Path) -> None:
    expected = network("whisper", WHISPER)
    table = "model.decoder.embed_tokens.weight"
    folder = checkpoint("whisper", tmp_path / "checkpoint")
    assert "proj_out.weight" not in load_file(folder / "model.safetensors")
    rewrite(folder, lambda t: {**t, "proj_out.weight": t[table].clone()})
    assert same(network("whisper", folder), expected)
    assert same(network("whisper", rewrite(folder, without(table))), expected)
    rewrite(folder, lambda t: {**t, table: t["proj_out.weight"] + 1})
    with pytest.raises(CheckpointError, match=r"proj_out\.weight differ.*tie_word_embeddings"):
        network("whisper", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    found = network("whisper", folder).state_dict()
    assert torch.equal(found[table], found["proj_out.weight"] + 1)
    reference = ModelReference("whisper", "whisper-tiny", "pretrained", str(folder))
    model: Any = catalog.open_model(reference)
    source = sources(reference, model)["encoder"]
    with pytest.raises(Unsupported, match="a projection of its own"):
        whisper_checkpoint.exported(source, model)


def test_a_model_without_its_head_is_whole_where_the_head_is_tied(tmp_path: Path) -> None:
    folder = checkpoint("whisper", tmp_path / "checkpoint")
    rewrite(folder, lambda t: {name.removeprefix("model."): one for name, one in t.items()})
    assert same(network("whisper", folder), network("whisper", WHISPER))
    folder = checkpoint("wav2vec2", tmp_path / "wav2vec2")
    bare = {"lm_head.weight", "lm_head.bias"}
    rewrite(
        folder,
        lambda t: {n.removeprefix("wav2vec2."): one for n, one in t.items() if n not in bare},
    )
    with pytest.raises(CheckpointError, match=r"lm_head\.\w+ should have.*In all: 2 missing"):
        network("wav2vec2", folder)


KERNEL = "wav2vec2.encoder.pos_conv_embed.conv."
NEW = {
    f"{KERNEL}weight_g": f"{KERNEL}parametrizations.weight.original0",
    f"{KERNEL}weight_v": f"{KERNEL}parametrizations.weight.original1",
}


def test_both_names_of_weight_norm(tmp_path: Path) -> None:
    folder = checkpoint("wav2vec2", tmp_path / "checkpoint")
    expected = network("wav2vec2", folder)
    old = {new: old for old, new in NEW.items()}
    for names in (old, NEW):
        rewrite(folder, lambda t, names=names: {names.get(n, n): one for n, one in t.items()})
        assert set(names.values()) <= set(load_file(folder / "model.safetensors"))
        assert same(network("wav2vec2", folder), expected)
    without_kernel = rewrite(
        folder, lambda t: {n: one for n, one in t.items() if not n.startswith(f"{KERNEL}param")}
    )
    with pytest.raises(CheckpointError, match=r"pos_conv_embed.*2 missing"):
        network("wav2vec2", without_kernel)
    fused = torch.zeros(128, 16, 32)
    rewrite(folder, lambda t: {**t, f"{KERNEL}weight": fused})
    with pytest.raises(CheckpointError, match=r"has no wav2vec2.*2 missing, 1 unknown"):
        network("wav2vec2", folder)


def test_what_only_training_uses_may_be_there_or_not(tmp_path: Path) -> None:
    folder = checkpoint("wav2vec2", tmp_path / "checkpoint")
    expected = network("wav2vec2", folder)
    name = "wav2vec2.masked_spec_embed"
    rewrite(folder, without(name))
    assert same_but(name, network("wav2vec2", folder), expected)
    rewrite(folder, lambda t: {**t, name: torch.ones(128)})
    for probability in (0.0, 0.05):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "mask_time_prob": probability}))
        assert same_but(name, network("wav2vec2", folder), expected)


@pytest.mark.parametrize("family", ["whisper", "wav2vec2"])
def test_stored_positions_are_ignored(tmp_path: Path, family: str) -> None:
    folder = checkpoint(family, tmp_path / "checkpoint")
    rewrite(folder, lambda t: {**t, "model.encoder.position_ids": torch.arange(200)[None]})
    assert same(network(family, folder), network(family, FOLDERS[family]))


def same_but(name: str, one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = [without(name)(dict(each.state_dict())) for each in (one, other)]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


def shard(folder: Path) -> list[str]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    places = {name: files[index % 3] for index, name in enumerate(tensors)}
    for file in files:
        part = {name: tensor for name, tensor in tensors.items() if places[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return files


@pytest.mark.parametrize("family", ["whisper", "wav2vec2"])
def test_shards(tmp_path: Path, family: str) -> None:
    folder = checkpoint(family, tmp_path / "checkpoint")
    files = shard(folder)
    assert same(network(family, folder), network(family, FOLDERS[family]))
    before = checkpoints.checkpoint_fingerprint(folder)
    (folder / "optimizer.safetensors").write_bytes(b"no weights of the model")
    assert checkpoints.checkpoint_fingerprint(folder) == before
    (folder / files[1]).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {files[1]} of the 3 files .*download it"):
        network(family, folder)
    for text in ("[]", "[" * 100_000):
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json.*Restore the file"):
            network(family, folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    """The last file that is read would decide otherwise, whatever the index says."""
    folder = checkpoint("whisper", tmp_path / "checkpoint")
    files = shard(folder)
    first = load_file(folder / files[0])
    name = sorted(first)[0]
    other = load_file(folder / files[1])
    save_file({**other, name: torch.zeros_like(first[name])}, folder / files[1])
    with pytest.raises(CheckpointError, match=f"both hold {name}"):
        network("whisper", folder)


def test_shards_of_another_folder_are_refused(tmp_path: Path) -> None:
    folder = checkpoint("whisper", tmp_path / "checkpoint")
    other = tmp_path / "other.safetensors"
    (folder / "model.safetensors").rename(other)
    for name in ("../other.safetensors", str(other)):
        index = {"weight_map": dict.fromkeys(load_file(other), name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="do not lie beside it"):
            network("whisper", folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        spoilt = tensors[LAST["whisper"]].clone()
        spoilt[0] = value
        return {**tensors, LAST["whisper"]: spoilt}

    folder = rewrite(checkpoint("whisper", tmp_path / "checkpoint"), spoil)
    with pytest.raises(CheckpointError, match=LAST["whisper"] + ".*NaN or infinite"):
        network("whisper", folder)


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="Restore the file"):
        checkpoints.read_json(tmp_path / "config.json")


# Folders that are something else -----------------------------------------------------------------


def adapter(folder: Path) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "openai/whisper-tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def adapter_without_configuration(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()


def unmerged(folder: Path) -> None:
    name = "model.decoder.layers.0.self_attn.q_proj."
    rewrite(
        folder,
        lambda t: {
            **{n.replace(name, f"{name}base_layer."): one for n, one in t.items()},
            f"{name}lora_A.default.weight": torch.zeros(4, 128),
        },
    )


def ctranslate2(folder: Path) -> None:
    """As its converter writes it: a version, then the name of the specification."""
    (folder / "model.safetensors").unlink()
    start = (6).to_bytes(4, "little") + (12).to_bytes(2, "little") + b"WhisperSpec\0"
    (folder / "model.bin").write_bytes(start + bytes(100))


def whisper_cpp(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "ggml-model.bin").write_bytes((0x67676D6C).to_bytes(4, "little") + bytes(100))


def under_another_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def quantised(folder: Path) -> None:
    name = "model.decoder.layers.0.fc1.weight"
    rewrite(folder, lambda t: {**t, name: t[name].to(torch.int8)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (adapter, "is a LoRA adapter of openai/whisper-tiny.*merge_and_unload"),
        (adapter_without_configuration, "is a LoRA adapter.*merge_and_unload"),
        (unmerged, "adapter that is not merged.*merge_and_unload"),
        (ctranslate2, r"CTranslate2 converted \(model.bin holds a WhisperSpec\).*Hugging Face"),
        (whisper_cpp, "ggml-model.bin is a model of whisper.cpp"),
        (under_another_name, "only weights.safetensors. Rename it to model.safetensors"),
        (quantised, r"quantised weights .*fc1.weight \(I8\)"),
    ],
)
def test_other_forms_are_called_what_they_are(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    folder = checkpoint("whisper", tmp_path / "checkpoint")
    spoil(folder)
    with pytest.raises(CheckpointError, match=said) as caught:
        network("whisper", folder)
    assert "pickle" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_adapter_of_convolutions_is_refused(tmp_path: Path) -> None:
    folder = checkpoint("wav2vec2", tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "add_adapter": True}))
    with pytest.raises(CheckpointError, match=r"config\.json has add_adapter"):
        network("wav2vec2", folder)


# Half precision ----------------------------------------------------------------------------------


def rounded(dtype: torch.dtype, stored: torch.dtype) -> Change:
    return lambda tensors: {name: one.to(dtype).to(stored) for name, one in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_modules_are_float32_whatever_is_stored(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    copies = [checkpoint(family, tmp_path / name) for name in ("half", "single")]
    rewrite(copies[0], rounded(dtype, dtype))
    rewrite(copies[1], rounded(dtype, torch.float32))
    half, single = (network(family, folder) for folder in copies)
    assert {one.dtype for one in half.state_dict().values() if one.is_floating_point()} == {
        torch.float32
    }
    assert same(half, single)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("family", ["whisper", "wav2vec2"])
def test_the_type_that_a_configuration_names_changes_nothing(
    tmp_path: Path, family: str, name: str
) -> None:
    folder = checkpoint(family, tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps({**config, name: "float16"}))
    assert same(network(family, folder), network(family, FOLDERS[family]))


def predictions(family: str, folder: Path, target_name: str) -> list[Mapping[str, Any]]:
    loaded = catalog.load()
    target = next(target for target in loaded.targets if target.name == target_name)
    runtime = loaded.runtime(target.runtime)
    pytest.importorskip(runtime.modules[0])
    reference = ModelReference(family, f"{family}-nano", "trained", str(folder))
    model = catalog.open_model(reference)
    opened = sources(reference, model, 1)
    execution = runtime.open(model, opened, target, Recipe("fp32"), Options(threads=1))
    items = load().sets["clean"].items(16_000, 2)
    answers = execution.predict(items, Stopwatch())
    execution.close()
    return list(answers)


@pytest.mark.parametrize(
    ("family", "dtype", "target"),
    [
        ("whisper", torch.float16, "cpu-onnxruntime"),
        ("wav2vec2", torch.bfloat16, "cpu-onnxruntime"),
        ("whisper", torch.bfloat16, "cpu-ctranslate2"),
    ],
)
def test_half_precision_gives_the_answers_of_its_float32_copy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    dtype: torch.dtype,
    target: str,
) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    copies = [checkpoint(family, tmp_path / name) for name in ("half", "single")]
    rewrite(copies[0], rounded(dtype, dtype))
    rewrite(copies[1], rounded(dtype, torch.float32))
    config = json.loads((copies[0] / "config.json").read_text())
    config["dtype"] = str(dtype).removeprefix("torch.")
    (copies[0] / "config.json").write_text(json.dumps(config))
    half = predictions(family, copies[0], target)
    single = predictions(family, copies[1], "cpu-torch" if "onnx" in target else target)
    assert [one["text"] for one in half] == [one["text"] for one in single]
    assert all(one["text"] for one in half)


# Runtimes that convert checkpoints ---------------------------------------------------------------

PROMPT = {
    "decoder_start_token_id": START,
    "forced_decoder_ids": [[1, EN], [2, TRANSCRIBE], [3, NO_TIMESTAMPS]],
}


def test_converters_get_the_checked_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries that read a checkpoint themselves would fill it with random values."""
    pytest.importorskip("ctranslate2")
    from compat.runtimes.whisper import ctranslate2 as port

    folder = save(tmp_path / "checkpoint", PROMPT)
    reference = ModelReference("whisper", "whisper-tiny", "pretrained", str(folder))
    folders = {name: tmp_path / name for name in ("plain", "wrapped", "openai", "compiled")}
    for one in folders.values():
        one.mkdir()
    port.convert(folders["plain"], reference.arguments(), "encoder", "float32")
    whisper_checkpoint.export(folders["openai"], reference.arguments(), "encoder")
    rewrite(folder, prefixed("module._orig_mod."))
    port.convert(folders["wrapped"], reference.arguments(), "encoder", "float32")
    whisper_checkpoint.export(folders["compiled"], reference.arguments(), "encoder")
    files = [folders[name] / "model/model.bin" for name in ("plain", "wrapped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    exported = [load_file(folders[n] / whisper_checkpoint.WEIGHTS) for n in ("openai", "compiled")]
    assert exported[0].keys() == exported[1].keys()
    assert all(np.array_equal(exported[0][n], exported[1][n]) for n in exported[0])
    rewrite(folder, without("module._orig_mod.model.encoder.conv1.weight"))
    for convert in (
        lambda: port.convert(tmp_path, reference.arguments(), "encoder", "float32"),
        lambda: whisper_checkpoint.export(tmp_path, reference.arguments(), "encoder"),
    ):
        with pytest.raises(CheckpointError, match=r"conv1\.weight should have shape"):
            convert()
