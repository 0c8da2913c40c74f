"""Speaker segmentation: corpus, powerset, metric, published architecture, checkpoints, driver."""

from __future__ import annotations

import enum
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.profile import FULL, QUICK
from compat.contract.runtime import Options
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load
from compat.inputs.rttm import read_rttm, read_uem
from compat.metrics.numerics import contrast_db
from compat.metrics.predictions import same_prediction
from compat.metrics.segmentation import LocalErrors, local_errors, matched, task_segmentation
from compat.models import segmentation
from compat.models.tasks import speaker_segmentation

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CORPUS = FIXTURES / "corpus"
FOLDER = CORPUS / "conversations"
CHECKPOINT = FIXTURES / "checkpoints" / "segmentation-3.0-synthetic"
TRAINED = ModelReference(
    "segmentation", "segmentation-3.0", "trained", "checkpoints/segmentation-3.0-synthetic"
)
RUNTIMES = {"torch": "cpu-torch", "onnxruntime": "cpu-onnxruntime", "openvino": "openvino-cpu"}
RATE = speaker_segmentation.SAMPLE_RATE


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of fixtures/build, where they import one another by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FIXTURES / "build"))
        yield __import__


def manifest() -> list[dict[str, Any]]:
    lines = (FOLDER / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# The corpus --------------------------------------------------------------------------------------


def test_every_file_is_listed_with_its_checksum() -> None:
    listed = dict(
        reversed(line.split("  ", 1))
        for line in (CORPUS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    ours = {name: digest for name, digest in listed.items() if name.startswith("conversations/")}
    assert ours == {
        f"conversations/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
    }


def test_labels_fit_the_audio() -> None:
    found = load(CORPUS).sets["conversations"]
    assert found.knows("segments")
    assert len(found.lines) == len(manifest()) == 12
    seconds = overlapped = spoken = 0.0
    for index, entry in enumerate(manifest()):
        item = found.item(index, RATE)
        assert 25 <= entry["duration"] == item.seconds <= 60
        segments = read_rttm(FOLDER / entry["rttm_filepath"])[entry["id"]]
        (scored,) = read_uem(FOLDER / entry["uem_filepath"])[entry["id"]]
        assert scored[1] == entry["duration"] and scored[0] in (0.0, 0.5, 1.0)
        assert max(end for _, end, _ in segments) <= entry["duration"]
        assert len({speaker for *_, speaker in segments}) == entry["num_speakers"]
        active = activity(segments, entry["duration"])
        assert active.sum(axis=1).max() <= 2
        speech, power = active.any(axis=1), frame_power(item.audio)
        # Where nobody speaks there is background noise, rooms, and the noises of the manifest.
        quiet = ~speech
        for start, end, _ in entry["noises"]:
            noise = slice(round(start * 100) - 2, round(end * 100) + 2)
            assert not speech[round(start * 100) : round(end * 100)].any()
            quiet[noise] = False
        assert np.median(power[speech]) > 10 * np.median(power[quiet])
        assert entry["speech_share"] == pytest.approx(speech.mean(), abs=1e-3)
        seconds += entry["duration"]
        spoken += speech.sum() / 100
        overlapped += (active.sum(axis=1) > 1).sum() / 100
    assert 6 * 60 <= seconds <= 8 * 60
    assert 0.1 <= overlapped / spoken <= 0.2


def test_segments_are_tight() -> None:
    """In dry recordings the level drops where a segment ends, and rises where one starts."""
    found = load(CORPUS).sets["conversations"]
    drops = []
    for index, entry in enumerate(manifest()):
        if "reverberation_time" in entry:
            continue
        segments = read_rttm(FOLDER / entry["rttm_filepath"])[entry["id"]]
        speech = activity(segments, entry["duration"]).any(axis=1)
        level = 10 * np.log10(frame_power(found.item(index, RATE).audio) + 1e-12)
        edges = np.flatnonzero(np.diff(speech.astype(int)))
        for edge in edges[(edges > 3) & (edges < len(speech) - 4)]:
            inside, outside = level[edge - 1 : edge + 1], level[edge + 1 : edge + 3]
            drop = inside.mean() - outside.mean()
            drops.append(drop if speech[edge] else -drop)
    assert len(drops) > 100
    # Within 20 ms on either side: 30 % of the edges are those of a faint sound, or beside a noise.
    assert np.mean(np.array(drops) > 6.0) > 0.7


def activity(segments: list[tuple[float, float, str]], seconds: float) -> np.ndarray:
    """Who speaks in each frame of 10 ms, (frames, speakers)."""
    names = sorted({speaker for *_, speaker in segments})
    active = np.zeros((round(seconds * 100), len(names)), bool)
    for start, end, speaker in segments:
        active[round(start * 100) : round(end * 100), names.index(speaker)] = True
    return active


def frame_power(samples: np.ndarray) -> np.ndarray:
    return np.square(samples[: len(samples) // 160 * 160].reshape(-1, 160)).mean(axis=1)


def test_voices_are_those_of_the_test_sets() -> None:
    provenance = json.loads((CORPUS / "provenance.json").read_text(encoding="utf-8"))
    spoken = [
        sorted({speaker for *_, speaker in read_rttm(FOLDER / entry["rttm_filepath"])[entry["id"]]})
        for entry in manifest()
    ]
    every = [voice for voices in spoken for voice in voices]
    assert len(set(every)) == len(every)
    assert set(every) <= set(provenance["speakers"]["test"])
    assert not set(every) & {
        *provenance["speakers"]["train"],
        *provenance["speakers"]["validation"],
    }
    # No variant twice in a recording: the accent alone may be inaudible.
    assert all(len({voice.split("+")[1] for voice in voices}) == len(voices) for voices in spoken)


def test_regeneration_gives_the_same_bytes(
    build: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: apt-get install espeak-ng")
    conversations, corpus = build("make_conversations"), build("make_corpus")
    known = json.loads((CORPUS / "provenance.json").read_text(encoding="utf-8"))["espeak_ng"]
    if corpus.espeak_version() != known:
        pytest.skip(f"espeak-ng {corpus.espeak_version()} speaks otherwise than {known}")
    entry = conversations.make(3, tmp_path, CORPUS)
    assert entry == manifest()[3]
    for suffix in ("flac", "rttm", "uem"):
        name = f"conversation-03.{suffix}"
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_stretches_of_speech_are_joined_by_the_rule(build: Callable[[str], ModuleType]) -> None:
    conversations = build("make_conversations")
    active = np.zeros(100, bool)
    active[10:20] = active[29:40] = True  # 90 ms apart: one segment.
    active[50:60] = True  # 100 ms apart: another.
    active[80:82] = True  # 20 ms are none.
    assert conversations.joined(active) == [(10, 40), (50, 60)]
    tone = np.zeros(1600, np.float32)
    tone[480:800] = 0.5
    tone[800:960] = 0.5 * 10 ** (-34 / 20)
    tone[960:1120] = 0.5 * 10 ** (-36 / 20)
    assert conversations.speech_frames(tone).tolist() == [False] * 3 + [True] * 3 + [False] * 4


# Training ----------------------------------------------------------------------------------------


def test_loss_is_free_of_permutations(build: Callable[[str], ModuleType]) -> None:
    training = build("train_segmentation")
    generator = np.random.default_rng(0)
    masks = speaker_segmentation.to_masks(generator.integers(0, 7, (2, 50)))
    target = torch.from_numpy(np.stack([speaker_segmentation.to_classes(one) for one in masks]))
    for order in permutations(range(3)):
        swapped = np.stack([speaker_segmentation.to_classes(one[:, order]) for one in masks])
        scores = torch.nn.functional.one_hot(torch.from_numpy(swapped), 7) * 20.0
        assert float(training.permutation_free_loss(scores.log_softmax(-1), target)) < 1e-5
    # One permutation holds for the whole window: swapping halfway is an error.
    half = np.stack([speaker_segmentation.to_classes(one[:, [1, 0, 2]]) for one in masks])
    half[:, :25] = target[:, :25]
    scores = torch.nn.functional.one_hot(torch.from_numpy(half), 7) * 20.0
    assert float(training.permutation_free_loss(scores.log_softmax(-1), target)) > 1.0


# The powerset ------------------------------------------------------------------------------------


def test_powerset_by_hand() -> None:
    scores = np.full((8, 7), -9.0, np.float32)
    scores[np.arange(7), np.arange(7)] = -0.1
    scores[7, [4, 1]] = -0.7, -0.8  # 1 and 2 together, before 1 alone.
    expected = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]
    masks = speaker_segmentation.powerset_masks(scores)
    assert masks.dtype == np.float32
    np.testing.assert_array_equal(masks, [*expected, [1, 1, 0]])
    np.testing.assert_array_equal(speaker_segmentation.to_classes(masks.astype(bool))[:7], range(7))
    np.testing.assert_array_equal(speaker_segmentation.powerset_masks(scores[None])[0], masks)
    with pytest.raises(ValueError, match="three speakers"):
        speaker_segmentation.to_classes(np.ones((1, 3), bool))


# The metric --------------------------------------------------------------------------------------


def test_errors_by_hand() -> None:
    truth = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 0]], bool)
    found = np.array([[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0]], bool)
    # The third local speaker is the first true one, the second the second: frame 1 and half of
    # frame 2 are missed, frame 4 is confused, frame 5 is invented.
    assert matched(truth, found).tolist()[1:] == [1, 0]
    errors = local_errors(truth, found)
    assert errors == LocalErrors(miss=2, false_alarm=1, confusion=1, speech=6)
    assert errors.errors == 4
    with pytest.raises(ValueError, match="5 frames found where the truth has 6"):
        local_errors(truth, found[:5])


@settings(max_examples=60, deadline=None)
@given(arrays(bool, (12, 3)), arrays(bool, (12, 3)), st.permutations(range(3)))
def test_errors_are_the_least_over_permutations(
    truth: np.ndarray, found: np.ndarray, order: list[int]
) -> None:
    errors = local_errors(truth, found)
    common = max(int((truth & found[:, list(chosen)]).sum()) for chosen in permutations(range(3)))
    actual, claimed = truth.sum(axis=1), found.sum(axis=1)
    assert errors.errors == int(np.maximum(actual, claimed).sum()) - common
    assert errors == local_errors(truth, found[:, order])
    assert local_errors(truth, truth[:, order]).errors == 0
    assert errors.miss - errors.false_alarm == int(actual.sum()) - int(claimed.sum())


def test_errors_are_those_of_pyannote() -> None:
    """Frames as segments, scored by pyannote.metrics."""
    from compat.metrics.diarization import diarization_errors

    generator = np.random.default_rng(3)
    # Slowly changing speakers, as single frames would be segments that touch.
    truth = np.repeat(generator.random((10, 2)) < 0.5, 20, axis=0)
    found = np.repeat(generator.random((20, 3)) < 0.4, 10, axis=0)
    expected = diarization_errors(spans(truth, "r"), spans(found, "s"), [(0.0, 200.0)])
    errors = local_errors(truth, found)
    assert (errors.miss, errors.false_alarm, errors.confusion, errors.speech) == pytest.approx(
        (expected.miss, expected.false_alarm, expected.confusion, expected.speech)
    )


def spans(active: np.ndarray, prefix: str) -> list[tuple[float, float, str]]:
    found = []
    for speaker in range(active.shape[1]):
        edges = np.flatnonzero(np.diff(np.pad(active[:, speaker].astype(int), 1)))
        found += [(float(a), float(b), f"{prefix}{speaker}") for a, b in edges.reshape(-1, 2)]
    return found


def test_task_metric() -> None:
    better, worse = LocalErrors(1, 2, 3, 100), LocalErrors(4, 5, 6, 100)
    found = task_segmentation([worse, better], [better, better])
    assert found["der"] == pytest.approx(21 / 200)
    assert found["reference_der"] == pytest.approx(12 / 200)
    assert found["degradation"] == pytest.approx(9 / 200)
    assert [found[part] for part in ("miss", "false_alarm", "confusion")] == pytest.approx(
        [5 / 200, 7 / 200, 9 / 200]
    )
    assert found["no_worse_share"] == 0.5
    assert found["worst_recording"] == 0
    # A frame in a hundred is no loss: it falls where two classes are equally probable.
    assert (
        task_segmentation([LocalErrors(1, 0, 0, 100)], [LocalErrors(0, 0, 0, 100)])[
            "no_worse_share"
        ]
        == 1.0
    )


# The architecture --------------------------------------------------------------------------------


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything that a checkpoint of segmentation-3.0 holds."""
    shapes: dict[str, tuple[int, ...]] = {
        "sincnet.wav_norm1d.weight": (1,),
        "sincnet.wav_norm1d.bias": (1,),
        "sincnet.conv1d.0.filterbank.low_hz_": (40, 1),
        "sincnet.conv1d.0.filterbank.band_hz_": (40, 1),
        "sincnet.conv1d.0.filterbank.window_": (125,),
        "sincnet.conv1d.0.filterbank.n_": (1, 125),
        "sincnet.conv1d.1.weight": (60, 80, 5),
        "sincnet.conv1d.1.bias": (60,),
        "sincnet.conv1d.2.weight": (60, 60, 5),
        "sincnet.conv1d.2.bias": (60,),
    }
    for index, width in enumerate((80, 60, 60)):
        shapes[f"sincnet.norm1d.{index}.weight"] = (width,)
        shapes[f"sincnet.norm1d.{index}.bias"] = (width,)
    for layer in range(4):
        for end in ("", "_reverse"):
            shapes[f"lstm.weight_ih_l{layer}{end}"] = (512, 256 if layer else 60)
            shapes[f"lstm.weight_hh_l{layer}{end}"] = (512, 128)
            shapes[f"lstm.bias_ih_l{layer}{end}"] = (512,)
            shapes[f"lstm.bias_hh_l{layer}{end}"] = (512,)
    for name, (out, width) in {
        "linear.0": (128, 256),
        "linear.1": (128, 128),
        "classifier": (len(speaker_segmentation.CLASSES), 128),
    }.items():
        shapes[f"{name}.weight"] = (out, width)
        shapes[f"{name}.bias"] = (out,)
    return shapes


def test_names_and_shapes_are_the_published_ones() -> None:
    network = segmentation.pyannet()
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert found == published_shapes()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_473_265
    learnt = {name for name, _ in network.named_parameters()}
    assert found.keys() - learnt == {
        "sincnet.conv1d.0.filterbank.window_",
        "sincnet.conv1d.0.filterbank.n_",
    }


def test_frames_lie_where_they_are_said_to() -> None:
    """A window has 589 frames; each sees 991 samples, 270 after the one before."""
    sincnet: Any = segmentation.pyannet().sincnet

    def convolved(samples: int) -> int:
        length = (samples - 251) // 10 + 1
        for kernel in (1, 5, 5):
            length = (length - kernel + 1) // 3
        return length

    assert convolved(speaker_segmentation.SAMPLES) == speaker_segmentation.FRAMES
    assert (
        speaker_segmentation.FRAME_SECONDS == 991 / RATE
        and convolved(991) == 1
        and convolved(990) == 0
    )
    assert speaker_segmentation.STEP_SECONDS == 270 / RATE and convolved(991 + 270) == 2
    with torch.no_grad():
        assert sincnet(torch.zeros(1, 1, speaker_segmentation.SAMPLES)).shape == (1, 60, 589)
    times = speaker_segmentation.frame_times(2)
    assert times[0] == pytest.approx(20 + 495.5 / RATE)
    assert times[-1] == pytest.approx(20 + (588 * 270 + 495.5) / RATE)


def test_filters_pass_their_bands() -> None:
    """Even and odd halves of a pair answer to a tone in the band, and not outside of it."""
    bank: Any = segmentation.pyannet().sincnet.conv1d[0].filterbank  # type: ignore[index]
    kernels = bank.filters().detach().numpy()[:, 0].astype(np.float64)
    assert kernels.shape == (80, 251)
    np.testing.assert_allclose(kernels[:40], kernels[:40, ::-1], atol=1e-6)
    np.testing.assert_allclose(kernels[40:], -kernels[40:, ::-1], atol=1e-6)
    low = 50 + bank.low_hz_.detach().numpy()[:, 0].astype(np.float64)
    high = low + 50 + bank.band_hz_.detach().numpy()[:, 0]
    assert low[0] == pytest.approx(80, abs=0.01)
    time = np.arange(-125, 126) / RATE
    for pair in (3, 20, 38):
        centre, width = (low[pair] + high[pair]) / 2, high[pair] - low[pair]
        # The definition: a difference of two sincs, Hamming-windowed, with a peak of one.
        sincs = 2 * high[pair] * np.sinc(2 * high[pair] * time) - 2 * low[pair] * np.sinc(
            2 * low[pair] * time
        )
        expected = np.hamming(251) * sincs / (2 * width)
        expected[125] = 1.0
        np.testing.assert_allclose(kernels[pair], expected, atol=2e-5)

        def gain(hertz: float, pair: int = pair) -> float:
            tone = np.exp(-2j * np.pi * hertz * time)
            return float(abs(kernels[pair] @ tone) ** 2 + abs(kernels[40 + pair] @ tone) ** 2)

        outside = [centre - width / 2 - 150, centre + width / 2 + 150]
        assert gain(centre) > 30 * max(gain(hertz) for hertz in outside if 0 < hertz < 8000)


def test_generated_weights_tell_inputs_apart() -> None:
    """The diarization pipeline runs this network seeded, too."""
    items = load(CORPUS).sets["conversations"].items(RATE, 2)
    audio = torch.from_numpy(
        np.stack([item.audio[: speaker_segmentation.SAMPLES] for item in items])
    )
    with torch.inference_mode():
        scores = segmentation.PUBLISHED.load(None)(audio[:, None]).numpy()
    assert contrast_db(list(scores)) > -13


# Checkpoints -------------------------------------------------------------------------------------


class Problem(enum.Enum):
    """Stands for the objects that pyannote.audio pickles beside the weights."""

    MONO_LABEL = 1


def published(folder: Path, **extra: Any) -> Path:
    """Write a folder as it is published: config.yaml, and a pickle of Lightning's."""
    torch.manual_seed(0)
    state = segmentation.pyannet().state_dict()
    folder.mkdir()
    content = {"epoch": 1, "state_dict": state, "pytorch-lightning_version": "2.0", **extra}
    torch.save(content, folder / "pytorch_model.bin")
    (folder / "config.yaml").write_text(
        "model:\n  _target_: pyannote.audio.models.segmentation.PyanNet\n", encoding="utf-8"
    )
    return folder


def test_the_published_layout_loads(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = published(tmp_path / "published")
    expected = torch.load(folder / "pytorch_model.bin", weights_only=True)["state_dict"]
    model = segmentation.load("segmentation-3.0", "pretrained", str(folder))
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    # After conversion: the same weights, read without unpickling.
    before = model.fingerprint()
    save_file(expected, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    model = segmentation.load("segmentation-3.0", "pretrained", str(folder))
    assert torch.equal(model.network.state_dict()["classifier.bias"], expected["classifier.bias"])
    assert model.fingerprint() != before


def test_a_pickle_of_objects_is_refused(tmp_path: Path) -> None:
    folder = published(tmp_path / "objects", specifications=Problem.MONO_LABEL)
    model = segmentation.load("segmentation-3.0", "pretrained", str(folder))
    with pytest.raises(CheckpointError, match=r"more than tensors.*save_file") as raised:
        _ = model.network
    # The remedy is a command that does what it says, for whoever trusts the file.
    command = str(raised.value).split('-c "', 1)[1].removesuffix('"')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(command)  # noqa: S102 (the remedy that an error of this project names)
    (folder / "pytorch_model.bin").unlink()
    assert segmentation.load("segmentation-3.0", "pretrained", str(folder)).network


def change(state: dict[str, torch.Tensor], name: str, value: torch.Tensor | None) -> None:
    if value is None:
        del state[name]
    else:
        state[name] = value


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "classifier.weight",
            torch.zeros(4, 128),
            r"classifier\.weight should have shape \(7, 128\) and has \(4, 128\)",
        ),
        ("lstm.bias_hh_l3_reverse", None, r"lstm\.bias_hh_l3_reverse .* is missing"),
        ("lstm.bias_hh_l4", torch.zeros(512), r"has no lstm\.bias_hh_l4"),
    ],
)
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_other_weights_are_refused(
    tmp_path: Path, name: str, value: torch.Tensor | None, said: str, form: str
) -> None:
    from safetensors.torch import save_file

    state = segmentation.pyannet().state_dict()
    change(state, name, value)
    (tmp_path / "config.json").write_text('{"model_type": "pyannote-segmentation"}')
    if form == "bin":
        torch.save({"state_dict": state}, tmp_path / "pytorch_model.bin")
    else:
        save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=said):
        segmentation.PUBLISHED.load(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither config.json nor config.yaml"),
        ({"config.json": '{"model_type": "whisper"}'}, "describes a 'whisper' model"),
        ({"config.json": "{"}, "cannot read the configuration"),
        ({"config.json": "[]"}, "cannot read the configuration"),
        ({"config.yaml": "_target_: pyannote.audio.models.SSeRiouSS"}, "describes no PyanNet"),
        ({"config.yaml": "PyanNet"}, "neither model.safetensors nor pytorch_model.bin"),
        ({"config.yaml": "PyanNet", "model.safetensors": "no"}, "cannot read .*safetensors"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        segmentation.load("segmentation-3.0", "pretrained", str(tmp_path))


def test_no_folder() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        segmentation.load("segmentation-3.0", "pretrained", "/nowhere")


# The driver --------------------------------------------------------------------------------------


def test_predictions_survive_their_encoding() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.integers(speaker_segmentation.SHORTEST_RUN, 40, 60)
    window = np.repeat(generator.integers(0, 7, 60), lengths)[: speaker_segmentation.FRAMES]
    window[-5:] = 0
    silent = np.zeros(speaker_segmentation.FRAMES, np.int64)
    prediction = speaker_segmentation.encode([window, silent])
    assert prediction["classes"][1] == [0] and prediction["changes"][1] == []
    decoded = speaker_segmentation.decode(json.loads(json.dumps(prediction)))
    np.testing.assert_array_equal(decoded, [window, silent])


def test_flickering_is_removed_and_a_shifted_change_is_rounding() -> None:
    window = np.repeat([0, 1, 4, 0], [100, 200, 150, 139])
    steady = speaker_segmentation.encode([window])
    flickering = window.copy()
    flickering[[0, 1, 50, 150, 151]] = 5, 5, 2, 0, 0
    assert speaker_segmentation.encode([flickering]) == steady
    assert speaker_segmentation.encode(
        [np.arange(speaker_segmentation.FRAMES) % 7]
    ) == speaker_segmentation.encode([np.zeros(speaker_segmentation.FRAMES, np.int64)])
    shifted = speaker_segmentation.encode([np.repeat([0, 1, 4, 0], [101, 199, 150, 139])])
    assert shifted != steady and same_prediction(shifted, steady)
    # A fifth of a second is another answer, and so is another speaker.
    assert not same_prediction(
        speaker_segmentation.encode([np.repeat([0, 1, 4, 0], [112, 188, 150, 139])]), steady
    )
    assert not same_prediction(
        speaker_segmentation.encode([np.where(window == 1, 2, window)]), steady
    )


def conversation(classes: np.ndarray, seconds: float, **facts: Any) -> tuple[Item, dict[str, Any]]:
    samples = np.zeros(round(seconds * RATE), np.float32)
    return Item.from_audio("made", samples, RATE, facts), speaker_segmentation.encode(list(classes))


def test_errors_are_counted_where_the_recording_is_scored() -> None:
    # 15 s: A speaks for the first 5 s, B from 10 s to 12 s; the second window reaches into nothing.
    segments = [[0.0, 5.0, "A"], [10.0, 12.0, "B"]]
    times = speaker_segmentation.frame_times()
    windows = np.stack([np.where(times < 5, 3, 0), np.where(times < 2, 3, 0)])
    item, perfect = conversation(windows, 15.0, segments=segments)
    counted = speaker_segmentation.errors_of(item, perfect)
    assert counted.errors == 0
    assert counted.speech == (times < 5).sum() + (times < 2).sum()
    # What is claimed beyond the end does not count; nobody else does either.
    beyond = np.stack([windows[0], np.where((times < 2) | (times > 5), 3, 0)])
    assert (
        speaker_segmentation.errors_of(item, speaker_segmentation.encode(list(beyond))).errors == 0
    )
    item, silent = conversation(windows * 0, 15.0, segments=segments, uem=[[4.0, 11.0]])
    counted = speaker_segmentation.errors_of(item, silent)
    assert counted.miss == counted.speech == ((times >= 4) & (times < 5)).sum() + (times < 1).sum()


def test_hard_inputs_are_held_against_the_reference() -> None:
    model = segmentation.load("segmentation-3.0", "trained", TRAINED.checkpoint)
    windows = np.repeat([[0, 1, 2, 0]], [100, 200, 200, 89], axis=1)
    item, reference = conversation(windows, 10.0)
    renamed = speaker_segmentation.encode([np.array([0, 3, 1])[windows[0]]])
    assert model.task.errors(item, renamed, reference) == {"errors": 0.0, "reference": 0.0}
    merged = speaker_segmentation.encode([np.array([0, 1, 1])[windows[0]]])
    assert model.task.errors(item, merged, reference) == {"errors": 1.0, "reference": 0.0}


@pytest.fixture(scope="module")
def trained() -> tuple[segmentation.SegmentationModel, Session]:
    model = segmentation.load("segmentation-3.0", "trained", TRAINED.checkpoint)
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))
    return model, oracle_session(model, "fp32")


