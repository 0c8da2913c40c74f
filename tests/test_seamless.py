"""SeamlessM4T's features, graphs, prompts and driver against transformers, and its checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_seamless
import torch
import transformers
from transformers import SeamlessM4TFeatureExtractor

from compat import catalog
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.profile import CORE, QUICK
from compat.contract.session import Session
from compat.inputs import corpus as corpora
from compat.inputs.audio import CorpusError
from compat.inputs.checkpoints import CheckpointError
from compat.metrics.numerics import contrast_db
from compat.models import seamless, seamless_vocabulary
from compat.models.seamless import SeamlessModel, SeamlessV2Model, stacked_features
from compat.models.seamless_network import decoder_module, encoder_module
from compat.models.seamless_vocabulary import model_code
from compat.models.tasks.speech_translation import SpeechTranslation, written_language

RATE = 16_000
VERSIONS = ("seamless-m4t-medium", "seamless-m4t-v2-large")
LENGTHS = {"short": 40, "long": 100}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    level = 1 + np.sin(np.arange(round(seconds * RATE)) / 900 * (1 + seed))
    return (0.05 * level * random.standard_normal(len(level))).astype(np.float32)


def item(seconds: float = 0.7, seed: int = 0, **facts: Any) -> Item:
    return Item.from_audio(f"noise-{seed}", noise(seconds, seed), RATE, facts)


@pytest.fixture(scope="module", params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checkpoint") / str(request.param)
    second = request.param == VERSIONS[1]
    return small_seamless.save(place, second=second, pieces=second)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_seamless.save(tmp_path_factory.mktemp("checkpoint") / VERSIONS[0])


def opened(folder: Path, lengths: dict[str, int] | None = None) -> SeamlessModel:
    model: SeamlessModel = seamless.load(folder.name, "pretrained", str(folder))
    return type(model)(model.config, model.vocabulary, folder, lengths or LENGTHS)


def torch_session(model: SeamlessModel) -> Session:
    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {name: graph.module().eval() for name, graph in graphs.items()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


@pytest.fixture(scope="module")
def model(folder: Path) -> SeamlessModel:
    return opened(folder)


@pytest.fixture(scope="module")
def session(model: SeamlessModel) -> Session:
    return torch_session(model)


@pytest.fixture(scope="module")
def library(folder: Path) -> Any:
    return getattr(transformers, opened(folder).architecture).from_pretrained(folder).eval()


# Features ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [560, 8_000, 8_160, 8_399])
def test_features_are_those_of_the_library(samples: int) -> None:
    audio = noise(1.0)[:samples]
    expected = SeamlessM4TFeatureExtractor()(audio, sampling_rate=RATE, return_tensors="np")
    found = stacked_features(audio)
    # Two computations in float32, of a logarithm and divided by a small deviation.
    np.testing.assert_allclose(found, expected["input_features"][0], atol=2e-3)
    assert expected["attention_mask"].sum() == seamless.kaldi.frame_count(samples) // 2


@pytest.mark.parametrize("samples", [0, 1, 399, 559])
def test_hardly_any_audio_gives_finite_features(samples: int) -> None:
    found = stacked_features(noise(1.0)[:samples])
    assert found.shape == (1, 160)
    assert np.isfinite(found).all()


# Graphs ------------------------------------------------------------------------------------------


def test_logits_are_those_of_the_library(
    model: SeamlessModel, session: Session, library: Any
) -> None:
    """On a window that is not full, whose padding nothing may hear."""
    one = item(lang="de")
    tokens = [5, 6, 7, 8]
    found = model.trace(session, one, {"tokens": tokens})
    point, feeds = model._feeds(one.audio)
    assert point == "short"
    assert 0 < feeds["heard"].sum() < feeds["heard"].size
    with torch.inference_mode():
        expected = library(
            input_features=torch.from_numpy(feeds["features"]),
            attention_mask=torch.from_numpy(feeds["heard"]).long(),
            decoder_input_ids=torch.tensor([[3, small_seamless.LANGUAGES["deu"], *tokens]]),
        )
    hidden = expected.encoder_last_hidden_state[0, : int(feeds["kept"].sum())]
    np.testing.assert_allclose(found["encoder"], hidden, atol=2e-5)
    np.testing.assert_allclose(found["logits"], expected.logits[0, 1:], atol=2e-5)
    assert expected.logits.std() > 0.3


def test_chunks_of_the_second_version_are_those_of_the_library(tmp_path: Path) -> None:
    """Published chunks are longer than any window, shorter ones part it."""
    small = {**small_seamless.SECOND, "speech_encoder_chunk_size": 9}
    config = transformers.SeamlessM4Tv2Config(**small, speech_encoder_left_chunk_num=1)
    torch.manual_seed(0)
    network = transformers.SeamlessM4Tv2ForSpeechToText(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features = torch.randn(1, 40, 160)
    heard, kept = torch.ones(1, 40), torch.ones(1, 6)
    with torch.inference_mode():
        expected = network.speech_encoder(features, heard.long()).last_hidden_state
        hidden, *_ = encoder_module(network).eval()(features, heard, kept)
        network.config.speech_encoder_chunk_size = 40
        whole, *_ = encoder_module(network).eval()(features, heard, kept)
    np.testing.assert_allclose(hidden, expected, atol=2e-5)
    assert (whole - hidden).abs().max() > 0.01


def test_answers_are_those_of_generate(
    model: SeamlessModel, session: Session, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "max_tokens", 10)
    asked = item(lang="fr")
    (answer,) = model.run(session, [asked], Stopwatch())
    _, feeds = model._feeds(asked.audio)
    with torch.inference_mode():
        expected = library.generate(
            torch.from_numpy(feeds["features"]),
            attention_mask=torch.from_numpy(feeds["heard"]).long(),
            tgt_lang="fra",
            num_beams=1,
            do_sample=False,
            max_new_tokens=10,
        )[0].tolist()
    written = expected[2:]
    assert answer["tokens"] == (written[: written.index(3)] if 3 in written else written)
    assert expected[:2] == [3, small_seamless.LANGUAGES["fra"]]


def test_sizes() -> None:
    """Parameters of what is run, without running it; but for the smallest, as published."""
    whole = {"seamless-m4t-medium": 821.4, "seamless-m4t-v2-large": 1501.8, "seamless-nano": 0.5}
    for variant, millions in whole.items():
        model = seamless.load(variant, "seeded", "")
        kind = getattr(transformers, model.architecture)
        with torch.device("meta"):
            network = kind(kind.config_class(**model.config))
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert count == pytest.approx(millions, abs=0.06)
        encoder, decoder = model.graphs()
        (point,) = encoder.points.values()
        # Five seconds are 249 frames.
        assert (point["frames"], point["positions"]) == (250, 32)
        heads = 4 if variant == "seamless-nano" else 16
        head = model.config["hidden_size"] // heads
        assert decoder.state["key_0"].shape == ("batch", heads, head, 22)
        variants = catalog.load().families
        (found,) = [v for family in variants for v in family.variants if v.name == variant]
        assert found.parameters == millions


def test_generated_weights_hear_and_obey() -> None:
    """Another sound and another language give other logits, by a good part of their size."""
    small = {**seamless.MEDIUM, **small_seamless.FIRST}
    vocabulary = seamless_vocabulary.Vocabulary(3, 3, small_seamless.LANGUAGES)
    for kind in (SeamlessModel, SeamlessV2Model):
        settings = dict(small)
        if kind is SeamlessV2Model:
            settings |= {**small_seamless.SECOND, "position_embeddings_type": "relative_key"}
            del settings["max_source_positions"]
        model = kind(settings, vocabulary, lengths=LENGTHS)
        session = torch_session(model)
        items = [item(seed=0), item(seed=1), item(seed=0, target_lang="de")]
        answers = model.run(session, items, Stopwatch())
        pairs = zip(items, answers, strict=True)
        traces = [model.trace(session, one, answer) for one, answer in pairs]
        assert contrast_db([traces[0]["encoder"], traces[1]["encoder"]]) > -15
        assert contrast_db([trace["logits"] for trace in traces]) > -15
        assert [len(answer["tokens"]) for answer in answers] == [20, 20, 20]


# Driver ------------------------------------------------------------------------------------------


def test_long_audio_is_cut_in_pauses_and_its_texts_joined(
    model: SeamlessModel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "max_tokens", 4)
    audio = np.concatenate([noise(1.6), np.zeros(4_000, np.float32), noise(0.9, 1)])
    long = Item.from_audio("long", audio, RATE, {"lang": "en"})
    pieces = model.pauses.pieces(audio)
    assert [len(piece) > 20_000 for piece in pieces] == [True, False]
    assert sum(map(len, pieces)) == len(audio)
    parts = [Item.from_audio("part", piece, RATE, {"lang": "en"}) for piece in pieces]
    watch = Stopwatch()
    (answer,) = model.run(session, [long], watch)
    apart = model.run(session, parts, Stopwatch())
    assert answer["tokens"] == [token for part in apart for token in part["tokens"]]
    assert answer["text"] == " ".join(part["text"] for part in apart if part["text"])
    assert watch.marks["first_token"] < sum(watch.stages.values())


def test_tokens_become_text_by_either_tokenizer(model: SeamlessModel) -> None:
    assert model.write is not None
    assert model.write([6, 7, 8, 3, 61]) == "eins zwei"
    assert model.write([9, 10, 5]) == "trois two"
    assert model.write([]) == ""


def test_an_unknown_language_is_refused(model: SeamlessModel, session: Session) -> None:
    with pytest.raises(CorpusError, match="to be written in 'sw', and the checkpoint"):
        model.run(session, [item(lang="sw")], Stopwatch())


@pytest.mark.parametrize(
    ("language", "code"),
    [
        *(("de", "deu"), ("de-AT", "deu"), ("German", "deu"), ("deu", "deu"), ("zh-CN", "cmn")),
        *(("__fra__", "fra"), ("<|en|>", "eng"), ("swa", "swh"), ("ar_EG", "arb"), ("xx", "xx")),
    ],
)
def test_languages_have_many_names(language: str, code: str) -> None:
    assert model_code(language) == code


def test_a_codes_own_name_comes_first() -> None:
    """Published files know two scripts of Chinese."""
    vocabulary = seamless_vocabulary.Vocabulary(3, 3, {"cmn": 7, "cmn_Hant": 8})
    assert vocabulary.prompt("cmn_Hant") == (3, 8)
    assert vocabulary.prompt("zh") == (3, 7)


# Checkpoints -------------------------------------------------------------------------------------


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, **changes}))

    return edit


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _one_shard_less(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


GENERATION, FEATURES = "generation_config.json", "preprocessor_config.json"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "shard": (_one_shard_less, "lacks model-00002"),
    "kind": (_edit("config.json", model_type="seamless_m4t_v2"), "not 'seamless_m4t'"),
    "positions": (_edit("config.json", position_embeddings_type="rotary"), "'rotary'"),
    "adapter": (_edit("config.json", num_adapter_layers=2), "num_adapter_layers 2"),
    "layers": (_edit("config.json", decoder_layers=3), r"decoder.layers.2\S+ should have shape"),
    "no prompts": (_without(GENERATION), "cannot read .*generation_config"),
    "no languages": (_edit(GENERATION, text_decoder_lang_to_code_id={}), "which token asks"),
    "far token": (
        _edit(GENERATION, text_decoder_lang_to_code_id={"eng": 256_022}),
        "eng 256022 is none of the 64 tokens",
    ),
    "rate": (_edit(FEATURES, sampling_rate=8000), "8000 Hz"),
    "bands": (_edit(FEATURES, num_mel_bins=128), "num_mel_bins 128; only 80"),
    "no tokenizer": (_without("tokenizer.json"), "neither tokenizer.json nor sentencepiece"),
}


def _use(folder: Path) -> None:
    model = seamless.load(VERSIONS[0], "pretrained", str(folder))
    assert model.write is not None
    model.write([5])
    assert model.network is not None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damages_are_told(damage: str, first: Path, tmp_path: Path) -> None:
    change, message = DAMAGES[damage]
    place = tmp_path / VERSIONS[0]
    shutil.copytree(first, place)
    change(place)
    with pytest.raises(CheckpointError, match=message):
        _use(place)


def test_a_cut_tokenizer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sentencepiece.bpe.model"
    path.write_bytes(small_seamless.sentencepiece(small_seamless.PIECES[1:])[:25])
    with pytest.raises(CheckpointError, match=r"cannot read .*or was cut short"):
        seamless_vocabulary.Writer(tmp_path, {})([5])


def test_components_that_are_not_run_may_be_there_and_no_others(
    first: Path, tmp_path: Path
) -> None:
    index = json.loads((first / "model.safetensors.index.json").read_text())["weight_map"]
    assert {"text_encoder", "t2u_model", "vocoder"} <= {name.split(".")[0] for name in index}
    model = opened(first)
    encoder = encoder_module(model.network)
    assert decoder_module(model.network, 8) is not None
    assert encoder is not None
    strange = replace_component("vocoder", "voice", first, tmp_path / VERSIONS[0])
    with pytest.raises(CheckpointError, match="the model has no voice"):
        assert opened(strange).network is not None


def replace_component(old: str, new: str, folder: Path, place: Path) -> Path:
    """Copy a checkpoint with one of its components under another name."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, place)
    for path in place.glob("*.safetensors"):
        tensors = load_file(path)
        save_file({n.replace(f"{old}.", f"{new}."): t for n, t in tensors.items()}, path)
    return place


