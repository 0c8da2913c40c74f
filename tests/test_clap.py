"""CLAP's features, tokens, graphs and driver against transformers, and its checkpoints' folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damages import setting, without
from tokenizers import ByteLevelBPETokenizer
from transformers import ClapConfig, ClapFeatureExtractor, RobertaTokenizer
from transformers import ClapModel as ClapNetwork

from compat import catalog
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.profile import QUICK
from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load as load_corpus
from compat.judge import recommendations, thresholds
from compat.judge.results import facts_of
from compat.metrics.numerics import contrast_db
from compat.metrics.timing import summarise
from compat.models import clap
from compat.models.clap import FEATURES, ClapModel, fitted, log_mel
from compat.models.parts import clap_encoders
from compat.models.parts.clap_encoders import audio_module, bicubic, text_module
from compat.models.parts.sentences import hashed_words, read_tokenizer
from compat.models.tasks.zero_shot import SENTENCES

RATE = 48_000
SMALL_FEATURES = {**FEATURES, "feature_size": 16, "max_length_s": 1}
SMALL: dict[str, Any] = {
    "audio_config": {
        "spec_size": 64,
        "num_mel_bins": 16,
        "window_size": 4,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [2, 2],
        "num_attention_heads": [2, 4],
    },
    "text_config": {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
    },
    "projection_dim": 24,
}
"""The same architecture, 2 + 2 + 2 layers."""
HOP = 240
"""Samples between frames of a second of audio: 201 of them, for 256 columns of the image."""
SMALL_FEATURES["hop_length"] = HOP


@pytest.fixture(scope="module")
def model() -> ClapModel:
    return ClapModel(SMALL, SMALL_FEATURES)


def sounds(count: int, seconds: float = 0.4) -> list[Item]:
    random = np.random.default_rng(0)
    time = np.arange(round(seconds * RATE)) / RATE
    waves = [np.sin(2 * np.pi * 200 * 1.7**i * time) * (1 + i % 3) / 4 for i in range(count)]
    noise = [0.05 * random.standard_normal(len(time)) for _ in range(count)]
    facts = [{"captions": SENTENCES[:5], "caption": SENTENCES[i % 5]} for i in range(count)]
    return [
        Item.from_audio(f"s{i}", (waves[i] + noise[i]).astype(np.float32), RATE, facts[i])
        for i in range(count)
    ]


def session_of(model: ClapModel) -> TorchSession:
    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {name: graph.module().eval() for name, graph in graphs.items()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


@pytest.fixture(scope="module")
def session(model: ClapModel) -> TorchSession:
    return session_of(model)


# --- features ------------------------------------------------------------------------------------


def library_features(audio: np.ndarray, features: Any = FEATURES) -> np.ndarray:
    extractor = ClapFeatureExtractor(**features)
    found: np.ndarray = extractor(audio, sampling_rate=RATE, return_tensors="np")["input_features"]
    return found[0]


@pytest.mark.parametrize(
    ("seconds", "padding"),
    [
        (0.00002, "repeatpad"),
        (0.3, "repeatpad"),
        (3.5, "repeatpad"),
        (3.5, "repeat"),
        (3.5, "pad"),
        (10.0, "repeatpad"),
    ],
)
def test_features_are_the_librarys(seconds: float, padding: str) -> None:
    audio = np.random.default_rng(1).standard_normal(round(seconds * RATE)).astype(np.float32)
    features = {**FEATURES, "padding": padding}
    found = log_mel(0.1 * audio, features)
    assert found.shape == (1, 1001, 64) and found.dtype == np.float32
    # The library rounds its spectrum to single precision: 1e-7 of the power, 4e-7 dB and more.
    np.testing.assert_allclose(found, library_features(0.1 * audio, features), atol=2e-4)


def test_silence_is_the_floor_and_long_audio_its_beginning() -> None:
    assert (log_mel(np.zeros(5, np.float32)) == -100.0).all()
    audio = np.random.default_rng(2).standard_normal(12 * RATE).astype(np.float32)
    np.testing.assert_array_equal(log_mel(audio), log_mel(audio[: 10 * RATE]))
    assert fitted(np.ones(3), 7, "repeatpad").tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert fitted(np.ones(3), 7, "repeat").tolist() == [1] * 7
    assert fitted(np.ones(3), 7, "pad").tolist() == [1, 1, 1, 0, 0, 0, 0]


def htk(extractor: ClapFeatureExtractor) -> None:
    extractor.mel_filters_slaney = extractor.mel_filters


def test_another_mel_scale_is_seen() -> None:
    """The planted defect: filters of HTK's scale, which the library keeps for fused models."""
    audio = np.random.default_rng(1).standard_normal(RATE).astype(np.float32)
    extractor = ClapFeatureExtractor(**FEATURES)
    htk(extractor)
    wrong = extractor(audio, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    assert np.abs(log_mel(audio) - wrong).mean() > 10.0


# --- tokens --------------------------------------------------------------------------------------


def tokenizer_files(folder: Path) -> None:
    """Train a byte-level BPE of RoBERTa's form on the sentences, and save its files."""
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(SENTENCES, vocab_size=380, special_tokens=special)
    trained.save_model(str(folder))


@pytest.mark.parametrize("whole", [True, False])
def test_tokens_are_the_librarys(tmp_path: Path, whole: bool) -> None:
    tokenizer_files(tmp_path)
    library = RobertaTokenizer.from_pretrained(tmp_path)
    if whole:
        library.save_pretrained(tmp_path)
        (tmp_path / "vocab.json").unlink(missing_ok=True)
        (tmp_path / "merges.txt").unlink(missing_ok=True)
    sentences = ["This is a sound of rain.", "Zwölf Hähne, 3 x!", "", "a " * 100]
    ids, mask = read_tokenizer(tmp_path, 77, 1, 400)(sentences)
    expected = library(
        sentences, padding="max_length", max_length=77, truncation=True, return_tensors="np"
    )
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])
    assert ids.dtype == mask.dtype == np.int32


