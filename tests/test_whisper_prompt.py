"""The prompt and the suppressed tokens of Whisper checkpoints: those of transformers' generate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_whisper import (
    EN,
    END,
    FR,
    HI,
    NO_TIMESTAMPS,
    START,
    TRANSCRIBE,
    TRANSLATE,
    VOCABULARY,
    save,
)
from transformers import WhisperForConditionalGeneration

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.places import FIXTURES
from compat.contract.runtime import Options
from compat.inputs.checkpoints import CheckpointError
from compat.models import whisper

TOKENS = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
ENGLISH = {
    **TOKENS,
    "decoder_start_token_id": START,
    "is_multilingual": False,
    "no_timestamps_token_id": NO_TIMESTAMPS,
    "return_timestamps": False,
    "begin_suppress_tokens": [3, END],
    # As in the published ones, no special token is text. Timestamps would make generate go on.
    "suppress_tokens": [1, 2, 5, *range(START, VOCABULARY)],
}
"""As openai/whisper-tiny.en has it."""
MULTILINGUAL = {
    **ENGLISH,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": EN, "<|hi|>": HI, "<|fr|>": FR},
    "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
}
"""As openai/whisper-tiny has it."""
ONE_LANGUAGE = {**MULTILINGUAL, "lang_to_id": {"<|en|>": EN}}
"""Detection finds English whatever the audio is."""
OLD = {**TOKENS, "decoder_start_token_id": START, "_from_model_config": True}
"""As older versions of transformers wrote it for fine-tuned models."""
FORCED = {
    "forced_decoder_ids": [[1, HI], [2, TRANSCRIBE], [3, NO_TIMESTAMPS]],
    "suppress_tokens": ENGLISH["suppress_tokens"],
}

CASES: Mapping[str, tuple[Mapping[str, Any] | None, Mapping[str, Any], tuple[int, ...]]] = {
    "english-only": (
        {**ENGLISH, "forced_decoder_ids": [[1, NO_TIMESTAMPS]]},
        {},
        (START, NO_TIMESTAMPS),
    ),
    "english-only, nothing forced": (ENGLISH, {}, (START, NO_TIMESTAMPS)),
    "multilingual, language detected": (
        {**ONE_LANGUAGE, "forced_decoder_ids": [[1, None], [2, TRANSCRIBE]]},
        {},
        (START, EN, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "multilingual, detected and translated": (
        {**ONE_LANGUAGE, "forced_decoder_ids": [[1, None], [2, TRANSLATE]]},
        {},
        (START, EN, TRANSLATE, NO_TIMESTAMPS),
    ),
    "language and task": (
        {**MULTILINGUAL, "language": "<|en|>", "task": "transcribe"},
        {},
        (START, EN, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "a language by its name": (
        {**MULTILINGUAL, "language": "Hindi", "task": "transcribe"},
        {},
        (START, HI, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "a language by its code, no task": (
        {**MULTILINGUAL, "language": "fr"},
        {},
        (START, FR, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "translation": (
        {**MULTILINGUAL, "language": "french", "task": "translate"},
        {},
        (START, FR, TRANSLATE, NO_TIMESTAMPS),
    ),
    "translation of a detected language": (
        {**ONE_LANGUAGE, "task": "translate"},
        {},
        (START, EN, TRANSLATE, NO_TIMESTAMPS),
    ),
    "language over forced tokens": (
        {**MULTILINGUAL, "language": "hi", "forced_decoder_ids": [[1, EN], [2, TRANSLATE]]},
        {},
        (START, HI, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "old, all forced": (
        {**OLD, **FORCED},
        FORCED,
        (START, HI, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "forced by config.json": (
        ENGLISH,
        {"forced_decoder_ids": [[1, FR], [2, TRANSCRIBE]]},
        (START, FR, TRANSCRIBE, NO_TIMESTAMPS),
    ),
    "config.json alone": (
        None,
        {
            "forced_decoder_ids": [[1, HI], [2, TRANSLATE], [3, NO_TIMESTAMPS]],
            "suppress_tokens": ENGLISH["suppress_tokens"],
            "begin_suppress_tokens": [3, END],
        },
        (START, HI, TRANSLATE, NO_TIMESTAMPS),
    ),
}


def load(folder: Path) -> whisper.WhisperModel:
    return whisper.load("whisper-tiny", "pretrained", str(folder))


def items(model: whisper.WhisperModel, count: int = 3) -> list[Item]:
    random = np.random.default_rng(0)
    window = model.dimensions.window
    return [
        Item.from_audio(str(number), random.standard_normal(window).astype(np.float32))
        for number in range(count)
    ]


def generated(folder: Path, item: Item) -> tuple[tuple[int, ...], list[int]]:
    """Return the prompt that transformers gives a checkpoint, and the tokens that follow."""
    model = load(folder)
    network = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    inputs: list[list[int]] = []

    def record(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        if options.get("use_cache"):  # The detection of a language has none.
            inputs.append(options["decoder_input_ids"][0].tolist())

    network.register_forward_pre_hook(record, with_kwargs=True)
    mel, _ = model.traced_input(item, {"tokens": []})
    told = network.generate(
        torch.from_numpy(mel), num_beams=1, do_sample=False, max_new_tokens=model.max_tokens
    )
    tokens = [token for token in told[0].tolist() if token != END]
    assert 3 < len(tokens) <= model.max_tokens
    return tuple(inputs[0]), tokens


@pytest.mark.parametrize("name", CASES)
def test_prompt_and_tokens_are_those_of_generate(tmp_path: Path, name: str) -> None:
    generation, config, prompt = CASES[name]
    folder = save(tmp_path, generation, config)
    model = load(folder)
    assert model.vocabulary.end == END
    session = oracle_session(model, "fp32")
    for item in items(model):
        theirs, tokens = generated(folder, item)
        assert theirs == model.vocabulary.prompt == prompt
        assert model.run(session, [item], Stopwatch())[0]["tokens"] == tokens


def test_a_configuration_that_says_nothing_is_filled_from_the_tokenizer(tmp_path: Path) -> None:
    for number, settings in enumerate((None, OLD)):
        model = load(save(tmp_path / str(number), settings))
        assert model.vocabulary.prompt == (START, EN, TRANSCRIBE, NO_TIMESTAMPS)
        assert model.vocabulary.detects and model.vocabulary.languages == {
            "en": EN,
            "hi": HI,
            "fr": FR,
        }
    model = load(save(tmp_path / "english", {**OLD, "is_multilingual": False}))
    assert model.vocabulary.prompt == (START, NO_TIMESTAMPS) and not model.vocabulary.detects


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ({**MULTILINGUAL, "language": "klingon"}, r"'klingon' is not in its lang_to_id, .* 3 lang"),
        ({**MULTILINGUAL, "language": "de"}, r"'de' is not in its lang_to_id"),
        ({**MULTILINGUAL, "task": "summarise"}, r"'summarise' is none of transcribe, translate"),
        ({**ENGLISH, "suppress_tokens": [50257]}, r"suppress_tokens has 50257, .* 48 tokens"),
        ({**ENGLISH, "forced_decoder_ids": [[1, EN], [3, 40]]}, r"leave a position .* open"),
        ({**ENGLISH, "eos_token_id": [END, 3]}, r"eos_token_id has"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, generation: Mapping[str, Any], said: str) -> None:
    folder = save(tmp_path, generation)
    with pytest.raises(CheckpointError, match=said) as caught:
        load(folder)
    assert str(folder / "generation_config.json") in str(caught.value)


def test_a_checkpoint_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, ENGLISH)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*vocab\.json and merges\.txt"):
        load(folder)


@pytest.mark.parametrize("size", sorted({s.vocabulary for s in whisper.PUBLISHED.values()}))
def test_generated_weights_have_the_published_tokens(size: int) -> None:
    """Ids of tokenizers of openai-whisper 20250625 (multilingual, English-only, large-v3)."""
    vocabulary = whisper.whisper_vocabulary.seeded(size)
    published = {
        51864: ((50257, 50362), 50256),
        51865: ((50258, 50259, 50359, 50363), 50257),
        51866: ((50258, 50259, 50360, 50364), 50257),
    }
    assert (vocabulary.prompt, vocabulary.end) == published[size]
    names = whisper.whisper_vocabulary.special_names(vocabulary)
    by_name = {name: token for token, name in names.items()}
    assert by_name["<|startofprev|>"] == {51864: 50360, 51865: 50361, 51866: 50362}[size]
    assert by_name["<|transcribe|>"] == {51864: 50358, 51865: 50359, 51866: 50360}[size]


@pytest.mark.parametrize("variant", ["whisper-tiny.en", "whisper-tiny"])
def test_the_english_only_size_is_one_token_smaller(variant: str) -> None:
    model = catalog.open_model(ModelReference("whisper", variant, "seeded"))
    count = sum(parameter.numel() for parameter in model.network.parameters())
    assert count / 1e6 == pytest.approx(37.8, abs=0.05)
    assert model.network.config.vocab_size == (51864 if variant.endswith(".en") else 51865)


# Ports -------------------------------------------------------------------------------------------

NANO = FIXTURES / "checkpoints/whisper-nano"


@pytest.mark.parametrize("target_name", ["cpu-ctranslate2", "cpu-faster-whisper", "cpu-mlx"])
@pytest.mark.parametrize("name", ["english-only", "a language by its name", "translation"])
def test_ports_are_told_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target_name: str
) -> None:
    loaded = catalog.load()
    target = next(target for target in loaded.targets if target.name == target_name)
    runtime = loaded.runtime(target.runtime)
    if any(find_spec(module.split(".")[0]) is None for module in runtime.modules):
        pytest.skip(f"{target.runtime} is not installed")
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    generation, config, _ = CASES[name]
    folder = save(tmp_path / "checkpoint", generation, config)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(json.loads((NANO / "preprocessor_config.json").read_text()))
    )
    model = load(folder)
    reference = ModelReference("whisper", "whisper-tiny", "pretrained", str(folder))
    opened = sources(reference, model, 1)
    execution = runtime.open(model, opened, target, Recipe("fp32"), Options(threads=1))
    for item in items(model):
        _, tokens = generated(folder, item)
        assert execution.predict([item], Stopwatch())[0]["tokens"] == tokens
    execution.close()
