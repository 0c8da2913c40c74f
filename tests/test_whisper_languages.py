"""Languages of recordings in Whisper's prompts: said or detected, as transformers' generate does.

The checkpoints are generated; vocabularies and settings are those of published ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_whisper import save
from test_whisper_prompt import MULTILINGUAL as OWN_VOCABULARY
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.places import FIXTURES
from compat.contract.runtime import Options
from compat.contract.session import Session, Unsupported
from compat.inputs.audio import CorpusError
from compat.models import whisper
from compat.models.whisper_vocabulary import ENGLISH_ONLY, language_token

TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
NANO = FIXTURES / "checkpoints/whisper-nano"


def special(size: int) -> dict[str, int]:
    """Return the special tokens of a published size: one order, and large-v3 has Cantonese more."""
    end = 50256 if size == ENGLISH_ONLY else 50257
    # English-only tokenizers list the languages too.
    codes = [*LANGUAGES][: 100 if size == 51866 else 99]
    names = ("endoftext", "startoftranscript", *codes, *TASKS)
    return {f"<|{name}|>": end + place for place, name in enumerate(names)}


def generation(size: int, **changes: Any) -> dict[str, Any]:
    """Return ``generation_config.json`` of a published size. Timestamps are no text here."""
    tokens = special(size)
    end, start = tokens["<|endoftext|>"], tokens["<|startoftranscript|>"]
    settings = {
        **dict.fromkeys(ENDS, end),
        "decoder_start_token_id": start,
        "is_multilingual": size != ENGLISH_ONLY,
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "return_timestamps": False,
        "begin_suppress_tokens": [220, end],
        "suppress_tokens": [1, 2, 7, 8, *range(start, size)],
    }
    if size != ENGLISH_ONLY:
        names = [name for name in tokens if name.strip("<|>") in LANGUAGES]
        settings |= {
            "lang_to_id": {name: tokens[name] for name in sorted(names)},
            "task_to_id": {task: tokens[f"<|{task}|>"] for task in ("transcribe", "translate")},
        }
    return {**settings, **changes}


MULTILINGUAL, LARGE = 51865, 51866
DETECTED = {"forced_decoder_ids": [[1, None], [2, 50359]]}
PUBLISHED: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "whisper-tiny": (MULTILINGUAL, DETECTED),
    "whisper-large-v3": (LARGE, {"forced_decoder_ids": [[1, None], [2, 50360]]}),
    "nothing forced": (LARGE, {}),
    "task alone": (LARGE, {"task": "translate"}),
    "distil-large-v3": (LARGE, {"language": "<|en|>", "task": "transcribe"}),
    "fine-tuned, three forced": (
        MULTILINGUAL,
        {"forced_decoder_ids": [[1, None], [2, 50359], [3, 50363]]},
    ),
    "fine-tuned, German forced": (
        MULTILINGUAL,
        {"forced_decoder_ids": [[1, 50261], [2, 50358]]},
    ),
    "whisper-tiny.en": (ENGLISH_ONLY, {"forced_decoder_ids": [[1, 50362]]}),
}
SAID = ("", "german", "", "de", "pt-BR", "", "<|FR|>")
"""What is said of the language of each recording."""
CODES = {"german": "de", "de": "de", "pt-BR": "pt", "<|FR|>": "fr"}


def checkpoint(folder: Path, size: int, settings: Mapping[str, Any]) -> Path:
    names = {token: name for name, token in special(size).items()}
    if size != ENGLISH_ONLY:
        # By this one CTranslate2 knows multilingual vocabularies.
        names[50256] = ""
    end, start = names_of(names, "<|endoftext|>"), names_of(names, "<|startoftranscript|>")
    ids = dict.fromkeys(ENDS, end)
    saved = save(
        folder,
        generation(size, **settings),
        names=names,
        vocab_size=size,
        decoder_start_token_id=start,
        # Few tokens are enough; whisper.cpp wants layers four times as wide inside.
        max_target_positions=32,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        **ids,
    )
    (saved / "preprocessor_config.json").write_text(
        json.dumps(json.loads((NANO / "preprocessor_config.json").read_text()))
    )
    return saved


def names_of(names: Mapping[int, str], wanted: str) -> int:
    return next(token for token, name in names.items() if name == wanted)


def load(folder: Path) -> whisper.WhisperModel:
    return whisper.load("whisper-tiny", "pretrained", str(folder))


def session_of(model: whisper.WhisperModel) -> Session:
    return oracle_session(model, "fp32")


def recordings(model: whisper.WhisperModel, said: Sequence[str]) -> list[Item]:
    random = np.random.default_rng(0)
    window = model.dimensions.window
    made = []
    for number, language in enumerate(said):
        noise = np.convolve(random.standard_normal(window), np.full(5, 0.2), "same")
        if number % 2:  # It sounds like another language.
            noise[window // 2 :] = 0.0
        facts = {"lang": language} if language else {}
        made.append(Item.from_audio(str(number), noise.astype(np.float32), facts=facts))
    return made


class Generate:
    """transformers' ``generate`` on a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)
        self.network = WhisperForConditionalGeneration.from_pretrained(folder).eval()
        self.prompts: list[tuple[int, ...]] = []
        self.network.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        if options.get("use_cache"):  # The detection of a language has none.
            self.prompts.append(tuple(options["decoder_input_ids"][0].tolist()))

    def __call__(self, item: Item) -> tuple[tuple[int, ...], list[int]]:
        """Return the prompt, and the tokens that follow."""
        self.prompts.clear()
        mel = self.model.padded_mel([item.audio], 1)
        language = CODES.get(item.facts.get("lang", ""))
        tokens = self.network.generate(
            torch.from_numpy(mel),
            num_beams=1,
            do_sample=False,
            max_new_tokens=4,
            **({"language": language} if language else {}),
        )
        end = self.model.vocabulary.end
        return self.prompts[0], [token for token in tokens[0].tolist() if token != end]


