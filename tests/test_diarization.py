"""compat.models.diarization: windows, clustering, reconstruction, and the whole pipeline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.build.sources import copy_shipped, sources
from compat.catalog import open_model
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.places import FIXTURES
from compat.contract.profile import CORE, FULL, QUICK
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.inputs.corpus import load
from compat.metrics.diarization import diarization_errors, speakers
from compat.metrics.predictions import same_prediction
from compat.models import diarization as d
from compat.models import speaker_tracks as tracks
from compat.models.items import beginning
from compat.models.tasks import speaker_segmentation

SYNTHETIC = d.SETTINGS["diarization-synthetic"]
PUBLISHED = d.SETTINGS["diarization-3.1"]
HALF_FRAME = speaker_segmentation.STEP_SECONDS / 2


# --- windows -------------------------------------------------------------------------------------


@given(st.integers(1, 2_000_000), st.sampled_from([59, 148, 589]))
@settings(max_examples=60, deadline=None)
def test_windows_cover_a_recording(samples: int, step: int) -> None:
    starts = d.window_starts(samples, step)
    assert starts[0] == 0
    assert sorted(set(starts)) == starts
    assert all(1 <= b - a <= 1.5 * step for a, b in pairwise(starts))
    end = starts[-1] * tracks.FRAME_STEP + d.WINDOW
    assert samples <= end
    assert len(starts) == 1 or end < samples + tracks.FRAME_STEP, (
        "the last window ends with the audio"
    )
    audio = np.arange(1, samples + 1, dtype=np.float32)
    last = d.window_of(audio, starts[-1])
    assert last.shape == (d.WINDOW,)
    held = min(samples, samples - starts[-1] * tracks.FRAME_STEP)
    np.testing.assert_array_equal(last[:held], audio[samples - held :])
    assert not last[held:].any()


def test_masks_of_the_three_who_speak_most() -> None:
    segments = [
        [0.0, 5.0, "a"],
        [4.0, 9.0, "b"],
        [8.0, 9.0, "c"],
        [0.5, 0.7, "d"],
        [6.0, 6.5, "a"],
    ]
    masks = d.masks_of(segments)
    assert masks.shape == (tracks.FRAMES, 3)
    assert masks.sum(axis=0) * speaker_segmentation.STEP_SECONDS == pytest.approx(
        [5.5, 5, 1], abs=0.03
    )
    later = d.masks_of(segments, 8.5)
    assert later.sum(axis=0) * speaker_segmentation.STEP_SECONDS == pytest.approx(
        [0.5, 0.5, 0], abs=0.05
    )
    assert not d.masks_of([]).any()


def test_overlap_is_left_out_where_enough_is_left() -> None:
    masks = np.zeros((2, tracks.FRAMES, 3), bool)
    masks[:, 100:200, 0] = True
    masks[:, 150:400, 1] = True
    masks[1, 110:200, 1] = True  # The first speaker says next to nothing alone here.
    heard = d.alone(masks, 0.5)
    assert heard.sum(axis=1).tolist() == [[50, 200, 0], [100, 200, 0]]


# --- clustering ----------------------------------------------------------------------------------


def voices(counts: Sequence[int], spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make vectors around as many directions as there are counts; return whose they are too."""
    generator = np.random.default_rng(seed)
    centres = np.linalg.qr(generator.standard_normal((64, len(counts))))[0].T
    owners = np.repeat(np.arange(len(counts)), counts)
    noise = spread * generator.standard_normal((len(owners), 64)) / 8
    return centres[owners] + noise, owners


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize("chosen", [SYNTHETIC, PUBLISHED])
@pytest.mark.parametrize("counts", [(1,), (40,), (30, 25), (20, 20, 20, 20), (60, 13)])
def test_clusters_are_speakers(chosen: tracks.Settings, counts: tuple[int, ...]) -> None:
    embeddings, owners = voices(counts, 0.3)
    windows = np.arange(len(owners))
    labels = tracks.cluster(embeddings, windows, chosen)
    assert partition(labels) == partition(owners)
    assert sorted(set(labels.tolist())) == list(range(len(counts)))
    order = np.random.default_rng(1).permutation(len(owners))
    again = tracks.cluster(embeddings[order] * 7.0, windows, chosen)
    assert partition(again) == partition(owners[order]), "neither order nor length matter"


