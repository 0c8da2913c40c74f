"""MusicGen: music from a prompt, by a decoder that writes the codes of a codec.

Source: Copet et al., "Simple and Controllable Music Generation", 2023. Module structure and
parameter names are those of the Hugging Face implementation, so that its checkpoints load
unchanged. T5 reads the prompt, a decoder writes four codes a frame, and EnCodec's decoder turns
them into audio.

The codebooks are written with a delay of one step each: at step ``p`` codebook ``c`` gets the code
of frame ``p - c``, or padding if there is no such frame. Each step gets as inputs which codebooks
write, the noise by which codes are drawn, and the position. So a whole answer is a single run of
steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.digests import file_digest
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Handle, Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus
from compat.inputs.weights import read_json
from compat.models import encodec
from compat.models.encodec_network import decoder_module, fill_codebooks, settle
from compat.models.items import Items
from compat.models.parts import t5
from compat.models.parts.attention import (
    CachedDecoder,
    at_position,
    cross_attention_module,
    forced,
    greedy,
    guided,
    step_module,
)
from compat.models.parts.hugging_face import HuggingFaceModel, published, read_checkpoint
from compat.models.parts.noise import gumbel
from compat.models.parts.sentences import PIECES, T5, Tokens, hashed_words, read_tokenizer
from compat.models.tasks.generation import AUDIO, PROMPT, TOKENS, CodeGeneration, seed_of

if TYPE_CHECKING:
    import torch

# Generated weights of the published sizes test support, speed and numerics, and take a minute per
# case. Only those of the smallest size run in the core profile.
FAMILY = Family(
    name="musicgen",
    task="audio-generation",
    row="Audio generation",
    headline="musicgen-small",
    variants=(
        Variant("musicgen-nano", ("seeded",), published=False, core=True, parameters=1.8),
        replace(published("musicgen-small", "facebook/musicgen-small", 586.9), core="pretrained"),
        published("musicgen-medium", "facebook/musicgen-medium", 2005.3),
    ),
)

# Settings of Hugging Face's MusicgenConfig. Others have its defaults.
_TEXT = {"model_type": "t5", **t5.BASE}
_CODEC = {"model_type": "encodec", **encodec.PUBLISHED["encodec-32khz"]}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "musicgen-small": {
        "text_encoder": _TEXT,
        "audio_encoder": _CODEC,
        "decoder": {"model_type": "musicgen_decoder"},
    },
    "musicgen-medium": {
        "text_encoder": _TEXT,
        "audio_encoder": _CODEC,
        "decoder": {
            "model_type": "musicgen_decoder",
            "num_hidden_layers": 48,
            "hidden_size": 1536,
            "num_attention_heads": 24,
            "ffn_dim": 6144,
        },
    },
    # This size is not a published one. It has all operators of the others, and is small enough for
    # every browser.
    "musicgen-nano": {
        "text_encoder": {
            **_TEXT,
            "vocab_size": 1024,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 256,
            "num_layers": 2,
            "num_heads": 4,
        },
        "audio_encoder": {**_CODEC, "num_filters": 4},
        "decoder": {
            "model_type": "musicgen_decoder",
            "num_hidden_layers": 4,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "ffn_dim": 256,
        },
    },
}
DECODER: Mapping[str, Any] = {
    "vocab_size": 2048,
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_codebooks": 4,
    "audio_channels": 1,
    "pad_token_id": 2048,
}
"""Defaults of MusicgenDecoderConfig."""

PROMPT_TOKENS = 64
"""Tokens of a prompt; longer ones are cut."""
POSITIONS = 512
"""Positions of the caches: ten seconds are 503 steps. Shorter requests use the same caches, because
a decoder of another shape would hold the weights once more (two decoders of the small size take
3.4 GB)."""
SCALE = 3.0
"""Scale of classifier-free guidance, as published."""
TRACED_STEPS = 16
"""Steps whose logits are compared with the reference's."""

