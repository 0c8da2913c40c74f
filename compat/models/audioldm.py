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
from compat.contract.item import Item
from compat.contract.session import Handle, Session
from compat.inputs.checkpoints import CheckpointError
from compat.models.audioldm_settings import COMPONENTS, DEFAULTS, SMALL
from compat.models.parts import diffusion
from compat.models.parts.clap_encoders import TOKENS, text_module
from compat.models.parts.pipeline import Settings, generated, read_pipeline
from compat.models.parts.sampled import SampledAudio, point_name
from compat.models.parts.sentences import Tokens, hashed_words, read_tokenizer
from compat.models.tasks.generation import PROMPT, AudioGeneration

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
        self.schedules = dict.fromkeys(lengths, self.schedule)
        self.task = AudioGeneration(lengths=(lengths[0], *lengths), brief_seconds=lengths[0])

    def latent(self, seconds: float) -> tuple[int, ...]:
        """Return the shape of a latent: channels, positions in time, and in mels."""
        positions = ceil(round(seconds * self.sample_rate / self.hop) / self.reduction)
        return self.settings["unet"]["in_channels"], positions, self.mels // self.reduction

    def _symbols(self, seconds: float) -> dict[str, int]:
        _, positions, _ = self.latent(seconds)
        return {"latent": positions, "frames": positions * self.reduction}

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        channels, _, mels = self.latent(0)
        latent = (1, channels, "latent", mels)
        points = {point_name(one): self._symbols(one) for one in self.schedules}
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

    def read(self, session: Session, item: Item) -> dict[str, Handle]:
        ids, mask = self.tokens([str(item.inputs[PROMPT]), ""])
        return session.run("text", {"ids": ids, "mask": mask}, "pair")

    def decode(
        self, session: Session, latent: np.ndarray | Handle, point: str, stopwatch: Stopwatch
    ) -> tuple[np.ndarray, dict[str, Handle]]:
        with stopwatch("decoder"):
            mel = session.run("decoder", {"latent": latent}, point)
        with stopwatch("vocoder"):
            return session.run("vocoder", mel, point)["audio"].numpy()[0], mel


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