def test_hashed_words_need_no_vocabulary() -> None:
    tokens = hashed_words(8, 1, 50_265)
    ids, mask = tokens(["A dog, a Dog", "rain " * 20])
    # By hand: CRC-32 of "a", "dog" and ",".
    word = {name: 4 + crc % 50_261 for name, crc in CRCS.items()}
    assert ids[0].tolist() == [0, word["a"], word["dog"], word[","], word["a"], word["dog"], 2, 1]
    assert mask[0].tolist() == [1] * 7 + [0] and ids[1, -1] == 2 and mask[1].all()
    assert ids.max() < 50_265


CRCS = {"a": 0xE8B7BE43, "dog": 0x812C397D, ",": 0xE0DA836E}
"""Of zlib, written down: another hash would be other weights' inputs on another machine."""


# --- graphs --------------------------------------------------------------------------------------


def test_the_stretch_is_bicubic_interpolation() -> None:
    values = torch.randn(1, 1, 1001, 3, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(
        values, (1024, 3), mode="bicubic", align_corners=True
    )
    found = torch.from_numpy(bicubic(1001, 1024)) @ values
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_audio_embeddings_are_the_librarys(model: ClapModel) -> None:
    features = torch.from_numpy(np.stack([log_mel(s.audio, model.features) for s in sounds(3)]))
    with torch.inference_mode():
        (found,) = audio_module(model.network, model.frames)(features)
        expected = model.network.get_audio_features(features).pooler_output
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))


