"""AudioLDM: sounds from a sentence, by diffusion of a latent spectrogram.

Source: Liu et al., "AudioLDM: Text-to-Audio Generation with Latent Diffusion Models", ICML 2023.
The networks are those of diffusers and transformers, so that saved pipelines load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.session import Handle, Session
from compat.inputs.checkpoints import CheckpointError
from compat.models.parts import diffusion
from compat.models.parts.clap_encoders import TOKENS, text_module
from compat.models.parts.noise import normal
from compat.models.parts.pipeline import Component, Settings, generated, read_pipeline
from compat.models.parts.sampled import SampledAudio
from compat.models.parts.sentences import Tokens, hashed_words, read_tokenizer
from compat.models.tasks.generation import AUDIO, PROMPT, AudioGeneration, seed_of

if TYPE_CHECKING:
    import torch

WHOLE, NANO = "audioldm-s-full-v2", "audioldm-nano"
FAMILY = Family(
    name="audioldm",
    task="audio-generation",
    row="Audio generation",
    headline=WHOLE,
    variants=(
        Variant(
            WHOLE,
            ("pretrained", "seeded"),
            # With generated weights a case takes minutes and tests only numerics.
            core="pretrained",
            parameters=421.0,
            checkpoint="cvssp/audioldm-s-full-v2",
        ),
        Variant(NANO, ("seeded",), published=False, core=True, parameters=15.1),
    ),
)
KIND = "AudioLDMPipeline"

COMPONENTS: Mapping[str, Component] = {
    "text_encoder": Component(
        "transformers",
        "ClapTextModelWithProjection",
        {"vocab_size": 50_265, "pad_token_id": 1, "projection_dim": 512},
        # The factors are those of CLAP: sharper attention would multiply rounding errors from layer
        # to layer.
        {"query": 1.5, "key": 1.5},
        needless=("position_ids", "token_type_ids"),
    ),
    "unet": Component(
        "diffusers",
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "in_channels": 8,
            "out_channels": 8,
            "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 3],
            "up_block_types": [*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"],
            "block_out_channels": [128, 256, 384, 640],
            "cross_attention_dim": [128, 256, 384, 640],
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": 512,
            "class_embeddings_concat": True,
        },
        # Generated weights remove no noise: latents grow to forty times the noise. Without these
        # factors, neither a step's time nor the sentence, a vector of length one, would have a
        # visible effect beside them.
        {"conv_in": 0.1, "time_embedding": 2.0, "class_embedding": 40.0},
        {"class_embed_type": "simple_projection", "class_embeddings_concat": True},
    ),
    "vae": Component(
        "diffusers",
        "AutoencoderKL",
        {
            "sample_size": 512,
            "in_channels": 1,
            "out_channels": 1,
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "block_out_channels": [128, 256, 512],
            "latent_channels": 8,
            "layers_per_block": 2,
            "scaling_factor": 0.9227914214134216,
        },
        fixed={"out_channels": 1},
    ),
    "vocoder": Component(
        "transformers",
        "SpeechT5HifiGan",
        {
            "model_in_dim": 64,
            "sampling_rate": 16_000,
            "upsample_initial_channel": 1024,
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "normalize_before": False,
        },
        # With louder branches, the final tanh would be near one almost everywhere.
        {"resblocks": 0.7},
        {"sampling_rate": 16_000},
    ),
    "scheduler": Component(
        "diffusers",
        "DDIMScheduler",
        {
            "num_train_timesteps": 1000,
            "beta_start": 0.0015,
            "beta_end": 0.0195,
            "steps_offset": 1,
            "set_alpha_to_one": False,
        },
        fixed={
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "prediction_type": "epsilon",
            "rescale_betas_zero_snr": False,
            "thresholding": False,
            "timestep_spacing": "leading",
            "trained_betas": None,
        },
    ),
}
DEFAULTS: Mapping[str, Settings] = {
    "text_encoder": {"vocab_size": 50_265, "pad_token_id": 1, "projection_dim": 512},
    "vocoder": {"model_in_dim": 80, "sampling_rate": 16_000, "upsample_rates": [4, 4, 4, 4]},
}
"""The library's defaults for settings that a checkpoint does not name."""
SMALL: Mapping[str, Settings] = {
    "text_encoder": {
        "vocab_size": 5_000,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "projection_dim": 128,
    },
    "unet": {
        "block_out_channels": [32, 64, 96, 160],
        "cross_attention_dim": [32, 64, 96, 160],
        "projection_class_embeddings_input_dim": 128,
        "layers_per_block": 1,
    },
    "vae": {"block_out_channels": [32, 64, 128], "layers_per_block": 1},
    "vocoder": {"upsample_initial_channel": 256},
}
"""Settings of :data:`NANO` that differ from the published ones. It has every operator, a quarter of
the width, half the layers of each block, and a short sentence encoder. It is for pages and
emulators, which take seconds for the work that a processor does in milliseconds."""

