"""Stable Audio Open: stereo sound from a sentence, by diffusion of latents with a transformer.

Source: Evans, Parker et al., "Stable Audio Open", 2024. The networks are those of diffusers and
transformers, so that saved pipelines load unchanged.
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
from compat.models.parts import diffusion, t5
from compat.models.parts.noise import normal
from compat.models.parts.pipeline import Component, Settings, generated, read_pipeline
from compat.models.parts.sampled import SampledAudio
from compat.models.parts.sentences import T5, Tokens, hashed_words, read_tokenizer
from compat.models.tasks.generation import AUDIO, PROMPT, AudioGeneration, seed_of

if TYPE_CHECKING:
    import torch

WHOLE, SHALLOW, NANO = "stable-audio-open-1.0", "stable-audio-open-2-layers", "stable-audio-nano"
FAMILY = Family(
    name="stable-audio",
    task="audio-generation",
    row="Audio generation",
    headline=WHOLE,
    variants=(
        Variant(
            WHOLE,
            ("pretrained", "seeded"),
            # With generated weights this size tests no more than two layers do, and takes 17 GB.
            core="pretrained",
            parameters=1323.0,
            checkpoint="stabilityai/stable-audio-open-1.0",
        ),
        # This size has the published width and every operator, for machines where the whole does
        # not fit.
        Variant(SHALLOW, ("seeded",), published=False, parameters=363.0),
        Variant(NANO, ("seeded",), published=False, core=True, parameters=9.0),
    ),
)
KIND = "StableAudioPipeline"

# Factor of the random frequencies by which the network embeds a time. They have a standard
# deviation of one; generated vectors would have a smaller one.
FREQUENCIES = 50 * 3**0.5
COMPONENTS: Mapping[str, Component] = {
    "text_encoder": Component("transformers", "T5EncoderModel", t5.BASE, t5.GAINS),
    "projection_model": Component(
        "diffusers",
        "StableAudioProjectionModel",
        {"text_encoder_dim": 768, "conditioning_dim": 768, "min_value": 0, "max_value": 512},
        {"positional_embedding.0.weights": FREQUENCIES},
    ),
    "transformer": Component(
        "diffusers",
        "StableAudioDiTModel",
        {
            "sample_size": 1024,
            "in_channels": 64,
            "out_channels": 64,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "num_key_value_attention_heads": 12,
            "cross_attention_dim": 768,
            "cross_attention_input_dim": 768,
            "global_states_input_dim": 1536,
            "time_proj_dim": 256,
        },
        # With nearly uniform attention, every prompt would get the same answer. The small output
        # factor is needed because guidance multiplies the difference of two answers by seven, and
        # latents would grow to hundreds.
        {
            "time_proj.": FREQUENCIES,
            "timestep_proj": 3.0,
            "attn2.to_out": 4.0,
            "attn2.": 3.0,
            "attn1.to_out": 2.0,
            "attn1.to_v": 2.0,
            "attn1.": 3.0,
            "proj_out": 0.02,
        },
    ),
    "vae": Component(
        "diffusers",
        "AutoencoderOobleck",
        {
            "encoder_hidden_size": 128,
            "decoder_channels": 128,
            "decoder_input_channels": 64,
            "downsampling_ratios": [2, 4, 4, 8, 8],
            "channel_multiples": [1, 2, 4, 8, 16],
            "audio_channels": 2,
            "sampling_rate": 44_100,
        },
        # The sine of large values loses digits: with louder branches the SNR of float32 would be
        # only 79 dB.
        {"decoder.conv2": 1.0, "conv2": 0.3, "conv1": 0.5},
        fixed={"sampling_rate": 44_100, "audio_channels": 2},
    ),
    "scheduler": Component(
        "diffusers",
        "CosineDPMSolverMultistepScheduler",
        {"sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0},
        fixed={
            "sigma_schedule": "exponential",
            "solver_order": 2,
            "prediction_type": "v_prediction",
            "solver_type": "midpoint",
            "euler_at_final": False,
            "final_sigmas_type": "zero",
        },
    ),
}
DEFAULTS: Mapping[str, Settings] = {
    "text_encoder": {"vocab_size": 32_128, "d_model": 512, "pad_token_id": 0}
}
"""The library's defaults for settings that a checkpoint does not name."""
SMALLER: Mapping[str, Mapping[str, Settings]] = {
    SHALLOW: {"transformer": {"num_layers": 2}},
    NANO: {
        "text_encoder": {
            "vocab_size": 5_000,
            "d_model": 128,
            "d_kv": 32,
            "d_ff": 256,
            "num_layers": 2,
            "num_heads": 4,
        },
        "projection_model": {"text_encoder_dim": 128, "conditioning_dim": 128},
        "transformer": {
            "num_layers": 4,
            "attention_head_dim": 32,
            "num_attention_heads": 8,
            "num_key_value_attention_heads": 4,
            "cross_attention_dim": 128,
            "cross_attention_input_dim": 128,
            "global_states_input_dim": 256,
        },
        "vae": {"encoder_hidden_size": 16, "decoder_channels": 16},
    },
}
"""Settings of the sizes that are not published ones, where they differ. The smallest is for pages
and emulators, which take seconds for the work that a processor does in milliseconds."""

