"""HTDemucs' network and driver against the package, its checkpoints, and its graph's precision."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import types
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compat import catalog
from compat.build.sources import example_tensors
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.profile import CORE
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load as load_corpus
from compat.inputs.generator import uniform
from compat.inputs.weights import fill_from_state
from compat.judge import results, thresholds
from compat.metrics.numerics import compare, contrast_db
from compat.metrics.waveform import snr_db
from compat.models import htdemucs
from compat.models.htdemucs import HTDemucsModel, Scale
from compat.models.htdemucs_network import HTDemucs
from compat.models.htdemucs_settings import SAMPLE_RATE, Settings
from compat.models.parts.long_norm import GroupNorm, mean
from compat.models.parts.overlap_add import OverlapAdd
from compat.models.parts.short_time import istft, stft
from compat.models.tasks.separation import STEMS

TINY = Settings(
    channels=8,
    nfft=512,
    depth=2,
    bottom_channels=16,
    t_layers=3,
    t_heads=2,
    dconv_comp=4,
    samples=4410,
)
BUILT_WITH = {
    "sources": list(STEMS),
    "audio_channels": 2,
    "samplerate": SAMPLE_RATE,
    "channels": 8,
    "nfft": 512,
    "depth": 2,
    "bottom_channels": 16,
    "t_layers": 3,
    "t_heads": 2,
    "dconv_mode": 3,
    "dconv_comp": 4,
    "segment": Fraction(1, 10),
    "t_dropout": 0.02,
}
"""The same in demucs' words; the last of them matters to training alone."""

# demucs 4.1.0, apply_model(network, song, shifts=0, overlap=0.25) with the same generated weights:
# every 1500th sample of both channels from the 50th on, a row for each stem.
EXPECTED = (
    "0.008971 0.01048 -0.001077 0.005863 -0.017223 0.023911 0.056192 0.002006 0.005496 0.01019 "
    "0.010796 -0.011359 0.01865 -0.00269 0.012227 0.001175 -0.021412 0.025686 0.007706 -0.017592 "
    "-0.02956 0.017618 0.006972 -0.011864 0.006659 -0.005073 0.014289 0.02544 0.044367 -0.028234 "
    "-0.040036 0.00882 -0.000346 0.001315 0.012762 0.0005 0.034079 -0.006133 -0.039144 0.021716 "
    "-0.006762 -0.006686 -0.017645 0.005284 0.028977 0.000898 -0.015984 0.01614"
)


def tiny_session(model: HTDemucsModel, scheme: torch.dtype = torch.float32) -> TorchSession:
    network = model.network.to(scheme).requires_grad_(False)
    graphs = {"core": model.graphs()[0]}
    return TorchSession(graphs, {"core": network}, {"core": "fp32"}, torch.device("cpu"))


def a_song(samples: int = 9000, name: str = "song") -> Item:
    audio = uniform(name, 2 * samples).reshape(2, samples) * np.float32(0.1)
    return Item.from_audio(name, audio, SAMPLE_RATE)


@pytest.fixture(scope="module")
def model() -> HTDemucsModel:
    return HTDemucsModel(TINY)


@pytest.fixture(scope="module")
def packed() -> dict[str, torch.Tensor]:
    """Weights under the published names."""
    network = HTDemucs(TINY)
    HTDemucsModel(TINY).generate(network)
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def separated(model: HTDemucsModel, item: Item) -> np.ndarray:
    (prediction,) = model.run(tiny_session(model), [item], Stopwatch())
    stems: np.ndarray = prediction["stems"]
    return stems


# --- the package's own answers -------------------------------------------------------------------


def test_answers_are_those_of_the_package(model: HTDemucsModel) -> None:
    sampled = separated(model, a_song())[:, :, 50::1500].reshape(-1)
    np.testing.assert_allclose(sampled, np.array(EXPECTED.split(), float), atol=2e-6)


