"""Speaker embeddings: features, published networks, checkpoints and driver."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compat import catalog
from compat.build import artifacts
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.profile import QUICK
from compat.contract.runtime import Options
from compat.contract.session import Session
from compat.inputs import kaldi
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.inputs.corpus import load
from compat.inputs.features import mel_filterbank
from compat.metrics.numerics import contrast_db
from compat.models import resemblyzer, wespeaker, wespeaker_network
from compat.models.tasks.speaker_embedding import SpeakerEmbedding

RATE = 16_000
SEEDED = ModelReference("wespeaker", "wespeaker-resnet34", "seeded")
RUNTIMES = {"torch": "cpu-torch", "onnxruntime": "cpu-onnxruntime", "openvino": "openvino-cpu"}


def recordings(limit: int | None) -> list[Item]:
    """Read the shipped trials as a first look does that may take so many recordings."""
    return list(SpeakerEmbedding(limit).recordings(load().sets["speakers"], RATE, QUICK))


def _voice(seconds: float, seed: int = 0) -> np.ndarray:
    """A buzz with moving formants, and noise: sounds at all frequencies, that change."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / RATE)) * (1 + np.sin(9 * time))
    return (0.05 * buzz + 0.01 * generator.standard_normal(time.size)).astype(np.float32)


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of Resemblyzer's weights."""
    try:
        return find_checkpoint("package:Resemblyzer/resemblyzer")
    except CheckpointError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def reference(package: Path) -> ModelReference:
    return ModelReference("resemblyzer", "resemblyzer", "pretrained", str(package))


# Resemblyzer: features and windows ---------------------------------------------------------------


def test_mel_is_that_of_an_independent_transform() -> None:
    from scipy.signal import stft

    samples = _voice(1.0)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    # Scipy pads with zeros and divides by the window's sum, as librosa pads and does not divide.
    _, _, spectrum = stft(
        samples.astype(float), window=window, nperseg=400, noverlap=240, padded=False
    )
    # The filters are held against another implementation in test_features.py.
    expected = np.abs(spectrum.T * window.sum()) ** 2 @ mel_filterbank(40)
    found = resemblyzer.mel_spectrogram(samples)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (101, 40)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (0.1, [0]),
        (1.6, [0]),
        # A second window would begin at 0.77 s and be covered to 58 % only.
        (1.7, [0]),
        (2.2, [0, 77]),  # To 89 %.
        (3.0, [0, 77, 154]),
    ],
)
def test_windows_cover_the_recording(seconds: float, starts: list[int]) -> None:
    assert resemblyzer.partial_starts(round(seconds * RATE)) == starts
    assert resemblyzer.partials(_voice(seconds)).shape == (len(starts), 160, 40)


@given(st.integers(1, 20 * RATE))
def test_windows_leave_no_more_than_their_share(samples: int) -> None:
    starts = resemblyzer.partial_starts(samples)
    assert np.diff(starts).tolist() == [77] * (len(starts) - 1)
    end = (starts[-1] + 160) * 160
    # What is left beyond the last window is less than another would have to hold.
    assert samples - end < 0.75 * 160 * 160
    assert len(starts) == 1 or (samples - starts[-1] * 160) >= 0.75 * 160 * 160


def test_only_quiet_recordings_change_their_level() -> None:
    quiet, loud = 0.001 * _voice(1.0), 10 * _voice(1.0)
    raised = resemblyzer.normalised(quiet)
    assert 20 * np.log10(np.sqrt(np.mean(raised**2))) == pytest.approx(-30.0, abs=0.01)
    np.testing.assert_array_equal(resemblyzer.normalised(loud), loud)
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(resemblyzer.normalised(silence), silence)


# Resemblyzer: network ----------------------------------------------------------------------------