def test_small_clusters_join_the_nearest() -> None:
    embeddings, owners = voices((30, 30), 0.1)
    stray = embeddings[owners == 1][0] * 0.6 + np.roll(embeddings[0], 5)
    labels = tracks.cluster(np.vstack((embeddings, stray)), np.arange(61), SYNTHETIC)
    assert labels.max() == 1
    assert labels[-1] == labels[-2]
    scattered = np.eye(64)[:40]
    found = tracks.cluster(scattered, np.arange(40), tracks.Settings(148, "average", 0.3, 5))
    assert found.tolist() == [0] * 40, "of no voice is there enough to tell two apart"


def test_speakers_of_one_window_are_kept_apart() -> None:
    embeddings, owners = voices((12, 12), 0.3)
    near = embeddings + 1.5 * embeddings.mean(axis=0)  # Two voices that are much alike.
    windows = np.tile(np.arange(12), 2)
    chosen = tracks.Settings(148, "average", 0.3, 5, apart=1.0)
    assert len(set(tracks.cluster(near, windows + owners * 100, chosen).tolist())) == 1
    assert partition(tracks.cluster(near, windows, chosen)) == partition(owners)


def test_assignment() -> None:
    embeddings, owners = voices((20, 20), 0.2)
    rows = np.zeros((22, 3, 64))
    rows[:20, 0], rows[:20, 2] = embeddings[owners == 0], embeddings[owners == 1]
    rows[20, 1] = embeddings[owners == 1].mean(axis=0)  # A moment only: labelled, not clustered.
    rows[21, 0] = np.nan  # What a backend may give.
    heard = np.zeros((22, tracks.FRAMES, 3), bool)
    heard[:20, :200] = True
    heard[20, :20, 1] = True
    labels = tracks.assign(rows, heard, SYNTHETIC)
    first, second = labels[0, 0], labels[0, 2]
    assert {first, second} == {0, 1}
    assert labels[:20].tolist() == [[first, tracks.NOBODY, second]] * 20
    assert labels[20].tolist() == [tracks.NOBODY, second, tracks.NOBODY]
    assert labels[21].tolist() == [tracks.NOBODY] * 3
    silent = tracks.assign(np.zeros((4, 3, 64)), np.zeros((4, tracks.FRAMES, 3), bool), SYNTHETIC)
    assert (silent == tracks.NOBODY).all()


# --- reconstruction ------------------------------------------------------------------------------

TURNS = st.lists(st.tuples(st.floats(0, 40), st.floats(0.2, 6), st.sampled_from("abc")), max_size=8)