# Without these factors, codes would hardly change the sum of embedding and position, attention
# would be nearly uniform, and every prompt would get the same answer.
SEEDED_GAINS: Mapping[str, float | None] = {
    **t5.GAINS,
    "relative_attention_bias": 1.0,
    "encoder_attn.q_proj": 3.0,
    "encoder_attn.k_proj": 3.0,
    "encoder_attn.out_proj": 4.0,
    "encoder_attn.v_proj": 2.0,
    "decoder.embed_tokens": 8.0,
    "bias": encodec.SEEDED_GAINS["bias"],
}


def load(variant: str, weights: str, checkpoint: str) -> MusicgenModel:
    """Load the host side of a variant; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or lacks files.
    """
    if weights == "seeded":
        return MusicgenModel(PUBLISHED[variant])
    parts = {"text_encoder": "t5", "audio_encoder": "encodec", "decoder": "musicgen_decoder"}
    folder, config = read_checkpoint(checkpoint, "musicgen", "MusicGen", variant, parts)
    for name, kind in parts.items():
        found = config[name].get("model_type") if isinstance(config[name], dict) else None
        if found != kind:
            raise CheckpointError(
                f"{folder / 'config.json'} describes {name} as {found!r}, not {kind!r}. Restore "
                "the file from the checkpoint."
            )
    decoder = {**DECODER, **config["decoder"]}
    if decoder["audio_channels"] != 1:
        raise CheckpointError(
            f"{folder / 'config.json'} has {decoder['audio_channels']} audio_channels, whose "
            "codebooks are interleaved. Name a checkpoint of one channel, such as "
            f"facebook/{variant}."
        )
    text = {**t5.BASE, **config["text_encoder"]}
    tokens = read_tokenizer(folder, PROMPT_TOKENS, text["pad_token_id"], text["vocab_size"], T5)
    return MusicgenModel(config, folder, tokens)


