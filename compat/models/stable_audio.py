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
from compat.contract.item import Item
from compat.contract.session import Handle, Session
from compat.inputs.checkpoints import CheckpointError
from compat.models.parts import diffusion, t5
from compat.models.parts.pipeline import Settings, generated, read_pipeline
from compat.models.parts.sampled import SampledAudio, point_name
from compat.models.parts.sentences import T5, Tokens, hashed_words, read_tokenizer
from compat.models.stable_audio_settings import COMPONENTS, DEFAULTS, SMALL, TWO_LAYERS
from compat.models.tasks.generation import PROMPT, AudioGeneration

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
SMALLER: Mapping[str, Mapping[str, Settings]] = {SHALLOW: TWO_LAYERS, NANO: SMALL}
TOKENS = 128
"""Tokens of a prompt; start and length of the sound are two more."""
GUIDANCE = 7.0
"""Scale of guidance: the default of the library's pipeline."""
STEPS: Mapping[float, int] = {1.0: 8, 47.0: 100}
"""Seconds that graphs are compiled for, with their sampler steps. The first is a shortened latent
with few steps, the second the length of the training with the pipeline's number of steps."""


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
        self.hop = prod(settings["vae"]["downsampling_ratios"])
        self.schedules = {
            seconds: diffusion.cosine_dpm(settings["scheduler"], count)
            for seconds, count in steps.items()
        }
        short, long = steps
        self.task = AudioGeneration(lengths=(short, short, long), brief_seconds=short)

    def latent(self, seconds: float) -> tuple[int, ...]:
        """Return the shape of a latent: channels and frames."""
        frames = ceil(seconds * self.sample_rate / self.hop)
        return self.settings["transformer"]["in_channels"], frames

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        schedule = next(iter(self.schedules.values()))
        points = {point_name(one): {"frames": self.latent(one)[1]} for one in self.schedules}
        latent = (1, self.settings["transformer"]["in_channels"], "frames")
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

    def read(self, session: Session, item: Item) -> dict[str, Handle]:
        ids, mask = self.tokens([str(item.inputs[PROMPT])])
        seconds = np.array([0.0, item.seconds], np.float32)
        return session.run("text", {"ids": ids, "mask": mask, "seconds": seconds}, "one")

    def decode(
        self, session: Session, latent: np.ndarray | Handle, point: str, stopwatch: Stopwatch
    ) -> tuple[np.ndarray, dict[str, Handle]]:
        with stopwatch("decoder"):
            return session.run("decoder", {"latent": latent}, point)["audio"].numpy()[0], {}


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
