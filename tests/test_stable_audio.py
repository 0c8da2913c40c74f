"""Stable Audio Open beside diffusers' own pipeline: driver, saved folders, and planted defects."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damages import setting, without
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from compat import catalog
from compat.build.schemes import float_module
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.profile import FULL, QUICK
from compat.contract.runtime import Probe
from compat.contract.session import Session
from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load as load_corpus
from compat.metrics.numerics import blind_faults, compare, contrast_db
from compat.models import stable_audio
from compat.models.parts import diffusion
from compat.models.stable_audio import COMPONENTS, GUIDANCE, StableAudioModel
from compat.models.tasks.generation import AUDIO, asked
from compat.run import need

diffusers = pytest.importorskip("diffusers")

RATE, HOP, FRAMES = 44_100, 4, 32
SECONDS = 0.0029
"""A latent of 32 frames of four samples."""
STEPS = {SECONDS: 4, 2 * SECONDS: 6}
SMALL: dict[str, dict[str, Any]] = {
    "text_encoder": {
        **COMPONENTS["text_encoder"].settings,
        "vocab_size": 120,
        "d_model": 24,
        "d_kv": 8,
        "d_ff": 32,
        "num_heads": 3,
        "num_layers": 2,
    },
    "projection_model": {
        "text_encoder_dim": 24,
        "conditioning_dim": 32,
        "min_value": 0,
        "max_value": 0.01,
    },
    "transformer": {
        **COMPONENTS["transformer"].settings,
        "sample_size": FRAMES,
        "in_channels": 8,
        "out_channels": 8,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "num_key_value_attention_heads": 2,
        "cross_attention_dim": 32,
        "cross_attention_input_dim": 32,
        "global_states_input_dim": 64,
        "time_proj_dim": 16,
    },
    "vae": {
        **COMPONENTS["vae"].settings,
        "encoder_hidden_size": 8,
        "decoder_channels": 8,
        "decoder_input_channels": 8,
        "downsampling_ratios": [2, 2],
        "channel_multiples": [1, 2],
    },
    "scheduler": dict(COMPONENTS["scheduler"].settings),
}
"""The same architecture."""
VARIANT = "stable-audio-open-1.0"


@pytest.fixture(scope="module")
def model() -> StableAudioModel:
    longer = {**SMALL["transformer"], "sample_size": 2 * FRAMES}
    return StableAudioModel({**SMALL, "transformer": longer}, steps=STEPS)


def session_of(model: StableAudioModel) -> TorchSession:
    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {name: float_module(graph) for name, graph in graphs.items()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


@pytest.fixture(scope="module")
def session(model: StableAudioModel) -> TorchSession:
    return session_of(model)


def prompt(text: str, seed: int = 0, seconds: float = SECONDS) -> Item:
    return asked(text, text, seed, seconds, RATE)


def answer(model: StableAudioModel, session: Session, item: Item) -> Prediction:
    stopwatch = Stopwatch()
    (prediction,) = model.run(session, [item], stopwatch)
    steps = len(prediction[diffusion.LATENTS])
    assert stopwatch.marks["step"] == pytest.approx(stopwatch.stages["denoiser"] / steps)
    return prediction


# --- beside the library --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Diffusers makes its autoencoder by PyTorch's old weight normalisation.
        warnings.simplefilter("ignore", FutureWarning)
        yield


def save(folder: Path) -> Any:
    """Save a small pipeline as the published one is, and return it."""
    torch.manual_seed(0)
    text = T5EncoderModel(T5Config(**SMALL["text_encoder"])).eval()
    projection = diffusers.StableAudioProjectionModel(**SMALL["projection_model"]).eval()
    transformer = diffusers.StableAudioDiTModel(**SMALL["transformer"]).eval()
    vae = diffusers.AutoencoderOobleck(**SMALL["vae"]).eval()
    for network, name in (
        (text, "text_encoder"),
        (projection, "projection_model"),
        (transformer, "transformer"),
    ):
        generator.seed(network, generator.gains(COMPONENTS[name].gains))
    words = ["<pad>", "</s>", "<unk>", "▁rain", "▁on", "▁a", "▁roof", "▁wind", "▁", "s"]
    tokenizer = T5Tokenizer(
        vocab=[(word, -float(number)) for number, word in enumerate(words)], extra_ids=0
    )
    tokenizer.model_max_length = stable_audio.TOKENS
    scheduler = diffusers.CosineDPMSolverMultistepScheduler(**SMALL["scheduler"])
    pipeline = diffusers.StableAudioPipeline(
        vae, text, projection, tokenizer, transformer, scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    pytest.importorskip("torchsde")
    folder = tmp_path_factory.mktemp("stable-audio") / "checkpoint"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return folder, save(folder)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StableAudioModel.__init__, "__defaults__", (None, None, STEPS))


def open_folder(folder: Path) -> StableAudioModel:
    return stable_audio.load(VARIANT, "pretrained", str(folder))


def test_the_sound_is_that_of_the_librarys_pipeline(
    saved: tuple[Path, Any], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same noise: tokens, text, seconds, steps with guidance and fresh noise, decoder."""
    from diffusers.schedulers import scheduling_cosine_dpmsolver_multistep as scheduling

    folder, pipeline = saved
    model = open_folder(folder)
    item = prompt("rain on a roof", 3)
    noises = torch.from_numpy(model.noise(item))
    assert noises.shape == (5, 8, FRAMES)
    drawn = iter(noises[1:, None])
    monkeypatch.setattr(
        scheduling, "BrownianTreeNoiseSampler", lambda *_, **__: lambda *_: next(drawn)
    )
    expected = pipeline(
        "rain on a roof",
        audio_end_in_s=SECONDS,
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        latents=noises[:1],
        output_type="np",
    ).audios[0]
    found = answer(model, session_of(model), item)[AUDIO]
    assert found.shape == (2, 128) and expected.shape == (2, 127)
    np.testing.assert_allclose(found[:, :127], expected, atol=1e-4)
    assert np.abs(expected).max() > 1e-2
    assert model.fingerprint() == open_folder(folder).fingerprint()