class MusicgenModel(HuggingFaceModel):
    """Draws the codes of a prompt with guidance, and decodes them."""

    task: CodeGeneration
    architecture = "MusicgenForConditionalGeneration"
    gains = SEEDED_GAINS
    # The first are only used in training; the last is a table of positions, which is computed.
    needless = (*encodec.EncodecModel.needless, "weights")

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        super().__init__(config, folder)
        text, codec = {**t5.BASE, **config["text_encoder"]}, config["audio_encoder"]
        decoder = {**DECODER, **config["decoder"]}
        self.tokens = tokens or hashed_words(
            PROMPT_TOKENS, text["pad_token_id"], text["vocab_size"], T5
        )
        self.sample_rate = int(codec["sampling_rate"])
        self.hop: int = prod(codec["upsampling_ratios"])
        self.padding = int(decoder["pad_token_id"])
        self.vocabulary = int(decoder["vocab_size"])
        self.sizes = CachedDecoder(
            layers=decoder["num_hidden_layers"],
            heads=decoder["num_attention_heads"],
            head=decoder["hidden_size"] // decoder["num_attention_heads"],
            past=POSITIONS,
            cross=PROMPT_TOKENS,
            codebooks=decoder["num_codebooks"],
            guidance=True,
        )
        self.width = decoder["hidden_size"]
        self.task = CodeGeneration()
        settings = folder / "generation_config.json" if folder else None
        stored = read_json(settings) if settings and settings.is_file() else {}
        self.scale = float(stored.get("guidance_scale") or SCALE)

    def content(self) -> Any:
        pieces = self.folder / PIECES if self.folder else None
        known = file_digest(pieces) if pieces and pieces.is_file() else ""
        return [super().content(), known]

    def adapt(self, network: Any) -> None:
        settle(network.audio_encoder)
        if not self.folder:
            fill_codebooks(network.audio_encoder, encodec.DECLINE)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        sizes, one = self.sizes, {"batch": 1}
        prompt = Tensor(("batch", PROMPT_TOKENS), "int32")
        step = ("batch", sizes.codebooks)
        return (
            Graph(
                "text",
                {"ids": prompt, "mask": prompt},
                ("memory", *sizes.cross_inputs),
                {"b1": one},
                lambda: text_module(self.network),
            ),
            Graph(
                "decoder",
                {
                    "mask": prompt,
                    "noise": Tensor((*step, self.vocabulary)),
                    "open": Tensor((sizes.codebooks,), "int32"),
                    **sizes.inputs,
                },
                ("next_token", "logits"),
                {"b1": one},
                lambda: decoder_step(self.network, self.scale),
                sizes.state,
            ),
            Graph(
                "codec",
                {"codes": Tensor((*step, "frames"), "int32"), "used": Tensor(step)},
                ("audio",),
                {self._point(n): {**one, "frames": n} for n in map(self.frames, self._lengths)},
                lambda: decoder_module(self.network.audio_encoder),
            ),
        )

    @property
    def _lengths(self) -> list[float]:
        return sorted({*self.task.lengths})

    def frames(self, seconds: float) -> int:
        """Return the number of frames of so many seconds."""
        return ceil(seconds * self.sample_rate / self.hop)

    @staticmethod
    def _point(frames: int) -> str:
        return f"b1-{frames}"

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        return self.task.unscored_items(self.sample_rate, profile)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        return [self._one(session, item, stopwatch) for item in items]

    def _one(self, session: Session, item: Item, stopwatch: Stopwatch) -> Prediction:
        frames, books = self.frames(item.seconds), self.sizes.codebooks
        with stopwatch("noise"):
            count = frames + books - 1
            noise = gumbel(seed_of(item), (count, 1, books, self.vocabulary))
        with stopwatch("text"):
            feeds = self._read(session, item)
        before = sum(stopwatch.stages.values())
        with stopwatch("decoder"):
            begin = np.full((1, 1, books), self.padding, np.int32)
            along = {"noise": noise, "open": open_steps(frames, books)}
            steps = greedy(session, feeds, "b1", begin, count, along=along)
            tokens = undelayed(steps.outputs["next_token"][:, 0])
        stopwatch.marks["first_step"] = before + steps.first_s
        stopwatch.marks["step"] = stopwatch.stages["decoder"] / count
        with stopwatch("codec"):
            audio = self._decoded(session, tokens)
        return {AUDIO: audio, TOKENS: tokens}

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        tokens = np.asarray(guide[TOKENS])
        feeds = self._read(session, item)
        memory = feeds["memory"].numpy()[0].copy()
        books = self.sizes.codebooks
        silent = np.zeros((1, books, self.vocabulary), np.float32)
        still = {**feeds, "noise": silent, "open": np.ones(books, np.int32)}
        along = delayed(tokens, self.padding)[:TRACED_STEPS, None]
        logits = forced(session, still, "b1", along)
        return {
            "memory": memory,
            "logits": logits.reshape(len(logits), -1),
            "audio": self._decoded(session, tokens)[:, None],
        }

    def _read(self, session: Session, item: Item) -> dict[str, Any]:
        """Return the decoder's inputs for a prompt: ``memory``, keys and values, and ``mask``."""
        ids, mask = self.tokens([str(item.inputs[PROMPT])])
        text: dict[str, Handle] = session.run("text", {"ids": ids, "mask": mask}, "b1")
        return {**text, "mask": mask}

    def _decoded(self, session: Session, tokens: np.ndarray) -> np.ndarray:
        """Return the audio (samples,) of tokens (frames, codebooks)."""
        feeds = {"codes": tokens.T[None], "used": np.ones((1, tokens.shape[1]), np.float32)}
        outputs = session.run("codec", feeds, self._point(len(tokens)))
        audio: np.ndarray = outputs["audio"].numpy()[0, 0].copy()
        return audio


# The delay ---------------------------------------------------------------------------------------