TOKENS = 128
"""Tokens of a prompt; start and length of the sound are two more."""
GUIDANCE = 7.0
"""Scale of guidance: the default of the library's pipeline."""
STEPS: Mapping[float, int] = {1.0: 8, 47.0: 100}
"""Seconds that graphs are compiled for, with their sampler steps. The first is a shortened latent
with few steps, the second the length of the training with the pipeline's number of steps."""
CHANNELS = ("left", "right")


def load(variant: str, weights: str, checkpoint: str) -> StableAudioModel:
    """Load the host side; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the checkpoint is another pipeline, or lacks files.
    """
    if weights == "seeded":
        return StableAudioModel(generated(COMPONENTS, SMALLER.get(variant, {})))
    folder, settings = read_pipeline(checkpoint, KIND, variant, COMPONENTS)
    text = {**DEFAULTS["text_encoder"], **settings["text_encoder"]}
    if settings["projection_model"]["text_encoder_dim"] != text["d_model"]:
        raise CheckpointError(
            f"{folder}: the text encoder gives {text['d_model']} values, and the projection takes "
            f"{settings['projection_model']['text_encoder_dim']}. Restore both folders from one "
            "and the same checkpoint."
        )
    where = folder / "tokenizer"
    tokens = read_tokenizer(where, TOKENS, text["pad_token_id"], text["vocab_size"], T5)
    return StableAudioModel(settings, folder, tokens)


