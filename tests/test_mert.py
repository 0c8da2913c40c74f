"""MERT: its graph, windows and checkpoints, the probe and the scores of its tags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from compat.build.torch_session import TorchSession
from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.profile import FULL, QUICK
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load
from compat.metrics.linear_probe import train
from compat.metrics.numerics import blind_faults, compare, contrast_db
from compat.metrics.tagging import average_precision, roc_auc, task_tagging
from compat.models import mert
from compat.models.mert import MertModel
from compat.models.parts.wave_encoder import frame_count
from compat.models.tasks.music_tagging import LAYERS, MusicTagging

RATE = MertModel.sample_rate
SMALL: Mapping[str, Any] = {
    **{name: mert.PUBLISHED["mert-95m"][name] for name in ("conv_kernel", "conv_stride")},
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
STABLE = {
    **SMALL,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
SETTINGS = {
    **SMALL,
    "model_type": "mert_model",
    "architectures": ["MERTModel"],
    "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
    "attention_relax": -1.0,
    "deepnorm": False,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "sample_rate": RATE,
}
"""A configuration as it is published, of a small network."""


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """A chord that changes, with a beat."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitches = 220 * 2 ** (np.random.default_rng(seed).integers(0, 24, 3) / 12)
    chord = sum(
        np.sin(2 * np.pi * pitch * time * (1 + 0.5 * (time % 1 > 0.5))) for pitch in pitches
    )
    return (0.1 * chord * np.exp(-(time % 0.3) / 0.1)).astype(np.float32)


def torch_session(model: MertModel) -> TorchSession:
    (graph,) = model.graphs()
    module = mert.encoder_module(model.network).eval()
    return TorchSession({"encoder": graph}, {"encoder": module}, {"encoder": "fp32"}, _CPU)


_CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> MertModel:
    return MertModel(SMALL, seconds=1)


@pytest.fixture(scope="module")
def session(model: MertModel) -> Session:
    return torch_session(model)


def answer(model: MertModel, session: Session, audio: np.ndarray) -> np.ndarray:
    (prediction,) = model.run(session, [Item.from_audio("one", audio, RATE)], Stopwatch())
    return np.asarray(prediction[LAYERS])


# --- the graph -----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, STABLE], ids=["base", "large"])
def test_the_layers_are_those_of_the_library(config: dict[str, Any]) -> None:
    """By transformers' own model and its own extractor of features, on audio of a window."""
    torch.manual_seed(0)
    library = HubertModel(HubertConfig(**config)).eval()
    model = MertModel(config, seconds=1)
    model.network = library
    audio = music(1.0)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True)
    values = extractor(audio, sampling_rate=RATE, return_tensors="pt").input_values
    with torch.inference_mode():
        found = library(values, output_hidden_states=True)
    states = (*found.hidden_states[:-1], found.last_hidden_state)
    expected = np.stack([state[0].mean(dim=0).numpy() for state in states])
    session = torch_session(model)
    np.testing.assert_allclose(answer(model, session, audio), expected, atol=1e-5)
    trace = model.trace(session, Item.from_audio("one", audio, RATE), {})
    np.testing.assert_allclose(trace["last"], states[-1][0].numpy(), atol=1e-4)
    assert list(trace) == ["last", *(f"layer_{number}" for number in range(4))]
    assert trace["last"].shape == (frame_count(config, RATE), 32)