def open_steps(frames: int, codebooks: int) -> np.ndarray:
    """Return which codebooks write a code at each step, int32 (frames + codebooks - 1, codebooks).

    Codebooks with 0 write padding: they are before their first frame or after their last one.
    """
    frame = np.arange(frames + codebooks - 1)[:, None] - np.arange(codebooks)
    return ((frame >= 0) & (frame < frames)).astype(np.int32)


def delayed(tokens: np.ndarray, padding: int) -> np.ndarray:
    """Return the inputs of the steps for given frames, int32 (frames + codebooks, codebooks).

    The first step gets only padding, each further step the codes that the one before wrote.
    """
    frames, codebooks = tokens.shape
    steps = np.full((frames + codebooks, codebooks), padding, np.int32)
    for book in range(codebooks):
        steps[1 + book : 1 + book + frames, book] = tokens[:, book]
    return steps


def undelayed(steps: np.ndarray) -> np.ndarray:
    """Return the frames (frames, codebooks) of the codes that steps wrote (steps, codebooks)."""
    frames = len(steps) - steps.shape[1] + 1
    books = [steps[book : book + frames, book] for book in range(steps.shape[1])]
    return np.stack(books, axis=1).astype(np.int32)


# Modules -----------------------------------------------------------------------------------------


def text_module(network: Any) -> torch.nn.Module:
    """Return the module that reads a prompt: ids and mask (1, tokens) to memory, keys and values.

    Memory (1, tokens, width) is T5's output in the decoder's width, with zeros at padding. Keys and
    values are those of both ways of guidance. The way without the prompt attends to zeros; as the
    projections have no biases, its keys and values are zeros too.
    """
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = t5.text_module(network.text_encoder.encoder, PROMPT_TOKENS)
            # The checkpoint has no projection if both widths are equal.
            self.project = getattr(network, "enc_to_dec_proj", torch.nn.Identity())
            layers = network.decoder.model.decoder.layers
            self.across = cross_attention_module([layer.encoder_attn for layer in layers])

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (hidden,) = self.encoder(ids, mask)
            memory = self.project(hidden) * mask[..., None].to(hidden.dtype)
            both = [torch.cat((one, one * 0.0), dim=1) for one in self.across(memory)]
            return (memory, *both)

    return Text()


def decoder_step(network: Any, scale: float) -> torch.nn.Module:
    """Return one step of the decoder, with guidance.

    It maps the mask of the prompt (batch, tokens), noise (batch, codebooks, codes), which codebooks
    write (codebooks,), and the inputs of :class:`CachedDecoder` to the codes of the next step
    (batch, codebooks), the logits without noise (batch, codebooks, codes), and new keys and values.
    A codebook that does not write gives padding.
    """
    import torch

    decoder = network.decoder.model.decoder

    class Step(torch.nn.Module):
        table: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.books, self.heads = decoder.embed_tokens, network.decoder.lm_heads
            self.norm = decoder.layer_norm
            self.step = step_module(decoder.layers, POSITIONS)
            self.padding = int(network.decoder.config.pad_token_id)
            self.embed_scale = float(decoder.embed_scale)
            self.register_buffer("table", decoder.embed_positions.weights[:POSITIONS])

        def forward(
            self,
            mask: torch.Tensor,
            noise: torch.Tensor,
            writes: torch.Tensor,
            token: torch.Tensor,
            position: torch.Tensor,
            *tensors: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            embedded = sum(book(token[:, i : i + 1]) for i, book in enumerate(self.books))
            placed = embedded * self.embed_scale + at_position(self.table, position)
            unheard = ((1 - mask).to(placed.dtype) * -1e4)[:, None, None, :]
            hidden = placed.expand(-1, 2, -1)  # Two ways: with the prompt, and without.
            hidden, *written = self.step(hidden, position, *tensors, cross_mask=unheard)
            normed = self.norm(hidden)
            logits = guided(torch.stack([head(normed) for head in self.heads], dim=2), scale)
            drawn = (logits + noise).argmax(dim=-1).to(torch.int32)
            written_codes = drawn * writes + self.padding * (1 - writes)
            return (written_codes, logits, *written)

    return Step()