@given(TURNS, st.floats(0.5, 47), st.sampled_from([59, 148]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_windows_say_gives_the_whole_again(
    turns: list[Any], seconds: float, step: int, seed: int
) -> None:
    """Local speakers in any order, and the right labels: the truth, but for half a frame."""
    truth = [(a, min(a + b, seconds), who) for a, b, who in turns if a < seconds]
    starts = d.window_starts(int(seconds * tracks.RATE), step)
    generator = np.random.default_rng(seed)
    masks = np.zeros((len(starts), tracks.FRAMES, 3), bool)
    labels = np.full((len(starts), 3), tracks.NOBODY)
    for row, start in enumerate(starts):
        for column, speaker in enumerate(generator.permutation(3)):
            own = [turn for turn in truth if turn[2] == "abc"[speaker]]
            masks[row, :, column] = d.masks_of(own, start * speaker_segmentation.STEP_SECONDS)[:, 0]
            labels[row, column] = speaker if masks[row, :, column].any() else tracks.NOBODY
    active = tracks.reconstruct(masks, starts, labels)
    found = tracks.to_segments(active, seconds, tracks.Settings(step, "average", 0.3, 5))
    errors = diarization_errors(truth, found, [(0.0, seconds)])
    # Half a frame and half of 10 ms at each boundary; a turn ends with the file or a frame early.
    assert errors.seconds <= (HALF_FRAME + 0.006) * 2 * len(truth) + 0.06
    assert speakers(found, [(0, seconds)]) <= 3


def test_as_many_speak_as_windows_count_on_average() -> None:
    masks = np.zeros((4, tracks.FRAMES, 3), bool)
    masks[:, 100:300, 0] = True  # All four windows hear one speaker,
    masks[:3, 150:200, 1] = True  # three of them another one besides,
    masks[3, 250:260, 2] = True  # and one somebody else for a moment.
    active = tracks.reconstruct(masks, [0] * 4, np.array([[2, 0, 1]] * 4))
    assert np.flatnonzero(active[:, 2]).tolist() == list(range(100, 300))
    assert np.flatnonzero(active[:, 0]).tolist() == list(range(150, 200))
    assert not active[:, 1].any()


def test_segments() -> None:
    active = np.zeros((600, 3), bool)
    active[:10, 2] = True
    active[300:400, 0] = True
    active[403:450, 0] = True
    active[590:, 1] = True
    active[200, 1] = True
    chosen = tracks.Settings(148, "average", 0.3, 5, gap=0.1, shortest=0.05)
    step = speaker_segmentation.STEP_SECONDS
    found = tracks.to_segments(active, 10.1, chosen)
    assert [segment[2] for segment in found] == ["speaker-1", "speaker-2", "speaker-3"]
    assert found[0][0] == 0.0, "who is heard in the first frame speaks from the start"
    assert found[2][1] == 10.1, "and in the last one to the end"
    middle = (tracks.FIRST_CENTRE / tracks.RATE) - HALF_FRAME
    assert found[1][:2] == pytest.approx([300 * step + middle, 450 * step + middle], abs=0.006)
    plain = tracks.to_segments(active, 10.1, tracks.Settings(148, "average", 0.3, 5))
    assert len(plain) == 5, "neither bridged nor dropped"
    assert tracks.to_segments(np.zeros((600, 0), bool), 10.0, chosen) == []
    assert tracks.to_segments(np.zeros((600, 2), bool), 10.0, chosen) == []


def test_numbers_of_clusters_mean_nothing() -> None:
    generator = np.random.default_rng(3)
    active = generator.random((600, 4)) < 0.5
    first = tracks.to_segments(active, 10.0, SYNTHETIC)
    assert tracks.to_segments(active[:, [2, 0, 3, 1]], 10.0, SYNTHETIC) == first


# --- the whole pipeline --------------------------------------------------------------------------

CONVERSATIONS = ("conversation-02", "conversation-04", "conversation-08", "conversation-10")
"""Two and three speakers, a fifth of it overlapped; half a minute each."""
TRAINED = FIXTURES / "checkpoints" / "segmentation-3.0-synthetic"


def recordings(*names: str) -> list[Item]:
    conversations = load().sets["conversations"]
    identifiers = [conversations.identifier(i) for i in range(len(conversations.lines))]
    return [conversations.item(identifiers.index(name), tracks.RATE) for name in names]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained() -> d.DiarizationModel:
    try:
        find_checkpoint(d.RESEMBLYZER)
    except CheckpointError as error:
        pytest.skip(str(error))
    return d.load("diarization-synthetic", "trained", str(TRAINED))


def torch_session(model: d.DiarizationModel, **replaced: Any) -> Any:
    """Compile a model with PyTorch; ``replaced`` gives modules of graphs by name."""
    import torch

    from compat.build.torch_session import TorchSession

    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {n: replaced.get(n) or graph.module().eval() for n, graph in graphs.items()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


def oracle(items: Sequence[Item], step: int) -> Any:
    """Return a module that segments the windows of some recordings as their RTTM files do."""
    import torch

    known: dict[bytes, torch.Tensor] = {}
    for item in items:
        for start in d.window_starts(len(item.audio), step):
            at = start * speaker_segmentation.STEP_SECONDS
            classes = speaker_segmentation.to_classes(d.masks_of(item.facts["segments"], at))
            scores = np.full((tracks.FRAMES, len(speaker_segmentation.CLASSES)), -9.0, np.float32)
            scores[np.arange(tracks.FRAMES), classes] = -0.001
            known[d.window_of(item.audio, start).tobytes()] = torch.from_numpy(scores)

    class Oracle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.silence = torch.nn.Parameter(
                torch.zeros(tracks.FRAMES, len(speaker_segmentation.CLASSES))
            )

        def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows = [known.get(row.numpy().tobytes(), self.silence) for row in waveform]
            return torch.stack(rows), torch.zeros(len(rows))

    return Oracle()


def test_with_a_perfect_segmentation_little_is_wrong(trained: d.DiarizationModel) -> None:
    """Embeddings, clustering and reconstruction by themselves: who is heard is told apart."""
    items = recordings(*CONVERSATIONS)
    session = torch_session(trained, segmentation=oracle(items, trained.settings.step))
    found = trained.run(session, items, Stopwatch())
    score = trained.task.score(items, found, found)
    # Of frames of 17 ms, and of turns too short to tell whose they are.
    assert score["der"] < 0.03, score
    assert score["speakers_right"] == 1.0, score
    assert score["degradation"] == 0.0


def test_the_trained_pipeline(trained: d.DiarizationModel) -> None:
    items = recordings(*CONVERSATIONS[:3])
    session = torch_session(trained)
    stopwatch = Stopwatch()
    together = trained.run(session, items, stopwatch)
    assert set(stopwatch.stages) == {"segmentation", "features", "embedding", "clustering"}
    score = trained.task.score(items, together, together)
    # Most of it is speakers whom the segmentation confuses within a window.
    assert score["der"] < 0.35, score
    alone = [trained.run(session, [item], Stopwatch())[0] for item in reversed(items)]
    for item, one, other in zip(items, together, reversed(alone), strict=True):
        # Other batches, another order: the same segments, to a frame here and there.
        assert trained.task.errors(item, one, other) == {"errors": 0.0, "reference": 0.0}
        assert one["level"] == pytest.approx(other["level"], rel=1e-4)
        times = [time for start, end, _ in one["segments"] for time in (start, end)]
        assert all(round(time, 2) == time and 0 <= time <= item.seconds for time in times)


def test_state_that_leaks_shows(trained: d.DiarizationModel) -> None:
    """The same input after another: the suite's own comparison, on a sound and a faulty backend."""
    import torch

    class Leaky(torch.nn.Module):
        def __init__(self, sound: torch.nn.Module) -> None:
            super().__init__()
            self.sound = sound
            self.left: torch.Tensor | None = None

        def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores, level = self.sound(waveform)
            if self.left is not None:
                scores = 0.7 * scores + 0.3 * self.left[-1]
            self.left = scores
            return scores, level

    found = recordings("conversation-02", "conversation-08")
    first, second = (Item.from_audio(item.id, item.audio[: 12 * tracks.RATE]) for item in found)
    for leaks in (False, True):
        module = trained.graphs()[0].module().eval()
        session = torch_session(trained, segmentation=Leaky(module) if leaks else module)
        before, _, after = (
            trained.run(session, [item], Stopwatch())[0] for item in (first, second, first)
        )
        assert same_prediction(before, after) is not leaks


@pytest.mark.parametrize("samples", [1, 1600, 16_000, 160_000, 160_001])
def test_extreme_lengths(trained: d.DiarizationModel, samples: int) -> None:
    session = torch_session(trained)
    generator = np.random.default_rng(0)
    noise = (0.1 * generator.standard_normal(samples)).astype(np.float32)
    silence = np.zeros(samples, np.float32)
    items = [Item.from_audio("noise", noise), Item.from_audio("silence", silence)]
    for item, prediction in zip(items, trained.run(session, items, Stopwatch()), strict=True):
        assert math.isfinite(prediction["level"])
        assert all(0 <= a < b <= item.seconds + 0.005 for a, b, _ in prediction["segments"])


def test_numbers_that_are_none_show(trained: d.DiarizationModel) -> None:
    import torch

    class Broken(torch.nn.Module):
        def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
            super().__init__()
            self.shapes = shapes
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(torch.full((len(values), *shape), math.nan) for shape in self.shapes)

    (item,) = recordings("conversation-02")
    scores = Broken([(tracks.FRAMES, 7), ()])
    (prediction,) = trained.run(torch_session(trained, segmentation=scores), [item], Stopwatch())
    assert math.isnan(prediction["level"])
    embedder = Broken([(256,)] * 3)
    known = oracle([item], trained.settings.step)
    session = torch_session(trained, segmentation=known, embedder=embedder)
    (prediction,) = trained.run(session, [item], Stopwatch())
    assert math.isnan(prediction["level"])


def test_trace_follows_the_guide(trained: d.DiarizationModel) -> None:
    (item,) = recordings("conversation-08")
    session = torch_session(trained)
    truth = {"segments": item.facts["segments"]}
    found = trained.trace(session, item, truth)
    assert {name: array.shape for name, array in found.items()} == {
        "segmentation": (tracks.FRAMES, 7),
        "embeddings": (3, 256),
    }
    assert np.linalg.norm(found["embeddings"], axis=1) == pytest.approx([1, 1, 1])
    cosines = found["embeddings"] @ found["embeddings"].T
    assert cosines[np.triu_indices(3, 1)].max() < 0.9, "three people"
    nobody = trained.trace(session, item, {"segments": []})
    np.testing.assert_array_equal(nobody["segmentation"], found["segmentation"])
    everything = np.broadcast_to(nobody["embeddings"][0], (3, 256))
    np.testing.assert_allclose(nobody["embeddings"], everything, atol=1e-5)


def test_errors_of_a_hard_input() -> None:
    model = d.DiarizationModel(SYNTHETIC, None, d.WindowVoices(None))
    item = Item.from_audio("x", np.zeros(160_000, np.float32))
    reference = {"segments": [[0.0, 5.0, "speaker-1"]]}
    near = {"segments": [[0.2, 5.3, "speaker-7"]]}
    far = {"segments": [[0.0, 5.0, "speaker-1"], [6.0, 7.2, "speaker-1"]]}
    assert model.task.errors(item, near, reference)["errors"] == 0.0
    assert model.task.errors(item, far, reference)["errors"] == 1.0
    assert model.task.errors(item, {"segments": []}, reference)["errors"] == 1.0
    short = Item.from_audio("x", np.zeros(1600, np.float32))
    assert (
        model.task.errors(short, {"segments": [[0.0, 0.1, "a"]]}, {"segments": []})["errors"] == 0.0
    )


def test_uem_is_respected() -> None:
    model = d.DiarizationModel(SYNTHETIC, None, d.WindowVoices(None))
    audio = np.zeros(160_000, np.float32)
    segments = [[0.0, 4.0, "a"], [5.0, 9.0, "b"]]
    whole = Item.from_audio("x", audio, facts={"segments": segments})
    part = Item.from_audio("x", audio, facts={"segments": segments, "uem": [[5.0, 10.0]]})
    found = [{"segments": [[5.0, 9.0, "speaker-1"]]}]
    assert model.task.score([whole], found, found)["der"] == 0.5
    assert model.task.score([part], found, found)["der"] == 0.0


def test_what_a_uem_leaves_nothing_of_is_not_scored() -> None:
    """A first look may end before the scored part begins: no error there is no merit."""
    model = d.DiarizationModel(SYNTHETIC, None, d.WindowVoices(None))
    facts = {"segments": [[0.0, 4.0, "a"], [5.0, 9.0, "b"]]}
    audio = np.zeros(320_000, np.float32)
    late = Item.from_audio("late", audio, facts={**facts, "uem": [[15.0, 20.0]]})
    cut = beginning(late, 10.0)
    assert (late.is_scored, cut.is_scored) == (True, False)
    whole = Item.from_audio("whole", audio, facts=facts)
    nobody: list[dict[str, Any]] = [{"segments": []}]
    assert model.task.score_sets({"set": ([cut], nobody, nobody)}) == {}
    both = model.task.score_sets({"set": ([cut, whole], nobody * 2, nobody * 2)})
    assert both == model.task.score_sets({"set": ([whole], nobody, nobody)}) | {
        "set": {**model.task.score([whole], nobody, nobody), "worst_recording": 1},
        "outside_uem": 1,
    }
    assert both["set"]["recordings"] == 1
    # Whatever a caller leaves in: of nothing nothing is counted.
    assert model.task.score([cut], [{"segments": [[0.0, 9.0, "x"]]}], nobody)["der"] == 0.0


def test_items_by_profile() -> None:
    corpus = load()
    trained = d.DiarizationModel(SYNTHETIC, TRAINED, d.WindowVoices(None))
    quick, core, full = (trained.items(corpus, profile) for profile in (QUICK, CORE, FULL))
    assert list(core.task) == ["conversations"]
    counts = [len(chosen.task["conversations"]) for chosen in (quick, core, full)]
    assert 2 <= counts[0] < counts[1] == counts[2] == len(corpus.sets["conversations"].lines)
    assert sum(item.seconds for item in quick.task["conversations"]) <= 60
    assert len(quick.numerics) >= 2
    seeded = d.DiarizationModel(PUBLISHED, None, d.WindowVoices(None)).items(corpus, CORE)
    assert not seeded.task
    assert [len(item.audio) for item in seeded.numerics] == [d.WINDOW] * len(seeded.numerics)
    assert len(seeded.numerics) >= 3, "one input has no contrast"
    assert len(seeded.timed) == 1


def test_a_corpus_without_segments() -> None:
    found = load()
    clean = type(found)(found.path, {"clean": found.sets["clean"]})
    items = d.DiarizationModel(SYNTHETIC, TRAINED, d.WindowVoices(None)).items(clean, "quick")
    assert not items.task
    assert items.timed


def test_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        d.load("diarization-synthetic", "trained", str(tmp_path / "missing"))
    for part in d.PARTS:
        (tmp_path / part).mkdir()
    with pytest.raises(CheckpointError, match="config"):
        d.load("diarization-3.1", "pretrained", str(tmp_path))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "segmentation" / name).write_bytes((TRAINED / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        d.load("diarization-3.1", "pretrained", str(tmp_path))


def test_fingerprints_differ(trained: d.DiarizationModel) -> None:
    seeded = d.load("diarization-3.1", "seeded", "")
    other = d.DiarizationModel(
        tracks.Settings(148, "average", 0.2, 5), trained.folder, trained.voices
    )
    found = {model.fingerprint() for model in (trained, seeded, other)}
    assert len(found) == 3
    assert trained.fingerprint() in found


def test_parts_are_those_of_their_own_families(trained: d.DiarizationModel) -> None:
    """What is exported of a part serves both, so that it has to be the same part."""
    for graph in trained.graphs():
        assert graph.origin is not None
        (own,) = open_model(graph.origin).graphs()
        assert graph == own
        one, other = graph.module().state_dict(), own.module().state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    seeded = d.load("diarization-3.1", "seeded", "")
    assert [graph.origin for graph in seeded.graphs()] == [None, None]


def test_what_is_made_of_a_part_is_made_once(trained: d.DiarizationModel) -> None:
    checkpoint = "checkpoints/segmentation-3.0-synthetic"
    reference = ModelReference("diarization", "diarization-synthetic", "trained", checkpoint)
    for name, source in sources(reference, trained).items():
        assert source.graph.origin
        own = sources(source.graph.origin, open_model(source.graph.origin))[name]
        both = [(one, one.exported("b1")) for one in (source, own)]
        assert both[0][1].name == both[1][1].name
        arguments = {"file": "model.onnx"}
        made = [one.derive(copy_shipped, arguments, (), [export]).name for one, export in both]
        assert made[0] == made[1]
        # What is fitted to a model's inputs would else be fitted to what it is judged on.
        fitted = [
            one.derive(copy_shipped, arguments, (), [export], fitted=True).name
            for one, export in both
        ]
        assert fitted[0] != fitted[1]