def windows_within(item: Item) -> list[np.ndarray]:
    """Which frames of each window of a recording hold speech by its labels."""
    found = []
    for window in range(-(-len(item.audio) // speaker_segmentation.SAMPLES)):
        times = speaker_segmentation.frame_times(window)[:, None]
        starts, ends = np.array([part[:2] for part in item.facts["segments"]]).T
        found.append(((times >= starts) & (times < ends)).any(axis=1))
    return found


def test_the_trained_network_beats_what_needs_no_network(
    trained: tuple[segmentation.SegmentationModel, Session],
) -> None:
    model, session = trained
    items = model.items(load(CORPUS), FULL).task["conversations"]
    assert len(items) == 12
    predictions = [model.run(session, [item], Stopwatch())[0] for item in items]
    found = model.task.score(items, predictions, predictions)

    def scored(windows_of: Callable[[Item], list[np.ndarray]]) -> dict[str, Any]:
        said = [speaker_segmentation.encode(windows_of(item)) for item in items]
        return model.task.score(items, said, predictions)

    nobody = scored(lambda item: [np.zeros(589, np.int64) for _ in windows_within(item)])
    assert nobody["der"] == nobody["miss"] == 1.0
    somebody = scored(lambda item: [np.ones(589, np.int64) for _ in windows_within(item)])
    assert somebody["der"] > 0.8
    assert somebody["degradation"] == somebody["der"] - found["der"]
    # The best that is possible without telling speakers apart.
    one_speaker = scored(lambda item: [inside.astype(int) for inside in windows_within(item)])
    assert 0.3 < one_speaker["der"] < 0.45
    assert found["der"] < 0.25 < one_speaker["der"] - 0.1
    assert found["miss"] < 0.06 and found["false_alarm"] < 0.06
    # In a batch as alone, but for rounding.
    together = model.run(session, items[2:5], Stopwatch())
    for alone, in_batch in zip(predictions[2:5], together, strict=True):
        assert same_prediction(in_batch, alone)


def test_runtimes_agree(
    trained: tuple[segmentation.SegmentationModel, Session], cache_folder: Path
) -> None:
    model, _ = trained
    items = model.items(load(CORPUS), QUICK).numerics[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPAT_CACHE", str(cache_folder))
        known = catalog.load()
        targets = {target.name: target for target in known.targets}
        traces = {}
        for name, target in RUNTIMES.items():
            session = known.runtime(name).compile(
                sources(TRAINED, model, 1), targets[target], Recipe("fp32"), Options(1)
            )
            traces[name] = [model.trace(session, item, {})["log_probabilities"] for item in items]
            session.close()
    for name, found in traces.items():
        for ours, theirs in zip(found, traces["torch"], strict=True):
            assert ours.shape == (speaker_segmentation.FRAMES, 7)
            np.testing.assert_allclose(np.exp(ours).sum(axis=-1), 1.0, rtol=1e-4)
            np.testing.assert_allclose(ours, theirs, atol=2e-3, err_msg=name)
    assert np.abs(traces["torch"][0] - traces["torch"][1]).max() > 1.0


def test_the_family_loads_without_torch() -> None:
    """The host side must not import what a cold start is timed by."""
    import subprocess

    code = (
        "import sys; from compat.models import segmentation as s; "
        f"s.load('segmentation-3.0', 'trained', '{TRAINED.checkpoint}').graphs(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