STEPS, GUIDANCE = 10, 2.5
"""Defaults of the library's pipeline."""
LENGTHS = (2.56, 10.24)
"""Seconds that graphs are compiled for: a short sound, and what the model was trained on."""
BRIEF_LENGTHS = (0.64, 2.56)
"""Seconds that the graphs of :data:`NANO` are compiled for. The shorter one has the shortest latent
that every level of the UNet can halve."""


def load(variant: str, weights: str, checkpoint: str) -> AudioLDMModel:
    """Load the host side; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the checkpoint is another pipeline, or lacks files.
    """
    if variant == NANO:
        return AudioLDMModel(generated(COMPONENTS, SMALL), lengths=BRIEF_LENGTHS)
    if weights == "seeded":
        return AudioLDMModel(generated(COMPONENTS, {}))
    folder, settings = read_pipeline(checkpoint, KIND, variant, COMPONENTS)
    text = {**DEFAULTS["text_encoder"], **settings["text_encoder"]}
    if settings["unet"]["projection_class_embeddings_input_dim"] != text["projection_dim"]:
        raise CheckpointError(
            f"{folder}: the text encoder gives {text['projection_dim']} values, and the UNet takes "
            f"{settings['unet']['projection_class_embeddings_input_dim']}. Restore both folders "
            "from one and the same checkpoint."
        )
    where = folder / "tokenizer"
    tokens = read_tokenizer(where, TOKENS, text["pad_token_id"], text["vocab_size"])
    return AudioLDMModel(settings, folder, tokens)