def test_folded_kernels_compute_the_same() -> None:
    vae = diffusers.AutoencoderOobleck(**SMALL["vae"]).eval()
    latent = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = vae.decoder(latent).numpy()
    stable_audio.fold(vae)
    with torch.inference_mode():
        np.testing.assert_allclose(vae.decoder(latent).numpy(), expected, atol=1e-6)
    assert not [name for name, _ in vae.named_parameters() if "weight_g" in name]


# --- graphs and driver ---------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "millions"), [(VARIANT, 1056.9), ("2-layers", 96.2)])
def test_published_sizes(variant: str, millions: float) -> None:
    """A second is a latent of 64 by 22; parameters as published, none of which is made."""
    name = variant if variant == VARIANT else stable_audio.SHALLOW
    model = stable_audio.load(name, "seeded", "")
    graphs = {graph.name: graph for graph in model.graphs()}
    assert graphs["denoiser"].examples("1s")["latent"] == ((1, 64, 22), "float32")
    assert graphs["decoder"].examples("47s")["latent"] == ((1, 64, 1013), "float32")
    assert graphs["denoiser"].examples("1s")["text"] == ((2, 130, 768), "float32")
    with torch.device("meta"):
        network = diffusers.StableAudioDiTModel(**model.settings["transformer"])
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.06)


def test_what_does_not_fit_is_known_before_it_is_loaded() -> None:
    found = catalog.load()
    whole = found.case(f"{VARIANT}@seeded/openvino-cpu/fp32")
    shallow = found.case(f"{stable_audio.SHALLOW}@seeded/openvino-cpu/fp32")
    runtime, probe = found.runtime("openvino"), Probe("here")
    said = need.lacking(whole, runtime, probe, 24 * 10**9)
    assert said == "needs about 27.5 GB of memory, and 24.0 GB are free"
    assert not need.lacking(shallow, runtime, probe, 24 * 10**9)
    assert not shallow.variant.published


def test_sizes_that_nobody_published_say_so() -> None:
    """And what is measured of them without a wish has every graph of the whole."""
    for variant in stable_audio.FAMILY.variants:
        assert variant.published == (variant.name == VARIANT)
    graphs = [
        [(graph.name, graph.outputs, tuple(graph.inputs), tuple(graph.points)) for graph in found]
        for found in (
            stable_audio.load(variant.name, "seeded", "").graphs()
            for variant in stable_audio.FAMILY.variants
        )
    ]
    assert graphs[0] == graphs[1] == graphs[2]


def test_items_are_prompts_of_the_lengths_that_graphs_have(model: StableAudioModel) -> None:
    corpus = load_corpus()
    chosen = model.items(corpus, QUICK)
    assert not chosen.task and len(chosen.numerics) > 1  # Generated weights: nothing is scored.
    assert {item.seconds for item in chosen.timed} == {SECONDS}
    assert {item.seconds for item in model.items(corpus, FULL).timed} == {2 * SECONDS}


def test_a_longer_sound_has_its_own_point_and_steps(
    model: StableAudioModel, session: Session
) -> None:
    for seconds, frames, steps in ((0.001, 32, 4), (SECONDS, 32, 4), (2 * SECONDS, 64, 6)):
        found = answer(model, session, prompt("wind", 1, seconds))
        assert found[AUDIO].shape == (2, round(seconds * RATE))
        assert found[diffusion.LATENTS].shape == (steps, 8, frames)