def test_network_is_that_of_the_equations(package: Path) -> None:
    """The LSTM written out in NumPy from the file's matrices, in float64."""
    read = torch.load(package / "pretrained.pt", map_location="cpu", weights_only=True)
    matrices = {name: tensor.double().numpy() for name, tensor in read["model_state"].items()}
    mel = resemblyzer.partials(_voice(2.2))

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    sequence = mel.astype(np.float64)
    for layer in range(3):
        take, keep = matrices[f"lstm.weight_ih_l{layer}"], matrices[f"lstm.weight_hh_l{layer}"]
        bias = matrices[f"lstm.bias_ih_l{layer}"] + matrices[f"lstm.bias_hh_l{layer}"]
        hidden = cell = np.zeros((len(mel), 256))
        outputs = []
        for step in range(160):
            gates = sequence[:, step] @ take.T + hidden @ keep.T + bias
            enter, forget, change, leave = np.split(gates, 4, axis=1)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(change)
            hidden = sigmoid(leave) * np.tanh(cell)
            outputs.append(hidden)
        sequence = np.stack(outputs, axis=1)
    raw = np.maximum(hidden @ matrices["linear.weight"].T + matrices["linear.bias"], 0)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)

    network = resemblyzer.load_network(package).double()
    with torch.inference_mode():
        found = [tensor.numpy() for tensor in network(torch.from_numpy(mel).double())]
    for array, wanted in zip(found, (expected, raw, hidden), strict=True):
        np.testing.assert_allclose(array, wanted, atol=1e-9)


def test_other_weights_are_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"pretrained\.pt is missing"):
        resemblyzer.load("resemblyzer", "pretrained", str(tmp_path))
    changed = bytearray((package / "pretrained.pt").read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "pretrained.pt").write_bytes(changed)
    with pytest.raises(CheckpointError, match="not the file that this project knows"):
        resemblyzer.load("resemblyzer", "pretrained", str(tmp_path))


def test_published_weights_know_the_voices_of_the_corpus(reference: ModelReference) -> None:
    model = catalog.open_model(reference)
    session = oracle_session(model, "fp32")
    items = recordings(48)
    predictions = model.run(session, items, Stopwatch())
    lengths = [np.linalg.norm(one["embedding"]) for one in predictions]
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)
    found = model.task.score(items, predictions, predictions)
    assert found["targets"] == 72
    assert found["trials"] > 100
    assert found["eer"] < 0.15
    # Shuffled among the recordings, the same embeddings know nothing.
    order = np.random.default_rng(0).permutation(len(items))
    shuffled = model.task.score(items, [predictions[i] for i in order], predictions)
    assert shuffled["eer"] > 0.35
    assert shuffled["degradation"] > 0.25


# WeSpeaker: features -----------------------------------------------------------------------------