def test_published_sizes() -> None:
    """Five seconds are 374 frames; parameters as published, without running them."""
    for variant, millions in (("mert-95m", 94.4), ("mert-330m", 315.4)):
        model = mert.load(variant, "seeded", "")
        assert next(iter(model.graphs()[0].points.values()))["frames"] == 374
        with torch.device("meta"):
            network = HubertModel(HubertConfig(**model.config))
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert count == pytest.approx(millions, abs=0.06)


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> HubertModel:
    torch.manual_seed(0)
    network = HubertModel(HubertConfig(**SMALL)).eval()
    # As they are made, kernels of positions are near zero and biases are zero.
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture(scope="module")
def published_folder(library: HubertModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in the published form: its own configuration, the old names of weights."""
    folder = tmp_path_factory.mktemp("mert")
    names = {"parametrizations.weight.original0": "weight_g"}
    names["parametrizations.weight.original1"] = "weight_v"
    weights = {}
    for name, tensor in library.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        weights[name] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    extractor = {"do_normalize": True, "sampling_rate": RATE}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor), encoding="utf-8")
    return folder


def test_a_published_checkpoint_gives_the_librarys_embeddings(
    library: HubertModel, published_folder: Path
) -> None:
    model = mert.load("mert-95m", "pretrained", str(published_folder))
    audio = music(5.0)
    with torch.inference_mode():
        values = torch.from_numpy((audio - audio.mean()) / audio.std())[None]
        expected = library(values).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(answer(model, torch_session(model), audio)[-1], expected, atol=1e-4)


def changed(folder: Path, to: Path, file: str, values: Mapping[str, object]) -> Path:
    """Copy a checkpoint with other settings in one of its files."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    known = json.loads((to / file).read_text(encoding="utf-8"))
    (to / file).write_text(json.dumps({**known, **values}), encoding="utf-8")
    return to


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "wav2vec2"}, "'wav2vec2' model, not 'mert_model'"),
        ("config.json", {"feature_extractor_cqt": True}, "feature_extractor_cqt: a constant-Q"),
        ("config.json", {"deepnorm": True}, "has deepnorm: residuals"),
        ("config.json", {"conv_pos_batch_norm": True}, "has conv_pos_batch_norm: positions"),
        ("preprocessor_config.json", {"sampling_rate": 16_000}, "audio at 16000 Hz; only 24000"),
    ],
)
def test_another_network_is_refused(
    published_folder: Path, tmp_path: Path, file: str, values: dict[str, object], message: str
) -> None:
    folder = changed(published_folder, tmp_path / "other", file, values)
    with pytest.raises(CheckpointError, match=message):
        mert.load("mert-95m", "pretrained", str(folder))


def test_settings_that_change_nothing_are_taken(published_folder: Path, tmp_path: Path) -> None:
    for number, values in enumerate(({"attention_relax": 32.0}, {"model_type": "hubert"})):
        folder = changed(published_folder, tmp_path / str(number), "config.json", values)
        assert mert.load("mert-95m", "pretrained", str(folder)).network is not None
    raw = {"do_normalize": False}
    folder = changed(published_folder, tmp_path / "raw", "preprocessor_config.json", raw)
    model = mert.load("mert-95m", "pretrained", str(folder))
    loud = model.windows(music(5.0))[0].samples
    assert np.abs(loud).max() == pytest.approx(np.abs(music(5.0)).max())


def test_weights_of_another_network_are_refused(published_folder: Path, tmp_path: Path) -> None:
    values = {"num_hidden_layers": 4}
    folder = changed(published_folder, tmp_path / "deep", "config.json", values)
    with pytest.raises(CheckpointError, match=r"layers\.3"):
        _ = mert.load("mert-95m", "pretrained", str(folder)).network


# --- windows -------------------------------------------------------------------------------------


@given(st.integers(1, 6 * RATE))
@settings(max_examples=20, deadline=None)
def test_every_frame_counts_once(model: MertModel, samples: int) -> None:
    audio = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    windows = model.windows(audio)
    assert all(window.samples.shape == (model.window,) for window in windows)
    if samples <= model.window:
        assert [window.count for window in windows] == [frame_count(SMALL, samples)]
        return
    # Frames of windows lie on grids of their own: of each boundary less than two are lost.
    counted = sum(window.count for window in windows)
    assert 0 <= frame_count(SMALL, samples) - counted < 2 * len(windows)
    normal = (audio - audio.mean(dtype=float)) / audio.std(dtype=float)
    for number, window in enumerate(windows):
        start = len(audio) - model.window if window.first else number * model.window
        part = normal[start : start + model.window]
        np.testing.assert_allclose(window.samples, part, atol=1e-3)