def test_prompt_seed_step_and_length_are_told_apart(
    model: StableAudioModel, session: Session
) -> None:
    """By 20 dB more than what float32 is allowed to err, 80 dB."""
    rain, wind, again = prompt("rain on a roof"), prompt("wind"), prompt("rain on a roof", 1)
    sounds = [answer(model, session, item)[AUDIO] for item in (rain, wind, again)]
    assert contrast_db(sounds) > -60
    assert contrast_db([sounds[0][:1], sounds[0][1:]]) > -60
    schedule = model.schedules[SECONDS]
    latents = np.repeat(model.noise(rain)[:1], schedule.steps, axis=0)
    told = [
        diffusion.predictions(session, "denoiser", "0.0029s", schedule, latents, text)
        for text in (model.read(session, rain), model.read(session, prompt("rain on a roof")))
    ]
    np.testing.assert_array_equal(*told)
    assert contrast_db(list(told[0])) > -60
    longer = model.read(session, prompt("rain on a roof", 0, 40.0))
    other = diffusion.predictions(session, "denoiser", "0.0029s", schedule, latents, longer)
    assert contrast_db([told[0], other]) > -60


# --- planted defects -----------------------------------------------------------------------------


class Broken(TorchSession):
    """Runs graphs as another does, but for what is done to one input of a graph, or an output."""

    def __init__(self, other: TorchSession, graph: str, name: str) -> None:
        super().__init__(other.graphs, other.modules, other.schemes, other.device)
        self.broken = graph, name

    def execute(self, graph: str, point: str, inputs: Any) -> Any:
        name = self.broken[1] if graph == self.broken[0] else ""
        if name in inputs:
            inputs = {**inputs, name: torch.zeros_like(inputs[name])}
        outputs = super().execute(graph, point, inputs)
        if name == "one channel for both":
            return (outputs[0][:, :1].repeat(1, 2, 1),)
        return outputs


Traces = tuple[list[Item], list[Prediction], list[dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def traces(model: StableAudioModel, session: TorchSession) -> Traces:
    items = [prompt("rain on a roof"), prompt("wind", 1)]
    guides = [answer(model, session, item) for item in items]
    expected = [model.trace(session, *pair) for pair in zip(items, guides, strict=True)]
    return items, guides, expected


@pytest.mark.parametrize(
    ("graph", "name", "wrong"),
    [
        ("text", "ids", "text"),
        ("text", "mask", "text"),
        ("text", "seconds", "text"),
        ("denoiser", "text", "prediction"),
        ("denoiser", "duration", "prediction"),
        ("denoiser", "latent", "prediction"),
        ("denoiser", "time", "prediction"),
        ("decoder", "latent", "left"),
        ("decoder", "one channel for both", "right"),
    ],
)
def test_broken_graphs_are_noticed(
    model: StableAudioModel,
    session: TorchSession,
    traces: Traces,
    graph: str,
    name: str,
    wrong: str,
) -> None:
    items, guides, expected = traces
    broken = Broken(session, graph, name)
    found = [model.trace(broken, *pair) for pair in zip(items, guides, strict=True)]
    ours, theirs = ([trace[wrong] for trace in traces] for traces in (found, expected))
    assert blind_faults(ours, theirs) or compare(theirs, None, ours)["snr_db"] < 60
    if wrong == "right":
        left = [[trace["left"] for trace in traces] for traces in (expected, found)]
        assert compare(left[0], None, left[1])["snr_db"] > 100  # The other channel is right.


# --- damaged folders -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("model_index.json"), r"has no model_index\.json"),
        (without("projection_model"), "has no folder projection_model"),
        (without("transformer/diffusion_pytorch_model.safetensors"), "no weights"),
        (setting("vae/config.json", 16_000, "sampling_rate"), "sampling_rate 16000; only 44100"),
        (
            setting("scheduler/scheduler_config.json", "EDMEulerScheduler", "_class_name"),
            "describes a EDMEulerScheduler; only CosineDPM",
        ),
        (
            setting("scheduler/scheduler_config.json", "heun", "solver_type"),
            "has solver_type 'heun'; only 'midpoint'",
        ),
        (
            setting("projection_model/config.json", 20, "text_encoder_dim"),
            "gives 24 values, and the projection takes 20",
        ),
        (setting("text_encoder/config.json", 8, "vocab_size"), "ids up to 9, and the network 8"),
        (without("tokenizer"), "has no tokenizer: neither tokenizer.json nor spiece.model"),
    ],
)
def test_damaged_folders_are_refused(
    saved: tuple[Path, Any], tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    folder = shutil.copytree(saved[0], tmp_path / "checkpoint")
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        open_folder(folder)