def test_text_embeddings_are_the_librarys(model: ClapModel) -> None:
    ids, mask = map(torch.from_numpy, model.tokens([*SENTENCES[:3], "a " * 100]))
    with torch.inference_mode():
        (found,) = text_module(model.network)(ids, mask)
        expected = model.network.get_text_features(ids, mask).pooler_output
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("defect", ["no mask", "last frame dropped", "no normalisation"])
def test_planted_defects_of_graphs_are_seen(
    model: ClapModel, defect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the two tests above compare moves by more than a hundred times what they allow."""
    features = np.stack([log_mel(s.audio, model.features) for s in sounds(2)])
    ids, mask = model.tokens(SENTENCES[:2])
    norm = model.network.audio_model.audio_encoder.batch_norm
    with torch.inference_mode():
        inputs = torch.from_numpy(features)
        text = text_module(model.network)(torch.from_numpy(ids), torch.from_numpy(mask))[0]
        audio = audio_module(model.network, model.frames)(inputs)[0]
        if defect == "no mask":
            monkeypatch.setattr(clap_encoders, "MASKED", 0.0)
            broken = text_module(model.network)(torch.from_numpy(ids), torch.from_numpy(mask))[0]
            assert (broken - text).abs().max() > 2e-4
        elif defect == "last frame dropped":
            # The repeated second ends in zeros here, as real clips do: the last frame is the edge.
            broken = audio_module(model.network, model.frames - 1)(inputs[:, :, :-1])[0]
            assert (broken - audio).abs().max() > 2e-4
        else:
            kept = norm.running_mean.clone(), norm.running_var.clone()
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0)
            broken = audio_module(model.network, model.frames)(inputs)[0]
            norm.running_mean.copy_(kept[0])
            norm.running_var.copy_(kept[1])
            assert (broken - audio).abs().max() > 2e-4


def test_generated_weights_tell_sounds_and_sentences_apart(
    model: ClapModel, session: TorchSession
) -> None:
    traces = [model.trace(session, item, {}) for item in sounds(4)]
    # Tones, six layers: at full size sounds differ by -5.5 dB, and sentences by -8.6.
    for name, least in (("audio", -18.0), ("text", -10.0)):
        assert contrast_db([trace[name] for trace in traces]) > least, name


# --- driver --------------------------------------------------------------------------------------


class Counting(TorchSession):
    """Counts what is run of each graph."""

    def execute(self, graph: str, point: str, inputs: Any) -> Any:
        self.calls = [*getattr(self, "calls", []), (graph, point)]
        return super().execute(graph, point, inputs)


def test_sentences_are_embedded_once_and_stay_what_they_are(model: ClapModel) -> None:
    session = session_of(model)
    session.__class__ = Counting
    items = sounds(3)
    first = model.run(session, items[:1], Stopwatch())[0]
    assert session.calls == [("audio", "b1"), ("text", "b4"), ("text", "b1")]
    stopwatch = Stopwatch()
    model.run(session, items[1:], stopwatch)
    assert session.calls[3:] == [("audio", "b4")], "five sentences are known"
    assert {"features", "audio", "text", "similarities"} == stopwatch.stages.keys()
    assert stopwatch.marks["sentences"] > 0.0, "what they took, once"
    again = model.run(session, items[:1], Stopwatch())[0]
    anew = model.run(session_of(model), items[:1], Stopwatch())[0]
    assert first == again, "reuse changes nothing"
    for name, values in anew.items():
        np.testing.assert_allclose(values, first[name], atol=1e-5)
    alone = [model.trace(session, item, {})["text"] for item in items]
    known = model.embedded(session, SENTENCES[:5])
    for item, vector in zip(items, alone, strict=True):
        np.testing.assert_allclose(vector, known[item.facts["caption"]], atol=1e-5)


def test_kept_sentences_are_copies(model: ClapModel) -> None:
    """The planted defect: memory that the next call of the graph writes over."""
    session = session_of(model)
    known = dict(model.embedded(session, SENTENCES[:4]))
    before = {sentence: vector.copy() for sentence, vector in known.items()}
    model.embedded(session, SENTENCES[4:9])
    for sentence, vector in before.items():
        np.testing.assert_array_equal(model.embedded(session, [])[sentence], vector)


def test_sentences_that_changed_are_seen_when_the_first_input_is_run_again(
    model: ClapModel,
) -> None:
    """The planted defect: kept embeddings in another order. ``robustness.stress`` asks so."""
    session = session_of(model)
    item = sounds(1)[0]
    first, again = (model.run(session, [item], Stopwatch())[0] for _ in range(2))
    assert model.task.same(again, first)
    known = model._known[session]
    for sentence, vector in zip(
        known, [*list(known.values())[1:], known[SENTENCES[0]]], strict=True
    ):
        known[sentence] = vector
    assert not model.task.same(model.run(session, [item], Stopwatch())[0], first)


def test_large_batches_are_taken_for_as_many_inputs(model: ClapModel) -> None:
    assert model.batches() == (1, 4) and model.batches(8) == (1, 4, 8)
    session = session_of(model)
    session.__class__ = Counting
    found = model.run(session, sounds(6), Stopwatch())
    assert session.calls[0] == ("audio", "b8")
    alone = model.run(session, sounds(6)[5:], Stopwatch())[0]
    np.testing.assert_allclose(found[5]["embedding"], alone["embedding"], atol=1e-5)


def test_generated_weights_get_windows_with_a_sentence_each() -> None:
    model = clap.load("clap-htsat-unfused", "seeded", "")
    chosen = model.items(load_corpus(), QUICK)
    assert not chosen.task and len(chosen.timed) == 2
    assert {item.seconds for item in chosen.timed} == {10.0}
    assert chosen.timed[0].facts["caption"] != chosen.timed[1].facts["caption"]
    (audio, text) = model.graphs()
    assert audio.examples("b1") == {"features": ((1, 1, 1001, 64), "float32")}
    assert text.examples("b4")["mask"] == ((4, 77), "int32")


# --- checkpoints ---------------------------------------------------------------------------------


def publish(folder: Path) -> ClapNetwork:
    """Save a small model as published folders are."""
    network = ClapNetwork(ClapConfig(**SMALL))
    generator.seed(network, generator.gains(clap.SEEDED_GAINS))
    with torch.no_grad():
        encoder = network.audio_model.audio_encoder
        encoder.batch_norm.running_mean.fill_(-30.0)
        encoder.batch_norm.running_var.fill_(200.0)
    network.eval().save_pretrained(folder)
    ClapFeatureExtractor(**SMALL_FEATURES).save_pretrained(folder)
    tokenizer_files(folder)
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    return network


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClapNetwork]:
    folder = tmp_path_factory.mktemp("clap")
    return folder, publish(folder)


def open_folder(folder: Path) -> ClapModel:
    return clap.load("clap-htsat-unfused", "pretrained", str(folder))


def test_a_published_folder_is_loaded(published: tuple[Path, ClapNetwork]) -> None:
    folder, network = published
    model = open_folder(folder)
    assert model.features["hop_length"] == HOP and model.frames == 201
    item = sounds(1)[0]
    trace = model.trace(session_of(model), item, {})
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    features = extractor(item.audio, sampling_rate=RATE, return_tensors="pt")["input_features"]
    words = tokenizer(item.facts["caption"], return_tensors="pt")
    with torch.inference_mode():
        audio = network.get_audio_features(features).pooler_output[0]
        text = network.get_text_features(**words).pooler_output[0]
    np.testing.assert_allclose(trace["audio"], audio, atol=1e-5)
    np.testing.assert_allclose(trace["text"], text, atol=1e-5)
    assert open_folder(folder).fingerprint() == model.fingerprint()


def copied(source: Path, target: Path) -> Path:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def lacking(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        stored = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in stored.items() if part not in name}
        assert len(kept) < len(stored)
        save_file(kept, folder / "model.safetensors")

    return change


PREPROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("tokenizer.json", "vocab.json"), "has no tokenizer: neither tokenizer.json"),
        (without("tokenizer.json", "merges.txt"), "has no tokenizer: neither tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{"), r"cannot read .*tokenizer\.json"),
        (without(PREPROCESSOR), r"cannot read .*preprocessor_config\.json"),
        (setting(PREPROCESSOR, 16_000, "sampling_rate"), "audio at 16000 Hz; only 48000"),
        (setting(PREPROCESSOR, "fusion", "truncation"), "truncation 'fusion'; only rand_trunc"),
        (setting(PREPROCESSOR, "mirror", "padding"), "padding 'mirror'; only repeatpad, repeat"),
        (setting(PREPROCESSOR, 100, "hop_length"), "makes 481 frames of 16 .* at most 256 of 16"),
        (setting(PREPROCESSOR, 64, "feature_size"), "makes 201 frames of 64 .* at most 256 of 16"),
        (setting("config.json", "clip", "model_type"), "describes a 'clip' model, not 'clap'"),
        (
            setting("config.json", True, "audio_config", "enable_fusion"),
            r"has enable_fusion: .*laion/clap-htsat-unfused",
        ),
        (setting("config.json", 200, "text_config", "vocab_size"), "ids up to .* 200 tokens"),
        (without("model.safetensors"), "no weights"),
    ],
)
def test_damaged_folders_are_refused(
    published: tuple[Path, ClapNetwork],
    tmp_path: Path,
    change: Callable[[Path], object],
    said: str,
) -> None:
    folder = copied(published[0], tmp_path)
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        open_folder(folder)


def test_missing_tensors_are_named_and_computed_ones_may_be_missing(
    published: tuple[Path, ClapNetwork], tmp_path: Path
) -> None:
    folder = copied(published[0], tmp_path)
    lacking("text_projection.linear2")(folder)
    with pytest.raises(CheckpointError, match=r"text_projection\.linear2\.bias should have shape"):
        _ = open_folder(folder).network
    folder = copied(published[0], tmp_path)
    for computed in ("relative_position_index", "position_ids", "num_batches_tracked"):
        lacking(computed)(folder)
    item = sounds(1)[0]
    traces = [
        one.trace(session_of(one), item, {})
        for one in (open_folder(folder), open_folder(published[0]))
    ]
    for name, array in traces[0].items():
        np.testing.assert_array_equal(array, traces[1][name])


# --- what was published --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "milliseconds", "level"),
    [
        ("mps-torch/fp16", 80, "strict"),
        ("mps-torch/fp16", 120, "relaxed"),
        ("coreml-onnxruntime/fp16", 120, "relaxed"),
        ("cpu-torch/fp32", 4000, "strict"),
        ("cuda-torch/fp16", 4000, "strict"),
    ],
)
def test_the_published_target_holds_where_it_was_given(
    target: str, milliseconds: float, level: str
) -> None:
    """Ten seconds embedded in 100 ms on Apple silicon; elsewhere the real-time factor alone."""
    facts = facts_of(catalog.load().case(f"clap-htsat-unfused@seeded/{target}"))
    seconds = [milliseconds / 1000] * 8
    values = summarise(seconds, 10.0)
    found, limits, reason = thresholds.load([thresholds.default_path()]).judge(
        "latency.task", facts, values
    )
    assert found == level, reason
    apple = target.startswith(("mps", "coreml"))
    assert ("interval_s.1" in {limit.metric for limit in limits}) == apple


def test_the_recommended_batch_is_one_that_graphs_have() -> None:
    case = catalog.load().case("clap-htsat-unfused@seeded/cuda-torch/fp16")
    recommended = recommendations.load(recommendations.default_path()).of(case)
    assert recommended is not None and (recommended.batch, recommended.precision) == (8, "fp16")
    assert clap.load("clap-htsat-unfused", "seeded", "").batches(8) == (1, 4, 8)