class AudioLDMModel(SampledAudio):
    """Sounds by three networks: noise to a latent in ten steps, to a spectrogram, to sound."""

    components = COMPONENTS

    def __init__(
        self,
        settings: Mapping[str, Settings],
        folder: Path | None = None,
        tokens: Tokens | None = None,
        lengths: tuple[float, float] = LENGTHS,
    ) -> None:
        super().__init__(settings, folder)
        text, vocoder = ({**DEFAULTS[n], **settings[n]} for n in ("text_encoder", "vocoder"))
        self.tokens = tokens or hashed_words(TOKENS, text["pad_token_id"], text["vocab_size"])
        self.width = int(text["projection_dim"])
        self.mels = int(vocoder["model_in_dim"])
        self.sample_rate = int(vocoder["sampling_rate"])
        self.hop = prod(vocoder["upsample_rates"])
        self.reduction = 2 ** (len(settings["vae"]["block_out_channels"]) - 1)
        self.schedule = diffusion.ddim(settings["scheduler"], STEPS)
        self.lengths = lengths
        self.task = AudioGeneration(lengths=(lengths[0], *lengths), brief_seconds=lengths[0])

    def _point(self, seconds: float) -> tuple[str, dict[str, int]]:
        """Return the name and the symbols of the point for a length in seconds."""
        latent = ceil(round(seconds * self.sample_rate / self.hop) / self.reduction)
        return f"{seconds:g}s", {"latent": latent, "frames": latent * self.reduction}

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        channels = self.settings["unet"]["in_channels"]
        latent = (1, channels, "latent", self.mels // self.reduction)
        points = dict(map(self._point, self.lengths))
        # Two rows: the prompt, and an empty one for guidance.
        sentences = Tensor((2, TOKENS), "int32")
        return (
            Graph(
                "text",
                {"ids": sentences, "mask": sentences},
                ("text",),
                {"pair": {}},
                lambda: text_module(self.network("text_encoder")),
            ),
            Graph(
                "denoiser",
                {**diffusion.inputs(latent, self.schedule), "text": Tensor((2, self.width))},
                diffusion.outputs(self.schedule),
                points,
                lambda: diffusion.step_module(self.network("unet"), predict, GUIDANCE),
            ),
            Graph(
                "decoder",
                {"latent": Tensor(latent)},
                ("mel",),
                points,
                lambda: decoder_module(self.network("vae")),
            ),
            Graph(
                "vocoder",
                {"mel": Tensor((1, "frames", self.mels))},
                ("audio",),
                points,
                lambda: vocoder_module(self.network("vocoder")),
            ),
        )

    def adapt(self, name: str, network: Any) -> None:
        if name == "vocoder":
            trim(network.upsampler)

    # Driver ------------------------------------------------------------------------------------

    def sound(self, session: Session, item: Item, stopwatch: Stopwatch) -> Prediction:
        point = self._fitting(item.seconds)
        with stopwatch("text"):
            text = self._read(session, item)
        with stopwatch("denoiser"):
            steps = diffusion.sample(
                session, "denoiser", point, self.schedule, self._noise(item), text
            )
        with stopwatch("decoder"):
            mel = session.run("decoder", {"latent": steps.last[diffusion.LATENT]}, point)
        with stopwatch("vocoder"):
            audio = session.run("vocoder", mel, point)["audio"].numpy()[0]
        samples = round(item.seconds * self.sample_rate)
        latents = steps.outputs[diffusion.LATENT][:, 0]
        return {AUDIO: audio[:samples].copy(), diffusion.LATENTS: latents}

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the prompt's embedding, and the networks' outputs for the reference's latents.

        The outputs are predictions at the latents of steps, and spectrogram and sound of the last
        latent.
        """
        point = self._fitting(item.seconds)
        text = self._read(session, item)
        latents = np.concatenate((self._noise(item), guide[diffusion.LATENTS]))
        predicted = diffusion.predictions(
            session, "denoiser", point, self.schedule, latents[:-1], text
        )
        mel = session.run("decoder", {"latent": latents[-1:]}, point)
        audio = session.run("vocoder", mel, point)["audio"].numpy()[0]
        return {
            "text": text["text"].numpy()[:1].copy(),
            "prediction": predicted,
            "mel": mel["mel"].numpy()[0].copy(),
            "audio": audio.copy(),
        }

    def _fitting(self, seconds: float) -> str:
        """Return the shortest point that holds so many seconds, or the longest."""
        return self._point(next((one for one in self.lengths if one >= seconds), self.lengths[-1]))[
            0
        ]

    def _noise(self, item: Item) -> np.ndarray:
        """Return the first latent of an item, (1, channels, latents in time, mels)."""
        symbols = dict(map(self._point, self.lengths))[self._fitting(item.seconds)]
        channels = self.settings["unet"]["in_channels"]
        shape = 1, channels, symbols["latent"], self.mels // self.reduction
        return normal(seed_of(item), shape)

    def _read(self, session: Session, item: Item) -> dict[str, Handle]:
        """Return the embeddings of an item's prompt and of an empty prompt."""
        ids, mask = self.tokens([str(item.inputs[PROMPT]), ""])
        return session.run("text", {"ids": ids, "mask": mask}, "pair")


# Networks ----------------------------------------------------------------------------------------


def predict(
    network: Any, latents: torch.Tensor, time: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Return the noise that a UNet predicts in latents; the text is a class embedding to it.

    Its attention therefore has no encoder states.
    """
    found: torch.Tensor = network(latents, time, None, class_labels=text, return_dict=False)[0]
    return found


def decoder_module(vae: Any) -> torch.nn.Module:
    """Return the decoder of latents: (1, channels, time, mels) to (1, frames, mels)."""
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = 1 / vae.config.scaling_factor
            self.enter = vae.post_quant_conv
            self.decoder = vae.decoder

        def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.decoder(self.enter(latent * self.scale))[:, 0],)

    return Decoder()


def vocoder_module(vocoder: Any) -> torch.nn.Module:
    """Return the vocoder: log spectra (1, frames, mels) to sound (1, samples)."""
    import torch

    class Vocoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = vocoder

        def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.network(mel),)

    return Vocoder()


def trim(upsampler: torch.nn.ModuleList) -> None:
    """Replace the padding of some transposed convolutions by cutting their outputs, in place.

    The first one, with a stride of 5, a kernel of 16 and a padding of 5, makes one sample more than
    five times its input, for which Chromium 147 builds no WebNN graph. Here the convolution runs
    without padding, and the same samples are cut off behind it.
    """
    import torch

    class Trimmed(torch.nn.ConvTranspose1d):
        cut = 0

        def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
            found = super().forward(x, output_size)
            return found[..., self.cut : found.shape[-1] - self.cut]

    for place, layer in enumerate(upsampler):
        assert isinstance(layer, torch.nn.ConvTranspose1d)
        padding, kernel, stride = int(layer.padding[0]), layer.kernel_size[0], layer.stride[0]
        if padding and kernel - 2 * padding != stride:
            made = Trimmed(layer.in_channels, layer.out_channels, kernel, stride)
            made.weight, made.bias, made.cut = layer.weight, layer.bias, padding
            upsampler[place] = made