def _kaldi_fbank(samples: np.ndarray) -> np.ndarray:
    """Kaldi's log mel filter bank in NumPy, (frames, 80)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples * 32768.0, 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    power = np.abs(np.fft.rfft((frames - 0.97 * before) * hamming, 512)) ** 2

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(20.0), mel(8000.0), 82)
    bins = mel(np.arange(257) * RATE / 512)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return np.log(np.maximum(power @ filters, np.finfo(np.float32).eps))


@pytest.mark.parametrize("seconds", [0.5, 10.0, 12.0])
def test_fbank_is_kaldis(seconds: float) -> None:
    samples = _voice(seconds)
    expected = _kaldi_fbank(samples[: 10 * RATE].astype(np.float64))
    expected -= expected.mean(axis=0)
    found = wespeaker.fbank(samples)
    assert found.dtype == np.float32
    assert found.shape == (998, 80)
    np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-3)
    assert not found[len(expected) :].any()
    assert len(expected) == min(kaldi.frame_count(len(samples)), 998)


@pytest.mark.parametrize("samples", [1, 400, 1600, 48_000, 160_000])
def test_whole_masks_cover_the_audio_and_no_more(samples: int) -> None:
    masks = wespeaker.whole(samples)
    assert masks.shape == (3, 589)
    pooled = masks[:, np.arange(125) * 589 // 125]
    # The network keeps one frame in eight.
    expected = -(-max(kaldi.frame_count(samples), 1) // 8)
    assert (pooled.sum(axis=1) == expected).all()
    assert (np.diff(masks, axis=1) <= 0).all()


def test_a_single_sample_is_one_frame() -> None:
    assert not wespeaker.fbank(np.ones(1, np.float32)).any()


# WeSpeaker: network ------------------------------------------------------------------------------


def test_parameters_are_the_published_ones() -> None:
    network = wespeaker.resnet34()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    expected = {"resnet.conv1.weight", "resnet.seg_1.weight", "resnet.seg_1.bias"}
    expected |= {f"resnet.bn1.{part}" for part in norm}
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            prefix = f"resnet.layer{layer}.{block}"
            expected |= {f"{prefix}.conv{i}.weight" for i in (1, 2)}
            expected |= {f"{prefix}.bn{i}.{part}" for i in (1, 2) for part in norm}
        if layer > 1:
            expected |= {f"resnet.layer{layer}.0.shortcut.0.weight"}
            expected |= {f"resnet.layer{layer}.0.shortcut.1.{part}" for part in norm}
    assert set(shapes) == expected
    assert len(shapes) == 218
    assert shapes["resnet.conv1.weight"] == (32, 1, 3, 3)
    assert shapes["resnet.layer2.0.conv1.weight"] == (64, 32, 3, 3)
    assert shapes["resnet.layer4.0.shortcut.0.weight"] == (256, 128, 1, 1)
    assert shapes["resnet.layer4.2.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["resnet.seg_1.weight"] == (256, 2 * 256 * 10)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 6_634_336


def test_statistics_by_hand() -> None:
    frames = torch.tensor([[[1.0, 3.0, 5.0, 100.0]]])
    masks = torch.tensor([[[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 1.0, 0.0]]])
    found = wespeaker_network.statistics(frames, masks)[0]
    # Mean and unbiased deviation of 1, 3, 5; of one frame alone; of reliabilities 1/2, 1/2, 1:
    # mean 3.5, variance (3.125 + 0.125 + 2.25) / (2 - 1.5 / 2).
    expected = [[3.0, 2.0], [3.0, 0.0], [3.5, (5.5 / 1.25) ** 0.5]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_statistics_of_everything_are_plain_ones() -> None:
    frames = torch.randn(2, 6, 125, generator=torch.Generator().manual_seed(0))
    found = wespeaker_network.statistics(frames, torch.ones(2, 3, 589))
    expected = torch.cat((frames.mean(dim=2), frames.std(dim=2)), dim=1)
    for speaker in range(3):
        torch.testing.assert_close(found[:, speaker], expected)


def test_statistics_see_only_what_the_nearest_mask_frames_say() -> None:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(1, 6, 125, generator=generator)
    masks = (torch.rand(1, 3, 589, generator=generator) < 0.5).float()
    nearest = torch.nn.functional.interpolate(masks, size=125, mode="nearest")
    found = wespeaker_network.statistics(frames, masks)
    torch.testing.assert_close(found, wespeaker_network.statistics(frames, nearest))
    outside = frames + 1e3 * (1 - nearest[:, :1])
    torch.testing.assert_close(wespeaker_network.statistics(outside, masks)[:, 0], found[:, 0])
    assert not torch.allclose(wespeaker_network.statistics(outside, masks)[:, 1], found[:, 1])


def test_an_empty_mask_gives_zeros() -> None:
    frames = torch.randn(1, 6, 125, generator=torch.Generator().manual_seed(2))
    masks = torch.zeros(1, 3, 589)
    masks[:, 0] = 1.0
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        found = wespeaker_network.statistics(frames.to(kind), masks.to(kind))
        assert torch.isfinite(found).all()
        assert not found[:, 1:].any()


@pytest.fixture(scope="module")
def seeded() -> tuple[wespeaker.WeSpeakerModel, Session]:
    model = wespeaker.load("wespeaker-resnet34", "seeded", "")
    return model, oracle_session(model, "fp32")


def test_generated_weights_are_admitted(
    seeded: tuple[wespeaker.WeSpeakerModel, Session],
) -> None:
    """Embeddings of different speech, and by different masks, differ by a good part of them."""
    model, session = seeded
    items = model.items(load(), QUICK)
    assert not items.task
    assert all(item.seconds == 10.0 for item in items.timed)
    traces = [model.trace(session, item, {}) for item in items.numerics[:2]]
    for name, array in traces[0].items():
        assert array.shape == (256,)
        assert contrast_db([trace[name] for trace in traces]) > -8, name
    assert contrast_db(list(traces[0].values())) > -12


def test_a_long_recording_is_the_mean_of_its_windows(
    seeded: tuple[wespeaker.WeSpeakerModel, Session],
) -> None:
    model, session = seeded
    speech = np.concatenate([item.audio for item in load().speech.items(RATE, 8)])[: 12 * RATE]
    parts = {"start": speech[: 10 * RATE], "end": speech[10 * RATE :], "whole": speech}
    items = [Item.from_audio(name, samples) for name, samples in parts.items()]
    predictions = model.run(session, items, Stopwatch())
    start, end, whole = (np.array(one["embedding"]) for one in predictions)
    expected = (10 * start + 2 * end) / 12
    np.testing.assert_allclose(whole, expected, atol=1e-4 * np.abs(expected).max())
    assert np.linalg.norm(start - end) > 0.1 * np.linalg.norm(start)


# WeSpeaker: checkpoints --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return wespeaker.resnet34().state_dict()


def test_a_published_layout_is_loaded(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, tmp_path / "model.safetensors")
    model = wespeaker.load("wespeaker-resnet34", "pretrained", str(tmp_path))
    found = model.network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert model.items(load(), QUICK).task["speakers"]
    assert model.fingerprint() != wespeaker.load("wespeaker-resnet34", "seeded", "").fingerprint()


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What pyannote.audio stores beside the tensors, of classes that are not installed here."""
    module = ModuleType("pyannote.audio.core.task")

    class Published(enum.Enum):
        """Stored as a call of the class, as published; Python 3.11.0 to 3.11.3 write a getattr."""

        def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
            return type(self), (self.value,)

    Problem = Published("Problem", ["REPRESENTATION"], module=module.__name__)  # noqa: N806 (a class)
    Resolution = Published("Resolution", ["CHUNK"], module=module.__name__)  # noqa: N806 (a class)

    @dataclass
    class Specifications:
        problem: Any
        resolution: Any
        duration: float

    Specifications.__module__ = module.__name__
    Specifications.__qualname__ = "Specifications"
    for kind in (Problem, Resolution, Specifications):
        setattr(module, kind.__name__, kind)
    names = ("pyannote.audio", "pyannote.audio.core", module.__name__)
    for name in names[:2]:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    specifications = Specifications(Problem.REPRESENTATION, Resolution.CHUNK, 5.0)
    versions = {"torch": torch.__version__, "pyannote.audio": "3.0.1"}
    return {"pyannote.audio": {"versions": versions, "specifications": specifications}}


