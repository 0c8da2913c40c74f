"""AudioLDM beside diffusers' own pipeline: driver, saved folders, and planted defects."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damages import cut_short, setting, without
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from compat.build.schemes import float_module
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.profile import FULL, QUICK
from compat.contract.session import Session
from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import load as load_corpus
from compat.metrics.numerics import blind_faults, compare, contrast_db
from compat.models import audioldm
from compat.models.audioldm import COMPONENTS, GUIDANCE, STEPS, AudioLDMModel
from compat.models.parts import diffusion
from compat.models.parts.noise import normal
from compat.models.tasks.generation import AUDIO, AudioGeneration, asked

diffusers = pytest.importorskip("diffusers")

RATE = 16_000
SMALL: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
        "pad_token_id": 1,
        "projection_dim": 16,
    },
    "unet": {
        **COMPONENTS["unet"].settings,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [8, 16],
        "cross_attention_dim": [8, 16],
        "projection_class_embeddings_input_dim": 16,
        "attention_head_dim": 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 8,
    },
    "vae": {
        **COMPONENTS["vae"].settings,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [8, 16],
        "norm_num_groups": 4,
        "latent_channels": 4,
        "layers_per_block": 1,
    },
    "vocoder": {
        **COMPONENTS["vocoder"].settings,
        "model_in_dim": 8,
        "upsample_initial_channel": 16,
        "upsample_rates": [5, 4],
        "upsample_kernel_sizes": [9, 8],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
    },
    "scheduler": dict(COMPONENTS["scheduler"].settings),
}
"""The same architecture; a latent is two frames of twenty samples."""
LENGTHS = (0.02, 0.04)
SECONDS = LENGTHS[0]


@pytest.fixture(scope="module")
def model() -> AudioLDMModel:
    return AudioLDMModel(SMALL, lengths=LENGTHS)


def session_of(model: AudioLDMModel) -> Session:
    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {name: float_module(graph) for name, graph in graphs.items()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


@pytest.fixture(scope="module")
def session(model: AudioLDMModel) -> Session:
    return session_of(model)


def prompt(text: str, seed: int = 0, seconds: float = SECONDS) -> Item:
    return asked(text, text, seed, seconds, RATE)


def answer(model: AudioLDMModel, session: Session, item: Item) -> Prediction:
    stopwatch = Stopwatch()
    (prediction,) = model.run(session, [item], stopwatch)
    steps = len(prediction[diffusion.LATENTS])
    assert stopwatch.marks["step"] == pytest.approx(stopwatch.stages["denoiser"] / steps)
    return prediction


# --- beside the library --------------------------------------------------------------------------


def save(folder: Path) -> Any:
    """Save a small pipeline as published ones are, and return it."""
    text = ClapTextModelWithProjection(ClapTextConfig(**SMALL["text_encoder"]))
    unet = diffusers.UNet2DConditionModel(**SMALL["unet"])
    vae = diffusers.AutoencoderKL(**SMALL["vae"])
    vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**SMALL["vocoder"]))
    for network, name in ((text, "text_encoder"), (unet, "unet"), (vae, "vae")):
        generator.seed(network, generator.gains(COMPONENTS[name].gains))
    generator.seed(vocoder, generator.gains(COMPONENTS["vocoder"].gains))
    words = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words.train_from_iterator(["rain on a roof", "a slow waltz"], 300, special_tokens=special)
    (folder / "tokenizer").mkdir(parents=True)
    words.save_model(str(folder / "tokenizer"))
    tokenizer = RobertaTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, **SMALL["scheduler"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That the pipeline is no longer developed.
        pipeline = diffusers.AudioLDMPipeline(
            vae, text.eval(), tokenizer, unet.eval(), scheduler, vocoder.eval()
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(folder)
    return pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("audioldm") / "checkpoint"
    return folder, save(folder)


def open_folder(folder: Path) -> AudioLDMModel:
    return audioldm.load("audioldm-s-full-v2", "pretrained", str(folder))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(AudioLDMModel.__init__, "__defaults__", (None, None, LENGTHS))
    return


def test_the_sound_is_that_of_the_librarys_pipeline(saved: tuple[Path, Any], short: None) -> None:
    """From the same noise: tokens, text, ten steps with guidance, spectrogram and vocoder."""
    folder, pipeline = saved
    model = open_folder(folder)
    item = prompt("rain on a roof", 3)
    latents = torch.from_numpy(model.noise(item))
    assert latents.shape == (1, 4, 8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pipeline("rain on a roof", SECONDS, STEPS, GUIDANCE, latents=latents).audios[0]
    found = answer(model, session_of(model), item)
    assert found[AUDIO].shape == (round(SECONDS * RATE),)
    np.testing.assert_allclose(found[AUDIO], expected, atol=2e-5)
    assert np.abs(expected).max() > 1e-2
    assert found[diffusion.LATENTS].shape == (STEPS, 4, 8, 4)
    assert model.fingerprint() == open_folder(folder).fingerprint()


def test_generated_weights_have_the_names_of_saved_ones(
    model: AudioLDMModel, session: Session, saved: tuple[Path, Any], short: None
) -> None:
    """The saved pipeline was filled by the library's names, and makes the same of a latent."""
    latent = normal(5, (1, 4, 8, 4))
    sounds = []
    for one in (session, session_of(open_folder(saved[0]))):
        mel = one.run("decoder", {"latent": latent}, "0.02s")
        sounds.append(one.run("vocoder", mel, "0.02s")["audio"].numpy().copy())
    np.testing.assert_array_equal(*sounds)