@pytest.fixture
def prompted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The prompts that decoders were given, row by row."""
    given: list[tuple[int, ...]] = []
    greedy = whisper.greedy

    def record(session: Any, feeds: Any, point: str, prompt: np.ndarray, *others: Any) -> Any:
        given.extend(tuple(row) for row in prompt.T.tolist())
        return greedy(session, feeds, point, prompt, *others)

    monkeypatch.setattr(whisper, "greedy", record)
    return given


@pytest.mark.parametrize("name", PUBLISHED)
def test_prompts_languages_and_tokens_are_those_of_generate(
    tmp_path: Path, prompted: list[tuple[int, ...]], name: str
) -> None:
    size, settings = PUBLISHED[name]
    folder = checkpoint(tmp_path, size, settings)
    model, generate = load(folder), Generate(folder)
    items = recordings(model, SAID if size != ENGLISH_ONLY else [""] * 4)
    session = session_of(model)
    predictions = model.run(session, items, Stopwatch())
    answers = [generate(item) for item in items]
    assert {prompt for prompt, _ in answers} == {*prompted}
    codes = {token: code for code, token in model.vocabulary.languages.items()}
    detected = set()
    for number, (prediction, (prompt, tokens)) in enumerate(zip(predictions, answers, strict=True)):
        # Prompts of several lengths are decoded apart.
        assert model.vocabulary.is_uneven or prompted[number] == prompt
        assert prediction["tokens"][: len(tokens)] == tokens and tokens
        if model.vocabulary.detects and "lang" not in items[number].facts:
            assert prediction["language"] == codes[prompt[1]]
            detected.add(prediction["language"])
        else:
            assert prediction.keys() == {"tokens", "text", "level"}
    assert not model.vocabulary.detects or len(detected) > 1, "the audio decides"


def test_the_first_window_decides(tmp_path: Path, prompted: list[tuple[int, ...]]) -> None:
    folder = checkpoint(tmp_path, MULTILINGUAL, DETECTED)
    model = load(folder)
    session = session_of(model)
    noise, hushed = recordings(model, ["", ""])
    both = hushed.with_audio(np.concatenate([hushed.audio, noise.audio, noise.audio]))
    pieces = [both.with_audio(piece) for piece in model.pauses.pieces(both.audio)]
    alone = [one["language"] for one in model.run(session, pieces, Stopwatch())]
    assert {*alone[1:]} - {alone[0]}, "later windows sound like another language"
    prompted.clear()
    (prediction,) = model.run(session, [both], Stopwatch())
    assert prediction["language"] == alone[0]
    assert len(prompted) == len(pieces) and len({*prompted}) == 1


def test_a_trace_follows_the_language_that_the_reference_detected(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, MULTILINGUAL, DETECTED)
    model = load(folder)
    session = session_of(model)
    (unknown,) = recordings(model, [""])
    guide = {"tokens": [5, 6, 7], "language": "de"}
    (german,) = recordings(model, ["de"])
    followed = model.trace(session, unknown, guide)["logits"]
    assert followed.shape == (4, MULTILINGUAL)
    told = model.trace(session, german, {"tokens": [5, 6, 7]})["logits"]
    np.testing.assert_array_equal(followed, told)
    other = model.trace(session, unknown, {**guide, "language": "ja"})["logits"]
    assert np.abs(other - told).max() > 1e-3


@pytest.mark.parametrize(
    ("size", "language", "said"),
    [
        (MULTILINGUAL, "klingon", r"'klingon', and .* knows 99 languages only: af, am, .*german"),
        (MULTILINGUAL, "yue", "'yue', and .* knows 99 languages"),
        (ENGLISH_ONLY, "de", "'de', and .* knows one language only: en"),
    ],
)
def test_a_language_that_the_checkpoint_does_not_know_is_refused(
    tmp_path: Path, size: int, language: str, said: str
) -> None:
    folder = checkpoint(tmp_path, size, {})
    model = load(folder)
    items = recordings(model, ["", language])
    with pytest.raises(CorpusError, match=said) as caught:
        model.run(session_of(model), items, Stopwatch())
    assert str(caught.value).startswith("1 is said to be in")


def test_english_only_checkpoints_transcribe_english(
    tmp_path: Path, prompted: list[tuple[int, ...]]
) -> None:
    folder = checkpoint(tmp_path, ENGLISH_ONLY, {})
    model = load(folder)
    model.run(session_of(model), recordings(model, ["en", "English", "en-GB"]), Stopwatch())
    assert {*prompted} == {(50257, 50362)}


def test_generated_weights_know_no_language() -> None:
    model = whisper.load("whisper-tiny", "seeded", "")
    (item,) = recordings(model, ["klingon"])
    assert model.traced_input(item, {"tokens": []})[1] == [50258, 50259, 50359, 50363]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *CODES.items(),
        ("Haitian Creole", "ht"),
        ("valencian", "ca"),
        ("mandarin", "zh"),
        ("zh-CN", "zh"),
        ("eng", "en"),
        ("haw", "haw"),
    ],
)
def test_names_and_codes_are_those_of_whisper(name: str, code: str) -> None:
    tokens = {known: number for number, known in enumerate(LANGUAGES)}
    assert language_token(tokens, name) == tokens[code]


# Ports -------------------------------------------------------------------------------------------

PORTS = [
    *("cpu-ctranslate2", "cpu-faster-whisper", "cpu-mlx", "cpu-openai-whisper"),
    "cpu-whisper-cpp",
]


@pytest.mark.parametrize("target_name", PORTS)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # Of openai-whisper.
def test_ports_are_told_languages_and_detect_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_name: str
) -> None:
    loaded = catalog.load()
    target = next(target for target in loaded.targets if target.name == target_name)
    runtime = loaded.runtime(target.runtime)
    if any(find_spec(module.split(".")[0]) is None for module in runtime.modules):
        pytest.skip(f"{target.runtime} is not installed")
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    folder = checkpoint(tmp_path / "checkpoint", MULTILINGUAL, DETECTED)
    model = load(folder)
    items = recordings(model, SAID)
    expected = model.run(session_of(model), items, Stopwatch())
    reference = ModelReference("whisper", "whisper-tiny", "pretrained", str(folder))
    opened = sources(reference, model, 1)
    recipe = Recipe(next(iter(target.recipes)))
    execution = runtime.open(model, opened, target, recipe, Options(threads=1))
    predictions = execution.predict(items, Stopwatch())
    assert [one.get("language") for one in predictions] == [one.get("language") for one in expected]
    if recipe.name == "fp32":
        assert [one["tokens"] for one in predictions] == [one["tokens"] for one in expected]
    trace = execution.trace(items[0], expected[0])["logits"]
    assert trace.shape[0] == whisper.traced_steps(expected[0])
    execution.close()


def test_a_port_that_cannot_detect_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2")
    from compat.runtimes.whisper.ctranslate2 import RUNTIME

    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    folder = save(tmp_path / "checkpoint", OWN_VOCABULARY)
    model = load(folder)
    reference = ModelReference("whisper", "whisper-tiny", "pretrained", str(folder))
    opened = sources(reference, model, 1)
    execution = RUNTIME.open(model, opened, RUNTIME.targets[0], Recipe("fp32"), Options(threads=1))
    (item,) = recordings(model, [""])
    with pytest.raises(Unsupported, match=r"no empty token.* say the language with --language"):
        execution.predict([item], Stopwatch())
    told = replace(item, facts={"lang": "hindi"})
    assert execution.predict([told], Stopwatch())[0]["tokens"]
    execution.close()
