"""MusicGen: music from a prompt, by a decoder that writes the codes of a codec.

Source: Copet et al., "Simple and Controllable Music Generation", 2023. Module structure and
parameter names are those of the Hugging Face implementation, so that its checkpoints load
unchanged. T5 reads the prompt, a decoder writes four codes a frame, and EnCodec's decoder turns
them into audio.

The codebooks are written with a delay of one step each. Each step gets as inputs which codebooks
write, the noise by which codes are drawn, and the position. So a whole answer is a single run of
steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import Any

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
from compat.models.musicgen_network import decoder_step, text_module
from compat.models.musicgen_settings import (
    DECODER,
    POSITIONS,
    PROMPT_TOKENS,
    PUBLISHED,
    SEEDED_GAINS,
)
from compat.models.parts import t5
from compat.models.parts.attention import CachedDecoder, forced, greedy
from compat.models.parts.delay import delayed, open_steps, undelayed
from compat.models.parts.hugging_face import HuggingFaceModel, published, read_checkpoint
from compat.models.parts.noise import gumbel
from compat.models.parts.sentences import PIECES, T5, Tokens, hashed_words, read_tokenizer
from compat.models.tasks.generation import AUDIO, PROMPT, TOKENS, CodeGeneration, seed_of

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

SCALE = 3.0
"""Scale of classifier-free guidance, as published."""
TRACED_STEPS = 16
"""Steps whose logits are compared with the reference's."""


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