# --- graphs and driver ---------------------------------------------------------------------------


def test_published_sizes() -> None:
    """2.56 s are a latent of 64 by 16, and ten steps begin at 901; parameters as published."""
    model = audioldm.load("audioldm-s-full-v2", "seeded", "")
    graphs = {graph.name: graph for graph in model.graphs()}
    assert graphs["denoiser"].examples("2.56s")["latent"] == ((1, 8, 64, 16), "float32")
    assert graphs["vocoder"].examples("10.24s")["mel"] == ((1, 1024, 64), "float32")
    assert model.schedule.times[:, 0].tolist() == list(range(901, 0, -100))
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**COMPONENTS["unet"].settings)
        vae = diffusers.AutoencoderKL(**COMPONENTS["vae"].settings)
        vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**COMPONENTS["vocoder"].settings))
    counts = [sum(p.numel() for p in one.parameters()) / 1e6 for one in (unet, vae, vocoder)]
    np.testing.assert_allclose(counts, [185.0, 55.4, 55.3], atol=0.06)


def test_the_small_size_has_the_graphs_of_the_published_one() -> None:
    found = [audioldm.load(one.name, "seeded", "") for one in audioldm.FAMILY.variants]
    graphs = [
        [(graph.name, graph.outputs, tuple(graph.inputs), len(graph.points)) for graph in graphs]
        for graphs in (model.graphs() for model in found)
    ]
    assert graphs[0] == graphs[1]
    assert max(found[1].schedules) < max(found[0].schedules)
    assert [one.published for one in audioldm.FAMILY.variants] == [True, False]


def test_items_are_prompts_of_the_lengths_that_graphs_have(model: AudioLDMModel) -> None:
    corpus = load_corpus()
    chosen = model.items(corpus, QUICK)
    assert not chosen.task and len(chosen.numerics) > 1  # Generated weights: nothing is scored.
    assert {item.seconds for item in chosen.timed} == {LENGTHS[0]}
    assert {item.seconds for item in model.items(corpus, FULL).timed} == {LENGTHS[1]}
    assert isinstance(model.task, AudioGeneration)


def test_a_longer_sound_has_its_own_point(model: AudioLDMModel, session: Session) -> None:
    for seconds, frames in ((0.01, 8), (0.02, 8), (0.03, 16), (0.04, 16)):
        found = answer(model, session, prompt("wind", 1, seconds))
        assert found[AUDIO].shape == (round(seconds * RATE),)
        assert found[diffusion.LATENTS].shape == (STEPS, 4, frames, 4)


