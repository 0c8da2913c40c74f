"""Wav2Vec2's host side, its graph on three runtimes, and the wav2vec2-nano checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)
from transformers import Wav2Vec2Model as Wav2Vec2Body

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.build.torch_session import TorchSession
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.places import FIXTURES
from compat.contract.profile import QUICK
from compat.contract.runtime import Options
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load
from compat.metrics.numerics import compare, contrast_db
from compat.metrics.wer import corpus_errors, total
from compat.models import wav2vec2
from compat.models.parts.ctc import Vocabulary
from compat.models.parts.wave_encoder import frame_count, wave_encoder_module
from compat.models.wav2vec2 import Wav2Vec2Model
from compat.models.wav2vec2_network import Recogniser

CHECKPOINT = FIXTURES / "checkpoints" / "wav2vec2-nano"
NANO = ModelReference("wav2vec2", "wav2vec2-nano", "trained", "checkpoints/wav2vec2-nano")
RATE = Wav2Vec2Model.sample_rate


@pytest.fixture(scope="module")
def model() -> Wav2Vec2Model:
    return wav2vec2.load("wav2vec2-nano", "trained", "checkpoints/wav2vec2-nano")


@pytest.fixture(scope="module")
def tokenizer() -> Wav2Vec2CTCTokenizer:
    return Wav2Vec2CTCTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def session(model: Wav2Vec2Model) -> Session:
    return oracle_session(model, "fp32")


def transcripts(model: Wav2Vec2Model, session: Session, items: list[Item]) -> list[str]:
    predictions = [model.run(session, [item], Stopwatch())[0] for item in items]
    return [prediction["text"] for prediction in predictions]


# --- decoding ------------------------------------------------------------------------------------

LETTERS = Vocabulary(("", "", " ", "a", "b"), blank=0)


@pytest.mark.parametrize(
    ("frames", "tokens", "text"),
    [
        ([], [], ""),
        ([0, 0, 0], [], ""),
        ([3, 3, 3], [3], "a"),
        ([3, 0, 3], [3, 3], "aa"),
        ([0, 3, 3, 0, 0, 4, 0, 4, 4], [3, 4, 4], "abb"),
        ([3, 2, 2, 4, 0, 2], [3, 2, 4, 2], "a b"),
        ([2, 2, 3, 0, 2, 0, 2, 4], [2, 3, 2, 2, 4], "a b"),
        # Output 1 is a special token: it parts nothing and shows nothing.
        ([3, 1, 4], [3, 1, 4], "ab"),
    ],
)
def test_greedy_decoding(frames: list[int], tokens: list[int], text: str) -> None:
    assert LETTERS.decode(frames) == (tokens, text)


@given(st.lists(st.sampled_from([0, *range(4, 31)]), max_size=40))
@settings(max_examples=25, deadline=None)
def test_decoding_is_that_of_the_library(
    model: Wav2Vec2Model, tokenizer: Wav2Vec2CTCTokenizer, frames: list[int]
) -> None:
    assert model.vocabulary is not None
    expected = " ".join(tokenizer.decode(frames).split())
    assert model.vocabulary.decode(frames)[1] == expected


# --- long audio ----------------------------------------------------------------------------------


@given(st.integers(1, 40 * RATE), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_chunks_count_every_frame_once(model: Wav2Vec2Model, samples: int, seed: int) -> None:
    loudness = np.repeat(np.random.default_rng(seed).random(samples // 1600 + 1), 1600)
    recording = loudness[:samples].astype(np.float32)
    chunks = model.chunks(Item.from_audio("one", recording))
    counted = [
        # Where in the recording a chunk begins: it is a view.
        (chunk.samples.ctypes.data - recording.ctypes.data) // (4 * model.hop) + frame
        for chunk in chunks
        for frame in range(chunk.first, chunk.last)
    ]
    assert counted == list(range(frame_count(model.config, samples)))
    assert all(len(chunk.samples) <= 4 * RATE for chunk in chunks)


def test_long_audio_is_cut_at_a_pause(model: Wav2Vec2Model) -> None:
    samples = np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    samples[int(3.0 * RATE) : int(3.3 * RATE)] = 0.0
    left, right = model.chunks(Item.from_audio("one", samples))
    assert 3.0 <= left.last * 320 / RATE <= 3.3
    assert right.first == wav2vec2.CONTEXT


def test_long_audio_is_transcribed(model: Wav2Vec2Model, session: Session) -> None:
    items = load().sets["long"].items(RATE)
    assert all(item.seconds > 10 for item in items)
    heard = transcripts(model, session, items)
    both = [[item.text for item in items], heard]
    # Letters without spaces: the stand-in learnt from single sentences, so that the pauses between
    # them are no spaces to it.
    spelled = [[" ".join(text.replace(" ", "")) for text in texts] for texts in both]
    errors = total(corpus_errors(*spelled))
    assert errors.rate < 0.06, (errors, heard)


# --- the checkpoint ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heard_by_transformers(tokenizer: Wav2Vec2CTCTokenizer) -> dict[str, list[str]]:
    """Transcripts of the library's own model at each utterance's own length."""
    network = Wav2Vec2ForCTC.from_pretrained(CHECKPOINT).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(CHECKPOINT)
    heard: dict[str, list[str]] = {}
    for name in ("clean", "hard"):
        heard[name] = []
        for item in load().sets[name].items(RATE):
            values = extractor(item.audio, sampling_rate=RATE, return_tensors="pt").input_values
            with torch.inference_mode():
                best = network(values).logits[0].argmax(-1)
            heard[name].append(tokenizer.decode(best))
    return heard


@pytest.mark.parametrize(("name", "low", "high"), [("clean", 0.0, 0.05), ("hard", 0.05, 0.18)])
def test_word_error_rate(
    heard_by_transformers: dict[str, list[str]], name: str, low: float, high: float
) -> None:
    texts = [item.text for item in load().sets[name].items(RATE)]
    assert low <= total(corpus_errors(texts, heard_by_transformers[name])).rate <= high


@pytest.mark.parametrize(("name", "share"), [("clean", 0.85), ("hard", 0.5)])
def test_padding_to_the_window_changes_no_error_rate(
    model: Wav2Vec2Model,
    session: Session,
    heard_by_transformers: dict[str, list[str]],
    name: str,
    share: float,
) -> None:
    """Group normalisation sees the padding: where there is noise, some words tip either way."""
    items = load().sets[name].items(RATE)
    ours = transcripts(model, session, items)
    theirs = heard_by_transformers[name]
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= share * len(items)
    texts = [item.text for item in items]
    rates = [total(corpus_errors(texts, heard)).rate for heard in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1], abs=0.02)


def test_silence_has_no_words(model: Wav2Vec2Model, session: Session) -> None:
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    items = [
        Item.from_audio("silence", np.zeros(2 * RATE, np.float32)),
        Item.from_audio("noise", 0.1 * noise),
        Item.from_audio("one sample", np.ones(1, np.float32)),
    ]
    assert transcripts(model, session, items) == ["", "", ""]


# --- the graph -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target_name", ["cpu-torch", "cpu-onnxruntime", "openvino-cpu"])
def test_every_runtime_gives_the_same_outputs(
    model: Wav2Vec2Model, session: Session, target_name: str
) -> None:
    loaded = catalog.load()
    target = next(target for target in loaded.targets if target.name == target_name)
    if find_spec(target.runtime) is None:
        pytest.skip(f"{target.runtime} is not installed")
    compiled = loaded.runtime(target.runtime).compile(
        sources(NANO, model, 1), target, Recipe("fp32"), Options(1)
    )
    items = load().sets["hard"].items(RATE, 4)
    expected = [model.trace(session, item, {})["logits"] for item in items]
    found = [model.trace(compiled, item, {})["logits"] for item in items]
    assert compare(expected, None, found)["snr_db"] > 80
    assert [one.argmax(-1).tolist() for one in found] == [
        one.argmax(-1).tolist() for one in expected
    ]
    assert transcripts(model, compiled, items) == transcripts(model, session, items)
    compiled.close()


SMALL = {
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
    "feat_extract_norm": "group",
}
SMALL_LAYER_NORM = {
    **SMALL,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}


@pytest.mark.parametrize("config", [SMALL, SMALL_LAYER_NORM], ids=["group", "layer"])
def test_the_graph_is_that_of_the_library(config: dict[str, object]) -> None:
    """Masked where checkpoints were trained so, padded with zeros where they were not."""
    torch.manual_seed(0)
    network = Wav2Vec2ForCTC(Wav2Vec2Config(**config)).eval()
    model = Wav2Vec2Model(config, (1, 2))
    model.network = network
    modules = {"recogniser": Recogniser(network).eval()}
    session = TorchSession(
        {"recogniser": model.graphs()[0]}, modules, {"recogniser": "fp32"}, torch.device("cpu")
    )
    samples = np.random.default_rng(0).standard_normal(int(1.3 * RATE)).astype(np.float32)
    found = model.trace(session, Item.from_audio("one", samples), {})["logits"]
    mask = torch.arange(2 * RATE)[None] < len(samples) if model.masked else None
    with torch.inference_mode():
        padded = torch.zeros(1, 2 * RATE)
        padded[0, : len(samples)] = torch.from_numpy((samples - samples.mean()) / samples.std())
        expected = network(padded, attention_mask=mask).logits[0].numpy()
    assert len(found) == (len(samples) - 400) // 320 + 1
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-4)


@pytest.mark.parametrize("config", [SMALL, SMALL_LAYER_NORM], ids=["group", "layer"])
@pytest.mark.parametrize("body", [HubertModel, Wav2Vec2Body], ids=["hubert", "wav2vec2"])
def test_the_body_gives_the_hidden_states_of_the_library(
    body: type, config: dict[str, object]
) -> None:
    torch.manual_seed(0)
    network = body(body.config_class(**config)).eval()
    # As it was made, to normalise twice is to normalise once.
    torch.nn.init.normal_(network.encoder.layer_norm.weight)
    samples = torch.randn(2, 4000)
    with torch.inference_mode():
        library = network(samples, output_hidden_states=True)
        features, *found = wave_encoder_module(network)(samples)
    # The library's last hidden state is normalised, those of its layers are not.
    expected = (*library.hidden_states[:-1], library.last_hidden_state)
    assert features.shape == found[-1].shape == (2, frame_count(config, 4000), 32)
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_generated_weights_are_admitted() -> None:
    """Silence, noise and speech must differ by 20 dB more than a strict tolerance forgives."""
    config = wav2vec2.PUBLISHED["wav2vec2-base"]
    model = Wav2Vec2Model(config, (1,))
    kernel = model.network.wav2vec2.encoder.pos_conv_embed.conv.weight
    # As any other parameter, although training stores its length and direction.
    assert isinstance(kernel, torch.nn.Parameter)
    assert float(kernel.detach().std()) == pytest.approx((48 * 128) ** -0.5, rel=0.02)
    modules = {"recogniser": Recogniser(model.network).eval()}
    graphs = {"recogniser": model.graphs()[0]}
    session = TorchSession(graphs, modules, {"recogniser": "fp32"}, torch.device("cpu"))
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    items = [
        Item.from_audio("silence", np.zeros(RATE, np.float32)),
        Item.from_audio("noise", 0.1 * noise),
        *model.items(load(), QUICK).numerics[:2],
    ]
    traces = [model.trace(session, item, {}) for item in items]
    shares = [model.run(session, [item], Stopwatch())[0]["shares"] for item in items[1:]]
    for name in ("features", "logits"):
        assert contrast_db([trace[name] for trace in traces]) > -8, name
    # Speech changes with time, and so must what is made of it.
    assert all(len(set(trace["logits"].argmax(-1))) > 2 for trace in traces[1:])
    assert len({tuple(one) for one in shares}) == len(shares)


# --- checkpoints that cannot be used -------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def change(path: Path, **values: object) -> None:
    known = json.loads(path.read_text(encoding="utf-8"))
    known.update(values)
    kept = {key: value for key, value in known.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_a_checkpoint_of_another_architecture_is_refused(copy: Path) -> None:
    change(copy / "config.json", model_type="whisper")
    with pytest.raises(CheckpointError, match="'whisper' model, not 'wav2vec2'"):
        wav2vec2.load("wav2vec2-base", "pretrained", str(copy))


def test_a_checkpoint_without_a_vocabulary_is_refused(copy: Path) -> None:
    (copy / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match="it is not fine-tuned for recognition"):
        wav2vec2.load("wav2vec2-base", "pretrained", str(copy))


def as_transformers_5(folder: Path) -> None:
    """What ``Wav2Vec2Processor.save_pretrained`` of transformers 5 writes."""
    features = folder / "preprocessor_config.json"
    newer = {"feature_extractor": json.loads(features.read_text(encoding="utf-8"))}
    (folder / "processor_config.json").write_text(json.dumps(newer), encoding="utf-8")
    features.unlink()


def with_objects(folder: Path) -> None:
    token = {"__type": "AddedToken", "content": "<pad>", "lstrip": False}
    change(folder / "tokenizer_config.json", pad_token=token)


def by_language(folder: Path, asked: str | None = "deu") -> None:
    """As MMS: a vocabulary for each language, of which the tokenizer names one."""
    path = folder / "vocab.json"
    letters = json.loads(path.read_text(encoding="utf-8"))
    special = {token: index for token, index in letters.items() if not token.isalpha()}
    path.write_text(json.dumps({"eng": special, "deu": letters}), encoding="utf-8")
    change(folder / "tokenizer_config.json", target_lang=asked)


@pytest.mark.parametrize("write", [as_transformers_5, with_objects, by_language])
def test_other_forms_of_a_checkpoint_are_the_same(
    model: Wav2Vec2Model, copy: Path, write: Callable[[Path], None]
) -> None:
    write(copy)
    found = wav2vec2.load("wav2vec2-base", "pretrained", str(copy))
    assert found.vocabulary == model.vocabulary and found.normalize == model.normalize


@pytest.mark.parametrize("asked", [None, "fra"])
def test_a_language_without_a_vocabulary_is_refused(copy: Path, asked: str | None) -> None:
    by_language(copy, asked)
    with pytest.raises(CheckpointError, match=r'"target_lang" in .* to one of deu, eng'):
        wav2vec2.load("wav2vec2-base", "pretrained", str(copy))


def test_a_processor_without_features_is_refused(copy: Path) -> None:
    as_transformers_5(copy)
    change(copy / "processor_config.json", feature_extractor=None)
    with pytest.raises(CheckpointError, match="has no feature_extractor"):
        wav2vec2.load("wav2vec2-base", "pretrained", str(copy))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"conv_stride": None}, "has no conv_stride"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "audio at 8000 Hz"),
        ("vocab.json", {"z": 40}, "'z' has no place among the 31 outputs"),
        ("vocab.json", {"eng": {"a": 1}}, "'eng' has no place"),
        ("tokenizer_config.json", {"word_delimiter_token": "_"}, "has no '_'"),
    ],
)
def test_a_broken_checkpoint_is_refused(
    copy: Path, file: str, values: dict[str, object], message: str
) -> None:
    change(copy / file, **values)
    with pytest.raises(CheckpointError, match=message):
        wav2vec2.load("wav2vec2-base", "pretrained", str(copy))