class StableAudioModel(SampledAudio):
    """Stereo sounds by two networks: noise to a latent, step by step, and the latent to sound."""

    components = COMPONENTS

    def __init__(
        self,
        settings: Mapping[str, Settings],
        folder: Path | None = None,
        tokens: Tokens | None = None,
        steps: Mapping[float, int] = STEPS,
    ) -> None:
        super().__init__(settings, folder)
        text = {**DEFAULTS["text_encoder"], **settings["text_encoder"]}
        self.tokens = tokens or hashed_words(TOKENS, text["pad_token_id"], text["vocab_size"], T5)
        self.width = int(settings["projection_model"]["conditioning_dim"])
        self.sample_rate = int(settings["vae"]["sampling_rate"])
        self.channels = int(settings["vae"]["audio_channels"])
        self.latents = int(settings["transformer"]["in_channels"])
        self.hop = prod(settings["vae"]["downsampling_ratios"])
        self.schedules = {
            seconds: diffusion.cosine_dpm(settings["scheduler"], count)
            for seconds, count in steps.items()
        }
        short, long = steps
        self.task = AudioGeneration(lengths=(short, short, long), brief_seconds=short)

    def _frames(self, seconds: float) -> int:
        """Return the number of frames of a latent of so many seconds."""
        return ceil(seconds * self.sample_rate / self.hop)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        schedule = next(iter(self.schedules.values()))
        points = {_point(one): {"frames": self._frames(one)} for one in self.schedules}
        latent = (1, self.latents, "frames")
        sentence = Tensor((1, TOKENS), "int32")
        conditions = {
            "text": Tensor((2, TOKENS + 2, self.width)),
            "duration": Tensor((2, 1, 2 * self.width)),
        }
        return (
            Graph(
                "text",
                {"ids": sentence, "mask": sentence, "seconds": Tensor((2,))},
                tuple(conditions),
                {"one": {}},
                lambda: text_module(self.network("text_encoder"), self.network("projection_model")),
            ),
            Graph(
                "denoiser",
                {**diffusion.inputs(latent, schedule), **conditions},
                diffusion.outputs(schedule),
                points,
                lambda: denoiser_module(self.network("transformer")),
            ),
            Graph(
                "decoder",
                {"latent": Tensor(latent)},
                ("audio",),
                points,
                lambda: decoder_module(self.network("vae")),
            ),
        )

    def adapt(self, name: str, network: Any) -> None:
        if name == "vae":
            fold(network)

    # Driver ------------------------------------------------------------------------------------

    def sound(self, session: Session, item: Item, stopwatch: Stopwatch) -> Prediction:
        fitting = self._fitting(item.seconds)
        point, schedule = _point(fitting), self.schedules[fitting]
        with stopwatch("text"):
            text = self._read(session, item)
        with stopwatch("denoiser"):
            noises = self._noise(item)
            steps = diffusion.sample(session, "denoiser", point, schedule, noises, text)
        with stopwatch("decoder"):
            latent = {"latent": steps.last[diffusion.LATENT]}
            audio = session.run("decoder", latent, point)["audio"].numpy()[0]
        samples = round(item.seconds * self.sample_rate)
        latents = steps.outputs[diffusion.LATENT][:, 0]
        return {AUDIO: audio[:, :samples].copy(), diffusion.LATENTS: latents}

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the conditions, and the networks' outputs for the reference's latents.

        The outputs are predictions at the latents of steps, and both channels of the last latent's
        sound.
        """
        fitting = self._fitting(item.seconds)
        point, schedule = _point(fitting), self.schedules[fitting]
        text = self._read(session, item)
        latents = np.concatenate((self._noise(item)[:1], guide[diffusion.LATENTS]))
        predicted = diffusion.predictions(session, "denoiser", point, schedule, latents[:-1], text)
        audio = session.run("decoder", {"latent": latents[-1:]}, point)["audio"].numpy()[0]
        return {
            "text": text["text"].numpy()[0].copy(),
            "prediction": predicted,
            **{name: wave.copy() for name, wave in zip(CHANNELS, audio, strict=True)},
        }

    def _fitting(self, seconds: float) -> float:
        """Return the seconds of the shortest point that holds the sound, or of the longest."""
        known = list(self.schedules)
        return next((one for one in known if one >= seconds), known[-1])

    def _noise(self, item: Item) -> np.ndarray:
        """Return the first latent of an item and what each step adds, (1 + steps, n, frames)."""
        fitting = self._fitting(item.seconds)
        steps = self.schedules[fitting].steps
        return normal(seed_of(item), (1 + steps, self.latents, self._frames(fitting)))

    def _read(self, session: Session, item: Item) -> dict[str, Handle]:
        """Return the transformer's conditions: with an item's prompt, and without."""
        ids, mask = self.tokens([str(item.inputs[PROMPT])])
        seconds = np.array([0.0, item.seconds], np.float32)
        return session.run("text", {"ids": ids, "mask": mask, "seconds": seconds}, "one")


def _point(seconds: float) -> str:
    return f"{seconds:g}s"


# Networks ----------------------------------------------------------------------------------------


def text_module(encoder: Any, projection: Any) -> torch.nn.Module:
    """Return the module that reads a prompt and the start and the end of its sound.

    It maps ids and mask (1, tokens) and seconds (2,) to the states of cross-attention
    (2, tokens + 2, width) and to the token before the latent (2, 1, 2 x width). The second row is
    without a prompt: as in the library's pipeline, its states are zeros, and its seconds are kept
    in the token.
    """
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = t5.text_module(encoder.encoder, TOKENS)
            self.projection = projection

        def forward(
            self, ids: torch.Tensor, mask: torch.Tensor, seconds: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            (read,) = self.encoder(ids, mask)
            words = self.projection.text_projection(read)
            words = words * mask.unsqueeze(2).to(words.dtype)
            start = self.projection.start_number_conditioner(seconds[:1])
            end = self.projection.end_number_conditioner(seconds[1:])
            text = torch.cat((words, start, end), dim=1)
            duration = torch.cat((start, end), dim=2)
            both = torch.cat((text, torch.zeros_like(text)))
            return both, torch.cat((duration, duration))

    return Text()


def denoiser_module(transformer: Any) -> torch.nn.Module:
    """Return a step of the sampler, with constant tables of positions for the longest latent."""
    import torch
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    class Rotated(torch.nn.Module):
        cosines: torch.Tensor
        sines: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer
            settings = transformer.config
            tables = get_1d_rotary_pos_embed(
                settings.attention_head_dim // 2,
                settings.sample_size + 1,
                use_real=True,
                repeat_interleave_real=False,
            )
            for name, table in zip(("cosines", "sines"), tables, strict=True):
                self.register_buffer(name, table)

        def forward(
            self, latents: torch.Tensor, time: torch.Tensor, *conditions: torch.Tensor
        ) -> torch.Tensor:
            # One position more, as the token of the duration stands before the latent.
            count = latents.shape[2] + 1
            rotary = self.cosines[:count], self.sines[:count]
            found: torch.Tensor = self.transformer(
                latents, time, *conditions, rotary_embedding=rotary, return_dict=False
            )[0]
            return found

    return diffusion.step_module(Rotated(), lambda network, *given: network(*given), GUIDANCE)


def decoder_module(vae: Any) -> torch.nn.Module:
    """Return the decoder of latents: (1, n, frames) to sound (1, channels, samples)."""
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = vae.decoder

        def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.decoder(latent),)

    return Decoder()


def fold(network: torch.nn.Module) -> None:
    """Fold weight normalisation into the kernels of a network, in place."""
    import torch

    with torch.enable_grad():  # Without gradients, the folded kernels would not be parameters.
        for module in network.modules():
            if hasattr(module, "weight_g"):
                torch.nn.utils.remove_weight_norm(module)