@pytest.mark.parametrize("samples", [1, 100, 4410, 9000])
def test_answers_are_those_of_the_package_where_it_is_installed(
    model: HTDemucsModel, packed: dict[str, torch.Tensor], samples: int
) -> None:
    package = pytest.importorskip("demucs.htdemucs")
    apply_model = pytest.importorskip("demucs.apply").apply_model
    network = package.HTDemucs(**BUILT_WITH).eval()
    network.load_state_dict(packed)
    item = a_song(samples)
    with torch.inference_mode():
        expected = apply_model(network, torch.from_numpy(item.audio)[None], shifts=0, overlap=0.25)
    np.testing.assert_allclose(separated(model, item), expected[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("size", [64, 512])
def test_transforms_are_those_of_pytorch(size: int) -> None:
    audio = np.random.default_rng(0).standard_normal((3, 5 * size)).astype(np.float32)
    window = torch.hann_window(size)
    expected = torch.stft(
        torch.from_numpy(audio),
        size,
        size // 4,
        window=window,
        normalized=True,
        center=False,
        return_complex=True,
    )
    spectra = stft(audio, size)
    assert spectra.dtype == np.complex64
    np.testing.assert_allclose(spectra, expected.numpy(), atol=2e-6)
    inner = slice(size, -size)
    np.testing.assert_allclose(istft(spectra, size)[:, inner], audio[:, inner], atol=2e-6)


# --- defects that must show ----------------------------------------------------------------------


def test_defects_of_a_driver_show(model: HTDemucsModel, monkeypatch: pytest.MonkeyPatch) -> None:
    song = a_song()
    right = separated(model, song)
    found: dict[str, float] = {}

    def note(name: str, other: HTDemucsModel = model, heard: Item = song) -> None:
        found[name] = snr_db(right, separated(other, heard)[..., : right.shape[-1]])

    note("again")
    flat = HTDemucsModel(TINY)
    flat.segments = OverlapAdd(TINY.samples, flat.segments.step, np.ones(TINY.samples))
    note("no weights", flat)
    note("channels exchanged", heard=song.with_audio(song.audio[::-1].copy()))
    positions = np.arange(9000) * 44_100 / 48_000
    stretched = [np.interp(positions, np.arange(9000), one) for one in song.audio]
    note("another rate", heard=song.with_audio(np.array(stretched, np.float32)))
    features = HTDemucsModel._features

    def without_last_frame(self: HTDemucsModel, segment: np.ndarray) -> Any:
        mix, spectrum, scales = features(self, segment)
        spectrum[..., -1] = 0.0
        return mix, spectrum, scales

    monkeypatch.setattr(HTDemucsModel, "_features", without_last_frame)
    note("last frame dropped")
    assert found.pop("again") == 200.0
    assert max(found.values()) < 45.0, found
    assert len(found) == 4


def test_scales_are_those_of_the_package() -> None:
    values = np.random.default_rng(0).standard_normal((2, 500)).astype(np.float32) + 0.3
    scale = Scale.of(values)
    given = torch.from_numpy(values)
    assert scale.deviation == pytest.approx(float(given.std()), rel=1e-6)
    expected = (given - given.mean()) / (1e-5 + given.std())
    np.testing.assert_allclose(scale.removed(values), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(scale.restored(scale.removed(values)), values, atol=6e-5)
    silence = np.zeros((2, 10), np.float32)
    np.testing.assert_array_equal(Scale.of(silence).removed(silence), silence)


# --- the graph -----------------------------------------------------------------------------------


CHANNELS, LENGTH = 96, 85_995
"""What the waveform's first layer normalises over: eight million values."""


@dataclass(frozen=True)
class Exported:
    """An ONNX file, what goes into it, and what PyTorch makes of that in float32 and float64."""

    path: Path
    inputs: list[np.ndarray]
    expected: list[np.ndarray]
    exact: list[np.ndarray]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small network, and one long normalisation in both forms."""
    settings = replace(TINY, nfft=256, depth=1, dconv_depth=1, t_layers=2, samples=1000)
    model = HTDemucsModel(settings)
    (graph,) = model.graphs()

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = model.network
            self.ours, self.plain = GroupNorm(CHANNELS), torch.nn.GroupNorm(1, CHANNELS)

        def forward(self, mix: Any, spectrum: Any, values: torch.Tensor) -> Any:
            return (*self.core(mix, spectrum), self.ours(values), self.plain(values))

    torch.manual_seed(0)
    core = [torch.randn(one.shape) for one in example_tensors(graph, "b1")]
    inputs = [*core, torch.randn(1, CHANNELS, LENGTH) + 0.5]
    whole = Whole().eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("exported") / "whole.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter's own deprecations.
        program = torch.onnx.export(
            whole, tuple(inputs), opset_version=18, dynamo=True, verbose=False
        )
    assert program is not None
    program.save(str(path))
    with torch.inference_mode():
        expected = [one.numpy() for one in whole(*inputs)]
        exact = [one.numpy() for one in whole.double()(*(one.double() for one in inputs))]
    return Exported(path, [one.numpy() for one in inputs], expected, exact)


def by_onnxruntime(path: Path, feeds: list[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))


def by_openvino(path: Path, feeds: list[np.ndarray]) -> list[np.ndarray]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    answers = compiled(feeds)
    return [answers[index] for index in range(len(compiled.outputs))]


RUNTIMES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_gives_the_same_outputs(exported: Exported, runtime: str) -> None:
    pytest.importorskip(runtime)
    found = RUNTIMES[runtime](exported.path, exported.inputs)
    for ours, theirs in zip(found[:2], exported.expected[:2], strict=True):
        assert compare([theirs], None, [ours])["snr_db"] > 100
    # The plain form errs alike in both runtimes: that they agree proves nothing, float64 does.
    assert snr_db(exported.exact[2], found[2]) > 110
    assert snr_db(exported.exact[3], found[3]) < 95


def test_the_graph_has_no_operators_that_few_runtimes_have(exported: Exported) -> None:
    import onnx

    nodes = onnx.load(exported.path, load_external_data=False).graph.node
    counted = Counter(node.op_type for node in nodes)
    assert not {"ScatterND", "GatherND", "STFT", "GroupNormalization"} & set(counted)
    assert counted["InstanceNormalization"] == 1  # The plain form, beside the network.


@pytest.mark.parametrize("length", [1, 2, 336, 5375, 21_499])
def test_the_mean_in_blocks_is_the_mean(length: int) -> None:
    values = torch.randn(2, 3, length, dtype=torch.float64)
    found = mean(values)
    assert found.shape == (2, 1, 1)
    torch.testing.assert_close(found, values.mean(dim=(1, 2), keepdim=True))


def test_generated_weights_tell_inputs_and_stems_apart() -> None:
    model = HTDemucsModel(TINY)
    session = tiny_session(model)
    noise = a_song(4410, "noise")
    time = np.arange(4410) / SAMPLE_RATE
    tone = np.stack([np.sin(2 * np.pi * hertz * time) for hertz in (440, 660)]).astype(np.float32)
    silence = np.zeros((2, 4410), np.float32)
    items = [noise, *(noise.with_audio(audio) for audio in (tone, silence))]
    traces = [model.trace(session, item, {}) for item in items]
    for name in ("waves", "spectral"):
        assert traces[0][name].shape == (4410, 8)
        assert contrast_db([trace[name] for trace in traces]) > -8, name
    stems = (traces[0]["waves"] + traces[0]["spectral"]).reshape(-1, 4, 2)
    alike = np.corrcoef(stems.transpose(1, 0, 2).reshape(4, -1)) - np.eye(4)
    assert np.abs(alike).max() < 0.9, alike


def test_pieces_are_a_step_long_and_differ() -> None:
    model = HTDemucsModel(Settings())
    corpus = load_corpus().with_channels(2)
    items = model.items(corpus, CORE)
    assert not items.task
    assert len(items.numerics) == len({item.id for item in items.timed}) == 2
    for item in items.numerics:
        assert item.audio.shape == (2, 257_985)
        # What a second of a long song costs: one segment.
        assert len(model.segments.starts(item.audio.shape[-1])) == 1
    assert len(model.segments.starts(180 * SAMPLE_RATE)) == 31


# --- checkpoints ---------------------------------------------------------------------------------


def in_json(value: object) -> object:
    assert isinstance(value, Fraction)
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def described(**changes: object) -> dict[str, str]:
    """Return the metadata that tools/export_hf.py of Demucs writes."""
    settings = {**BUILT_WITH, **changes}
    kwargs = json.dumps(settings, default=in_json)
    return {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": kwargs}


def pickled(path: Path, state: dict[str, Any], **changes: object) -> Path:
    """Write what ``demucs.states.serialize_model`` gives, named after its hash as demucs does."""
    module = types.ModuleType("demucs.htdemucs")
    kind = type("HTDemucs", (), {"__module__": "demucs.htdemucs"})
    module.HTDemucs = kind  # type: ignore[attr-defined]
    held = {name: sys.modules.get(name) for name in ("demucs", "demucs.htdemucs")}
    sys.modules |= {"demucs": types.ModuleType("demucs"), "demucs.htdemucs": module}
    try:
        settings = {**BUILT_WITH, **changes.pop("settings", {})}  # type: ignore[dict-item]
        whole = {"klass": kind, "args": (), "kwargs": settings, "state": state}
        torch.save({**whole, "training_args": {"seed": 42}, **changes}, path)
    finally:
        for name, was in held.items():
            if was is None:
                del sys.modules[name]
            else:
                sys.modules[name] = was
    return path


def load(path: Path) -> HTDemucsModel:
    return htdemucs.load("htdemucs", "pretrained", str(path))


@pytest.mark.parametrize(
    ("form", "half"),
    [("folder", True), ("safetensors", False), ("th", False), ("named-th", True)],
)
def test_published_forms_are_read(
    tmp_path: Path, packed: dict[str, torch.Tensor], form: str, half: bool
) -> None:
    state = {name: one.half() if half else one for name, one in packed.items()}
    path = tmp_path / "955717e8.safetensors"
    if form in ("folder", "safetensors"):
        save_file(state, path, described())
        (tmp_path / "955717e8.json").write_text("{}", encoding="utf-8")
        (tmp_path / "htdemucs.yaml").write_text("models: ['955717e8']\n", encoding="utf-8")
    else:
        path = pickled(tmp_path / "955717e8.th", state)
        if form == "named-th":
            digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            path = path.rename(tmp_path / f"955717e8-{digits}.th")
    model = load(tmp_path if form == "folder" else path)
    assert model.settings == TINY
    expected = HTDemucs(TINY)
    fill_from_state(expected, path, state)
    for name, tensor in expected.unpack().state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    assert model.fingerprint() != HTDemucsModel(TINY).fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": [*STEMS, "piano", "guitar"]}, "separates .*piano"),
        ({"t_sparse_self_attn": True}, "t_sparse_self_attn = True"),
        ({"samplerate": 48_000}, "samplerate = 48000"),
        ({"dconv_mode": 1}, "dconv_mode = 1"),
        ({"segment": "soon"}, "does not describe a network"),
        ({"bottom_channels": 0}, "sizes that belong to no network"),
        ({"channels": 10**12}, "sizes that belong to no network"),
        ({"depth": 4}, "sizes that belong to no network"),
        ({"norm_starts": 1}, "normalisations between"),
        ({"channels": 16}, "does not hold the weights of its model"),
    ],
)
def test_other_networks_are_refused(
    tmp_path: Path, packed: dict[str, torch.Tensor], changes: dict[str, object], message: str
) -> None:
    save_file(packed, tmp_path / "model.safetensors", described(**changes))
    with pytest.raises(CheckpointError, match=message) as refused:
        _ = load(tmp_path).network
    assert "Name 955717e8" in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "is damaged"),
        ("anonymous", "does not say which class"),
        ("other", "holds a demucs.hdemucs.HDemucs"),
        ("bag", "holds 2 models"),
        ("empty", "is no checkpoint of Demucs"),
        ("nowhere", "check the path"),
        ("quantised", "DiffQ"),
        ("garbled", "does not say how its model is built"),
        ("short", "1 missing"),
        ("nan", "NaN or infinite"),
        ("cut pickle", "without running code"),
        ("renamed pickle", "its SHA-256 begins with"),
        ("quantised pickle", "DiffQ"),
        ("code", "without running code"),
    ],
)
def test_damaged_checkpoints_are_refused(
    tmp_path: Path, packed: dict[str, torch.Tensor], damage: str, message: str
) -> None:
    state, said, path = dict(packed), described(), tmp_path / "model.safetensors"
    match damage:
        case "anonymous":
            said = {"format": "pt"}
        case "other":
            said["klass"] = "demucs.hdemucs.HDemucs"
        case "quantised":
            said["structure"] = "{}"
        case "garbled":
            said["kwargs"] = "{"
        case "short":
            del state["encoder.0.conv.bias"]
        case "nan":
            state["encoder.0.conv.bias"] = state["encoder.0.conv.bias"] * float("nan")
    if damage == "code":
        pickled(tmp_path / "model.th", state, training_args=Path("/"))
    elif damage.endswith("pickle"):
        path = tmp_path / "model-01234567.th" if "renamed" in damage else tmp_path / "model.th"
        pickled(path, {"__quantized": True} if "quantised" in damage else state)
    elif damage not in ("empty", "nowhere"):
        save_file(state, path, said)
    if damage == "bag":
        save_file(state, tmp_path / "another.safetensors", said)
    if damage.startswith("cut"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=message):
        _ = load(tmp_path / "not here" if damage == "nowhere" else tmp_path).network


def test_what_a_message_says_converts_a_checkpoint(
    tmp_path: Path, packed: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that mends a pickle with more in it than this reader takes."""
    monkeypatch.chdir(tmp_path)
    state = {name: tensor.half() for name, tensor in packed.items()}
    path = pickled(tmp_path / "mine.th", state, training_args=Path("/"))
    with pytest.raises(CheckpointError) as refused:
        load(path)
    command = re.search(r'python -c "(.*)"$', str(refused.value))
    assert command
    module = types.ModuleType("demucs.htdemucs")
    module.HTDemucs = type("HTDemucs", (), {"__module__": "demucs.htdemucs"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "demucs", types.ModuleType("demucs"))
    monkeypatch.setitem(sys.modules, "demucs.htdemucs", module)
    exec(command[1], {})  # noqa: S102 (it is this project's own text)
    model = load(tmp_path / "htdemucs.safetensors")
    assert model.settings == TINY
    for name, one in HTDemucsModel(TINY).network.state_dict().items():
        assert torch.allclose(one.half().float(), model.network.state_dict()[name]), name


def test_published_settings_give_the_published_size() -> None:
    assert sum(one.numel() for one in HTDemucs(Settings()).parameters()) == 41_984_456
    assert (Settings().bins, Settings().frames) == (2048, 336)
    assert replace(TINY, samples=1).frames == 1


@pytest.mark.parametrize(
    ("target", "rtf", "level"),
    [
        ("mps-torch", 0.027, "strict"),
        ("mps-torch", 0.029, "relaxed"),
        ("coreml-gpu", 0.029, "relaxed"),
        ("coreml-gpu", 1.1, "failed"),
        ("cpu-torch", 0.4, "strict"),
    ],
)
def test_the_published_time_holds_where_it_was_given(target: str, rtf: float, level: str) -> None:
    """Three minutes in less than five seconds on Apple silicon: 5 / 180."""
    recipe = "fp16" if target.startswith("coreml") else "fp32"
    facts = results.facts_of(catalog.load().case(f"htdemucs@seeded/{target}/{recipe}"))
    limits = thresholds.load([thresholds.default_path()])
    assert limits.judge("latency.task", facts, {"rtf_upper": rtf})[0] == level