def test_a_lightning_checkpoint_is_read_without_running_it(
    state: dict[str, torch.Tensor],
    lightning: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.save({**lightning, "state_dict": state}, tmp_path / "pytorch_model.bin")
    for name in [name for name in sys.modules if name.startswith("pyannote.audio")]:
        monkeypatch.delitem(sys.modules, name)
    found = wespeaker.PUBLISHED.load(tmp_path).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)

    def __init__(self, path: Path) -> None:
        self.path = str(path)


def test_code_in_a_checkpoint_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"state_dict": state, "more": Evil(ran)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="without running code"):
        wespeaker.PUBLISHED.load(tmp_path)
    assert not ran.exists()


def test_unusable_checkpoints_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        wespeaker.load("wespeaker-resnet34", "pretrained", str(tmp_path))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        wespeaker.PUBLISHED.load(tmp_path)
    save_file({"encoder.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(CheckpointError, match="no WeSpeaker ResNet34"):
        wespeaker.PUBLISHED.load(tmp_path)
    wider = {**state, "resnet.seg_1.weight": torch.zeros(192, 5120)}
    save_file(wider, path)
    with pytest.raises(CheckpointError, match=r"resnet\.seg_1\.weight .* has \(192, 5120\)"):
        wespeaker.PUBLISHED.load(tmp_path)


# Runtimes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(
    reference: ModelReference, cache_folder: Path
) -> Iterator[dict[str, dict[str, Session]]]:
    """Both families compiled as float32 by three runtimes, by family and runtime."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPAT_CACHE", str(cache_folder))
        # Exported in this process, which has everything imported already.
        patch.setenv(artifacts._BUILDING, "1")
        known = catalog.load()
        targets = {target.name: target for target in known.targets}
        yield {
            one.family: {
                name: known.runtime(name).compile(
                    sources(one, catalog.open_model(one), 1),
                    targets[target],
                    Recipe("fp32"),
                    Options(1),
                )
                for name, target in RUNTIMES.items()
            }
            for one in (reference, SEEDED)
        }


def test_runtimes_agree_on_windows(
    reference: ModelReference, sessions: dict[str, dict[str, Session]]
) -> None:
    model = catalog.open_model(reference)
    item = Item.from_audio("voice", _voice(1.5))
    traces = {n: model.trace(s, item, {}) for n, s in sessions["resemblyzer"].items()}
    for name in ("onnxruntime", "openvino"):
        for output, expected in traces["torch"].items():
            error = np.abs(traces[name][output] - expected).max()
            assert error < 1e-4 * np.abs(expected).max(), (name, output)


def test_runtimes_agree_on_masks_of_any_length(sessions: dict[str, dict[str, Session]]) -> None:
    """Also where a divisor's small constant, which an exporter may drop, is all that is left."""
    masks = np.zeros((1, 3, 589), np.float32)
    masks[0, 0] = 1.0
    masks[0, 1, 100] = 1.0  # None of the frames that are looked at.
    masks[0, 2, 0] = 1.0  # One frame.
    feeds = {"fbank": wespeaker.fbank(_voice(10.0))[None], "masks": masks}
    found = {
        name: session.run("embedding", feeds, "b1")["embeddings"].numpy()[0].copy()
        for name, session in sessions["wespeaker"].items()
    }
    bias = wespeaker.PUBLISHED.load(None).state_dict()["resnet.seg_1.bias"].numpy()
    assert np.abs(found["torch"][[0, 2]] - bias).max() > 0.1
    for name, embeddings in found.items():
        np.testing.assert_allclose(embeddings[1], bias, atol=1e-6, err_msg=name)
        for ours, expected in zip(embeddings, found["torch"], strict=True):
            assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max(), name


# Choice of recordings ----------------------------------------------------------------------------


def test_limited_trials_keep_speakers_whole() -> None:
    everything = recordings(None)
    assert len(everything) == 96
    some = recordings(24)
    assert len(some) == 24
    by_speaker = [item.facts["speaker"] for item in some]
    assert {by_speaker.count(name) for name in by_speaker} == {4}
    inside = {item.id for item in some}
    kinds = [
        same for item in some for other, same in item.facts.get("trials", ()) if other in inside
    ]
    assert kinds.count(True) == 36
    assert kinds.count(False) > 5
    # Too few for a pair of two speakers: all of them then.
    assert len(recordings(4)) == 96