def test_embeddings_of_long_audio_are_weighted_by_length(
    model: MertModel, session: Session
) -> None:
    """Of 2.25 s: two windows, and a quarter of a third, all normalised together."""
    audio = music(2.25)
    normal = (audio - audio.mean()) / audio.std()
    one, two, three = (normal[start : start + RATE] for start in (0, RATE, len(normal) - RATE))
    frames = frame_count(SMALL, RATE)
    first = -(-(RATE * 3 // 4) // 320)
    with torch.inference_mode():
        states = [
            model.network(torch.from_numpy(np.stack([part]))).last_hidden_state[0].numpy()
            for part in (one, two, three)
        ]
    every = np.concatenate([states[0], states[1], states[2][first:]])
    assert len(every) == 2 * frames + frames - first
    np.testing.assert_allclose(answer(model, session, audio)[-1], every.mean(axis=0), atol=1e-4)


def test_neighbours_in_a_batch_change_nothing(model: MertModel, session: Session) -> None:
    items = [Item.from_audio(str(n), music(0.4 + n, n), RATE) for n in range(4)]
    together = model.run(session, items, Stopwatch())
    for item, prediction in zip(items, together, strict=True):
        alone = answer(model, session, item.audio)
        np.testing.assert_allclose(prediction[LAYERS], alone, atol=1e-5)


def test_silence_and_single_samples_have_embeddings(model: MertModel, session: Session) -> None:
    for audio in (np.zeros(3 * RATE), np.ones(1), np.full(RATE // 2, 0.7)):
        assert np.isfinite(answer(model, session, audio.astype(np.float32))).all()


def test_generated_weights_are_admitted() -> None:
    """Every output differs from input to input by more than the least that is admitted."""
    model = MertModel({**mert.PUBLISHED["mert-95m"], "num_hidden_layers": 2}, seconds=1)
    session = torch_session(model)
    items = model.items(load(), QUICK).numerics
    assert [item.seconds for item in items] == [1.0, 1.0], "windows filled with music"
    traces = [model.trace(session, item, {}) for item in items]
    for name in traces[0]:
        assert contrast_db([trace[name] for trace in traces]) > -12, name


# --- planted defects -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(model: MertModel, session: Session) -> list[dict[str, np.ndarray]]:
    return [model.trace(session, item, {}) for item in _items()]


def _items() -> list[Item]:
    return [Item.from_audio(str(seed), music(1.0, seed), RATE) for seed in range(3)]


def snr_of(
    expected: Sequence[Mapping[str, np.ndarray]], found: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    return {
        name: compare([one[name] for one in expected], None, [one[name] for one in found])["snr_db"]
        for name in expected[0]
    }


def test_an_exchanged_layer_shows_by_its_name(
    model: MertModel, session: Session, compared: list[dict[str, np.ndarray]]
) -> None:
    found = [dict(one) for one in compared]
    for one in found:
        one["layer_1"], one["layer_2"] = one["layer_2"], one["layer_1"]
    snr = snr_of(compared, found)
    assert {name for name, value in snr.items() if value < 60} == {"layer_1", "layer_2"}
    layers = [np.stack([one[f"layer_{n}"] for n in range(4)]) for one in compared]
    values = task_tagging([[1], [0], [1]], *[[[1.0], [-1.0], [1.0]]] * 2, layers, layers)
    assert values["worst_cosine"] == 1.0
    values = task_tagging(
        [[1], [0], [1]],
        *[[[1.0], [-1.0], [1.0]]] * 2,
        [layer[[0, 2, 1, 3]] for layer in layers],
        layers,
    )
    assert values["worst_layer"] in (1, 2) and values["worst_cosine"] < 0.99
    assert values["layer_3_cosine"] == 1.0


def test_a_dropped_frame_shows(
    model: MertModel, session: Session, compared: list[dict[str, np.ndarray]]
) -> None:
    last = [one["last"] for one in compared]
    faults = blind_faults([one[:-1] for one in last], last)
    assert "truncated shape (73, 32), expected (74, 32)" in faults[0]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("44.1 kHz read as 48 kHz", lambda x: x[np.arange(0, len(x), 48 / 44.1).astype(int)]),
        ("one sample late", lambda x: np.roll(x, 1)),
        ("half as loud", lambda x: x / 2),
    ],
)
def test_audio_that_was_read_wrongly_shows(
    model: MertModel,
    session: Session,
    compared: list[dict[str, np.ndarray]],
    name: str,
    change: Any,
) -> None:
    found = [
        model.trace(session, item.with_audio(np.resize(change(item.audio), RATE)), {})
        for item in _items()
    ]
    snr = snr_of(compared, found)
    if name == "half as loud":
        assert snr["last"] > 60, "the extractor normalises"
    else:
        assert snr["last"] < 30 and snr["layer_3"] < 60


def test_a_normalisation_that_was_left_out_shows(
    model: MertModel, compared: list[dict[str, np.ndarray]]
) -> None:
    raw = MertModel(SMALL, normalize=False, seconds=1)
    raw.network = model.network
    session = torch_session(raw)
    snr = snr_of(compared, [raw.trace(session, item, {}) for item in _items()])
    assert max(snr.values()) < 30


# --- scores --------------------------------------------------------------------------------------


def test_average_precision_and_area_by_hand() -> None:
    # Ranks 1 and 3 have the tag: precisions 1 and 2/3. Three of four pairs are in order.
    scores, truth = [0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_auc(scores, truth) == pytest.approx(3 / 4)
    # Equal scores are one threshold: two of three, and of the pairs one half.
    assert average_precision([1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(2 / 3)
    assert roc_auc([1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(3 / 4)
    assert average_precision([1, 0], [1, 0]) == roc_auc([1, 0], [1, 0]) == 1.0
    assert roc_auc([0, 1], [1, 0]) == 0.0 and average_precision([0, 1], [1, 0]) == 0.5
    assert roc_auc([np.nan, 1], [1, 0]) == 0.0, "no number is no answer"


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], [1]])
def test_a_tag_needs_both_kinds_of_recordings(truth: list[int]) -> None:
    with pytest.raises(ValueError, match="needs a"):
        average_precision([0.0, 1.0], truth)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_scores_against_their_definitions(rows: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if truth.all() or not truth.any():
        return
    with_tag, without = scores[truth], scores[~truth]
    difference = with_tag[:, None] - without
    assert roc_auc(scores, truth) == pytest.approx(np.mean((np.sign(difference) + 1) / 2))
    precision = [truth[scores >= one].mean() for one in with_tag]
    assert average_precision(scores, truth) == pytest.approx(np.mean(precision))


def test_scores_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    truth = random.random((40, 5)) < 0.3
    scores = np.round(random.standard_normal((40, 5)) + truth, 1)  # Some are equal.
    layers = [np.ones((1, 1))] * 40
    values = task_tagging(truth, scores, scores, layers, layers)
    expected = metrics.average_precision_score(truth, scores, average="macro")
    assert values["mean_average_precision"] == pytest.approx(expected)
    assert values["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, scores, average="macro"))
    accuracy = metrics.accuracy_score(truth.ravel(), scores.ravel() > 0)
    assert values["accuracy"] == pytest.approx(accuracy)


def test_degradation_is_paired() -> None:
    """Each resample scores both: equal scores have no interval, whatever their own spread."""
    random = np.random.default_rng(0)
    truth = random.random((30, 4)) < 0.4
    scores = np.where(truth, 0.3, -0.3) + random.standard_normal((30, 4))
    layers = list(random.standard_normal((30, 3, 8)))
    same = task_tagging(truth, scores, scores, layers, layers)
    assert same["degradation"] == 0.0 and same["degradation_interval"] == [0.0, 0.0]
    assert same["agreement"] == same["no_worse_share"] == same["worst_cosine"] == 1.0
    low, high = same["mean_average_precision_interval"]
    assert 0.05 < high - low < 0.6 and low < same["mean_average_precision"] < high
    worse = scores.copy()
    worse[3] *= -1
    other = task_tagging(truth, worse, scores, layers, layers)
    assert other["degradation"] > 0 and other["agreement"] == pytest.approx(1 - 4 / 120)
    broken = [*layers[:5], np.full((3, 8), np.nan), *layers[6:]]
    values = task_tagging(truth, scores, scores, broken, layers)
    assert values["worst_cosine"] == -1.0 and values["worst_recording"] == 5
    assert json.loads(json.dumps(values)) == values


# --- the probe and the task ----------------------------------------------------------------------


def test_a_probe_tells_what_features_tell() -> None:
    random = np.random.default_rng(0)
    directions = random.standard_normal((3, 40))
    given = [[tag for tag in "abc" if random.random() < 0.5] + ["all"] for _ in range(80)]

    def features(tags: Sequence[str]) -> np.ndarray:
        signs = np.array([1 if tag in tags else -1 for tag in "abc"])
        constant = np.array([7.0])
        return np.concatenate([signs @ directions + random.standard_normal(40), constant])

    rows = np.stack([features(tags) for tags in given])
    probe = train(rows[:60], given[:60])
    assert probe.tags == ("a", "b", "c"), "what all have cannot be told"
    decided = probe.scores(rows[60:]) > 0
    truth = np.array([[tag in one for tag in "abc"] for one in given[60:]])
    assert (decided == truth).mean() > 0.95
    np.testing.assert_array_equal(probe.matrix, train(rows[:60], given[:60]).matrix)
    with pytest.raises(ValueError, match="of each recording"):
        train(rows, given[:3])


def clips(count: int, seed: int) -> tuple[list[Item], list[Prediction]]:
    """Clips whose layers tell their tags, and what a reference makes of them."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(9).standard_normal((2, 3, 16))
    items, answers = [], []
    for number in range(count):
        tags = [tag for tag in ("drums", "slow") if random.random() < 0.5]
        signs = np.array([1 if tag in tags else -1 for tag in ("drums", "slow")])
        layers = np.tensordot(signs, directions, 1) + random.standard_normal((3, 16))
        items.append(Item(f"{seed}-{number}", {}, 1.0, facts={"tags": tags}))
        answers.append({LAYERS: layers.astype(np.float32)})
    return items, answers


def test_the_probe_is_the_references() -> None:
    """A target whose features are turned around is not taught by them: its tags are wrong."""
    items, answers = clips(20, 1)
    learnt = MusicTagging().learnt(*clips(40, 2))
    values = learnt.score_sets({"music": (items, answers, answers)})["music"]
    assert values["mean_average_precision"] > 0.9 and values["degradation"] == 0
    declared = {metric.name for metric in learnt.metrics}
    layers = {f"layer_{number}_cosine" for number in range(3)}
    assert {name for name in values if not name.endswith("_interval")} == declared | layers
    turned = [{LAYERS: -one[LAYERS]} for one in answers]
    wrong = learnt.score_sets({"music": (items, turned, answers)})["music"]
    assert wrong["mean_average_precision"] < 0.6 and wrong["worst_cosine"] == pytest.approx(-1)
    assert wrong["degradation_interval"][0] > 0.2 and wrong["no_worse_share"] < 0.3
    stored = learnt.stored(answers[0])
    assert set(stored["scores"]) == {"drums", "slow"} and json.dumps(stored)


def test_without_clips_to_learn_from_halves_teach_one_another() -> None:
    items, answers = clips(40, 3)
    task = MusicTagging()
    assert task.learnt([], []) is task
    values = task.score_sets({"own": (items, answers, answers)})["own"]
    assert values["mean_average_precision"] > 0.9
    # What was learnt by heart would tell any tags; of tags that features do not tell nothing is.
    random = np.random.default_rng(0)
    shuffled = [
        Item(item.id, {}, 1.0, facts={"tags": items[other].facts["tags"]})
        for item, other in zip(items, random.permutation(len(items)), strict=True)
    ]
    values = task.score_sets({"own": (shuffled, answers, answers)})["own"]
    assert values["mean_average_precision"] < 0.8
    with pytest.raises(CompatError, match="no tag can be judged"):
        task.score_sets({"own": (items[:1], answers[:1], answers[:1])})


def test_published_weights_get_music_and_clips_to_learn_from(published_folder: Path) -> None:
    model = mert.load("mert-95m", "pretrained", str(published_folder))
    items = model.items(load(), FULL)
    assert list(items.task) == ["music"] and len(items.task["music"]) == 12
    assert len(items.examples) == 48 and {item.rate for item in items.examples} == {RATE}
    assert not {item.id for item in items.examples} & {item.id for item in items.task["music"]}
    brief = items.brief(model.task.brief_seconds, 1)
    assert len(brief.examples) == 48, "the probe is the same, however few clips are judged"
    assert not model.items(load(), QUICK).stress


def test_errors_on_one_input_are_those_of_its_worst_layer() -> None:
    items, answers = clips(1, 4)
    task, layers = MusicTagging(), answers[0][LAYERS]
    assert task.errors(items[0], answers[0], answers[0]) == {"errors": 0.0, "reference": 0.0}
    other = {LAYERS: np.concatenate([layers[:2], layers[1:2]])}
    assert task.errors(items[0], other, answers[0])["errors"] == 1.0
    broken = {LAYERS: np.full_like(layers, np.nan)}
    assert task.errors(items[0], broken, answers[0])["errors"] == 1.0