def test_what_the_reference_made_is_predicted_again(model: AudioLDMModel, session: Session) -> None:
    """Each step from the reference's latent: errors of one step are no error of the next."""
    item = prompt("wind", 1)
    guide = answer(model, session, item)
    trace = model.trace(session, item, guide)
    latents = np.concatenate((model.noise(item), guide[diffusion.LATENTS]))
    factors = model.schedule.factors[:, :, None, None, None]
    following = factors[:, 0] * latents[:-1] + factors[:, 1] * trace["prediction"]
    np.testing.assert_allclose(following, latents[1:], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(trace["audio"][: guide[AUDIO].size], guide[AUDIO])
    assert trace["mel"].shape == (16, 8) and trace["text"].shape == (1, 16)


def test_prompt_seed_and_step_are_told_apart(model: AudioLDMModel, session: Session) -> None:
    """By 20 dB more than what float32 is allowed to err, 80 dB."""
    rain, wind, again = prompt("rain on a roof"), prompt("wind"), prompt("rain on a roof", 1)
    sounds = [answer(model, session, item)[AUDIO] for item in (rain, wind, again)]
    assert contrast_db(sounds) > -60
    latents = np.repeat(normal(9, (1, 4, 8, 4)), STEPS, axis=0)
    text = model.read(session, rain)
    steps = diffusion.predictions(session, "denoiser", "0.02s", model.schedule, latents, text)
    assert contrast_db(list(steps)) > -60


def test_uneven_ends_are_cut_off_behind_a_transposed_convolution() -> None:
    """Same numbers under the same names, and no padding in the convolution; others stay."""
    uneven = torch.nn.ConvTranspose1d(3, 2, 16, 5, padding=5)
    even = torch.nn.ConvTranspose1d(2, 2, 4, 2, padding=1)
    layers = torch.nn.ModuleList([uneven, even])
    names, heard = list(layers.state_dict()), torch.randn(1, 3, 8)
    expected = uneven(heard)
    audioldm.trim(layers)
    assert layers[0].padding == (0,) and layers[1] is even
    assert list(layers.state_dict()) == names
    torch.testing.assert_close(layers[0](heard), expected)


# --- planted defects -----------------------------------------------------------------------------


class Deaf(TorchSession):
    """Runs graphs as another does, but for one input that it does not hear."""

    def __init__(self, other: Any, graph: str, name: str) -> None:
        super().__init__(other.graphs, other.modules, other.schemes, other.device)
        self.deaf = graph, name

    def execute(self, graph: str, point: str, inputs: Any) -> Any:
        if graph == self.deaf[0]:
            inputs = {**inputs, self.deaf[1]: torch.zeros_like(inputs[self.deaf[1]])}
        return super().execute(graph, point, inputs)


Traces = tuple[list[Item], list[Prediction], list[dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def traces(model: AudioLDMModel, session: Session) -> Traces:
    items = [prompt("rain on a roof"), prompt("wind", 1)]
    guides = [answer(model, session, item) for item in items]
    expected = [model.trace(session, *pair) for pair in zip(items, guides, strict=True)]
    return items, guides, expected


@pytest.mark.parametrize(
    ("graph", "name", "wrong"),
    [
        ("text", "ids", "text"),
        ("denoiser", "text", "prediction"),
        ("denoiser", "latent", "prediction"),
        ("denoiser", "time", "prediction"),
        ("decoder", "latent", "mel"),
        ("vocoder", "mel", "audio"),
    ],
)
def test_deaf_graphs_are_noticed(
    model: AudioLDMModel, session: Session, traces: Traces, graph: str, name: str, wrong: str
) -> None:
    items, guides, expected = traces
    deaf = Deaf(session, graph, name)
    found = [model.trace(deaf, *pair) for pair in zip(items, guides, strict=True)]
    ours, theirs = ([trace[wrong] for trace in traces] for traces in (found, expected))
    assert blind_faults(ours, theirs) or compare(theirs, None, ours)["snr_db"] < 60


# --- damaged folders -----------------------------------------------------------------------------


def renamed(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))


def pickled(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("model_index.json"), r"has no model_index\.json.*of the whole pipeline"),
        (
            setting("model_index.json", "AudioLDM2Pipeline", "_class_name"),
            "describes a AudioLDM2Pipeline, not a AudioLDMPipeline",
        ),
        (without("unet"), "has no folder unet, which holds a UNet2DConditionModel"),
        (without("unet/config.json"), r"cannot read .*unet.config\.json|has no config\.json"),
        (without(WEIGHTS), r"no weights .*Copy diffusion_pytorch_model\.safetensors"),
        (renamed, r"neither diffusion_pytorch_model\.safetensors nor .*fp16"),
        (pickled, "a pickle, which can run code"),
        (cut_short(WEIGHTS), "is damaged"),
        (cut_short("vocoder/model.safetensors"), "is damaged"),
        (
            setting("vae/config.json", "AutoencoderOobleck", "_class_name"),
            "describes a AutoencoderOobleck; only AutoencoderKL",
        ),
        (
            setting("scheduler/scheduler_config.json", "PNDMScheduler", "_class_name"),
            "describes a PNDMScheduler; only DDIMScheduler",
        ),
        (
            setting("scheduler/scheduler_config.json", "v_prediction", "prediction_type"),
            "has prediction_type 'v_prediction'; only 'epsilon'",
        ),
        (
            setting("unet/config.json", 12, "projection_class_embeddings_input_dim"),
            "gives 16 values, and the UNet takes 12",
        ),
        (setting("text_encoder/config.json", 90, "vocab_size"), "ids up to .* 90 tokens"),
        (
            setting("vocoder/config.json", 48_000, "sampling_rate"),
            "sampling_rate 48000; only 16000",
        ),
        (without("tokenizer"), "has no tokenizer: neither tokenizer.json"),
    ],
)
def test_damaged_folders_are_refused(
    saved: tuple[Path, Any],
    tmp_path: Path,
    change: Callable[[Path], object],
    said: str,
) -> None:
    folder = shutil.copytree(saved[0], tmp_path / "checkpoint")
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        open_folder(folder)


def test_missing_tensors_are_named(saved: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(saved[0], tmp_path / "checkpoint")
    stored = load_file(folder / WEIGHTS)
    save_file({n: t for n, t in stored.items() if "class_embedding" not in n}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"class_embedding\.\w+ should have shape"):
        open_folder(folder).network("unet")


def test_another_weight_is_another_model(saved: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(saved[0], tmp_path / "checkpoint")
    stored = load_file(folder / WEIGHTS)
    stored["conv_out.bias"] += 1
    save_file(stored, folder / WEIGHTS)
    assert open_folder(folder).fingerprint() != open_folder(saved[0]).fingerprint()