# The task ----------------------------------------------------------------------------------------


@pytest.fixture
def spoken(tmp_path: Path) -> corpora.Corpus:
    """A set whose words and translations are known."""
    import soundfile

    place = tmp_path / "talks"
    place.mkdir()
    lines = []
    for number, (text, translation) in enumerate([("eins", "one"), ("zwei drei", "two three")]):
        soundfile.write(place / f"{number}.wav", noise(0.5, number), RATE)
        lines.append(
            {
                "audio_filepath": f"{number}.wav",
                "duration": 0.5,
                "text": text,
                "lang": "de",
                "translation": translation,
            }
        )
    (place / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return corpora.load(tmp_path)


def test_a_set_that_knows_both_is_two_sets(spoken: corpora.Corpus) -> None:
    task = SpeechTranslation()
    sets = task.items(spoken, RATE, QUICK).task
    assert list(sets) == ["talks-translation", "talks"]
    translated, transcribed = sets.values()
    assert [one.id for one in translated] == ["talks-0000-to-en", "talks-0001-to-en"]
    assert {written_language(one) for one in translated} == {"en"}
    assert {written_language(one) for one in transcribed} == {"de"}
    truths = ["one", "two three"]
    right = [{"text": text, "tokens": []} for text in truths]
    wrong = [{"text": "one", "tokens": []}, {"text": "three", "tokens": []}]
    scores = task.score_sets(
        {
            "talks-translation": (translated, wrong, right),
            "talks": (transcribed, right, [{"text": "eins"}, {"text": "zwei drei"}]),
        }
    )
    assert scores["talks-translation"]["reference_chrf"] == 1.0
    assert 0.5 < scores["talks-translation"]["chrf"] < 1.0
    assert scores["talks-translation"]["worst_utterance"] == 1
    assert scores["talks"]["wer"] == 1.0
    assert scores["talks"]["reference_wer"] == 0.0
    declared = {metric.name for metric in task.metrics}
    for values in scores.values():
        assert {name for name in values if not name.endswith("_interval")} <= declared
    restored = task.restored("x", task.truth(translated[0]), 0.5)
    assert restored.facts["translation"] == "one"


def test_into_which_language_has_to_be_said(spoken: corpora.Corpus) -> None:
    facts = {"lang": "en", "translation": "eins"}
    with pytest.raises(CorpusError, match=r'"target_lang": "de"'):
        written_language(Item("talk", {}, 1.0, facts=facts))
    assert written_language(Item("talk", {}, 1.0, facts={**facts, "target_lang": "de"})) == "de"
    assert written_language(Item("talk", {}, 1.0)) == "en"


def test_an_answer_to_a_hard_input_is_held_against_the_references() -> None:
    task = SpeechTranslation()
    told = Item("talk", {}, 1.0, facts={"translation": "one two", "lang": "de"})
    words = Item("talk", {}, 1.0, facts={"text": "one two", "lang": "en"})
    right, wrong = {"text": "one two", "tokens": [1]}, {"text": "one", "tokens": [2]}
    assert task.errors(told, wrong, right) == {"errors": 1.0, "reference": 0.0}
    assert task.errors(told, wrong, wrong) == {"errors": 0.0, "reference": 0.0}
    assert task.errors(words, wrong, right) == {"errors": 1.0, "reference": 0.0}


def test_generated_weights_get_windows_and_no_truth() -> None:
    model = seamless.load("seamless-m4t-medium", "seeded", "")
    chosen = model.items(corpora.load(), CORE)
    assert not chosen.task
    assert [one.seconds for one in chosen.timed] == [5.0, 5.0]
    assert [model._prompt(one)[1] for one in chosen.timed] == [256_106, 256_107]
